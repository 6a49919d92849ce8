"""The rows that the workers of a job touch in a step, and the sums of their gradients: on dense keys of the KVStore.

mxnet's own `row_sparse` keys won't do: a pull gives a worker only rows that it names, and no worker knows those of the
others. So each worker has all weights, and is told what the others' batches touch.
"""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import mxnet as mx
import numpy as np

from ..keys import OURS
from ..mxnet_api import memory

# A row's number is told as two, which float32 has exactly.
_HALF = 1 << 12
# A worker tells at first so many numbers, and then as many as there have been.
_FIRST_ROOM = 1 << 10


class Touched(NamedTuple):
    """The rows of one group that a step of all workers touches.

    `batch_rows` is the number of rows of all batches; `of_each`, for each row that is touched, that of the batches
    which touch it.
    """

    rows: Any
    of_each: Any
    batch_rows: int


class SharedRows:
    """Tells the workers of a job what each of them touches. All workers call the same methods in the same order.

    Parameters
    ----------
    store : KVStore
        Distributed.
    rank, number : int
        Of this worker, and of workers.
    """

    def __init__(self, store: Any, rank: int, number: int) -> None:
        self._store, self._rank, self._number = store, rank, number
        self._keys: Dict[Tuple[Any, ...], Tuple[str, Any]] = {}
        self._room = _FIRST_ROOM

    def touched(self, rows: Sequence[Any], batch_rows: int) -> List[Touched]:
        """What all workers together touch of each group, in rising order.

        `rows` are those of each group that this worker's batch of so many rows touches.
        """
        told = self._tell([[batch_rows], *rows])
        of_each = [int(of_worker[0][0]) for of_worker in told]
        found = []
        for group in range(1, 1 + len(rows)):
            everybody = np.concatenate([of_worker[group] for of_worker in told])
            counts = np.repeat(of_each, [len(of_worker[group]) for of_worker in told])
            union, places = np.unique(everybody, return_inverse=True)
            found.append(Touched(union, np.bincount(places, counts, len(union)), sum(of_each)))
        return found

    def _tell(self, lists: Sequence[Any]) -> List[List[Any]]:
        """The lists of numbers, below 2^36, of each worker."""
        lengths = [len(each) for each in lists]
        numbers = np.concatenate([lengths, *lists]).astype(np.int64)
        while True:
            key, array = self._key("told", (self._number, 2, 1 + self._room), np.float32)
            whole = np.zeros(array.shape, np.float32)
            sent = numbers[: self._room]
            whole[self._rank, 0, 0] = len(numbers)
            whole[self._rank, :, 1 : 1 + len(sent)] = sent // _HALF, sent % _HALF
            gathered = self._sum(key, array, whole)
            most = int(gathered[:, 0, 0].max())
            if most <= self._room:
                break
            # All workers see that, and tell again.
            self._room = 1 << int(most - 1).bit_length()
        found = []
        for of_worker in gathered:
            told = of_worker[:, 1:].astype(np.int64) * [[_HALF], [1]]
            flat = told.sum(0)[: int(of_worker[0, 0])]
            ends = len(lengths) + np.cumsum(flat[: len(lengths)])
            found.append(np.split(flat[len(lengths) : ends[-1]], ends[:-1] - len(lengths)))
        return found

    def add(self, name: str, gradient: Any) -> Any:
        """The sum of an array over the workers, all of one shape and type."""
        return self._sum(*self._key(name, gradient.shape, gradient.dtype), gradient)

    def _key(self, name: str, shape: Tuple[int, ...], dtype: Any) -> Tuple[str, Any]:
        known = (name, shape, np.dtype(dtype).name)
        if known not in self._keys:
            key, array = OURS + "rows:" + ":".join(map(str, known)), mx.nd.zeros(shape, dtype=dtype)
            self._store.init(key, array)
            self._keys[known] = key, array
        return self._keys[known]

    def _sum(self, key: str, array: Any, values: Any) -> Any:
        memory.view(array)[:] = values
        self._store.pushpull(key, array, out=array)
        # The next sum's numbers are written there.
        return array.asnumpy()
