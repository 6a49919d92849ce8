r"""The rule of `step_sizes.BarzilaiBorwein`.

.. math:: \eta = \frac{1 - \beta}{m} \frac{\lVert s \rVert^2}{s \cdot y}
"""

from typing import Any, Dict, List, Sequence

from .step_rule import Place, StepRule, dot


class BarzilaiBorweinRule(StepRule):
    """Tan et al. (2016), algorithm 1; `rate` is the first one, `momentum` the optimizer's.

    >>> import numpy as np
    >>> rule = BarzilaiBorweinRule(rate=0.1, momentum=0.0)
    >>> old = Place(np.array([1.0]), np.array([4.0]), np.array([4.0]))
    >>> new = Place(np.array([0.5]), np.array([2.0]), np.array([2.0]))
    >>> rule.follow(rule.decide(old, new, steps=5), old, new)
    >>> rule.rate
    0.05
    """

    def __init__(self, rate: float, momentum: float) -> None:
        self.rate, self._damping = rate, 1 - momentum

    def begin(self, place: Place) -> None:
        """Take the first rate."""

    def decide(self, old: Place, new: Place, steps: int) -> List[float]:
        """The rate."""
        move, change = new.weights - old.weights, new.gradient - old.gradient
        curvature = dot(move, change)
        if not curvature > 0 or not steps:
            return [self.rate]
        return [self._damping / steps * dot(move, move) / curvature]

    def follow(self, numbers: Sequence[float], old: Place, new: Place) -> None:
        """Begin a period with another rate."""
        (self.rate,) = numbers

    def go_back(self) -> None:
        """Begin the period anew, with half the rate."""
        self.rate /= 2

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {"rate": self.rate}

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
        self.rate = state["rate"]
