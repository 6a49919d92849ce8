"""The forward pass of a step: what Module does, less what it does anew in each step."""

from typing import Any, Callable, List

from mxnet.module import Module

from . import mxnet_internals


class Forward:
    """``Module.forward(module, batch, is_train=True)``, prepared for batches of the shapes that the module is bound to.

    Parameters
    ----------
    module : Module
        It may be bound or reshaped anew at any time.
    """

    def __init__(self, module: Module) -> None:
        self._module = module
        self._executor: Any = None
        self._copies: List[Callable[[Any], None]] = []

    def __call__(self, batch: Any, as_bound: bool) -> None:
        """Compute the outputs, in training; `as_bound` says whether the batch has these shapes."""
        executor, *others = mxnet_internals.executors(self._module)
        if others or not as_bound:
            # The live module is an SVRGModule, but this pass is a plain one.
            Module.forward(self._module, batch, is_train=True)
            return
        if executor is not self._executor:
            self._executor, self._copies = executor, mxnet_internals.copies_into_inputs(self._module)
        for copy, array in zip(self._copies, [*batch.data, *(batch.label or ())]):
            copy(array)
        executor.forward(is_train=True)
