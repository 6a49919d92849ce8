"""Full passes in larger batches than a step's: each call takes time beside what it computes."""

import math
from typing import Any, Dict, Optional, Tuple

import mxnet as mx
from mxnet.module import Module

from ..mxnet_api import internals, shapes
from ..mxnet_api import rows as rows_of
from ..mxnet_api.internals import GradientsOnDevices
from ..svrg import networks
from ..svrg.estimator import widened
from ..svrg.full_gradient import BatchGradient
from . import data as data_of_pass
from .serial import Serial

# How much a full pass computes with at once, in bytes: several times what a core's own cache holds, which costs less
# than more batches do.
AT_ONCE = 1 << 23
# And with how many rows: a gradient's sum over more, in one call, would be less exact.
ROWS_AT_ONCE = 1 << 15


class LargerBatches:
    """The networks for larger batches, and whether a full pass may take them.

    Parameters
    ----------
    way : Serial
    """

    def __init__(self, way: Serial) -> None:
        self._way = way
        self._networks: Dict[bool, "RecordedNetwork"] = {}
        # What was last asked, and the answer.
        self._last: Tuple[Any, Optional[int]] = (None, None)

    def count(self, live: Module, gradient: BatchGradient, data: Any) -> Optional[int]:
        """In how many batches to take these data, if that is sure to be the same; None for those of the iterator.

        As large as `AT_ONCE` and `ROWS_AT_ONCE` allow, if that is more than a step's.
        """
        if not (
            self._way.may_take_memory
            and data_of_pass.can_view(data)
            and shapes.has_rows_for(live, data)
            and internals.is_plain(live)
            and len(internals.contexts(live)) == 1
            and gradient.rows_are_apart
            and gradient.is_sum
        ):
            return None
        copied = self._way.in_own_thread or not shapes.all_lie_with(live, data)
        key = data.num_data, copied, *live.data_shapes, *(live.label_shapes or ())
        if self._last[0] != key:
            self._last = key, self._find_count(live, data.num_data, copied)
        return self._last[1]

    def _find_count(self, live: Module, samples: int, copied: bool) -> Optional[int]:
        gradients = [on_devices[0] for _, on_devices in internals.gradients(live)]
        if not gradients or not all(widened(gradient) is gradient for gradient in gradients):
            return None
        most = min(ROWS_AT_ONCE, AT_ONCE // shapes.bytes_per_row(live, inputs=copied))
        at_once = self._way.passes_at_once
        # As many for each network.
        count = at_once * math.ceil(samples / (at_once * max(most, 1)))
        rows = math.ceil(samples / count)
        fits = rows > live.data_shapes[0].shape[0] and shapes.fits_rows(live, rows) and keeps_rows_apart(live, rows)
        return count if fits else None

    def network(self, module: Module) -> "RecordedNetwork":
        """The network for larger batches at the weights of a module."""
        of_snapshot = module is self._way.aux
        if of_snapshot not in self._networks:
            self._networks[of_snapshot] = RecordedNetwork(module)
        return self._networks[of_snapshot]


def keeps_rows_apart(live: Module, rows: int) -> bool:
    """Whether it is known that so many rows don't influence each other, and that all outputs are losses."""
    described = [*live.data_shapes, *(live.label_shapes or ())]
    entries = rows_of.how_rows_enter(live.symbol, {each.name: (rows,) + each.shape[1:] for each in described})
    apart = all(each.apart and each.form in (rows_of.CONSTANT, rows_of.ROWS) for each in entries)
    return apart and networks.ends_in_losses(live.symbol)


class RecordedNetwork:
    """Computes the gradients of batches of any size, at the weights of a module and in its gradient arrays.

    Weights and gradients are the module's own arrays, which ``Module.reshape`` leaves the same. The arrays of a batch
    aren't copied if they are of the module's device and type.

    Parameters
    ----------
    module : Module
        Bound, on one device, with parameters to train and with output layers that need no head gradients.

    Attributes
    ----------
    gradients : list of tuple of str and list of NDArray
        By parameter.
    """

    def __init__(self, module: Module) -> None:
        self.gradients: GradientsOnDevices = internals.gradients(module)
        bound = internals.executors(module)[0]
        # Handles of their own: who records operations on the module's arrays doesn't find our marks, nor we theirs.
        self._arrays = {name: array.detach() for name, array in {**bound.arg_dict, **bound.aux_dict}.items()}
        marked = [self._arrays[name] for name, _ in self.gradients]
        mx.autograd.mark_variables(marked, [on_devices[0].detach() for _, on_devices in self.gradients], "write")
        self._given, self._names = shapes.input_names(module), module.symbol.list_inputs()
        # What had to be copied, by input: into the same array each time, so that copies don't pile up.
        self._copies: Dict[str, Any] = {}
        # Without static_alloc: with it, mxnet adds up garbage where an input of the network is a summand.
        self._operator = mx.nd.CachedOp(module.symbol)

    def compute(self, batch: Any) -> None:
        """Let the arrays of `gradients` have the gradients of a batch, summed over its rows."""
        inputs = {
            **self._arrays,
            **{name: self._here(name, array.detach()) for name, array in zip(self._given, [*batch.data, *batch.label])},
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
