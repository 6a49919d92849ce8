"""NumPy's view of the memory of mxnet's arrays on a CPU. Written against mxnet 1.9.1.

Who reads through a view has waited until mxnet has written (`wait_to_read`), and who writes until it has read, too
(`wait_to_write`). That takes much longer: mxnet's engine has to wake a thread. `view` does so when it is called.
"""

import ctypes
from typing import Any, Tuple

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, check_call


def view(array: Any) -> Any:
    """A NumPy array in the memory of an NDArray, dense, or `row_sparse` with all rows stored; see `complete`.

    >>> array = mx.nd.zeros((2, 1))
    >>> view(array)[1] = 3
    >>> array.asnumpy().tolist()
    [[0.0], [3.0]]
    """
    return _at(address(array), array.shape, array.dtype)


def complete(array: Any) -> Any:
    """The array itself; if it is `row_sparse`, all its rows are stored from now on, those of zeros too.

    >>> array = complete(mx.nd.sparse.zeros('row_sparse', (2, 1)))
    >>> view(array)[1] = 3
    >>> array.asnumpy().tolist()
    [[0.0], [3.0]]
    """
    if array.stype == "row_sparse":
        with_all_rows(array.tostype("default")).copyto(array)
    return array


def with_all_rows(dense: Any) -> Any:
    """A dense array as a `row_sparse` one that stores all rows, those of zeros too.

    >>> with_all_rows(mx.nd.zeros((2, 1))).indices.asnumpy().tolist()
    [0, 1]
    """
    numbers = mx.nd.arange(dense.shape[0], ctx=dense.context, dtype="int64")
    return mx.nd.sparse.row_sparse_array((dense, numbers), shape=dense.shape, ctx=dense.context)


def as_dense(array: Any) -> Any:
    """An array, dense or `row_sparse`, as a dense one: itself, or a copy."""
    return array if array.stype == "default" else array.tostype("default")


def alias(array: Any) -> Any:
    """A dense NDArray in the memory of another one whose rows are all stored: the same numbers, for dense operators."""
    if array.stype == "default":
        return array
    # mxnet lets nobody write through the view that it gets; so that is one of its own.
    wait_to_write(array)
    return mx.nd.from_numpy(_kept(array, array.shape), zero_copy=True)


def wait_to_read(array: Any) -> None:
    """Wait until mxnet has written an array."""
    check_call(_LIB.MXNDArrayWaitToRead(array.handle))


def wait_to_write(array: Any) -> None:
    """Wait until mxnet neither writes nor reads an array."""
    check_call(_LIB.MXNDArrayWaitToWrite(array.handle))


def address(array: Any) -> int:
    """Where the numbers of an array lie; waits until mxnet neither writes nor reads them."""
    wait_to_write(array)
    return _pointer(array)


def _pointer(array: Any) -> int:
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def _at(place: int, shape: Tuple[int, ...], dtype: Any) -> Any:
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory: Any = (ctypes.c_char * size).from_address(place)
    return np.frombuffer(memory, dtype=dtype).reshape(shape)


class ReusedCSR:
    """A csr array that is filled again and again, with at most so many numbers.

    >>> csr = ReusedCSR(1, 3, 4, np.float32, mx.cpu())
    >>> csr.fill(np.array([2.0]), np.array([1]), np.array([0, 1]))
    >>> csr.array.asnumpy().tolist()
    [[0.0, 2.0, 0.0]]
    """

    def __init__(self, length: int, columns: int, most: int, dtype: Any, context: Any) -> None:
        values = mx.nd.zeros(most, ctx=context, dtype=dtype)
        # mxnet gives no view of columns and row starts; it copies them from dense arrays.
        self._starts, self._columns = (mx.nd.zeros(size, ctx=context, dtype=np.int64) for size in (length + 1, most))
        parts = values, self._columns, self._starts
        self.array = mx.nd.sparse.csr_matrix(parts, shape=(length, columns), ctx=context, dtype=dtype)
        self._values_view = _at(address(self.array), (most,), self.array.dtype)
        self._columns_view, self._starts_view = view(self._columns), view(self._starts)

    def fill(self, values: Any, columns: Any, starts: Any) -> None:
        """Set the numbers, their columns, and where rows start. What is left of the memory is column 0, zeros.

        Whoever calls this has waited until mxnet has read what was there.
        """
        count = len(values)
        self._values_view[:count], self._columns_view[:count] = values, columns
        self._values_view[count:], self._columns_view[count:] = 0, 0
        self._copy(self._columns, 1)
        if not np.array_equal(self._starts_view, starts):
            self._starts_view[:] = starts
            self._copy(self._starts, 0)

    def _copy(self, source: Any, which: int) -> None:
        check_call(_LIB.MXNDArraySyncCopyFromNDArray(self.array.handle, source.handle, ctypes.c_int(which)))


def parts_of_csr(array: Any) -> Tuple[Any, Any, Any]:
    """The numbers of a CSRNDArray, a view that keeps it; and copies of their columns, and of where rows start."""
    wait_to_read(array)
    columns, starts = (_view_of_copy(copy) for copy in (array.indices, array.indptr))
    stored = int(starts[-1])
    return _kept(array, (stored,)), columns[:stored], starts


def _view_of_copy(array: Any) -> Any:
    return _kept(array, array.shape)


def _kept(array: Any, shape: Tuple[int, ...]) -> Any:
    """A view of an array that perhaps nobody else has; the view keeps the array."""
    found = _at(_pointer(array), shape, array.dtype).view(_KeptView)
    found.kept = array
    return found


class _KeptView(np.ndarray):  # type: ignore[type-arg]
    kept: Any = None
