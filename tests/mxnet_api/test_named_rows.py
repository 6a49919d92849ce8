"""Which inputs name the rows of parameters."""

import functools

import mxnet as mx
import numpy as np
import pytest

from svrg_optimization.mxnet_api import named_rows
from svrg_optimization.mxnet_api.named_rows import RowGroup, row_groups, with_fewer_rows

SIZE = 9
SHAPES = {
    "data": (4, SIZE),
    "other": (4, SIZE),
    "weight": (SIZE, 2),
    "second": (SIZE, 2),
    "ids": (4, 3),
    "more": (4, 3),
}


@functools.lru_cache(None)
def _variable(name, **kwargs):
    # One object for each name: two of them would be two inputs.
    return mx.sym.Variable(name, **kwargs)


def csr(name="data"):
    return _variable(name, stype="csr")


def weight(name="weight"):
    return _variable(name, stype="row_sparse", shape=SHAPES[name])


def numbers(name="ids"):
    return _variable(name)


def looked_up(ids="ids", of="weight", sparse=True):
    return mx.sym.Embedding(numbers(ids), weight(of), input_dim=SIZE, output_dim=2, sparse_grad=sparse)


def groups(network, sparse=("weight",), csr_inputs=("data",), parameters=("weight",)):
    arguments = network.list_arguments()
    keep = lambda names: [name for name in names if name in arguments]  # noqa: E731
    return row_groups(network, SHAPES, keep(sparse), keep(csr_inputs), keep(parameters))


BOTH = {"sparse": ("weight", "second"), "parameters": ("weight", "second"), "csr_inputs": ("data", "other")}
OF_ONE = [RowGroup(["weight"], ["data"], [], SIZE)]
CHANGED = [OF_ONE[0]._replace(only_meet=False)]


KEEP = {
    "square": mx.sym.square, "abs": mx.sym.abs, "negative": mx.sym.negative, "sign": mx.sym.sign, "sqrt": mx.sym.sqrt,
    "relu": mx.sym.relu, "_mul_scalar": lambda x: x * 2, "_div_scalar": lambda x: x / 2, "_copy": mx.sym.identity,
}  # fmt: skip
KEEP_OF_TWO = {
    "elemwise_add": lambda x: x + x.square(), "elemwise_sub": lambda x: x - x.square(),
    "elemwise_mul": lambda x: x * x.square(), "_plus": mx.sym._internal._plus, "_minus": mx.sym._internal._minus,
    "_mul": mx.sym._internal._mul,
}  # fmt: skip


def test_every_operator_that_is_known_is_here():
    assert set(named_rows._KEEP) == {*KEEP, "identity"} and set(named_rows._KEEP_OF_TWO) == set(KEEP_OF_TWO)


@pytest.mark.parametrize("side", ["data", "weight"])
@pytest.mark.parametrize("operator", [*KEEP, *KEEP_OF_TWO])
def test_operators_that_keep_rows_and_columns(operator, side):
    def kept(x):
        if operator in KEEP:
            return KEEP[operator](x)
        return KEEP_OF_TWO[operator](x, x) if operator[0] == "_" else KEEP_OF_TWO[operator](x)

    x, w = (kept(csr()), weight()) if side == "data" else (csr(), kept(weight()))
    assert groups(mx.sym.dot(x, w)) == [OF_ONE[0]._replace(only_meet=side == "data")]


@pytest.mark.parametrize(
    "network, expected",
    [
        (lambda: mx.sym.dot(csr(), weight()), OF_ONE),
        (lambda: mx.sym.dot(csr(), mx.sym.sum(weight(), axis=1, keepdims=True)), CHANGED),
        (lambda: mx.sym.dot(csr(), mx.sym._internal._square_sum(weight(), axis=(1,), keepdims=True)), CHANGED),
        (lambda: mx.sym.dot(csr(), weight()) + mx.sym.dot(csr(), weight("second")),
         [RowGroup(["weight", "second"], ["data"], [], SIZE)]),
        (lambda: mx.sym.dot(csr(), weight()) + mx.sym.dot(csr("other"), weight()),
         [RowGroup(["weight"], ["data", "other"], [], SIZE)]),
        (lambda: mx.sym.dot(csr(), weight()) + mx.sym.dot(csr("other"), weight("second")),
         [RowGroup(["weight"], ["data"], [], SIZE), RowGroup(["second"], ["other"], [], SIZE)]),
        (lambda: looked_up(), [RowGroup(["weight"], [], ["ids"], SIZE)]),
        (lambda: looked_up() + looked_up("more"), [RowGroup(["weight"], [], ["ids", "more"], SIZE)]),
        (lambda: looked_up() + looked_up(of="second"), [RowGroup(["weight", "second"], [], ["ids"], SIZE)]),
        (lambda: mx.sym.Group([mx.sym.dot(csr(), weight()), looked_up()]),
         [RowGroup(["weight"], ["data"], ["ids"], SIZE)]),
    ],
)  # fmt: skip
def test_networks_that_are_known(network, expected):
    found = groups(network(), **BOTH)
    assert sorted(found) == sorted(expected)


