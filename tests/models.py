"""The problems of the oracle as mxnet networks, and the parts of a test that every file needs."""

import mxnet as mx
import numpy as np
import oracle
from oracle import Adam, AdamW, Optimizer, Proximal

from svrg_optimization import SVRGModule

# name -> (mxnet optimizer, its parameters, the NumPy copy). Numbers are powers of two: mxnet rounds them to float32.
OPTIMIZERS = {
    "sgd": ("sgd", {"learning_rate": 0.25}, lambda: Optimizer()),
    "momentum": ("sgd", {"learning_rate": 0.125, "momentum": 0.5}, lambda: Optimizer(0.125, momentum=0.5)),
    "wd": ("sgd", {"learning_rate": 0.25, "wd": 0.125}, lambda: Optimizer(wd=0.125)),
    "clip": ("sgd", {"learning_rate": 0.25, "clip_gradient": 0.125}, lambda: Optimizer(clip=0.125)),
    "adam": (
        "adam",
        {"learning_rate": 0.125, "beta1": Adam.beta1, "beta2": Adam.beta2, "epsilon": Adam.epsilon, "wd": 0.125},
        lambda: Adam(0.125, wd=0.125),
    ),
    "adamw": (
        "adamw",
        {"learning_rate": 0.125, "beta1": Adam.beta1, "beta2": Adam.beta2, "epsilon": Adam.epsilon, "wd": 0.125},
        lambda: AdamW(0.125, wd=0.125),
    ),
    "proximal": (
        "proximalsgd",
        {"learning_rate": 0.25, "l1": 0.0625, "wd": 0.125},
        lambda: Proximal(l1=0.0625, wd=0.125),
    ),
    "lr_scheduler": (
        "sgd",
        lambda: {"learning_rate": 0.5, "lr_scheduler": mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=0.5)},
        lambda: Optimizer(0.5, halve_every=3),
    ),
}
TOLERANCE = {"float64": dict(rtol=1e-12, atol=1e-14), "float32": dict(rtol=1e-5, atol=1e-6)}


def symbol(problem):
    """The network of an oracle problem; its label is called softmax_label."""
    data, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
    if problem.name == "two-layer":
        hidden = mx.sym.tanh(mx.sym.FullyConnected(data, num_hidden=4, name="fc1"))
        return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=3, name="fc2"), label, name="out")
    output = mx.sym.FullyConnected(data, num_hidden=problem.shapes["fc_weight"][0], name="fc")
    if problem.name == "linear":
        return mx.sym.LinearRegressionOutput(output, label, name="out")
    if problem.name == "logistic":
        return mx.sym.LogisticRegressionOutput(output, label, name="out")
    return mx.sym.SoftmaxOutput(output, label, name="out")


def samples(problem, n, seed=0):
    """(x, y) pairs and start weights."""
    rng = np.random.default_rng(seed)
    data = list(zip(rng.normal(size=(n, oracle.FEATURES)), problem.targets(rng, n)))
    weights = {name: rng.normal(size=shape) / 2 for name, shape in problem.shapes.items()}
    return data, weights


def nd(value, dtype=np.float64):
    """An NDArray of this type."""
    return mx.nd.array(value, dtype=dtype)


def iterator(problem, data, batch_size, dtype=np.float64, **kwargs):
    """An NDArrayIter over (x, y) pairs, without mxnet's silent cast to float32."""
    x, y = np.array([x for x, _ in data]), np.array([y for _, y in data])
    if problem.name in ("linear", "logistic"):
        y = y.reshape(-1, 1)
    return mx.io.NDArrayIter(nd(x, dtype), nd(y, dtype), batch_size, **kwargs)


def ready(problem, weights, train, *, update_freq=2, devices=1, kvstore="local", optimizer="sgd",
          optimizer_params=(("learning_rate", 0.25),), module=SVRGModule, dtype=np.float64, **kwargs):  # fmt: skip
    """A module, bound, with these weights and an optimizer."""
    if module is SVRGModule:
        kwargs["update_freq"] = update_freq
    made = module(symbol(problem), context=[mx.cpu(i) for i in range(devices)], **kwargs)
    made.bind(train.provide_data, train.provide_label)
    made.init_params(arg_params={name: nd(value, dtype) for name, value in weights.items()}, aux_params={})
    made.init_optimizer(kvstore=kvstore, optimizer=optimizer, optimizer_params=optimizer_params)
    return made


def sharer_of(owner, problem, train):
    """An SVRGModule that shares the weights of `owner`."""
    sharer = SVRGModule(symbol(problem))
    sharer.bind(train.provide_data, train.provide_label, shared_module=owner)
    return sharer


def weights_of(module):
    """The weights of a module, as NumPy arrays that later steps don't change."""
    return {name: value.asnumpy().copy() for name, value in module.get_params()[0].items()}


def train_steps(module, train, epochs, begin_epoch=0):
    """The intermediate-level loop; yields the weights after every step."""
    for epoch in range(begin_epoch, epochs):
        if epoch % module.update_freq == 0:
            module.update_full_grads(train)
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
            yield weights_of(module)


def assert_same(actual, expected, rtol=0.0, atol=0.0):
    """Two dicts of arrays agree: in every bit, unless a tolerance is given."""
    assert set(actual) == set(expected)
    for name in expected:
        np.testing.assert_allclose(actual[name], expected[name], rtol=rtol, atol=atol, err_msg=name)
