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
        """Say that this store does nothing but add up: the workers run the optimizer.

        Parameters
        ----------
        capability : str
            What mxnet asks for: ``'optimizer'``.

        Returns
        -------
        bool
            False.
        """
        return False

    def init(self, key: Any, value: Any) -> None:
        """Do nothing: no value is stored.

        Parameters
        ----------
        key : str or int
            Of the value.
        value : NDArray
            What a store with servers would keep.
        """

    def broadcast(self, key: str, value: Any, out: Any, priority: int = 0) -> None:
        """Copy the first worker's `value` to `out`, on all workers.

        Parameters
        ----------
        key : str
            The name under which Horovod knows the value.
        value : NDArray
            What the first worker has; of the others, anything of the same shape.
        out : NDArray or list of NDArray
            Where to write it, on each device.
        priority : int, default 0
            Values of a higher one are sent first.
        """
        value = self._hvd.broadcast(value, 0, name=key, priority=priority)
        for array in out if isinstance(out, list) else [out]:
            value.copyto(array)

    def pushpull(self, key: str, value: Any, out: Any = None, priority: int = 0) -> None:
        """Write the sum of `value` over devices and workers to `out`; without it, to `value`.

        Parameters
        ----------
        key : str
            The name under which Horovod knows the value.
        value : NDArray or list of NDArray
            What each device has.
        out : NDArray or list of NDArray, optional
            Where to write the sum, on each device. By default `value`.
        priority : int, default 0
            Values of a higher one are sent first.
        """
        values, outs = (each if isinstance(each, list) else [each] for each in (value, value if out is None else out))
        total = values[0]
        for other in values[1:]:
            total = total + other.as_in_context(total.context)
        total = self._hvd.allreduce(total, op=self._hvd.Sum, name=key, priority=priority)
        for array in outs:
            total.copyto(array)

    def push(self, key: str, value: Any, priority: int = 0) -> None:
        """Raise ValueError: mxnet pushes what is `row_sparse`.

        Parameters
        ----------
        key : str
            Of the value.
        value : NDArray
            Not used.
        priority : int, default 0
            Not used.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError("{}: Horovod adds up dense gradients only; use kvstore='dist_sync'".format(key))
