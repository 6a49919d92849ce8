"""What a rule that chooses the learning rate sees, and what it answers.

Two abstractions. A `Place` is what a snapshot has shown: its weights, and the objective's gradient there. A `StepRule`
turns two places, those of the last snapshot and of the new one, into numbers, by `decide`; and the numbers into its
state, by `follow`. The workers of a job follow the numbers of the first one, so that all take the same steps.
"""

import abc
import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

# So many products are added up in float32.
_PART = 1 << 13


class Place(NamedTuple):
    r"""Where a snapshot is, as vectors.

    `gradient` is that of the smooth part of the objective, :math:`\mu + \lambda w`. `residual` is 0 at the minimum: the
    gradient itself, or with a regularizer that isn't smooth the prox-gradient residual. `free` are the coordinates
    near which the objective is smooth, None if that are all. Weights closer than `rounding` can't be told apart.
    `penalty` is the part of the objective that isn't smooth.
    """

    weights: Any
    gradient: Any
    residual: Any
    free: Optional[Any] = None
    rounding: float = 0.0
    penalty: float = 0.0


def dot(a: Any, b: Any) -> float:
    """The scalar product; of long float32 vectors as accurate as of short ones.

    >>> dot(np.full(3, 2, 'float32'), np.ones(3, 'float32'))
    6.0
    """
    if a.dtype == np.float64:
        return float(np.dot(a, b))
    return sum(float(np.dot(a[k : k + _PART], b[k : k + _PART])) for k in range(0, len(a), _PART))


def norm(a: Any) -> float:
    """The Euclidean norm."""
    return math.sqrt(dot(a, a))


def change_of_objective(old: Place, new: Place) -> float:
    r"""How much the objective has changed, its smooth part by the trapezoid rule.

    .. math:: \tfrac12 (g + g_0) \cdot (w - w_0)

    Not finite if the gradient isn't.
    """
    change = dot(new.gradient + old.gradient, new.weights - old.weights) / 2 + new.penalty - old.penalty
    return change if math.isfinite(norm(new.residual)) else math.nan


def is_worse(old: Place, new: Place, since_start: float) -> bool:
    """Whether the objective has grown between two snapshots, and its gradient more than doubled; or isn't finite.

    Or whether it has grown, and is larger than where training began: there it was larger by `-since_start` than at the
    old place.
    """
    change = change_of_objective(old, new)
    if not math.isfinite(change):
        return True
    grows = change > 0 and norm(new.weights - old.weights) > new.rounding
    return grows and (norm(new.residual) > 2 * norm(old.residual) or since_start + change > 0)


class StepRule(abc.ABC):
    """Chooses the learning rate, for gradients of the mean loss and decay.

    Attributes
    ----------
    rate, momentum : float
        Of the coming steps. A momentum of None: the optimizer has its own.
    measures_steps : bool
        Whether the rule wants the secants of steps.
    rests : bool
        Whether each period begins at rest, with a velocity of zero.
    """

    measures_steps = False
    rests = False
    rate: float = 0.0
    momentum: Optional[float] = None

    @abc.abstractmethod
    def begin(self, place: Place) -> None:
        """The first snapshot has been taken."""

    @abc.abstractmethod
    def decide(self, old: Place, new: Place, steps: int) -> List[float]:
        """What follows from a new snapshot that isn't worse, after so many steps: the numbers for `follow`."""

    @abc.abstractmethod
    def follow(self, numbers: Sequence[float], old: Place, new: Place) -> None:
        """Go on from a new snapshot."""

    def stay(self) -> None:  # noqa: B027 - a rule may have nothing to end
        """A period ends that has shown nothing."""

    @abc.abstractmethod
    def go_back(self) -> None:
        """The period that has ended, or is under way, made things worse: it begins anew at the snapshot."""

    def move_elsewhere(self) -> None:  # noqa: B027
        """The user has set the weights: a period begins there."""

    def shift(self) -> Optional[Any]:
        """How far from the snapshot the coming period begins; None for nothing."""
        return None

    def see(self, secant: float, distance: float) -> None:  # noqa: B027 - a rule may not measure steps
        """A step so far from the snapshot has shown this smoothness."""

    @abc.abstractmethod
    def state(self) -> Dict[str, Any]:
        """What `restore` takes: numbers, and dicts of vectors."""

    @abc.abstractmethod
    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
