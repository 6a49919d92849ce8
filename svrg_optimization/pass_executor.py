"""An executor for the full passes of a network, in larger batches than a step's."""

from typing import Any, Dict

import mxnet as mx
from mxnet.module import Module

from . import full_gradient, mxnet_internals, placement
from .shapes import Bound


class PassExecutor:
    """Sums the gradients of batches at the weights of a module: in its own gradient arrays, which are free meanwhile.

    These, and the weights, are the module's own arrays; they are the same ones after ``Module.reshape``.

    It is used again and again: its memory would cost more to get anew than a pass over few samples takes.

    Parameters
    ----------
    module : Module
        Bound, on one device.
    bound_to : tuple
        The shapes of the batches.
    apart : bool
        Whether it is bound apart, see `placement.call_apart`.

    Attributes
    ----------
    total : dict of str to NDArray
        The sum, by parameter.
    """

    def __init__(self, module: Module, bound_to: Bound, apart: bool) -> None:
        self._module, self.bound_to = module, bound_to
        self.total: Dict[str, Any] = {name: arrays[0] for name, arrays in mxnet_internals.gradients(module)}
        placement.call(self._bind, apart)

    def _bind(self) -> None:
        parameters = set(mxnet_internals.parameter_names(self._module))
        beside, symbol = mxnet_internals.executors(self._module)[0], self._module.symbol
        shapes, _, _ = symbol.infer_shape(
            **{each.name: each.shape for descriptions in self.bound_to for each in descriptions or ()}
        )
        context = mxnet_internals.contexts(self._module)[0]
        arguments = {
            name: own if name in parameters else mx.nd.zeros(shape, context, own.dtype)
            for (name, own), shape in zip(beside.arg_dict.items(), shapes)
        }
        requests = {name: "add" if name in self.total else "null" for name in arguments}
        self._executor = symbol.bind(context, arguments, self.total, requests, beside.aux_dict or None)

    def begin(self) -> None:
        """Begin at zero."""
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
