"""The variance-reduced gradient of one parameter, against NumPy."""

import mxnet as mx
import numpy as np
import pytest
from models import nd

from svrg_optimization.svrg.estimator import Correction, Estimator, Gradients


def direction(gradient, snapshot_gradient, mu, rows, alpha=1.0):
    for operate in Estimator().direction(gradient, snapshot_gradient, mu, rows, alpha):
        operate()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1,), (3,), (17,), (10, 784), (4, 3, 5, 5), (999, 1001)], ids=str)
@pytest.mark.parametrize("context", [mx.cpu(0), mx.cpu(1)], ids=str)
def test_the_difference_is_taken_first(dtype, shape, context, rows, rng):
    # Near the optimum the difference of the two gradients is small and nearly exact; adding b * mu to one of them first
    # would lose it.
    here, there, mu = (rng.normal(size=shape).astype(dtype) for _ in range(3))
    gradient = nd(here, dtype)
    direction(gradient, mx.nd.array(there, ctx=context, dtype=dtype), nd(mu, dtype), rows)
    np.testing.assert_array_equal(gradient.asnumpy(), here - there + np.array(rows, dtype) * mu)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("rows", [1, 7])
def test_the_coefficient(alpha, rows, rng):
    here, there, mu = (rng.normal(size=(5, 3)) for _ in range(3))
    gradient = nd(here)
    direction(gradient, nd(there), nd(mu), rows, alpha)
    np.testing.assert_allclose(gradient.asnumpy(), here - alpha * (there - rows * mu), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("stype, dtype", [("default", "float16"), ("row_sparse", "float32"), ("row_sparse", "float64")])
def test_narrow_and_sparse_gradients_go_through_wide_and_dense_ones(stype, dtype, rng):
    here, there = (rng.normal(size=(5, 3)).astype(dtype) for _ in range(2))
    mu = rng.normal(size=(5, 3)).astype(np.float64 if dtype == "float64" else np.float32)
    gradient, snapshot_gradient = (nd(each, dtype).tostype(stype) for each in (here, there))
    direction(gradient, snapshot_gradient, nd(mu, mu.dtype), 2, 0.5)
    expected = (here.astype(mu.dtype) - mu.dtype.type(0.5) * there.astype(mu.dtype) + mu).astype(dtype)
    assert gradient.stype == stype and gradient.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(gradient.asnumpy(), expected)


def test_all_parameters_on_all_devices(rng):
    shapes, devices = {"a": (2,), "b": (3,), "new": (1,)}, [mx.cpu(0), mx.cpu(1)]
    values = {name: rng.normal(size=(2, 2, *shape)) for name, shape in shapes.items()}
    mu = {name: rng.normal(size=shapes[name]) for name in ("a", "b")}
    on_devices = [
        {name: mx.nd.array(value, ctx=device, dtype="float64") for name, value in mu.items()} for device in devices
    ]
    pairs = [
        Gradients(name, *([mx.nd.array(value, ctx=device, dtype="float64") for device, value in zip(devices, each)]
                          for each in values[name]))
        for name in shapes
    ]  # fmt: skip
    Correction(Estimator())(pairs, on_devices, [3, 1], 1.0)
    for name, live, _ in pairs:
        for k, rows in enumerate([3, 1]):
            here, there = values[name][:, k]
            # What has no full gradient keeps its gradient.
            expected = here - there + rows * mu[name] if name in mu else here
            np.testing.assert_allclose(live[k].asnumpy(), expected, rtol=1e-14, atol=1e-15)
