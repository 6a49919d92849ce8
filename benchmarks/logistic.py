"""l2-regularised logistic regression: data from a seed, the objective in float64, and its minimum."""

from typing import NamedTuple

import numpy as np

SEED = 0
FEATURES = 90
# Correlation of neighbouring features. The Hessian's condition number is then about 600.
CORRELATION = 0.9


class Problem(NamedTuple):
    """mean(log(1 + exp(-y x'w))) + |w|^2 / (2 n), no intercept; `minimum` is its value at the optimum."""

    x: np.ndarray
    y: np.ndarray
    decay: float
    minimum: float

    def objective(self, w: np.ndarray) -> float:
        return float(np.logaddexp(0, -self.y * (self.x @ w)).mean() + 0.5 * self.decay * w @ w)

    def suboptimality(self, w: np.ndarray) -> float:
        """(f - f*) / f*; below 1e-15 it is the rounding of float64."""
        return (self.objective(w.astype(np.float64).ravel()) - self.minimum) / self.minimum


def make(n: int) -> Problem:
    """n rows of standardised features, and labels -1 and 1 drawn from a logistic model."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((n, FEATURES))
    for j in range(1, FEATURES):
        x[:, j] *= np.sqrt(1 - CORRELATION**2)
        x[:, j] += CORRELATION * x[:, j - 1]
    x -= x.mean(0)
    x /= x.std(0)
    scores = x @ rng.standard_normal(FEATURES)
    scores *= 2 / scores.std()
    y = np.where(rng.random(n) < 1 / (1 + np.exp(-scores)), 1.0, -1.0)
    problem = Problem(x, y, 1 / n, 0.0)
    return problem._replace(minimum=problem.objective(_newton(problem)))


def _newton(problem: Problem) -> np.ndarray:
    x, y, decay, _ = problem
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(y * (x @ w)))
        gradient = decay * w - x.T @ (y * p) / len(y)
        hessian = x.T @ (x * (p * (1 - p))[:, None]) / len(y) + decay * np.eye(len(w))
        step = np.linalg.solve(hessian, gradient)
        w = w - step
        if np.linalg.norm(step) < 1e-12:
            return w
    raise RuntimeError("Newton's method did not converge")
