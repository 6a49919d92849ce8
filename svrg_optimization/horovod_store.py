"""Workers without servers: Horovod's allreduce, as a KVStore. Needs ``svrg_optimization[horovod]``."""

from typing import Any

import mxnet as mx


class HorovodStore(mx.kvstore.KVStoreBase):
    """A store that adds up gradients over all workers of a Horovod job, each of which runs the optimizer.

    It is a `kvstore` for `SVRGModule.fit` and `SVRGModule.init_optimizer`. Making it begins Horovod, unless that has
    begun.

    Raises
    ------
    ImportError
        There is no Horovod that was built with mxnet.
    """

    # Module looks for "dist" and "_sync", to divide by the rows of all workers.
    type = "dist_sync_horovod"

    def __init__(self) -> None:
        try:
            import horovod.mxnet as hvd
        except ImportError as error:
            raise ImportError(
                "HorovodStore needs Horovod, built for mxnet ({}): see docs/cluster.md".format(error)
            ) from None
        self._hvd = hvd
        hvd.init()

    @property
    def rank(self) -> int:
        """The number of this worker, from 0."""
        return int(self._hvd.rank())

    @property
    def num_workers(self) -> int:
        """How many workers there are."""
        return int(self._hvd.size())

    @staticmethod
    def is_capable(capability: str) -> bool:
        """Nothing but adding up: the workers run the optimizer."""
        return False

    def init(self, key: Any, value: Any) -> None:
        """Nothing: no value is stored."""

    def broadcast(self, key: str, value: Any, out: Any, priority: int = 0) -> None:
        """Copy the first worker's `value` to `out`, on all workers."""
        value = self._hvd.broadcast(value, 0, name=key, priority=priority)
        for array in out if isinstance(out, list) else [out]:
            value.copyto(array)

    def pushpull(self, key: str, value: Any, out: Any = None, priority: int = 0) -> None:
        """Write the sum of `value` over devices and workers to `out`; without it, to `value`."""
        values, outs = (each if isinstance(each, list) else [each] for each in (value, value if out is None else out))
        total = values[0]
        for other in values[1:]:
            total = total + other.as_in_context(total.context)
        total = self._hvd.allreduce(total, op=self._hvd.Sum, name=key, priority=priority)
        for array in outs:
            total.copyto(array)

    def push(self, key: str, value: Any, priority: int = 0) -> None:
        """Raise ValueError: mxnet pushes what is `row_sparse`."""
        raise ValueError("{}: Horovod adds up dense gradients only; use kvstore='dist_sync'".format(key))
