"""The optimizer's states and settings while it runs on servers: saved, put back, and changed between two steps."""

import json

import mxnet as mx
import numpy as np
import pytest
from jobs import Running, plain_server, run, run_all, server, settings
from models import assert_same
from test_distributed import SHARDED, WORKERS_UPDATE, _assert_steps

from svrg_optimization import SVRGModule, keys
from svrg_optimization.distributed import notes, states_on_servers
from svrg_optimization.distributed.server_desk import Desk
from svrg_optimization.distributed.states_on_servers import Settings, StatesOnServers
from svrg_optimization.svrg_optimizer import _SVRGOptimizer

# Training goes on in the middle of a period.
SAVING = dict(epochs=4, checkpoints=True, dtype="float64", problem="two-layer", update_freq=3)


def _compare_rest(resumed, whole, **tolerance):
    for of_worker, of_whole in zip(resumed, whole):
        assert len(of_worker) == len(of_whole) / 2
        for actual, wanted in zip(of_worker, of_whole[len(of_worker) :]):
            assert_same(actual, wanted, **tolerance)


@pytest.mark.parametrize("servers, environment", [(1, {}), (2, {}), (3, SHARDED)], ids=["1", "2", "3 sharded"])
def test_a_job_goes_on_from_the_states_of_its_servers(servers, environment, tmp_path):
    """Bit for bit, with optimizers whose states are none, one and several arrays."""
    names = ("lr_scheduler", "momentum", "adam")
    jobs = [settings(tmp_path / name, optimizer=name, **SAVING) for name in names]
    how = dict(servers=[server] * servers, environment=environment)
    whole = run_all(jobs, **how)
    for (resumed, _), (steps, _) in zip(run_all([{**job, "resume": 2} for job in jobs], **how), whole):
        _compare_rest(resumed, steps)


def test_fixed_parameters_have_no_states(tmp_path):
    job = settings(tmp_path, **{**SAVING, "fixed": ["fc1_weight"], "optimizer": "adam"})
    (steps, _), (resumed, _) = (run(each, servers=[server] * 2) for each in (job, {**job, "resume": 2}))
    _compare_rest(resumed, steps)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_one_worker_loads(rank, tmp_path):
    job = settings(tmp_path, **SAVING)
    run(job)
    with Running({**job, "resume": 2, "begin_epoch": 2, "of_rank": {rank: {"resume": None}}}) as running:
        codes = running.wait(but=["scheduler", "server 0"])
        assert set(codes.values()) == {1}
        for name in codes:
            assert "differ in load_optimizer_states: 1 on worker" in running.output(name).replace(
                "load_optimizer_states: 0 on worker 0; 1", "load_optimizer_states: 1")  # fmt: skip


def test_workers_load_different_checkpoints(tmp_path):
    job = settings(tmp_path, **SAVING)
    run(job)
    with Running({**job, "resume": 2, "begin_epoch": 2, "of_rank": {1: {"resume": 3}}}) as running:
        codes = running.wait(but=["scheduler", "server 0"])
        assert set(codes.values()) == {1}
        assert all("differ in optimizer states to go on with" in running.output(name) for name in codes)


def test_each_server_goes_on_with_its_own_numbers(tmp_path):
    """Nadam's m_schedule: it is multiplied for each parameter in the order in which they come, so here for one only."""
    job = settings(tmp_path, optimizer="nadam", **{**SAVING, "problem": "linear"})
    (steps, _), (resumed, _) = (run(each, servers=[server] * 2) for each in (job, {**job, "resume": 2}))
    _compare_rest(resumed, steps)


@pytest.mark.parametrize("first, then", [
    (dict(servers=[server] * 2), dict(servers=[server] * 3, environment=SHARDED)),
    (dict(servers=[server] * 2, environment=SHARDED), dict(environment=WORKERS_UPDATE)),
    (dict(environment=WORKERS_UPDATE), dict(servers=[server] * 2)),
], ids=["other servers", "workers after servers", "servers after workers"])  # fmt: skip
def test_others_go_on_with_the_states(first, then, tmp_path):
    jobs = [settings(tmp_path / name, optimizer=name, **SAVING) for name in ("momentum", "adam")]
    whole = run_all(jobs, **first)
    for (resumed, _), (steps, _) in zip(run_all([{**job, "resume": 2} for job in jobs], **then), whole):
        _compare_rest(resumed, steps, rtol=1e-12, atol=1e-14)


