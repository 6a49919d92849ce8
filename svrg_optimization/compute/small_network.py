"""A network with only those rows of its parameters that a batch names: it costs what the batch has."""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from ..mxnet_api import internals, memory
from ..mxnet_api.named_rows import RowGroup, with_fewer_rows
from ..mxnet_api.prepared import copy_into, operation


class CSR(NamedTuple):
    """The numbers of csr data, their columns, and where rows start: NumPy arrays."""

    values: Any
    columns: Any
    starts: Any

    def rows(self, part: slice) -> "CSR":
        """Some of the rows, as views."""
        starts = self.starts[part.start : part.stop + 1]
        numbers = slice(starts[0], starts[-1])
        return CSR(self.values[numbers], self.columns[numbers], starts - starts[0])


def with_room(count: int) -> int:
    """At least so many, and at most a quarter more: batches of nearly as many rows take the same network.

    >>> [with_room(count) for count in (1, 17, 33, 3300)]
    [16, 20, 40, 3584]
    """
    step = max(4, (1 << max(count, 16).bit_length() - 1) // 4)
    return max(16, -(-count // step) * step)


class Arrays(NamedTuple):
    """Of one parameter: its rows in the network, and their gradient, as NDArrays; and NumPy's views of them."""

    weight: Any
    gradient: Any
    weight_view: Any
    gradient_view: Any


def set_rows(rows: Arrays, whole: Any, numbers: Any) -> None:
    """Set the first rows to those of these numbers of the whole, and the others to 0, when mxnet has read them."""
    rows.weight_view[: len(numbers)] = whole[numbers]
    rows.weight_view[len(numbers) :] = 0


class UpdatedRows:
    """Rows of parameters that an optimizer updates, with the rows of its states, which whoever updates them makes.

    `snapshot` has the same rows of the snapshot, where they aren't in a network.
    """

    def __init__(self, rows: Mapping[str, Arrays], snapshot: Optional[Mapping[str, Arrays]] = None) -> None:
        self.rows, self.snapshot = rows, snapshot or {}
        self.states: Dict[str, Any] = {}


def room_for_rows(like: Any, size: int) -> Arrays:
    """Arrays for so many rows of a parameter that is `like`."""
    shape = (size, *like.shape[1:])
    weight, gradient = (mx.nd.zeros(shape, like.context, like.dtype) for _ in range(2))
    return Arrays(weight, gradient, memory.view(weight), memory.view(gradient))


class _Pass:
    """One of the two networks, at the current weights or at the snapshot."""

    def __init__(
        self, symbol: Any, executor: Any, context: Any, inputs: Mapping[str, Any], groups: Sequence[RowGroup],
        sizes: Sequence[int],
    ) -> None:  # fmt: skip
        arguments, gradients = {**executor.arg_dict, **inputs}, dict(executor.grad_dict)
        self.rows: Dict[str, Arrays] = {}
        self._after: List[Any] = []
        for group, size in zip(groups, sizes):
            for name in group.parameters:
                whole, has_gradient = executor.arg_dict[name], executor.grad_dict.get(name) is not None
                shape = (size, *whole.shape[1:])
                weight = memory.complete(mx.nd.zeros(shape, context, whole.dtype, stype=whole.stype))
                arguments[name], dense = weight, None
                if has_gradient:
                    # mxnet computes it much faster than a dense one.
                    gradients[name] = mx.nd.zeros(shape, context, whole.dtype, stype="row_sparse")
                    dense = mx.nd.zeros(shape, context, whole.dtype)
                    self._after.append(operation("cast_storage", [gradients[name]], [dense], stype="default"))
                self.rows[name] = Arrays(
                    memory.alias(weight), dense, memory.view(weight), None if dense is None else memory.view(dense)
                )
        self.executor = internals.bound(symbol, context, arguments, gradients, executor.aux_dict)
        internals.keep_outputs_of(self.executor)
        self._results = [*self.executor.outputs, *(each for each in self.executor.grad_arrays if each is not None)]

    def set_rows(self, name: str, whole: Any, numbers: Any) -> None:
        """Set the first rows of a parameter to those of these numbers of the whole."""
        set_rows(self.rows[name], whole, numbers)

    def gradient(self, name: str) -> Any:
        """NumPy's view of a gradient, which is there."""
        rows = self.rows[name]
        memory.wait_to_read(rows.gradient)
        return rows.gradient_view

    def wait(self) -> None:
        """Wait until the passes have read all that they are given: until all is there that comes out of them."""
        for array in self._results:
            memory.wait_to_read(array)

    def backward(self, heads: Any) -> None:
        """The backward pass."""
        self.executor.backward(heads)
        for operate in self._after:
            operate()


class SmallNetwork:
    """Both networks of a device, for batches of one shape that name about as many rows.

    Parameters
    ----------
    symbol : Symbol
    executors : pair of Executor
        Those of the module and of its snapshot: all that has no such rows is theirs.
    context : Context
    groups : list of RowGroup
    sizes : list of int
        Of each group, the number of rows in the network.
    inputs : dict of str to (shape, type, number)
        By name; the number is that of a csr input's numbers at most, None for a dense input.
    """

    def __init__(
        self, symbol: Any, executors: Tuple[Any, Any], context: Any, groups: Sequence[RowGroup], sizes: Sequence[int],
        inputs: Mapping[str, Tuple[Tuple[int, ...], Any, Any]],
    ) -> None:  # fmt: skip
        self._csr: Dict[str, memory.ReusedCSR] = {}
        self._dense: Dict[str, Any] = {}
        self._views: Dict[str, Any] = {}
        columns = {name: size for group, size in zip(groups, sizes) for name in group.columns}
        for name, (shape, dtype, most) in inputs.items():
            if most is None:
                self._dense[name] = mx.nd.zeros(shape, context, dtype)
                self._views[name] = memory.view(self._dense[name])
            else:
                self._csr[name] = memory.ReusedCSR(shape[0], columns[name], most, dtype, context)
        self._copies = {name: copy_into(array) for name, array in self._dense.items()}
        arrays = {**self._dense, **{name: csr.array for name, csr in self._csr.items()}}
        smaller = with_fewer_rows(symbol, groups, sizes)
        self.live, self.snapshot = (_Pass(smaller, each, context, arrays, groups, sizes) for each in executors)
        self.updated = UpdatedRows(self.live.rows)

    def load(self, inputs: Mapping[str, Any]) -> None:
        """Set the inputs of a batch, whose rows have the network's numbers: CSR, or arrays of NumPy or mxnet."""
        for each in (self.live, self.snapshot):
            each.wait()
        for name, value in inputs.items():
            if name in self._csr:
                self._csr[name].fill(*value)
            elif isinstance(value, np.ndarray):
                self._views[name][:] = value
            else:
                self._copies[name](value)
