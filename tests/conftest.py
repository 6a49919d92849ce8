"""What every test needs: mxnet imported with its own warnings silenced, and numbers that repeat."""

import os
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mxnet as mx


@pytest.fixture(autouse=True)
def _seeded():
    mx.random.seed(0)
    np.random.seed(0)


STRATEGIES = ["automatic", "serial", "overlapped", "memory saving"]
# What these modules test must hold however the gradient at the snapshot is computed.
BY_EVERY_STRATEGY = ["test_module_api", "test_traps", "test_edges", "test_errors", "test_other_networks",
                     "test_other_programs"]  # fmt: skip


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__ in BY_EVERY_STRATEGY:
        metafunc.parametrize("strategy", STRATEGIES, indirect=True)


@pytest.fixture(autouse=True)
def strategy(request, monkeypatch):
    """Make every SVRGModule use one strategy; "automatic" is what users get, Following for networks of test size."""
    from svrg_optimization import SVRGModule
    from svrg_optimization.compute import ways

    name = getattr(request, "param", "automatic")
    defaults = SVRGModule.__init__.__kwdefaults__
    if name == "serial":
        monkeypatch.setattr(ways, "SMALL", 0)
        monkeypatch.setitem(defaults, "overlap", False)
    elif name == "overlapped":
        monkeypatch.setitem(defaults, "overlap", True)
    elif name == "memory saving":
        monkeypatch.setitem(defaults, "save_memory", True)
    return name


@pytest.fixture
def snapshot_gradients(monkeypatch):
    """For each step, by parameter and device, the gradient at the snapshot: the correction uses these arrays up."""
    from svrg_optimization.svrg.estimator import Correction

    seen = []

    def correct(self, gradients, *args, usual=Correction.__call__):
        seen.append({name: [array.asnumpy() for array in snapshot] for name, _, snapshot in gradients})
        usual(self, gradients, *args)

    monkeypatch.setattr(Correction, "__call__", correct)
    return seen


@pytest.fixture(autouse=True)
def _group_in_one_process(request, tmp_path_factory):
    """See that one process takes all tests of a group: else each makes what they share, which takes long."""
    group, process = request.node.get_closest_marker("xdist_group"), os.environ.get("PYTEST_XDIST_WORKER")
    if group and process:
        # Beside the directories of all processes of this run.
        first = tmp_path_factory.getbasetemp().parent / ("group " + group.args[0])
        if not first.exists():
            first.write_text(process, "utf-8")
        assert first.read_text("utf-8") == process, "pytest-xdist has divided a group of tests among processes"


@pytest.fixture
def rng():
    return np.random.default_rng(0)
