r"""The rule of `step_sizes.AutoStep`: a local smoothness, a dial, and a Newton step in the span of the last moves.

.. math:: \beta = \max(0, 1 - 1/\theta), \qquad \eta = \frac{0.7}{L} \min(1, \theta (1 - \beta))

- :math:`L` is the largest *secant* :math:`\lVert y \rVert / \lVert d \rVert` of the period, :math:`d = w - \tilde w`
  and y the difference of a batch's gradients at both (Malitsky & Mishchenko 2020).
- :math:`\theta`, the *dial*, is the effective step times L: up to 1 a longer step, beyond it momentum (Polyak 1964).
  If the gradient at a snapshot still points along the move, the period has ended too early: a longer step is due.
- The *subspace Newton step* :math:`e = -S^T [\tfrac12 (S Y^T + Y S^T)]^+ S r` at each snapshot, where the rows of S are
  the last moves from snapshot to snapshot, and those of Y the changes of the gradient (Nocedal & Wright 2006).
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .step_rule import Place, StepRule, dot, norm

# The part of 1 / L that a step takes.
_PART = 0.7
# How long the very first step is, whatever the gradient.
_PROBE = 1e-4
_LOWEST_DIAL, _HIGHEST_DIAL = 1e-3, 10.0
# At least so high is the dial at weights that the user has set.
_DIAL_ELSEWHERE = 0.25
# A smoothness that isn't seen again is forgotten by and by.
_FORGET = 0.9
# So many times as far as secants were measured a step of the first period may go.
_FURTHER = 10.0
# By how much a period that ended badly may raise the smoothness.
_MOST_AT_ONCE = 10.0
# Directions of less curvature than this part of the largest are left out of the Newton step.
_FLAT = 1e-4
# How many moves long the Newton step may be.
_LONGEST = 3.0
# In the place of a momentum of 0, with which mxnet's SGD would leave its velocity as it is.
NO_MOMENTUM = 1e-30


# A move of length 1, and how much the gradient changes along it.
Pair = Tuple[Any, Any]


class AutoStepRule(StepRule):
    """See the module. `pairs` moves are kept; `momentum` is the user's, or None to choose it.

    >>> rule = AutoStepRule(pairs=5, momentum=None)
    >>> rule.begin(Place(np.zeros(2), np.array([3.0, 4.0]), np.array([3.0, 4.0])))
    >>> rule.rate * 5.0
    0.0001
    >>> rule.see(2.0, distance=1.0); rule.rate
    0.35
    """

    measures_steps = True

    def __init__(self, pairs: int, momentum: Optional[float]) -> None:
        self._most, self._users_momentum = pairs, momentum
        self.rests = momentum is not None
        # L; the dial; the largest secant of this period; the Newton step's coefficients, one for each pair.
        self._smoothness, self._dial, self._seen = 0.0, 1.0, 0.0
        # L when this period began; in the first period, the first secant.
        self._at_begin = 0.0
        # In the first period: the norm of the gradient at the snapshot, and how far from there secants were measured.
        self._slope = self._tested = 0.0
        self._coefficients: List[float] = []
        self._pairs: List[Pair] = []
        self._shift: Optional[Any] = None
        # Between `decide` and `follow`.
        self._move: Optional[_Move] = None
        self._set_momentum()

    def _set_momentum(self) -> None:
        self.momentum = self._users_momentum
        if self.momentum is None:
            self.momentum = max(NO_MOMENTUM, 1 - 1 / self._dial)

    def _set_rate(self) -> None:
        self._set_momentum()
        assert self.momentum is not None
        if self._smoothness > 0:
            self.rate = _PART / self._smoothness * min(1.0, self._dial * (1 - self.momentum))
            if self._slope:
                # What is known of a short distance says little of a much longer one.
                self.rate = min(self.rate, _FURTHER * self._tested / self._slope)

    def begin(self, place: Place) -> None:
        """Take a first step of a length that shows the smoothness."""
        self._slope, self._tested = norm(place.gradient), max(_PROBE, 100 * place.rounding)
        self.rate = self._tested / self._slope if self._slope > 0 else self._tested

    def see(self, secant: float, distance: float) -> None:
        """Shorten the step if the objective is less smooth than it seemed."""
        self._seen, self._tested = max(self._seen, secant), max(self._tested, distance)
        self._at_begin = self._at_begin or secant
        if self._seen > self._smoothness or self._slope:
            self._smoothness = max(self._smoothness, self._seen)
            self._set_rate()

    # ------------------------------------------------------------------------------------------------- snapshots

    def decide(self, old: Place, new: Place, steps: int) -> List[float]:
        """The dial, the smoothness, and the coefficients of the Newton step."""
        self._move = move = _Move.between(old, new)
        if move.length <= new.rounding:
            return [self._dial, self._smoothness]
        smoothness = max(self._seen, move.change_length / move.length, _FORGET * self._smoothness)
        pairs = self._pairs_with(move, new.free, new.rounding)
        return [self._turned(new, move), smoothness, *_newton_step(pairs, new.residual, move.length)]

    def _turned(self, new: Place, move: "_Move") -> float:
        """The dial: up if the gradient still points along what the period has moved, which began after the shift."""
        along = dot(new.residual, move.weights)
        if self._shift is not None:
            along -= dot(new.residual, self._shift)
        return min(1.5 * self._dial, _HIGHEST_DIAL) if along < 0 else max(self._dial / 2, _LOWEST_DIAL)

    def _pairs_with(self, move: "_Move", free: Optional[Any], rounding: float) -> List[Pair]:
        """The last pairs, the new move among them if the objective curves upwards along it."""
        pairs = list(self._pairs)
        if move.curvature > 0 and move.length > rounding:
            scale = move.weights.dtype.type(1 / move.length)
            pairs.append((move.weights * scale, move.gradient * scale))
        pairs = pairs[-self._most :] if self._most else []
        # Where the new snapshot has zeros that are to stay, the moves of before are of no use any more.
        return pairs if free is None else [(weights * free, gradient) for weights, gradient in pairs]

    def follow(self, numbers: Sequence[float], old: Place, new: Place) -> None:
        """Begin a period."""
        self._dial, self._smoothness, *self._coefficients = numbers
        move = self._move or _Move.between(old, new)
        self._pairs, self._move = self._pairs_with(move, new.free, new.rounding), None
        self._seen, self._at_begin, self._slope = 0.0, self._smoothness, 0.0
        self._shift = self._newton_step_taken()
        self._set_rate()

    def _newton_step_taken(self) -> Optional[Any]:
        if not any(self._coefficients):
            return None
        return _combined(self._coefficients, [weights for weights, _ in self._pairs])

    def go_back(self) -> None:
        """Begin the period anew, from rest and with a quarter of the step."""
        # What was seen far out, where the step should never have gone, counts in part.
        self._smoothness = min(self._smoothness, _MOST_AT_ONCE * self._at_begin)
        if self._dial > _LOWEST_DIAL:
            self._dial = max(self._dial / 4, _LOWEST_DIAL)
        else:
            self._smoothness *= 4
        self._at_begin, self._tested = self._smoothness, self._tested / 100
        self._pairs, self._coefficients, self._seen, self._shift = [], [], 0.0, None
        if not self._smoothness:
            self.rate /= 4
        self._set_rate()

    def stay(self) -> None:
        """Begin a period as the last one was, without a Newton step."""
        self._coefficients, self._seen, self._shift = [], 0.0, None

    def move_elsewhere(self) -> None:
        """Begin a period somewhere else, as the user wants: how far the last steps got says nothing there."""
        self.stay()
        self._dial = max(self._dial, _DIAL_ELSEWHERE)
        self._set_rate()

    def shift(self) -> Optional[Any]:
        """The Newton step."""
        return self._shift

    # ------------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {
            "rate": self.rate, "dial": self._dial, "smoothness": self._smoothness, "seen": self._seen,
            "at_begin": self._at_begin, "slope": self._slope, "tested": self._tested,
            "coefficients": list(self._coefficients),
            "moves": {str(k): move for k, (move, _) in enumerate(self._pairs)},
            "changes": {str(k): change for k, (_, change) in enumerate(self._pairs)},
        }  # fmt: skip

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
        self.rate, self._dial, self._smoothness = state["rate"], state["dial"], state["smoothness"]
        self._seen, self._at_begin = state["seen"], state["at_begin"]
        self._slope, self._tested = state["slope"], state["tested"]
        self._coefficients = list(state["coefficients"])
        moves, changes = state["moves"], state["changes"]
        self._pairs = [(moves[str(k)], changes[str(k)]) for k in range(len(moves))]
        self._shift = self._newton_step_taken()
        self._set_momentum()


class _Move(NamedTuple):
    """From one snapshot to the next: the change of the weights and of the gradient."""

    weights: Any
    gradient: Any
    length: float
    change_length: float
    curvature: float

    @classmethod
    def between(cls, old: Place, new: Place) -> "_Move":
        weights, gradient = new.weights - old.weights, new.gradient - old.gradient
        return cls(weights, gradient, norm(weights), norm(gradient), dot(weights, gradient))


def _newton_step(pairs: List[Pair], slope: Any, longest: float) -> List[float]:
    """The coefficients of the Newton step in the span of the pairs' moves, which is no longer than some moves."""
    if not pairs:
        return []
    moves = [weights for weights, _ in pairs]
    curvature = np.array([[dot(move, change) for _, change in pairs] for move in moves])
    eigenvalues, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
    if not eigenvalues[-1] > 0:
        return [0.0] * len(pairs)
    steep = eigenvalues > _FLAT * eigenvalues[-1]
    vectors, slopes = vectors[:, steep], np.array([dot(move, slope) for move in moves])
    coefficients = -vectors @ ((vectors.T @ slopes) / eigenvalues[steep])
    length = norm(_combined(coefficients, moves))
    return [float(each) * min(1.0, _LONGEST * longest / length if length else 1.0) for each in coefficients]


def _combined(coefficients: Any, vectors: List[Any]) -> Any:
    """The sum of the vectors times their coefficients, in their type."""
    total = np.zeros_like(vectors[0])
    for coefficient, vector in zip(coefficients, vectors):
        total += vector.dtype.type(coefficient) * vector
    return total
