"""The full gradient of random networks equals the mean of one-row gradients, whatever is between parameters and loss.

A network is dealt operators from the tables below. Each of them gets its inputs from the next ones: a weight is a
parameter, or what another operator computes of parameters. No operator lets rows of a batch influence each other, so
a row's gradient is the one that a plain Module computes of that row alone.
"""

import itertools
from collections import Counter

import mxnet as mx
import numpy as np
import pytest

from svrg_optimization import SVRGModule

# One for which every network has a gradient. Another table needs another seed perhaps.
SEED = 23
NETWORKS = 300
# Relative to the largest entry of a parameter's gradient; and to that of all of them, for what is left of terms that
# cancel.
TOLERANCE, ROUNDING = 1e-10, 1e-14

S = mx.sym


# ------------------------------------------------------------------------------------------- of symbols of any shape


def _positive(x):
    return S.square(x) + 0.5


def _bounded(x):
    return 0.9 * S.tanh(x)


def _rounded(round_):
    # The gradient of what is rounded is zero: the other summand has one.
    return lambda x: x + round_(3 * x)


# mxnet adds up the gradients of what is used 8 times or more in place, which some operators botch, RNN and
# linalg_gemm for instance: already for one row. What is used so often in a network here is not used by them.


def _used_ten_times(x):
    x = S.identity(x)
    return sum([S.sin(k * x) for k in range(1, 10)], S.cos(x)) / 5


# Elementwise operators of one input: for weights, and for what the network computes of its rows.
UNARY = {
    "abs": S.abs,
    "arccos": lambda x: S.arccos(_bounded(x)),
    "arccosh": lambda x: S.arccosh(_positive(x) + 1),
    "arcsin": lambda x: S.arcsin(_bounded(x)),
    "arcsinh": S.arcsinh,
    "arctan": S.arctan,
    "arctanh": lambda x: S.arctanh(_bounded(x)),
    "cbrt": lambda x: S.cbrt(_positive(x)),
    "ceil": _rounded(S.ceil),
    "clip": lambda x: S.clip(x, -0.75, 0.75),
    "cos": S.cos,
    "cosh": lambda x: S.cosh(_bounded(x)),
    "degrees": lambda x: S.degrees(x) / 50,
    "erf": S.erf,
    "erfinv": lambda x: S.erfinv(_bounded(x)),
    "exp": lambda x: S.exp(_bounded(x)),
    "expm1": lambda x: S.expm1(_bounded(x)),
    "fix": _rounded(S.fix),
    "floor": _rounded(S.floor),
    "gamma": lambda x: S.gamma(_bounded(x) + 2),
    "gammaln": lambda x: S.gammaln(_positive(x) + 2),
    "hard_sigmoid": S.hard_sigmoid,
    "identity": S.identity,
    "log": lambda x: S.log(_positive(x)),
    "log10": lambda x: S.log10(_positive(x)),
    "log1p": lambda x: S.log1p(_positive(x)),
    "log2": lambda x: S.log2(_positive(x)),
    "negative": S.negative,
    "radians": lambda x: S.radians(50 * x),
    "rcbrt": lambda x: S.rcbrt(_positive(x)),
    "reciprocal": lambda x: S.reciprocal(_positive(x)),
    "relu": S.relu,
    "rint": _rounded(S.rint),
    "round": _rounded(S.round),
    "rsqrt": lambda x: S.rsqrt(_positive(x)),
    "sigmoid": S.sigmoid,
    "sign": _rounded(S.sign),
    "sin": S.sin,
    "sinh": lambda x: S.sinh(_bounded(x)),
    "smooth_l1": lambda x: S.smooth_l1(x, scalar=2),
    "softsign": S.softsign,
    "sqrt": lambda x: S.sqrt(_positive(x)),
    "square": lambda x: S.square(_bounded(x)),
    "tan": lambda x: S.tan(_bounded(x)),
    "tanh": S.tanh,
    "trunc": _rounded(S.trunc),
    "activation softrelu": lambda x: S.Activation(x, act_type="softrelu"),
    "activation relu": lambda x: S.Activation(x, act_type="relu"),
    "activation tanh": lambda x: S.Activation(x, act_type="tanh"),
    "leaky relu": lambda x: S.LeakyReLU(x, act_type="leaky", slope=0.25),
    "elu": lambda x: S.LeakyReLU(x, act_type="elu", slope=0.5),
    "selu": lambda x: S.LeakyReLU(x, act_type="selu"),
    "gelu": lambda x: S.LeakyReLU(x, act_type="gelu"),
    "plus scalar": lambda x: x + 0.75,
    "minus scalar": lambda x: x - 0.75,
    "scalar minus": lambda x: 0.75 - x,
    "times scalar": lambda x: 1.5 * x,
    "by scalar": lambda x: x / 1.5,
    "scalar by": lambda x: 1.5 / _positive(x),
    "power scalar": lambda x: _positive(x) ** 1.5,
    "scalar power": lambda x: S.pow(1.5, x),
    "maximum scalar": lambda x: S.maximum(x, 0.125),
    "minimum scalar": lambda x: S.minimum(x, 0.125),
    "hypot scalar": lambda x: S.hypot(x, 0.75),
    "modulo scalar": lambda x: x % 0.75,
    "compare scalar": lambda x: (x > 0.125) * x + (x <= 0.125) * (2 * x),
    "quadratic": lambda x: S.contrib.quadratic(_bounded(x), a=0.5, b=1, c=2),
    "gradient multiplier": lambda x: S.contrib.gradientmultiplier(x, scalar=0.5),
    "round straight through": lambda x: S.contrib.round_ste(3 * x),
    "sign straight through": lambda x: S.contrib.sign_ste(x),
    "block gradient": lambda x: x * S.BlockGrad(x),
    "zeros and ones": lambda x: S.ones_like(x) * x + S.zeros_like(x),
    "cast": lambda x: S.cast(x, dtype="float64"),
    "used twice": lambda x: x * S.tanh(x) + x,
    "used ten times": _used_ten_times,
    "div_sqrt_dim": S.contrib.div_sqrt_dim,
    "custom": lambda x: S.Custom(_bounded(x), op_type="fuzz_cube"),
}

# Elementwise operators of two inputs; those named broadcast_ let one of them have a single row.
BINARY = {
    "plus": lambda a, b: a + b,
    "minus": lambda a, b: a - b,
    "times": lambda a, b: a * b,
    "divided by": lambda a, b: a / _positive(b),
    "power": lambda a, b: _positive(a) ** _bounded(b),
    "modulo": lambda a, b: a % _positive(b),
    "maximum": S.maximum,
    "minimum": S.minimum,
    "hypot": lambda a, b: S.hypot(_positive(a), b),
    "greater": lambda a, b: (a > b) * a + (a <= b) * b,
    "equal": lambda a, b: (a == b) + (a != b) * a - b,
    "where": lambda a, b: S.where(a > b, 2 * a + b, a * b),
    "add_n": lambda a, b: S.add_n(a, b, a),
    "reshape_like": lambda a, b: S.reshape_like(a, b) * b,
    "broadcast_add": S.broadcast_add,
    "broadcast_sub": S.broadcast_sub,
    "broadcast_mul": S.broadcast_mul,
    "broadcast_div": lambda a, b: S.broadcast_div(a, _positive(b)),
    "broadcast_power": lambda a, b: S.broadcast_power(_positive(a), _bounded(b)),
    "broadcast_mod": lambda a, b: S.broadcast_mod(a, _positive(b)),
    "broadcast_maximum": S.broadcast_maximum,
    "broadcast_minimum": S.broadcast_minimum,
    "broadcast_hypot": lambda a, b: S.broadcast_hypot(_positive(a), b),
    "broadcast_greater": lambda a, b: S.broadcast_mul(S.broadcast_greater(a, b), b) + a,
    "broadcast_like": lambda a, b: a * S.broadcast_like(b, a),
}


