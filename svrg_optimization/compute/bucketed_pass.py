"""A full pass over batches of several networks, which share their weights and the snapshot: buckets."""

import contextlib
from typing import Any, Callable, Dict, Optional, Tuple

from mxnet.module import Module

from ..mxnet_api import internals
from ..svrg.estimator import OnDevices
from .full_pass import Callbacks, FullPass, Network, Source


class BucketedPass(FullPass):
    """The sum of all samples' gradients at the snapshot, those of each batch computed by the network of its bucket.

    Parameters
    ----------
    default : Network
        That of the default bucket, whose weights and states are those of all.
    bucket_of : callable
        Gets a batch and its name for errors; gives the module of its bucket, bound.
    pass_of : callable
        Gets the module of a bucket; gives a full pass of its network alone.
    current : Module
        The module whose outputs stay what they are: all buckets may compute in the same memory.
    """

    def __init__(
        self, default: Network, bucket_of: Callable[[Any, str], Module], pass_of: Callable[[Module], FullPass],
        current: Module,
    ) -> None:  # fmt: skip
        super().__init__(default, None, False, lambda: None)
        self._bucket_of, self._pass_of, self._current = bucket_of, pass_of, current
        # While `run` runs, the passes of the buckets that have had a batch.
        self._passes: Dict[Module, FullPass] = {}
        self._begun = contextlib.ExitStack()

    def run(self, source: Source, callbacks: Callbacks, epoch: Optional[int]) -> Tuple[OnDevices, int]:
        """The sums of the gradients, on each device, and the number of samples."""
        with internals.outputs_kept(self._current), self._begun:
            return super().run(source, callbacks, epoch)

    def _larger_batches(self, data: Any) -> Optional[int]:
        # Each batch is of a bucket.
        return None

    def add_batch(self, totals: OnDevices, batch: Any, name: str) -> int:
        """Add the gradients of a batch as the iterator gave it; return the number of its true rows."""
        bucket = self._bucket_of(batch, name)
        if bucket not in self._passes:
            self._passes[bucket] = self._pass_of(bucket)
            self._begun.enter_context(self._passes[bucket].begun())
        return self._passes[bucket].add_batch(totals, batch, name)
