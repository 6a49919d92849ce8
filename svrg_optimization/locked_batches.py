"""Batches that stay the same from one snapshot to the next, of an iterator that draws at random."""

import copy
import itertools
from typing import Any, Iterator, List, Optional

import mxnet as mx

__all__ = ["LockedBatches"]

# The attributes of a batch that are lists of arrays.
_ARRAYS = ("data", "label")


class LockedBatches(mx.io.DataIter):
    r"""Gives the same batches in every epoch of a period, though the iterator inside draws at random.

    .. math:: \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_{i, \xi_i}(\tilde w), \qquad
              g = \nabla_{B, \xi}(w) - \bigl(\nabla_{B, \xi}(\tilde w) - b\,\mu\bigr)

    :math:`\xi_i` is all that is drawn for sample i: its crop, its noise, the batch that it comes in. Locked, the steps
    of a period have the draws of its full pass, so that the mean of the control variate over an epoch is zero. With
    draws of their own, they are off by a difference that is the same in all of the period's steps.

    A period ends when `SVRGModule.update_full_grads` gets these batches, as it does in `fit`: it calls `redraw`, and
    the full pass reads the iterator inside anew. What the network draws itself, as Dropout does, isn't locked.

    Parameters
    ----------
    data : DataIter
        What draws: augments, adds noise, shuffles. At its start, or used up. What it leaves out or pads is left out or
        padded here. From now on it is to be read through this object only, which has its attributes, ``provide_data``
        and so on. A ``PrefetchingIter`` goes inside, since `fit` must get this object itself.

    Raises
    ------
    TypeError
        `data` is no DataIter.

    Notes
    -----
    The batches of an epoch are kept, as copies, in the memory where the iterator puts them. Each reading gets copies of
    its own. A checkpoint has no batches: training that goes on in the middle of a period does so with new draws.

    References
    ----------
    A. Defazio and L. Bottou, "On the ineffectiveness of variance reduced optimization for deep learning", NeurIPS
    2019.

    Examples
    --------
    >>> shuffled = mx.io.NDArrayIter(mx.nd.arange(100), batch_size=50, shuffle=True)
    >>> batches = LockedBatches(shuffled)
    >>> def first_rows():
    ...     batches.reset()
    ...     return next(batches).data[0].asnumpy().tolist()
    >>> of_period = first_rows()
    >>> first_rows() == of_period
    True
    >>> batches.redraw()
    >>> first_rows() == of_period
    False
    """

    def __init__(self, data: mx.io.DataIter) -> None:
        if not isinstance(data, mx.io.DataIter):
            raise TypeError(
                "data={!r} must be a DataIter, to be locked; for a DataLoader or a list, derive a class from "
                "mx.io.DataIter that gives its batches".format(data)
            )
        super().__init__(getattr(data, "batch_size", 0))
        self._data = data
        self._begin_period()

    def _begin_period(self) -> None:
        # What has been read in this period; what is still to come, None after the end; which batch is the next one.
        self._batches: List[Any] = []
        self._unread: Optional[Iterator[Any]] = iter(self._data)
        self._position = 0

    def redraw(self) -> None:
        """End the period: the next reading is of new draws. `SVRGModule.update_full_grads` calls this.

        In a loop of your own without snapshots, as in a warm start, call it before each epoch, since the draws stay the
        same otherwise; `fit` does. It does nothing if no batch of the period has been read.
        """
        if self._unread is not None:
            if not self._batches:
                return
            # Many iterators lose their place when they are reset before their end.
            for _ in self._unread:
                pass
        self._data.reset()
        self._begin_period()

    def reset(self) -> None:
        """Go to the start of the locked batches, from anywhere; the draws stay the same."""
        self._position = 0

    def hard_reset(self) -> None:
        """Do what `reset` does: nothing is kept for the next epoch."""
        self.reset()

    def next(self) -> Any:
        """Give the next batch.

        Returns
        -------
        DataBatch
            A copy, which may be changed.

        Raises
        ------
        StopIteration
            The epoch has ended.
        """
        if self._position == len(self._batches):
            self._batches.append(self._read())
        self._position += 1
        return _copied(self._batches[self._position - 1])

    def _read(self) -> Any:
        """Read the next batch of the period's first epoch."""
        if self._unread is None:
            raise StopIteration
        batch = next(self._unread, None)
        if batch is None and not self._batches:
            # The iterator was used up.
            self._data.reset()
            self._unread = iter(self._data)
            batch = next(self._unread, None)
        if batch is None:
            # Not asked again: after their end, some iterators begin anew.
            self._unread = None
            raise StopIteration
        kept = _copied(batch)
        for part in kept if isinstance(kept, list) else [kept]:
            for array in itertools.chain.from_iterable(getattr(part, name, None) or [] for name in _ARRAYS):
                # The iterator may write the next batch over this one, and mxnet copies later.
                array.wait_to_read()
        return kept

    def __getattr__(self, name: str) -> Any:
        # Special methods, such as __len__, are looked for in ways that this can't answer.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._data, name)


def _copied(batch: Any) -> Any:
    """A batch, or a list of them, one for each device, with arrays of its own."""
    if isinstance(batch, list):
        return [_copied(part) for part in batch]
    arrays = {name: [array.copy() for array in getattr(batch, name)] for name in _ARRAYS if getattr(batch, name, None)}
    if isinstance(batch, tuple):
        # A namedtuple.
        return batch._replace(**arrays)  # type: ignore[attr-defined]
    copied = copy.copy(batch)
    for name, value in {**arrays, "index": copy.copy(getattr(batch, "index", None))}.items():
        setattr(copied, name, value)
    return copied
