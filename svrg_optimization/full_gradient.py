r"""The full gradient: summed over the batches, over the devices, and divided by the number of samples.

.. math:: \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_i(\tilde w)

A Module's gradient is the sum over the rows of the batch, before ``rescale_grad``, or their mean if the output
layers have ``normalization='batch'`` or ``'valid'``. `BatchGradient` is the one place that knows the difference.
"""

import contextlib
import math
from typing import Any, Dict, Iterator, List, Optional, Sequence

import mxnet as mx
import numpy as np

from .estimator import full_gradient_dtype, widened
from .keys import full_gradient_key
from .mxnet_internals import GradientsOnDevices
from .networks import LOSSES, ends_in_losses, keeps_rows_apart, operators

# Parameter name -> array, for each device.
OnDevices = List[Dict[str, Any]]


class BatchGradient:
    """What a batch's gradient is: the sum or the mean over the rows that a device holds.

    Parameters
    ----------
    symbol : Symbol
        The network. Its output layers' `normalization` tells.

    Attributes
    ----------
    is_mean : bool
    is_mixed : bool
        Some output layers sum and some average. Such a gradient is taken for a sum, which is exact as long as all
        batches have as many rows.
    adds_rows : bool
        It is known that a batch of more rows has a gradient with more terms, whatever the head gradients. A network
        that averages on its own, before a MakeLoss for instance, can't be told from one that adds.

    Examples
    --------
    >>> data = mx.sym.Variable('data')
    >>> BatchGradient(mx.sym.SoftmaxOutput(data, normalization='batch')).is_mean
    True
    >>> BatchGradient(mx.sym.SoftmaxOutput(data)).is_mean
    False
    >>> BatchGradient(mx.sym.SoftmaxOutput(data)).adds_rows, BatchGradient(mx.sym.MakeLoss(data)).adds_rows
    (True, False)
    """

    def __init__(self, symbol: Any) -> None:
        losses = [
            attributes.get("normalization", "null") in ("batch", "valid")
            for name, attributes in operators(symbol)
            if name in LOSSES or name in ("MakeLoss", "make_loss")
        ]
        self.is_mixed = len(set(losses)) == 2
        self.is_mean = bool(losses) and all(losses)
        self.adds_rows = not any(losses) and keeps_rows_apart(symbol) and ends_in_losses(symbol)

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


@contextlib.contextmanager
def weighted(totals: OnDevices, weight: float) -> Iterator[None]:
    """Let what is added to the `totals` in the block count so many times; mostly once."""
    _scale(totals, 1 / weight)
    yield
    _scale(totals, weight)


def _scale(totals: OnDevices, factor: float) -> None:
    if factor != 1:
        for on_device in totals:
            for array in on_device.values():
                array *= factor


def divide(totals: OnDevices, samples: int) -> None:
    """Divide the `totals` by the number of true samples of all workers, in place."""
    for on_device in totals:
        for array in on_device.values():
            array /= samples


def reduce(totals: OnDevices, store: Optional[Any]) -> None:
    """Replace each device's array by the sum over devices and workers, in place; through the KVStore, if any."""
    for name in totals[0] if totals else ():
        arrays = [on_device[name] for on_device in totals]
        if store is not None:
            store.pushpull(full_gradient_key(name), arrays, out=arrays)
        else:
            for other in arrays[1:]:
                arrays[0] += other.as_in_context(arrays[0].context)
            for other in arrays[1:]:
                arrays[0].copyto(other)


def spread(first: Dict[str, Any], rows: Sequence[int], devices: Sequence[Any]) -> OnDevices:
    """The full gradient on every device, from the first device's, in proportion to their rows.

    Always derived from the first device's array, so that a checkpoint that holds this one gives back all of them.
    """
    return [first] + [
        {
            name: array.copyto(device) if share == 1 else array.as_in_context(device) * share
            for name, array in first.items()
        }
        for device, share in ((device, count / rows[0]) for device, count in zip(devices[1:], rows[1:]))
    ]


def norms(mean: Dict[str, Any]) -> Dict[str, float]:
    """The Euclidean norm of each parameter's part of the full gradient; not finite if any of its numbers isn't."""
    return {name: _norm(array.asnumpy().ravel()) for name, array in mean.items()}


def _norm(array: Any) -> float:
    # In float64, but never a float64 copy of the whole.
    parts = np.array_split(array, 1 + array.size // 2**16)
    return math.sqrt(sum(float(np.sum(np.square(part, dtype=np.float64))) for part in parts))


def norm(parts: Dict[str, float]) -> float:
    """The norm of the whole, from those of its parts.

    >>> norm({'weight': 3.0, 'bias': 4.0})
    5.0
    """
    return math.sqrt(sum(part * part for part in parts.values()))
