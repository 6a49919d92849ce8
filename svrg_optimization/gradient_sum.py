"""The sums of a full pass: where the gradients of its batches are computed and added up."""

import itertools
from typing import Any, Callable, Sequence, Union

from mxnet.module import Module

from . import full_gradient, mxnet_internals
from .batches import Rows
from .full_gradient import BatchGradient, OnDevices
from .pass_executor import PassExecutor

# Gives a module's head gradients for a batch.
HeadsOfBatch = Callable[[Module, Any], Any]


class GradientSum:
    """The sum of the gradients of batches, at the weights of modules that take turns.

    Parameters
    ----------
    modules : sequence of Module
    gradient : BatchGradient
        What a batch's gradient is.
    totals : list of dict of str to NDArray
        What they are added to: for each device, by parameter.
    prepare : callable
        What is to be done before each batch.
    """

    def __init__(
        self, modules: Sequence[Module], gradient: BatchGradient, totals: OnDevices, prepare: Callable[[], None]
    ) -> None:
        self.totals = totals
        self._turns, self._gradient, self._prepare = itertools.cycle(modules), gradient, prepare

    def add(self, batch: Any, heads: HeadsOfBatch) -> None:
        """Add the gradient of a batch, or of `Rows` times their weight."""
        module = next(self._turns)
        self._prepare()
        # Module can't be reshaped with labels that it isn't bound to; head gradients may still want them.
        inputs = batch if module.label_shapes or not isinstance(batch, Rows) else batch._replace(label=[])
        # The live module is an SVRGModule, but these passes are plain ones.
        Module.forward(module, inputs, is_train=True)
        Module.backward(module, heads(module, batch))
        self._sum(module, getattr(batch, "weight", 1))

    def _sum(self, module: Module, weight: float) -> None:
        rows = self._gradient.rows_in_sum(mxnet_internals.rows_on_devices(module))
        full_gradient.add_batch(self.totals, mxnet_internals.gradients(module), [weight * count for count in rows])


class SumInBackward(GradientSum):
    """A sum whose totals are the gradient arrays of the module, with ``grad_req='add'``."""

    def add(self, batch: Any, heads: HeadsOfBatch) -> None:
        """Add the gradient of a batch, or of `Rows` times their weight."""
        with full_gradient.weighted(self.totals, getattr(batch, "weight", 1)):
            super().add(batch, heads)

    def _sum(self, module: Module, weight: float) -> None:
        pass


class SumInExecutors:
    """A sum on one device, by executors for larger batches, which take turns.

    Parameters
    ----------
    executors : sequence of PassExecutor
    context : Context
        Where the totals are to be.
    """

    def __init__(self, executors: Sequence[PassExecutor], context: Any) -> None:
        self._executors, self._context = executors, context
        self._turns = itertools.cycle(executors)
        for executor in executors:
            executor.begin()

    def add(self, batch: Any, heads: HeadsOfBatch) -> None:
        """Add the gradient of a batch; it has no padding, and its network needs no head gradients."""
        next(self._turns).add(batch)

    @property
    def totals(self) -> OnDevices:
        """The sum so far, a copy: the executors' own arrays go on to be used for gradients."""
        total = {name: array.copyto(self._context) for name, array in self._executors[0].total.items()}
        for name, array in total.items():
            for other in self._executors[1:]:
                array += other.total[name].as_in_context(self._context)
        return [total]


AnySum = Union[GradientSum, SumInExecutors]
