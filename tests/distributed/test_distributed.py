"""Jobs of several workers on parameter servers: every step of every worker equals the data-parallel oracle."""

import contextlib
import os
import re
import signal

import mxnet as mx
import numpy as np
import pytest
from distributed_worker import AFTER_STEP, PROBLEMS, shards_of
from jobs import SOON, Running, expected_steps, ignorant_server, rounding_server, run, run_all, server, settings
from models import assert_same, iterator, ready, samples, train_steps

from svrg_optimization import SVRGModule, keys
from svrg_optimization.compute.data import count_batches, exactly
from svrg_optimization.distributed import liveness, workers
from svrg_optimization.distributed.parameter_servers import ParameterServers

WORKERS_UPDATE = {"MXNET_UPDATE_ON_KVSTORE": "0"}
SHARDED = {"MXNET_KVSTORE_BIGARRAY_BOUND": "4"}
COLUMNS = ("shards", "devices", "servers", "sharded", "problem", "optimizer", "on_servers", "by_name",
           "weights_by_rank", "default_names", "dtype", "store", "update_freq")  # fmt: skip
JOBS = [
    ([10], 1, 1, False, "linear", "momentum", True, True, False, False, "float32", "dist_sync", 2),
    ([12], 2, 2, True, "two-layer", "lr_scheduler", True, False, True, False, "float64", "dist_sync", 1),
    ([9], 1, 2, True, "softmax", "adam", False, True, False, True, "float32", "dist_device_sync", 3),
    ([10, 12], 2, 2, True, "two-layer", "momentum", True, False, True, False, "float32", "dist_sync", 2),
    ([8, 8], 1, 1, False, "logistic", "lr_scheduler", True, True, False, False, "float64", "dist_device_sync", 3),
    ([9, 12], 2, 1, True, "softmax", "adam", False, False, True, True, "float64", "dist_sync", 1),
    ([9, 12, 4], 1, 2, False, "softmax", "momentum", False, True, True, True, "float32", "dist_sync", 1),
    ([8, 8, 8], 2, 1, False, "linear", "lr_scheduler", True, False, False, False, "float32", "dist_device_sync", 2),
    ([10, 9, 8], 1, 2, True, "two-layer", "adam", True, False, True, False, "float64", "dist_sync", 2),
    ([8, 7, 6, 5], 1, 2, False, "softmax", "momentum", True, True, False, True, "float32", "dist_device_sync", 2),
    ([8, 8, 8, 8], 2, 1, True, "linear", "lr_scheduler", False, False, True, False, "float32", "dist_sync", 3),
    ([6, 9, 5, 12], 2, 2, True, "two-layer", "adam", True, False, True, False, "float64", "dist_sync", 1),
]


def _job(directory, row):
    job = dict(zip(COLUMNS, row))
    servers = [server] * job.pop("servers")
    environment = {**(SHARDED if job.pop("sharded") else {}), **({} if job.pop("on_servers") else WORKERS_UPDATE)}
    return settings(directory, **job), dict(servers=servers, environment=environment)


def _relative_error(actual, expected):
    flat = [np.concatenate([each[name].ravel() for name in sorted(expected)]) for each in (actual, expected)]
    return np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1])


def _assert_steps(steps, job):
    """Every step of every worker equals the oracle, and the workers each other in every bit."""
    expected = expected_steps(job)
    for of_worker in steps:
        assert len(of_worker) == len(expected)
        for actual, wanted, of_first in zip(of_worker, expected, steps[0]):
            assert_same(actual, of_first)
            assert _relative_error(actual, wanted) < {"float64": 1e-12, "float32": 1e-6}[job["dtype"]]


@pytest.mark.parametrize("row", JOBS, ids=lambda row: "{}-{}-{}".format(len(row[0]), row[4], row[5]))
def test_every_step_of_every_worker_equals_the_oracle(row, tmp_path):
    job, how = _job(tmp_path, row)
    steps, _ = run(job, **how)
    _assert_steps(steps, job)


