"""What operators do to the rows of a batch, and where gradients come from."""

import mxnet as mx
import pytest

from svrg_optimization.mxnet_api import rows
from svrg_optimization.svrg.full_gradient import BatchGradient

APART, MEAN, SUM, MIXED = rows.APART, rows.MEAN, rows.SUM, rows.MIXED


@mx.operator.register("svrg_optimization_test_own")
class _Own(mx.operator.CustomOpProp):
    """May do anything with its rows, and have any attributes."""

    def __init__(self, axis):
        super().__init__()


@pytest.mark.parametrize(
    "operator, kind",
    [
        (lambda data: mx.sym.softmax(data, axis=1), APART),
        (lambda data: mx.sym.softmax(data), APART),
        (lambda data: mx.sym.softmax(mx.sym.sum(data, axis=1)), MIXED),
        (lambda data: mx.sym.softmax(data, axis=0), MIXED),
        (lambda data: mx.sym.concat(data, data), APART),
        (lambda data: mx.sym.concat(data, data, dim=0), MIXED),
        (lambda data: mx.sym.concat(data, mx.sym.Variable("w", shape=(4, 6)), dim=1), MIXED),
        (lambda data: 1 - mx.sym.Flatten(data) / 2, APART),
        (lambda data: mx.sym.mean(data, axis=[1]), APART),
        (lambda data: mx.sym.mean(data, axis=-2), MEAN),
        (lambda data: mx.sym.mean(data), MEAN),
        (lambda data: 2 * mx.sym.mean(data) + 1, MEAN),
        (lambda data: mx.sym.mean(data) + mx.sym.sum(mx.sym.square(mx.sym.Variable("w", shape=(3,)))), MEAN),
        (lambda data: mx.sym.mean(data, axis=1, exclude=True), MIXED),
        (lambda data: mx.sym.sum(data), SUM),
        (lambda data: mx.sym.sum(data) + mx.sym.Variable("w", shape=(1,)), MIXED),
        (lambda data: mx.sym.square(mx.sym.mean(data)), MIXED),
        (lambda data: mx.sym.broadcast_sub(data, mx.sym.mean(data, axis=0, keepdims=True)), MIXED),
        (lambda data: mx.sym.max(data, axis=0), MIXED),
        (lambda data: mx.sym.dot(data, mx.sym.Variable("w", shape=(6, 2))), APART),
        (lambda data: mx.sym.dot(data, data, transpose_b=True), MIXED),
        (lambda data: mx.sym.dot(mx.sym.sum(data, axis=1), mx.sym.Variable("w", shape=(4, 2))), MIXED),
        (lambda data: mx.sym.dot(data, mx.sym.Variable("w", shape=(4, 2)), transpose_a=True), MIXED),
        (lambda data: mx.sym.mean(mx.sym.transpose(data), axis=1), MIXED),
        (lambda data: mx.sym.reshape(data, shape=(-1, 2)), MIXED),
        (lambda data: mx.sym.reshape(data, shape=(-1, 2, 3)), APART),
        (lambda data: mx.sym.reshape(data, shape=(4, 6)), APART),
        (lambda data: mx.sym.expand_dims(data, axis=0), MIXED),
        (lambda data: data + mx.sym.Variable("w", shape=(4, 6)), MIXED),
        (lambda data: mx.sym.broadcast_add(data, mx.sym.Variable("w", shape=(1, 6))), APART),
        (lambda data: mx.sym.FullyConnected(data, mx.sym.Variable("v") + mx.sym.Variable("w"), num_hidden=2), APART),
        (lambda data: mx.sym.dot(mx.sym.Variable("w", shape=(3, 4)), data), MIXED),
        (lambda data: mx.sym.Dropout(data), MIXED),
        (lambda data: mx.sym.LeakyReLU(data, act_type="rrelu"), MIXED),
        (lambda data: mx.sym.BatchNorm(data), MIXED),
        (lambda data: mx.sym.Custom(data, op_type="svrg_optimization_test_own", axis="rows"), MIXED),
    ],
)  # fmt: skip
def test_how_the_rows_enter_the_output(operator, kind):
    assert rows.how_rows_enter(operator(mx.sym.Variable("data")), {"data": (4, 6)})[-1] == kind


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
    ],
)
def test_whether_a_batchs_gradient_is_a_sum_or_a_mean(loss, is_mean, apart):
    gradient = BatchGradient(loss(mx.sym.Variable("data")), {"data": (4, 6), "softmax_label": (4,)})
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
