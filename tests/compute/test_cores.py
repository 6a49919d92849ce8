"""Whether cores are idle: what Linux says about a container counts, too."""

import math

import mxnet as mx
import pytest

from svrg_optimization.compute import cores


@pytest.mark.parametrize(
    "files, available",
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, math.inf),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
    ],
)
def test_a_container_may_use_the_time_of_fewer_cores_than_there_are(files, available, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores.quota(str(tmp_path)) == available


def test_a_container_with_the_time_of_one_core_has_none_idle(monkeypatch):
    monkeypatch.setattr(cores, "available_cores", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MXNET_OMP_MAX_THREADS", raising=False)
    for at_most, overlaps in ((2.0, True), (1.0, False)):
        monkeypatch.setattr(cores, "quota", lambda at_most=at_most: at_most)
        assert cores.overlaps(None, [mx.cpu()]) == overlaps
