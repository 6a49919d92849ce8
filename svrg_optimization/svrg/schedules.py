r"""When the snapshot moves, and to which iterate.

A `Schedule` says two things, from which all methods here follow:

- `due`: whether a snapshot is to be taken before the coming step;
- `at`: which iterate of the period that ends becomes the snapshot.

`Growing` says besides over which of the samples the full gradient is the mean.

Each answer depends on the clock and on the schedule's settings alone: a training that is resumed, and all workers of a
job, get the same answers.
"""

import abc
import math
from fractions import Fraction
from typing import Any, Dict, Optional, Tuple, Type

import numpy as np

from . import settings
from .clock import Clock
from .numbered_draws import generator, uniform

__all__ = ["EveryEpochs", "EverySteps", "Growing", "Loopless", "Schedule"]

# Which iterate becomes the snapshot.
ITERATES = ("last", "average", "random")


class Schedule(abc.ABC):
    """When a snapshot is taken, and where. Derive a class to decide otherwise.

    Parameters
    ----------
    warm_start : int, default 0
        How many epochs of plain steps come first, without a snapshot.
    at : {'last', 'average', 'random'}, default 'last'
        Which iterate of the period that ends becomes the snapshot. With 'average' and 'random' the current weights move
        there, too, as in the figure of the paper: a period begins at its snapshot.
    seed : int, default 0
        Of what the schedule draws.

    Raises
    ------
    TypeError
        `warm_start` or `seed` is no integer.
    ValueError
        `warm_start` is below 0, or there is no such `at`.
    """

    # Whether a snapshot may be due in the middle of an epoch.
    within_epochs = False

    def __init__(self, warm_start: int = 0, at: str = "last", seed: int = 0) -> None:
        self.warm_start, self.at = settings.integer("warm_start", warm_start, 0), at
        self.seed = settings.integer("seed", seed, 0)
        if at not in ITERATES:
            raise ValueError("at={!r} must be one of {}".format(at, ", ".join(map(repr, ITERATES))))

    @abc.abstractmethod
    def due(self, clock: Clock) -> bool:
        """Say whether a snapshot is to be taken before the coming step; the first one is, after the warm start.

        Parameters
        ----------
        clock : Clock
            How far training has come.

        Returns
        -------
        bool
            The same on all workers, and after a checkpoint: it depends on the clock alone.
        """

    @abc.abstractmethod
    def period(self, steps_per_epoch: float) -> float:
        """Say how many epochs a snapshot is kept, on average.

        Parameters
        ----------
        steps_per_epoch : float
            How many steps an epoch has.

        Returns
        -------
        float
            The number of epochs.
        """

    def __repr__(self) -> str:
        return settings.described(self.settings())

    def settings(self) -> Dict[str, Any]:
        """Give the class and its arguments, by which workers compare schedules and a checkpoint makes an equal one.

        Returns
        -------
        dict
            The name under "class", and the attributes.
        """
        return settings.of(type(self), vars(self))


