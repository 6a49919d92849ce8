"""Steps on rows where calls come in another order than usual: they are as dense ones, or there is an error."""

import mxnet as mx
import numpy as np
import pytest
from models import assert_same, nd, weights_of
from sparse_models import Batches, ready, set_weights, symbol
from sparse_oracle import NETS

from svrg_optimization import SVRGModule
from svrg_optimization.coefficients import Coefficient
from svrg_optimization.schedules import EveryEpochs
from svrg_optimization.svrg import skipped_steps

EXACT = dict(rtol=1e-12, atol=1e-13)
PLACES = {"1": (1, "None"), "1 local": (1, "local"), "2": (2, "None"), "2 local": (2, "local")}
BOTH = {"momentum": 0.5, "wd": 0.0625}


def made(net="shared", mode="lazy", place="1", n=32, size=8, last="pad", **kwargs):
    """A module with a snapshot, and its batches."""
    devices, store = PLACES[place]
    x, y, weights = NETS[net].samples(n)
    train = Batches(NETS[net], x, y, size, last)
    kwargs = {"params": BOTH, **kwargs}
    module = ready(NETS[net], weights, train, sparse=mode, devices=devices, kvstore=store, **kwargs)
    module.update_full_grads(train)
    return module, train


def batches(train):
    train.reset()
    return list(train)


def steps(module, train):
    for batch in batches(train):
        module.forward_backward(batch)
        module.update()


def again(module, **params):
    """Another optimizer, with the same kind of store."""
    store = None if module._kvstore is None else "local"
    module.init_optimizer(store, "sgd", {"learning_rate": 0.125, **params}, force_init=True)


def another_optimizer(module, train):
    steps(module, train)
    again(module)
    steps(module, train)
    again(module, momentum=0.5)
    steps(module, train)


def bound_anew(module, train):
    steps(module, train)
    module.bind(train.provide_data, train.provide_label, force_rebind=True)
    steps(module, train)


def two_updates(module, train):
    for batch in batches(train):
        module.forward_backward(batch)
        module.update()
        module.update()
    steps(module, train)


def two_backward_passes(module, train):
    for batch in batches(train):
        module.forward_backward(batch)
        module.backward()
        module.update()
        module.backward()
        module.update()


def evaluation_before_update(module, train):
    first = batches(train)[0]
    for batch in batches(train):
        module.forward_backward(batch)
        module.forward(first, is_train=False)
        module.update()


def snapshot_before_update(module, train):
    first, second, third, *_ = batches(train)
    for batch in (first, second):
        module.forward_backward(batch)
        module.update()
    module.forward_backward(third)
    module.update_full_grads(train)
    module.update()
    steps(module, train)


def a_sharer_that_trains(module, train):
    steps(module, train)
    other = SVRGModule(module.symbol, data_names=module.data_names, context=module._context)
    other.bind(train.provide_data, train.provide_label, shared_module=module)
    steps(module, train)
    steps(other, train)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("net", ["logistic", "shared"])
@pytest.mark.parametrize("program", [
    another_optimizer, bound_anew, two_updates, two_backward_passes, evaluation_before_update, snapshot_before_update,
    a_sharer_that_trains,
])  # fmt: skip
def test_lazy_steps_are_dense_ones_in(program, net, place):
    dense, lazy = (made(net, mode, place) for mode in ("dense", "lazy"))
    for module, train in (dense, lazy):
        program(module, train)
    assert_same(weights_of(lazy[0]), weights_of(dense[0]), **EXACT)


def test_more_updates_than_factors_are_kept_of(monkeypatch):
    monkeypatch.setattr(skipped_steps, "MOST", 3)
    found = []
    for mode in ("dense", "lazy"):
        module, train = made(mode=mode)
        module.forward_backward(batches(train)[0])
        for _ in range(8):
            module.update()
        found.append(weights_of(module))
    assert_same(*found, **EXACT)


