"""Families of l2-regularised linear models, from seeds: data as people have them, and data that are hard.

f(w) = mean loss of the scores x'w, and decay / 2 |w|^2; the loss is squared, logistic, or softmax over CLASSES classes.
Everything is float64.
"""

from typing import Any, Callable, Dict, NamedTuple

import numpy as np

CLASSES = 4
LOSSES = ("squared", "logistic", "softmax")


class Problem(NamedTuple):
    """`gradient(w, rows)` is that of the mean loss over these rows, without decay; weights are outputs x d."""

    name: str
    loss: str
    x: Any
    y: Any
    decay: float
    minimum: float = 0.0
    classes: int = CLASSES

    @property
    def shape(self) -> Any:
        return (self.classes if self.loss == "softmax" else 1, self.x.shape[1])

    def objective(self, w: Any) -> float:
        w = w.reshape(self.shape).astype(np.float64)
        z = self.x @ w.T
        if self.loss == "squared":
            losses = 0.5 * (z[:, 0] - self.y) ** 2
        elif self.loss == "logistic":
            losses = np.logaddexp(0, z[:, 0]) - self.y * z[:, 0]
        else:
            top = z.max(1)
            losses = top + np.log(np.exp(z - top[:, None]).sum(1)) - z[np.arange(len(z)), self.y.astype(int)]
        return float(losses.mean() + 0.5 * self.decay * (w * w).sum())

    def gradient(self, w: Any, rows: Any = slice(None)) -> Any:
        x, y = self.x[rows], self.y[rows]
        return _errors(self.loss, x @ w.T, y).T @ x / len(y)

    def suboptimality(self, w: Any) -> float:
        """(f - f*) / f*."""
        return (self.objective(w) - self.minimum) / self.minimum


def _errors(loss: str, z: Any, y: Any) -> Any:
    """The derivative of each row's loss in its scores."""
    if loss == "squared":
        return z - y[:, None]
    if loss == "logistic":
        return 1 / (1 + np.exp(-z)) - y[:, None]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y.astype(int)] -= 1
    return p


def _correlated(rng: Any, n: int, d: int) -> Any:
    x = rng.standard_normal((n, d))
    for j in range(1, d):
        x[:, j] = 0.9 * x[:, j - 1] + np.sqrt(1 - 0.81) * x[:, j]
    return x


def _rows_of_t(rng: Any, n: int, d: int) -> Any:
    return rng.standard_normal((n, d)) / np.sqrt(rng.chisquare(3, n) / 3)[:, None]


FAMILIES: Dict[str, Callable[[Any, int, int], Any]] = {
    "correlated": _correlated,
    "independent": lambda rng, n, d: rng.standard_normal((n, d)),
    "heavy entries": lambda rng, n, d: rng.standard_t(5, (n, d)),
    "heavy rows": _rows_of_t,
    "scales": lambda rng, n, d: rng.standard_normal((n, d)) * np.geomspace(1, 0.01, d),
    "binary": lambda rng, n, d: (rng.random((n, d)) < 0.1).astype(float),
    "not centred": lambda rng, n, d: rng.standard_normal((n, d)) + 1.0,
    "low rank": lambda rng, n, d: (
        rng.standard_normal((n, 10)) @ rng.standard_normal((10, d)) + 0.1 * rng.standard_normal((n, d))
    ),
    "lognormal": lambda rng, n, d: rng.lognormal(0, 1, (n, d)) / 3,
    "two clusters": lambda rng, n, d: rng.standard_normal((n, d)) + 2.0 * rng.integers(0, 2, (n, 1)),
}


def make(family: str, loss: str, decay: float, n: int = 2000, d: int = 30, seed: int = 0) -> Problem:
    """A problem whose decay is `decay` / n, with the value of its minimum."""
    rng = np.random.default_rng(seed)
    x = FAMILIES[family](rng, n, d)
    outputs = CLASSES if loss == "softmax" else 1
    z = x @ rng.standard_normal((outputs, d)).T
    z *= 2 / z.std()
    if loss == "squared":
        y = z[:, 0] + rng.standard_normal(n)
    elif loss == "logistic":
        y = (rng.random(n) < 1 / (1 + np.exp(-z[:, 0]))).astype(float)
    else:
        y = (z + rng.gumbel(size=z.shape)).argmax(1).astype(float)
    return solved(Problem(family, loss, x, y, decay / n))


def solved(problem: Problem) -> Problem:
    """The problem, with the value of its minimum."""
    return problem._replace(minimum=problem.objective(_newton(problem)))


def _newton(problem: Problem) -> Any:
    w = np.zeros(problem.shape)
    for _ in range(100):
        gradient = problem.gradient(w) + problem.decay * w
        step = np.linalg.solve(_hessian(problem, w), gradient.ravel()).reshape(w.shape)
        before, size = problem.objective(w), 1.0
        while problem.objective(w - size * step) > before + 1e-14 * abs(before) and size > 1e-6:
            size /= 2
        w = w - size * step
        if np.linalg.norm(step) < 1e-11 * (1 + np.linalg.norm(w)):
            return w
    raise RuntimeError("Newton's method did not converge")


def _hessian(problem: Problem, w: Any) -> Any:
    x, n, (outputs, d) = problem.x, len(problem.y), problem.shape
    z = x @ w.T
    if problem.loss == "softmax":
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        blocks = np.zeros((outputs, d, outputs, d))
        for a in range(outputs):
            for b in range(outputs):
                curvature = p[:, a] * ((a == b) - p[:, b])
                blocks[a, :, b, :] = (x * curvature[:, None]).T @ x / n
        return blocks.reshape(outputs * d, -1) + problem.decay * np.eye(outputs * d)
    p = 1 / (1 + np.exp(-z[:, 0]))
    curvature = p * (1 - p) if problem.loss == "logistic" else np.ones(n)
    return (x * curvature[:, None]).T @ x / n + problem.decay * np.eye(d)
