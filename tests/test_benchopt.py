"""benchopt's solver in benchmarks/benchopt finds the minimum, ends when it is told, and says what it can't take.

benchopt isn't needed: a stub takes its place.
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression

ROOT = pathlib.Path(__file__).resolve().parent.parent


class BaseSolver:
    """Of benchopt's, what the solver needs: the parameters become attributes."""

    def __init__(self, **parameters):
        for name, values in self.parameters.items():
            setattr(self, name, parameters.get(name, values[0]))


@pytest.fixture
def solver_class(monkeypatch):
    monkeypatch.setitem(sys.modules, "benchopt", types.SimpleNamespace(BaseSolver=BaseSolver))
    spec = importlib.util.spec_from_file_location("benchopt_svrg", str(ROOT / "benchmarks" / "benchopt" / "svrg.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Solver


def data(n=300, d=7, dtype=float):
    """Rows, features of different scales, and labels -1 and 1 that aren't separable and come sorted."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) * np.arange(1, d + 1)
    y = np.sign(x @ rng.standard_normal(d) + 4 * rng.standard_normal(n))
    order = np.argsort(y)
    return x[order], y[order].astype(dtype)


def objective(x, y, lmbd, w):
    """benchmark_logreg_l2's."""
    return np.logaddexp(0, -y * (x @ w)).sum() + lmbd / 2 * w @ w


def run(solver, calls):
    """What the solver has at each call of its callback, which ends it by the last of so many."""
    seen = []

    def callback():
        seen.append(solver.get_result()["beta"].copy())
        return len(seen) < calls

    solver.run(callback)
    return seen


@pytest.mark.parametrize("parameters", [{}, {"batch_factor": 1, "update_freq": 2}, {"batch_factor": 100}], ids=str)
@pytest.mark.parametrize("lmbd, dtype", [(1.0, float), (0.01, int)])
def test_it_finds_scikit_learns_minimum(solver_class, parameters, lmbd, dtype):
    x, y = data(dtype=dtype)
    solver = solver_class(**parameters)
    assert solver.skip(X=x, y=y, lmbd=lmbd) == (False, None)
    solver.set_objective(X=x, y=y, lmbd=lmbd)
    run(solver, 81)
    found = solver.get_result()
    assert list(found) == ["beta"] and found["beta"].shape == (7,) and found["beta"].dtype == np.float64
    model = LogisticRegression(C=1 / lmbd, fit_intercept=False, solver="newton-cholesky", tol=1e-12).fit(x, y)
    best = objective(x, y, lmbd, model.coef_[0])
    assert objective(x, y, lmbd, found["beta"]) == pytest.approx(best, rel=1e-10, abs=0)


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_the_callback_ends_it(solver_class, calls):
    x, y = data()
    solver = solver_class()
    solver.set_objective(X=x, y=y, lmbd=1.0)
    seen = run(solver, calls)
    assert len(seen) == calls
    np.testing.assert_array_equal(seen[0], np.zeros(7))
    values = [objective(x, y, 1.0, w) for w in seen]
    assert all(after < before for before, after in zip(values, values[1:]))
    np.testing.assert_array_equal(solver.get_result()["beta"], seen[-1])


def test_a_second_run_begins_anew(solver_class):
    x, y = data()
    solver = solver_class()
    solver.set_objective(X=x, y=y, lmbd=1.0)
    for one, other in zip(run(solver, 6), run(solver, 6)):
        np.testing.assert_array_equal(one, other)


def test_an_error_in_the_callback_is_not_taken_for_its_end(solver_class):
    x, y = data()
    solver = solver_class()
    solver.set_objective(X=x, y=y, lmbd=1.0)
    calls = iter([True])
    with pytest.raises(StopIteration):
        solver.run(lambda: next(calls))


@pytest.mark.parametrize("n", [1, 2, 20])
def test_few_rows(solver_class, n):
    x, y = np.eye(20)[:n], np.resize([1.0, -1.0], n)
    solver = solver_class()
    solver.set_objective(X=x, y=y, lmbd=1.0)
    assert solver.train.batch_size == n  # and no row twice
    run(solver, 41)
    # Each row by itself: w = y / (1 + exp(y w)).
    of_rows = solver.get_result()["beta"][:n] * y
    np.testing.assert_allclose(of_rows, 0.401058137541547, rtol=1e-6)
    np.testing.assert_array_equal(solver.get_result()["beta"][n:], 0)


def test_sparse_data_and_an_intercept_are_skipped(solver_class):
    x, y = data()
    for matrix in (sparse.csr_matrix(x), sparse.csc_matrix(x)):
        skipped, reason = solver_class().skip(X=matrix, y=y, lmbd=1.0)
        assert skipped and "sparse" in reason
    skipped, reason = solver_class().skip(X=x, y=y, lmbd=1.0, fit_intercept=True)
    assert skipped and "intercept" in reason