# ----------------------------------------------------------------------------------------------- operators of weights


def _as_matrix(build):
    """An operator that gives the weight as a matrix, `build(net, rows, columns)`."""
    return lambda net, shape: S.reshape(build(net, shape[0], int(np.prod(shape[1:]))), shape=shape)


def _of_matrix(operator):
    """An operator that keeps the shape of a matrix."""
    return _as_matrix(lambda net, a, b: operator(net.weight((a, b))))


def _of_image(operator):
    """An operator that keeps the shape of an image, of four channels, whose sum is taken."""

    def build(net, shape):
        image = net.weight((1, 1, shape[0], int(np.prod(shape[1:]))))
        image = S.concat(image, S.sin(image), S.cos(image), 2 * image, dim=1)
        return S.reshape(S.sum(operator(image), axis=1), shape=shape)

    return build


def _reduced(reduce, count=3):
    """An operator that takes an axis away."""
    return lambda net, shape: reduce(net.weight((count, *shape)))


def _positive_definite(net, n):
    """A matrix with a bounded inverse."""
    return S.linalg.syrk(S.tanh(net.weight((n, n)))) + S.eye(n, dtype="float64")


def _of_square(operator):
    """An operator that turns a square matrix into one, which a matrix is multiplied by."""
    return _as_matrix(lambda net, a, b: S.dot(operator(_positive_definite(net, a)), net.weight((a, b))))


def _of_square_to_number(operator):
    return lambda net, shape: S.broadcast_mul(
        net.weight(shape), S.reshape(operator(_positive_definite(net, 3)), shape=(1,) * len(shape))
    )


def _numbers(n, step=1, below=None):
    """0, step, 2 step, ... modulo `below`."""
    numbers = S.arange(0, n * step, step, dtype="float64")
    return numbers if below is None else numbers % below


def _other_axis_one(net, shape):
    """The shape with one axis of a single entry."""
    axis = int(net.rng.integers(len(shape)))
    return axis, tuple(1 if k == axis else size for k, size in enumerate(shape))


def _tiled(net, shape):
    axis, small = _other_axis_one(net, shape)
    return S.tile(net.weight(small), reps=tuple(shape[k] if k == axis else 1 for k in range(len(shape))))


def _repeated(net, shape):
    axis, small = _other_axis_one(net, shape)
    return S.repeat(net.weight(small), repeats=shape[axis], axis=axis)


def _broadcast_axis(net, shape):
    axis, small = _other_axis_one(net, shape)
    return S.broadcast_axis(net.weight(small), axis=axis, size=shape[axis])


def _sliced(net, shape):
    larger = net.weight(tuple(size + 1 for size in shape))
    return S.slice(larger, begin=(1,) * len(shape), end=tuple(size + 1 for size in shape))


def _swapped(net, shape):
    if len(shape) == 1:
        return S.reshape(S.SwapAxis(net.weight((1, *shape)), dim1=0, dim2=1), shape=shape)
    return S.SwapAxis(net.weight((shape[1], shape[0], *shape[2:])), dim1=0, dim2=1)


def _halves(net, shape, **kwargs):
    return list(S.split(net.weight((2 * shape[0], *shape[1:])), num_outputs=2, axis=0, **kwargs))


def _loop(net, shape):
    """A loop over the rows of a weight, with another weight in its body."""
    other = S.reshape(net.weight((1, *shape[1:])), shape=shape[1:])
    outputs, _ = S.contrib.foreach(
        lambda row, states: (row * other + states[0], [S.tanh(states[0] + row)]),
        net.weight(shape),
        [S.reshape(net.weight((1, *shape[1:])), shape=shape[1:])],
    )
    return outputs


def _of_several_axes(operator):
    """An operator for arrays of two axes or more."""
    return lambda net, shape: S.reshape(operator(net, shape if len(shape) > 1 else (*shape, 1)), shape=shape)


