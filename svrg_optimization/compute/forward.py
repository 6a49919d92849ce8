"""The forward pass of a training step: what Module does, less what it does anew in each step."""

from typing import Any, Callable, List

from mxnet.module import Module

from ..mxnet_api import internals
from ..svrg.batches import labels


class Forward:
    """``Module.forward(module, batch, is_train=True)`` of one module, which may be bound or reshaped at any time."""

    def __init__(self) -> None:
        self._executor: Any = None
        self._copies: List[Callable[[Any], None]] = []

    def __call__(self, module: Module, batch: Any, as_bound: bool) -> None:
        """Compute the outputs, in training; `as_bound` says whether the batch has the shapes that are bound."""
        executor, *others = internals.executors(module)
        if others or not as_bound:
            # The module may be an SVRGModule, but this pass is a plain one.
            Module.forward(module, batch, is_train=True)
            return
        if executor is not self._executor:
            self._executor, self._copies = executor, internals.copies_into_inputs(module)
        for copy, array in zip(self._copies, [*batch.data, *labels(batch)]):
            copy(array)
        executor.forward(is_train=True)
