"""Steps on rows, lazy, reweighted and dense, against a dense NumPy version."""

import itertools

import mxnet as mx
import numpy as np
import pytest
import sparse_oracle
from models import assert_same, weights_of
from sparse_models import Batches, csr, ready, set_weights, symbol, training
from sparse_oracle import NETS, Settings, Svrg, adagrad, adam, ftrl, nag, rmsprop, sgd

from svrg_optimization import SVRGModule
from svrg_optimization.coefficients import Linear
from svrg_optimization.svrg import skipped_steps

EXACT = dict(rtol=1e-12, atol=1e-13)
MODES = ["lazy", "reweighted", "dense"]
DECAY = 0.0625
# name -> (mxnet's optimizer, its arguments, the oracle's). Numbers are powers of two: mxnet rounds them to float32.
OPTIMIZERS = {
    "plain": ("sgd", {}, lambda: Settings()),
    "wd": ("sgd", {"wd": DECAY}, lambda: Settings(decay=DECAY)),
    "momentum": ("sgd", {"momentum": 0.5}, lambda: Settings(sgd(0.5))),
    "both": ("sgd", {"momentum": 0.5, "wd": DECAY}, lambda: Settings(sgd(0.5), decay=DECAY)),
    "nag": ("nag", {"momentum": 0.5, "wd": DECAY}, lambda: Settings(nag(0.5), decay=DECAY)),
    "adam": ("adam", {"beta1": 0.5, "beta2": 0.75, "epsilon": 2.0**-10, "wd": DECAY},
             lambda: Settings(adam(), decay=DECAY)),
    "rmsprop": ("rmsprop", {"gamma1": 0.5, "epsilon": 2.0**-10, "wd": DECAY}, lambda: Settings(rmsprop(), decay=DECAY)),
    "adagrad": ("adagrad", {"eps": 2.0**-10}, lambda: Settings(adagrad())),
    "ftrl": ("ftrl", {"lamda1": 0.0625, "beta": 1.0}, lambda: Settings(ftrl())),
}  # fmt: skip
# One device without a store, two that nothing adds up, and stores that add up.
PLACES = {
    "1": (1, "None"), "1 local": (1, "local"), "2": (2, "None"), "2 local": (2, "local"), "2 device": (2, "device"),
}  # fmt: skip


def pair(net, n=22, *, mode="lazy", place="1", optimizer="plain", settings=None, size=8, last="pad", **kwargs):
    """A module, its batches and the oracle, at the same weights."""
    net = NETS[net]
    x, y, weights = net.samples(n)
    devices, store = PLACES[place]
    kind, params, of_oracle = OPTIMIZERS[optimizer]
    params = {**params, **kwargs.pop("params", {})}
    train = Batches(net, x, y, size, last)
    module = ready(
        net, weights, train, sparse=mode, devices=devices, kvstore=store, optimizer=kind, params=params, **kwargs
    )
    oracle = Svrg(
        net, weights, x, y, mode=mode, settings=settings or of_oracle(), size=size, last=last, devices=devices,
        together=store != "None",
    )  # fmt: skip
    return module, train, oracle


def assert_steps_agree(module, train, oracle, epochs=5, alpha=lambda epoch: 1.0):
    """The weights agree after all steps; nobody reads them sooner."""
    for _ in training(module, train, epochs):
        pass
    *_, expected = oracle.run(epochs, module.update_freq, alpha)
    assert module._sparse_mode == oracle.mode
    assert_same(weights_of(module), expected, **EXACT)


# ------------------------------------------------------------------------------------------- steps are the oracle's


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS)
def test_every_network_on_every_device(net, mode, place):
    assert_steps_agree(*pair(net, mode=mode, place=place, optimizer="both"), epochs=3)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["plain", "wd", "momentum"])
@pytest.mark.parametrize("mode", MODES)
def test_sgd(mode, optimizer, place):
    assert_steps_agree(*pair("logistic", mode=mode, place=place, optimizer=optimizer))


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["nag", "adam", "rmsprop", "adagrad", "ftrl"])
@pytest.mark.parametrize("net", ["softmax", "embedding"])
def test_reweighted_steps_of_other_optimizers(net, optimizer, place):
    assert_steps_agree(*pair(net, mode="reweighted", place=place, optimizer=optimizer))