# Operators that give a weight of the wanted shape, of other weights.
WEIGHTS = {
    # Which entry goes where.
    "transpose": lambda net, shape: S.transpose(net.weight(shape[::-1])),
    "transpose axes": _of_several_axes(
        lambda net, shape: S.transpose(
            net.weight((*shape[1:], shape[0])), axes=(len(shape) - 1, *range(len(shape) - 1))
        )
    ),
    "SwapAxis": _swapped,
    "reshape": lambda net, shape: S.reshape(net.weight((int(np.prod(shape)),)), shape=shape),
    "Flatten": lambda net, shape: S.reshape(S.Flatten(net.weight((1, *shape))), shape=shape),
    "expand_dims, squeeze": lambda net, shape: S.squeeze(S.expand_dims(net.weight(shape), axis=1), axis=1),
    "reverse": lambda net, shape: S.reverse(net.weight(shape), axis=0),
    "slice": _sliced,
    "slice step": lambda net, shape: S.slice(
        net.weight((2 * shape[0], *shape[1:])), begin=(None,), end=(None,), step=(-2,)
    ),
    "slice_axis": lambda net, shape: S.slice_axis(net.weight((shape[0] + 2, *shape[1:])), axis=0, begin=1, end=-1),
    "slice_like": lambda net, shape: S.slice_like(net.weight((shape[0] + 1, *shape[1:])), net.weight(shape)),
    "split": lambda net, shape: S.elemwise_mul(*_halves(net, shape)),
    "split, one of them": lambda net, shape: _halves(net, shape)[1],
    "split_v2": lambda net, shape: S.elemwise_sub(*S.split_v2(net.weight((2, *shape)), 2, axis=0, squeeze_axis=True)),
    "concat": lambda net, shape: S.slice_axis(
        S.concat(net.weight((1, *shape[1:])), net.weight(shape), dim=0), axis=0, begin=0, end=-1
    ),
    "_rnn_param_concat": lambda net, shape: S.sum(
        S.reshape(
            mx.sym._internal._rnn_param_concat(*(net.weight((int(np.prod(shape)),)) for _ in range(3)), dim=0),
            shape=(3, *shape),
        ),
        axis=0,
    ),
    "stack": lambda net, shape: S.sum(S.stack(net.weight(shape), net.weight(shape), net.weight(shape)), axis=0),
    "tile": _tiled,
    "repeat": _repeated,
    "broadcast_axis": _broadcast_axis,
    "broadcast_to": lambda net, shape: S.broadcast_to(net.weight(_other_axis_one(net, shape)[1]), shape=shape),
    "scalar": lambda net, shape: S.broadcast_mul(net.weight(shape), net.weight((1,) * len(shape))),
    "Pad": _of_image(
        lambda x: S.slice_axis(
            S.Pad(x, mode="edge", pad_width=(0, 0, 0, 0, 1, 1, 1, 1)), axis=2, begin=0, end=-2
        ).slice_axis(axis=3, begin=2, end=None)
    ),
    "diag": _as_matrix(lambda net, a, b: S.diag(net.weight((b, b, a)), axis1=0, axis2=1)),
    "diag of vector": _as_matrix(lambda net, a, b: S.dot(S.diag(net.weight((a,))), net.weight((a, b)))),
    "take": lambda net, shape: S.take(net.weight((3, *shape[1:])), _numbers(shape[0], 2, 3)),
    "take axis": lambda net, shape: S.take(net.weight((*shape[:-1], 3)), _numbers(shape[-1], 2, 3), axis=-1),
    "gather_nd": lambda net, shape: S.gather_nd(
        net.weight((3, 2, *shape[1:])), S.stack(_numbers(shape[0], 2, 3), _numbers(shape[0], 1, 2))
    ),
    "scatter_nd": lambda net, shape: S.scatter_nd(
        net.weight(shape), S.reverse(S.reshape(_numbers(shape[0]), shape=(1, -1)), axis=1), shape=shape
    ),
    "pick": lambda net, shape: S.pick(
        net.weight((*shape, 3)), S.reshape(_numbers(int(np.prod(shape)), 2, 3), shape=shape), axis=-1
    ),
    "one_hot": _as_matrix(
        lambda net, a, b: S.dot(S.one_hot(_numbers(a, 2, 3), depth=3, dtype="float64"), net.weight((3, b)))
    ),
    "Embedding of weight": _as_matrix(
        lambda net, a, b: S.Embedding(_numbers(a, 2, 3), net.weight((3, b)), input_dim=3, output_dim=b)
    ),
    "depth_to_space": lambda net, shape: (
        S.mean(S.depth_to_space(S.reshape(net.weight((4, *shape)), shape=(1, 4, shape[0], -1)), 2), axis=(0, 1))
        .reshape((4, *shape))
        .sum(axis=0)
    ),
    "space_to_depth": _as_matrix(
        lambda net, a, b: S.sum(S.space_to_depth(net.weight((1, 1, 2 * a, 2 * b)), 2), axis=(0, 1))
    ),
    "im2col": _of_image(lambda x: S.im2col(x, kernel=(1, 1))),
    "SequenceReverse": lambda net, shape: S.SequenceReverse(net.weight((*shape[:1], 2, *shape[1:]))).sum(axis=1),
    "sort": lambda net, shape: S.sort(net.weight(shape), axis=0),
    "topk": lambda net, shape: S.topk(net.weight((*shape[:-1], shape[-1] + 1)), axis=-1, k=shape[-1], ret_typ="value"),
    # Sums and the like.
    "sum": _reduced(lambda x: S.sum(x, axis=0)),
    "mean": _reduced(lambda x: S.mean(x, axis=0)),
    "prod": _reduced(lambda x: S.prod(_bounded(x) + 1, axis=0)),
    "nansum": _reduced(lambda x: S.nansum(x, axis=0)),
    "nanprod": _reduced(lambda x: S.nanprod(_bounded(x) + 1, axis=0)),
    "max": _reduced(lambda x: S.max(x, axis=0)),
    "min": _reduced(lambda x: S.min(x, axis=0)),
    "norm": _reduced(lambda x: S.norm(x, axis=0)),
    "norm 1": _reduced(lambda x: S.norm(x, axis=0, ord=1)),
    "moments": _reduced(lambda x: S.elemwise_mul(*S.moments(x, axes=(0,)))),
    "variance": _reduced(lambda x: S.moments(x, axes=(0,))[1]),
    "sum of all": lambda net, shape: S.broadcast_mul(
        net.weight(shape), S.reshape(S.sum(net.weight((2, 2))), shape=(1,) * len(shape))
    ),
    "cumsum": lambda net, shape: S.cumsum(net.weight(shape), axis=0),
    "softmax": lambda net, shape: S.softmax(net.weight((*shape, 2)), axis=-2).sum(axis=-1),
    "log_softmax": lambda net, shape: S.log_softmax(net.weight((*shape, 2))).sum(axis=-1),
    "softmin": lambda net, shape: (
        S.softmin(net.weight((2, *shape)), axis=0).slice_axis(axis=0, begin=0, end=1).reshape(shape)
    ),
    "L2Normalization": _of_matrix(S.L2Normalization),
    "LayerNorm": lambda net, shape: (
        S.LayerNorm(net.weight((*shape, 3)), net.weight((3,)), net.weight((3,)), axis=-1)
        .slice_axis(axis=-1, begin=0, end=1)
        .reshape(shape)
    ),
    "GroupNorm": _as_matrix(
        lambda net, a, b: S.GroupNorm(
            net.weight((1, 2 * a, b)), net.weight((2,)), net.weight((2,)), num_groups=2
        ).slice_axis(axis=1, begin=0, end=a),
    ),
    "Pooling": _of_image(lambda x: S.Pooling(x, kernel=(3, 3), pad=(1, 1), pool_type="max")),
    "UpSampling": _of_image(
        lambda x: S.slice(
            S.UpSampling(x, scale=2, sample_type="nearest"), begin=(None,) * 4, end=(None,) * 4, step=(1, 1, 2, 2)
        )
    ),
    "prelu": lambda net, shape: _of_image(lambda x: S.LeakyReLU(x, net.weight((4,)), act_type="prelu"))(net, shape),
    # Products.
    "dot": _as_matrix(lambda net, a, b: S.dot(net.weight((a, 3)), net.weight((3, b)))),
    "dot, first transposed": _as_matrix(
        lambda net, a, b: S.dot(net.weight((3, a)), net.weight((3, b)), transpose_a=True)
    ),
    "dot, second transposed": _as_matrix(
        lambda net, a, b: S.dot(net.weight((a, 3)), net.weight((b, 3)), transpose_b=True)
    ),
    "dot, both transposed": _as_matrix(
        lambda net, a, b: S.dot(net.weight((3, a)), net.weight((b, 3)), transpose_a=True, transpose_b=True)
    ),
    "batch_dot": lambda net, shape: S.reshape(
        S.batch_dot(net.weight((shape[0], 1, 2)), net.weight((shape[0], 2, int(np.prod(shape[1:]))))), shape=shape
    ),
    "batch_dot transposed": _as_matrix(
        lambda net, a, b: S.sum(
            S.batch_dot(net.weight((2, 3, a)), net.weight((2, b, 3)), transpose_a=True, transpose_b=True), axis=0
        ),
    ),
    "gemm": _as_matrix(
        lambda net, a, b: S.linalg.gemm(
            net.weight((a, 2)), net.weight((2, b)), net.weight((a, b)), alpha=0.5, beta=2.0
        ),
    ),
    "gemm transposed": _as_matrix(
        lambda net, a, b: S.linalg.gemm(
            net.weight((2, a)), net.weight((b, 2)), net.weight((a, b)), transpose_a=True, transpose_b=True
        ),
    ),
    "gemm2": _as_matrix(
        lambda net, a, b: S.linalg.gemm2(net.weight((a, 2)), net.weight((b, 2)), transpose_b=True, alpha=0.5)
    ),
    "trmm": _as_matrix(lambda net, a, b: S.linalg.trmm(net.weight((a, a)), net.weight((a, b)), alpha=0.5)),
    "trmm right": _as_matrix(
        lambda net, a, b: S.linalg.trmm(
            net.weight((b, b)), net.weight((a, b)), rightside=True, transpose=True, lower=False
        ),
    ),
    "trsm": _as_matrix(lambda net, a, b: S.linalg.trsm(_positive_definite(net, a), net.weight((a, b)))),
    "syrk": _of_square(lambda x: S.linalg.syrk(x, transpose=True, alpha=0.125)),
    "potrf": _of_square(S.linalg.potrf),
    "potri": _of_square(lambda x: S.linalg.potri(S.linalg.potrf(x))),
    "inverse": _of_square(S.linalg.inverse),
    "extractdiag": _of_square(lambda x: S.linalg.makediag(S.linalg.extractdiag(x))),
    "extracttrian": _of_square(lambda x: S.linalg.maketrian(S.linalg.extracttrian(x))),
    # Of its eigenvalues only: the gradients of its eigenvectors are inexact if two eigenvalues are close.
    "syevd": _of_square(lambda x: S.broadcast_mul(x, S.reshape(S.linalg.syevd(x)[1], shape=(1, -1)))),
    "gelqf": _of_square(lambda x: S.linalg.gelqf(x)[1]),
    "det": _of_square_to_number(S.linalg.det),
    "slogdet": _of_square_to_number(lambda x: S.linalg.slogdet(x)[1]),
    "sumlogdiag": _of_square_to_number(lambda x: S.linalg.sumlogdiag(S.linalg.potrf(x))),
    "FullyConnected of weights": _as_matrix(
        lambda net, a, b: S.FullyConnected(net.weight((a, 2)), net.weight((b, 2)), net.weight((b,)), num_hidden=b),
    ),
    "Convolution of weights": _as_matrix(
        lambda net, a, b: S.Convolution(
            net.weight((1, 2, a, b)), net.weight((1, 2, 1, 1)), net.weight((1,)), kernel=(1, 1), num_filter=1
        ),
    ),
    "Deconvolution of weights": _as_matrix(
        lambda net, a, b: S.Deconvolution(
            net.weight((1, 2, a, b)), net.weight((2, 1, 1, 1)), kernel=(1, 1), num_filter=1
        ),
    ),
    "foreach": _of_several_axes(_loop),
    # One parameter in several places.
    "same parameter twice": lambda net, shape: (lambda w: S.tanh(w) * w + w)(net.parameter(shape)),
    "same matrix twice": _as_matrix(
        lambda net, a, b: (lambda w: S.dot(S.dot(w, S.transpose(w)), w))(net.parameter((a, b)))
    ),
}


