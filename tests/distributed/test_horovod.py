"""HorovodStore with a Horovod of one worker; `make horovod` tests it with the real one and several."""

import sys
import types

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import OPTIMIZERS, assert_same, iterator, nd, ready, samples, train_steps

from svrg_optimization import SVRGModule
from svrg_optimization.horovod_store import HorovodStore

(PROBLEM,) = (problem for problem in oracle.PROBLEMS if problem.name == "softmax")


@pytest.fixture
def store(monkeypatch):
    """A store of a job with one worker."""
    horovod = types.ModuleType("horovod.mxnet")
    horovod.init, horovod.rank, horovod.size, horovod.Sum = (lambda: None), (lambda: 0), (lambda: 1), "sum"

    def allreduce(tensor, op, name, priority):
        assert op == "sum"
        return tensor.copy()

    horovod.allreduce = allreduce
    horovod.broadcast = lambda tensor, root, name, priority: tensor.copy()
    monkeypatch.setitem(sys.modules, "horovod", types.ModuleType("horovod"))
    monkeypatch.setitem(sys.modules, "horovod.mxnet", horovod)
    sys.modules["horovod"].mxnet = horovod
    return HorovodStore()


@pytest.mark.parametrize("devices", [1, 2])
def test_every_step_equals_the_oracle(store, devices):
    data, weights = samples(PROBLEM, 9)
    name, params, expected = OPTIMIZERS["momentum"]
    module = ready(PROBLEM, weights, iterator(PROBLEM, data, 4), kvstore=store, devices=devices, optimizer=name,
                   optimizer_params=params)  # fmt: skip
    actual = list(train_steps(module, iterator(PROBLEM, data, 4), 5))
    steps = list(oracle.svrg(PROBLEM, weights, data, expected, batch_size=4, epochs=5, update_freq=2))
    assert len(actual) == len(steps)
    for step, wanted in zip(actual, steps):
        assert_same(step, wanted, rtol=1e-12, atol=1e-14)


def test_broadcast_and_sum(store):
    first, second = nd([1, 2]), nd([3, 4])
    store.pushpull("key", [first, second])
    assert first.asnumpy().tolist() == second.asnumpy().tolist() == [4, 6]
    outs = [nd([0, 0]), nd([0, 0])]
    store.broadcast("key", first, outs)
    assert [out.asnumpy().tolist() for out in outs] == [[4, 6]] * 2


def test_sparse_gradients_are_refused(store):
    with pytest.raises(ValueError, match="fc_weight: Horovod adds up dense gradients only; use kvstore='dist_sync'"):
        store.push("fc_weight", mx.nd.sparse.zeros("row_sparse", (2, 2)))


def test_a_plain_modules_store_is_not_borrowed(store):
    data, weights = samples(PROBLEM, 8)
    train = iterator(PROBLEM, data, 4)
    plain = ready(PROBLEM, weights, train, kvstore=store, module=mx.mod.Module)
    with pytest.raises(RuntimeError, match="kvstore='dist_sync_horovod', whose servers have no keys"):
        SVRGModule(plain.symbol).bind(train.provide_data, train.provide_label, shared_module=plain)


def test_without_horovod_the_error_says_where_to_look(monkeypatch):
    monkeypatch.setitem(sys.modules, "horovod", None)
    with pytest.raises(ImportError, match=r"built for mxnet \(.*\): see docs/cluster.md"):
        HorovodStore()


def test_a_worker_alone_starts_at_its_weights(store):
    data, weights = samples(PROBLEM, 8)
    module = ready(PROBLEM, weights, iterator(PROBLEM, data, 4), kvstore=store)
    for name, value in module.get_params()[0].items():
        np.testing.assert_array_equal(value.asnumpy(), weights[name])
