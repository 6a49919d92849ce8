r"""What theory says about step sizes and batch sizes of SVRG, for linear models with a convex loss.

Of :math:`f = \frac1n \sum_i f_i`, L is the smoothness of f, and :math:`L_{\max}` the largest one of the
:math:`f_i`. The steps that theory proves to converge are short: ``learning_rate='auto'`` needs none of these numbers,
and fewer passes.

Imports NumPy only: data may also be SciPy's sparse matrices.
"""

import math
import numbers
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Smoothness", "batch_size", "smoothness", "step_size"]

# The largest second derivative of a sample's loss, as a function of the model's output.
CURVATURE = {"squared": 1.0, "logistic": 0.25, "softmax": 0.5}


class Smoothness(NamedTuple):
    """How fast gradients change at most, per distance of the weights.

    Attributes
    ----------
    L : float
        That of the mean of all samples.
    L_max : float
        The largest one of a single sample.
    """

    L: float
    L_max: float


def smoothness(
    x: Any, loss: str, *, intercept: bool = False, decay: float = 0.0, tol: float = 1e-9, iterations: int = 1000
) -> Smoothness:
    r"""Compute the smoothness of a linear model's loss.

    .. math:: L = \frac{\varphi''}{n} \lambda_{\max}(X^\top X) + \lambda, \qquad
              L_{\max} = \varphi'' \max_i \lVert x_i \rVert^2 + \lambda

    Parameters
    ----------
    x : array of shape (n, d)
        The samples: a NumPy array, a SciPy sparse matrix, or anything else with ``@``, ``T`` and ``multiply`` or ``*``.
    loss : {'squared', 'logistic', 'softmax'}
        For the output z and the label y, :math:`\frac12 (z - y)^2`, :math:`\log(1 + e^z) - y z`, or the cross-entropy
        of softmax. The second derivatives :math:`\varphi''` are at most 1, 1/4, 1/2.
    intercept : bool, default False
        Whether the model has one: a column of ones.
    decay : float, default 0.0
        The weight decay :math:`\lambda`, of :math:`\frac{\lambda}{2} \lVert w \rVert^2` in f.
    tol : float, default 1e-9
        The tolerance: the power iteration ends when the eigenvalue is known to about this part of itself.
    iterations : int, default 1000
        The power iteration ends after so many products with X.

    Returns
    -------
    Smoothness
        With the attributes ``L`` and ``L_max``.

    Raises
    ------
    ValueError
        There is no such loss; `decay`, `tol` or `iterations` is too small; `x` isn't two-dimensional, is empty, or has
        numbers that aren't finite or real.

    Notes
    -----
    By power iteration from a fixed start, in time proportional to the numbers in `x`: no eigenvalues are computed. What
    it finds is never too large.

    Examples
    --------
    >>> found = smoothness(np.array([[3.0, 0.0], [0.0, 4.0]]), 'squared')
    >>> round(found.L, 6), found.L_max
    (8.0, 16.0)
    """
    if not isinstance(loss, str) or loss not in CURVATURE:
        raise ValueError("loss={!r} must be one of {}".format(loss, ", ".join(map(repr, CURVATURE))))
    for name, value, least in (("decay", decay, 0), ("tol", tol, 0), ("iterations", iterations, 1)):
        if not (isinstance(value, numbers.Real) and least <= value < math.inf):
            raise ValueError("{}={!r} must be a number of at least {}".format(name, value, least))
    x = _in_floats(x)
    if len(x.shape) != 2 or 0 in x.shape:
        raise ValueError("x has the shape {}; give samples in rows, at least one".format(tuple(x.shape)))
    squares = _squared_norms(x) + intercept
    if not np.isfinite(squares).all():
        raise ValueError("x has numbers that aren't finite, in row {}".format(int(np.argmin(np.isfinite(squares)))))
    curvature = CURVATURE[loss]
    largest = _largest_eigenvalue(x, intercept, tol, iterations)
    return Smoothness(curvature * largest / x.shape[0] + decay, curvature * float(squares.max()) + decay)


def _in_floats(x: Any) -> Any:
    """A dense or sparse matrix of float32 or float64: squares of integers would not fit into their type."""
    if hasattr(x, "asnumpy"):
        x = x.asnumpy()
    if not hasattr(x, "multiply"):
        x = np.asarray(x)
    if np.issubdtype(x.dtype, np.complexfloating):
        raise ValueError("x has complex numbers; give real ones")
    try:
        return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError("x has the type {}; give numbers".format(x.dtype)) from None


def _squared_norms(x: Any) -> Any:
    squares = x.multiply(x) if hasattr(x, "multiply") else x * x
    return np.asarray(squares.sum(axis=1)).ravel()


