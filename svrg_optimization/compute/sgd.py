"""The update by mxnet's SGD: the same operators and the same bits, with their calls made once."""

import operator
from typing import Any, Callable, Dict, List, Sequence, Tuple

import mxnet as mx
import numpy as np

from ..mxnet_api import internals
from ..mxnet_api.prepared import operation

# From so many elements on an array takes an operator of its own: those for several arrays take twice as long for each
# element, and a call as long as some thousand elements.
LARGE = 8192


class PreparedSGD:
    """What ``mxnet.optimizer.SGD`` does to arrays that it gets again. Everything else is left to the optimizer.

    The weights and momenta are the same, bit for bit, as long as they are finite.

    >>> sgd, update = mx.optimizer.SGD(learning_rate=0.5), PreparedSGD()
    >>> weight, gradient = mx.nd.array([4.0]), mx.nd.array([2.0])
    >>> for _ in range(3):
    ...     update(sgd, [0], [weight], [gradient], [None])
    >>> weight.asscalar()
    1.0
    """

    def __init__(self) -> None:
        self._steps: Dict[Tuple[Any, ...], _Step] = {}

    def __call__(self, optimizer: Any, indices: Any, *arrays: Any) -> None:
        """``optimizer.update_multi_precision(indices, weights, gradients, states)``."""
        if type(optimizer) is mx.optimizer.SGD and isinstance(indices, (list, tuple)):
            step = self._steps.get(tuple(indices))
            if step is not None and step.is_for(optimizer, *arrays):
                step()
                return
            self._steps[tuple(indices)] = _Step(optimizer, indices, *arrays)
        optimizer.update_multi_precision(indices, *arrays)

    def forget(self) -> None:
        """Let go of the arrays."""
        self._steps.clear()


class _Step:
    """SGD's update of certain arrays, at whatever rates it has come to."""

    def __init__(self, sgd: Any, indices: Any, weights: Any, gradients: Any, states: Any) -> None:
        self._sgd, self._indices, self._momentum = sgd, indices, sgd.momentum > 0
        self._arrays, self._rows = (*weights, *gradients, *states), [*zip(weights, gradients, states)]
        dense = all(array.stype == "default" for array in (*weights, *gradients))
        self._is_known = dense and all((state is not None) == self._momentum for state in states)
        self._settings: Any = None
        self._operations: List[Callable[[], None]] = []

    def is_for(self, sgd: Any, *arrays: Sequence[Any]) -> bool:
        """Whether these are the very arrays, of an optimizer that works in the same way."""
        given = tuple(array for each in arrays for array in each)
        alike = sgd is self._sgd and (sgd.momentum > 0) == self._momentum and not sgd.multi_precision
        same = len(given) == len(self._arrays) and all(map(operator.is_, given, self._arrays))
        return self._is_known and alike and same

    def __call__(self) -> None:
        sgd = self._sgd
        settings = *internals.next_rates(sgd, self._indices), sgd.rescale_grad, sgd.momentum, sgd.clip_gradient
        if settings != self._settings:
            self._operations, self._settings = self._prepare(*settings), settings
        for operate in self._operations:
            operate()

    def _prepare(self, lrs: Any, wds: Any, rescale: float, momentum: float, clip: Any) -> List[Callable[[], None]]:
        common = {"rescale_grad": rescale, **({"momentum": momentum} if self._momentum else {})}
        common.update({"clip_gradient": clip} if clip else {})
        name, count = ("sgd_mom_update", 3) if self._momentum else ("sgd_update", 2)
        alone, together = [], []
        for row, lr, wd in zip(self._rows, lrs, wds):
            # Without momentum, the operator for one array adds weight decay in another order.
            if row[0].size >= LARGE and (self._momentum or wd == 0) and _is_exact(lr) and _is_exact(wd):
                alone.append(operation(name, [*row[:count]], [row[0]], lr=_text(lr), wd=_text(wd), **common))
            else:
                together.append((row[:count], lr, wd))
        if together:
            rows, lrs, wds = zip(*together)
            arrays, weights = [array for row in rows for array in row], [row[0] for row in rows]
            several = operation("multi_" + name, arrays, weights, num_weights=len(rows), lrs=lrs, wds=wds, **common)
        return alone + ([several] if together else [])


def _text(number: float) -> str:
    """A number as mxnet reads it without rounding: its parser rounds most texts of numbers that aren't float32."""
    return "{:.19f}".format(float(np.float32(number)))


def _is_exact(number: float) -> bool:
    """Whether `_text` has digits enough: not for the smallest numbers, nor for very large ones."""
    return number == 0 or 1e-10 < abs(number) < 1e6
