"""A network for full passes, in larger batches than a step's."""

from functools import partial
from typing import Any, Dict, List

import mxnet as mx
from mxnet.module import Module

from . import mxnet_internals, placement, shapes


class PassExecutor:
    """Sums the gradients of batches at the weights of a module: in its own gradient arrays, which are free meanwhile.

    These, and the weights, are the module's own arrays; they are the same ones after ``Module.reshape``.

    Batches may have any number of rows. Arrays of the module's device and type aren't copied.

    Parameters
    ----------
    module : Module
        Bound, on one device, with parameters to train and with output layers that need no head gradients.
    apart : bool
        Whether it is called apart, see `placement.call_apart`.

    Attributes
    ----------
    total : dict of str to NDArray
        The sum, by parameter.
    """

    def __init__(self, module: Module, apart: bool) -> None:
        self._apart = apart
        self.total: Dict[str, Any] = {name: arrays[0] for name, arrays in mxnet_internals.gradients(module)}
        bound = mxnet_internals.executors(module)[0]
        # Handles of their own: who records operations on the module's arrays doesn't find our marks, nor we theirs.
        self._arrays = {name: array.detach() for name, array in {**bound.arg_dict, **bound.aux_dict}.items()}
        sums = [array.detach() for array in self.total.values()]
        mx.autograd.mark_variables([self._arrays[name] for name in self.total], sums, "add")
        self._given, self._names = shapes.input_names(module), module.symbol.list_inputs()
        # What had to be copied, by input: into the same array each time, so that copies don't pile up.
        self._copies: Dict[str, Any] = {}
        self._operator = mx.nd.CachedOp(module.symbol, [("static_alloc", True)])

    def begin(self) -> None:
        """Begin at zero."""
        for array in self.total.values():
            array[:] = 0

    def add(self, batch: Any) -> None:
        """Add the gradient of a batch."""
        placement.call(partial(self._add, [*batch.data, *batch.label]), self._apart)

    def _add(self, arrays: List[Any]) -> None:
        inputs = {
            **self._arrays,
            **{name: self._here(name, array.detach()) for name, array in zip(self._given, arrays)},
        }
        with mx.autograd.record():
            outputs = self._operator(*(inputs[name] for name in self._names))
        mx.autograd.backward(outputs)

    def _here(self, name: str, array: Any) -> Any:
        bound = self._arrays[name]
        if shapes.lies_with(array, bound):
            return array
        if name not in self._copies or self._copies[name].shape != array.shape:
            self._copies[name] = mx.nd.empty(array.shape, bound.context, bound.dtype)
        return array.copyto(self._copies[name])
