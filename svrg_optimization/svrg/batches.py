"""The batches of a full pass, reduced to their true rows: what the iterator padded does not count."""

from typing import Any, Callable, Iterator, List, NamedTuple, Sequence

import mxnet as mx
import numpy as np


class Rows(NamedTuple):
    """A batch of true rows only; looks like an ``mxnet.io.DataBatch``.

    `weight` is the factor of its gradient in the sum over the data.
    """

    data: List[Any]
    label: List[Any]
    weight: float = 1.0


def as_batch(item: Any, argument: str) -> Any:
    """What an iterable gave, as a batch or as a list of batches, one for each device.

    Takes pairs of data and label too, as a gluon ``DataLoader`` gives them. TypeError if it is neither; `argument` is
    where it came from.

    >>> as_batch([mx.nd.zeros((2, 3)), mx.nd.zeros(2)], "train_data").data[0].shape
    (2, 3)
    """
    if _is_batch(item) or (isinstance(item, list) and all(map(_is_batch, item))):
        return item
    parts = [item] if _is_arrays(item) and not isinstance(item, (list, tuple)) else item
    if isinstance(parts, (list, tuple)) and 1 <= len(parts) <= 2 and all(map(_is_arrays, parts)):
        data, label = (list(each) if isinstance(each, (list, tuple)) else [each] for each in (*parts, [])[:2])
        return Rows(data, label)
    raise TypeError(
        "{} gave {!r}; it must give batches with the attributes data and label, like mxnet.io.DataBatch, or pairs of "
        "arrays, (data, label)".format(argument, type(item).__name__)
    )


def _is_batch(item: Any) -> bool:
    # One that makes its arrays when they are asked for says by `csr` that they are there.
    return isinstance(getattr(item, "csr", None) or getattr(item, "data", None), (list, tuple))


def _is_arrays(item: Any) -> bool:
    if isinstance(item, (list, tuple)):
        return bool(item) and all(isinstance(each, mx.nd.NDArray) for each in item)
    return isinstance(item, mx.nd.NDArray)


def for_module(module: Any, batch: Any) -> Any:
    """A batch without the arrays that a bound module doesn't take: surplus data arrays, and labels if it has none."""
    if isinstance(batch, list):
        return [for_module(module, part) for part in batch]
    wanted = len(module.data_shapes)
    if len(getattr(batch, "csr", None) or batch.data) <= wanted and (module.label_shapes or not labels(batch)):
        return batch
    return Rows(list(batch.data[:wanted]), labels(batch) if module.label_shapes else [])


def labels(batch: Any) -> List[Any]:
    """The label arrays of a batch, which may lack them."""
    return list(getattr(batch, "label", None) or [])


def padding(batch: Any) -> int:
    """How many of the last rows of a batch the iterator filled in."""
    return getattr(batch, "pad", None) or 0


def row_count(arrays: Sequence[Any], axes: Sequence[int]) -> int:
    """The number of rows of the first array that has a batch axis."""
    return next(array.shape[axis] for array, axis in zip(arrays, axes) if axis >= 0)


def _take_rows(arrays: Sequence[Any], axes: Sequence[int], rows: Any) -> List[Any]:
    """The given rows, a slice or a list of numbers, of each array along its batch axis."""
    return [_take(array, axis, rows) for array, axis in zip(arrays, _for_each(arrays, axes))]


def _for_each(arrays: Sequence[Any], axes: Sequence[int]) -> List[int]:
    # Labels that the module isn't bound to, but a head gradient may want, lie along axis 0.
    return list(axes) + [0] * (len(arrays) - len(axes))


def _take(array: Any, axis: int, rows: Any) -> Any:
    if axis < 0:
        return array
    if isinstance(rows, slice):
        if array.stype != "default":
            return array[rows]
        return mx.nd.slice_axis(array, axis=axis, begin=rows.start, end=rows.stop)
    return mx.nd.take(array, mx.nd.array(rows, ctx=array.context), axis=axis)


def _joined(per_device: Sequence[Sequence[Any]], axes: Sequence[int]) -> List[Any]:
    """The arrays of several devices' batches, joined along the batch axis."""
    return [
        parts[0] if axis < 0 or len(parts) == 1 else mx.nd.concat(*parts, dim=axis)
        for parts, axis in zip(zip(*per_device), _for_each(per_device[0], axes))
    ]


def _fullest_row(data: Sequence[Any]) -> int:
    """The row with the most numbers in the first csr array; the first one without such an array.

    Of csr data without any number, mxnet's operators such as `square` leave their last result.
    """
    for array in data:
        if array.stype == "csr":
            return int(np.diff(array.indptr.asnumpy()).argmax())
    return 0


class TrueRows:
    """Reduces batches to their true rows.

    `data_axes` and `label_axes` are the batch axes of the arrays. `takes` tells whether the network can be given a
    batch of true rows only; `fill` is called before a batch that can't be taken so is filled up with copies of a row.
    """

    def __init__(
        self, data_axes: Sequence[int], label_axes: Sequence[int], takes: Callable[[Rows], bool],
        fill: Callable[[], None],
    ) -> None:  # fmt: skip
        self._data_axes, self._label_axes, self._takes, self._fill = data_axes, label_axes, takes, fill

    def count(self, batch: Any) -> int:
        """The number of true rows of a batch or list of batches; ValueError if there is more padding than rows."""
        return sum(map(self._count, batch if isinstance(batch, list) else [batch]))

    def _count(self, part: Any) -> int:
        rows, pad = row_count(getattr(part, "csr", None) or part.data, self._data_axes), padding(part)
        if not 0 <= pad <= rows:
            raise ValueError(
                "a batch of {} rows has pad={}: pad is the number of its last rows that don't count, from 0 to the "
                "number of rows".format(rows, pad)
            )
        return rows - pad

    def of(self, batch: Any) -> Iterator[Any]:
        """Batches whose gradients, times their weights, sum to the gradient over the true rows of `batch`."""
        parts = batch if isinstance(batch, list) else [batch]
        if not any(padding(part) for part in parts):
            yield batch
            return
        true = [self._without_padding(part) for part in parts if self._count(part)]
        if not true:
            return
        rows = Rows(
            _joined([part.data for part in true], self._data_axes),
            _joined([part.label for part in true], self._label_axes),
        )
        if self._takes(rows):
            yield rows
            return
        self._fill()
        yield from self._filled(rows, sum(padding(part) for part in parts))

    def _filled(self, rows: Rows, filling: int) -> Iterator[Rows]:
        # The batch is filled up with one of its rows, and the surplus is taken away: a batch of that row alone, times
        # (rows filled in) / (rows of a batch). The batch keeps its size, so this is right for a loss that averages, for
        # a network that takes one batch size only, and for more devices than rows; unless rows influence each other.
        present = row_count(rows.data, self._data_axes)
        size, row = present + filling, _fullest_row(rows.data)
        yield self._rows(rows, list(range(present)) + [row] * filling, 1.0)
        yield self._rows(rows, [row] * size, -filling / size)

    def _without_padding(self, part: Any) -> Rows:
        return self._rows(part, slice(0, self._count(part)), 1.0)

    def _rows(self, batch: Any, rows: Any, weight: float) -> Rows:
        return Rows(
            _take_rows(batch.data, self._data_axes, rows), _take_rows(labels(batch), self._label_axes, rows), weight
        )
