"""Buckets in jobs of several workers."""

import pytest
from jobs import run, server, settings
from models import assert_same
from test_distributed import SHARDED, WORKERS_UPDATE, _assert_steps


@pytest.mark.parametrize("environment", [{}, WORKERS_UPDATE], ids=["servers", "workers"])
def test_every_step_equals_the_oracle_and_a_job_goes_on_from_its_checkpoint(environment, tmp_path):
    job = settings(tmp_path, buckets=True, shards=[20, 22], dtype="float64", epochs=4, checkpoints=True)
    how = dict(servers=[server] * 2, environment={**SHARDED, **environment})
    steps, outputs = run(job, **how)
    _assert_steps(steps, job)
    assert all("samples=42" in output for output in outputs)
    resumed, _ = run({**job, "resume": 3}, **how)
    for rest, whole in zip(resumed, steps):
        assert len(rest) == 5
        for actual, wanted in zip(rest, whole[15:]):
            assert_same(actual, wanted)
