"""Batches of csr data that are slices of the memory where the data lie, for training and for full passes."""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from .svrg import settings
from .svrg.numbered_draws import generator

__all__ = ["CSRArrays", "CSRBatch", "CSRIter"]

# How many values are moved at once where rows are put into another order: what that needs besides stays small.
MOVED_AT_ONCE = 1 << 20
# MXNet's arrays have fewer elements.
MOST_ELEMENTS = 2**31 - 1
# The generators of orders: schedules draw by the smaller numbers, of the same seed perhaps.
ORDERS = 2**64


class CSRArrays(NamedTuple):
    """The rows of a matrix in compressed sparse row format, as arrays of NumPy.

    Row i has the values ``values[indptr[i]:indptr[i + 1]]``, in the columns ``columns[indptr[i]:indptr[i + 1]]``.

    Attributes
    ----------
    values : ndarray
        Of float32 or float64.
    columns : ndarray
        Of int32 or int64; rising within each row.
    indptr : ndarray
        Of int64; where rows begin and end. The first one begins at 0.
    shape : tuple of int
        The numbers of rows and of columns.
    """

    values: Any
    columns: Any
    indptr: Any
    shape: Tuple[int, int]


class CSRBatch(mx.io.DataBatch):
    """A batch of `CSRIter`, whose MXNet array is made when it is asked for.

    Parameters
    ----------
    csr : CSRArrays
        The rows.
    label : list of NDArray
        The labels of the rows.
    pad : int
        How many of the last rows don't count.
    index : ndarray
        The numbers of the rows in the data.

    Attributes
    ----------
    csr : list of CSRArrays or None
        The rows, without a copy. None if others have been put into `data`.
    """

    def __init__(self, csr: CSRArrays, label: List[Any], pad: int, index: Any) -> None:
        self._data: Any = None
        super().__init__(None, label, pad, index)
        self.csr: Optional[List[CSRArrays]] = [csr]

    @property
    def data(self) -> Any:
        """The rows in a list of one ``CSRNDArray``, a copy; it is made once.

        A list that is put here takes the place of the rows, and of `csr`.

        Returns
        -------
        list of CSRNDArray
            The array.
        """
        if self._data is None and self.csr is not None:
            self._data = [_as_ndarray(csr) for csr in self.csr]
        return self._data

    @data.setter
    def data(self, arrays: Any) -> None:
        self._data, self.csr = arrays, None

    @property
    def shapes(self) -> List[Tuple[int, ...]]:
        """The shapes of the arrays of `data`, which aren't made for it.

        Returns
        -------
        list of tuple of int
            The shapes.
        """
        return [array.shape for array in (self._data if self.csr is None else self.csr) or ()]


class _Rows(NamedTuple):
    """Rows in some order: their numbers, labels as NumPy's arrays, and as those that batches have slices of."""

    csr: CSRArrays
    index: Any
    labels: List[Any]
    sliced_labels: List[Any]


