"""What every test needs: mxnet imported with its own warnings silenced, and numbers that repeat."""

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
BY_EVERY_STRATEGY = ["test_module_api", "test_traps", "test_edges", "test_errors"]


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__ in BY_EVERY_STRATEGY:
        metafunc.parametrize("strategy", STRATEGIES, indirect=True)


@pytest.fixture(autouse=True)
def strategy(request, monkeypatch):
    """Make every SVRGModule use one strategy; "automatic" is what users get, SharedInputs for networks of test size."""
    from svrg_optimization import SVRGModule, strategies

    name = getattr(request, "param", "automatic")
    defaults = SVRGModule.__init__.__kwdefaults__
    if name == "serial":
        monkeypatch.setattr(strategies, "SMALL", 0)
        monkeypatch.setitem(defaults, "overlap", False)
    elif name == "overlapped":
        monkeypatch.setitem(defaults, "overlap", True)
    elif name == "memory saving":
        monkeypatch.setitem(defaults, "save_memory", True)
    return name


@pytest.fixture
def rng():
    return np.random.default_rng(0)
