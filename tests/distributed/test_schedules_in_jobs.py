"""Jobs of two workers with other schedules and coefficients than the default: every step equals the oracle."""

import numpy as np
import pytest
import schedule_oracle as so
from distributed_worker import PROBLEMS
from jobs import Running, run_all, server, settings
from models import OPTIMIZERS, TOLERANCE, assert_same, samples
from test_schedules import AVERAGE

from svrg_optimization.coefficients import Linear, PerLayer
from svrg_optimization.schedules import Clock, EveryEpochs, EverySteps, Growing, Loopless

WORKERS_UPDATE = {"MXNET_UPDATE_ON_KVSTORE": "0"}
SHARDS = [8, 8]
GROWING = Growing(4, factor=1.5, k=1, seed=3)


def _rows_of_both(s, n):
    """What each worker draws of its shard."""
    clock = Clock()
    clock.snapshots = s
    count = min(8, -(-8 * min(16, int(np.ceil(4 * 1.5**s))) // 16))
    rows = [GROWING.rows(clock, 16, 8, rank) + 8 * rank for rank in range(2)]
    assert [len(of_worker) for of_worker in rows] == [count, count]
    return np.concatenate(rows)


def _one_half(clock):
    return 0.5


JOBS = {
    "loopless, by layer": (Loopless(0.375, seed=4), PerLayer(), so.When(so.coins(0.375, 4)), so.ByLayer),
    "average, linear": (EveryEpochs(1, 1, "average"), Linear(0.75, 4), so.When(so.every_epochs(1), 1, AVERAGE),
                        lambda: so.Of(lambda steps, epoch: 0.75 * (1 - epoch / 3))),
    "growing, function": (GROWING, _one_half, so.When(so.every_epochs(1), part=_rows_of_both),
                          lambda: so.Of(lambda steps, epoch: 0.5)),
    "steps": (EverySteps(3), 1, so.When(so.every_steps(3)), so.One),
    "plain": (EverySteps(3), 0, so.When(so.every_steps(3)), lambda: so.Of(lambda steps, epoch: 0.0)),
}  # fmt: skip


@pytest.mark.parametrize("servers_update", [True, False])
@pytest.mark.parametrize("devices", [1, 2])
def test_every_step_of_both_workers_equals_the_oracle(devices, servers_update, tmp_path):
    how = dict(problem="two-layer", dtype="float64", shards=SHARDS, devices=devices, epochs=4, optimizer="momentum")
    jobs = [
        settings(tmp_path / str(number), snapshots=schedule, coefficient=coefficient, **how)
        for number, (schedule, coefficient, _, _) in enumerate(JOBS.values())
    ]
    results = run_all(jobs, servers=[server], environment={} if servers_update else WORKERS_UPDATE)
    problem = PROBLEMS["two-layer"]
    data, weights = samples(problem, 16)
    for (steps, _), (_, _, when, coefficient) in zip(results, JOBS.values()):
        wanted = so.scheduled_svrg(problem, weights, data, OPTIMIZERS["momentum"][2](), batch_size=4, epochs=4,
                                   when=when, coefficient=coefficient(), shards=SHARDS)  # fmt: skip
        wanted = [step for step, _ in wanted]
        for of_worker in steps:
            assert len(of_worker) == len(wanted) == 8
            for actual, expected, of_first in zip(of_worker, wanted, steps[0]):
                assert_same(actual, of_first)
                assert_same(actual, expected, **TOLERANCE["float64"])


@pytest.mark.parametrize("other, said", [
    (dict(snapshots=Loopless(0.25, seed=1)), "differ in snapshots="),
    (dict(coefficient=0.5), "differ in coefficient"),
])  # fmt: skip
def test_workers_with_other_plans(other, said, tmp_path):
    job = settings(tmp_path, snapshots=Loopless(0.25), of_rank={1: other})
    with Running(job) as running:
        running.wait_for_end("worker 0")
        running.wait_for_end("worker 1")
        assert any(said in running.output("worker {}".format(rank)) for rank in range(2))
