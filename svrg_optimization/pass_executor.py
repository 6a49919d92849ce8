"""A network for full passes, in larger batches than a step's."""

from functools import partial
from typing import Any, Dict

import mxnet as mx
from mxnet.module import Module

from . import full_gradient, mxnet_internals, placement
from .shapes import Bound


class PassExecutor:
    """Sums the gradients of batches at the weights of a module: in its own gradient arrays, which are free meanwhile.

    These, and the weights, are the module's own arrays; they are the same ones after ``Module.reshape``.

    A batch that lies on the module's device isn't copied. What is computed of it takes the same memory each time.

    Parameters
    ----------
    module : Module
        Bound, on one device, with output layers that need no head gradients.
    bound_to : tuple
        The shapes of the batches.
    apart : bool
        Whether it is called apart, see `placement.call_apart`.

    Attributes
    ----------
    total : dict of str to NDArray
        The sum, by parameter.
    """

    def __init__(self, module: Module, bound_to: Bound, apart: bool) -> None:
        self.bound_to, self._apart = bound_to, apart
        self.total: Dict[str, Any] = {name: arrays[0] for name, arrays in mxnet_internals.gradients(module)}
        self._context = mxnet_internals.contexts(module)[0]
        self._inputs = [each.name for descriptions in bound_to for each in descriptions or ()]
        bound = mxnet_internals.executors(module)[0]
        # Handles of their own: whoever records operations on the module's arrays isn't to find these marks.
        marked = {name: bound.arg_dict[name].detach() for name in self.total}
        sums = [array.detach() for array in self.total.values()]
        mx.autograd.mark_variables(list(marked.values()), sums, "add")
        self._arrays = {**bound.arg_dict, **bound.aux_dict, **marked}
        self._names = module.symbol.list_inputs()
        self._operator = mx.nd.CachedOp(module.symbol, [("static_alloc", True), ("static_shape", True)])

    def begin(self) -> None:
        """Begin at zero."""
        for array in self.total.values():
            array[:] = 0

    def add(self, batch: Any, weight: float = 1) -> None:
        """Add `weight` times the gradient of a batch."""
        with full_gradient.weighted([self.total], weight):
            placement.call(partial(self._add, [*batch.data, *batch.label]), self._apart)

    def _add(self, given: Any) -> None:
        arrays = dict(self._arrays)
        for name, array in zip(self._inputs, given):
            arrays[name] = array.astype(arrays[name].dtype, copy=False).as_in_context(self._context)
        with mx.autograd.record():
            outputs = self._operator(*(arrays[name] for name in self._names))
        mx.autograd.backward(outputs)
