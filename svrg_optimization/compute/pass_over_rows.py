"""A full pass on the rows that batches name, see `touched_rows`; it counts how often they name each row."""

from functools import partial
from typing import Any, Callable, List, Optional, Tuple

from mxnet.module import Module

from ..mxnet_api import internals, shapes
from ..svrg.estimator import OnDevices
from ..svrg.reweighting import TouchCounts
from .full_pass import Callbacks, FullPass, HeadsOfBatch, Network, Source
from .touched_rows import TouchedRows


class PassOverRows(FullPass):
    """Computes with the snapshot's small networks.

    Attributes
    ----------
    counts : list of list of TouchCounts
        Of each replica and group; after `run`.
    """

    def __init__(
        self, network: Network, heads: Optional[HeadsOfBatch], live_is_free: bool, on_filling: Callable[[], None]
    ) -> None:  # fmt: skip
        super().__init__(network, heads, live_is_free, on_filling)
        assert isinstance(self._way, TouchedRows)
        self._rows: TouchedRows = self._way
        self.counts: List[List[TouchCounts]] = []

    def run(self, source: Source, callbacks: Callbacks, epoch: Optional[int]) -> Tuple[OnDevices, int]:
        """The sums of the gradients, on each device, and the number of samples."""
        # Not sooner: the snapshot's weights have just been set.
        self.counts = self._rows.begin_pass()
        return super().run(source, callbacks, epoch)

    @staticmethod
    def takes(live: Module, rows: Any) -> bool:
        """Whether there are enough rows for the devices: a small network is bound to whatever comes."""
        return internals.can_split(live, shapes.inputs(rows).data[0][0])

    def _larger_batches(self, data: Any) -> Optional[int]:
        # What is counted are the batches of steps.
        return None

    def add_batch(self, totals: OnDevices, batch: Any, name: str) -> int:
        """Add the gradients of a batch, and count the rows that it names, padding included, as a step uses it."""
        count = super().add_batch(totals, batch, name)
        self._rows.count(self._live, batch, self.counts)
        return count

    def _add_part(self, totals: OnDevices, part: Any) -> None:
        if self._draws is not None:
            self._draws.repeat()
        heads_of = self._heads
        self._rows.add_to(
            self._live, totals, part, lambda module: None if heads_of is None else heads_of(module, part),
            partial(self._factors, part),
        )  # fmt: skip
