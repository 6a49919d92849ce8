"""Steps that choose themselves, against auto_step_oracle.py."""

import auto_step_oracle
import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, train_steps, weights_of

from svrg_optimization import SVRGModule
from svrg_optimization.svrg import auto_step
from svrg_optimization.step_sizes import AutoStep, BarzilaiBorwein

WD = 0.125


def problem_of(name, n=24):
    """A problem, data, and start weights."""
    problem = next(each for each in oracle.PROBLEMS if each.name == name)
    return problem, *samples(problem, n)


@pytest.mark.parametrize("probe", [1e-4, 30.0], ids=["", "from far"])
@pytest.mark.parametrize("kvstore, devices", [(None, 1), ("local", 2), ("device", 2), ("not on the store", 2)])
@pytest.mark.parametrize("momentum", [None, 0.875], ids=["", "momentum"])
@pytest.mark.parametrize("name", ["linear", "logistic", "softmax", "two-layer"])
def test_every_step_is_the_oracles(name, momentum, kvstore, devices, probe, monkeypatch):
    monkeypatch.setattr(auto_step, "_PROBE", probe)
    monkeypatch.setattr(auto_step_oracle, "PROBE", probe)
    if kvstore == "not on the store":
        monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
        kvstore = "local"
    problem, data, weights = problem_of(name)
    train = iterator(problem, data, 4)
    given = {} if momentum is None else {"momentum": momentum}
    module = ready(problem, weights, train, devices=devices, kvstore=kvstore, update_freq=2,
                   optimizer_params={"learning_rate": "auto", "wd": WD, **given})  # fmt: skip
    expected = auto_step_oracle.svrg(
        problem, weights, [data], batch_size=4, epochs=12, update_freq=2, wd=WD, momentum=momentum
    )
    went_back = False
    for actual, (wanted, rate, beta, back) in zip(train_steps(module, train, 12), expected):
        assert_same(actual, wanted, rtol=1e-9, atol=1e-12)
        optimizer = module._users_optimizer()
        np.testing.assert_allclose([optimizer.learning_rate, optimizer.momentum], [rate, beta], rtol=1e-9)
        went_back |= back
    assert went_back == (probe > 1 and momentum is not None and name != "softmax")
