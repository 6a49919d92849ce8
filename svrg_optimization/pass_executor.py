"""An executor for the full passes of small networks, in larger batches than a step's."""

from typing import Any, Dict

from mxnet.module import Module

from . import full_gradient, mxnet_internals
from .shapes import Bound


class PassExecutor:
    """Sums the gradients of batches at the weights of a module, beside what that module itself is bound to.

    It is used again and again: its memory would cost more to get anew than a pass over few samples takes.

    Parameters
    ----------
    module : Module
        Bound, on one device.
    bound_to : tuple
        The shapes of the batches.

    Attributes
    ----------
    total : dict of str to NDArray
        The sum, by parameter.
    """

    def __init__(self, module: Module, bound_to: Bound) -> None:
        self.bound_to = bound_to
        self._module = module
        self._parameters = set(mxnet_internals.parameter_names(module))
        own = mxnet_internals.executors(module)[0]
        summed = {name for name, _ in mxnet_internals.gradients(module)}
        self._executor = module.symbol.simple_bind(
            mxnet_internals.contexts(module)[0],
            {name: "add" if name in summed else "null" for name in own.arg_dict},
            {name: array.dtype for name, array in own.arg_dict.items()},
            **{each.name: each.shape for descriptions in bound_to for each in descriptions or ()},
        )
        self.total: Dict[str, Any] = {name: self._executor.grad_dict[name] for name in summed}

    def begin(self) -> None:
        """Begin at zero, at the weights that the module has now."""
        module = mxnet_internals.executors(self._module)[0]
        for name in self._parameters:
            module.arg_dict[name].copyto(self._executor.arg_dict[name])
        for name, state in module.aux_dict.items():
            state.copyto(self._executor.aux_dict[name])
        for array in self.total.values():
            array[:] = 0

    def add(self, batch: Any, weight: float = 1) -> None:
        """Add `weight` times the gradient of a batch."""
        for descriptions, arrays in zip(self.bound_to, (batch.data, batch.label)):
            for each, array in zip(descriptions or (), arrays):
                array.copyto(self._executor.arg_dict[each.name])
        with full_gradient.weighted([self.total], weight):
            self._executor.forward(is_train=True)
            self._executor.backward()
