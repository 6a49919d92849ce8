"""What SVRG is for: it reaches the optimum, stays there, and its variance vanishes on the way."""

import logging

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import iterator, nd, ready, samples, weights_of
from sklearn.datasets import load_breast_cancer

from svrg_optimization import SVRGModule

LOGISTIC = oracle.PROBLEMS[1]
# Powers of two: mxnet's optimizer takes float32.
BATCH, WEIGHT_DECAY = 16, 2.0**-5


def breast_cancer():
    """Standardised features and labels of 0 and 1."""
    x, y = load_breast_cancer(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), y.astype(float).reshape(-1, 1)


class Objective:
    """L2-regularised logistic regression; the bias is not regularised."""

    def __init__(self, x, y):
        self.x, self.y = np.hstack([x, np.ones((len(x), 1))]), y[:, 0]
        self.decay = np.append(np.full(x.shape[1], WEIGHT_DECAY), 0)

    def __call__(self, w):
        z = self.x @ w
        return np.mean(np.logaddexp(0, z) - self.y * z) + 0.5 * self.decay @ w**2

    def minimiser(self):
        """By Newton's method."""
        w = np.zeros(self.x.shape[1])
        for _ in range(30):
            p = 1 / (1 + np.exp(-self.x @ w))
            gradient = self.x.T @ (p - self.y) / len(self.y) + self.decay * w
            hessian = (self.x.T * (p * (1 - p))) @ self.x / len(self.y) + np.diag(self.decay)
            w = w - np.linalg.solve(hessian, gradient)
        return w


def regression(module_class, **kwargs):
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    return module_class(mx.sym.LogisticRegressionOutput(output, mx.sym.Variable("softmax_label")), **kwargs)


def joined(module):
    weights = weights_of(module)
    return np.append(weights["fc_weight"][0], weights["fc_bias"]).astype(np.float64)


def learning_rate(x):
    """1 / (2 L), rounded to a power of two, for the smoothness L that batches of BATCH samples are expected to have.

    Gower et al., "SGD: general analysis and improved rates", ICML 2019, for sampling without replacement: between
    that of the mean (one batch of all samples) and the largest of a sample's.
    """
    n, rows = len(x), np.hstack([x, np.ones((len(x), 1))])
    of_mean = 0.25 * np.linalg.eigvalsh(rows.T @ rows / n)[-1]
    of_sample = 0.25 * np.square(rows).sum(1).max()
    expected = (n * (BATCH - 1) * of_mean + (n - BATCH) * of_sample) / (BATCH * (n - 1)) + WEIGHT_DECAY
    return 2.0 ** np.round(np.log2(0.5 / expected))


class Shuffled(mx.io.NDArrayIter):
    """In a new order after each reset; with shuffle=True, NDArrayIter makes float32 of float64."""

    def reset(self):
        order = mx.nd.array(np.random.permutation(self.data[0][1].shape[0]), dtype=np.int32)
        self.data, self.label = ([(name, mx.nd.take(array, order)) for name, array in arrays]
                                 for arrays in (self.data, self.label))  # fmt: skip
        super().reset()


def suboptimality_after(passes, module, x, y, dtype):
    """f - f* once the gradient has been evaluated `passes` times for every sample."""
    objective = Objective(x, y)
    train = Shuffled(nd(x, dtype), nd(y, dtype), BATCH)
    assert next(train).data[0].dtype == dtype
    train.reset()
    update_freq = getattr(module, "update_freq", None)
    cost = lambda epoch: 1 if update_freq is None else 2 + (epoch % update_freq == 0)  # noqa: E731
    epochs, spent = 0, 0
    while spent + cost(epochs) <= passes:
        spent += cost(epochs)
        epochs += 1
    module.fit(
        train,
        num_epoch=epochs,
        initializer=mx.init.Zero(),
        eval_metric="mse",
        optimizer_params={"learning_rate": learning_rate(x), "wd": WEIGHT_DECAY, "momentum": 0.9},
    )
    return objective(joined(module)) - objective(objective.minimiser())


@pytest.mark.parametrize("dtype, reached", [(np.float64, 1e-12), (np.float32, 1e-10)], ids=["float64", "float32"])
def test_breast_cancer_to_high_accuracy_in_60_passes(dtype, reached):
    x, y = breast_cancer()
    assert abs(suboptimality_after(60, regression(SVRGModule, update_freq=2), x, y, dtype)) < reached
    assert suboptimality_after(60, regression(mx.mod.Module), x, y, dtype) > 1e-5


def at(weights, x, y, **kwargs):
    """A module with these weights, an optimizer, and its snapshot there; and its data."""
    train = mx.io.NDArrayIter(nd(x), nd(y), BATCH)
    module = regression(SVRGModule, **kwargs)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={"fc_weight": nd(weights[None, :-1]), "fc_bias": nd(weights[-1:])}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": learning_rate(x), "wd": WEIGHT_DECAY})
    return module, train


def test_the_optimum_is_a_fixed_point():
    x, y = breast_cancer()
    optimum = Objective(x, y).minimiser()
    module, train = at(optimum, x, y)
    module.fit(train, num_epoch=1, eval_metric="mse")
    assert np.linalg.norm(joined(module) - optimum) < 1e-10


def test_the_variance_falls_with_the_square_of_the_distance():
    """Variance of the gradient, relative to SGD's, along a line to the optimum: slope 2 in log-log."""
    x, y = breast_cancer()
    optimum = Objective(x, y).minimiser()
    direction = np.random.default_rng(0).normal(size=optimum.size)
    distances = 10.0 ** -np.arange(1, 5)
    ratios = []
    for distance in distances:
        snapshot = optimum + distance * direction
        module, train = at(snapshot, x, y)
        module.update_full_grads(train)
        # Weights as far from the optimum as the snapshot, on the other side.
        here = optimum - distance * direction
        module.set_params({"fc_weight": nd(here[None, :-1]), "fc_bias": nd(here[-1:])}, {})
        plain, corrected = [], []
        for start in range(0, len(x) - BATCH + 1, BATCH):
            batch = mx.io.DataBatch([nd(x[start : start + BATCH])], [nd(y[start : start + BATCH])])
            module.forward_backward(batch)
            corrected.append(_gradient(module))
            mx.mod.Module.backward(module)
            plain.append(_gradient(module))
        ratios.append(np.var(corrected, axis=0).sum() / np.var(plain, axis=0).sum())
    slope = np.polyfit(np.log(distances), np.log(ratios), 1)[0]
    assert abs(slope - 2) < 0.05


def _gradient(module):
    return np.concatenate([on_devices[0].asnumpy().ravel() for on_devices in module._exec_group.grad_arrays])


@pytest.mark.parametrize("n", [8, 10])
def test_the_mean_of_the_variance_reduced_gradients_is_the_gradient(n):
    """Unbiased: over all ways to draw one sample, the mean is the full gradient at the current weights."""
    data, snapshot = samples(LOGISTIC, n)
    train = iterator(LOGISTIC, data, 1)
    module = ready(LOGISTIC, snapshot, train)
    module.update_full_grads(train)
    rng = np.random.default_rng(1)
    here = {name: value + rng.normal(size=value.shape) for name, value in snapshot.items()}
    module.set_params({name: nd(value) for name, value in here.items()}, {})
    seen = []
    for batch in train:
        module.forward_backward(batch)
        seen.append(_gradient(module))
    mu = oracle.full_gradient(LOGISTIC, here, data)
    np.testing.assert_allclose(np.mean(seen, axis=0), np.concatenate([mu["fc_weight"][0], mu["fc_bias"]]), rtol=1e-12)


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)