# ------------------------------------------------------------------------------------------------ operators of rows


def _rows(x, *shape):
    return S.reshape(x, shape=(0, *shape))


def _times_first(x):
    """Axes 0 and 1 exchanged: what has a sequence for each row, as operators of sequences want it."""
    return S.SwapAxis(x, dim1=0, dim2=1)


def _fully_connected(net, x, n, hidden=None, bias=True):
    hidden = hidden or int(net.rng.integers(2, 5))
    more = [net.weight((hidden,))] if bias else []
    return S.FullyConnected(x, net.weight((hidden, n)), *more, num_hidden=hidden, no_bias=not bias), hidden


def _dense(net, x, n, hidden):
    return S.FullyConnected(x, net.weight((hidden, n)), no_bias=True, num_hidden=hidden)


def _image(net, x, n, channels=2, height=3, width=3):
    """The rows as images: each a product with a weight."""
    size = channels * height * width
    return _rows(_dense(net, x, n, size), channels, height, width)


def _sequence(net, x, n, steps=3, size=2):
    """The rows as sequences, the rows along axis 1."""
    return _times_first(_rows(_dense(net, x, n, steps * size), steps, size))


def _flat(x, n):
    return S.Flatten(x), n


def _convolution(kernel, channels=2, operator=S.Convolution, out=2, size=3, **kwargs):
    """A layer on images with as many axes as the kernel; it must keep their number of entries per channel."""

    def build(net, x, n):
        image = _rows(_dense(net, x, n, channels * size ** len(kernel)), channels, *[size] * len(kernel))
        groups = kwargs.get("num_group", 1)
        shape = (out, channels // groups) if operator is S.Convolution else (channels, out // groups)
        y = operator(image, net.weight((*shape, *kernel)), net.weight((out,)), kernel=kernel, num_filter=out,
                     no_bias=False, **kwargs)  # fmt: skip
        return net.fold(y)

    return build


def _pooling(**kwargs):
    return lambda net, x, n: net.fold(S.Pooling(_image(net, x, n), **kwargs))


def _rnn(mode, gates, layers=1, bidirectional=False):
    def build(net, x, n):
        sequence, directions = _sequence(net, x, n), 1 + bidirectional
        start = S.zeros_like(S.slice_axis(sequence, axis=0, begin=0, end=1))
        states = [
            S.broadcast_add(start, net.weight((layers * directions, 1, 2))) for _ in range(2 if mode == "lstm" else 1)
        ]
        # For each direction of a layer: weights of its input and of its state, and a bias for each.
        inputs = [2] + [2 * directions] * (layers - 1)
        size = sum(directions * gates * 2 * (entries + 2 + 2) for entries in inputs)
        y = S.RNN(sequence, net.weight((size,)), *states, state_size=2, num_layers=layers, mode=mode,
                  bidirectional=bidirectional)  # fmt: skip
        return net.fold(_times_first(y))

    return build


def _unrolled(net, x, n):
    """A recurrent cell of ten steps: its weights are used in each."""
    into, within = S.identity(net.weight((n, 3))), net.parameter((3, 3), alone=True)
    state = S.dot(x, into)
    for _ in range(9):
        state = S.tanh(S.dot(state, within) + S.dot(x, into))
    return state, 3


def _foreach(net, x, n):
    weight, sequence = net.weight((2, 2)), _sequence(net, x, n)
    start = S.reshape(S.zeros_like(S.slice_axis(sequence, axis=0, begin=0, end=1)), shape=(-1, 2))
    outputs, states = S.contrib.foreach(
        lambda row, states: (S.dot(row, weight), [S.tanh(S.dot(states[0], weight) + row)]), sequence, [start]
    )
    return net.fold(S.concat(_times_first(outputs), S.expand_dims(states[0], axis=1), dim=1))


def _per_row(net, x, weight):
    """A weight, once for each row."""
    return S.broadcast_like(S.expand_dims(weight, axis=0), x, lhs_axes=(0,), rhs_axes=(0,))


def _normalized(operator):
    return lambda net, x, n: net.fold(operator(_image(net, x, n), net.weight((2,)), net.weight((2,))))


def _shared(net, x, n):
    """Two layers of one weight."""
    weight = net.weight((n, n))
    return S.FullyConnected(S.tanh(S.FullyConnected(x, weight, no_bias=True, num_hidden=n)), weight, no_bias=True,
                            num_hidden=n), n  # fmt: skip


def _affine_grid(net, x, n):
    still = S.reshape(S.eye(2, 3, dtype="float64"), shape=(1, 6))
    move = S.broadcast_add(0.125 * S.tanh(S.dot(x, net.weight((n, 6)))), still)
    return S.SpatialTransformer(_image(net, x, n), move, transform_type="affine", sampler_type="bilinear",
                                target_shape=(2, 2))  # fmt: skip


# Layers: of rows with n entries; they give the new rows and their number of entries.
LAYERS = {
    "FullyConnected": _fully_connected,
    "FullyConnected without bias": lambda net, x, n: _fully_connected(net, x, n, bias=False),
    "FullyConnected of sequences": lambda net, x, n: net.fold(
        S.FullyConnected(
            _times_first(_sequence(net, x, n)), net.weight((2, 2)), net.weight((2,)), num_hidden=2, flatten=False
        )
    ),
    "dot of rows": lambda net, x, n: (S.dot(x, net.weight((n, 3))), 3),
    "dot of rows, transposed": lambda net, x, n: (S.dot(x, net.weight((3, n)), transpose_b=True), 3),
    "dot of rows, sum of weights": lambda net, x, n: (S.dot(x, net.weight((n, 3)) + net.weight((n, 3))), 3),
    "FullyConnected, product of weights": lambda net, x, n: (
        S.FullyConnected(x, net.weight((3, n)) * net.weight((3, n)), no_bias=True, num_hidden=3),
        3,
    ),
    "batch_dot of rows": lambda net, x, n: _flat(S.batch_dot(_rows(x, 1, -1), _per_row(net, x, net.weight((n, 3)))), 3),
    "batch_dot of two rows": lambda net, x, n: net.fold(
        S.batch_dot(_rows(x, -1, 1), _rows(S.dot(x, net.weight((n, 2))), 1, 2))
    ),
    "gemm2 of rows": lambda net, x, n: (S.linalg.gemm2(x, net.weight((n, 3)), alpha=0.5), 3),
    "gemm2 of rows, transposed": lambda net, x, n: (S.linalg.gemm2(x, net.weight((3, n)), transpose_b=True), 3),
    "gemm of rows": lambda net, x, n: (
        S.linalg.gemm(x, net.weight((n, 3)), _per_row(net, x, net.weight((3,))), alpha=0.5, beta=2.0),
        3,
    ),
    "trmm of rows": lambda net, x, n: (S.linalg.trmm(net.weight((n, n)), x, rightside=True), n),
    "trsm of rows": lambda net, x, n: (S.linalg.trsm(_positive_definite(net, n), x, rightside=True), n),
    "unrolled": _unrolled,
    "foreach of rows": _foreach,
    "RNN lstm": _rnn("lstm", 4),
    "RNN gru": _rnn("gru", 3),
    "RNN tanh": _rnn("rnn_tanh", 1),
    "RNN lstm, two layers": _rnn("lstm", 4, layers=2),
    "RNN gru, both directions": _rnn("gru", 3, bidirectional=True),
    "Convolution": _convolution((2, 2)),
    "Convolution 1": _convolution((2,)),
    "Convolution 3": _convolution((2, 2, 2)),
    "Convolution, groups": _convolution((2, 2), num_group=2),
    "Convolution, dilate": _convolution((2, 2), dilate=(2, 2), pad=(1, 1)),
    "Deconvolution": _convolution((2, 2), operator=S.Deconvolution),
    "Deconvolution, stride": _convolution((2, 2), operator=S.Deconvolution, stride=(2, 2)),
    "Deconvolution, groups": _convolution((2, 2), operator=S.Deconvolution, num_group=2),
    "Pooling max": _pooling(kernel=(2, 2), pool_type="max"),
    "Pooling avg": _pooling(kernel=(2, 2), pool_type="avg"),
    "Pooling sum": _pooling(kernel=(2, 2), pool_type="sum"),
    "Pooling lp": lambda net, x, n: net.fold(
        S.Pooling(_positive(_image(net, x, n)), kernel=(2, 2), pool_type="lp", p_value=2)
    ),
    "Pooling global": _pooling(global_pool=True, pool_type="avg"),
    "AdaptiveAvgPooling2D": lambda net, x, n: net.fold(
        S.contrib.AdaptiveAvgPooling2D(_image(net, x, n), output_size=(2, 2))
    ),
    "UpSampling of rows": lambda net, x, n: net.fold(S.UpSampling(_image(net, x, n), scale=2, sample_type="nearest")),
    "SpatialTransformer": lambda net, x, n: net.fold(_affine_grid(net, x, n)),
    "BilinearSampler": lambda net, x, n: net.fold(
        S.BilinearSampler(_image(net, x, n), _bounded(_rows(S.dot(x, net.weight((n, 8))), 2, 2, 2)))
    ),
    "Pad of rows": lambda net, x, n: net.fold(
        S.Pad(_image(net, x, n), mode="reflect", pad_width=(0, 0, 0, 0, 1, 1, 1, 1))
    ),
    "depth_to_space of rows": lambda net, x, n: net.fold(S.depth_to_space(_image(net, x, n, 4, 2, 2), 2)),
    "space_to_depth of rows": lambda net, x, n: net.fold(S.space_to_depth(_image(net, x, n, 1, 4, 2), 2)),
    "im2col of rows": lambda net, x, n: net.fold(S.im2col(_image(net, x, n), kernel=(2, 2))),
    "col2im of rows": lambda net, x, n: net.fold(
        S.col2im(_rows(S.dot(x, net.weight((n, 32))), 8, 4), kernel=(2, 2), output_size=(3, 3))
    ),
    "LayerNorm of rows": lambda net, x, n: (
        S.LayerNorm(S.concat(x, S.sin(3 * x) + 1, dim=1), net.weight((2 * n,)), net.weight((2 * n,))),
        2 * n,
    ),
    "GroupNorm of rows": _normalized(lambda x, gamma, beta: S.GroupNorm(x, gamma, beta, num_groups=2)),
    "BatchNorm, global": lambda net, x, n: net.fold(
        S.BatchNorm(_image(net, x, n), net.weight((2,)), net.weight((2,)), use_global_stats=True, fix_gamma=False)
    ),
    "L2Normalization of rows": lambda net, x, n: net.fold(S.L2Normalization(_image(net, x, n), mode="channel")),
    "L2Normalization, spatial": lambda net, x, n: net.fold(S.L2Normalization(_image(net, x, n), mode="spatial")),
    "softmax of rows": lambda net, x, n: net.fold(S.softmax(_times_first(_sequence(net, x, n)), axis=1)),
    "log_softmax of rows": lambda net, x, n: (S.log_softmax(2 * S.dot(x, net.weight((n, 3)))), 3),
    "prelu of rows": lambda net, x, n: (S.LeakyReLU(x, net.weight((n,)), act_type="prelu"), n),
    "norm of rows": lambda net, x, n: (S.broadcast_div(x, 1 + S.norm(x, axis=1, keepdims=True)), n),
    "norm 1 of rows": lambda net, x, n: (S.broadcast_div(x, 1 + S.norm(x, axis=1, keepdims=True, ord=1)), n),
    "mean of rows": lambda net, x, n: (S.broadcast_sub(2 * x, S.mean(x, axis=1, keepdims=True)), n),
    "max of rows": lambda net, x, n: (S.broadcast_sub(2 * x, S.max(x, axis=1, keepdims=True)), n),
    "prod of rows": lambda net, x, n: (S.broadcast_mul(x, S.prod(_bounded(x) + 1, axis=1, keepdims=True)), n),
    "moments of rows": lambda net, x, n: (S.concat(x, *S.moments(x, axes=(1,), keepdims=True), dim=1), n + 2),
    "cumsum of rows": lambda net, x, n: (S.cumsum(x, axis=1), n),
    "sort of rows": lambda net, x, n: (S.sort(x, axis=1), n),
    "topk of rows": lambda net, x, n: (S.topk(x, axis=1, k=2, ret_typ="both")[0], 2),
    "concat of rows": lambda net, x, n: (S.concat(x, S.dot(x, net.weight((n, 2))), dim=1), n + 2),
    "stack of rows": lambda net, x, n: net.fold(S.stack(x, S.broadcast_mul(x, net.weight((1, n))), axis=1)),
    "split of rows": lambda net, x, n: (
        S.elemwise_mul(*S.split(S.dot(x, net.weight((n, 6))), num_outputs=2, axis=1)),
        3,
    ),
    "slice of rows": lambda net, x, n: (S.slice(S.dot(x, net.weight((n, 5))), begin=(None, 1), end=(None, 4)), 3),
    "slice_axis of rows": lambda net, x, n: (S.slice_axis(x, axis=1, begin=0, end=2), 2),
    "slice_like of rows": lambda net, x, n: (S.slice_like(S.dot(x, net.weight((n, n + 2))), x, axes=(1,)), n),
    "reverse of rows": lambda net, x, n: (S.reverse(x, axis=1) * x, n),
    "tile of rows": lambda net, x, n: (S.tile(x, reps=(1, 2)) * S.dot(x, net.weight((n, 2 * n))), 2 * n),
    "repeat of rows": lambda net, x, n: (S.repeat(x, repeats=2, axis=1) * S.dot(x, net.weight((n, 2 * n))), 2 * n),
    "transpose of rows": lambda net, x, n: net.fold(S.transpose(_image(net, x, n), axes=(0, 2, 3, 1))),
    "transpose, rows last": lambda net, x, n: (S.transpose(S.broadcast_mul(S.transpose(x), net.weight((n, 1)))), n),
    "expand_dims of rows": lambda net, x, n: (
        S.squeeze(S.broadcast_add(S.expand_dims(x, axis=2), net.weight((1, n, 1))), axis=2),
        n,
    ),
    "where of rows": lambda net, x, n: (S.where(x > 0, x, S.broadcast_mul(x, net.weight((1, n)))), n),
    "Embedding": lambda net, x, n: (
        S.concat(x, S.Embedding(net.integers(4), net.weight((4, 2)), input_dim=4, output_dim=2), dim=1),
        n + 2,
    ),
    "Embedding, sparse": lambda net, x, n: (
        x * S.Embedding(net.integers(4), net.weight((4, n)), input_dim=4, output_dim=n, sparse_grad=True),
        n,
    ),
    "take of rows": lambda net, x, n: (x * S.take(net.weight((4, n)), net.integers(4)), n),
    "gather_nd of rows": lambda net, x, n: (
        x * S.gather_nd(net.weight((2, 3, n)), S.stack(net.integers(2), net.integers(3))),
        n,
    ),
    "pick of rows": lambda net, x, n: (S.broadcast_mul(x, S.pick(x, net.integers(2), axis=1, keepdims=True)), n),
    "SequenceMask": lambda net, x, n: net.fold(
        _times_first(S.SequenceMask(_sequence(net, x, n), net.integers(4), use_sequence_length=True, value=0.5))
    ),
    "SequenceLast of rows": lambda net, x, n: (
        S.SequenceLast(_sequence(net, x, n), net.integers(3) + 1, use_sequence_length=True),
        2,
    ),
    "SequenceReverse of rows": lambda net, x, n: net.fold(
        _times_first(S.SequenceReverse(_sequence(net, x, n), net.integers(3) + 1, use_sequence_length=True))
    ),
    "second input": lambda net, x, n: (x * S.dot(net.input(3), net.weight((3, n))), n),
    "input beside": lambda net, x, n: (S.concat(x, net.input(2), dim=1), n + 2),
    "input added": lambda net, x, n: (_dense(net, x, n, 3) + net.input(3), 3),
    "weight sharing": _shared,
    "residual": lambda net, x, n: (x + S.tanh(_fully_connected(net, x, n, n)[0]), n),
    "weight of rows": lambda net, x, n: (S.broadcast_mul(x, net.weight((1, n))), n),
    "bias of rows": lambda net, x, n: (S.broadcast_add(x, net.weight((1, n))), n),
}
# What takes a weight that no layer asked for.
OF_ONE_WEIGHT = ["FullyConnected without bias", "dot of rows", "dot of rows, transposed", "gemm2 of rows",
                 "weight of rows", "bias of rows"]  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- losses


def _softmax(**kwargs):
    return lambda net, x, n: S.SoftmaxOutput(x, net.classes(n), **kwargs)


def _softmax_of_positions(**kwargs):
    return lambda net, x, n: S.SoftmaxOutput(
        _rows(S.dot(x, net.weight((n, 6))), 3, 2), net.classes(3, 2), multi_output=True, **kwargs
    )


def _error_of_row(net, x, n):
    return S.sum(S.square(x - net.targets(n)), axis=1)


# Their gradient has a term for each row.
SUMS = {
    "LinearRegressionOutput": lambda net, x, n: S.LinearRegressionOutput(x, net.targets(n)),
    "LinearRegressionOutput, scale": lambda net, x, n: S.LinearRegressionOutput(x, net.targets(n), grad_scale=0.5),
    "LogisticRegressionOutput": lambda net, x, n: S.LogisticRegressionOutput(x, net.classes(2, n)),
    "MAERegressionOutput": lambda net, x, n: S.MAERegressionOutput(x, net.targets(n)),
    "SoftmaxOutput": _softmax(),
    "SoftmaxOutput, scale": _softmax(grad_scale=2),
    "SoftmaxOutput, ignore": _softmax(use_ignore=True, ignore_label=0),
    "SoftmaxOutput, smooth": _softmax(smooth_alpha=0.125),
    "SoftmaxOutput, positions": _softmax_of_positions(),
    "SoftmaxOutput, positions, ignore": _softmax_of_positions(use_ignore=True, ignore_label=0),
    "SoftmaxOutput, preserve": lambda net, x, n: S.SoftmaxOutput(
        _rows(S.dot(x, net.weight((n, 6))), 2, 3), net.classes(3, 2), preserve_shape=True
    ),
    "SVMOutput": lambda net, x, n: S.SVMOutput(x, net.classes(n), margin=2),
    "SVMOutput, linear": lambda net, x, n: S.SVMOutput(x, net.classes(n), use_linear=True, margin=2),
    "MakeLoss of rows": lambda net, x, n: S.MakeLoss(_error_of_row(net, x, n)),
    "MakeLoss of entries": lambda net, x, n: S.MakeLoss(S.smooth_l1(x - net.targets(n)), grad_scale=0.5),
    "MakeLoss of a sum": lambda net, x, n: S.MakeLoss(S.sum(_error_of_row(net, x, n))),
    "make_loss": lambda net, x, n: S.make_loss(_error_of_row(net, x, n)),
    "log-likelihood": lambda net, x, n: S.MakeLoss(-S.pick(S.log_softmax(x), net.classes(n), axis=1)),
    "softmax_cross_entropy": lambda net, x, n: S.MakeLoss(S.softmax_cross_entropy(x, net.classes(n))),
    "two losses of one": lambda net, x, n: S.Group(
        [S.LinearRegressionOutput(x, net.targets(n)), S.MakeLoss(0.5 * _error_of_row(net, S.tanh(x), n))]
    ),
    "loss beside an output": lambda net, x, n: S.Group(
        [S.LinearRegressionOutput(x, net.targets(n)), S.BlockGrad(S.tanh(x))]
    ),
    "loss without label": lambda net, x, n: S.MakeLoss(S.log(1 + S.square(x))),
}
# Their gradient is the mean over the rows.
MEANS = {
    "SoftmaxOutput, batch": _softmax(normalization="batch"),
    "SoftmaxOutput, valid": _softmax(normalization="valid"),
    "SoftmaxOutput, positions, batch": _softmax_of_positions(normalization="batch"),
    "MakeLoss, batch": lambda net, x, n: S.MakeLoss(_rows(_error_of_row(net, x, n), 1), normalization="batch"),
    "MakeLoss of entries, batch": lambda net, x, n: S.MakeLoss(S.square(x - net.targets(n)), normalization="batch"),
}
LOSSES = {**SUMS, **MEANS}

# What common networks have. Of these it is known, by the operators' names, that larger batches may be taken.
COMMON = [
    "FullyConnected", "FullyConnected without bias", "FullyConnected, product of weights", "weight sharing", "residual",
    "input added", "input beside", "Embedding", "prelu of rows", "activation relu", "activation softrelu", "leaky relu",
    "relu", "sigmoid", "tanh", "softsign", "square", "clip", "negative", "plus", "minus", "times", "broadcast_add",
    "broadcast_mul", "used twice", "plus scalar", "times scalar", "identity",
]  # fmt: skip
COMMON_LOSSES = [
    "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput", "SoftmaxOutput", "SVMOutput",
    "loss beside an output",
]  # fmt: skip

OPERATORS = {**UNARY, **BINARY, **WEIGHTS, **LAYERS}
assert len(OPERATORS) == sum(map(len, (UNARY, BINARY, WEIGHTS, LAYERS))), "two operators have one name"


class _Cube(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], in_data[0] ** 3)

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self.assign(in_grad[0], req[0], 3 * out_grad[0] * in_data[0] ** 2)