@pytest.mark.parametrize("reads", [True, False], ids=["read after each step", "read at the end"])
@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["plain", "both"])
@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_steps(mode, optimizer, place, reads):
    module, train, oracle = pair("logistic", 64, mode=mode, place=place, optimizer=optimizer, update_freq=5)
    for _, expected in zip(training(module, train, 25), oracle.run(25, 5)):
        if reads:
            assert_same(weights_of(module), expected, **EXACT)
    assert_same(weights_of(module), expected, **EXACT)


@pytest.mark.parametrize("optimizer", ["plain", "both"])
def test_more_steps_than_factors_are_kept_of(optimizer, monkeypatch):
    monkeypatch.setattr(skipped_steps, "MOST", 3)
    assert_steps_agree(*pair("logistic", 40, optimizer=optimizer), epochs=4)


@pytest.mark.parametrize("last", ["pad", "ragged"])
@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", ["logistic", "shared"])
def test_the_last_batch(net, mode, place, last):
    assert_steps_agree(*pair(net, 13, mode=mode, place=place, optimizer="both", last=last))


class Alternating(mx.lr_scheduler.LRScheduler):
    """A rate that changes with each step."""

    def __call__(self, num_update):
        return 0.25 / 2 ** (num_update % 3)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["plain", "both", "adam"])
@pytest.mark.parametrize("mode", MODES)
def test_rates_that_change_and_multipliers(mode, optimizer, place):
    mode = "reweighted" if optimizer == "adam" and mode == "lazy" else mode
    mult = {"x_weight": (0.5, 2.0), "v_weight": (2.0, 0.5), "bias": (0.25, 0.0)}
    settings = OPTIMIZERS[optimizer][2]()
    settings = Settings(settings.step, lambda t: 0.25 / 2 ** (t % 3), settings.decay, mult)
    assert_steps_agree(*pair(
        "machine", mode=mode, place=place, optimizer=optimizer, settings=settings,
        params={"lr_scheduler": Alternating()}, network=symbol(NETS["machine"], mult=mult),
    ), epochs=3)  # fmt: skip


