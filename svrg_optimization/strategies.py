"""How the gradient at the snapshot is computed beside that at the live weights: four ways, one result.

================ =====================================================================================================
`Serial`         after the live weights, on the same devices
`SharedInputs`   the same for small networks, where a call costs more than what it computes: both read one copy of the
                 batch, the rule is one call, and the full gradient is summed inside the backward pass
`Overlapped`     at the same time, on cpu ids of its own, if cores are idle
`MemorySaving`   after the live backward pass, in the memory that it has left behind
================ =====================================================================================================
"""

import contextlib
import math
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

import numpy as np
from mxnet.module import Module

from . import full_gradient, mxnet_internals, placement, shapes
from .estimator import FusedRule, rule, widened
from .forward import Forward
from .full_gradient import BatchGradient, OnDevices
from .gradient_sum import AnySum, GradientSum, SumInBackward, SumInExecutors
from .pass_executor import PassExecutor
from .placement import PlacedModule
from .random_draws import DrawStream
from .snapshot import Snapshot

# Gives a module's head gradients, from its outputs if need be.
Heads = Callable[[Module], Any]

Arrays = List[Any]

# Below so many parameters a network is small.
SMALL = 50000
# How much a full pass computes with at once, in bytes: several times what a core's own cache holds, which costs less
# than more batches do.
AT_ONCE = 1 << 23
# And with how many rows: a gradient's sum over more, in one call, would be less exact.
ROWS_AT_ONCE = 1 << 15


