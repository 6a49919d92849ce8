"""Jobs of several workers on parameter servers: every step of every worker equals the data-parallel oracle."""

import os
import signal

import mxnet as mx
import pytest
from distributed_worker import PROBLEMS, shards_of
from jobs import SOON, Running, expected_steps, ignorant_server, plain_server, run, server, settings
from models import TOLERANCE, assert_same, iterator, ready, samples, train_steps

from svrg_optimization import SVRGModule, distributed, keys

TWO = (server, server)
WORKERS_UPDATE = {"MXNET_UPDATE_ON_KVSTORE": "0"}
SHARDED = {"MXNET_KVSTORE_BIGARRAY_BOUND": "4"}
JOBS = {
    "one worker": (dict(shards=[10], by_name=True), (server,), {}),
    "two devices, two servers, sharded keys": (
        dict(problem="two-layer", devices=2, shards=[10, 12]), TWO, SHARDED),
    "rank-dependent weights, scheduler": (
        dict(problem="logistic", optimizer="lr_scheduler", shards=[9, 12], weights_by_rank=True), (server,), {}),
    "three workers update, unequal counts": (
        dict(shards=[9, 12, 4], weights_by_rank=True, by_name=True, update_freq=1), TWO, WORKERS_UPDATE),
    "four workers, default names": (
        dict(default_names=True, shards=[8, 7, 6, 5], store="dist_device_sync"), TWO, {}),
    "four workers update, scheduler, two devices": (
        dict(problem="linear", optimizer="lr_scheduler", devices=2, shards=[8] * 4, update_freq=3), (server,),
        WORKERS_UPDATE),
    "float64": (dict(dtype="float64", shards=[10, 9], problem="two-layer"), TWO, {}),
    "float64, workers update, adam": (
        dict(dtype="float64", optimizer="adam", shards=[10, 9, 8], weights_by_rank=True), (server,), WORKERS_UPDATE),
}  # fmt: skip