@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("mode", ["dense", "lazy", "reweighted"])
@pytest.mark.parametrize("program", ["bound anew", "evaluated"])
def test_what_is_read_or_bound_in_between_changes_nothing(program, mode, place):
    found = []
    for changes in (False, True):
        module, train = made(mode=mode, place=place)
        for batch in batches(train):
            module.forward_backward(batch)
            if changes and program == "evaluated":
                module.forward(batches(train)[0], is_train=False)
            module.update()
        if changes and program == "bound anew":
            # Module's own copy of the weights is older than its devices'.
            module.bind(train.provide_data, train.provide_label, force_rebind=True)
        found.append(weights_of(module))
    assert_same(*found, **EXACT)


@pytest.mark.parametrize("way", ["forward", "Monitor"])
@pytest.mark.parametrize("place", PLACES)
def test_an_update_whose_gradients_have_gone(place, way):
    module, train = made(place=place)
    first, second, *_ = batches(train)
    module.forward_backward(first)
    if way == "forward":
        module.forward(second, is_train=True)
    else:
        # Without `sparse`, a Monitor makes steps dense.
        module._sparse = None
        module.install_monitor(mx.mon.Monitor(1000))
    before = weights_of(module)
    with pytest.raises(RuntimeError, match="update.. was called too early: another forward"):
        module.update()
    assert_same(weights_of(module), before, rtol=0)


# ----------------------------------------------------------------------------------------- others that see the weights


def outputs_of_both(module, other, batch):
    found = []
    # The module's own forward pass brings all rows up to date.
    for each in (other, module):
        each.forward(batch, is_train=False)
        found.append(each.get_outputs()[0].asnumpy())
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("place", ["1", "1 local"])
@pytest.mark.parametrize("mode", ["lazy", "reweighted"])
@pytest.mark.parametrize("kind", [SVRGModule, mx.mod.Module])
@pytest.mark.parametrize("net", ["logistic", "shared"])
def test_who_shares_the_weights_sees_all_steps(net, kind, mode, place, dtype):
    x, y, weights = NETS[net].samples(32)
    train = Batches(NETS[net], x, y, dtype=dtype)
    module = ready(NETS[net], weights, train, sparse=mode, kvstore=PLACES[place][1], dtype=dtype)
    other = kind(module.symbol, data_names=list(NETS[net].inputs))
    if module._held_dense and kind is mx.mod.Module:
        # Nobody tells the module of a plain one that is about to be bound.
        with pytest.raises(RuntimeError, match="simple_bind"):
            other.bind(train.provide_data, train.provide_label, shared_module=module)
        return
    other.bind(train.provide_data, train.provide_label, shared_module=module)
    module.update_full_grads(train)
    steps(module, train)
    found, expected = outputs_of_both(module, other, batches(train)[0])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", [SVRGModule, mx.mod.Module])
@pytest.mark.parametrize("net", ["logistic", "shared"])
def test_who_shares_them_before_there_is_an_optimizer(net, kind):
    found = {}
    x, y, weights = NETS[net].samples(32)
    for mode in (None, "lazy"):
        train = Batches(NETS[net], x, y, dtype=np.float32)
        module = SVRGModule(symbol(NETS[net], np.float32), data_names=list(NETS[net].inputs), sparse=mode)
        module.bind(train.provide_data, train.provide_label)
        set_weights(module, weights, np.float32)
        other = kind(module.symbol, data_names=list(NETS[net].inputs))
        other.bind(train.provide_data, train.provide_label, shared_module=module)
        if mode is not None:
            with pytest.raises(ValueError, match="another module has been bound to the same weights"):
                module.init_optimizer(None)
            continue
        module.init_optimizer(None)
        module.update_full_grads(train)
        steps(module, train)
        found[mode] = outputs_of_both(module, other, batches(train)[0])
    np.testing.assert_array_equal(*found[None])


# -------------------------------------------------------------------------------------------------- sizes of batches


