"""The snapshot's pass after the forward and backward pass of the current weights, on the same copy of the batch."""

import contextlib
from typing import Any, Callable, Iterator, List, Tuple

from mxnet.module import Module

from ..mxnet_api import internals
from ..mxnet_api.prepared import await_readers
from ..svrg.random_draws import DrawStream
from ..svrg.states import States
from .own_thread import SnapshotModule
from .serial import Heads, Serial


class Following(Serial):
    """For small networks, where a call takes longer than what it computes: few and short calls."""

    def __init__(self, aux: SnapshotModule, draws: DrawStream, states: States) -> None:
        super().__init__(aux, draws, states)
        # The executors of both networks when they were last bound to the same inputs.
        self._shared: Tuple[List[Any], List[Any]] = ([], [])
        self._await_live: List[Callable[[], None]] = []

    def bound(self, live: Module) -> None:
        """Bind the snapshot's network to the inputs of `live`."""
        self._share_inputs(live)
        self._shared = self._executors(live)

    def _executors(self, live: Module) -> Tuple[List[Any], List[Any]]:
        return [*internals.executors(live)], [*internals.executors(self.aux)]

    def _share_inputs(self, live: Module) -> None:
        internals.replace_executors(self.aux, inputs_of=live)
        internals.keep_outputs(self.aux)
        self._await_live = [await_readers(array) for array in internals.first_inputs(live)]

    def forward(self, live: Module, batch: Any, as_bound: bool) -> None:
        """The forward pass at the current weights alone."""
        self._forward_live(live, batch, as_bound)

    def backward(self, live: Module, heads: Heads) -> None:
        """Forward and backward at the snapshot."""
        # mxnet takes what is ready in turn. Who asks for the outputs of `live` now, a metric for instance, isn't to
        # wait for the snapshot's pass, as they would if that were ready already.
        for await_live in self._await_live:
            await_live()
        self._repeat_draw()
        if self._executors(live) != self._shared:
            # One of the networks was reshaped. The user may have filled the batch with other data since: only the copy
            # that `live` has is what it has computed with.
            self._follow_shapes(live)
            self.bound(live)
        for executor in internals.executors(self.aux):
            executor.forward(is_train=True)
        head_gradients = heads(self.aux)
        if head_gradients is not None:
            self.aux.backward(head_gradients)
            return
        for executor in internals.executors(self.aux):
            executor.backward()


class MemorySaving(Following):
    """The snapshot's pass in the memory that the pass of the current weights has left behind."""

    may_take_memory = False

    def _share_inputs(self, live: Module) -> None:
        internals.replace_executors(self.aux, inputs_of=live, memory_of=live)

    def backward(self, live: Module, heads: Heads) -> None:
        """Forward and backward at the snapshot; the outputs of `live` stay."""
        with internals.outputs_kept(live):
            super().backward(live, heads)

    @contextlib.contextmanager
    def full_pass(self, live: Module, live_is_free: bool) -> Iterator[List[Module]]:
        """The snapshot's network."""
        with internals.outputs_kept(live):
            yield [self.aux]
