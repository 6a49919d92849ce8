r"""The gradient of the objective that an optimizer minimizes, and how far above the minimum the objective can be.

.. math:: f(w) = \frac{1}{n} \sum_{i=1}^{n} f_i(w) + \frac12 \sum_k \lambda_k \lVert w_k \rVert^2

The mean loss, and for each parameter k its weight decay, as the optimizer applies it.
"""

import math
from typing import Any, Callable, Dict, Mapping, Optional

from ..mxnet_api import memory
from . import full_gradient


def decays(weight_decay: Mapping[str, float], scale: float) -> Dict[str, float]:
    r"""The :math:`\lambda_k` of the objective: an optimizer adds the decay to the gradient times `scale`.

    `scale` is rescale_grad times the rows of a step, which is 1 by default; then the decays are the optimizer's own.

    >>> decays({'weight': 0.5, 'bias': 0.0}, scale=2.0)
    {'weight': 0.25, 'bias': 0.0}
    """
    return {name: each / (scale or 1.0) for name, each in weight_decay.items()}


def gradient_norm(
    mu: Mapping[str, Any], norms: Mapping[str, float], weights: Mapping[str, Any], decays: Mapping[str, float]
) -> float:
    """The norm of the objective's gradient, from the full gradient, its `norms` by parameter, and the weights there.

    >>> import mxnet as mx
    >>> mu, weights = {'w': mx.nd.array([3.0, 0.0])}, {'w': mx.nd.array([0.0, 8.0])}
    >>> gradient_norm(mu, {'w': 3.0}, weights, {'w': 0.5})
    5.0
    """
    parts = dict(norms)
    for name, decay in decays.items():
        if decay and name in parts:
            gradient = mu[name] + _beside(weights[name], mu[name]) * decay
            parts[name] = full_gradient.norms({name: gradient})[name]
    return full_gradient.norm(parts)


def _beside(weight: Any, mu: Any) -> Any:
    """A weight in the type of its full gradient, on the same device, and dense."""
    return memory.as_dense(weight).astype(mu.dtype).as_in_context(mu.context)


def residual_norm(
    mu: Mapping[str, Any], weights: Mapping[str, Any], decays: Mapping[str, float],
    residual: Callable[[str, Any, Any], Any],
) -> float:  # fmt: skip
    """The norm of what takes the place of the gradient if a regularizer isn't smooth, of all parameters in `decays`.

    `residual` gets the name, the weight and the gradient of mean loss and weight decay.
    """
    parts = {}
    for name, decay in decays.items():
        if name in mu:
            found = residual_of(name, mu[name], weights[name], decay, residual)
            parts[name] = full_gradient.norms({name: found})[name]
    return full_gradient.norm(parts)


def residual_of(name: str, mu: Any, weight: Any, decay: float, residual: Callable[[str, Any, Any], Any]) -> Any:
    """The residual of one parameter."""
    weight = _beside(weight, mu)
    return residual(name, weight, mu + weight * decay)


def bound(gradient_norm: float, decays: Mapping[str, float]) -> Optional[float]:
    r"""How much at most the objective is above its minimum, if the loss is convex; None if not all parameters decay.

    .. math:: f(w) - f^* \le \frac{\lVert \nabla f(w) \rVert^2}{2 \sigma}, \qquad \sigma = \min_k \lambda_k

    >>> bound(0.5, {'w': 0.25, 'v': 0.5}), bound(0.5, {'w': 0.25, 'v': 0.0})
    (0.5, None)
    """
    sigma = min(decays.values(), default=0.0)
    return gradient_norm * gradient_norm / (2 * sigma) if 0 < sigma < math.inf else None
