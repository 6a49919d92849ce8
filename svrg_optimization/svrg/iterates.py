r"""Which iterate of a period becomes the snapshot, if that isn't the last one.

.. math:: \tilde w = w_t \text{ for random } t \in \{0, ..., m-1\}, \qquad
          \tilde w = \frac{1}{m} \sum_{t=1}^{m} w_t

The first is option II of Johnson & Zhang (2013, figure 1); the second is the average of Xiao & Zhang (2014, figure 1).
How many steps m the period has needn't be known before its end.
"""

from typing import Any, Dict, List, Mapping, Tuple

from .clock import Clock
from .estimator import like, widened
from .numbered_draws import uniform

Weights = List[Tuple[str, Any]]


class Last:
    """The last iterate: there is nothing to keep."""

    # Whether it wants to see the iterates, and how many of the period it has seen.
    keeps, count = False, 0

    def before_step(self, weights: Weights, clock: Clock) -> None:
        """A step begins at these weights."""

    def after_step(self, weights: Weights, clock: Clock) -> None:
        """A step has led to these weights."""

    def chosen(self) -> Dict[str, Any]:
        """By parameter, the weights of the chosen iterate, if `count` says that there are any."""
        return {}

    def begin_period(self) -> None:
        """Forget the iterates."""

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


class _Kept(Last):
    """Keeps weights of the size of the network."""

    keeps = True

    def __init__(self) -> None:
        self.begin_period()

    def begin_period(self) -> None:
        """Forget the iterates."""
        self.count = 0
        self._weights: Dict[str, Any] = {}

    def _begin_anew_with_others(self, weights: Weights) -> None:
        """Forget the iterates, if others are trained from now on."""
        if self._weights and self._weights.keys() != {name for name, _ in weights}:
            self.begin_period()

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {"count": self.count, "weights": dict(self._weights)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.count, self._weights = state["count"], dict(state["weights"])


class Random(_Kept):
    """A random one of the iterates before each step. The draw at a step depends on the seed and the step only.

    >>> import mxnet as mx
    >>> clock, iterates = Clock(), Random(seed=0)
    >>> for number in range(4):
    ...     iterates.before_step([('w', mx.nd.array([number]))], clock); clock.step()
    >>> iterates.chosen()['w'].asscalar() in (0.0, 1.0, 2.0, 3.0)
    True
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def before_step(self, weights: Weights, clock: Clock) -> None:
        """Take these weights instead of those kept with probability 1 / (their number): all are taken alike."""
        self._begin_anew_with_others(weights)
        self.count += 1
        if self.count == 1 or uniform(self._seed, clock.steps) * self.count < 1:
            self._weights = {name: array.copy() for name, array in weights}

    def chosen(self) -> Dict[str, Any]:
        """The iterate."""
        return self._weights


class Average(_Kept):
    """The mean of the iterates after each step.

    >>> import mxnet as mx
    >>> clock, iterates = Clock(), Average()
    >>> for number in (1, 2, 6):
    ...     clock.step(); iterates.after_step([('w', mx.nd.array([number]))], clock)
    >>> iterates.chosen()['w'].asscalar()
    3.0
    """

    def after_step(self, weights: Weights, clock: Clock) -> None:
        """Add these weights, in float32 or wider."""
        self._begin_anew_with_others(weights)
        self.count += 1
        for name, array in weights:
            added = widened(array)
            if name in self._weights:
                # The network may have been bound to other types or devices.
                self._weights[name] = like(self._weights[name], added) + added
            else:
                self._weights[name] = added.copy()

    def chosen(self) -> Dict[str, Any]:
        """The mean."""
        return {name: total / self.count for name, total in self._weights.items()}


def of(at: str, seed: int) -> Last:
    """What a schedule's `at` and `seed` ask for."""
    return {"last": Last, "average": Average}[at]() if at != "random" else Random(seed)