@pytest.mark.parametrize("environment", [{}, SHARDED, WORKERS_UPDATE], ids=["servers", "sharded", "workers"])
def test_a_regularizer_of_ours(environment, tmp_path):
    job = settings(tmp_path, optimizer="proximal", problem="two-layer", dtype="float64")
    steps, _ = run(job, servers=[server] * 2, environment=environment)
    _assert_steps(steps, job)
    assert any((step["fc1_weight"] == 0).any() for step in steps[0])


@pytest.mark.parametrize("environment", [{}, WORKERS_UPDATE], ids=["servers", "workers"])
def test_an_optimizer_that_mxnet_lacks(environment, tmp_path):
    job = settings(tmp_path, optimizer="adamw", problem="two-layer", dtype="float64")
    steps, _ = run(job, servers=[server], environment=environment)
    _assert_steps(steps, job)


@pytest.mark.parametrize("column", COLUMNS[1:], ids=str)
def test_the_jobs_have_both_values_of_each_setting_for_any_number_of_workers(column):
    values = {(len(row[0]), row[COLUMNS.index(column)]) for row in JOBS}
    assert all(len({value for count, value in values if count == workers}) >= 2 for workers in (1, 2, 3, 4))


@pytest.mark.parametrize("borrows", [False, True])
def test_training_by_hand_with_different_numbers_of_batches(borrows, tmp_path):
    job = settings(tmp_path, by_hand=True, borrows=borrows, shards=[9, 12, 4])
    steps, outputs = run(job)
    _assert_steps(steps, job)
    said = "The workers have different numbers of batches: 3 on worker 0, 3 on worker 1, 1 on worker 2."
    assert all(said in output for output in outputs)


def test_fit_takes_as_many_steps_as_the_worker_with_the_fewest_batches_and_says_so(tmp_path):
    job = settings(tmp_path, shards=[4, 12])
    steps, outputs = run(job)
    _assert_steps(steps, job)
    said = "Each epoch has 1 steps, the smallest number of batches: 1 on worker 0, 3 on worker 1"
    assert all(said in output and "The workers have" not in output for output in outputs)


def test_all_workers_stop_when_the_gradient_is_small_enough(tmp_path):
    job = settings(tmp_path, problem="linear", dtype="float64", epochs=60, update_freq=1, tol=1e-4)
    steps, outputs = run(job)
    number = len(steps[0])
    assert 2 < number < 120
    assert all(len(of_worker) == number for of_worker in steps)
    for of_worker in steps:
        for actual, wanted in zip(of_worker, expected_steps(job)):
            assert _relative_error(actual, wanted) < 1e-12
    assert all("Converged: " in output for output in outputs)


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


# ------------------------------------------------------------------------------------------------------------ traffic

REQUEST = re.compile(r"=> \d+\. Meta: request=1, .*simple_app=0, push=")


def _requests(output):
    """How many requests for data a worker sent up to each step, from the one before: ps-lite prints each."""
    return [len(REQUEST.findall(part)) for part in output.split(AFTER_STEP)]


@pytest.mark.parametrize("on_servers", [True, False])
def test_a_step_sends_what_that_of_a_module_sends(on_servers, tmp_path):
    job = settings(tmp_path, problem="two-layer", devices=2, epochs=4)
    environment = {**SHARDED, **({} if on_servers else WORKERS_UPDATE), "PS_VERBOSE": "2"}
    counts = []
    for plain in (True, False):
        _, outputs = run({**job, "plain": plain}, servers=[server, server], environment=environment)
        counts += [_requests(output) for output in outputs]
    plain, ours = counts[:2], counts[2:]
    steps = job["epochs"] * 2
    # Each of the four parameters is on both servers, but for one of three numbers only.
    module = 4 * 2 - 1
    assert [of_worker[1:steps] for of_worker in plain] == [[module] * (steps - 1)] * 2
    # A snapshot, before the fifth step, sends as much as a step, and the number of samples, to both servers.
    expected = [module] * steps
    expected[4] += module + 2
    assert [of_worker[1:steps] for of_worker in ours] == [expected[1:]] * 2


# ------------------------------------------------------------------------------------------------------ bad set-ups

