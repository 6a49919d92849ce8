r"""The full gradient: summed over batches, devices and workers, and divided by the number of samples.

.. math:: \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_i(\tilde w)

A Module's gradient is the sum over the rows of the batch, before ``rescale_grad``, or their mean if the output
layers have ``normalization='batch'`` or ``'valid'``. `BatchGradient` is the one place that knows the difference.
"""

import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

import mxnet as mx
import numpy as np

from ..mxnet_api import rows as rows_of
from ..mxnet_api.internals import GradientsOnDevices
from . import networks
from .estimator import OnDevices, full_gradient_dtype, widened
from .random_draws import draws_random_numbers


class BatchGradient:
    """What a batch's gradient is: the sum or the mean over the rows that a device holds.

    `inputs` has the shapes of data and labels by name, if they are known; `rows_along_axis_0` tells whether all have
    their rows there.

    Attributes
    ----------
    is_sum, is_mean : bool
        Whether all output layers do so, as far as is known. Where some sum and some average, the gradient is taken for
        a sum, which is exact as long as all batches have as many rows.
    rows_are_apart : bool
        It is known that a row's gradient is the same in every batch, but for the division of a mean.

    Examples
    --------
    >>> data, inputs = mx.sym.Variable('data'), {'data': (4, 3)}
    >>> BatchGradient(mx.sym.SoftmaxOutput(data, normalization='batch')).is_mean
    True
    >>> BatchGradient(mx.sym.MakeLoss(data), inputs).is_mean
    False
    >>> BatchGradient(mx.sym.MakeLoss(data.mean()), inputs).is_mean
    True
    """

    def __init__(
        self, symbol: Any, inputs: Optional[Mapping[str, Sequence[int]]] = None, rows_along_axis_0: bool = True
    ) -> None:
        losses = networks.losses(symbol)
        divides = rows_of.divides(symbol, inputs or {})
        entries = rows_of.how_rows_enter(symbol, inputs) if inputs and rows_along_axis_0 else None
        forms = {node: rows_of.UNKNOWN if entries is None else entries[node].form for node in losses}
        means = [divides[node] or forms[node] == rows_of.MEAN for node in losses]
        self.is_sum = not any(means)
        self.is_mean = bool(means) and all(means)
        # 'valid' divides by the number of labels that count, of all rows. Random numbers may be the same for all rows.
        # The gradient of a loss without rows is there once for each batch.
        by_labels = any(normalization == "valid" and divides[node] for node, normalization in losses.items())
        exceptional = by_labels or rows_of.CONSTANT in forms.values() or draws_random_numbers(symbol)
        self.rows_are_apart = entries is not None and all(each.apart for each in entries) and not exceptional

    def rows_in_sum(self, rows: Sequence[int]) -> List[int]:
        """What turns each device's gradient, of so many rows, into the sum over its rows."""
        return list(rows) if self.is_mean else [1] * len(rows)

    def rows_in_step(self, rows: Sequence[int]) -> List[int]:
        """What turns the mean per sample into the gradient of a device that holds so many rows."""
        return [1] * len(rows) if self.is_mean else list(rows)


def zeros_for(arrays: GradientsOnDevices) -> OnDevices:
    """A zero full gradient, dense, of float32 or wider, for these parameters or gradients and on their devices.

    Of no parameters, one on one device.
    """
    return [
        {
            name: mx.nd.zeros(each[k].shape, ctx=each[k].context, dtype=full_gradient_dtype(each[k].dtype))
            for name, each in arrays
        }
        for k in range(len(arrays[0][1]) if arrays else 1)
    ]


def add_batch(totals: OnDevices, gradients: GradientsOnDevices, factors: Sequence[float]) -> None:
    """Add a batch's gradients, each device's times its factor, to the `totals`, in place."""
    for name, on_devices in gradients:
        for total, gradient, factor in zip(totals, on_devices, factors):
            total[name] += widened(gradient) if factor == 1 else widened(gradient) * factor


def mean(
    totals: OnDevices, samples: int, add_up: Callable[[OnDevices], None], weight: float = 1.0
) -> OnDevices:  # fmt: skip
    """Mu on each device, in place of the sums over this worker's samples on each of its devices.

    `samples` are those of all workers. `add_up` replaces each device's arrays by the sum over devices and workers. If
    the sums are over a part of this worker's samples, `weight` is the number of all divided by that of the part.
    """
    for on_device in totals:
        for array in on_device.values():
            array /= samples / weight
    add_up(totals)
    return totals


def add_up_devices(totals: OnDevices) -> None:
    """Replace each device's arrays by their sum over the devices, in place."""
    first, *others = totals
    for name, total in first.items():
        for other in others:
            total += other[name].as_in_context(total.context)
        for other in others:
            total.copyto(other[name])


def times_rows(full_gradient: OnDevices, rows: Sequence[int]) -> OnDevices:
    """What each device adds to its gradient of so many rows: b_k mu."""
    return [{name: array * count for name, array in on_device.items()} for on_device, count in zip(full_gradient, rows)]


def norms(full_gradient: Dict[str, Any]) -> Dict[str, float]:
    """The Euclidean norm of each parameter's part of the full gradient; not finite if any of its numbers isn't."""
    return {name: _norm(array.asnumpy().ravel()) for name, array in full_gradient.items()}


def _norm(array: Any) -> float:
    # In float64, but never a float64 copy of the whole.
    parts = np.array_split(array, 1 + array.size // 2**16)
    return math.sqrt(sum(float(np.sum(np.square(part, dtype=np.float64))) for part in parts))


def norm(parts: Dict[str, float]) -> float:
    """The norm of the whole, from those of its parts."""
    return math.sqrt(sum(part * part for part in parts.values()))
