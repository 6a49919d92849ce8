"""Each sample once: how full passes read their data, and how `fit` reads its own.

An iterator that is reset before its end may lose its place, and so may whatever wraps it: mxnet's readers give some
rows twice then. What an iterator is made of can't be seen from outside. So every iterator is read to its end before it
is reset, but for an ``NDArrayIter`` or a `CSRIter`, whose arrays can be read without the iterator.
"""

import contextlib
import itertools
import weakref
from typing import Any, Callable, Iterable, Iterator, List, Optional, Sequence, Tuple

import mxnet as mx

from ..csr_iter import CSRIter
from ..locked_batches import LockedBatches

# How much of a part of the rows is copied at once, in bytes.
COPIED_AT_ONCE = 1 << 23

# ------------------------------------------------------------------------------------------- the arrays of an iterator


def is_itself(instance: Any, cls: type) -> bool:
    """Whether an object does just what its class does: it isn't of a derived class, and has no methods of its own."""
    return type(instance) is cls and vars(instance).keys().isdisjoint(dir(cls))


def can_view(data: Any) -> bool:
    """Whether `regrouped` and `views` take it: an NDArrayIter itself, of dense arrays with the rows along axis 0."""
    return is_itself(data, mx.io.NDArrayIter) and data.layout.startswith("N") and _is_dense(data)


def can_stay(data: Any) -> bool:
    """Whether a full pass leaves an iterator where it is, in the middle of an epoch, too."""
    return can_view(data) or is_itself(data, CSRIter)


def _is_dense(data: mx.io.NDArrayIter) -> bool:
    return all(getattr(array, "stype", None) == "default" for _, array in [*data.data, *data.label])


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


def regrouped(
    data: mx.io.NDArrayIter, count: Optional[int] = None, rows: Optional[Sequence[int]] = None
) -> Iterator[mx.io.DataBatch]:
    """The samples of an NDArrayIter, each once, wherever the iterator is; only those of `rows`, if these are given.

    As views, in so many batches, the first ones perhaps of a row more; without `count` in batches of the iterator's
    size, the last one padded if need be. Of `rows` copies, in batches that aren't larger.
    """
    samples = data.num_data if rows is None else len(rows)
    if count is None:
        whole_batches, rest = divmod(samples, data.batch_size)
        sizes = [data.batch_size] * whole_batches
    else:
        count = count if rows is None else _count_of_copies(data, count, samples)
        of_each, longer = divmod(samples, count)
        sizes, rest = [of_each + 1] * longer + [of_each] * (count - longer), 0
    start = 0
    for size in sizes:
        yield _view(data, start, size) if rows is None else _copied(data, rows[start : start + size])
        start += size
    if rest:
        padded = [row % samples for row in range(start, start + data.batch_size)]
        yield _copied(data, padded if rows is None else [rows[row] for row in padded], pad=data.batch_size - rest)


def _view(data: mx.io.NDArrayIter, start: int, rows: int) -> mx.io.DataBatch:
    sources = data.data, data.label
    return mx.io.DataBatch(*([array[start : start + rows] for _, array in pairs] for pairs in sources), pad=0)


def _copied(data: mx.io.NDArrayIter, numbers: Sequence[int], pad: int = 0) -> mx.io.DataBatch:
    rows, sources = mx.nd.array(numbers, dtype="int64"), (data.data, data.label)
    taken = [[mx.nd.take(array, rows.as_in_context(array.context)) for _, array in pairs] for pairs in sources]
    for array in itertools.chain(*taken):
        # MXNet would copy all batches before it computes with the first one: new memory takes longer than the copies.
        array.wait_to_read()
    return mx.io.DataBatch(*taken, pad=pad)


