"""Steps on rows, lazy, reweighted and dense, against a dense NumPy version."""

import mxnet as mx
import numpy as np
import pytest
from models import assert_same, weights_of
from sparse_models import Batches, ready, training
from sparse_oracle import NETS, Settings, Svrg, sgd

EXACT = dict(rtol=1e-12, atol=1e-13)
MODES = ["lazy", "reweighted", "dense"]
SGD = {
    "plain": ({}, lambda: Settings()),
    "wd": ({"wd": 0.0625}, lambda: Settings(decay=0.0625)),
    "momentum": ({"momentum": 0.5}, lambda: Settings(sgd(0.5))),
    "both": ({"momentum": 0.5, "wd": 0.0625}, lambda: Settings(sgd(0.5), decay=0.0625)),
}
# One device without a store, two that nothing adds up, and stores that add up.
PLACES = {
    "1 device": (1, "None"), "1 device, local": (1, "local"), "2 devices": (2, "None"), "2 devices, local": (2, "local"),
    "2 devices, device": (2, "device"),
}  # fmt: skip


def pair(net, n=22, *, mode, place="1 device", sgd="plain", size=8, last="pad", **kwargs):
    """A module and the oracle, at the same weights."""
    x, y, weights = net.samples(n)
    devices, store = PLACES[place]
    params, settings = SGD[sgd] if isinstance(sgd, str) else sgd
    train = Batches(net, x, y, size, last)
    module = ready(net, weights, train, sparse=mode, devices=devices, kvstore=store, params=params, **kwargs)
    oracle = Svrg(
        net, weights, x, y, mode=mode, settings=settings(), size=size, last=last, devices=devices,
        together=store != "None",
    )  # fmt: skip
    return module, train, oracle


@pytest.mark.parametrize("sgd", SGD)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS.values(), ids=repr)
def test_steps_are_those_of_the_oracle(net, mode, place, sgd):
    module, train, oracle = pair(net, mode=mode, place=place, sgd=sgd)
    for _ in training(module, train, 5):
        pass
    *_, expected = oracle.run(5)
    assert module._sparse_mode == mode
    assert_same(weights_of(module), expected, **EXACT)
