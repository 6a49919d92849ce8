"""Samples that count more or less: weights as a second label, or repeated rows; docs/using.md shows both."""

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule

CLASSES = 3


def weighted_symbol(name):
    """A loss that is multiplied by a second label, and the predictions beside it."""
    data, label, weight = (mx.sym.Variable(each) for each in ("data", "label", "weight"))
    scores = mx.sym.FullyConnected(data, num_hidden=CLASSES if name == "softmax" else 1, name="fc")
    if name == "softmax":
        loss = -mx.sym.pick(mx.sym.log_softmax(scores), label)
        prediction = mx.sym.softmax(scores)
    elif name == "logistic":
        score = mx.sym.Reshape(scores, shape=(-1,))
        loss, prediction = mx.sym.Activation(score, act_type="softrelu") - label * score, mx.sym.sigmoid(scores)
    else:
        loss, prediction = 0.5 * mx.sym.square(mx.sym.Reshape(scores, shape=(-1,)) - label), scores
    return mx.sym.Group([mx.sym.MakeLoss(weight * loss), mx.sym.BlockGrad(prediction)])


class Weighted:
    """An oracle's problem whose samples are (x, (y, weight))."""

    def __init__(self, problem):
        self.problem = problem

    def gradient(self, w, x, target):
        y, weight = target
        return {name: weight * value for name, value in self.problem.gradient(w, x, y).items()}


def weighted_iterator(data, importance, batch_size):
    return mx.io.NDArrayIter(
        nd(np.array([x for x, _ in data])),
        {"label": nd(np.array([y for _, y in data])), "weight": nd(importance)}, batch_size,
    )  # fmt: skip


def ready(network, weights, train, labels):
    module = SVRGModule(network, label_names=labels, update_freq=2)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25, "wd": 0.125, "momentum": 0.5})
    return module


@pytest.fixture(params=["linear", "logistic", "softmax"])
def case(request):
    (problem,) = (each for each in oracle.PROBLEMS if each.name == request.param)
    data, weights = samples(problem, 22)
    return problem, data, weights, np.random.default_rng(1).integers(0, 4, 22).astype(float)


@pytest.mark.parametrize("batch_size", [2, 4], ids=["", "ragged"])
def test_weights_as_a_second_label_are_exact(case, batch_size):
    problem, data, weights, importance = case
    train = weighted_iterator(data, importance, batch_size)
    module = ready(weighted_symbol(problem.name), weights, train, ["label", "weight"])
    weighted = [(x, (y, weight)) for (x, y), weight in zip(data, importance)]
    expected = oracle.svrg(Weighted(problem), weights, weighted, lambda: oracle.Optimizer(wd=0.125, momentum=0.5),
                           batch_size=batch_size, epochs=4, update_freq=2)  # fmt: skip
    for actual, wanted in zip(train_steps(module, train, 4), expected):
        assert_same(actual, wanted, rtol=1e-12, atol=1e-14)
    mu = oracle.full_gradient(Weighted(problem), {name: value.asnumpy() for name, value in
                                                  module._mod_aux.get_params()[0].items()}, weighted)  # fmt: skip
    assert_same({name: value.asnumpy() for name, value in module.full_gradient.items()}, mu, rtol=1e-12, atol=1e-14)


def test_repeated_rows_have_the_same_minimum(case):
    """The mean over repeated rows is the weighted mean, so the decay must be divided by the mean weight."""
    problem, data, _, importance = case
    repeated = [sample for sample, times in zip(data, importance) for _ in range(int(times))]
    by_rows, by_weights = SVRGModule(symbol(problem)), SVRGModule(
        weighted_symbol(problem.name), label_names=["label", "weight"])  # fmt: skip
    for module, train, wd in (
        (by_rows, iterator(problem, repeated, len(repeated)), 0.125),
        (by_weights, weighted_iterator(data, importance, len(data)), 0.125 * importance.mean()),
    ):
        module.fit(train, num_epoch=120, initializer=mx.init.Zero(), eval_metric=mx.metric.Loss(), tol=1e-12,
                   arg_params={name: nd(np.zeros(shape)) for name, shape in problem.shapes.items()},
                   optimizer_params={"learning_rate": "auto", "wd": wd})  # fmt: skip
        assert module.converged
    assert_same(weights_of(by_rows), weights_of(by_weights), rtol=1e-6, atol=1e-8)


def test_a_weight_of_zero_is_as_good_as_no_row(case):
    problem, data, weights, importance = case
    train = weighted_iterator(data, importance, 2)
    module = ready(weighted_symbol(problem.name), weights, train, ["label", "weight"])
    module.update_full_grads(train)
    kept = [sample for sample, weight in zip(data, importance) if weight]
    fewer = ready(weighted_symbol(problem.name), weights,
                  weighted_iterator(kept, importance[importance > 0], 1), ["label", "weight"])  # fmt: skip
    fewer.update_full_grads(weighted_iterator(kept, importance[importance > 0], 1))
    factor = len(kept) / len(data)
    assert_same({name: value.asnumpy() for name, value in module.full_gradient.items()},
                {name: value.asnumpy() * factor for name, value in fewer.full_gradient.items()},
                rtol=1e-12, atol=1e-14)  # fmt: skip
