"""What operators do to the rows of a batch, and where gradients come from."""

import mxnet as mx
import pytest

from svrg_optimization.mxnet_api import rows
from svrg_optimization.svrg.full_gradient import BatchGradient

# Rows that don't influence each other, as far as is known, and others.
APART, MEAN, SUM = ((form, True) for form in (rows.ROWS, rows.MEAN, rows.SUM))
COUPLED, UNKNOWN = (rows.ROWS, False), (rows.UNKNOWN, False)


@mx.operator.register("svrg_optimization_test_own")
class _Own(mx.operator.CustomOpProp):
    """May do anything with its rows, and have any attributes."""

    def __init__(self, axis):
        super().__init__()


def _variable(*shape):
    return mx.sym.Variable("w", shape=shape)


@pytest.mark.parametrize(
    "operator, entry",
    [
        (lambda data: mx.sym.softmax(data, axis=1), APART),
        (lambda data: mx.sym.softmax(data), APART),
        (lambda data: mx.sym.softmax(mx.sym.sum(data, axis=1)), COUPLED),
        (lambda data: mx.sym.softmax(data, axis=0), COUPLED),
        (lambda data: mx.sym.concat(data, data), APART),
        (lambda data: mx.sym.concat(data, data, dim=0), UNKNOWN),
        (lambda data: mx.sym.concat(data, _variable(4, 6), dim=1), COUPLED),
        (lambda data: 1 - mx.sym.Flatten(data) / 2, APART),
        (lambda data: mx.sym.SliceChannel(data, num_outputs=2)[1] * 2, APART),
        (lambda data: mx.sym.mean(data, axis=[1]), APART),
        (lambda data: mx.sym.mean(data, axis=-2), MEAN),
        (lambda data: mx.sym.mean(data), MEAN),
        (lambda data: 2 * mx.sym.mean(data) + 1, MEAN),
        (lambda data: mx.sym.mean(data) + mx.sym.sum(mx.sym.square(_variable(3))), MEAN),
        (lambda data: mx.sym.mean(mx.sym.BatchNorm(data)), (rows.MEAN, False)),
        (lambda data: mx.sym.sum(mx.sym.cosh(data)), (rows.SUM, False)),
        (lambda data: mx.sym.mean(data, axis=1, exclude=True), UNKNOWN),
        (lambda data: mx.sym.sum(data), SUM),
        (lambda data: mx.sym.sum(data) + _variable(1), UNKNOWN),
        (lambda data: mx.sym.square(mx.sym.mean(data)), UNKNOWN),
        (lambda data: mx.sym.broadcast_sub(data, mx.sym.mean(data, axis=0, keepdims=True)), UNKNOWN),
        (lambda data: mx.sym.max(data, axis=0), UNKNOWN),
        (lambda data: mx.sym.dot(data, _variable(6, 2)), APART),
        (lambda data: mx.sym.dot(data, data, transpose_b=True), COUPLED),
        (lambda data: mx.sym.dot(mx.sym.sum(data, axis=1), _variable(4, 2)), UNKNOWN),
        (lambda data: mx.sym.dot(data, _variable(4, 2), transpose_a=True), UNKNOWN),
        (lambda data: mx.sym.mean(mx.sym.transpose(data), axis=1), UNKNOWN),
        (lambda data: mx.sym.transpose(mx.sym.slice_axis(data, axis=1, begin=0, end=4)), UNKNOWN),
        (lambda data: mx.sym.reshape(data, shape=(-1, 2)), UNKNOWN),
        (lambda data: mx.sym.reshape(data, shape=(-1, 2, 3)), APART),
        (lambda data: mx.sym.reshape(data, shape=(4, 6)), APART),
        (lambda data: mx.sym.expand_dims(data, axis=0), UNKNOWN),
        (lambda data: data + _variable(4, 6), COUPLED),
        (lambda data: mx.sym.broadcast_add(data, _variable(1, 6)), APART),
        # Aligned at the last axis: each row meets each.
        (lambda data: mx.sym.broadcast_sub(mx.sym.expand_dims(data, axis=1), data), COUPLED),
        (lambda data: mx.sym.broadcast_mul(data, _variable(1, 1, 6)), UNKNOWN),
        (lambda data: mx.sym.FullyConnected(data, mx.sym.Variable("v") + mx.sym.Variable("w"), num_hidden=2), APART),
        (lambda data: mx.sym.dot(_variable(3, 4), data), UNKNOWN),
        (lambda data: mx.sym.Dropout(data), COUPLED),
        (lambda data: mx.sym.LeakyReLU(data, act_type="rrelu"), COUPLED),
        (lambda data: mx.sym.BatchNorm(data), COUPLED),
    ],
)  # fmt: skip
def test_how_the_rows_enter_the_output(operator, entry):
    assert rows.how_rows_enter(operator(mx.sym.Variable("data")), {"data": (4, 6)})[-1] == entry