@mx.operator.register("fuzz_cube")
class _CubeProp(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return _Cube()


# ------------------------------------------------------------------------------------- which network is made of what

# Samples, rows of a batch: divided evenly or not, fewer than a batch, and so many that larger batches are taken.
SIZES = [(12, 4), (11, 4), (13, 6), (9, 2), (3, 4), (5, 1), (1, 2), (16, 8)]
MANY = [(3000, 8), (3001, 8)]
# mxnet divides by the rows in float32, which is exact for these.
SIZES_OF_MEANS = [(12, 4), (13, 4), (14, 4), (9, 2), (2, 4), (5, 1), (1, 2), (16, 8)]
FEEDS = ["NDArrayIter", "NDArrayIter", "list", "iterator"]
WAYS = [dict(), dict(overlap=True), dict(overlap=False), dict(save_memory=True)]


def _deals(table, rng):
    """The names in a table, in random order, each as often as any other."""
    while True:
        for number in rng.permutation(len(table)):
            yield list(table)[number]


def _plans():
    """For each network: the operators and losses it is made of, and how its data is given."""
    rng = np.random.default_rng(SEED)
    deals = {
        "any": (_deals(OPERATORS, rng), _deals(SUMS, rng), SIZES),
        "averages": (_deals(OPERATORS, rng), _deals(MEANS, rng), SIZES_OF_MEANS),
        "many": (_deals(OPERATORS, rng), _deals(SUMS, rng), MANY),
        "common": (_deals(COMMON, rng), _deals(COMMON_LOSSES, rng), MANY),
    }
    for number in range(NETWORKS):
        kind = "averages" if number % 6 == 5 else {7: "many", 12: "common"}.get(number % 15, "any")
        operators, losses, sizes = deals[kind]
        size, has_many = sizes[rng.integers(len(sizes))], kind in ("many", "common")
        yield dict(
            operators=list(itertools.islice(operators, 3 + number % 6)),
            losses=list(itertools.islice(losses, 1 + number % 2)),
            size=size,
            feed="NDArrayIter" if has_many else FEEDS[rng.integers(len(FEEDS))],
            way=WAYS[rng.integers(len(WAYS))],
            devices=1 if has_many or size[1] == 1 else int(rng.integers(1, 3)),
            callback=not has_many and rng.random() < 0.25,
        )


PLANS = list(_plans())


class Network:
    """A random network, its parameters and its data."""

    def __init__(self, number):
        self.plan = PLANS[number]
        self.rng = np.random.default_rng([SEED, number])
        self.n, self.batch_size = self.plan["size"]
        self.parameters, self.data, self.labels, self._variables = {}, {}, {}, {}
        # Of many samples, most are equal: their gradients are computed once.
        self.distinct = min(self.n, 20)
        self.samples = np.arange(self.n) if self.n == self.distinct else self.rng.integers(self.distinct, size=self.n)
        self._to_share, self._of_weights = [], []
        x, n = self.input(3), 3
        for name in self.plan["operators"]:
            # An elementwise operator is for a weight or for rows; and what is for a weight waits for one.
            if name in WEIGHTS or (name not in LAYERS and self.rng.random() < 0.5):
                self._of_weights.append(name)
        for name in [name for name in self.plan["operators"] if name not in self._of_weights]:
            x, n = self._layer(name, x, n)
        while self._of_weights or not self.parameters:
            x, n = LAYERS[OF_ONE_WEIGHT[self.rng.integers(len(OF_ONE_WEIGHT))]](self, x, n)
        self.symbol = S.Group([LOSSES[name](self, x, n) for name in self.plan["losses"]])
        # The means and variances of batch normalisation, of two channels.
        self.states = {name: self.rng.uniform(0.5, 1.5, 2) for name in self.symbol.list_auxiliary_states()}

    def _layer(self, name, x, n):
        if name in LAYERS:
            return LAYERS[name](self, x, n)
        if name in UNARY:
            return UNARY[name](x), n
        other = self.weight((1, n)) if name.startswith("broadcast") else _dense(self, x, n, n)
        return BINARY[name](x, other), n

    def weight(self, shape):
        """A parameter, or what the next operator computes of parameters."""
        if not self._of_weights or self.rng.random() < 0.3:
            return self.parameter(shape)
        name = self._of_weights.pop()
        if name in WEIGHTS:
            return WEIGHTS[name](self, shape)
        if name in UNARY:
            return UNARY[name](self.weight(shape))
        other = _other_axis_one(self, shape)[1] if name.startswith("broadcast") else shape
        return BINARY[name](self.weight(shape), self.weight(other))

    def parameter(self, shape, alone=False):
        """A new parameter, or sometimes one that is used elsewhere too; with `alone`, a new one that stays alone."""
        same = [name for name in self._to_share if self.parameters[name].shape == shape]
        if same and not alone and self.rng.random() < 0.25:
            return self._variable(same[0])
        name = "parameter%d" % len(self.parameters)
        if not alone:
            self._to_share.append(name)
        self.parameters[name] = self.rng.uniform(-1, 1, shape)
        return self._variable(name, shape)

    def input(self, *shape):
        """Data: numbers for each row."""
        return self._given(self.data, "data", self.rng.normal(size=(self.distinct, *shape)))

    def integers(self, below, *shape):
        """Data: integers for each row."""
        return self._given(self.data, "data", self.rng.integers(below, size=(self.distinct, *shape)))

    def targets(self, *shape):
        """A label: numbers for each row."""
        return self._given(self.labels, "label", self.rng.normal(size=(self.distinct, *shape)))

    def classes(self, count, *shape):
        """A label: the numbers of classes, for each row."""
        values = self.rng.integers(count, size=(self.distinct, *shape))
        # Losses may ignore class 0: not everywhere.
        values[0] = count - 1
        return self._given(self.labels, "label", values)

    def fold(self, x):
        """Rows of a few entries, of rows of any shape; and their number."""
        data = {name: values.shape for name, values in self.data.items()}
        _, (shape,), _ = x.infer_shape(**{name: data[name] for name in x.list_arguments() if name in data})
        size = int(np.prod(shape[1:]))
        return (_dense(self, x, size, 3), 3) if size > 6 else (S.Flatten(x), size)

    def _given(self, arrays, kind, values):
        name = "%s%02d" % (kind, len(arrays))
        arrays[name] = values.astype(np.float64)
        return self._variable(name)

    def _variable(self, name, shape=None):
        if name not in self._variables:
            self._variables[name] = S.Variable(name, shape=shape, dtype="float64")
        return self._variables[name]

    def bound(self, make, batch_size, **kwargs):
        """A Module, or the like, of the network, with its parameters."""
        module = make(self.symbol, data_names=list(self.data), label_names=list(self.labels) or None, **kwargs)
        data, labels = (
            [mx.io.DataDesc(name, (batch_size, *values.shape[1:]), np.float64) for name, values in arrays.items()]
            for arrays in (self.data, self.labels)
        )
        module.bind(data, labels or None)
        parameters, states = (
            {name: _nd(value) for name, value in arrays.items()} for arrays in (self.parameters, self.states)
        )
        module.init_params(arg_params=parameters, aux_params=states)
        return module

    def batch(self, rows, pad=0):
        """The batch of these distinct rows."""
        return mx.io.DataBatch(
            *([_nd(values[rows]) for values in arrays.values()] for arrays in (self.data, self.labels)), pad=pad
        )

    def feed(self):
        """All samples, as the plan says."""
        if self.plan["feed"] == "NDArrayIter":
            data, labels = (
                {name: _nd(values[self.samples]) for name, values in arrays.items()}
                for arrays in (self.data, self.labels)
            )
            return mx.io.NDArrayIter(data, labels or None, self.batch_size)
        if self.plan["feed"] == "iterator" and self.plan["devices"] == 1:
            return _Batches(self.batch(self.samples[rows]) for rows in _split(self.n, self.batch_size))
        return [
            self.batch(self.samples[np.resize(rows, self.batch_size)], pad=self.batch_size - len(rows))
            for rows in _split(self.n, self.batch_size)
        ]


class _Batches:
    """A user's data iterator: its last batch is as small as it comes out."""

    def __init__(self, batches):
        self._batches = list(batches)
        self.reset()

    def reset(self):
        self._left = iter(self._batches)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._left)