@pytest.mark.parametrize("kind", ["number", "Linear", "by parameter"])
@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_coefficients(mode, place, kind):
    coefficient, alpha = {
        "number": (0.5, lambda epoch: 0.5),
        "Linear": (Linear(0.75, epochs=6), lambda epoch: 0.75 * (1 - epoch // 2 * 2 / 4)),
        "by parameter": (lambda clock: {"v_weight": 0.25, "bias": 0.5}, lambda epoch: {"v_weight": 0.25, "bias": 0.5}),
    }[kind]
    assert_steps_agree(
        *pair("machine", mode=mode, place=place, optimizer="both", coefficient=coefficient), epochs=6, alpha=alpha
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", ["logistic", "shared"])
def test_batches_that_are_lists(net, mode):
    module, train, oracle = pair(net, mode=mode, place="2 local", optimizer="both")
    *_, expected = oracle.run(2)
    module.update_full_grads(train)
    for rows, _ in itertools.chain(oracle.batches, oracle.batches):
        # Parts that mxnet itself would not make, but all of one size.
        module.forward_backward([train.batch(rows[1::2]), train.batch(rows[::2])])
        module.update()
    assert_same(weights_of(module), expected, **EXACT)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_a_loss_outside_the_network(mode, place):
    net = NETS["logistic"]

    def heads(outputs, batch):
        parts = batch if isinstance(batch, list) else [batch]
        return [mx.nd.sigmoid(outputs[0]) - mx.nd.concat(*(part.label[0] for part in parts), dim=0)]

    _, train, oracle = pair("logistic", mode=mode, place=place, optimizer="both")
    module = SVRGModule(
        symbol(net, has_loss=False), context=[mx.cpu(k) for k in range(PLACES[place][0])], sparse=mode,
        label_names=None,
    )  # fmt: skip
    module.bind(train.provide_data)
    set_weights(module, oracle.weights)
    module.init_optimizer(
        kvstore=None if PLACES[place][1] == "None" else mx.kv.create("local"), optimizer="sgd",
        optimizer_params={"learning_rate": 0.25, **OPTIMIZERS["both"][1]},
    )  # fmt: skip
    for epoch, expected in enumerate(oracle.run(2)):
        if epoch == 0:
            module.update_full_grads(train, out_grads=heads)
        rows, pad = oracle.batches[epoch % len(oracle.batches)]
        module.forward(train.batch(rows, pad))
        module.backward(out_grads=heads)
        module.update()
    assert_same(weights_of(module), expected, **EXACT)


@pytest.mark.parametrize("mode", MODES)
def test_zeros_that_are_stored_and_columns_out_of_order(mode):
    module, train, oracle = pair("logistic", 8, mode=mode, optimizer="both")
    stored, order = csr(oracle.x["data"]), []
    starts, columns, values = (each.asnumpy() for each in (stored.indptr, stored.indices, stored.data))
    for start, end in zip(starts, starts[1:]):
        order += list(range(start, end))[::-1]
    turned = mx.nd.sparse.csr_matrix((values[order], columns[order], starts), shape=stored.shape, dtype=np.float64)
    plain = train.batch
    train.batch = lambda rows, pad=0: mx.io.DataBatch([turned], plain(rows).label, pad=pad)
    assert_steps_agree(module, train, oracle)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.float32], ids=["float32"])
def test_float32(mode, dtype):
    net = NETS["machine"]
    x, y, weights = net.samples(22)
    train = Batches(net, x, y, dtype=dtype)
    module = ready(net, weights, train, sparse=mode, dtype=dtype, params={"momentum": 0.5, "wd": DECAY})
    oracle = Svrg(net, weights, x, y, mode=mode, settings=OPTIMIZERS["both"][2]())
    for _ in training(module, train, 5):
        pass
    *_, expected = oracle.run(5)
    assert module.get_params()[0]["x_weight"].dtype == dtype
    assert_same(weights_of(module), expected, rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------------------------- reweighted steps


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("net", ["logistic", "machine", "embedding", "shared", "two inputs"])
def test_reweighted_steps_are_unbiased(net, place, alpha):
    # From weights that stand still, the steps of an epoch add up to those along the gradient, with its weight decay.
    module, train, oracle = pair(net, 24, mode="reweighted", place=place, optimizer="wd", coefficient=alpha)
    module.update_full_grads(train)
    rng = np.random.default_rng(3)
    w = {name: value + rng.normal(size=value.shape) / 4 for name, value in oracle.weights.items()}
    moved = dict.fromkeys(w, 0.0)
    for batch in train:
        set_weights(module, w)
        module.forward_backward(batch)
        module.update()
        for name, value in weights_of(module).items():
            moved[name] = moved[name] + (value - w[name]) / len(oracle.batches)
    gradient = sparse_oracle.full_gradient(oracle.net, w, oracle.x, oracle.y)
    for name in w:
        often = oracle.net.named(name, oracle.x).reshape((-1,) + (1,) * (w[name].ndim - 1))
        decay = DECAY * w[name] * often * name.endswith("_weight")
        np.testing.assert_allclose(moved[name], -0.25 * (gradient[name] + decay), rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("mode", ["lazy", "reweighted"])
@pytest.mark.parametrize("net", ["logistic", "softmax", "two inputs"])
def test_the_optimum_is_that_of_dense_steps(net, mode):
    module, train, oracle = pair(net, 24, mode=mode, optimizer="wd")
    for _ in training(module, train, 400):
        pass
    w = weights_of(module)
    gradient = sparse_oracle.full_gradient(oracle.net, w, oracle.x, oracle.y)
    for name, value in gradient.items():
        often = oracle.net.named(name, oracle.x).reshape((-1,) + (1,) * (value.ndim - 1))
        value = value + DECAY * w[name] * often * name.endswith("_weight")
        np.testing.assert_allclose(value, 0, atol=1e-10)


def test_reweighted_steps_leave_rows_alone_that_nothing_touches():
    module, train, oracle = pair("logistic", mode="reweighted", optimizer="both")
    for _ in training(module, train, 3):
        pass
    np.testing.assert_array_equal(weights_of(module)["x_weight"][-1], oracle.weights["x_weight"][-1])
