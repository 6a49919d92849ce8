"""adamw: each step against NumPy, alone and under SVRGModule; what it doesn't take; and that a user's own one stays."""

import subprocess
import sys

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import TOLERANCE, iterator, nd, ready, samples
from oracle import AdamW
from test_oracle import STORES, compare

TWO_LAYER = oracle.PROBLEMS[3]
BETAS = {"beta1": AdamW.beta1, "beta2": AdamW.beta2, "epsilon": AdamW.epsilon}
NAME = {0: "fc_weight"}


def steps(optimizer, start, gradients, dtype="float64", name="fc_weight"):
    """The weights after each step."""
    index = {each: number for number, each in optimizer.idx2name.items()}.get(name, 0)
    weight = nd(start, dtype)
    state = optimizer.create_state_multi_precision(index, weight)
    for gradient in gradients:
        optimizer.update_multi_precision(index, weight, nd(gradient, dtype), state)
        yield weight.asnumpy().copy()


def drawn(shape=(4, 3), number=20):
    rng = np.random.default_rng(0)
    return rng.normal(size=shape), [rng.normal(size=shape) for _ in range(number)]


# ----------------------------------------------------------------------------------------------------- the optimizer


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("clip", [None, 0.75])
@pytest.mark.parametrize("wd", [0.0, 0.125])
@pytest.mark.parametrize("halve_every", [None, 3])
def test_each_step(halve_every, wd, clip, shape, dtype):
    start, gradients = drawn(shape)
    schedule = mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=0.25) if halve_every else None
    optimizer = mx.optimizer.create("adamw", learning_rate=0.25, wd=wd, clip_gradient=clip, lr_scheduler=schedule,
                                    rescale_grad=0.5, param_idx2name=NAME, **BETAS)  # fmt: skip
    expected, w = AdamW(0.25, wd, clip=clip, halve_every=halve_every), start
    for actual, gradient in zip(steps(optimizer, start, gradients, dtype), gradients):
        w = expected.step("fc_weight", w, 0.5 * gradient)
        np.testing.assert_allclose(actual, w, **TOLERANCE[dtype])


@pytest.mark.parametrize("settings", [{}, {"learning_rate": 0.004, "beta1": 0.95, "beta2": 0.99, "epsilon": 1e-3}])
def test_the_textbook_equations(settings):
    """As printed, with nothing rounded but the betas: to what float32 keeps of the other settings."""
    start, gradients = drawn()
    optimizer = mx.optimizer.create("adamw", wd=0.01, param_idx2name=NAME, **settings)
    rate, epsilon = settings.get("learning_rate", 0.001), settings.get("epsilon", 1e-8)
    beta1, beta2 = (
        float(np.float32(settings.get(name, default))) for name, default in (("beta1", 0.9), ("beta2", 0.999))
    )
    m, v, w = 0, 0, start
    for t, (actual, gradient) in enumerate(zip(steps(optimizer, start, gradients), gradients), 1):
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        unbiased = m / (1 - beta1**t), v / (1 - beta2**t)
        w = w - rate * (unbiased[0] / (np.sqrt(unbiased[1]) + epsilon) + 0.01 * w)
        np.testing.assert_allclose(actual, w, rtol=0, atol=rate * t * 1e-6)


def test_the_decay_is_beside_the_step():
    """A weight without gradient shrinks by lr * wd a step, which follows lr_mult, wd_mult and schedule."""
    names = {0: "a_weight", 1: "b_weight", 2: "c_weight", 3: "d_bias"}
    optimizer = mx.optimizer.create("adamw", learning_rate=0.5, wd=0.25, param_idx2name=names)
    optimizer.set_lr_mult({"b_weight": 0.5})
    optimizer.set_wd_mult({"c_weight": 0.5})
    lasts = [list(steps(optimizer, [1.0, -2.0], np.zeros((2, 2)), name=name))[-1] for name in names.values()]
    expected = [(1 - lr * wd) ** 2 for lr, wd in ((0.5, 0.25), (0.25, 0.25), (0.5, 0.125), (0.5, 0.0))]
    np.testing.assert_allclose(lasts, np.outer(expected, [1.0, -2.0]), rtol=1e-15)


def test_lr_mult_is_for_the_whole_step():
    start, gradients = drawn()
    optimizer = mx.optimizer.create("adamw", learning_rate=0.25, wd=0.125, param_idx2name=NAME, **BETAS)
    optimizer.set_lr_mult({"fc_weight": 0.5})
    expected, w = AdamW(0.125, 0.125), start
    for actual, gradient in zip(steps(optimizer, start, gradients), gradients):
        w = expected.step("fc_weight", w, gradient)
        np.testing.assert_allclose(actual, w, **TOLERANCE["float64"])


def test_another_rescale_grad_is_taken():
    start, gradients = drawn()
    optimizer = mx.optimizer.create("adamw", learning_rate=0.25, param_idx2name=NAME, **BETAS)
    taken, expected, w = steps(optimizer, start, gradients), AdamW(0.25), start
    for rescale, gradient in zip((1.0, 0.5, 0.25), gradients):
        optimizer.rescale_grad = rescale
        w = expected.step("fc_weight", w, rescale * gradient)
        np.testing.assert_allclose(next(taken), w, **TOLERANCE["float64"])


def test_the_rate_by_default():
    schedule = mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=0.25)
    assert mx.optimizer.create("adamw").learning_rate == 0.001
    assert mx.optimizer.create("adamw", lr_scheduler=schedule).learning_rate == schedule.base_lr == 0.25


