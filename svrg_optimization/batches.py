"""The batches of a data iterator, reduced to their true rows: what the iterator padded does not count."""

import contextlib
from typing import Any, Iterator, List, NamedTuple, Sequence

import mxnet as mx


class Rows(NamedTuple):
    """A batch of true rows only; looks like an ``mxnet.io.DataBatch``.

    `weight` is the factor of its gradient in the sum over the data.
    """

    data: List[Any]
    label: List[Any]
    weight: float


def batch_axes(descriptions: Sequence[Any]) -> List[int]:
    """The batch axis of each array, from the layouts that a module is bound to; -1 where there is none."""
    return [mx.io.DataDesc.get_batch_axis(description.layout) for description in descriptions or ()]


def take_rows(arrays: Sequence[Any], axes: Sequence[int], rows: Any) -> List[Any]:
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


def padding(batch: Any) -> int:
    """How many of the last rows of a batch the iterator filled in."""
    return getattr(batch, "pad", None) or 0


def row_count(arrays: Sequence[Any], axes: Sequence[int]) -> int:
    """The number of rows of the first array that has a batch axis."""
    return next(array.shape[axis] for array, axis in zip(arrays, axes) if axis >= 0)


class TrueRows:
    """Reduces batches to their true rows.

    Parameters
    ----------
    data_axes, label_axes : list of int
        Batch axis of each data and label array, from `batch_axes`.
    shrink : callable
        Tells whether the network should be given a batch of these true rows only.
    """

    def __init__(self, data_axes: Sequence[int], label_axes: Sequence[int], shrink: Any) -> None:
        self._data_axes = data_axes
        self._label_axes = label_axes
        self._shrink = shrink

    def count(self, batch: Any) -> int:
        """The number of true rows of a batch, or of a list of batches, one for each device."""
        parts = batch if isinstance(batch, list) else [batch]
        return sum(row_count(part.data, self._data_axes) - padding(part) for part in parts)

    def of(self, batch: Any) -> Iterator[Any]:
        """Batches whose gradients, times their weights, sum to the gradient over the true rows of `batch`."""
        parts = batch if isinstance(batch, list) else [batch]
        if not any(padding(part) for part in parts):
            yield batch
            return
        true = [self._without_padding(part) for part in parts]
        true = [part for part in true if row_count(part.data, self._data_axes)]
        if not true:
            return
        rows = Rows(
            _joined([part.data for part in true], self._data_axes),
            _joined([part.label for part in true], self._label_axes),
            1.0,
        )
        if self._shrink(rows):
            yield rows
            return
        # Fill the batch up with its first row, and take the surplus away: a batch of that row alone, times (rows
        # filled in) / (rows of a batch). The batch keeps its size, so this is right for a loss that averages by
        # itself too, for a network that takes one batch size only, and for more devices than rows.
        present = self.count(batch)
        size = present + sum(padding(part) for part in parts)
        filling = size - present
        yield self._rows(rows, list(range(present)) + [0] * filling, 1.0)
        yield self._rows(rows, [0] * size, -filling / size)

    def _without_padding(self, part: Any) -> Rows:
        true = slice(0, row_count(part.data, self._data_axes) - padding(part))
        return Rows(
            take_rows(part.data, self._data_axes, true), take_rows(part.label or [], self._label_axes, true), 1.0
        )

    def _rows(self, batch: Rows, rows: List[int], weight: float) -> Rows:
        return Rows(
            take_rows(batch.data, self._data_axes, rows), take_rows(batch.label, self._label_axes, rows), weight
        )


def is_itself(instance: Any, cls: type) -> bool:
    """Whether an object does just what its class does: it isn't of a derived class, and has no methods of its own."""
    return type(instance) is cls and vars(instance).keys().isdisjoint(dir(cls))


def can_view(data: Any) -> bool:
    """Whether `regrouped` and `views` take it: an NDArrayIter itself, of dense arrays with the rows along axis 0."""
    return is_itself(data, mx.io.NDArrayIter) and data.layout.startswith("N") and _is_dense(data)


def views(data: mx.io.NDArrayIter) -> Iterator[mx.io.DataBatch]:
    """The batches of an NDArrayIter from where it is, as it would give them, but views where it would copy rows."""
    while True:
        start = data.cursor + data.batch_size
        if 0 <= start <= data.num_data - data.batch_size:
            data.cursor = start
            yield _view(data, start, data.batch_size)
        else:
            # Rows that were kept from the last epoch, or padding, or the end.
            try:
                batch = next(data)
            except StopIteration:
                return
            yield batch


def regrouped(data: mx.io.NDArrayIter, count: int) -> Iterator[mx.io.DataBatch]:
    """The samples of an NDArrayIter, each once, in so many batches, the first ones perhaps of a row more; as views."""
    rows, longer = divmod(data.num_data, count)
    start = 0
    for size in [rows + 1] * longer + [rows] * (count - longer):
        yield _view(data, start, size)
        start += size


def _view(data: mx.io.NDArrayIter, start: int, rows: int) -> mx.io.DataBatch:
    sources = data.data, data.label
    return mx.io.DataBatch(*([array[start : start + rows] for _, array in pairs] for pairs in sources), pad=0)


@contextlib.contextmanager
def whole_data(data: Any) -> Iterator[None]:
    """Let an iterator go through all of its data once, from the start; leave it at the start.

    An NDArrayIter that discards the rows of its last batch, or keeps them for the next epoch, pads them meanwhile.
    """
    pads = isinstance(data, mx.io.NDArrayIter) and data.last_batch_handle != "pad" and _is_dense(data)
    if pads:
        handling = data.last_batch_handle
        data.last_batch_handle = "pad"
    _restart(data)
    try:
        yield
    finally:
        if pads:
            data.last_batch_handle = handling
        _restart(data)


def _is_dense(data: mx.io.NDArrayIter) -> bool:
    return all(getattr(array, "stype", None) == "default" for _, array in [*data.data, *data.label])


def _restart(data: Any) -> None:
    if isinstance(data, mx.io.MXDataIter):
        # mxnet's own readers lose their place if they are reset before they have been read to the end.
        for _ in data:
            pass
    for method in ("hard_reset", "reset"):
        if hasattr(data, method):
            getattr(data, method)()
            return