def test_one_machine_goes_on_with_the_states_of_servers(tmp_path):
    """A job's checkpoint is like any other: one process goes on with what two workers have saved."""
    job = settings(tmp_path, optimizer="adam", **SAVING)
    run(job, servers=[server] * 2, environment=SHARDED)
    on_servers, on_workers = (tmp_path / "worker{}".format(rank) for rank in (0, 1))
    states = [SVRGModule.load(prefix, 4, load_optimizer_states=True)._restoring for prefix in (on_servers, on_workers)]
    assert states[0].sections["optimizer"]["counts"] == dict.fromkeys(states[0].states, 8)
    for each in states:
        assert set(each.states) == {"fc1_weight", "fc1_bias", "fc2_weight", "fc2_bias"}
        for name, (mean, variance) in each.states.items():
            assert mean.shape == variance.shape == each.arg_params[name].shape
            assert (variance.asnumpy() > 0).any()


@pytest.mark.parametrize("servers", [1, 2])
def test_settings_reach_the_servers_between_two_steps(servers, tmp_path):
    job = settings(tmp_path, halves=True, optimizer="lr_scheduler", shards=[16, 16], epochs=6, dtype="float64")
    steps, _ = run(job, servers=[server] * servers)
    assert len(steps[0]) == 24
    _assert_steps(steps, job)


@pytest.mark.parametrize("job, reason", [
    (dict(checkpoints=True), "don't give its states away, or take others"),
    (dict(halves=True, optimizer="lr_scheduler"), "don't take other settings while they run"),
], ids=["states", "settings"])  # fmt: skip
def test_plain_servers_cannot(job, reason, tmp_path):
    with Running(settings(tmp_path, **job), servers=[plain_server]) as running:
        codes = running.wait(but=["scheduler", "server 0"])
        assert 1 in codes.values()
        said = [running.output(name) for name, code in codes.items() if code == 1]
    remedy = "servers of plain mxnet, which {}. Start the servers by 'python -m svrg_optimization.server'"
    assert all(remedy.format(reason) in output and "MXNET_UPDATE_ON_KVSTORE=0" in output for output in said)


# ---------------------------------------------------------------------------------------------------------- small parts


def _desk(state, optimizer="sgd", rank=0):
    """A desk of a server with one parameter whose state this is."""
    optimizer = _SVRGOptimizer(optimizer, server_keys=keys.server_keys(["w"], 1))
    updater = mx.optimizer.get_updater(optimizer)
    desk = Desk(lambda: updater, lambda: rank)
    desk.look_at_optimizer()
    desk.see(keys.PROOF + "0", 1, mx.nd.zeros(notes.size(1)))
    desk.see("w_full", 3, mx.nd.zeros(2))
    updater.states[2] = state
    return desk


def _answer(desk, **request):
    desk.obey(json.dumps({"worker": 0, "number": 1, "with": {}, **request}))
    return json.loads(notes.decode(desk._notes[1].asnumpy()))


@pytest.mark.parametrize("state, error", [
    (2.5, "a state holds float, which is no dense array"),
    (mx.nd.ones((2, 2)).tostype("row_sparse"), "a state holds RowSparseNDArray, which is no dense array"),
    (mx.nd.ones(3), "an array of the state of w has another size than the parameter"),
], ids=["a number", "sparse", "another size"])  # fmt: skip
def test_a_state_that_cannot_be_shown(state, error, capsys):
    assert _answer(_desk(state), do="describe") == {"worker": 0, "number": 1, "error": error}
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("rank, expected", [(0, 0.5), (1, 0.25), (2, 0.75)])
def test_a_servers_own_numbers(rank, expected):
    """Those of a server that there wasn't are another's."""
    desk = _desk(None, "nadam", rank)
    of_servers = [{"m_schedule": 0.5}, {"m_schedule": 0.25}]
    position = {"class": "Nadam", "counts": {"w": 3}, "scalars": {"m_schedule": 0.75}, "scalars of servers": of_servers}
    assert "error" not in _answer(desk, do="begin", **{"with": {"position": position, "types": {"w": "float32"}}})
    assert desk._the_updater().optimizer.default_opt.m_schedule == expected
    assert _answer(desk, do="describe")["count"] == 3