class EveryEpochs(Schedule):
    """A snapshot at the start of epochs w, w + k, w + 2k, ..., with w epochs of plain steps before. Johnson & Zhang's.

    ``SVRGModule(..., update_freq=k)`` is short for ``snapshots=EveryEpochs(k)``.

    Parameters
    ----------
    k : int
        The number of epochs between two snapshots, at least 1.
    warm_start : int, default 0
        How many epochs of plain steps come first.
    at : {'last', 'average', 'random'}, default 'last'
        Which iterate becomes the snapshot, see `Schedule`.
    seed : int, default 0
        Of what is drawn: the random iterate.

    Raises
    ------
    TypeError, ValueError
        `k` is no integer, or below 1; and what `Schedule` raises.

    References
    ----------
    R. Johnson and T. Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", NIPS 2013,
    figure 1: 'last' is option I, 'random' is option II, which takes one of the iterates before each of the m steps.
    'average' is the mean of those after each step: L. Xiao and T. Zhang, "A proximal stochastic gradient method with
    progressive variance reduction", SIAM J. Optim. 2014, figure 1.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.begin_epoch(4)
    >>> EveryEpochs(2).due(clock), EveryEpochs(3).due(clock), EveryEpochs(3, warm_start=1).due(clock)
    (True, False, True)
    """

    def __init__(self, k: int, warm_start: int = 0, at: str = "last", seed: int = 0) -> None:
        super().__init__(warm_start, at, seed)
        self.k = settings.integer("k", k, 1)

    def due(self, clock: Clock) -> bool:
        """Whether an epoch begins, and it is one of these.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        return clock.epoch_begins and (clock.epoch - self.warm_start) % self.k == 0

    def period(self, steps_per_epoch: float) -> float:
        """K.

        Parameters
        ----------
        steps_per_epoch : float
            How many steps an epoch has.
        """
        return float(self.k)


class EverySteps(Schedule):
    """A snapshot before steps 0, k, 2k, ..., counted through all epochs after the warm start.

    Parameters
    ----------
    k : int
        The number of steps between two snapshots, at least 1: m of Johnson & Zhang (2013, figure 1).
    warm_start : int, default 0
        How many epochs of plain steps come first.
    at : {'last', 'average', 'random'}, default 'last'
        Which iterate becomes the snapshot, see `Schedule`.
    seed : int, default 0
        Of what is drawn: the random iterate.

    Raises
    ------
    TypeError, ValueError
        `k` is no integer, or below 1; and what `Schedule` raises.

    Examples
    --------
    >>> clock, schedule = Clock(), EverySteps(3)
    >>> clock.begin_period(steps_per_epoch=4); clock.step(); clock.step(); schedule.due(clock)
    False
    >>> clock.step(); schedule.due(clock)
    True
    """

    within_epochs = True

    def __init__(self, k: int, warm_start: int = 0, at: str = "last", seed: int = 0) -> None:
        super().__init__(warm_start, at, seed)
        self.k = settings.integer("k", k, 1)

    def due(self, clock: Clock) -> bool:
        """Whether k steps, or a multiple, have been taken since the first snapshot, and none was taken here.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        return clock.last_step != clock.steps and (clock.steps - (clock.first_step or 0)) % self.k == 0

    def period(self, steps_per_epoch: float) -> float:
        """So many steps, in epochs.

        Parameters
        ----------
        steps_per_epoch : float
            How many steps an epoch has.
        """
        return self.k / steps_per_epoch


