r"""The variance of gradients over batches, with and without the control variate.

For the batches B of an epoch, with :math:`p_B` the gradient at the current weights and :math:`c_B` that at the
snapshot, both per sample, the variance-reduced gradient is :math:`p_B - c_B + \mu`. So with :math:`V` the mean squared
distance from the mean,

.. math:: \mathrm{ratio} = \frac{V(p - c)}{V(p)}, \qquad
          \alpha^* = \frac{\mathrm{Cov}(p, c)}{V(c)}, \qquad V(p - c) = V(p) - 2\,\mathrm{Cov}(p, c) + V(c)
"""

import math
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np

from .estimator import Gradients


class Variance(NamedTuple):
    """Of a parameter's gradient, or of the whole gradient, per sample and before ``rescale_grad``.

    Attributes
    ----------
    plain : float
        The variance of the plain gradient: summed over the numbers of the gradient.
    reduced : float
        That of the variance-reduced gradient.
    of_snapshot : float
        That of the gradient at the snapshot.

    Examples
    --------
    >>> variance = Variance(plain=4.0, reduced=1.0, of_snapshot=4.0)
    >>> variance.ratio, variance.best_coefficient
    (0.25, 0.875)
    """

    plain: float
    reduced: float
    of_snapshot: float

    @property
    def ratio(self) -> float:
        """Reduced by plain: below 1, the control variate takes noise away; NaN if there is no noise."""
        return self.reduced / self.plain if self.plain > 0 else math.nan

    @property
    def covariance(self) -> float:
        """Of the gradients at the current weights and at the snapshot."""
        return (self.plain + self.of_snapshot - self.reduced) / 2

    @property
    def best_coefficient(self) -> float:
        """The coefficient of the control variate that would leave the least variance; NaN if it has none."""
        return self.covariance / self.of_snapshot if self.of_snapshot > 0 else math.nan


def in_all(variances: Sequence[Variance]) -> Variance:
    """The variance of the whole, from those of its parts.

    >>> in_all([Variance(1.0, 0.5, 1.0), Variance(3.0, 0.5, 3.0)])
    Variance(plain=4.0, reduced=1.0, of_snapshot=4.0)
    """
    return Variance(*(float(sum(column)) for column in zip(*variances))) if variances else Variance(0.0, 0.0, 0.0)


def break_even(update_freq: float) -> float:
    """At which ratio a step of SVRG is as good as plain steps of as many gradients: it costs 2 + 1 / update_freq.

    >>> break_even(2)
    0.4
    """
    return 1 / (2 + 1 / update_freq)


class _Spread:
    """The mean of vectors, and their mean squared distance from it, one vector at a time (Welford 1962)."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0

    def add(self, vector: Any) -> None:
        """Take in a vector."""
        self._count += 1
        before = vector - self._mean
        self._mean = self._mean + before / self._count
        self._squares += float(np.vdot(before, vector - self._mean))

    def variance(self) -> float:
        """The mean squared distance."""
        return self._squares / max(1, self._count)


class Spreads:
    """Takes in the gradients of batches, and gives their variances by parameter.

    >>> import mxnet as mx
    >>> spreads = Spreads()
    >>> for here, there in ((1.0, 0.5), (3.0, 2.0)):
    ...     spreads.add([Gradients('w', [mx.nd.array([here])], [mx.nd.array([there])])], rows=1)
    >>> spreads.batches, spreads.variances()['w']
    (2, Variance(plain=1.0, reduced=0.0625, of_snapshot=0.5625))
    """

    def __init__(self) -> None:
        self.batches = 0
        self._of: Dict[str, List[_Spread]] = {}

    def add(self, gradients: Sequence[Gradients], rows: int) -> None:
        """Take in a batch's gradients, before they are corrected: sums over so many rows, on all devices together."""
        self.batches += 1
        for name, live, snapshot in gradients:
            plain, at_snapshot = (_sum_of(arrays) / rows for arrays in (live, snapshot))
            # The difference for itself: near the snapshot it is much smaller than either.
            spreads = self._of.setdefault(name, [_Spread(), _Spread(), _Spread()])
            for spread, vector in zip(spreads, (plain, plain - at_snapshot, at_snapshot)):
                spread.add(vector)

    def variances(self) -> Dict[str, Variance]:
        """By parameter."""
        return {name: Variance(*(each.variance() for each in spreads)) for name, spreads in self._of.items()}


def _sum_of(arrays: Sequence[Any]) -> Any:
    return sum(array.tostype("default").asnumpy().astype(np.float64) for array in arrays)