FAILURES = {
    "a server without the package": (
        {}, (ignorant_server,), "server 0 doesn't run the optimizer that it was sent"),
    "one bad server of two": (
        {}, (ignorant_server, server), "doesn't run the optimizer that it was sent"),
    "update_freq": (
        dict(of_rank={1: {"update_freq": 3}}), (server,), "update_freq: 2 on worker 0; 3 on worker 1"),
    "names": (
        dict(of_rank={1: {"default_names": True}}), (server,), "parameter names: one value on worker 0; another"),
    "shapes": (
        dict(of_rank={1: {"problem": "linear"}}), (server,), "parameter shapes and types: one value on worker 0"),
    "batch size": (
        dict(of_rank={1: {"batch_size": 2}}), (server,), "batch size: 4 on worker 0; 2 on worker 1"),
    "optimizer": (
        dict(of_rank={1: {"optimizer": "adam"}}), (server,), "optimizer: one value on worker 0; another on worker 1"),
    "begin_epoch": (
        dict(of_rank={1: {"begin_epoch": 1}}), (server,), "begin_epoch: 0 on worker 0; 1 on worker 1"),
    "no epochs": (
        dict(of_rank={1: {"epochs": 0}}), (server,), "num_epoch: 3 on worker 0; 0 on worker 1"),
    "a used store": (dict(used=True), (server,), "the KVStore has been used before"),
    "compression": (
        dict(compression=0.5), (server,), "kvstore='dist_sync': the store has gradient compression"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_every_worker_says_what_is_wrong_before_training(name, tmp_path):
    job, servers, message = FAILURES[name]
    with Running(settings(tmp_path, **job), servers=servers) as running:
        codes = running.wait(but=["scheduler"] + ["server {}".format(k) for k in range(len(servers))])
        for worker, code in codes.items():
            assert code == 1
            kind = "ValueError" if name == "compression" else "RuntimeError"
            assert kind + ": " in running.output(worker) and message in running.output(worker)


def test_servers_that_round_float64_are_named(tmp_path):
    with Running(settings(tmp_path, dtype="float64"), servers=(rounding_server,)) as running:
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


# ----------------------------------------------------------------------------------------------------- dead processes

SAVING = dict(epochs=4, checkpoints=True)
# In other jobs of these tests nobody dies, however busy the machine is.
FAST = {"PS_HEARTBEAT_TIMEOUT": "2"}
PLACES = [
    ("before the store", None),
    ("loading data", None),
    ("snapshot", 2),
    ("step", 2),
    ("checkpoint", 2),
    ("end", None),
]
# Ways to die, and ways to leave. A process that stands still before it has a store, as ps-lite calls that, isn't dead.
DEATHS = [signal.SIGKILL, signal.SIGSTOP, "exception"]
EXITS = ["exit 0", "exit 3", "caught exception"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The steps of a job that nothing happens to."""
    return run(settings(tmp_path_factory.mktemp("undisturbed"), **SAVING), environment=WORKERS_UPDATE)[0]


def _ways(role, place):
    """What may happen to a process with this role at this place, and be noticed without the launcher."""
    ways = DEATHS if place != "before the store" else [way for way in DEATHS if way != signal.SIGSTOP]
    return ways + (EXITS if role == "worker" else [])


def _assert_all_end(running, victim, pid=""):
    """All processes but the victim end soon, and say why: its name, or that of its process before it has a rank."""
    codes = running.wait(SOON, but=[victim])
    said = {name: running.output(name)[-1000:] for name in codes}
    assert set(codes.values()) == {liveness.EXIT_CODE}, said
    name_of_victim = r"({}|{} \(process {} on .*\))".format(victim, victim.split()[0], pid)
    for name, output in said.items():
        if victim == "scheduler":
            assert re.search("(the scheduler has ended|no word from the scheduler for . s)[.] Start", output), output
        else:
            who = "scheduler" if name == "scheduler" else "the scheduler says"
            wrong = "{0} has ended|no heartbeat from {0}|{0} has left, and others wait for it".format(name_of_victim)
            assert re.search("{}: ({})".format(who, wrong), output), output


def _assert_failed(running, name, message):
    assert running.exit_code(name) == 1
    assert re.search(message, running.output(name)), running.output(name)[-1000:]


def _assert_left(running, victim, code):
    assert running.exit_code(victim) == code
    assert re.search("ends: it leaves, and other workers wait for it: its fit", running.output(victim))


def _assert_victim(running, victim, how):
    """The victim, unless a signal ended it, has said what is wrong."""
    if how == "exception":
        _assert_failed(running, victim, victim.split()[0] + ".* ends: .*as the test wants")
    elif how in EXITS:
        _assert_left(running, victim, 3 if how == "exit 3" else 1)


# They wait, for heartbeats that don't come: one process takes them all, while the others compute.
@pytest.mark.xdist_group("deaths")
@pytest.mark.parametrize("place, epoch", PLACES, ids=[place.replace(" ", "-") for place, _ in PLACES])
@pytest.mark.parametrize("role", ["worker", "server 0", "scheduler"])
def test_all_end_when_one_process_dies_and_the_job_goes_on_from_its_checkpoint(
    role, place, epoch, undisturbed, tmp_path
):
    # Without the launcher: the processes themselves notice. One job for each way to die, at the same time.
    ways = _ways(role, place)
    ways = ways if place != "end" else [way for way in ways if way not in EXITS]
    jobs = [settings(tmp_path / str(k), hold=[place, epoch], **SAVING) for k in range(len(ways))]
    with contextlib.ExitStack() as stack:
        all_running = [stack.enter_context(Running(job, environment={**WORKERS_UPDATE, **FAST})) for job in jobs]
        held = [running.wait_for_hold() for running in all_running]
        victims = held if role == "worker" else [role] * len(ways)
        for running, victim, how in zip(all_running, victims, ways):
            running.wait_until_watched()
            running.harm(victim, how)
        for running, victim, how in zip(all_running, victims, ways):
            _assert_all_end(running, victim, running.processes[victim].pid)
            _assert_victim(running, victim, how)
    if epoch is not None:
        _assert_resumed(jobs, undisturbed)


def _assert_resumed(jobs, undisturbed):
    """Each job has the checkpoint of epoch 2, and goes on from there as if nothing had happened.

    Two of them do: all were at the same place.
    """
    for job in jobs:
        prefixes = [job["directory"] + "/worker{}".format(rank) for rank in range(2)]
        assert SVRGModule.last_checkpoint(prefixes) == 2
    for resumed, _ in run_all(
        [{**job, "hold": None, "resume": 2} for job in (jobs[0], jobs[-1])], environment=WORKERS_UPDATE
    ):
        for rest, whole in zip(resumed, undisturbed):
            assert len(rest) == len(whole) / 2
            for actual, wanted in zip(rest, whole[len(rest) :]):
                assert_same(actual, wanted)


@pytest.mark.parametrize("how, code", [("exit 0", 0), ("exit 3", 3), ("caught exception", 0)])
def test_a_worker_that_leaves_when_all_have_done_the_same_leaves_with_its_own_exit_code(how, code, tmp_path):
    with Running(settings(tmp_path, hold=["end", None])) as running:
        victim = running.wait_for_hold()
        running.harm(victim, how)
        codes = running.wait()
        assert codes.pop(victim) == code and set(codes.values()) == {0}, codes


def test_workers_that_leave_without_a_store_do_not_end_the_job(tmp_path):
    # As of a script with two programs. The servers wait for the second one.
    with Running(settings(tmp_path, hold=["before the store", None], exits=True)) as running:
        victim = running.wait_for_hold()
        running.harm(victim, "exit 0")
        codes = running.wait(but=["scheduler", "server 0"])
        assert set(codes.values()) == {0}
        assert [running.processes[name].is_alive() for name in ("scheduler", "server 0")] == [True, True]


def test_more_than_two_workers_go_on_to_rounding(tmp_path):
    job = settings(tmp_path, shards=[8, 8, 8], **SAVING)
    (whole, *_), _ = run(job, environment=WORKERS_UPDATE)
    (rest, *_), _ = run({**job, "resume": 3}, environment=WORKERS_UPDATE)
    for actual, wanted in zip(rest, whole[-len(rest) :]):
        assert _relative_error(actual, wanted) < 1e-6


def test_an_optimizer_that_fails_on_a_server_ends_the_job(tmp_path):
    with Running(settings(tmp_path, optimizer="failing"), environment=FAST) as running:
        running.wait_for_end("server 0")
        _assert_all_end(running, "server 0")
        _assert_failed(running, "server 0", r"server ends: its optimizer raised ValueError\('as the test wants'\)")


# ---------------------------------------------------------------------------------------------------------- small parts


def test_dead_is_who_is_still_silent_when_the_next_heartbeats_have_come(monkeypatch):
    silent, seconds = [], [100.0]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(liveness, "_listens", {("127.0.0.1", 9): True}.get)
    environment = {
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": "9",
        "DMLC_NUM_WORKER": "2",
        "DMLC_NUM_SERVER": "1",
        "PS_HEARTBEAT_INTERVAL": "2",
        "PS_HEARTBEAT_TIMEOUT": "5",
    }
    numbers = {"worker 0": 9, "worker 1": 11, "server 0": 8}
    is_silent = lambda node, limit: limit == 5 and node in [numbers[name] for name in silent]  # noqa: E731
    inspect = liveness.Heartbeats(is_silent, environment)

    def after(passed, *names):
        seconds[0] += passed
        silent[:] = names
        return inspect()

    # As when the scheduler stood still, or its clock was set.
    assert [after(1, "worker 0", "server 0"), after(2, "worker 0", "server 0"), after(1)] == [""] * 3
    # And as when one is dead.
    assert [after(1, "worker 0"), after(2, "worker 0")] == [""] * 2
    assert after(1, "worker 0", "server 0") == "no heartbeat from worker 0"


def test_who_waits_long_says_so(capsys):
    liveness.say_later("waiting", 0).join()
    liveness.say_later("not waiting any more", 60).cancel()
    assert capsys.readouterr().err == "waiting\n"


def test_exactly_refuses_too_few_batches():
    assert list(exactly([1, 2, 3], 2)) == [1, 2]
    with pytest.raises(RuntimeError, match="gave 1 batches, and 2 when they were counted"):
        list(exactly([1], 2))


def test_the_optimizer_of_a_distributed_module_cannot_be_borrowed(monkeypatch):
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 8)
    train = iterator(problem, data, 4)
    plain = ready(problem, weights, train, module=mx.mod.Module, kvstore=mx.kv.create("local"))
    ours = ready(problem, weights, train)
    monkeypatch.setattr(mx.kvstore.KVStore, "type", "dist_sync")
    with pytest.raises(RuntimeError, match="a plain Module's with kvstore='dist_sync'"):
        ours.borrow_optimizer(plain)


def test_the_optimizer_is_described_by_what_is_simple():
    scheduler = mx.lr_scheduler.FactorScheduler(3, 0.5)
    assert workers.description("SGD", wd=0.5, lr_scheduler=scheduler) == ["sgd", ("wd", 0.5)]
    assert workers.description(mx.optimizer.SGD(momentum=0.5)) != workers.description(mx.optimizer.SGD())


def test_counting_leaves_an_iterator_at_its_start():
    train = mx.io.NDArrayIter(mx.nd.zeros((10, 2)), batch_size=4, last_batch_handle="roll_over")
    next(train)
    assert [count_batches(train), sum(1 for _ in train)] == [2, 2]


def test_servers_find_out_by_their_answers_whether_they_know_the_keys():
    names, others = keys.server_keys(["w"], 2), keys.server_keys(["v"], 2)
    proofs = [keys.proof(names, k, ours) for k in range(3) for ours in (False, True)]
    assert len({*proofs, keys.proof(others, 0, False), keys.proof(others, 0, True)}) == 8


def test_no_job_is_left_behind_in_this_process():
    assert "DMLC_ROLE" not in os.environ and ParameterServers.store_of_process is None