def test_a_long_schedule():
    desk = _desk(None)
    optimizer = desk._the_updater().optimizer.default_opt
    optimizer.lr_scheduler = mx.lr_scheduler.MultiFactorScheduler(list(range(2, 9000, 2)), 0.5, base_lr=1.0)
    desk.look_at_optimizer()
    optimizer.lr_scheduler(4)
    answer = _answer(desk, do="describe")
    assert answer["schedule"] == {"cur_step_ind": 1, "base_lr": 0.5, "count": 2}


def test_a_full_gradient_is_put_back():
    desk = _desk((mx.nd.array([3, 4]), mx.nd.array([5, 6])))
    full_gradient = desk._full_gradients["w"]
    full_gradient[:] = mx.nd.array([1, 2])
    for array, shown in enumerate([[3, 4], [5, 6]]):
        _answer(desk, do="show", **{"with": {"array": array}})
        assert full_gradient.asnumpy().tolist() == shown
    _answer(desk, do="put_back")
    assert full_gradient.asnumpy().tolist() == [1, 2]


def test_an_answer_for_another_worker_may_be_torn():
    assert states_on_servers._parsed('{"worker": 1, "num') == {}
    assert states_on_servers._parsed("") == {}


def test_one_worker_at_a_time():
    desk = _desk(mx.nd.ones(2))
    assert _answer(desk, do="open")["worker"] == 0
    assert _answer(desk, do="open", worker=1)["worker"] == 0
    assert _answer(desk, do="close")["worker"] == 0
    assert _answer(desk, do="open", worker=1)["worker"] == 1


def test_an_answer_that_is_too_long():
    with pytest.raises(
        ValueError, match="an answer of 4096 bytes is too long for 4096.* set MXNET_UPDATE_ON_KVSTORE=0"
    ):
        notes.encode("x" * 4096, [4096])


def test_settings_that_were_not_changed():
    optimizer = mx.optimizer.SGD(momentum=0.5, lr_scheduler=mx.lr_scheduler.FactorScheduler(2, 0.5))
    settings_of = Settings(optimizer)
    optimizer.num_update = 7
    optimizer._update_count(3)
    assert settings_of.changes() == ({}, {})
    optimizer.set_wd_mult({"w": 0.5})
    optimizer.momentum = np.float32(0.25)
    assert settings_of.changes() == ({"wd_mult": {"w": 0.5}, "momentum": np.float32(0.25)}, {})


def test_settings_that_were_changed_in_place():
    optimizer = mx.optimizer.SGD(lr_scheduler=mx.lr_scheduler.MultiFactorScheduler([2, 5], 0.5))
    optimizer.gains, optimizer.nested, optimizer._hidden, optimizer.array = [1.0], {"a": {"b": 1}}, 1, np.ones(2)
    settings_of = Settings(optimizer)
    assert settings_of.changes() == ({}, {})
    optimizer.gains[0], optimizer.nested["a"]["b"], optimizer._hidden, optimizer.lr_scheduler.step[1] = 2.0, 2, 2, 7
    assert settings_of.changes() == ({"gains": [2.0], "nested": {"a": {"b": 2}}, "_hidden": 2}, {"step": [2, 7]})
    assert settings_of.changes() == ({}, {})
    optimizer.array = optimizer.array * 2
    assert list(settings_of.changes()[0]) == ["array"]


def test_settings_that_servers_cannot_be_told_of():
    with pytest.raises(RuntimeError, match="can't be told of the new gain, .*MXNET_UPDATE_ON_KVSTORE=0"):
        StatesOnServers(None, []).set(({"gain": lambda: 1}, {}))


def test_a_plain_modules_optimizer_has_no_position():
    desk = Desk(lambda: mx.optimizer.get_updater(mx.optimizer.SGD()), lambda: 0)
    desk.look_at_optimizer()
    assert desk._position is None