class Loopless(Schedule):
    """A snapshot before the first step, and after each step with probability p, at the iterate after the step: L-SVRG.

    Others code the method in two other ways: the snapshot at the iterate before the step (Kovalev et al.), and a coin
    before the step, after whose fall the step goes along the full gradient alone (the optimization library CIL).

    Parameters
    ----------
    p : float
        The probability, above 0 and at most 1. A snapshot is kept for 1/p steps on average; Kovalev et al. take 1/n
        with steps of one sample, so with batches of b the number to begin with is b/n: one snapshot an epoch.
    seed : int, default 0
        Of the coins. The coin after step t depends on seed and t only.
    warm_start : int, default 0
        How many epochs of plain steps come first.

    Raises
    ------
    TypeError, ValueError
        `p` is no such number; and what `Schedule` raises.

    References
    ----------
    D. Kovalev, S. Horvath and P. Richtarik, "Don't jump through hoops and remove those loops: SVRG and Katyusha are
    better without the outer loop", ALT 2020, algorithm 1.

    Examples
    --------
    >>> clock, schedule, taken = Clock(), Loopless(0.25, seed=0), []
    >>> for _ in range(100):
    ...     clock.step()
    ...     taken.append(schedule.due(clock))
    >>> sum(taken)
    22
    """

    within_epochs = True

    def __init__(self, p: float, seed: int = 0, warm_start: int = 0) -> None:
        super().__init__(warm_start, "last", seed)
        self.p = settings.number("p", p)
        if not 0 < self.p <= 1:
            raise ValueError(
                "p={!r} must be above 0 and at most 1: the probability of a snapshot after a step".format(p)
            )

    def due(self, clock: Clock) -> bool:
        """Whether the coin after the last step has fallen, and no snapshot was taken since.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        return clock.steps > 0 and clock.last_step != clock.steps and uniform(self.seed, clock.steps) < self.p

    def period(self, steps_per_epoch: float) -> float:
        """1/p steps, in epochs.

        Parameters
        ----------
        steps_per_epoch : float
            How many steps an epoch has.
        """
        return 1 / (self.p * steps_per_epoch)

    def settings(self) -> Dict[str, Any]:
        """The class and its arguments."""
        return {name: value for name, value in super().settings().items() if name != "at"}


class Growing(EveryEpochs):
    r"""Full gradients over a random part of the samples that grows to all: the first epochs need no exact ones.

    .. math:: |B^s| = \min(n, \lceil \mathrm{first} \cdot \mathrm{factor}^s \rceil), \qquad
              \mu^s = \frac{1}{|B^s|} \sum_{i \in B^s} \nabla f_i(\tilde w^s)

    The rows of each part are drawn anew, without replacement. Over the draws, the mean of the variance-reduced gradient
    is the gradient. In a job, each worker draws the same part of its own samples.

    Parameters
    ----------
    first : int
        The number of samples of the first full gradient, at least 1.
    factor : float, default 2
        By how much a part is larger than the one before; above 1.
    k : int, default 1
        The number of epochs between two snapshots.
    warm_start : int, default 0
        How many epochs of plain steps come first.
    at : {'last', 'average', 'random'}, default 'last'
        Which iterate becomes the snapshot, see `Schedule`.
    seed : int, default 0
        Of what is drawn: the rows, and the random iterate.

    Raises
    ------
    TypeError, ValueError
        An argument is no such number; and what `Schedule` raises.

    References
    ----------
    R. Babanezhad, M. O. Ahmed, A. Virani, M. Schmidt, J. Konecny and S. Sallinen, "Stop wasting my gradients: practical
    SVRG", NIPS 2015, algorithm 2.

    Examples
    --------
    >>> clock, schedule = Clock(), Growing(100, factor=3)
    >>> sizes = []
    >>> for epoch in range(4):
    ...     sizes.append(schedule.part(clock, samples=1000))
    ...     clock.begin_period(steps_per_epoch=10)
    >>> sizes
    [100, 300, 900, 1000]
    """

    def __init__(
        self, first: int, factor: float = 2.0, k: int = 1, warm_start: int = 0, at: str = "last", seed: int = 0
    ) -> None:  # fmt: skip
        super().__init__(k, warm_start, at, seed)
        self.first, self.factor = settings.integer("first", first, 1), settings.number("factor", factor)
        if not 1 < self.factor < math.inf:
            raise ValueError("factor={!r} must be above 1: by how much the parts grow".format(factor))

    def part(self, clock: Clock, samples: int) -> int:
        """Say how many samples the coming full gradient is the mean of.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        samples : int
            How many there are.

        Returns
        -------
        int
            Of all workers together.
        """
        if clock.snapshots * math.log(self.factor) > 1 + math.log(max(1.0, samples / self.first)):
            return samples
        # Exact: the factor is the number that its digits say.
        return min(samples, math.ceil(self.first * Fraction(repr(self.factor)) ** clock.snapshots))

    def rows(self, clock: Clock, samples: int, own: int, rank: int) -> Any:
        """Draw the rows that a worker with so many of the samples takes.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        samples, own : int
            How many samples all workers have, and this one.
        rank : int
            The number of this worker.

        Returns
        -------
        array of int
            Their numbers, in order.
        """
        count = min(own, -(-own * self.part(clock, samples) // samples))
        is_drawn = np.zeros(own, dtype=bool)
        is_drawn[generator(self.seed, clock.snapshots * 2**20 + rank).permutation(own)[:count]] = True
        return np.flatnonzero(is_drawn)


KINDS: Tuple[Type[Schedule], ...] = (EveryEpochs, EverySteps, Loopless, Growing)


def from_settings(saved: Optional[Dict[str, Any]]) -> Optional[Schedule]:
    """The schedule that has these `settings`; None if they are those of another class.

    >>> from_settings(EverySteps(3, at='average').settings()).at
    'average'
    """
    return settings.instance(KINDS, saved)


def update_freq_of(saved: Dict[str, Any]) -> Optional[int]:
    """The `update_freq` that means the same as the schedule with these `settings`; None if there is none.

    >>> update_freq_of(EveryEpochs(3).settings()), update_freq_of(EveryEpochs(3, warm_start=1).settings())
    (3, None)
    """
    k: Any = saved.get("k")
    return k if saved.get("class") == "EveryEpochs" and saved == EveryEpochs(k).settings() else None


def of_arguments(update_freq: Any, snapshots: Any, default: int = 2) -> Schedule:
    """The schedule that the arguments of an SVRGModule mean.

    >>> of_arguments(3, None).k, of_arguments(2, EverySteps(5)).k
    (3, 5)
    """
    if snapshots is None:
        return EveryEpochs(update_freq)
    if update_freq != default:
        raise ValueError("update_freq={!r} and snapshots={!r}: give one of them".format(update_freq, snapshots))
    if not isinstance(snapshots, Schedule):
        raise TypeError(
            "snapshots={!r} must be a schedule of svrg_optimization.schedules, EveryEpochs(2) for instance".format(
                snapshots
            )
        )
    return snapshots