@pytest.mark.parametrize(
    "loss, is_mean, apart",
    [
        (lambda data: mx.sym.SoftmaxOutput(data), False, True),
        (lambda data: mx.sym.SoftmaxOutput(data, normalization="batch"), True, True),
        (lambda data: mx.sym.SoftmaxOutput(data, normalization="valid"), True, False),
        (lambda data: mx.sym.MakeLoss(mx.sym.sum(data, axis=1)), False, True),
        # mxnet doesn't divide here.
        (lambda data: mx.sym.MakeLoss(mx.sym.sum(data, axis=1), normalization="batch"), False, True),
        (lambda data: mx.sym.MakeLoss(data, normalization="batch"), True, True),
        (lambda data: mx.sym.MakeLoss(data, normalization="valid"), True, False),
        (lambda data: mx.sym.MakeLoss(mx.sym.softmax(data, axis=0), normalization="batch"), True, False),
        (lambda data: mx.sym.MakeLoss(mx.sym.sum(data)), False, True),
        (lambda data: mx.sym.MakeLoss(mx.sym.mean(data)), True, True),
        (lambda data: mx.sym.MakeLoss(0.5 * mx.sym.mean(mx.sym.square(data))), True, True),
        (lambda data: mx.sym.MakeLoss(mx.sym.mean(data, axis=1, exclude=True)), False, False),
        (lambda data: mx.sym.MakeLoss(mx.sym.mean(mx.sym.BatchNorm(data))), True, False),
        (lambda data: mx.sym.MakeLoss(mx.sym.sum(mx.sym.cosh(data), axis=1), normalization="batch"), False, False),
        (lambda data: mx.sym.MakeLoss(mx.sym.SliceChannel(data, num_outputs=2)[1], normalization="batch"), True, True),
        # Probabilities for labels.
        (lambda data: mx.sym.SoftmaxOutput(data, mx.sym.softmax(data), normalization="batch"), False, True),
        (lambda data: mx.sym.SoftmaxOutput(data, mx.sym.softmax(data), normalization="valid"), False, True),
    ],
)
def test_whether_a_batchs_gradient_is_a_sum_or_a_mean(loss, is_mean, apart):
    with mx.name.NameManager():
        symbol = loss(mx.sym.Variable("data"))
    gradient = BatchGradient(symbol, {"data": (4, 6), "softmaxoutput0_label": (4,)})
    assert (gradient.is_mean, gradient.is_sum, gradient.rows_are_apart) == (is_mean, not is_mean, apart)


@pytest.mark.parametrize(
    "noise",
    [
        lambda w: mx.sym.Dropout(w),
        lambda w: w + mx.sym.random.normal(shape=(1, 6)),
        lambda w: mx.sym.Custom(w, op_type="svrg_optimization_test_own", axis="rows"),
    ],
)
def test_random_numbers_that_all_rows_share_are_another_thing_in_another_batch(noise):
    output = mx.sym.MakeLoss(mx.sym.broadcast_mul(mx.sym.Variable("data"), noise(mx.sym.Variable("w", shape=(1, 6)))))
    assert not BatchGradient(output, {"data": (4, 6)}).rows_are_apart


def _softmax(name, **attributes):
    return mx.sym.SoftmaxOutput(mx.sym.Variable("data"), name=name, **attributes)


@pytest.mark.parametrize(
    "outputs, is_sum, is_mean",
    [
        ([_softmax("a"), _softmax("b", normalization="batch")], False, False),
        ([_softmax("a"), _softmax("b", normalization="batch", grad_scale=0)], True, False),
        ([_softmax("a", grad_scale=0), _softmax("b", normalization="batch")], False, True),
        ([_softmax("a"), mx.sym.BlockGrad(_softmax("b", normalization="batch"))], True, False),
    ],
)
def test_outputs_without_a_gradient_do_not_count(outputs, is_sum, is_mean):
    gradient = BatchGradient(mx.sym.Group(outputs))
    assert (gradient.is_sum, gradient.is_mean) == (is_sum, is_mean)