class CSRIter(mx.io.DataIter):
    """Gives batches of csr data that are slices of the data's own memory.

    A batch costs a few microseconds, whatever the size of the data; an epoch in a new order one copy of them. The data
    may have more than :math:`2^{31}` values, and rows times columns may be more. In full passes of an `SVRGModule` each
    row counts once, and the iterator stays where it is, so that snapshots in the middle of an epoch are possible.

    Parameters
    ----------
    data : csr_matrix, csr_array, CSRNDArray or similar
        Anything with the attributes `data`, `indices`, `indptr` and `shape` in csr format. Values of float32 and
        float64 stay what they are, others become float32. Nothing is copied if that fits and the columns of each row
        rise; else they are sorted once, and values of the same column added up, since MXNet computes wrong results
        without an error otherwise. The arrays aren't changed, and mustn't be while they are read here.
    label : array or dict of str to array, optional
        A row for each row of the data, in an array of NumPy or MXNet of any number of axes; with a dict, several
        labels by name. float64 stays what it is, other types become float32.
    batch_size : int, default 1
        The number of rows of a batch.
    shuffle : bool, default False
        Whether each epoch has an order of its own.
    seed : int, default 0
        Of the orders: the one of an epoch depends on `seed` and the epoch's number only.
    last_batch_handle : {'pad', 'discard', 'ragged'}
        What becomes of a last batch of fewer rows: it is filled up with the first rows of the epoch, and says so by
        `pad`; it is left out; it stays as it is. Lazy and reweighted steps take a csr batch of another size;
        MXNet's Module, `score`, `predict` and dense steps don't.
    data_name : str, default 'data'
        The name of the data.
    label_name : str, default 'softmax_label'
        The name of the label, if it isn't a dict.

    Attributes
    ----------
    num_data : int
        The number of rows.
    num_values : int
        The number of values that are stored.
    cursor : int
        The first row of the batch that was given last, as in ``NDArrayIter``.

    Raises
    ------
    TypeError
        `data` isn't in csr format, or `batch_size` or `seed` is no integer.
    ValueError
        The arrays of `data` aren't those of a csr matrix, `label` has another number of rows, an epoch would have no
        batch, or an argument is out of range.

    Examples
    --------
    >>> x = mx.nd.array([[0, 2, 0], [0, 0, 0], [4, 0, 5]]).tostype('csr')
    >>> train = CSRIter(x, label=[1, 2, 3], batch_size=2)
    >>> [(batch.data[0].asnumpy().tolist(), batch.pad) for batch in train]
    [([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], 0), ([[4.0, 0.0, 5.0], [0.0, 2.0, 0.0]], 1)]
    >>> train.reset()
    >>> next(train).csr[0].columns.tolist()
    [1]
    """

    def __init__(
        self, data: Any, label: Any = None, batch_size: int = 1, shuffle: bool = False, seed: int = 0,
        last_batch_handle: str = "pad", data_name: str = "data", label_name: str = "softmax_label",
    ) -> None:  # fmt: skip
        super().__init__(settings.integer("batch_size", batch_size, 1))
        if last_batch_handle not in ("pad", "discard", "ragged"):
            raise ValueError("last_batch_handle={!r} must be 'pad', 'discard' or 'ragged'".format(last_batch_handle))
        self.shuffle, self.seed, self.last_batch_handle = (
            bool(shuffle),
            settings.integer("seed", seed, 0),
            last_batch_handle,
        )
        csr = _csr_of(data)
        self.num_data, self.num_values = csr.shape[0], len(csr.values)
        if last_batch_handle == "discard" and self.num_data < self.batch_size:
            raise ValueError(
                "last_batch_handle='discard' leaves no batch: batch_size={} and data has {} rows; take a smaller "
                "batch_size, or 'pad'".format(self.batch_size, self.num_data)
            )
        labels = _labels_of(label, label_name, self.num_data)
        self._data_name, self._label_names = data_name, list(labels)
        # As they were given; and in the order of this epoch, None as long as nobody has asked for it.
        self._given = _rows(csr, np.arange(self.num_data), list(labels.values()))
        self._ordered: Optional[_Rows] = None
        self.epoch = 0

    @property
    def provide_data(self) -> List[mx.io.DataDesc]:
        """The name, shape and type of the data of a batch.

        Returns
        -------
        list of DataDesc
            Of the one array.
        """
        values, columns = self._given.csr.values, self._given.csr.shape[1]
        return [mx.io.DataDesc(self._data_name, (self.batch_size, columns), values.dtype.type, "NC")]

    @property
    def provide_label(self) -> List[mx.io.DataDesc]:
        """The names, shapes and types of the labels of a batch.

        Returns
        -------
        list of DataDesc
            One for each label.
        """
        return [
            mx.io.DataDesc(name, (self.batch_size,) + label.shape[1:], label.dtype.type)
            for name, label in zip(self._label_names, self._given.labels)
        ]

    def __len__(self) -> int:
        discarded = self.last_batch_handle == "discard"
        return self.num_data // self.batch_size if discarded else -(-self.num_data // self.batch_size)

    @property
    def epoch(self) -> int:
        """The number of the epoch, which says its order; each reset adds 1.

        To go on after a checkpoint, set it to the number of the epoch that comes. That goes to the epoch's start.

        Returns
        -------
        int
            The number; the first one is 0.
        """
        return self._epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch = settings.integer("epoch", number, 0)
        self.cursor = -self.batch_size
        self._ordered = None if self.shuffle else self._given

    def reset(self) -> None:
        """Go to the start of the next epoch, from anywhere."""
        self.epoch += 1

    def hard_reset(self) -> None:
        """Do what `reset` does: nothing is kept for the next epoch."""
        self.reset()

    def next(self) -> CSRBatch:
        """Give the next batch.

        Returns
        -------
        CSRBatch
            Slices of the data, but for a batch that is filled up. What is written into its labels stays there.

        Raises
        ------
        StopIteration
            The epoch has ended; so it has until the next reset.
        """
        start = self.cursor + self.batch_size
        rest = self.num_data - start
        if rest <= 0 or (rest < self.batch_size and self.last_batch_handle == "discard"):
            self.cursor = self.num_data
            raise StopIteration
        self.cursor = start
        return self._batch(self._in_order(), start, self.last_batch_handle == "ragged")

    def batches_of_all(
        self, rows: Optional[Sequence[int]] = None, batch_size: Optional[int] = None
    ) -> Iterator[CSRBatch]:  # fmt: skip
        """Give all rows once, in the order of this epoch, and leave the iterator where it is.

        Parameters
        ----------
        rows : sequence of int, optional
            Give these rows only, as copies: their numbers in the data.
        batch_size : int, optional
            Of other batches than those of the epochs; then the last one has fewer rows. Not together with `rows`.

        Returns
        -------
        iterator of CSRBatch
            The last one is filled up, and says so by `pad`, whatever becomes of it in the epochs.
        """
        if rows is None:
            # These, though the iterator may go on to another epoch meanwhile.
            ordered = self._in_order()
            for start in range(0, self.num_data, batch_size or self.batch_size):
                yield self._batch(ordered, start) if batch_size is None else self._slice(ordered, start, batch_size)
        else:
            numbers = np.asarray(rows)
            for start in range(0, len(numbers), self.batch_size):
                yield self._filled_up(self._given, numbers, start)

    def _in_order(self) -> _Rows:
        if self._ordered is None:
            order = generator(self.seed, ORDERS + self._epoch).permutation(self.num_data)
            csr, _, labels, _ = self._given
            self._ordered = _rows(_taken(csr, order), order, [label[order] for label in labels])
        return self._ordered

    def _batch(self, rows: _Rows, start: int, ragged: bool = False) -> CSRBatch:
        if start + self.batch_size > self.num_data and not ragged:
            return self._filled_up(rows, np.arange(self.num_data), start)
        return self._slice(rows, start, self.batch_size)

    def _slice(self, rows: _Rows, start: int, batch_size: int) -> CSRBatch:
        stop = min(start + batch_size, self.num_data)
        labels = [_as_label(label[start:stop]) for label in rows.sliced_labels]
        return CSRBatch(_sliced(rows.csr, start, stop), labels, 0, rows.index[start:stop])

    def _filled_up(self, rows: _Rows, places: Any, start: int) -> CSRBatch:
        """Copies of the rows at these places, from one of them on; after the last one the first one comes again."""
        chosen = places[np.arange(start, start + self.batch_size) % len(places)]
        labels = [_as_label(label[chosen]) for label in rows.labels]
        pad = max(start + self.batch_size - len(places), 0)
        return CSRBatch(_taken(rows.csr, chosen), labels, pad, rows.index[chosen])


