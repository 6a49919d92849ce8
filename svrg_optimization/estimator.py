r"""The estimator of Johnson & Zhang (2013), on the arrays of one parameter on one device.

.. math:: g = \nabla_B(w) - \bigl(\nabla_B(\tilde w) - b\,\mu\bigr)

The gradients are summed over the b rows of the batch B, before ``rescale_grad``; :math:`\mu` is the
full gradient at the snapshot :math:`\tilde w`, the mean per sample.
"""

from functools import partial
from typing import Any, Callable, List, Sequence

import mxnet as mx
import numpy as np

from .mxnet_internals import invocation, operation


def full_gradient_dtype(dtype: Any) -> type:
    """The type in which the full gradient of a parameter of type `dtype` is summed and kept.

    >>> full_gradient_dtype(np.float16).__name__, full_gradient_dtype(np.float64).__name__
    ('float32', 'float64')
    """
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def widened(gradient: Any) -> Any:
    """`gradient` as a dense NDArray of the full gradient's type: itself, if it is one already."""
    dense = gradient if gradient.stype == "default" else gradient.tostype("default")
    return dense.astype(full_gradient_dtype(dense.dtype), copy=False)


def reduce_variance(gradient: Any, snapshot_gradient: Any, full_gradient: Any) -> None:
    """Replace `gradient` by the variance-reduced gradient, in place.

    Parameters
    ----------
    gradient, snapshot_gradient : NDArray
        Gradient of the batch at the current weights and at the snapshot, of one shape, type and storage,
        summed over the batch, before ``rescale_grad``.
    full_gradient : NDArray
        The full gradient for as many rows as the batch has, b * mu; dense, float32 or wider.

    Examples
    --------
    >>> import mxnet as mx
    >>> gradient = mx.nd.array([3.0])
    >>> reduce_variance(gradient, mx.nd.array([1.0]), mx.nd.array([0.5]))
    >>> gradient.asscalar()
    2.5
    """
    for operate in rule(gradient, snapshot_gradient, full_gradient):
        operate()


def rule(gradient: Any, snapshot_gradient: Any, full_gradient: Any) -> List[Callable[[], None]]:
    """The operations of `reduce_variance`, to be called in this order, as often as the arrays have new contents."""
    if widened(gradient) is not gradient:
        return [partial(_reduce_variance_of_narrow, gradient, snapshot_gradient, full_gradient)]
    # In this order: the difference near the optimum is small and nearly exact. And where the live weights are: whoever
    # computes the snapshot is done, and leaves its core to the thread that hands over the next step.
    return [
        operation("broadcast_sub", [gradient, snapshot_gradient], [gradient]),
        operation("broadcast_add", [gradient, full_gradient], [gradient]),
    ]


def _reduce_variance_of_narrow(gradient: Any, snapshot_gradient: Any, full_gradient: Any) -> None:
    # float16 loses the small difference of two large gradients, and row_sparse arrays can't be corrected in
    # place: both go through a dense, wide copy.
    corrected = widened(gradient) - widened(snapshot_gradient) + full_gradient
    corrected.astype(gradient.dtype).tostype(gradient.stype).copyto(gradient)


class FusedRule:
    """`reduce_variance` for several parameters of one device at once: one call, where each operator costs as much.

    Parameters
    ----------
    parameters : int
        How many.

    Examples
    --------
    >>> gradients = [mx.nd.array([3.0]), mx.nd.array([5.0])]
    >>> arrays = gradients, [mx.nd.array([1.0]), mx.nd.array([1.0])], [mx.nd.array([0.5]), mx.nd.array([0.25])]
    >>> correct = FusedRule(2).of(*arrays)
    >>> correct()
    >>> [gradient.asscalar() for gradient in gradients]
    [2.5, 4.25]
    """

    def __init__(self, parameters: int) -> None:
        corrected = []
        for i in range(parameters):
            here, there, full = (mx.sym.Variable("{}{}".format(name, i)) for name in ("here", "there", "full"))
            corrected.append(here - there + full)
        self._operator = mx.nd.CachedOp(mx.sym.Group(corrected), [("static_alloc", True), ("static_shape", True)])

    def of(self, gradients: Sequence[Any], at_snapshot: Sequence[Any], full: Sequence[Any]) -> Callable[[], None]:
        """A function that replaces `gradients`, of full batches and one type, by the variance-reduced gradients."""
        inputs = [array for each in zip(gradients, at_snapshot, full) for array in each]
        return invocation(self._operator, inputs, list(gradients))