UNKNOWN = {
    "an output is the weight": lambda: mx.sym.Group([mx.sym.dot(csr(), weight()), weight() * 2]),
    "an operator that isn't listed": lambda: mx.sym.dot(csr(), mx.sym.exp(weight())),
    "zeros don't stay": lambda: mx.sym.dot(csr(), weight() + 1),
    "a sum over the rows": lambda: mx.sym.dot(csr(), weight()) * mx.sym.sum(weight()),
    "a sum over axis 0": lambda: mx.sym.broadcast_add(mx.sym.dot(csr(), weight()), mx.sym.sum(weight(), axis=0)),
    "a sum over axis 0 of the weight": lambda: mx.sym.dot(csr(), mx.sym.sum(weight(), axis=0, keepdims=True)),
    "all axes but 1": lambda: mx.sym.broadcast_add(
        mx.sym.dot(csr(), weight()), mx.sym.sum(weight(), axis=1, exclude=True)
    ),
    "the data turned": lambda: mx.sym.dot(csr(), weight(), transpose_a=True),
    "the weight turned": lambda: mx.sym.dot(csr(), weight(), transpose_b=True),
    "columns without a weight": lambda: mx.sym.dot(csr(), weight()) + mx.sym.sum(csr("other")),
    "what is looked up is read": lambda: looked_up() * mx.sym.sum(numbers()),
    "what is looked up is an output": lambda: mx.sym.Group([looked_up(), numbers()]),
    "what is looked up is computed": lambda: mx.sym.Embedding(
        numbers() + 1, weight(), input_dim=SIZE, output_dim=2, sparse_grad=True
    ),
    "the weight is read besides": lambda: looked_up() * mx.sym.sum(weight()),
    "rows of two kinds": lambda: mx.sym.dot(csr(), weight() + csr()),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_networks_that_are_not_known(what):
    assert groups(UNKNOWN[what](), **BOTH) is None


@pytest.mark.parametrize("is_first", [True, False], ids=["before the product", "after it"])
def test_a_weight_that_is_dense_and_read_besides(is_first):
    # Its gradient is dense then, so it isn't among those that have to be known.
    dense = mx.sym.Variable("second", shape=SHAPES["second"])
    parts = [mx.sym.sum(mx.sym.square(dense)), mx.sym.sum(mx.sym.dot(csr(), dense))]
    network = (parts[0] + parts[1] if is_first else parts[1] + parts[0]) + mx.sym.sum(mx.sym.dot(csr(), weight()))
    assert groups(network, **{**BOTH, "sparse": ("weight",)}) is None


def test_sizes_that_differ():
    network = mx.sym.dot(csr(), weight()) + mx.sym.dot(csr("other"), weight())
    assert row_groups(network, {**SHAPES, "other": (4, 8)}, ["weight"], ["data", "other"], ["weight"]) is None


def test_a_network_with_fewer_rows_gives_the_same(rng):
    network = mx.sym.sum(looked_up(), axis=1) + mx.sym.dot(csr(), weight())
    of_network = groups(network)
    smaller = with_fewer_rows(network, of_network, [5])
    rows = np.array([7, 2, 4, 0])
    w, x, ids = rng.normal(size=(SIZE, 2)), np.zeros((4, SIZE)), rows[rng.integers(0, 4, (4, 3))]
    x[:, rows] = rng.normal(size=(4, 4))
    few_w, few_x = np.vstack([w[rows], np.zeros((1, 2))]), np.hstack([x[:, rows], np.zeros((4, 1))])
    few_ids = np.array([[list(rows).index(each) for each in line] for line in ids])
    outputs = []
    for symbol, (values, data, looked) in ((network, (w, x, ids)), (smaller, (few_w, few_x, few_ids))):
        executor = symbol.bind(mx.cpu(), {
            "weight": mx.nd.array(values).tostype("row_sparse"), "data": mx.nd.array(data).tostype("csr"),
            "ids": mx.nd.array(looked),
        })  # fmt: skip
        outputs.append(executor.forward()[0].asnumpy())
    np.testing.assert_allclose(*outputs, rtol=1e-6)
