"""The snapshot's pass at the same time as that of the current weights, on cpu ids of its own."""

import contextlib
from typing import Any, Iterator, List, Sequence

from mxnet.module import Module

from ..mxnet_api import internals
from . import cores
from .serial import Serial


class Overlapped(Serial):
    """For networks whose computations take longer than the calls, if cores are idle."""

    in_own_thread = True
    passes_at_once = 2

    @staticmethod
    def contexts(contexts: Sequence[Any]) -> List[Any]:
        """As many further cpu ids."""
        return cores.beside(contexts)

    @contextlib.contextmanager
    def full_pass(self, live: Module, live_is_free: bool) -> Iterator[List[Module]]:
        """Both networks, if `live` is free."""
        if not live_is_free:
            yield [self.aux]
            return
        # A full pass moves no running statistics of the current weights.
        with internals.outputs_kept(live), internals.auxiliary_states_kept(live):
            yield [self.aux, live]
