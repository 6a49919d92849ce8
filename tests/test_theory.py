"""Smoothness, steps and batch sizes of theory, against the definitions."""

import mxnet as mx
import numpy as np
import pytest
from scipy import sparse

from svrg_optimization import theory
from svrg_optimization.theory import Smoothness


def naive_smoothness(x, curvature, intercept, decay):
    """From the eigenvalues of the Hessian's bound."""
    if intercept:
        x = np.hstack([x, np.ones((len(x), 1))])
    mean = curvature * np.linalg.eigvalsh(x.T @ x / len(x))[-1] + decay
    return mean, curvature * max(row @ row for row in x) + decay


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.125])
@pytest.mark.parametrize("loss, curvature", [("squared", 1.0), ("logistic", 0.25), ("softmax", 0.5)])
@pytest.mark.parametrize("kind", ["dense", "sparse", "list"])
def test_smoothness(kind, loss, curvature, decay, intercept):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 7)) * (rng.random((50, 7)) < 0.4) + 0.25
    given = {"dense": x, "sparse": sparse.csr_matrix(x), "list": x.tolist()}[kind]
    found = theory.smoothness(given, loss, intercept=intercept, decay=decay)
    np.testing.assert_allclose(found, naive_smoothness(x, curvature, intercept, decay), rtol=1e-8)


@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
def test_no_second_derivative_is_larger(loss):
    """Of the loss, as a function of the outputs, at random outputs."""
    rng = np.random.default_rng(0)
    for z in rng.normal(size=(1000, 4)) * 3:
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        hessian = {
            "squared": np.eye(1), "logistic": np.array([[1 / (1 + np.exp(-z[0])) * (1 - 1 / (1 + np.exp(-z[0])))]]),
            "softmax": np.diag(p) - np.outer(p, p),
        }[loss]  # fmt: skip
        assert np.linalg.eigvalsh(hessian)[-1] <= theory.CURVATURE[loss] * (1 + 1e-12)


@pytest.mark.parametrize("b", [1, 2, 17, 99, 100])
def test_the_step_is_that_of_the_expected_smoothness(b):
    """1 / (2 (L_b + 2 rho_b)), from the two constants of the paper."""
    n, mean, largest = 100, 2.0, 5.0
    l_b = n * (b - 1) / (b * (n - 1)) * mean + (n - b) / (b * (n - 1)) * largest
    rho_b = (n - b) / (b * (n - 1)) * largest
    assert theory.step_size(Smoothness(mean, largest), n, b) == pytest.approx(1 / (2 * (l_b + 2 * rho_b)), rel=1e-14)


def gradients_needed(smoothness, n, b, sigma):
    """How many gradients theory needs for a given accuracy, in units that don't depend on b."""
    eta = theory.step_size(smoothness, n, b)
    # Snapshots every n steps, with n + 2 b n gradients; max(1 / (2 eta sigma), n) / n of them are needed.
    return (1 + 2 * b) * max(1 / (2 * eta * sigma), n)


@pytest.mark.parametrize("mean, largest, sigma", [
    (1.0, 10.0, 0.1), (1.0, 10.0, 1e-3), (1.0, 10.0, 1e-5), (1.0, 500.0, 1e-3), (1.0, 500.0, 1e-5),
    (1.0, 900.0, 0.5e-2),
])  # fmt: skip
def test_no_other_batch_size_needs_fewer_gradients(mean, largest, sigma):
    smoothness, n = Smoothness(mean, largest), 1000
    best = min(range(1, n + 1), key=lambda b: gradients_needed(smoothness, n, b, sigma))
    found = theory.batch_size(smoothness, n, sigma)
    assert abs(found - best) <= 1, (found, best)


@pytest.mark.parametrize("call, message", [
    (lambda: theory.smoothness(np.ones((2, 2)), "hinge"), "loss='hinge' must be one of 'squared', 'logistic'"),
    (lambda: theory.smoothness(np.ones((2, 2)), "squared", decay=-1), "decay=-1 must be a number of at least 0"),
    (lambda: theory.smoothness(np.ones(2), "squared"), r"x has the shape \(2,\); give samples in rows"),
    (lambda: theory.smoothness(np.ones((0, 2)), "squared"), r"x has the shape \(0, 2\)"),
    (lambda: theory.smoothness(np.array([[1.0], [np.inf]]), "squared"), "x has numbers that aren't finite, in row 1"),
    (lambda: theory.step_size(Smoothness(1, 1), 10, 11), "batch_size=11 must be between 1 and n=10"),
    (lambda: theory.step_size(Smoothness(1, 1), 0), "n=0 must be at least 1"),
    (lambda: theory.batch_size(Smoothness(1, 1), 10, 0), "sigma=0 must be more than 0"),
])  # fmt: skip
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_samples_that_are_all_zero():
    assert theory.smoothness(np.zeros((3, 2)), "squared") == (0.0, 0.0)


# --------------------------------------------------------------------------------------- found by fresh eyes


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64", "float16", "bool"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, mx.nd.array], ids=["dense", "csr", "mx"])
def test_squares_fit_into_no_small_type(form, dtype):
    x = np.random.default_rng(0).integers(0, 120, (20, 4)).astype(dtype)
    if form is not np.asarray and dtype in ("float16", "bool"):
        return
    given = form(x, dtype=dtype) if form is mx.nd.array and dtype != "int16" else form(x)
    found, wanted = theory.smoothness(given, "squared"), theory.smoothness(x.astype(float), "squared")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_an_eigenvalue_that_is_hard_to_find():
    x = np.eye(50) * np.sqrt(50.0)
    x[7, 7] *= np.sqrt(1.013)
    assert pytest.approx(1.013, rel=1e-6) == theory.smoothness(x, "squared").L


@pytest.mark.parametrize("call, message", [
    (lambda: theory.smoothness(np.ones((2, 2)) * 1j, "squared"), "complex"),
    (lambda: theory.smoothness(np.array([["a"]]), "squared"), "give numbers"),
    (lambda: theory.smoothness(np.ones((2, 2)), ["squared"]), "must be one of"),
    (lambda: theory.smoothness(np.ones((2, 2)), "squared", decay="1"), "decay='1' must be a number"),
    (lambda: theory.smoothness(np.ones((2, 2)), "squared", iterations=0), "iterations=0 must be a number"),
    (lambda: theory.step_size(theory.smoothness(np.zeros((3, 2)), "squared"), 3), "must have L more than 0"),
    (lambda: theory.batch_size(Smoothness(10.0, 1.0), 100, 0.001), "at most L_max"),
    (lambda: theory.batch_size(Smoothness(1.0, 1.0), 100, "0.1"), "sigma='0.1'"),
])  # fmt: skip
def test_what_cannot_be_computed_says_so(call, message):
    with pytest.raises(ValueError, match=message):
        call()
