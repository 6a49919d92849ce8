"""Steps that choose themselves, in jobs: all workers take the same ones, and they are the oracle's."""

import auto_step_oracle
import pytest
from distributed_worker import PROBLEMS, shards_of
from jobs import Running, plain_server, run, server, settings
from models import assert_same, samples
from test_distributed import SHARDED, WORKERS_UPDATE, _relative_error

from svrg_optimization.distributed import exchange_of_numbers, workers

# With this first step training goes back to the first snapshot at the second.
FAR = 30.0
AUTO = dict(optimizer="sgd", dtype="float64", problem="two-layer", epochs=6, shards=[10, 12])
WAYS = {
    "servers": dict(servers=[server] * 2),
    "sharded": dict(servers=[server] * 2, environment=SHARDED),
    "workers": dict(environment=WORKERS_UPDATE),
}


def _expected(job):
    problem = PROBLEMS[job["problem"]]
    data, weights = samples(problem, sum(job["shards"]))
    # Each worker's last batch is filled up; each epoch has as many steps as the worker with the fewest batches.
    return list(auto_step_oracle.svrg(
        problem, weights, shards_of(data, job["shards"]), batch_size=job["batch_size"], epochs=job["epochs"],
        update_freq=job["update_freq"], wd=job["params"]["wd"], momentum=job["params"].get("momentum"),
    ))  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("momentum, probe", [({}, 1e-4), ({"momentum": 0.875}, FAR)], ids=["", "momentum, from far"])
def test_every_step_of_every_worker_is_the_oracles(momentum, probe, way, tmp_path, monkeypatch):
    monkeypatch.setattr(auto_step_oracle, "PROBE", probe)
    job = settings(tmp_path, params={"learning_rate": "auto", "wd": 0.125, **momentum}, probe=probe, **AUTO)
    steps, outputs = run(job, **WAYS[way])
    expected = _expected(job)
    for of_worker in steps:
        assert len(of_worker) == len(expected)
        for actual, (wanted, *_), of_first in zip(of_worker, expected, steps[0]):
            assert_same(actual, of_first)
            assert _relative_error(actual, wanted) < 1e-9
    assert any(back for *_, back in expected) == (probe == FAR)
    assert all(("Training became worse" in output) == (probe == FAR) for output in outputs)


@pytest.mark.parametrize("way", WAYS)
def test_a_job_goes_on_bit_for_bit(way, tmp_path):
    job = settings(tmp_path, params={"learning_rate": "auto", "wd": 0.125}, checkpoints=True,
                   **{**AUTO, "update_freq": 3})  # fmt: skip
    (steps, _), (resumed, _) = (run(each, **WAYS[way]) for each in (job, {**job, "resume": 4}))
    for of_worker, of_whole in zip(resumed, steps):
        assert len(of_worker) == len(of_whole) // 3
        for actual, wanted in zip(of_worker, of_whole[-len(of_worker) :]):
            assert_same(actual, wanted)


@pytest.mark.parametrize("way", ["servers", "workers"])
def test_one_worker_sets_weights(way, tmp_path):
    """The same weights, so nothing goes wrong; the others must know, or they would wait for ever."""
    job = settings(tmp_path, params={"learning_rate": "auto", "wd": 0.125}, sets=True, **AUTO)
    steps, _ = run(job, **WAYS[way])
    for of_worker in steps:
        for actual, of_first in zip(of_worker, steps[0]):
            assert_same(actual, of_first)


def test_plain_servers_cannot_be_told_and_say_so(tmp_path):
    job = settings(tmp_path, params={"learning_rate": "auto"}, **AUTO)
    with Running(job, servers=[plain_server]) as running:
        codes = running.wait(but=["scheduler", "server 0"])
        assert set(codes.values()) == {1}
        for name in codes:
            assert "don't take other settings while they run. Start the servers by" in running.output(name)


def test_of_first_is_the_first_workers(monkeypatch):
    """Whatever this worker would have: CPUs may add up in other orders."""
    numbers = [0.1 * k for k in range(11)]

    class Second(workers.Alone):
        def _gather(self, own):
            place = self.asked
            self.asked += len(own) if place else 1
            of_first = [len(numbers)] if not place else exchange_of_numbers.bits(numbers[place - 1 : place - 1 + 8])
            return [of_first, list(own)]

    second = Second()
    second.asked = 0
    assert workers.Workers.of_first(second, [7.0]) == numbers
