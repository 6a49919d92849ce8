"""A full pass on the rows that batches name, see `touched_rows`; it counts how often they name each row."""

import contextlib
import math
from functools import partial
from typing import Any, Callable, Iterator, List, Optional

from mxnet.module import Module

from ..csr_iter import CSRIter
from ..mxnet_api import internals, shapes
from ..svrg.estimator import OnDevices
from ..svrg.reweighting import TouchCounts
from . import data as data_of_pass
from .full_pass import FullPass, HeadsOfBatch, Network
from .larger_batches import ROWS_AT_ONCE
from .touched_rows import TouchedRows

# So many numbers of csr data are computed with at once.
_NUMBERS_AT_ONCE = 1 << 19


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

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """The snapshot's network has its new weights."""
        self.counts = self._rows.begin_pass()
        yield

    @staticmethod
    def takes(live: Module, rows: Any) -> bool:
        """Whether there are enough rows for the devices: a small network is bound to whatever comes."""
        return internals.can_split(live, shapes.inputs(rows).data[0][0])

    def _larger_batches(self, data: Any) -> Optional[int]:
        # Where touches are counted, they are those of steps.
        known = isinstance(data, CSRIter) and data_of_pass.can_stay(data) and self._gradient.rows_are_apart
        if not known or self._rows.counts_touches or not self._gradient.is_sum or self._heads is not None:
            return None
        numbers = max(1, data.num_values // data.num_data)
        rows = min(ROWS_AT_ONCE, max(1, _NUMBERS_AT_ONCE // numbers))
        return math.ceil(data.num_data / rows) if rows > data.batch_size else None

    def add_batch(self, totals: OnDevices, batch: Any, name: str) -> int:
        """Add the gradients of a batch, and count the rows that it names, padding included, as a step uses it."""
        count = super().add_batch(totals, batch, name)
        if self._rows.counts_touches:
            self._rows.count(self._live, batch, self.counts)
        return count

    # A small network is bound to whatever comes.
    _add_larger_batch = add_batch

    def _add_part(self, totals: OnDevices, part: Any) -> None:
        if self._draws is not None:
            self._draws.repeat()
        heads_of = self._heads
        self._rows.add_to(
            self._live, totals, part, lambda module: None if heads_of is None else heads_of(module, part),
            partial(self._factors, part),
        )  # fmt: skip