@pytest.mark.parametrize("clip", [None, -1, 0])
def test_a_clip_that_is_not_positive_is_off(clip):
    start, gradients = drawn()
    runs = [list(steps(mx.optimizer.create("adamw", clip_gradient=each), start, gradients)) for each in (clip, 1e6)]
    np.testing.assert_array_equal(*runs)


# ----------------------------------------------------------------------------------------------------------- float16


def test_float16_with_a_copy_in_float32():
    start, gradients = (np.float16(each) for each in drawn())
    settings = dict(learning_rate=0.25, wd=0.125, param_idx2name=NAME, **BETAS)
    narrow = steps(mx.optimizer.create("adamw", multi_precision=True, **settings), start, gradients, "float16")
    wide = steps(mx.optimizer.create("adamw", **settings), start, gradients, "float32")
    for actual, wanted in zip(narrow, wide):
        assert actual.dtype == np.float16
        np.testing.assert_array_equal(actual, wanted.astype("float16"))


@pytest.mark.filterwarnings("ignore:Accumulating with float16:UserWarning")
def test_float16_has_moments_in_float32():
    """In float16 the square of 0.0001 is 0, as epsilon is; 0 / 0 would be NaN."""
    start, gradients = np.float16([1.0, 1.0, -1.0]), [np.float16([0.0, 0.0001, 8.0])] * 4
    optimizer = mx.optimizer.create("adamw", learning_rate=0.25, wd=0.125, param_idx2name=NAME)
    expected, w = AdamW(0.25, 0.125), start.astype(float)
    expected.beta1, expected.beta2, expected.epsilon = 0.9, 0.999, 1e-8
    for actual, gradient in zip(steps(optimizer, start, gradients, "float16"), gradients):
        w = np.float16(expected.step("fc_weight", w.astype(float), gradient.astype(float)))
        np.testing.assert_allclose(actual, w, rtol=2.0**-10)


# -------------------------------------------------------------------------------------------------- under SVRGModule


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", [8, 10], ids=["even", "ragged"])
@pytest.mark.parametrize("devices, store, update_on_kvstore", STORES)
def test_every_step_equals_the_oracle(devices, store, update_on_kvstore, n, dtype, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    compare(TWO_LAYER, "adamw", n=n, batch_size=4, devices=devices, store=store, dtype=dtype)


@pytest.mark.parametrize("strategy", ["serial", "overlapped", "memory saving"], indirect=True)
@pytest.mark.parametrize("update_freq", [1, 3])
def test_every_step_equals_the_oracle_by_every_strategy(update_freq, strategy):
    compare(TWO_LAYER, "adamw", n=10, batch_size=4, update_freq=update_freq)


def test_the_decay_is_no_part_of_the_objective():
    data, weights = samples(TWO_LAYER, 8)
    found = {}
    for optimizer in ("adam", "adamw"):
        train = iterator(TWO_LAYER, data, 4)
        module = ready(TWO_LAYER, weights, train, optimizer=optimizer,
                       optimizer_params={"param_dict": {}, "wd": 0.5})  # fmt: skip
        module._optimizer.set_wd_mult({"fc1_bias": 1.0, "fc2_bias": 1.0})
        module.update_full_grads(train)
        (found[optimizer],) = module.history
    assert found["adamw"].norm == found["adam"].norm == found["adamw"].gradient_norm != found["adam"].gradient_norm
    assert found["adamw"].bound is None and found["adam"].bound is not None


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("settings, message", [
    ({"beta1": 1.0}, r"beta1=1.0 must be a number of at least 0 and less than 1"),
    ({"beta2": -0.5}, r"beta2=-0.5 must be a number of at least 0 and less than 1"),
    ({"beta2": float("nan")}, "beta2=nan must be"), ({"beta1": "0.9"}, "beta1='0.9' must be"),
    ({"beta1": True}, "beta1=True must be"),
    ({"epsilon": 0.0}, "epsilon=0.0 must be a positive number"), ({"epsilon": None}, "epsilon=None must be"),
    ({"epsilon": float("inf")}, "epsilon=inf must be"),
])  # fmt: skip
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        mx.optimizer.create("adamw", **settings)


def test_sparse_arrays():
    optimizer = mx.optimizer.create("adamw", param_idx2name={0: "embedding_weight"})
    dense = mx.nd.ones((3, 2))
    sparse = dense.tostype("row_sparse")
    with pytest.raises(ValueError, match="the weight of 'embedding_weight' is row_sparse, .* take 'adam', or a dense"):
        optimizer.create_state(0, sparse)
    with pytest.raises(ValueError, match="the gradient of 'embedding_weight' is row_sparse, and AdamW moves all of"):
        optimizer.update(0, dense, sparse, optimizer.create_state(0, dense))
    assert dense.asnumpy().tolist() == np.ones((3, 2)).tolist()


OTHERS = """
import warnings
warnings.simplefilter("ignore")
import mxnet as mx
warnings.simplefilter("error")

@mx.optimizer.register
class AdamW(mx.optimizer.Adam):
    pass

import svrg_optimization
assert type(mx.optimizer.create("adamw")) is AdamW is not svrg_optimization.AdamW
from svrg_optimization import SVRGModule
assert type(mx.optimizer.create("adamw")) is AdamW
"""


def test_an_adamw_that_the_program_has_registered_stays():
    subprocess.run([sys.executable, "-c", OTHERS], check=True, timeout=60)
