r"""The rule of `step_sizes.AutoStep`: a local smoothness, a dial, and a Newton step in the span of the last moves.

.. math:: \beta = \max(0, 1 - 1/\theta), \qquad \eta = \frac{0.7}{L} \min(1, \theta (1 - \beta))

- :math:`L` is the largest *secant* :math:`\lVert y \rVert / \lVert d \rVert` of the period, :math:`d = w - \tilde w`
  and y the difference of a batch's gradients at both (Malitsky & Mishchenko 2020).
- :math:`\theta`, the *dial*, is the effective step times L: up to 1 a longer step, beyond it momentum (Polyak 1964).
  If the gradient at a snapshot still points along the move, the period has ended too early: a longer step is due.
- The *subspace Newton step* :math:`e = -S^T [\tfrac12 (S Y^T + Y S^T)]^+ S r` at each snapshot, where the rows of S are
  the last moves from snapshot to snapshot, and those of Y the changes of the gradient (Nocedal & Wright 2006).
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from .step_rule import Place, StepRule, dot, is_worse, norm

# The part of 1 / L that a step takes.
_PART = 0.7
# How long the very first step is, whatever the gradient.
_PROBE = 1e-4
_LOWEST_DIAL, _HIGHEST_DIAL = 1e-3, 10.0
# A smoothness that isn't seen again is forgotten by and by.
_FORGET = 0.9
# Directions of less curvature than this part of the largest are left out of the Newton step.
_FLAT = 1e-4
# How many moves long the Newton step may be.
_LONGEST = 3.0
# In the place of a momentum of 0, with which mxnet's SGD would leave its velocity as it is.
NO_MOMENTUM = 1e-30


class AutoStepRule(StepRule):
    """See the module. `pairs` moves are kept; `momentum` is the user's, or None to choose it.

    >>> rule = AutoStepRule(pairs=5, momentum=None)
    >>> rule.begin(Place(np.zeros(2), np.array([3.0, 4.0]), np.array([3.0, 4.0])))
    >>> rule.rate * 5.0
    0.0001
    >>> rule.see(2.0); rule.rate
    0.35
    """

    measures_steps = True

    def __init__(self, pairs: int, momentum: Optional[float]) -> None:
        self._most, self._users_momentum = pairs, momentum
        self.rests = momentum is not None
        # L; the dial; the largest secant of this period; the Newton step's coefficients, one for each pair.
        self._smoothness, self._dial, self._seen = 0.0, 1.0, 0.0
        self._coefficients: List[float] = []
        # The last moves, of length 1, and how much the gradient changes along each.
        self._pairs: List[Tuple[Any, Any]] = []
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

    def begin(self, place: Place) -> None:
        """Take a first step of a length that shows the smoothness."""
        length = norm(place.gradient)
        self.rate = _PROBE / length if length > 0 else _PROBE

    def see(self, secant: float) -> None:
        """Shorten the step if the objective is less smooth than it seemed."""
        self._seen = max(self._seen, secant)
        if self._seen > self._smoothness:
            self._smoothness = self._seen
            self._set_rate()

    # ------------------------------------------------------------------------------------------------- snapshots

    def decide(self, old: Place, new: Place, steps: int) -> List[float]:
        """The dial, the smoothness, and the coefficients of the Newton step."""
        if is_worse(old, new):
            return []
        move = new.weights - old.weights
        dial, smoothness = self._turned(new, move), self._smoothness_after(old, new, move)
        return [dial, smoothness, *self._newton_step(new, self._pairs_with(old, new, move), norm(move))]

    def _turned(self, new: Place, move: Any) -> float:
        """The dial: up if the gradient still points along what the period has moved, which began after the shift."""
        shift = self.shift()
        along = dot(new.residual, move if shift is None else move - shift)
        if along < 0:
            return min(1.5 * self._dial, _HIGHEST_DIAL)
        return max(self._dial / 2, _LOWEST_DIAL)

    def _smoothness_after(self, old: Place, new: Place, move: Any) -> float:
        length = norm(move)
        secant = norm(new.gradient - old.gradient) / length if length > 0 else 0.0
        return max(self._seen, secant, _FORGET * self._smoothness)

    def _pairs_with(self, old: Place, new: Place, move: Any) -> List[Tuple[Any, Any]]:
        """The last pairs, the new move among them if the objective curves upwards along it."""
        change, length = new.gradient - old.gradient, norm(move)
        pairs = list(self._pairs)
        if self._most and length > 0 and dot(move, change) > 0:
            pairs.append((move / length, change / length))
        return pairs[-self._most :] if self._most else []

    def _newton_step(self, new: Place, pairs: List[Tuple[Any, Any]], longest: float) -> List[float]:
        """The coefficients of the Newton step in the span of the pairs' moves."""
        if not pairs:
            return []
        moves = [move if new.free is None else move * new.free for move, _ in pairs]
        curvature = np.array([[dot(move, change) for _, change in pairs] for move in moves])
        slope = np.array([dot(move, new.residual) for move in moves])
        eigenvalues, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        steep = eigenvalues > _FLAT * eigenvalues[-1]
        if eigenvalues[-1] <= 0:
            return [0.0] * len(pairs)
        vectors, eigenvalues = vectors[:, steep], eigenvalues[steep]
        coefficients = -vectors @ ((vectors.T @ slope) / eigenvalues)
        length = norm(_combined(coefficients, moves))
        if length > _LONGEST * longest:
            coefficients *= _LONGEST * longest / length
        return [float(each) for each in coefficients]

    def follow(self, numbers: Sequence[float], old: Place, new: Place) -> None:
        """Begin a period."""
        self._dial, self._smoothness, *self._coefficients = numbers
        self._pairs = self._pairs_with(old, new, new.weights - old.weights)
        # Where the new snapshot has zeros that are to stay, the moves of before are of no use any more.
        if new.free is not None:
            self._pairs = [(move * new.free, change) for move, change in self._pairs]
        self._seen = 0.0
        self._set_rate()

    def go_back(self) -> None:
        """Begin the period anew, from rest and with a quarter of the step."""
        self._dial = max(self._dial / 4, _LOWEST_DIAL)
        self._pairs, self._coefficients, self._seen = [], [], 0.0
        self._set_rate()

    def shift(self) -> Optional[Any]:
        """The Newton step."""
        if not any(self._coefficients):
            return None
        return _combined(self._coefficients, [move for move, _ in self._pairs])

    # ------------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {
            "rate": self.rate, "dial": self._dial, "smoothness": self._smoothness, "seen": self._seen,
            "coefficients": list(self._coefficients),
            "moves": {str(k): move for k, (move, _) in enumerate(self._pairs)},
            "changes": {str(k): change for k, (_, change) in enumerate(self._pairs)},
        }  # fmt: skip

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
        self.rate, self._dial, self._smoothness = state["rate"], state["dial"], state["smoothness"]
        self._seen, self._coefficients = state["seen"], list(state["coefficients"])
        moves, changes = state["moves"], state["changes"]
        self._pairs = [(moves[str(k)], changes[str(k)]) for k in range(len(moves))]
        self._set_momentum()


def _combined(coefficients: Any, vectors: List[Any]) -> Any:
    """The sum of the vectors times their coefficients, in their type."""
    total = np.zeros_like(vectors[0])
    for coefficient, vector in zip(coefficients, vectors):
        total += vector.dtype.type(coefficient) * vector
    return total
