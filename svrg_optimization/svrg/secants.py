r"""How fast a batch's gradient changes between the snapshot and the current weights.

.. math:: \frac{\lVert y \rVert}{\lVert d \rVert}, \qquad y = \nabla_B(w) - \nabla_B(\tilde w), \quad d = w - \tilde w

Both gradients are there in every step of SVRG.
"""

from typing import Any, Callable, Dict, List, Sequence, Tuple

import mxnet as mx

from ..mxnet_api.memory import as_dense
from ..mxnet_api.prepared import operation
from .estimator import Gradients

# Of the parameters of one type, their names and an array with two squares for each.
Squares = List[Tuple[List[str], Any]]


class Secants:
    """Measures :math:`|y|^2` and :math:`|d|^2` of each parameter.

    On several devices the gradients are added up first, as the optimizer's is.

    >>> here, there = [mx.nd.array([3.0, 1.0])], [mx.nd.array([1.0, 1.0])]
    >>> weights = {'w': (mx.nd.array([0.5, 0.5]), mx.nd.array([0.0, 0.5]))}
    >>> read = Secants().measure([Gradients('w', here, there)], ['w'], lambda: weights)
    >>> read()
    {'w': (4.0, 0.25)}
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Let go of the arrays."""
        self._known: Tuple[Any, Any] = (None, None)
        self._operations: List[Callable[[], None]] = []
        self._squares: Squares = []

    def measure(
        self, gradients: Sequence[Gradients], names: Sequence[str],
        weights: Callable[[], Dict[str, Tuple[Any, Any]]],
    ) -> Callable[[], Dict[str, Tuple[float, float]]]:  # fmt: skip
        """Begin to measure the parameters of these names; what is returned waits for the result.

        `weights` gives the current ones and those of the snapshot. It is asked when `gradients` is another list, as it
        is when arrays are others.
        """
        if self._known[0] is not gradients or self._known[1] != names:
            measured = [_dense(_added_up(each)) for each in gradients if each.name in names]
            pairs = weights()
            of_weights = {name: (as_dense(here), as_dense(there)) for name, (here, there) in pairs.items()}
            self._operations, self._squares = _prepare(measured, of_weights)
            # Of sums, and of dense copies, the next step has others.
            originals = [array for each in gradients for array in (*each.live[:1], *pairs.get(each.name, ()))]
            several = any(len(each.live) > 1 for each in gradients)
            are_copies = several or any(array.stype != "default" for array in originals)
            self._known = (None if are_copies else gradients), list(names)
        for operate in self._operations:
            operate()
        squares = self._squares
        return lambda: _read(squares)


def _added_up(each: Gradients) -> Gradients:
    if len(each.live) == 1:
        return each
    first = each.live[0].context
    sums = [sum(array.as_in_context(first) for array in of_devices) for of_devices in (each.live, each.snapshot)]
    return Gradients(each.name, [sums[0]], [sums[1]])


def _dense(each: Gradients) -> Gradients:
    return Gradients(each.name, [as_dense(each.live[0])], [as_dense(each.snapshot[0])])


def _prepare(
    measured: List[Gradients], weights: Dict[str, Tuple[Any, Any]]
) -> Tuple[List[Callable[[], None]], Squares]:
    """The operations, and for each type the names and the array of squares: two for each parameter of this type."""
    by_type: Dict[str, List[Gradients]] = {}
    for each in measured:
        by_type.setdefault(each.live[0].dtype.__name__, []).append(each)
    operations: List[Callable[[], None]] = []
    found: Squares = []
    for dtype, of_type in by_type.items():
        context = of_type[0].live[0].context
        # One array takes all differences in turn.
        most = max(array.size for each in of_type for array in (each.live[0], weights[each.name][0]))
        space = mx.nd.empty(most, ctx=context, dtype=dtype)
        squares = mx.nd.empty(2 * len(of_type), ctx=context, dtype=dtype)
        found.append(([each.name for each in of_type], squares))
        for k, each in enumerate(of_type):
            pairs = ((each.live[0], each.snapshot[0]), weights[each.name])
            for slot, (here, there) in enumerate(pairs, 2 * k):
                flat = space[: here.size]
                operations.append(operation("broadcast_sub", [here, there], [flat.reshape(here.shape)]))
                operations.append(operation("dot", [flat, flat], [squares[slot : slot + 1]]))
    return operations, found


def _read(found: Squares) -> Dict[str, Tuple[float, float]]:
    values: Dict[str, Tuple[float, float]] = {}
    for names, squares in found:
        numbers = iter(squares.asnumpy().tolist())
        values.update((name, (next(numbers), next(numbers))) for name in names)
    return values