def _split(n, batch_size):
    return [np.arange(start, min(start + batch_size, n)) for start in range(0, n, batch_size)]


def _nd(values):
    return mx.nd.array(values, dtype=np.float64)


# ------------------------------------------------------------------------------------------------------- the two ways


def mean_of_one_row_gradients(network):
    """The mean over the samples of the gradient of each alone, by a plain Module."""
    module = network.bound(mx.mod.Module, 1)
    gradients = module._exec_group.execs[0].grad_dict
    total = {name: np.zeros(value.shape) for name, value in network.parameters.items()}
    for row, count in Counter(network.samples.tolist()).items():
        module.forward(network.batch([row]), is_train=True)
        module.backward()
        for name in total:
            total[name] += count * gradients[name].asnumpy()
    return {name: value / network.n for name, value in total.items()}


def full_gradient(network):
    """What `SVRGModule.update_full_grads` computes."""
    plan = network.plan
    contexts = [mx.cpu(k) for k in range(plan["devices"])]
    module = network.bound(SVRGModule, network.batch_size, context=contexts, **plan["way"])
    module.init_optimizer(kvstore="local")
    module.update_full_grads(network.feed(), batch_end_callback=(lambda _: None) if plan["callback"] else None)
    if hasattr(SVRGModule, "full_gradient"):
        return {name: value.asnumpy() for name, value in module.full_gradient.items()}
    # What the first device adds to a full batch: of its rows, or their mean.
    rows = 1 if plan["losses"][0] in MEANS else network.batch_size // plan["devices"]
    return {name: value.asnumpy() / rows for name, value in module._param_dict[0].items()}


def test_every_operator_and_every_loss_occurs():
    operators = Counter(name for plan in PLANS for name in plan["operators"])
    losses = Counter(name for plan in PLANS for name in plan["losses"])
    assert min(operators[name] for name in OPERATORS) >= 3
    assert min(losses[name] for name in LOSSES) >= 3
    for setting in ("feed", "way", "devices", "callback", "size"):
        assert min(Counter(str(plan[setting]) for plan in PLANS).values()) >= 3


@pytest.mark.parametrize("number", range(NETWORKS))
def test_the_full_gradient_is_the_mean_of_one_row_gradients(number):
    network = Network(number)
    expected, actual = mean_of_one_row_gradients(network), full_gradient(network)
    assert set(actual) == set(expected)
    largest = {name: np.abs(value).max() for name, value in expected.items()}
    assert all(np.isfinite(value) for value in largest.values())
    # A test that compares zeros tests nothing; single parameters may lose theirs, by a BlockGrad for instance.
    assert max(largest.values()) > 1e-3
    rounding = ROUNDING * max(1, *largest.values())
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=0, atol=TOLERANCE * largest[name] + rounding, err_msg=str((name, network.plan))
        )
