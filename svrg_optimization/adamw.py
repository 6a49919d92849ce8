r"""AdamW, which MXNet 1.9.1 has an operator for, but no optimizer: Adam with decoupled weight decay.

.. math:: w \leftarrow w - \eta_t \Bigl(\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda w\Bigr)

This is PyTorch's form: a step takes the learning rate times the decay off a weight, whatever the gradient is. So the
decay follows the learning rate's schedule. In Loshchilov & Hutter's own form it follows the schedule, but not the rate.

Imports nothing of mxnet but ``mxnet.optimizer`` and the operator, which ``mxnet.optimizer`` has loaded, as parameter
servers need it.
"""

import functools
import math
import numbers
from typing import Any, Dict, Optional, Tuple

import numpy as np
from mxnet import optimizer as opt
from mxnet.ndarray import full
from mxnet.ndarray.contrib import adamw_update

__all__ = ["AdamW"]


class AdamW(opt.Optimizer):
    r"""Adam with decoupled weight decay, what most nets are trained by: ``optimizer='adamw'``.

    With the gradient g, of an `SVRGModule` the variance-reduced one,

    .. math::

        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g, \qquad \hat m_t = m_t / (1 - \beta_1^t), \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2)\, g^2, \qquad \hat v_t = v_t / (1 - \beta_2^t), \\
        w &\leftarrow w - \eta_t \Bigl(\frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda w\Bigr).

    MXNet's ``'adam'`` adds :math:`\lambda w` to the gradient, where :math:`\sqrt{\hat v_t}` divides it again. Here the
    decay is beside the step. So it isn't a part of the objective: `tol` and the history look at the gradient of the
    mean loss alone, and have no bound.

    The optimizer is registered when `AdamW` or `SVRGModule` is imported, unless there is another of that name. Weight
    decay is for parameters whose names end in ``_weight`` or ``_gamma`` unless ``wd_mult`` says otherwise, as with all
    of MXNet's optimizers. float16 weights have moments in float32.

    Parameters
    ----------
    learning_rate : float, optional
        The step, :math:`\eta`; 0.001 by default, or what `lr_scheduler` has.
    beta1 : float, default 0.9
        The part of the old mean of gradients that a step keeps, :math:`\beta_1`.
    beta2 : float, default 0.999
        The part of the old mean of squares that a step keeps, :math:`\beta_2`.
    epsilon : float, default 1e-8
        What keeps the divisor from 0, :math:`\epsilon`.
    **kwargs : dict
        For ``mxnet.optimizer.Optimizer``: `wd` is the weight decay :math:`\lambda`, 0 by default, where PyTorch has
        0.01; `rescale_grad` multiplies the gradient, which Module sets to 1 / batch size; `clip_gradient` is the
        largest size of its numbers; `lr_scheduler` gives the learning rate of each step; `multi_precision` keeps a
        float32 copy of float16 weights; `param_dict` and others are MXNet's own.

    Raises
    ------
    ValueError
        `beta1` or `beta2` isn't at least 0 and less than 1, or `epsilon` isn't positive; or, at the first step, a
        weight or its gradient is ``row_sparse``.

    References
    ----------
    I. Loshchilov and F. Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.

    Examples
    --------
    >>> import mxnet as mx
    >>> optimizer = mx.optimizer.create('adamw', learning_rate=0.5, wd=0.5)
    >>> weight = mx.nd.array([2.0, 2.0, -1.0])
    >>> optimizer.update(0, weight, mx.nd.array([4.0, 0.0, -8.0]), optimizer.create_state(0, weight))
    >>> weight.asnumpy().astype(float).round(4).tolist()
    [1.0, 1.5, -0.25]
    """

    # The decay is no gradient of the objective, see `decouples`.
    decoupled_decay = True

    def __init__(
        self, learning_rate: Optional[float] = None, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        if learning_rate is None and kwargs.get("lr_scheduler") is None:
            learning_rate = 0.001
        super().__init__(learning_rate=learning_rate, **kwargs)
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not (_is_number(value) and 0 <= value < 1):
                raise ValueError("{}={!r} must be a number of at least 0 and less than 1".format(name, value))
        if not (_is_number(epsilon) and 0 < epsilon < math.inf):
            raise ValueError("epsilon={!r} must be a positive number".format(epsilon))
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def create_state(self, index: Any, weight: Any) -> Tuple[Any, Any]:
        """Make the two means of a weight, 0 at first.

        Parameters
        ----------
        index : int or str
            The number or the name of the parameter.
        weight : NDArray
            The parameter.

        Returns
        -------
        tuple of NDArray
            What `update` gets as `state`: the means of the gradients and of their squares.
        """
        self._check_is_dense(index, weight, "weight")
        # In float16 epsilon is 0, and so is the square of 0.0001.
        dtype = np.float32 if weight.dtype == np.float16 else weight.dtype
        return weight.zeros_like().astype(dtype), weight.zeros_like().astype(dtype)

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
        state : tuple of NDArray
            What `create_state` has made, which is replaced.
        """
        self._check_is_dense(index, grad, "gradient")
        self._update_count(index)
        mean, squares = state
        exact = weight.astype(mean.dtype, copy=False)
        adamw_update(
            exact, grad.astype(mean.dtype, copy=False), mean, squares, out=exact,
            rescale_grad=_scalar(self.rescale_grad, weight.context), clip_gradient=self.clip_gradient or -1.0,
            beta1=self.beta1, beta2=self.beta2, eta=self._get_lr(index), wd=self._get_wd(index),
            **self._corrections(index),
        )  # fmt: skip
        if exact is not weight:
            weight[:] = exact

    def _corrections(self, index: Any) -> Dict[str, float]:
        """What makes the operator's m / (sqrt(v) + epsilon) the quotient of the means without their bias."""
        count = self._index_update_count[index]
        # The operator takes its numbers as float32. With the betas that it takes, m and v of the first step are exact.
        of_mean, of_squares = (1 - float(np.float32(beta)) ** count for beta in (self.beta1, self.beta2))
        return {"lr": math.sqrt(of_squares) / of_mean, "epsilon": self.epsilon * math.sqrt(of_squares)}

    def _check_is_dense(self, index: Any, array: Any, what: str) -> None:
        if array.stype != "default":
            raise ValueError(
                "optimizer='adamw': the {} of {!r} is {}, and AdamW moves all of a weight in each step; take 'adam', "
                "or a dense {}".format(what, self.idx2name.get(index, index), array.stype, what)
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


@functools.lru_cache(maxsize=16)
def _scalar(value: float, device: Any) -> Any:
    """A number as the array that the operator wants; to make one takes as long as the operator."""
    return full((1,), value, device)


def decouples(optimizer: Any) -> bool:
    """Whether the weight decay of an optimizer is beside its step, and so no part of the objective."""
    return bool(getattr(optimizer, "decoupled_decay", False))


# Programs have had to register an AdamW of their own: theirs stays.
if "adamw" not in opt.Optimizer.opt_registry:
    opt.register(AdamW)
