"""The update of the weights by mxnet's SGD: by the same operators, less what mxnet does anew in each step."""

import operator
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import mxnet as mx

from .mxnet_internals import next_rates, operation

# From so many elements on an array takes an operator of its own: those for several arrays take twice as long for each
# element, and a call as long as some thousand elements.
LARGE = 8192

Arrays = Tuple[Any, ...]


class Updater(mx.optimizer.Updater):
    """mxnet's ``Updater``, which prepares the steps of ``mxnet.optimizer.SGD`` for arrays that it gets again.

    The weights and momenta are the same, bit for bit.

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
        if type(self.optimizer) is not mx.optimizer.SGD or not isinstance(index, (list, tuple)):
            super().__call__(index, grad, weight)
            return
        key = tuple(index)
        update = self._updates.get(key)
        if update is None or not update.is_for(self.optimizer, self._arrays(index, grad, weight)):
            # mxnet itself makes the states, or moves them to where they are needed.
            super().__call__(index, grad, weight)
            self._updates[key] = _Update(self.optimizer, self._arrays(index, grad, weight))
            return
        if update.steps is None:
            update.prepare(key, self.optimizer.aggregate_num if self.aggregate_updates else 1)
        if not update.steps:
            super().__call__(index, grad, weight)
        for step in update.steps or ():
            step()

    def forget(self) -> None:
        """Let go of the arrays."""
        self._updates.clear()

    def _arrays(self, index: Any, grad: Any, weight: Any) -> Arrays:
        return (*weight, *grad, *map(self.states.get, index))


class _Update:
    """An update of certain arrays.

    Parameters
    ----------
    optimizer : SGD
    arrays : tuple
        The weights, their gradients and their states.
    """

    def __init__(self, optimizer: Any, arrays: Arrays) -> None:
        self._optimizer, self._arrays = optimizer, arrays
        # None before they are prepared; empty if they can't be.
        self.steps: Optional[List[_Step]] = None

    def is_for(self, optimizer: Any, arrays: Arrays) -> bool:
        """Whether these are the very ones."""
        return optimizer is self._optimizer and len(arrays) == len(self._arrays) and all(
            map(operator.is_, arrays, self._arrays)
        )  # fmt: skip

    def prepare(self, indices: Sequence[Any], at_once: int) -> None:
        """Prepare the steps, of `at_once` weights each, as mxnet does."""
        count = len(indices)
        rows = [*zip(indices, *(self._arrays[first : first + count] for first in (0, count, 2 * count)))]
        plain = not self._optimizer.multi_precision and len({weight.dtype for _, weight, *_ in rows}) == 1
        if plain and all(array.stype == "default" for array in self._arrays[: 2 * count]):
            starts = range(0, count, at_once)
            self.steps = [_Step(self._optimizer, *zip(*rows[start : start + at_once])) for start in starts]
        else:
            self.steps = []


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
            elif momentum > 0 or wd == 0:
                operations.append(operation(name, [*arrays], [row[0]], lr=lr, wd=wd, **attributes))
            else:
                # Here the operator for one array rounds otherwise than that for several, which SGD uses.
                operations.append(_several(name, [(arrays, lr, wd)], attributes))
        return operations + ([_several(name, small, attributes)] if small else [])


def _several(name: str, rows: Sequence[Any], attributes: Dict[str, float]) -> Callable[[], None]:
    arrays, lrs, wds = zip(*rows)
    weights = [each[0] for each in arrays]
    return operation(
        "multi_" + name, [array for each in arrays for array in each], weights,
        num_weights=len(weights), lrs=lrs, wds=wds, **attributes,
    )  # fmt: skip