@pytest.mark.parametrize("name", JOBS)
def test_every_step_of_every_worker_equals_the_oracle(name, tmp_path):
    job, servers, environment = JOBS[name]
    job = settings(tmp_path, **job)
    steps, requests = run(job, servers=servers, environment=environment)
    expected = expected_steps(job)
    for of_worker in steps:
        assert len(of_worker) == len(expected)
        for actual, wanted, of_first in zip(of_worker, expected, steps[0]):
            assert_same(actual, wanted, **TOLERANCE[job["dtype"]])
            assert_same(actual, of_first)
    # A step sends one pushpull for each parameter, as Module does; a snapshot one more for each, and one.
    parameters, snapshots = len(expected[0]), -(-job["epochs"] // job["update_freq"])
    set_up = 2 + len(servers)
    for counts in requests:
        assert counts["pushpull"] == parameters * len(expected) + (parameters + 1) * snapshots + set_up
        assert counts["push"] == 0


def test_a_single_machine_takes_the_same_steps_on_the_same_batches(tmp_path):
    job = settings(tmp_path, dtype="float64", shards=[8, 8], epochs=4)
    steps, _ = run(job)
    problem = PROBLEMS[job["problem"]]
    data, weights = samples(problem, 16)
    first, second = shards_of(data, job["shards"])
    together = [sample for k in (0, 4) for shard in (first, second) for sample in shard[k : k + 4]]
    train = iterator(problem, together, 8)
    module = ready(problem, weights, train, optimizer_params={"learning_rate": 0.125, "momentum": 0.5})
    for actual, wanted in zip(steps[0], train_steps(module, train, job["epochs"])):
        assert_same(actual, wanted, rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------------------------ bad set-ups

FAILURES = {
    "a server without the package": (
        {}, (ignorant_server,), "server 0 doesn't run the optimizer that it was sent"),
    "one bad server of two": (
        {}, (ignorant_server, server), "doesn't run the optimizer that it was sent"),
    "update_freq": (
        dict(of_rank={"1": {"update_freq": 3}}), (server,), "update_freq: 2 on worker 0; 3 on worker 1"),
    "names": (
        dict(of_rank={"1": {"default_names": True}}), (server,), "parameter names: one value on worker 0; another"),
    "shapes": (
        dict(of_rank={"1": {"problem": "linear"}}), (server,), "parameter shapes and types: one value on worker 0"),
    "batch size": (
        dict(of_rank={"1": {"batch_size": 2}}), (server,), "batch size: 4 on worker 0; 2 on worker 1"),
    "a used store": (dict(used=True), (server,), "the KVStore has been used before"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_every_worker_says_what_is_wrong_before_training(name, tmp_path):
    job, servers, message = FAILURES[name]
    with Running(settings(tmp_path, **job), servers=servers) as running:
        codes = running.wait(but=["scheduler"] + ["server {}".format(k) for k in range(len(servers))])
        for worker, code in codes.items():
            assert code == 1
            assert "RuntimeError" in running.output(worker) and message in running.output(worker)


def test_servers_that_round_float64_are_named(tmp_path):
    with Running(settings(tmp_path, dtype="float64"), servers=(plain_server,)) as running:
        running.wait()
        assert "the servers round float64 to float32" in running.output("worker 0")


@pytest.mark.parametrize("store", ["dist_async", "dist", "dist_device_async", "p3store_dist"])
def test_asynchronous_stores_are_refused(store):
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 8)
    with pytest.raises(ValueError, match="'dist_sync'"):
        ready(problem, weights, iterator(problem, data, 4), kvstore=store)


def test_a_distributed_store_needs_a_job(monkeypatch):
    monkeypatch.delenv("DMLC_ROLE", raising=False)
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 8)
    with pytest.raises(ValueError, match="svrg_optimization.launch"):
        ready(problem, weights, iterator(problem, data, 4), kvstore="dist_sync")


# ------------------------------------------------------------------------------------------------------ dead processes


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("role", ["worker", "server 0", "scheduler"])
def test_all_end_when_one_process_is_dead(role, how, tmp_path):
    # Without the launcher: the processes themselves notice.
    with Running(settings(tmp_path, hold=["step", 0, 0])) as running:
        held = running.wait_for_hold()
        victim = held if role == "worker" else role
        os.kill(running.processes[victim].pid, how)
        codes = running.wait(SOON, but=[victim])
        assert all(code == 70 for code in codes.values()), codes
        outputs = [running.output(name) for name in codes]
        if role == "scheduler":
            assert all("no heartbeat from the scheduler" in output for output in outputs)
        else:
            assert "scheduler: no heartbeat from {}".format(role) in running.output("scheduler")


def test_an_exception_in_a_worker_ends_the_job(tmp_path):
    job = settings(tmp_path, of_rank={"1": {"fails": True}})
    with Running(job) as running:
        codes = running.wait()
        assert sorted(codes.values()) == [1, 70, 70, 70]
        failed = next(name for name, code in codes.items() if code == 1)
        assert "worker 1 ends: ValueError: as the test wants" in running.output(failed)


@pytest.mark.parametrize("place", ["snapshot", "step", "checkpoint"])
def test_a_job_goes_on_from_its_checkpoint_as_if_nothing_had_happened(place, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    job = dict(shards=[8, 8], epochs=4, update_freq=2, checkpoints=True)
    undisturbed, _ = run(settings(tmp_path / "whole", **job), environment=WORKERS_UPDATE)
    killed = settings(tmp_path / "killed", hold=[place, 2, 0], **job)
    with Running(killed, environment=WORKERS_UPDATE) as running:
        victim = running.wait_for_hold()
        running.processes[victim].kill()
        running.wait(SOON, but=[victim])
    last = SVRGModule.last_checkpoint([str(tmp_path / "killed" / "worker{}".format(k)) for k in range(2)])
    assert last == 2
    resumed, _ = run({**killed, "hold": None, "resume": last}, environment=WORKERS_UPDATE)
    for whole, rest in zip(undisturbed, resumed):
        for actual, wanted in zip(rest, whole[-len(rest) :]):
            assert_same(actual, wanted)


# ---------------------------------------------------------------------------------------------------------- small parts


def test_saving_states_that_are_on_the_servers_says_what_to_do(tmp_path):
    with Running(settings(tmp_path, checkpoints=True)) as running:
        codes = running.wait(but=["scheduler", "server 0"])
        assert set(codes.values()) == {1}
        assert "MXNET_UPDATE_ON_KVSTORE=0" in running.output("worker 0")


def test_exactly_refuses_too_few_batches():
    assert list(distributed.exactly([1, 2, 3], 2)) == [1, 2]
    with pytest.raises(RuntimeError, match="gave 1 batches, and 2 when they were counted"):
        list(distributed.exactly([1], 2))


def test_counting_leaves_an_iterator_at_its_start():
    train = mx.io.NDArrayIter(mx.nd.zeros((10, 2)), batch_size=4, last_batch_handle="roll_over")
    next(train)
    assert [distributed.count_batches(train), sum(1 for _ in train)] == [2, 2]


def test_servers_find_out_by_their_answers_whether_they_know_the_keys():
    names = keys.server_keys(["w"], 2)
    assert len({keys.proof(names, k) for k in range(3)} | {keys.proof(keys.server_keys(["v"], 2), 0)}) == 4


def test_no_job_is_left_behind_in_this_process():
    assert "DMLC_ROLE" not in os.environ and distributed._job is None
