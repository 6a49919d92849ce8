"""The update of the weights by mxnet's SGD: by the same operators, less what mxnet does anew in each step."""

import operator
from typing import Any, Callable, Dict, List, Sequence, Tuple

import mxnet as mx
import numpy as np

from .mxnet_internals import next_rates, operation

# From so many elements on an array takes an operator of its own: those for several arrays take twice as long for each
# element, and a call as long as some thousand elements.
LARGE = 8192

Arrays = Tuple[Any, ...]


class Updater(mx.optimizer.Updater):
    """mxnet's ``Updater``, which prepares the steps of ``mxnet.optimizer.SGD`` for arrays that it gets again.

    The weights and momenta are the same, bit for bit, as long as they are finite.

    Parameters
    ----------
    optimizer : Optimizer

    Examples
    --------
    >>> update = Updater(mx.optimizer.SGD(learning_rate=0.5))
    >>> weight, gradient = mx.nd.array([4.0]), mx.nd.array([2.0])
    >>> for _ in range(3):
    ...     update([0], [gradient], [weight])
    >>> weight.asscalar()
    1.0
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        # By the numbers of the weights.
        self._updates: Dict[Tuple[Any, ...], _Update] = {}

    def __call__(self, index: Any, grad: Any, weight: Any) -> None:
        """Update `weight`, an array or several of one device, by `grad`."""
        if (
            type(self.optimizer) is not mx.optimizer.SGD
            or not isinstance(index, (list, tuple))
            or any(isinstance(key, bytes) for key in index)
        ):
            super().__call__(index, grad, weight)
            return
        key = tuple(index)
        update = self._updates.get(key)
        if update is None or not update.is_for(self.optimizer, self._arrays(index, grad, weight)):
            # mxnet itself makes the states, or moves them to where they are needed.
            super().__call__(index, grad, weight)
            self._updates[key] = _Update(self.optimizer, self._arrays(index, grad, weight))
        elif not update.can_be_prepared:
            super().__call__(index, grad, weight)
        else:
            if not update.steps:
                update.prepare(key, self.optimizer.aggregate_num if self.aggregate_updates else 1)
            for step in update.steps:
                step()

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_updates": {}}

    def forget(self) -> None:
        """Let go of the arrays."""
        self._updates.clear()

    def _arrays(self, index: Any, grad: Any, weight: Any) -> Arrays:
        return (*weight, *grad, *map(self.states.get, index), *map(self.states_synced.get, index))


class _Update:
    """An update of certain arrays.

    Parameters
    ----------
    optimizer : SGD
    arrays : tuple
        The weights, their gradients, their states, and whether these are where they belong.
    """

    def __init__(self, optimizer: Any, arrays: Arrays) -> None:
        self._of = _identities(optimizer, arrays)
        count = len(arrays) // 4
        self._columns = [arrays[first : first + count] for first in (0, count, 2 * count)]
        weights, gradients, _ = self._columns
        self.can_be_prepared = (
            not optimizer.multi_precision
            and len({weight.dtype for weight in weights}) == 1
            and all(array.stype == "default" for array in weights + gradients)
        )
        self.steps: List[_Step] = []

    def is_for(self, optimizer: Any, arrays: Arrays) -> bool:
        """Whether these are the very ones, of an optimizer that still works in the same way."""
        of = _identities(optimizer, arrays)
        return len(of) == len(self._of) and all(map(operator.is_, of, self._of))

    def prepare(self, indices: Sequence[Any], at_once: int) -> None:
        """Prepare the steps, of `at_once` weights each, as mxnet does."""
        rows = [*zip(indices, *self._columns)]
        starts = range(0, len(rows), at_once)
        self.steps = [_Step(self._of[0], *zip(*rows[start : start + at_once])) for start in starts]


def _identities(optimizer: Any, arrays: Arrays) -> Tuple[Any, ...]:
    return (optimizer, optimizer.momentum > 0, optimizer.multi_precision, *arrays)


class _Step:
    """SGD's step for a few weights, at whatever rates it has come to."""

    def __init__(
        self, optimizer: Any, indices: Sequence[Any], weights: Sequence[Any], gradients: Sequence[Any],
        momenta: Sequence[Any],
    ) -> None:  # fmt: skip
        self._optimizer, self._indices, self._device = optimizer, indices, weights[0].context.device_id
        self._rows = [*zip(weights, gradients, momenta)]
        self._settings: Any = None
        self._operations: List[Callable[[], None]] = []

    def __call__(self) -> None:
        sgd = self._optimizer
        lrs, wds = next_rates(sgd, self._device, self._indices)
        settings = lrs, wds, sgd.rescale_grad, sgd.momentum, sgd.clip_gradient
        if settings != self._settings:
            self._operations, self._settings = self._prepare(*settings), settings
        for operate in self._operations:
            operate()

    def _prepare(
        self, lrs: Sequence[float], wds: Sequence[float], rescale_grad: float, momentum: float, clip_gradient: Any
    ) -> List[Callable[[], None]]:
        attributes = {"rescale_grad": rescale_grad}
        if momentum > 0:
            attributes["momentum"] = momentum
        if clip_gradient:
            attributes["clip_gradient"] = clip_gradient
        name = "sgd_mom_update" if momentum > 0 else "sgd_update"
        small, operations = [], []
        for row, lr, wd in zip(self._rows, lrs, wds):
            arrays = row if momentum > 0 else row[:2]
            if row[0].size < LARGE:
                small.append((arrays, lr, wd))
            elif (momentum > 0 or wd == 0) and _is_read_alike(lr) and _is_read_alike(wd):
                operations.append(operation(name, [*arrays], [row[0]], lr=lr, wd=wd, **attributes))
            else:
                # Here the operator for one array would give other bits than that for several, which SGD uses.
                operations.append(_several(name, [(arrays, lr, wd)], attributes))
        return operations + ([_several(name, small, attributes)] if small else [])


def _is_read_alike(number: float) -> bool:
    """Whether mxnet reads the same float32 from the text of a number by itself as from that of a list.

    By itself it is read by dmlc's parser, which rounds more than once: this does what that does for numbers below 1.

    >>> _is_read_alike(0.1), _is_read_alike(1.111), _is_read_alike(3.6e-05)
    (True, False, False)
    """
    if number == 0:
        return True
    whole, _, digits = str(number).partition(".")
    if whole != "0" or not digits.isdigit() or len(digits) > 19:
        return False
    return bool(np.float32(float(int(digits)) / float(10 ** len(digits))) == np.float32(number))


def _several(name: str, rows: Sequence[Any], attributes: Dict[str, float]) -> Callable[[], None]:
    arrays, lrs, wds = zip(*rows)
    weights = [each[0] for each in arrays]
    return operation(
        "multi_" + name, [array for each in arrays for array in each], weights,
        num_weights=len(weights), lrs=lrs, wds=wds, **attributes,
    )  # fmt: skip