class Serial:
    """The snapshot after the live weights, through Module.

    Parameters
    ----------
    live : Module
        Bound; its own forward and backward are those of Module.
    aux : Module
        The snapshot's.
    draws : DrawStream
        Of the random operators of both.
    """

    # Whether the snapshot is bound apart, see `placement.call_apart`.
    apart = False
    # How many batches of a full pass are computed at the same time.
    passes_at_once = 1

    def __init__(self, live: Module, aux: PlacedModule, draws: DrawStream) -> None:
        self.live, self.aux, self._draws = live, aux, draws
        self._forward_live, self._forward_aux = Forward(live), Forward(aux)
        self._of_pass: Dict[Module, PassExecutor] = {}
        # What full passes were last asked for, and the number of their batches.
        self._larger: Tuple[Any, Optional[int]] = (None, None)
        # The arrays of the last full gradients and the executors, and the rule for them.
        self._prepared: Tuple[Any, Any, List[Callable[[], None]]] = (None, None, [])

    @staticmethod
    def contexts(contexts: Sequence[Any]) -> List[Any]:
        """Where the snapshot is computed, for live weights on these devices."""
        return list(contexts)

    def bound(self) -> None:
        """Prepare, once `aux` is bound."""

    def larger_batches(self, gradient: BatchGradient, data: Any, least: int) -> Optional[int]:
        """In how many batches to take this NDArrayIter in a full pass; None for those of a step, of `least` rows.

        As large as `AT_ONCE` and `ROWS_AT_ONCE` allow, if that is sure to be the same: a call costs time beside what it
        computes.
        """
        contexts = mxnet_internals.contexts(self.live)
        if not (gradient.adds_rows and _is_plain(self.live) and len(contexts) == 1):
            return None
        copied = self.apart or not shapes.all_lie_with(self.live, data)
        key = data.num_data, copied, least, *self.live.data_shapes, *(self.live.label_shapes or ())
        if self._larger[0] != key:
            self._larger = key, self._find_larger_batches(data.num_data, copied, least)
        return self._larger[1]

    def _find_larger_batches(self, samples: int, copied: bool, least: int) -> Optional[int]:
        # The backward pass itself adds to the gradients: in their own type.
        gradients = [on_devices[0] for _, on_devices in mxnet_internals.gradients(self.live)]
        if not (gradients and _are_wide(gradients)):
            return None
        most = min(ROWS_AT_ONCE, AT_ONCE // shapes.bytes_per_row(self.live, inputs=copied))
        # As many for each executor.
        count = self.passes_at_once * math.ceil(samples / (self.passes_at_once * max(most, 1)))
        rows = math.ceil(samples / count)
        return count if rows > least and shapes.fits_rows(self.live, rows) else None

    def forward(self, batch: Any, as_bound: bool) -> None:
        """The forward pass at the live weights, and what is to be done before their backward pass.

        Parameters
        ----------
        batch : DataBatch, or list of DataBatch
        as_bound : bool
            Whether its arrays have the shapes that the live module is bound to.
        """
        self._forward_live(batch, as_bound)
        self._forward_snapshot(batch, as_bound)

    def _forward_snapshot(self, batch: Any, as_bound: bool) -> None:
        self._repeat_draw()
        # A reshape of the live module, by a batch of another shape or by the user, is followed here and not sooner:
        # evaluation doesn't pay for it.
        self._reshape_to(self._live_shapes())
        self.copy_states()
        self._forward_aux(batch, as_bound)

    def _repeat_draw(self) -> None:
        self._draws.repeat()

    def _live_shapes(self) -> Any:
        return self.live.data_shapes, self.live.label_shapes

    def _reshape_to(self, wanted: Any) -> None:
        if (self.aux.data_shapes, self.aux.label_shapes) != wanted:
            self.aux.reshape(*wanted)

    def copy_states(self) -> None:
        """Let the snapshot see the live states."""
        if mxnet_internals.state_names(self.live):
            self.aux.set_states(states=self.live.get_states(merge_multi_context=False))

    def backward(self, batch: Any, heads: Heads) -> None:
        """What is to be done after the live backward pass of `batch`."""
        self.aux.backward(heads(self.aux))

    def correct(self, snapshot: Snapshot, rows: Sequence[int]) -> None:
        """Turn the live gradients into variance-reduced gradients."""
        if rows != snapshot.rows:
            snapshot.correct(mxnet_internals.gradients(self.live), mxnet_internals.gradients(self.aux), rows)
            return
        for operate in self._rule_for(snapshot.full_gradients):
            operate()

    def _executors(self) -> Tuple[List[Any], List[Any]]:
        return [*mxnet_internals.executors(self.live)], [*mxnet_internals.executors(self.aux)]

    def _rule_for(self, full: OnDevices) -> List[Callable[[], None]]:
        arrays, executors = [id(array) for mu in full for array in mu.values()], self._executors()
        if self._prepared[:2] != (arrays, executors):
            gradients, at_snapshot = mxnet_internals.gradients(self.live), mxnet_internals.gradients(self.aux)
            operations: List[Callable[[], None]] = []
            for k, mu in enumerate(full):
                # Without a full gradient it had no gradient when the snapshot was taken: until the next one it takes
                # plain steps.
                known = [number for number, (name, _) in enumerate(gradients) if name in mu]
                here, there = ([each[number][1][k] for number in known] for each in (gradients, at_snapshot))
                operations += self._rule_on_device(here, there, [mu[gradients[number][0]] for number in known])
            self._prepared = arrays, executors, operations
        return self._prepared[2]

    def _rule_on_device(self, gradients: Arrays, at_snapshot: Arrays, full: Arrays) -> List[Callable[[], None]]:
        return [operate for arrays in zip(gradients, at_snapshot, full) for operate in rule(*arrays)]

    @contextlib.contextmanager
    def full_pass(self, gradient: BatchGradient, live_is_free: bool, larger: bool = False) -> Iterator[AnySum]:
        """A sum of gradients at the snapshot, for one full pass.

        Parameters
        ----------
        gradient : BatchGradient
            What a batch's gradient is.
        live_is_free : bool
            Whether the live weights are the snapshot, and nobody needs what their last pass left behind.
        larger : bool
            Whether the batches are those of `larger_batches`.
        """
        yield self._sum([self.aux], gradient, larger)

    def _sum(self, modules: Sequence[Module], gradient: BatchGradient, larger: bool) -> AnySum:
        """A sum to which these modules add, in batches as they are bound to or larger ones."""
        if not larger:
            return GradientSum(modules, gradient, self._zeros(), self.copy_states)
        executors = [self._executor_of_pass(module) for module in modules]
        return SumInExecutors(executors, mxnet_internals.contexts(self.live)[0])

    def _zeros(self) -> OnDevices:
        return full_gradient.zeros_for(mxnet_internals.gradients(self.live))

    def _executor_of_pass(self, module: Module) -> PassExecutor:
        if module not in self._of_pass:
            self._of_pass[module] = PassExecutor(module, self.apart and module is self.aux)
        return self._of_pass[module]


class AfterLive(Serial):
    """The snapshot once the live backward pass is over, on the live module's copy of the batch."""

    def __init__(self, live: Module, aux: PlacedModule, draws: DrawStream) -> None:
        super().__init__(live, aux, draws)
        self._shared: Tuple[Any, Any] = (None, None)

    def bound(self) -> None:
        """Bind the snapshot to the live module's inputs."""
        self._share_anew()

    def _share_anew(self) -> None:
        self._share()
        self._shared = self._executors()

    def _share(self) -> None:
        mxnet_internals.replace_executors(self.aux, inputs_of=self.live)

    def _forward_snapshot(self, batch: Any, as_bound: bool) -> None:
        """Nothing yet."""

    def backward(self, batch: Any, heads: Heads) -> None:
        """Forward and backward at the snapshot."""
        self._repeat_draw()
        # The user may have filled the batch with other data since: only the live module's copy is what it has seen.
        if self._executors() != self._shared:
            # One of them was reshaped.
            self._reshape_to(self._live_shapes())
            self._share_anew()
        for executor in mxnet_internals.executors(self.aux):
            executor.forward(is_train=True)
        self._run_backward(heads(self.aux))

    def _run_backward(self, head_gradients: Any) -> None:
        # Without detours if the network ends in a loss.
        if head_gradients is not None:
            self.aux.backward(head_gradients)
            return
        for executor in mxnet_internals.executors(self.aux):
            executor.backward()


class SharedInputs(AfterLive):
    """For small networks: few and short calls."""

    def __init__(self, live: Module, aux: PlacedModule, draws: DrawStream) -> None:
        super().__init__(live, aux, draws)
        self._shapes: Any = None
        self._one_wide_type = False
        self._fused: Dict[int, FusedRule] = {}
        self._await_live: List[Callable[[], None]] = []

    def bound(self) -> None:
        """Bind the snapshot to the live module's inputs."""
        self._shapes = self._live_shapes()
        arrays = [on_devices[0] for _, on_devices in mxnet_internals.gradients(self.live)]
        self._one_wide_type = _are_wide(arrays) and len({array.dtype for array in arrays}) == 1
        super().bound()

    def _share(self) -> None:
        super()._share()
        mxnet_internals.keep_outputs(self.aux)
        self._await_live = [mxnet_internals.await_readers(array) for array in mxnet_internals.first_inputs(self.live)]

    def backward(self, batch: Any, heads: Heads) -> None:
        """Forward and backward at the snapshot; whoever asks for the live outputs now gets them before."""
        # mxnet takes what is ready in turn. A metric that it computes isn't to wait for the snapshot: it would have to,
        # were the snapshot ready already.
        for await_live in self._await_live:
            await_live()
        super().backward(batch, heads)

    def _sums_in_backward(self, gradient: BatchGradient) -> bool:
        return self._one_wide_type and not gradient.is_mean

    def _rule_on_device(self, gradients: Arrays, at_snapshot: Arrays, full: Arrays) -> List[Callable[[], None]]:
        """All parameters in one call."""
        if not (gradients and self._one_wide_type):
            return super()._rule_on_device(gradients, at_snapshot, full)
        if len(gradients) not in self._fused:
            self._fused[len(gradients)] = FusedRule(len(gradients))
        return [self._fused[len(gradients)].of(gradients, at_snapshot, full)]

    @contextlib.contextmanager
    def full_pass(self, gradient: BatchGradient, live_is_free: bool, larger: bool = False) -> Iterator[AnySum]:
        """A sum that the backward pass itself adds to."""
        if larger or not self._sums_in_backward(gradient):
            yield self._sum([self.aux], gradient, larger)
            return
        with mxnet_internals.borrowed_executors(self.aux):
            total = SumInBackward([self.aux], gradient, self._zeros(), self.copy_states)
            self._reshape_to(self._shapes)
            mxnet_internals.replace_executors(self.aux, gradients_into=total.totals)
            yield total


class Overlapped(Serial):
    """The snapshot at the same time as the live weights, on cpu ids of its own."""

    apart = True
    passes_at_once = 2

    def _repeat_draw(self) -> None:
        if self._draws.active:
            placement.call_apart(self._draws.repeat)

    @staticmethod
    def contexts(contexts: Sequence[Any]) -> List[Any]:
        """As many further cpu ids."""
        return placement.beside(contexts)

    @contextlib.contextmanager
    def full_pass(self, gradient: BatchGradient, live_is_free: bool, larger: bool = False) -> Iterator[AnySum]:
        """A sum to which the live module adds every other batch, if it is free."""
        self._repeat_draw()
        if not live_is_free:
            yield self._sum([self.aux], gradient, larger)
            return
        # Running statistics are the live module's alone: a full pass leaves them as they were.
        states = mxnet_internals.auxiliary_states(self.live)
        kept = [state.copy() for state in states]
        try:
            yield self._sum([self.aux, self.live], gradient, larger)
        finally:
            for state, value in zip(states, kept):
                value.copyto(state)


class MemorySaving(AfterLive):
    """The snapshot in the memory of the live executors, once their backward pass is over."""

    def larger_batches(self, gradient: BatchGradient, data: Any, least: int) -> Optional[int]:
        """None: they take more memory."""
        return None

    def _share(self) -> None:
        mxnet_internals.replace_executors(self.aux, inputs_of=self.live, memory_of=self.live)

    def backward(self, batch: Any, heads: Heads) -> None:
        """Forward and backward at the snapshot; the live outputs are kept."""
        outputs = [output for executor in mxnet_internals.executors(self.live) for output in executor.outputs]
        kept = [output.copy() for output in outputs]
        super().backward(batch, heads)
        for output, value in zip(outputs, kept):
            value.copyto(output)


def choose(live: Module, overlap: Optional[bool], save_memory: bool) -> Type[Serial]:
    """The strategy for a bound module.

    Raises
    ------
    ValueError
        `overlap` is asked for where it can't be had.
    """
    contexts = mxnet_internals.contexts(live)
    overlaps = placement.overlaps(overlap, contexts)
    can_follow = _can_follow(live)
    if save_memory:
        return MemorySaving if can_follow else Serial
    size = sum(int(np.prod(shape)) for shape in mxnet_internals.parameter_shapes(live).values())
    if can_follow and size < SMALL and not overlap:
        return SharedInputs
    return Overlapped if overlaps and not mxnet_internals.has_groups_of_contexts(live) else Serial


def _are_wide(gradients: Arrays) -> bool:
    return all(widened(gradient) is gradient for gradient in gradients)


def _is_plain(module: Module) -> bool:
    return mxnet_internals.is_dense(module) and not mxnet_internals.has_groups_of_contexts(module)


def _can_follow(module: Module) -> bool:
    """Whether the snapshot can do with what the live module has, after its backward pass."""
    # States may be set between the forward and the backward pass.
    return _is_plain(module) and not mxnet_internals.state_names(module)


def for_sharer_of(strategy: Serial, live: Module) -> Type[Serial]:
    """The strategy for a module that shares weights and memory with one of this strategy."""
    return MemorySaving if isinstance(strategy, MemorySaving) and _can_follow(live) else Serial
