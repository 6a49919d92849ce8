"""A full pass: the sum of all samples' gradients at the snapshot. It owns the data, the networks and the sum."""

import contextlib
import functools
import itertools
from typing import Any, Callable, ContextManager, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from mxnet.model import BatchEndParam
from mxnet.module import Module

from ..mxnet_api import internals, shapes
from ..mxnet_api.internals import GradientsOnDevices
from ..svrg import batches, full_gradient
from ..svrg.batches import TrueRows
from ..svrg.estimator import OnDevices
from ..svrg.full_gradient import BatchGradient
from ..svrg.random_draws import DrawStream
from ..svrg.states import States
from . import data as data_of_pass
from .larger_batches import LargerBatches
from .serial import Serial

Callbacks = Union[None, Callable[[Any], Any], Sequence[Callable[[Any], Any]]]
# Gives the head gradients of a module for a batch.
HeadsOfBatch = Callable[[Module, Any], Any]


class Source(NamedTuple):
    """The data of a full pass.

    `argument` is the name of the argument that they were given as, for errors. `at_start` says whether the iterator is
    known to be at its start. With `in_place`, the iterator stays where it is. `rows` are the numbers of those to be
    read of an NDArrayIter or CSRIter, if not all.
    """

    data: Any
    argument: str = "train_data"
    at_start: bool = False
    in_place: bool = False
    rows: Optional[Sequence[int]] = None

    def read(self, count: Optional[int]) -> ContextManager[Iterable[Any]]:
        """All batches, once; of an NDArrayIter, in so many."""
        return data_of_pass.whole(self.data, self.at_start, self.in_place, count, self.rows)


class Network(NamedTuple):
    """What a full pass has to know about a module.

    `live` is the module, bound, with the current weights; `way` computes its gradients, and `larger` those of larger
    batches. `gradient` says what a batch's gradient is. `draws` is None if no operator draws random numbers.
    """

    live: Module
    way: Serial
    larger: LargerBatches
    gradient: BatchGradient
    draws: Optional[DrawStream]
    states: States


class FullPass:
    """The sum of all samples' gradients at the snapshot.

    Parameters
    ----------
    network : Network
    heads : callable, optional
        Gives the head gradients.
    live_is_free : bool
        Whether the module has the snapshot's weights, and nobody needs the gradients that it has left.
    on_filling : callable
        Called when a batch has to be filled up with copies of a row.
    """

    def __init__(
        self, network: Network, heads: Optional[HeadsOfBatch], live_is_free: bool, on_filling: Callable[[], None]
    ) -> None:
        self._live, self._way, self._larger, self._gradient, self._draws, self._states = network
        self._heads, self._live_is_free = heads, live_is_free and not self._states.carried
        self._true_rows = TrueRows(
            shapes.batch_axes(self._live.data_shapes), shapes.batch_axes(self._live.label_shapes),
            functools.partial(self.takes, self._live), on_filling,
        )  # fmt: skip
        self._turns: Iterator[Module] = iter(())
        self._is_first = True

    @staticmethod
    def takes(live: Module, rows: Any) -> bool:
        """Whether the network of a module can be given a batch of true rows only."""
        return shapes.can_reshape_to(live, rows)

    def run(self, source: Source, callbacks: Callbacks, epoch: Optional[int]) -> Tuple[OnDevices, int]:
        """The sums of the gradients, on each device, and the number of samples."""
        totals, samples = full_gradient.zeros_for(internals.gradients(self._live)), 0
        count = None if callbacks else self._larger_batches(source.data)
        add = self.add_batch if count is None else self._add_larger_batch
        with self._states.of_pass(), self.begun(), source.read(count) as items:
            for nbatch, item in enumerate(items):
                batch = batches.as_batch(item, source.argument)
                samples += add(totals, batch, "batch {} of {}".format(nbatch, source.argument))
                if callbacks:
                    # Not kept in a variable: it would be one of its own `locals`, and keep the module in memory.
                    _call_back(callbacks, BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=None, locals=locals()))
        if samples == 0:
            raise ValueError(
                "{}={!r} gave no samples; is it an iterator that can't be reset, or a generator, which can be gone "
                "through only once?".format(source.argument, source.data)
            )
        return totals, samples

    @contextlib.contextmanager
    def begun(self) -> Iterator[None]:
        """The networks take turns, and keep what `run` is to leave alone."""
        with self._way.full_pass(self._live, self._live_is_free) as modules:
            self._turns = itertools.cycle(modules)
            yield

    def _larger_batches(self, data: Any) -> Optional[int]:
        """In how many batches of more rows than a step's to take these data; None for the iterator's own."""
        return self._larger.count(self._live, self._gradient, data) if self._heads is None else None

    def add_batch(self, totals: OnDevices, batch: Any, name: str) -> int:
        """Add the gradients of a batch as the iterator gave it; return the number of its true rows."""
        shapes.check(self._live, batch, name)
        if self._states.carried and any(map(batches.padding, batch if isinstance(batch, list) else [batch])):
            raise ValueError("{} has padded rows, whose states aren't anybody's; with next_states, let the batch size "
                             "divide the number of samples".format(name))  # fmt: skip
        if self._draws is not None:
            self._draws.next()
        for part in self._true_rows.of(batch):
            self._add_part(totals, part)
        return self._true_rows.count(batch)

    def _add_part(self, totals: OnDevices, part: Any) -> None:
        """Add the gradients of true rows."""
        module = next(self._turns)
        if module is self._live and not shapes.are_bound(module, part):
            # Its outputs would get another shape.
            module = self._way.aux
        gradients = self._gradients_of(module, part)
        full_gradient.add_batch(totals, gradients, self._factors(part, internals.rows_on_devices(module)))

    def _factors(self, part: Any, rows: List[int]) -> List[float]:
        """By what the gradients of each device, with so many rows, are multiplied."""
        weight = getattr(part, "weight", 1)
        return [weight * count for count in self._gradient.rows_in_sum(rows)]

    def _gradients_of(self, module: Module, batch: Any) -> GradientsOnDevices:
        of_snapshot = module is self._way.aux
        if self._draws is not None:
            # Each batch has a draw of its own, whichever network computes it.
            (self._way.aux.call if of_snapshot else _call)(self._draws.repeat)
        if of_snapshot:
            self._states.follow_in_pass(self._way.aux, self._live, self._is_first)
            self._is_first = False
        # `live` is an SVRGModule, but these passes are plain ones.
        Module.forward(module, batches.for_module(module, batch), is_train=True)
        internals.backward(module, self._heads(module, batch) if self._heads is not None else None)
        return internals.gradients(module)

    def _add_larger_batch(self, totals: OnDevices, batch: Any, name: str) -> int:
        """Add the gradients of a batch of more rows than a step's; return their number."""
        module = next(self._turns)
        network = self._larger.network(module)
        (self._way.aux.call if module is self._way.aux else _call)(network.compute, batch)
        full_gradient.add_batch(totals, network.gradients, [1])
        return batch.data[0].shape[0]


def _call_back(callbacks: Any, param: BatchEndParam) -> None:
    for callback in [callbacks] if callable(callbacks) else callbacks:
        callback(param)


def _call(function: Callable[..., None], *args: Any) -> None:
    function(*args)