@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("mode", ["lazy", "reweighted"])
@pytest.mark.parametrize("last, others", [("ragged", 8), ("pad", 6)], ids=["ragged", "evaluation of another size"])
def test_the_metric_is_of_the_rows_of_the_batch(last, others, mode, place):
    x, y, weights = NETS["shared"].samples(29)
    train = Batches(NETS["shared"], x, y, 8, last)
    evaluated = Batches(NETS["shared"], {name: each[:12] for name, each in x.items()}, y[:12], others)
    module = ready(NETS["shared"], weights, train, sparse=mode, devices=PLACES[place][0], kvstore=PLACES[place][1])
    found, expected = mx.metric.MSE(), mx.metric.MSE()
    for _ in range(2):
        module.update_full_grads(train)
        for batch in batches(train):
            module.forward_backward(batch)
            module.update()
            module.update_metric(found, batch.label)
            if place == "1":
                expected.update(batch.label, module.get_outputs())
            else:
                # A device has half of the rows; the metric is a mean over the devices' means.
                half = round(len(batch.label[0]) / 2)
                for rows in (slice(None, half), slice(half, None)):
                    expected.update([batch.label[0][rows]], [module.get_outputs()[0][rows]])
        module.score(evaluated, "mse")
    assert found.get() == expected.get()


@pytest.mark.parametrize("places", [2, 5])
def test_the_last_batch_begins_with_a_row_without_numbers(places):
    # Dense full passes fill up a batch of csr data; of one without any number, mxnet's `square` leaves its last result.
    net = NETS["machine"]
    x, y, weights = net.samples(16 + places)
    x["data"][16] = 0
    train, mu = Batches(net, x, y), net.gradient(weights, x, y)
    module = ready(net, weights, train, sparse="dense")
    module.update_full_grads(train)
    for name, value in module.full_gradient.items():
        np.testing.assert_allclose(value.asnumpy(), mu[name] / len(y), **EXACT)


# ------------------------------------------------------------------------------------------------ stores, plain steps


class EverySecondEpoch(Coefficient):
    """0 in epochs 1, 3, ..."""

    def at(self, clock):
        return 0.0 if clock.epoch % 2 else 1.0


PLANS = {
    "warm start": lambda: {"snapshots": EveryEpochs(1, warm_start=1)},
    "coefficient": lambda: {"update_freq": 1, "coefficient": EverySecondEpoch()},
    "both": lambda: {"snapshots": EveryEpochs(1, warm_start=1), "coefficient": EverySecondEpoch()},
}


@pytest.mark.parametrize("binds", [False, True], ids=["", "bound anew"])
@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("mode", ["dense", "lazy"])
@pytest.mark.parametrize("net", ["logistic", "dense weight"])
def test_plain_steps_between_others_in_a_store(net, mode, plan, binds):
    def train_in(place):
        x, y, weights = NETS[net].samples(32)
        train = Batches(NETS[net], x, y)
        devices, store = PLACES[place]
        module = ready(NETS[net], weights, train, sparse=mode, devices=devices, kvstore=store, **PLANS[plan]())
        of_rows = {} if net == "dense weight" else {"x_weight": mx.nd.arange(9)}
        for epoch in range(5):
            if module.snapshot_is_due(epoch):
                module.update_full_grads(train)
            for batch in batches(train):
                module.prepare(batch, None if store == "None" else lambda _: of_rows)
                module.forward_backward(batch)
                module.update()
            if binds:
                module.bind(train.provide_data, train.provide_label, force_rebind=True)
        return weights_of(module)

    assert_same(train_in("2 local"), train_in("1"), **EXACT)


def test_batches_that_nobody_else_keeps():
    class Once:
        """Its arrays are made anew whenever they are asked for."""

        def __init__(self, batch):
            self._batch, self.label, self.pad, self.index = batch, batch.label, 0, None

        @property
        def data(self):
            return [array.copy() for array in self._batch.data]

    found = []
    for wrap in (lambda batch: batch, Once):
        module, train = made("logistic")
        for batch in batches(train):
            module.forward_backward(wrap(batch))
            nd(np.ones((64, 9)))
            module.update()
        found.append(weights_of(module))
    assert_same(*found, rtol=0)
