r"""SGD with regularizers that aren't smooth: L1, groups, and weights that can't be negative.

.. math:: w \leftarrow \mathrm{prox}_{\eta R}\bigl(w - \eta\,(g + \lambda w) + \beta\,(w - w_{\text{before}})\bigr),
          \qquad \mathrm{prox}_{R}(z) = \arg\min_u R(u) + \tfrac12 \lVert u - z \rVert^2

Imports nothing of mxnet but ``mxnet.optimizer``, as parameter servers need it.
"""

import numbers
from typing import Any, Callable, Mapping, Optional, Sequence

from mxnet import optimizer as opt

__all__ = ["ProximalSGD"]

_GROUPS = (None, "rows", "columns")


@opt.register
class ProximalSGD(opt.Optimizer):
    r"""SGD that gives sparse weights: with SVRG this is Prox-SVRG.

    The regularizer is

    .. math:: R(w) = \ell_1 \sum_j |w_j| \quad \text{or} \quad \ell_1 \sum_G \lVert w_G \rVert,

    and infinite for a negative weight if `nonnegative`. Weight decay `wd` is part of the gradient, as with SGD: both
    together are the elastic net. As weight decay is, L1 and `nonnegative` are for parameters whose names end in
    ``_weight`` or ``_gamma`` unless ``wd_mult`` says otherwise; L1 is multiplied by ``wd_mult``.

    Parameters
    ----------
    learning_rate : float, optional
        The step, :math:`\eta`; 0.01 by default, or what `lr_scheduler` has.
    l1 : float, default 0.0
        The weight of the regularizer, :math:`\ell_1`, at least 0.
    group : {None, 'rows', 'columns'}, default None
        With it L1 is of the Euclidean norms of a weight's rows (an output's weights, or a filter) or columns (an
        input's weights): whole groups become zero.
    nonnegative : bool, default False
        Whether weights below 0 are set to 0.
    momentum : float, default 0.0
        The part of the last move that is added to a step, :math:`\beta`; the prox is part of that move, so the weights
        come to rest at the minimum.
    **kwargs : dict
        For ``mxnet.optimizer.Optimizer``: `wd` is the weight decay; `rescale_grad` multiplies the gradient, which
        Module sets to 1 / batch size; `clip_gradient` is the largest size of its numbers; `lr_scheduler` gives the
        learning rate of each step; `param_dict` and others are MXNet's own.

    Raises
    ------
    ValueError
        `l1` or `momentum` is negative or not finite, or there is no such `group`; or, at the first step, a weight
        without rows and columns is to be grouped.

    References
    ----------
    L. Xiao and T. Zhang, "A proximal stochastic gradient method with progressive variance reduction", SIAM J. Optim.
    2014, figure 1.

    Examples
    --------
    >>> import mxnet as mx
    >>> optimizer = mx.optimizer.create('proximalsgd', learning_rate=0.5, l1=1.0)
    >>> weight = mx.nd.array([2.0, 0.25, -1.0])
    >>> optimizer.update(0, weight, mx.nd.zeros(3), optimizer.create_state(0, weight))
    >>> weight.asnumpy().tolist()
    [1.5, 0.0, -0.5]
    """

    def __init__(
        self, learning_rate: Optional[float] = None, l1: float = 0.0, group: Optional[str] = None,
        nonnegative: bool = False, momentum: float = 0.0, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate=learning_rate, **kwargs)
        for name, value in (("l1", l1), ("momentum", momentum)):
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            if not (is_number and 0 <= value < float("inf")):
                raise ValueError("{}={!r} must be a number of at least 0".format(name, value))
        if group not in _GROUPS:
            raise ValueError("group={!r} must be None, 'rows' or 'columns'".format(group))
        self.l1, self.group, self.nonnegative, self.momentum = l1, group, nonnegative, momentum
        # In reweighted steps, how many times as much the regularizer is applied to each row: a column of numbers.
        self.row_factors: Any = None

    def create_state(self, index: Any, weight: Any) -> Any:
        """Make the last move of a weight, 0 at first, if there is momentum.

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.
        weight : NDArray
            The parameter.

        Returns
        -------
        NDArray or None
            What `update` gets as `state`.

        Raises
        ------
        ValueError
            The weight has no rows and columns, and `group` is given.
        """
        self._check_groups(index, weight)
        return weight.zeros_like() if self.momentum else None

    def _check_groups(self, index: Any, weight: Any) -> None:
        if self.group and self._multiplier(index) and len(weight.shape) < 2:
            raise ValueError(
                "group={!r}: the weight {!r} has the shape {}, and so no rows and columns. Give it wd_mult=0; if "
                "servers run the optimizer, set MXNET_UPDATE_ON_KVSTORE=0 for all workers, since servers don't know "
                "shapes".format(self.group, self.idx2name.get(index, index), weight.shape)
            )

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Take a step.

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.
        weight : NDArray
            The parameter, which is replaced.
        grad : NDArray
            Its gradient, summed over the batch, before ``rescale_grad``.
        state : NDArray or None
            What `create_state` has made: the last move, which is replaced.
        """
        self._update_count(index)
        lr, wd = self._get_lr(index), self._get_wd(index)
        gradient = grad * self.rescale_grad
        if self.clip_gradient is not None and self.clip_gradient > 0:  # otherwise it is off, as with SGD
            gradient = gradient.clip(-self.clip_gradient, self.clip_gradient)
        moved = weight - lr * (gradient + wd * weight)
        if state is not None:
            moved += self.momentum * state
        moved = self.prox(index, moved, lr if self.row_factors is None else lr * self.row_factors)
        if state is not None:
            state[:] = moved - weight
        weight[:] = moved

    def prox(self, index: Any, z: Any, step: float) -> Any:
        r"""Apply the regularizer, :math:`\mathrm{prox}_{\eta R}(z)`.

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.
        z : NDArray
            The parameter after a step along the gradient.
        step : float or NDArray
            The step, :math:`\eta`; or one for each row.

        Returns
        -------
        NDArray
            Of the same shape.
        """
        if not self.has_kinks(index):
            return z
        threshold = step * self.l1 * self._multiplier(index)
        kept, direction = self._kept(z, threshold)
        # The sum has no -0.
        return kept * (z - threshold * direction) + 0.0

    def residual(self, index: Any, weight: Any, gradient: Any, step: float, scale: float) -> Any:
        r"""Compute the prox-gradient residual, which takes the gradient's place: it is 0 at the minimum.

        .. math:: \frac{1}{\eta} \bigl(w - \mathrm{prox}_{\eta R / s}(w - \eta \nabla f(w))\bigr)

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.
        weight : NDArray
            The parameter, w.
        gradient : NDArray
            The gradient of the objective without the regularizer.
        step : float
            The step, :math:`\eta`.
        scale : float
            What the objective's regularizer is the optimizer's divided by, s.

        Returns
        -------
        NDArray
            Of the same shape; the gradient itself, where there is no regularizer.
        """
        if not self.has_kinks(index):
            return gradient
        weighted = self.l1 * self._multiplier(index) / scale
        kept, direction = self._kept(weight - step * gradient, step * weighted)
        # What the formula says in both cases, but not by its difference: of a short step that would be rounding.
        return kept * (gradient + weighted * direction) + (1 - kept) * (weight / step)

    def has_kinks(self, index: Any) -> bool:
        """Say whether this parameter has a regularizer that isn't smooth.

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.

        Returns
        -------
        bool
            True if there are `l1` or `nonnegative`, and its ``wd_mult`` isn't 0.
        """
        return bool((self.l1 or self.nonnegative) and self._multiplier(index))

    def penalty(self, index: Any, weight: Any, scale: float) -> float:
        """Compute the regularizer of a weight, divided by the `scale`.

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.
        weight : NDArray
            The parameter.
        scale : float
            What the objective's regularizer is the optimizer's divided by.

        Returns
        -------
        float
            What the regularizer adds to the objective.
        """
        weighted = self.l1 * self._multiplier(index) / scale
        if not weighted:
            return 0.0
        sizes = weight.astype("float64").abs() if self.group is None else self._sizes_of_groups(weight)
        return weighted * float(sizes.sum().asscalar())

    def _sizes_of_groups(self, z: Any) -> Any:
        # Squares in float64: a group may be large, or of float16.
        axis = 0 if self.group == "rows" else 1
        return z.astype("float64").norm(axis=[k for k in range(len(z.shape)) if k != axis], keepdims=True)

    def _kept(self, z: Any, threshold: Any) -> Any:
        """Which numbers the prox leaves, as 1 and 0; and the direction in which it makes these smaller."""
        positive = z.relu() if self.nonnegative else z
        sizes = positive.abs() if self.group is None else self._sizes_of_groups(positive).astype(z.dtype)
        kept = (sizes > threshold) * (z > 0) if self.nonnegative else (sizes > threshold) * (z == z)
        return kept, positive / (sizes + (sizes == 0))

    def _multiplier(self, index: Any) -> float:
        """What this parameter's weight decay is multiplied by."""
        decay = vars(self)["wd"]
        self.wd = 1.0
        try:
            (multiplier,) = self._get_wds([index])
        finally:
            self.wd = decay
        return float(multiplier)


def kinks(optimizer: Any, keys: Mapping[str, Any]) -> Sequence[str]:
    """The names of the parameters whose regularizer isn't smooth at 0, in each number for itself or in groups."""
    if not (hasattr(optimizer, "residual") and (optimizer.l1 or optimizer.nonnegative)):
        return []
    return [name for name, key in keys.items() if optimizer.has_kinks(key)]


def penalty(optimizer: Any, keys: Mapping[str, Any], scale: float) -> Optional[Callable[..., float]]:
    """`ProximalSGD.penalty` by a parameter's name and weight; None of an optimizer without one."""
    if not hasattr(optimizer, "penalty"):
        return None
    return lambda name, weight: float(optimizer.penalty(keys[name], weight, scale))


def residual(optimizer: Any, keys: Mapping[str, Any], scale: float) -> Optional[Callable[..., Any]]:
    """`ProximalSGD.residual` by a parameter's name, weight, gradient and a step; None of an optimizer without one.

    `keys` are those by which the optimizer knows the parameters.
    """
    if not hasattr(optimizer, "residual"):
        return None
    return lambda name, weight, gradient, step: optimizer.residual(keys[name], weight, gradient, step, scale)
