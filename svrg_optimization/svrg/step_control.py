"""Lets a rule set the learning rate and momentum of an optimizer: what it is told, and when it is asked."""

import math
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from ..mxnet_api import memory
from ..step_sizes import AutoStep, StepSize
from .auto_step import AutoStepRule
from .barzilai_borwein import BarzilaiBorweinRule
from .estimator import Gradients
from .objective import residual_of
from .secants import Secants
from .snapshot import Point
from .step_rule import Place, StepRule, change_of_objective, is_worse, norm

# After the first period, one of so many steps is measured, and one in the middle of the first so many.
_EVERY = 8
# Below so many roundings of the weights, a difference of weights says nothing.
_ROUNDINGS = 10
# So many roundings of the largest residual: training has come to rest.
_AT_REST = 4
# What a snapshot shows: it is worse; it is to be followed; nothing.
_WORSE, _FOLLOW, _STAY = 0, 1, 2


class Objective(NamedTuple):
    """What an optimizer minimizes, and how its step is made.

    `decays` and `multipliers` of the learning rate are by parameter. A step's gradient is `rescale` times the sum over
    a batch, and `scale` times the objective's. `residual`, if a regularizer isn't smooth, takes a parameter's name,
    weight, gradient, and a step; `penalty` a name and weight; `kinks` are the parameters that have one. `epsilon`
    is a rounding of the weights.
    """

    decays: Mapping[str, float]
    multipliers: Mapping[str, float]
    scale: float
    rescale: float
    epsilon: float
    residual: Optional[Callable[..., Any]] = None
    penalty: Optional[Callable[[str, Any], float]] = None
    kinks: Sequence[str] = ()


def rule_for(schedule: StepSize, momentum: Optional[float]) -> StepRule:
    """A new rule for a schedule; `momentum` is the user's, or None if it is to be chosen, too."""
    if isinstance(schedule, AutoStep):
        return AutoStepRule(schedule.pairs, momentum)
    return BarzilaiBorweinRule(schedule.base_lr, momentum or 0.0)


def _moving(objective: Objective, point: Point) -> List[str]:
    """The parameters that move, in the order of the vectors."""
    return [
        name for name, multiplier in objective.multipliers.items() if multiplier > 0 and name in point.full_gradient
    ]


class Worse(Exception):
    """Training has become worse since the last snapshot."""