def _count_of_copies(data: mx.io.NDArrayIter, count: int, samples: int) -> int:
    """In how many batches to copy a part of the samples, of which all would be taken in `count` views."""
    of_row = sum(array[:1].size * array.dtype().itemsize for _, array in [*data.data, *data.label])
    return min(samples, max(-(-count * samples // data.num_data), -(-of_row * samples // COPIED_AT_ONCE)))


# ------------------------------------------------------------------------------------------------- reading an iterator


@contextlib.contextmanager
def whole(
    data: Any, at_start: bool = False, in_place: bool = False, count: Optional[int] = None,
    rows: Optional[Sequence[int]] = None,
) -> Iterator[Iterable[Any]]:  # fmt: skip
    """All batches, once; an iterator is left at its start.

    An iterator over arrays that discards the rows of its last batch, or keeps them for the next epoch, gives them too.

    Parameters
    ----------
    data : DataIter or other iterable
    at_start : bool
        Whether the iterator is known to be at its start; one that can stay then does, unless it is used up.
    in_place : bool
        Whether the iterator must stay where it is.
    count : int, optional
        For `regrouped`.
    rows : sequence of int, optional
        Those to be read, if not all; of an iterator that can stay only.

    Raises
    ------
    ValueError
        The iterator can't stay where it is.
    """
    if can_stay(data):
        try:
            if isinstance(data, CSRIter):
                yield data.batches_of_all(rows, None if count is None else -(-data.num_data // count))
            else:
                yield regrouped(data, count, rows)
        finally:
            if not in_place:
                _leave_at_start(data, unless_begun=at_start)
        return
    if in_place:
        raise ValueError(
            "train_data={!r} can't be read from start to end in the middle of an epoch, as an NDArrayIter of dense "
            "arrays or a CSRIter can; give another iterator over the same samples (to fit(), as snapshot_data)".format(
                data
            )
        )
    with _padding_last_batches(data):
        if not at_start or _starts_anew(data):
            restart(data, at_end=False)
        reading = _Reading(data)
        try:
            yield reading
        except BaseException:
            # What is raised on the way to the end counts less than what has been raised.
            with contextlib.suppress(Exception):
                restart(data, reading.at_end)
            raise
        restart(data, reading.at_end)


class _Reading:
    """Iterates over data once, and knows whether it has come to the end."""

    def __init__(self, data: Any) -> None:
        self._data, self.at_end = data, False

    def __iter__(self) -> Iterator[Any]:
        empty = True
        for batch in self._data:
            empty = False
            yield batch
        if empty:
            # It was used up.
            restart(self._data, at_end=True)
            yield from self._data
        self.at_end = True


@contextlib.contextmanager
def _padding_last_batches(data: Any) -> Iterator[None]:
    handling = getattr(data, "last_batch_handle", "pad")
    known = isinstance(data, (mx.image.ImageIter, CSRIter)) or (isinstance(data, mx.io.NDArrayIter) and _is_dense(data))
    if handling == "pad" or not known:
        yield
        return
    data.last_batch_handle = "pad"
    try:
        yield
    finally:
        data.last_batch_handle = handling


def restart(data: Any, at_end: bool) -> None:
    """Go to the start of an iterator; of any other iterable, do nothing.

    Parameters
    ----------
    data : DataIter or other iterable
    at_end : bool
        Whether it is known to have been read to its end.
    """
    if _starts_anew(data):
        # Forgets rows that were kept for the next epoch, too.
        data.hard_reset()
    elif hasattr(data, "reset"):
        if not at_end:
            for _ in data:
                pass
        data.reset()


def _starts_anew(data: Any) -> bool:
    """Whether hard_reset is known to go to the start from anywhere: in others it may be missing inside a wrapper."""
    known = (mx.io.NDArrayIter, mx.image.ImageIter, LockedBatches, CSRIter)
    return any(isinstance(data, kind) and type(data).reset is kind.reset for kind in known)


def _leave_at_start(data: Any, unless_begun: bool) -> None:
    """Go to the start of one that can stay, if it isn't there; with `unless_begun`, only if it is at its end."""
    next_start = data.cursor + data.batch_size
    if next_start >= data.num_data or (next_start > 0 and not unless_begun):
        data.reset()


def count_batches(data: Any) -> int:
    """How many batches an iterator that is at its start gives in an epoch; leaves it there."""
    if hasattr(data, "__len__"):
        return len(data)
    if _starts_anew(data):
        restart(data, at_end=False)
    reading = _Reading(data)
    count = sum(1 for _ in reading)
    restart(data, reading.at_end)
    return count


class Epochs:
    """A data iterator for ``BaseModule.fit`` that calls a function at the start of each epoch; else the iterator.

    Parameters
    ----------
    data : DataIter
    begin : callable
        Called when an epoch begins; returns how many batches to train on, None for all.
    batches : callable
        Begins to iterate over `data`.
    end : callable
        Called when the last batch of an epoch has been used.
    between : callable, optional
        Called between two steps.
    """

    def __init__(
        self, data: Any, begin: Callable[[], Optional[int]], batches: Callable[[Any], Iterator[Any]],
        end: Callable[[], None] = lambda: None, between: Optional[Callable[[], None]] = None,
    ) -> None:  # fmt: skip
        self._data, self._begin, self._batches, self._end, self._between = data, begin, batches, end, between
        # Whether an epoch is under way; it ends when the iterator is reset.
        self._at_end, self._under_way = False, False

    def __iter__(self) -> Iterator[Any]:
        return self._read(self._begin())

    def _read(self, count: Optional[int]) -> Iterator[Any]:
        self._at_end, self._under_way = False, True
        batches = self._batches(self._data)
        batches = batches if count is None else exactly(batches, count)
        yield from batches if self._between is None else _with_calls_between(batches, self._between)
        self._at_end = count is None
        self._end()

    def need(self, data: Any) -> bool:
        """Whether an iterator must stay where it is: an epoch over it is under way."""
        if data is not self._data or not self._under_way:
            return False
        if can_stay(data) or not self._at_end:
            return True
        # It has been read to its end: a pass may go through it, and leaves it at its start.
        self._at_end = False
        return False

    def reset(self) -> None:
        """Go to the start; BaseModule.fit calls it at the end of each epoch."""
        self._under_way = False
        if _starts_anew(self._data):
            # Rows that were kept for the next epoch stay kept.
            self._data.reset()
        else:
            restart(self._data, self._at_end)

    def end(self) -> None:
        """Go to the start, if an epoch has been left in the middle."""
        if self._under_way:
            self.reset()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


def _with_calls_between(batches: Iterable[Any], call: Callable[[], None]) -> Iterator[Any]:
    """The batches; BaseModule.fit asks for the next one when it has taken a step."""
    for number, batch in enumerate(batches):
        if number:
            call()
        yield batch


def exactly(batches: Iterable[Any], count: int) -> Iterator[Any]:
    """The first `count` batches.

    Raises
    ------
    RuntimeError
        There are fewer. The other workers of the job would wait for ever.
    """
    given = 0
    for batch in batches:
        if given == count:
            return
        given += 1
        yield batch
    if given < count:
        raise RuntimeError(
            "train_data gave {} batches, and {} when they were counted; the other workers go on. Give every epoch the "
            "same number of batches".format(given, count)
        )


# ---------------------------------------------------------------------------------------------------- the same data


class Identity:
    """Which data a snapshot was of, as far as can be told without reading them; keeps nothing alive.

    Two iterators are taken for different data, whatever they hold. What was changed in place can't be seen.

    Parameters
    ----------
    data : DataIter or other iterable
    """

    def __init__(self, data: Any) -> None:
        try:
            self._data: Any = weakref.ref(data)
        except TypeError:
            # A list, of batches mostly.
            self._data = lambda number=id(data): number
        self._arrays = _arrays_of(data)

    def __call__(self, data: Any) -> bool:
        """Whether these are the same data."""
        known = self._data()
        return (known is data or known == id(data)) and self._arrays == _arrays_of(data)


def known_samples(data: Any) -> Optional[int]:
    """The number of samples of an NDArrayIter or CSRIter; of other data, None."""
    return int(data.num_data) if isinstance(data, (mx.io.NDArrayIter, CSRIter)) else None


def left_out(data: Any) -> Tuple[int, int]:
    """How many sentences a BucketSentenceIter has, and how many of them a pass leaves out; 0 and 0 of other data."""
    if not isinstance(data, mx.rnn.BucketSentenceIter):
        return 0, 0
    of_buckets = [len(bucket) for bucket in data.data]
    return sum(of_buckets), sum(count % data.batch_size for count in of_buckets)


def _arrays_of(data: Any) -> List[int]:
    if isinstance(data, (list, tuple)):
        return [id(batch) for batch in data]
    # One that shuffles has new arrays after each reset.
    if not isinstance(data, mx.io.NDArrayIter) or data.shuffle:
        return []
    return [id(array) for _, array in [*data.data, *data.label]]
