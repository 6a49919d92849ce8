"""Every step of SVRGModule equals the NumPy oracle."""

import itertools

import mxnet as mx
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import OPTIMIZERS, TOLERANCE, assert_same, iterator, nd, ready, samples, train_steps

PROBLEMS = {problem.name: problem for problem in oracle.PROBLEMS}

# (devices, kvstore, MXNET_UPDATE_ON_KVSTORE); "object:" stands for a store made by the user.
STORES = [
    (1, None, 1), (1, "local", 1), (1, "object:local", 1), (1, "object:local", 0), (1, "object:device", 1),
    (2, None, 1), (2, "local", 1), (2, "local", 0), (2, "device", 1), (2, "device", 0), (2, "object:local", 1),
]  # fmt: skip


def compare(problem, optimizer, *, n, batch_size, devices=1, store="local", update_freq=2, dtype="float64", epochs=3):
    data, weights = samples(problem, n)
    name, params, copy = OPTIMIZERS[optimizer]
    params = params() if callable(params) else params
    kvstore = mx.kv.create(store[len("object:") :]) if store and store.startswith("object:") else store
    train = iterator(problem, data, batch_size, dtype)
    module = ready(problem, weights, train, update_freq=update_freq, devices=devices, kvstore=kvstore,
                   optimizer=name, optimizer_params=params, dtype=dtype)  # fmt: skip
    expected = oracle.svrg(problem, weights, data, copy, batch_size=batch_size, epochs=epochs, update_freq=update_freq,
                           devices=devices, synchronised=store is not None)  # fmt: skip
    steps = 0
    for actual, wanted in itertools.zip_longest(train_steps(module, train, epochs), expected):
        assert_same(actual, wanted, **TOLERANCE[dtype])
        steps += 1
    assert steps == epochs * -(-n // batch_size)


@pytest.mark.parametrize("problem", oracle.PROBLEMS, ids=repr)
def test_the_gradients_of_the_oracle_equal_finite_differences(problem, rng):
    data, weights = samples(problem, 1)
    gradient = problem.gradient(weights, *data[0])
    for name, value in weights.items():
        for index in np.ndindex(value.shape):
            shifted = [dict(weights), dict(weights)]
            for copy, step in zip(shifted, (1e-6, -1e-6)):
                copy[name] = value.copy()
                copy[name][index] += step
            difference = (problem.loss(shifted[0], *data[0]) - problem.loss(shifted[1], *data[0])) / 2e-6
            np.testing.assert_allclose(gradient[name][index], difference, rtol=1e-7, atol=1e-9)


SETTINGS = [
    oracle.PROBLEMS,
    [each for each in OPTIMIZERS if each != "adamw"],  # test_adamw.py has that one.
    STORES,
    [8, 10],  # full batches only, and a ragged one
    ["float64", "float32"],
]
# All settings with each other, and with each of them one update_freq, in turn: all would take three times as long.
CASES = [
    ([each[k] for each, k in zip(SETTINGS, places)], 1 + sum(places) % 3)
    for places in itertools.product(*(range(len(each)) for each in SETTINGS))
]


@pytest.mark.parametrize("case, update_freq", CASES, ids=str)
def test_every_step_equals_the_oracle(case, update_freq, monkeypatch):
    problem, optimizer, (devices, store, update_on_kvstore), n, dtype = case
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    compare(problem, optimizer, n=n, batch_size=4, devices=devices, store=store, update_freq=update_freq, dtype=dtype)


def test_each_update_freq_comes_with_any_two_other_settings():
    for first, second in itertools.combinations(range(len(SETTINGS)), 2):
        found = {(str(case[first]), str(case[second]), update_freq) for case, update_freq in CASES}
        assert len(found) == 3 * len(SETTINGS[first]) * len(SETTINGS[second])


@pytest.mark.parametrize("strategy", ["serial", "overlapped", "memory saving"], indirect=True)
@pytest.mark.parametrize("n", [8, 10], ids=["even", "ragged"])
@pytest.mark.parametrize("devices, store, update_on_kvstore", STORES)
@pytest.mark.parametrize("problem", oracle.PROBLEMS, ids=repr)
def test_every_step_equals_the_oracle_by_every_strategy(
    problem, devices, store, update_on_kvstore, n, strategy, monkeypatch
):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    compare(problem, "momentum", n=n, batch_size=4, devices=devices, store=store)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    problem=st.sampled_from(oracle.PROBLEMS),
    n=st.integers(1, 13),
    batch_size=st.sampled_from([1, 2, 4, 8]),
    devices=st.integers(1, 3),
    update_freq=st.integers(1, 3),
)
def test_every_step_equals_the_oracle_for_any_shape(problem, n, batch_size, devices, update_freq):
    if devices > batch_size:
        devices = batch_size
    compare(problem, "momentum", n=n, batch_size=batch_size, devices=devices, update_freq=update_freq, epochs=4)


def test_fit_takes_the_same_steps_as_the_intermediate_loop():
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 10)
    train = iterator(problem, data, 4)
    by_hand = ready(problem, weights, train, update_freq=2)
    fitted = ready(problem, weights, train, update_freq=2)
    seen = []
    fitted.fit(
        train, num_epoch=5, batch_end_callback=lambda _: seen.append(
            {name: value.asnumpy() for name, value in fitted.get_params()[0].items()})
    )  # fmt: skip
    expected = list(train_steps(by_hand, train, 5))
    assert len(seen) == len(expected) == 15
    for actual, wanted in zip(seen, expected):
        assert_same(actual, wanted)


def test_param_dict_holds_the_full_gradient_for_the_rows_of_each_device():
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 11)
    train = iterator(problem, data, 8)
    module = ready(problem, weights, train, devices=3)
    module.update_full_grads(train)
    mu = oracle.full_gradient(problem, weights, data)
    for on_device, rows in zip(module._param_dict, [3, 3, 2]):
        assert_same({name: value.asnumpy() for name, value in on_device.items()},
                    {name: rows * value for name, value in mu.items()}, rtol=1e-12, atol=1e-14)  # fmt: skip


def test_the_extra_keys_of_the_store_hold_the_mean_full_gradient():
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 10)
    train = iterator(problem, data, 4)
    store = mx.kv.create("local")
    module = ready(problem, weights, train, devices=2, kvstore=store)
    module.update_full_grads(train)
    mu = oracle.full_gradient(problem, weights, data)
    for name, value in mu.items():
        stored = nd(np.zeros(value.shape))
        store.pull(name + "_full", out=stored)
        np.testing.assert_allclose(stored.asnumpy(), value, rtol=1e-12, atol=1e-14)
