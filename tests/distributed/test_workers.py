"""The workers of a job, as far as one process can show them: what classes they have, and what they refuse."""

import gc
import re
import subprocess
import sys
import weakref
from pathlib import Path

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import OPTIMIZERS, assert_same, iterator, ready, samples, train_steps

import svrg_optimization
from svrg_optimization.distributed import horovod, liveness, new_stores, parameter_servers, workers

(PROBLEM,) = (problem for problem in oracle.PROBLEMS if problem.name == "softmax")
JOB = {
    "DMLC_ROLE": "worker", "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": "9", "DMLC_NUM_WORKER": "1",
    "DMLC_NUM_SERVER": "1",
}  # fmt: skip


def module(kvstore, **settings):
    data, weights = samples(PROBLEM, 9)
    train = iterator(PROBLEM, data, 4, settings.get("dtype", np.float64))
    return ready(PROBLEM, weights, train, kvstore=kvstore, **settings), train


# ------------------------------------------------------------------------------------------------------- the classes


@pytest.mark.parametrize("kind", [workers.Alone, parameter_servers.ParameterServers, horovod.Horovod])
def test_the_classes_are_siblings_and_call_the_constructor_of_their_parent(kind, monkeypatch):
    assert kind.__bases__ == (workers.Workers,)

    class CalledError(Exception):
        pass

    def constructor(*_):
        raise CalledError

    monkeypatch.setattr(workers.Workers, "__init__", constructor)
    monkeypatch.setattr(parameter_servers.ParameterServers, "store_of_process", None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    class Store:
        rank, num_workers = 0, 1

    arguments = [Store(), workers.Job([], 1, {}, lambda store: False), {"default_optimizer": "sgd"}]
    with pytest.raises(CalledError):
        kind(*arguments[: 1 if kind is workers.Alone else 3])


def test_the_garbage_collector_is_not_searched_for_stores():
    for path in Path(svrg_optimization.__file__).parent.rglob("*.py"):
        assert not re.search(r"\bgc\b", path.read_text("utf-8")), path


IMPORTS = """
import sys, threading
exit = sys.exit
import svrg_optimization.svrg_module, svrg_optimization.distributed.parameter_servers
import svrg_optimization.distributed.horovod, svrg_optimization.server
import mxnet as mx
print(sys.excepthook is sys.__excepthook__, sys.exit is exit, threading.active_count(),
      "dist_sync" in mx.kv.KVStoreBase.kv_registry)
raise ValueError("as the test wants")
"""


@pytest.mark.parametrize("environment, printed", [
    ({}, "True True 1 False\n"),
    ({**JOB, "SVRG_WATCHED": "1"}, "True True 1 True\n"),
    ({**JOB, "SVRG_PROCESS": "worker 0"}, "False False 2 True\n"),
])  # fmt: skip
def test_an_import_installs_something_in_a_worker_and_only_there(environment, printed):
    command = [sys.executable, "-W", "ignore", "-c", IMPORTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, printed), done.stderr
    said = "ValueError: as the test wants\n"
    assert done.stderr.endswith(said + "worker 0 ends: " + said if "SVRG_PROCESS" in environment else said)


@pytest.mark.parametrize("kvstore", [None, "device"])
def test_the_workers_do_not_hold_a_module(kvstore):
    trained, train = module(kvstore, devices=2)
    trained.update_full_grads(train)
    lives, held = weakref.ref(trained), trained._workers
    del trained
    gc.collect()
    assert lives() is None
    assert held.store is None if kvstore is None else held.store.type == kvstore


# ---------------------------------------------------------------------------------------------------------- alone


def test_a_borrower_of_a_plain_modules_optimizer_adds_up_by_itself():
    lender, train = module("local", module=mx.mod.Module, devices=2)
    ours, _ = module(None, devices=2)
    ours.borrow_optimizer(lender)
    other, _ = module("local", devices=2)
    for each in (ours, other):
        each.update_full_grads(train)
    for actual, wanted in zip(ours._param_dict, other._param_dict):
        numbers = [{name: array.asnumpy() for name, array in each.items()} for each in (actual, wanted)]
        assert_same(*numbers, rtol=1e-12, atol=1e-14)


def test_a_worker_alone_has_as_many_steps_as_batches():
    def count():
        raise AssertionError("must not be called")

    assert workers.Alone().steps(count, {"num_epoch": 3}) is None
    assert workers.Alone().samples(7) == 7


# ---------------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("on_kvstore", ["0", "1"])
@pytest.mark.parametrize("threshold", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("dtype, devices", [(np.float32, 1), (np.float32, 2), (np.float64, 2)])
@pytest.mark.parametrize("kind", ["device", "local_allreduce_device"])
def test_a_store_that_compresses_is_refused(kind, dtype, devices, threshold, on_kvstore, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", on_kvstore)
    store = mx.kv.create(kind)
    store.set_gradient_compression({"type": "2bit", "threshold": threshold})
    with pytest.raises(ValueError, match="kvstore='{}': the store has gradient compression.*don't call".format(kind)):
        module(store, dtype=dtype, devices=devices)


@pytest.mark.parametrize("on_kvstore", ["0", "1"])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_a_store_that_does_not_compress_trains_as_ever(devices, on_kvstore, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", on_kvstore)
    data, weights = samples(PROBLEM, 9)
    name, params, optimizer = OPTIMIZERS["adam"]
    trained, train = module(mx.kv.create("device"), devices=devices, optimizer=name, optimizer_params=params)
    steps = oracle.svrg(PROBLEM, weights, data, optimizer, batch_size=4, epochs=3, update_freq=2)
    for actual, wanted in zip(train_steps(trained, train, 3), steps):
        assert_same(actual, wanted, rtol=1e-12, atol=1e-14)


# --------------------------------------------------------------------------------------------------------- by name


def test_who_waits_for_a_store_is_told_why(monkeypatch):
    said = []

    class Timer:
        def cancel(self):
            said.append("cancelled")

    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(liveness, "say_later", lambda message: said.append(message) or Timer())
    create = mx.kv.create
    monkeypatch.setattr(mx.kv.KVStoreBase, "kv_registry", {})
    new_stores.register()

    def create_natively(name):
        assert not mx.kv.KVStoreBase.kv_registry.get(name)
        said.append(name)
        raise CreatedError

    class CreatedError(Exception):
        pass

    monkeypatch.setattr(mx.kv, "create", create_natively)
    with pytest.raises(CreatedError):
        create("dist_sync")
    message, *rest = said
    assert rest == ["dist_sync", "cancelled"] and "dist_sync" in mx.kv.KVStoreBase.kv_registry
    assert message.startswith("waiting for the scheduler at 127.0.0.1:9, and for 1 workers and 1 servers to come to it")
    assert "If this program has made a distributed store itself" in message
    assert "pass the store itself, kvstore=store, instead of kvstore='dist_sync'" in message