def _rows(csr: CSRArrays, index: Any, labels: List[Any]) -> _Rows:
    for array in (*csr[:3], index):
        # Batches have slices of them.
        array.flags.writeable = False
    return _Rows(csr, index, labels, [_as_label(label) if label.size < MOST_ELEMENTS else label for label in labels])


def _as_label(label: Any) -> Any:
    """As an NDArray, which is a copy of an array of NumPy."""
    return label if isinstance(label, mx.nd.NDArray) else mx.nd.array(label, mx.cpu(), label.dtype)


def _as_ndarray(csr: CSRArrays) -> Any:
    # mxnet copies what it gets; from its own arrays, in a fraction of the time.
    parts = [_in_place(each) for each in (csr.values, csr.columns.astype(np.int64), csr.indptr)]
    return mx.nd.sparse.csr_matrix(tuple(parts), csr.shape, mx.cpu(), csr.values.dtype)


def _in_place(array: Any) -> Any:
    """An NDArray in the memory of an array of NumPy, which isn't empty."""
    return mx.nd.from_numpy(array, zero_copy=True) if array.size else mx.nd.array(array, dtype=array.dtype)


def _sliced(csr: CSRArrays, start: int, stop: int) -> CSRArrays:
    indptr = csr.indptr[start : stop + 1]
    begin, end = indptr[0], indptr[-1]
    return CSRArrays(csr.values[begin:end], csr.columns[begin:end], indptr - begin, (stop - start, csr.shape[1]))