def _largest_eigenvalue(x: Any, intercept: bool, tol: float, iterations: int) -> float:
    """That of X'X, where X has a column of ones more if there is an intercept."""
    # Not from ones: they may be orthogonal to what is searched for.
    v = np.random.default_rng(0).normal(size=x.shape[1] + intercept)
    found = 0.0
    for _ in range(int(iterations)):
        v /= np.linalg.norm(v) or 1.0
        z = x @ v[: x.shape[1]] + (v[-1] if intercept else 0.0)
        product = np.concatenate([x.T @ z, [z.sum()]] if intercept else [x.T @ z])
        found = float(z @ z)
        # The eigenvalue is as near as the square of this.
        if np.linalg.norm(product - found * v) <= math.sqrt(tol) * found:
            break
        v = product
    return found


def step_size(smoothness: Smoothness, n: int, batch_size: int = 1) -> float:
    r"""Compute the largest step for which theory proves that SVRG converges.

    For batches that are drawn without replacement:

    .. math:: \eta(b) = \frac12 \, \frac{b (n - 1)}{3 (n - b) L_{\max} + n (b - 1) L}

    That is :math:`1 / (6 L_{\max})` for one sample and :math:`1 / (2 L)` for all. It is the learning rate of a module
    whose ``rescale_grad`` is 1 / batch size, which is the default.

    Parameters
    ----------
    smoothness : Smoothness
        From `smoothness`.
    n : int
        The number of samples; with several workers, of all workers together.
    batch_size : int, default 1
        The samples in a batch; with several workers, in those of all workers together.

    Returns
    -------
    float
        The learning rate.

    Raises
    ------
    ValueError
        `batch_size` isn't between 1 and n, or the smoothness is 0.

    References
    ----------
    O. Sebbouh, N. Gazagnadou, S. Jelassi, F. Bach, R. M. Gower, "Towards closing the gap between the theory and
    practice of SVRG", NeurIPS 2019, table 1.

    Examples
    --------
    >>> step_size(Smoothness(L=2.0, L_max=4.0), n=100), step_size(Smoothness(L=2.0, L_max=4.0), n=100, batch_size=100)
    (0.041666666666666664, 0.25)
    """
    _check_sizes(n, batch_size)
    _check_smoothness(smoothness)
    if n == 1:
        return 1 / (2 * smoothness.L)
    b, (mean, largest) = batch_size, smoothness
    return b * (n - 1) / (2 * (3 * (n - b) * largest + n * (b - 1) * mean))


def batch_size(smoothness: Smoothness, n: int, sigma: float) -> int:
    """Compute the batch size with which theory needs the fewest gradients, if a snapshot is taken every n steps.

    Parameters
    ----------
    smoothness : Smoothness
        From `smoothness`.
    n : int
        The number of samples.
    sigma : float
        The strong convexity of f: at least the weight decay.

    Returns
    -------
    int
        The batch size, from 1 to n.

    Raises
    ------
    ValueError
        n, `sigma` or the smoothness isn't positive.

    References
    ----------
    Sebbouh et al., as for `step_size`: table 1, for :math:`m = n`.

    Examples
    --------
    >>> batch_size(Smoothness(L=1.0, L_max=10.0), n=1000, sigma=0.1)
    1
    >>> batch_size(Smoothness(L=1.0, L_max=10.0), n=1000, sigma=1e-5)
    3
    """
    _check_sizes(n, 1)
    _check_smoothness(smoothness)
    if not (isinstance(sigma, numbers.Real) and sigma > 0):
        raise ValueError("sigma={!r} must be more than 0: the weight decay, for instance".format(sigma))
    mean, largest = smoothness
    if n >= 3 * largest / sigma:
        return 1
    few_differ = largest < n * mean / 3
    if n > mean / sigma:
        best = n * (3 * largest - mean) / (n * (n - 1) * sigma - n * mean + 3 * largest)
        best = min(best, _without_sigma(mean, largest, n)) if few_differ else best
    else:
        best = _without_sigma(mean, largest, n) if few_differ else n
    return min(n, max(1, math.floor(best)))


def _without_sigma(mean: float, largest: float, n: int) -> float:
    return math.sqrt(n / 2 * (3 * largest - mean) / (n * mean - 3 * largest))


def _check_smoothness(smoothness: Smoothness) -> None:
    if not 0 < smoothness.L <= smoothness.L_max * (1 + 1e-6):
        raise ValueError("{} must have L more than 0, and at most L_max".format(smoothness))


def _check_sizes(n: int, batch_size: int) -> None:
    if n < 1:
        raise ValueError("n={!r} must be at least 1: the number of samples".format(n))
    if not 1 <= batch_size <= n:
        raise ValueError("batch_size={!r} must be between 1 and n={}".format(batch_size, n))
