r"""The variance-reduced gradient of Johnson & Zhang (2013, figure 1), with the coefficient of Yin et al. (2025).

.. math:: g = \nabla_B(w) - \alpha \bigl(\nabla_B(\tilde w) - b\,\mu\bigr)

The gradients are summed over the b rows of the batch B, before ``rescale_grad``; :math:`\mu` is the full gradient at
the snapshot :math:`\tilde w`, the mean per sample. With :math:`\alpha = 1` this is SVRG.
"""

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

import numpy as np

from ..mxnet_api import memory
from ..mxnet_api.prepared import operation

# Of fewer elements, b mu is kept: a call takes longer than what it computes.
SMALL = 8192

Operation = Callable[[], None]
# A coefficient for all parameters, or one for each, by name.
Alpha = Union[float, Mapping[str, float]]
# So many different batches and coefficients are prepared for.
_MOST_OPERATIONS = 16
# Parameter name -> array, for each device.
OnDevices = List[Dict[str, Any]]


def full_gradient_dtype(dtype: Any) -> type:
    """The type in which the full gradient of a parameter of type `dtype` is summed and kept.

    >>> full_gradient_dtype(np.float16).__name__, full_gradient_dtype(np.float64).__name__
    ('float32', 'float64')
    """
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def widened(gradient: Any) -> Any:
    """`gradient` as a dense NDArray of the full gradient's type: itself, if it is one already."""
    dense = memory.as_dense(gradient)
    return dense.astype(full_gradient_dtype(dense.dtype), copy=False)


def like(array: Any, other: Any) -> Any:
    """`array` in the type and on the device of another one: itself, if it is so already."""
    return array.astype(other.dtype, copy=False).as_in_context(other.context)


class Estimator:
    """The variance-reduced gradient of one parameter on one device."""

    def direction(
        self, gradient: Any, snapshot_gradient: Any, mu: Any, rows: int, alpha: float = 1.0
    ) -> List[Operation]:
        """The operations that turn `gradient` into g, to be called in this order whenever the arrays have new contents.

        Parameters
        ----------
        gradient, snapshot_gradient : NDArray
            Gradient of the batch at the current weights and at the snapshot, of one shape, type and storage, summed
            over the batch, before ``rescale_grad``. The first becomes g; the second is used up.
        mu : NDArray
            The full gradient, mean per sample; dense, float32 or wider.
        rows : int
            b, the rows of the batch; 1 if the gradients are means over the rows.
        alpha : float
            The coefficient.

        Examples
        --------
        >>> import mxnet as mx
        >>> gradient, snapshot_gradient, mu = mx.nd.array([3.0]), mx.nd.array([1.0]), mx.nd.array([0.25])
        >>> for operate in Estimator().direction(gradient, snapshot_gradient, mu, rows=2):
        ...     operate()
        >>> gradient.asscalar()
        2.5
        """
        if widened(gradient) is not gradient:
            return [lambda: self._through_wide_copies(gradient, snapshot_gradient, mu, rows, alpha)]
        scaled = (
            [operation("_mul_scalar", [snapshot_gradient], [snapshot_gradient], scalar=alpha)] if alpha != 1 else []
        )
        # The difference comes first: near the optimum it is small, and nearly exact.
        difference = operation("broadcast_sub", [gradient, snapshot_gradient], [gradient])
        if mu.size < SMALL:
            return [*scaled, difference, operation("broadcast_add", [gradient, mu * (alpha * rows)], [gradient])]
        # b mu needs an array; that of the snapshot's gradient is free now.
        product = operation("_mul_scalar", [mu], [snapshot_gradient], scalar=alpha * rows)
        return [*scaled, difference, product, operation("broadcast_add", [gradient, snapshot_gradient], [gradient])]

    def _through_wide_copies(self, gradient: Any, snapshot_gradient: Any, mu: Any, rows: int, alpha: float) -> None:
        # float16 loses the small difference of two large gradients, and row_sparse arrays can't be corrected in place.
        wide = widened(gradient)
        for operate in self.direction(wide, widened(snapshot_gradient), mu, rows, alpha):
            operate()
        narrow = wide.astype(gradient.dtype)
        # All rows are stored: weight decay and momentum are for those of zeros, too.
        (narrow if gradient.stype == "default" else memory.with_all_rows(narrow)).copyto(gradient)


def direction_on_rows(
    gradient: Any, snapshot_gradient: Any, mu: Any, rows: Any, alpha: float = 1.0,
    add_up: Callable[[Any], Any] = lambda difference: difference,
) -> Any:  # fmt: skip
    """G on the rows of a weight that a batch touches, from NumPy arrays; `gradient` is used up.

    The other rows of both gradients are 0. `mu` is the full gradient on these rows in lazy steps; in reweighted ones,
    D times that. `rows` and `alpha` are those of `Estimator.direction`; `add_up` adds up the differences of a job's
    workers.

    >>> direction_on_rows(np.array([3.0]), np.array([1.0]), np.array([0.25]), rows=2)
    array([2.5])
    """
    gradient -= snapshot_gradient if alpha == 1 else alpha * snapshot_gradient
    gradient = add_up(gradient)
    gradient += (alpha * rows) * mu
    return gradient


class Gradients(NamedTuple):
    """The arrays of one parameter's gradients, on each device: at the current weights, and at the snapshot."""

    name: str
    live: Sequence[Any]
    snapshot: Sequence[Any]


def coefficient_of(name: str, alpha: Alpha) -> float:
    """The coefficient of a parameter."""
    found = alpha.get(name, 1.0) if isinstance(alpha, Mapping) else alpha
    if not 0 <= found < float("inf"):
        raise ValueError("the coefficient of {} is {}: at() must give finite numbers of at least 0".format(name, found))
    return found


class Correction:
    """Corrects the gradients of all parameters on all devices, by operations that are made once for the same arrays."""

    def __init__(self, estimator: Estimator) -> None:
        self._estimator = estimator
        self.forget()

    def forget(self) -> None:
        """Let go of the arrays."""
        self._arrays: Tuple[Any, Any] = (None, None)
        self._operations: Dict[Any, List[Operation]] = {}

    def __call__(self, gradients: List[Gradients], mu: OnDevices, rows: Sequence[int], alpha: Alpha) -> None:
        """Replace the gradients at the current weights by the variance-reduced gradients.

        `gradients` and `mu` are the same lists as long as their arrays are the same. `rows` are those on each device. A
        parameter that isn't in `mu` keeps its gradient: it had none when the snapshot was taken. `alpha` is a number,
        or has one for each parameter, 1 for those that it lacks.
        """
        if self._arrays[0] is not gradients or self._arrays[1] is not mu or len(self._operations) == _MOST_OPERATIONS:
            self._arrays, self._operations = (gradients, mu), {}
        key = (*rows, alpha if isinstance(alpha, (int, float)) else tuple(alpha.items()))
        if key not in self._operations:
            self._operations[key] = [
                operate
                for name, live, snapshot in gradients
                for k, on_device in enumerate(mu)
                if name in on_device
                for operate in self._estimator.direction(
                    live[k], snapshot[k], on_device[name], rows[k], coefficient_of(name, alpha)
                )
            ]
        for operate in self._operations[key]:
            operate()