def _taken(csr: CSRArrays, numbers: Any) -> CSRArrays:
    """Copies of the rows of these numbers."""
    begin = csr.indptr[numbers]
    lengths = csr.indptr[numbers + 1] - begin
    indptr = _ends(lengths)
    values, columns = (np.empty(indptr[-1], array.dtype) for array in (csr.values, csr.columns))
    # Where rows begin whose values are moved together.
    parts = [*np.unique(np.searchsorted(indptr, np.arange(0, indptr[-1], MOVED_AT_ONCE))), len(numbers)]
    for first, last in zip(parts, parts[1:]):
        to = slice(indptr[first], indptr[last])
        places = np.repeat((begin - indptr[:-1])[first:last], lengths[first:last]) + np.arange(to.start, to.stop)
        values[to], columns[to] = csr.values[places], csr.columns[places]
    return CSRArrays(values, columns, indptr, (len(numbers), csr.shape[1]))


def _ends(lengths: Any) -> Any:
    """Where rows of these lengths end, after the 0 where the first one begins."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


# ----------------------------------------------------------------------------------------------------- what is given


def _csr_of(data: Any) -> CSRArrays:
    """The arrays of a csr matrix, copied only where they have to be changed."""
    parts: List[Any] = [getattr(data, name, None) for name in ("data", "indices", "indptr", "shape")]
    if any(part is None for part in parts) or getattr(data, "format", "csr") != "csr":
        raise TypeError(
            "data is a {}, and must be a csr matrix of scipy.sparse or MXNet; convert it, by "
            "scipy.sparse.csr_matrix(data) or mx.nd.array(data).tostype('csr')".format(type(data).__name__)
        )
    values, columns, indptr, shape = *map(_as_numpy, parts[:3]), tuple(map(int, parts[3]))
    reason = _what_is_wrong(values, columns, indptr, shape)
    if reason:
        raise ValueError("data of shape {} is no csr matrix: {}; make it anew".format(shape, reason))
    indptr = indptr.astype(np.int64)
    # Views, too, so that the caller's arrays stay writeable.
    values, columns = values[: indptr[-1]], columns[: indptr[-1]]
    values = np.ascontiguousarray(values, _type_of(values))
    columns = np.ascontiguousarray(columns, columns.dtype if columns.dtype in (np.int32, np.int64) else np.int64)
    if not _columns_rise(columns, indptr):
        values, columns, indptr = _sorted(values, columns, indptr)
    return CSRArrays(values, columns, indptr, (shape[0], shape[1]))


def _what_is_wrong(values: Any, columns: Any, indptr: Any, shape: Tuple[int, ...]) -> str:
    if len(shape) != 2 or min(shape) < 1:
        return "it needs rows and columns"
    if indptr.shape != (shape[0] + 1,) or values.ndim != 1 or columns.ndim != 1:
        return "indptr has the shape {}, data {} and indices {}".format(indptr.shape, values.shape, columns.shape)
    if indptr[0] != 0 or (indptr[1:] < indptr[:-1]).any() or indptr[-1] > min(len(values), len(columns)):
        return "indptr must rise from 0 to the number of values at most"
    used = columns[: indptr[-1]]
    if used.size and not 0 <= used.min() <= used.max() < shape[1]:
        return "indices are {} to {}".format(used.min(), used.max())
    return ""


def _columns_rise(columns: Any, indptr: Any) -> bool:
    rise = columns[1:] > columns[:-1]
    begins = indptr[1:-1]
    # From one row to the next they needn't.
    rise[begins[(begins > 0) & (begins < len(columns))] - 1] = True
    return bool(rise.all())


def _sorted(values: Any, columns: Any, indptr: Any) -> Tuple[Any, Any, Any]:
    """With columns that rise in each row; values of the same column are added up."""
    row_of = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    order = np.lexsort((columns, row_of))
    values, columns = values[order], columns[order]
    is_new = np.append(True, (columns[1:] != columns[:-1]) | (row_of[1:] != row_of[:-1]))
    new = np.flatnonzero(is_new)
    lengths = np.bincount(row_of[new], minlength=len(indptr) - 1)
    return np.add.reduceat(values, new), columns[new], _ends(lengths)


def _labels_of(label: Any, name: str, rows: int) -> Dict[str, Any]:
    labels = label if isinstance(label, dict) else {} if label is None else {name: label}
    arrays = {}
    for each, array in labels.items():
        array = _as_numpy(array)
        if array.ndim == 0 or len(array) != rows:
            raise ValueError(
                "label {!r} has the shape {}, and data has {} rows; give a label for each row".format(
                    each, array.shape, rows
                )
            )
        arrays[each] = np.ascontiguousarray(array, _type_of(array))
    return arrays


def _as_numpy(array: Any) -> Any:
    return array.asnumpy() if isinstance(array, mx.nd.NDArray) else np.asarray(array)


def _type_of(array: Any) -> Any:
    return np.float64 if array.dtype.kind == "f" and array.dtype.itemsize == 8 else np.float32