class StepControl:
    """Of one optimizer, on the `workers` of a job.

    Attributes
    ----------
    objective : Objective
        What the optimizer minimizes. Whoever takes a snapshot sets it anew.
    has_begun : bool
        Whether there has been a snapshot.
    is_broken : bool
        Whether a step has shown that the weights aren't finite any more.
    shift_is_due : bool
        Whether the period begins somewhere else than at the snapshot, and nobody has taken the weights there.
    """

    def __init__(
        self, make_rule: Callable[[], StepRule], optimizer: Any, objective: Objective, workers: Any
    ) -> None:  # fmt: skip
        self._make_rule, self._tuned, self.objective, self._workers = make_rule, optimizer, objective, workers
        self._schedule: StepSize = optimizer.lr_scheduler
        self._secants = Secants()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Know nothing: of other data, or other parameters."""
        self._schedule.begin_anew()
        self._rule, self.has_begun = self._make_rule(), False
        # The parameters that move, in the order of the vectors.
        self._names: List[str] = []
        # The steps of this period; whether it is the first; which moves are roundings.
        self._steps, self._is_first, self._rounding = 0, True, 0.0
        # What is being measured: a function that waits for the squares; and one for the sum over the workers, with the
        # distance from the snapshot.
        self._squares: Optional[Callable[[], Mapping[str, Sequence[float]]]] = None
        self._sum: Optional[Tuple[Callable[[], float], float]] = None
        self.shift_is_due, self.is_broken = False, False
        # Whether the user has set the weights since the last snapshot; the largest residual of a snapshot.
        self._was_moved, self._largest = False, 0.0
        # How much the objective has changed since training began, or began anew.
        self._since_start = 0.0
        # While a snapshot is taken: the old and the new place, and what follows.
        self._old: Optional[Place] = None
        self._new: Optional[Place] = None
        self._verdict, self._numbers = _FOLLOW, [0.0]
        if self._rule.momentum is not None:
            self._tuned.momentum = self._rule.momentum

    def is_of(self, optimizer: Any) -> bool:
        """Whether this optimizer's rate is still the one that is chosen here."""
        return optimizer.lr_scheduler is self._schedule

    def note_move(self) -> None:
        """The user has set the weights."""
        self._was_moved, self.shift_is_due, self.is_broken = True, False, False

    @property
    def rests(self) -> bool:
        """Whether each period begins with a velocity of zero."""
        return self._rule.rests

    # ------------------------------------------------------------------------------------------------- snapshots

    def leave(self, objective: Objective, old: Optional[Point]) -> None:
        """A snapshot is about to be taken; `old` is the last one."""
        self._finish_measuring()
        self.objective = objective
        names = [] if old is None else _moving(objective, old)
        if self.has_begun and names != self._names:
            self.begin_anew()
        self._old = None
        if old is not None and self.has_begun and not self._was_moved_anywhere():
            self._names = names
            self._old = self._place(old)

    def _was_moved_anywhere(self) -> bool:
        """Whether a worker's program has set the weights."""
        return self._workers.sum_later(float(self._was_moved))() > 0

    @property
    def may_go_back(self) -> bool:
        """Whether the last snapshot is one that can be gone back to."""
        return self._old is not None

    def arrive(self, new: Point) -> None:
        """The new snapshot's full gradient is known. Raises `Worse`, on all workers, if it is worse than the last."""
        self._names = _moving(self.objective, new)
        self._new = place = self._place(new)
        size = norm(place.residual)
        if self._old is not None:
            verdict, *self._numbers = self._workers.of_first(self._decide(self._old, place, size))
            self._verdict = int(verdict)
            if self._verdict == _WORSE:
                raise Worse

    def _decide(self, old: Place, new: Place, size: float) -> List[float]:
        """What to do, and the numbers for the rule to follow."""
        if self._steps == 0:
            return [_STAY]
        if self.is_broken or is_worse(old, new, self._since_start):
            # At rest, it is roundings that are worse.
            at_rest = not self.is_broken and size <= _AT_REST * self.objective.epsilon * self._largest
            return [_STAY if at_rest else _WORSE]
        return [_FOLLOW, *self._rule.decide(old, new, self._steps)]

    def begin_period(self) -> None:
        """The snapshot has been taken."""
        assert self._new is not None
        old, new, self._old, self._new = self._old, self._new, None, None
        if old is not None and self._verdict == _STAY and self._steps == 0:
            # Two snapshots of the same weights.
            return
        if not self.has_begun:
            self._rule.begin(new)
        elif old is None:
            self._rule.move_elsewhere()
            self._since_start = 0.0
        elif self._verdict == _STAY:
            self._rule.stay()
        else:
            self._is_first = False
            self._since_start += change_of_objective(old, new)
            self._rule.follow(self._numbers, old, new)
        self._largest = max(self._largest, norm(new.residual))
        self.has_begun, self.shift_is_due = True, self._rule.shift() is not None
        self._steps, self._rounding, self._was_moved = 0, new.rounding, False
        self._set_rate()

    def _place(self, point: Point) -> Place:
        """A snapshot's weights and gradients as vectors."""
        objective, mu = self.objective, point.full_gradient
        parts = [(name, point.weights[name].asnumpy().ravel(), mu[name].asnumpy().ravel()) for name in self._names]
        weights = self._joined([weight for _, weight, _ in parts], -0.5)
        gradients = [of_loss + objective.decays.get(name, 0.0) * weight for name, weight, of_loss in parts]
        gradient = residual = self._joined(gradients, 0.5)
        free, penalty = None, 0.0
        if objective.residual is not None and objective.penalty is not None and objective.kinks:
            penalty = sum(objective.penalty(name, point.weights[name]) for name in self._names)
            if self._rule.rate > 0:
                parts_of_residual = [self._residual(name, point.weights[name], mu[name]) for name in self._names]
                residual = self._joined(parts_of_residual, 0.5)
                free = np.concatenate([
                    (weight != 0 if name in objective.kinks else weight == weight).astype(weights.dtype)
                    for name, weight, _ in parts
                ])  # fmt: skip
        return Place(weights, gradient, residual, free, _ROUNDINGS * objective.epsilon * norm(weights), penalty)

    def _joined(self, parts: List[Any], power: float) -> Any:
        """One vector. A parameter's own learning rate is the rate of all in other coordinates."""
        multipliers = [self.objective.multipliers[name] for name in self._names]
        scaled = [part if m == 1 else part * part.dtype.type(m**power) for part, m in zip(parts, multipliers)]
        return np.concatenate(scaled) if scaled else np.zeros(0)

    def _residual(self, name: str, weight: Any, mu: Any) -> Any:
        objective = self.objective
        assert objective.residual is not None
        of_step = partial(objective.residual, step=self._rule.rate * objective.multipliers[name])
        return residual_of(name, mu, weight, objective.decays.get(name, 0.0), of_step).asnumpy().ravel()

    def go_back(self) -> None:
        """Begin the period anew at the snapshot, with a shorter step."""
        self._rule.go_back()
        self._squares = self._sum = None
        self._steps, self.shift_is_due, self.is_broken = 0, False, False
        self._set_rate()

    def _set_rate(self) -> None:
        self._schedule.base_lr = self._rule.rate / (self.objective.scale or 1.0)
        if self._rule.momentum is not None:
            self._tuned.momentum = self._rule.momentum

    def forget(self) -> None:
        """Let go of the arrays."""
        self._secants.forget()

    def take_shift(self, weights: Mapping[str, Any]) -> Dict[str, Any]:
        """From which weights the period begins, instead of these; `shift_is_due` says when this is to be asked."""
        self.shift_is_due, shift, start, found = False, self._rule.shift(), 0, {}
        assert shift is not None
        for name in self._names:
            # NumPy takes less time here than mxnet's operators.
            weight, factor = weights[name].asnumpy(), self.objective.multipliers[name] ** 0.5
            part = shift[start : start + weight.size].reshape(weight.shape)
            shifted = weight + (part * weight.dtype.type(factor)).astype(weight.dtype)
            if name in self.objective.kinks:
                # The regularizer isn't smooth across 0.
                shifted[shifted * weight < 0] = 0
            array = mx.nd.from_numpy(shifted)
            # mxnet can't copy a dense float64 array into a `row_sparse` one.
            found[name] = array if weights[name].stype == "default" else memory.with_all_rows(array)
            start += weight.size
        return found

    # ----------------------------------------------------------------------------------------------------- steps

    def before_correction(
        self, gradients: Sequence[Gradients], weights: Callable[[], Dict[str, Tuple[Any, Any]]]
    ) -> None:
        """A step has computed both gradients of its batch, at these weights: the current ones and the snapshot's."""
        if self._rule.measures_steps:
            self._take_sum()
            if self._is_first or self._steps % _EVERY == _EVERY - 1 or self._steps == _EVERY // 2 - 1:
                # By now the last measurement is known: nobody waits for it. Nor for the sum, in the next step.
                self._begin_sum()
                self._squares = self._secants.measure(gradients, self._names, weights)
            if self._is_first:
                # Of this step's rate nothing is known otherwise.
                self._finish_measuring()
        self._steps += 1

    def _begin_sum(self) -> None:
        """Add up over the workers what was measured."""
        if self._squares is not None:
            change_of_worker, distance = self._norms(self._squares())
            self._squares, self._sum = None, (self._workers.sum_later(change_of_worker), distance)

    def _take_sum(self) -> None:
        if self._sum is not None:
            (change, distance), self._sum = self._sum, None
            self._see(change(), distance)

    def _finish_measuring(self) -> None:
        self._take_sum()
        self._begin_sum()
        self._take_sum()

    def _norms(self, squares: Mapping[str, Sequence[float]]) -> Tuple[float, float]:
        """The norms of the change of the sum over a batch, and of the move from the snapshot."""
        multipliers = self.objective.multipliers
        change = sum(of_change * multipliers[name] for name, (of_change, _) in squares.items())
        distance = sum(of_move / multipliers[name] for name, (_, of_move) in squares.items())
        return math.sqrt(change), math.sqrt(distance)

    def _see(self, change: float, distance: float) -> None:
        """Take in a step's secant: at most the sum over the workers' changes, each of a part of the batch."""
        objective = self.objective
        if not (math.isfinite(change) and math.isfinite(distance)):
            self.is_broken = True
        elif distance > self._rounding:
            # The decay's part is parallel to the move, so this is a little more than the objective's secant.
            decay = max(objective.decays.values(), default=0.0)
            rate = self._rule.rate
            self._rule.see(change * objective.rescale / (objective.scale or 1.0) / distance + decay, distance)
            if self._rule.rate != rate:
                self._set_rate()

    # ------------------------------------------------------------------------------------------------- checkpoints

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        if self._squares is not None:
            squares = {name: list(of_parameter) for name, of_parameter in self._squares().items()}
            self._squares = lambda: squares
        if self._sum is not None:
            change, distance = self._sum[0](), self._sum[1]
            self._sum = (lambda: change), distance
        return {
            **{name: _saved(value) for name, value in self._rule.state().items()},
            "rule": type(self._rule).__name__, "names": self._names, "steps": self._steps,
            "is_first": self._is_first, "rounding": self._rounding,
            "has_begun": self.has_begun, "was_moved": self._was_moved, "largest": self._largest,
            "since_start": self._since_start,
            "squares": None if self._squares is None else self._squares(),
            "sum": None if self._sum is None else [self._sum[0](), self._sum[1]],
            "shift_is_due": self.shift_is_due, "is_broken": self.is_broken,
        }  # fmt: skip

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state, unless that is another rule's, or of other parameters."""
        names = [name for name, multiplier in self.objective.multipliers.items() if multiplier > 0]
        is_known = state.get("rule") == type(self._rule).__name__ and state["names"] == names and state["has_begun"]
        if not is_known:
            return
        self._names, self.has_begun = names, True
        self._rule.restore({name: _restored(value) for name, value in state.items()})
        self._steps, self._is_first, self._rounding = state["steps"], state["is_first"], state["rounding"]
        squares, total = state["squares"], state["sum"]
        self._squares = None if squares is None else lambda: squares
        self._sum = None if total is None else ((lambda: total[0]), total[1])
        self.shift_is_due, self.is_broken = state["shift_is_due"], state["is_broken"]
        self._was_moved, self._largest = state["was_moved"], state["largest"]
        self._since_start = state["since_start"]
        self._set_rate()


def _saved(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: mx.nd.array(vector, dtype=vector.dtype) for name, vector in value.items()}
    return value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: each.asnumpy() if isinstance(each, mx.nd.NDArray) else each for name, each in value.items()}
    return value
