"""mxnet's Updater, less what it does anew in each update of the same arrays."""

import operator
from typing import Any, Dict, List, NamedTuple, Tuple

import mxnet as mx


class _Known(NamedTuple):
    """An update that may be repeated: for which optimizer, states and arrays, on which device, by which calls."""

    optimizer: Any
    states: Dict[Any, Any]
    arrays: Tuple[Any, ...]
    device: int
    calls: List[Tuple[Any, ...]]


class Updater(mx.optimizer.Updater):
    """Hands the optimizer arrays that it gets again as mxnet's Updater does, without looking at each of them.

    >>> update = Updater(mx.optimizer.SGD(learning_rate=0.5))
    >>> weight, gradient = mx.nd.array([4.0]), mx.nd.array([2.0])
    >>> for _ in range(3):
    ...     update((0,), (gradient,), (weight,))
    >>> weight.asscalar()
    1.0
    """

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self._known: Dict[Tuple[Any, ...], _Known] = {}

    def __call__(self, index: Any, grad: Any, weight: Any) -> None:
        """Update `weight`, an array or several of one device, by `grad`."""
        known = self._known.get(index) if type(index) is tuple else None
        if known is not None and known.optimizer is self.optimizer and known.states is self.states:
            given = (*weight, *grad, *map(self.states.get, index))
            if len(given) == len(known.arrays) and all(map(operator.is_, given, known.arrays)):
                self.optimizer._set_current_context(known.device)
                for call in known.calls:
                    self.optimizer.update_multi_precision(*call)
                return
        super().__call__(index, grad, weight)
        # mxnet hands over weights of one type at a time, as many as the optimizer takes.
        if type(index) is tuple and self.aggregate_updates and len({each.dtype for each in weight}) == 1:
            states = tuple(map(self.states.get, index))
            most = self.optimizer.aggregate_num
            starts = range(0, len(index), most)
            calls = [tuple(each[k : k + most] for each in (index, weight, grad, states)) for k in starts]
            device = weight[0].context.device_id
            self._known[index] = _Known(self.optimizer, self.states, (*weight, *grad, *states), device, calls)

    def forget(self) -> None:
        """Let go of the arrays."""
        self._known.clear()
