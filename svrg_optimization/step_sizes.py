r"""Learning rates that choose themselves, from what SVRG computes anyway.

A schedule here is given as ``lr_scheduler``, like mxnet's own. It has the settings and the rate that it has come to;
`SVRGModule` sets the rate, by the rule in ``svrg/auto_step.py`` or ``svrg/barzilai_borwein.py``.

Imports nothing of mxnet but ``mxnet.lr_scheduler``, as parameter servers need it.
"""

import numbers
from typing import Any

from mxnet import lr_scheduler

__all__ = ["AutoStep", "BarzilaiBorwein"]

# The optimizers whose step is the rate times the gradient, plus momentum times the last move; or that and a prox.
OPTIMIZERS = ("sgd", "nag", "proximalsgd")


class StepSize(lr_scheduler.LRScheduler):
    """A learning rate that an `SVRGModule` sets: `base_lr` is what it has come to."""

    # Whether the momentum is chosen, too: then the optimizer's isn't the user's.
    chooses_momentum = False

    def __call__(self, num_update: int) -> float:
        """The learning rate, whatever the number of updates. RuntimeError if there is none yet."""
        if not self.base_lr:
            raise RuntimeError(
                "{}() has no learning rate yet: it is chosen from what the snapshots of an SVRGModule show. A plain "
                "Module can't use it; in a loop of your own, call update_full_grads() before the first forward()"
                "".format(type(self).__name__)
            )
        return float(self.base_lr)

    def begin_anew(self) -> None:
        """Forget which rate it had come to."""
        self.base_lr = 0.0


class AutoStep(StepSize):
    r"""The learning rate and the momentum from the gradients that SVRG computes anyway: nothing is to be tuned.

    With :math:`L` the largest secant :math:`\lVert y \rVert / \lVert d \rVert` seen in a period, where
    :math:`d = w - \tilde w` and :math:`y` is the difference of a batch's gradients at both, and with a dial
    :math:`\theta` that each snapshot turns up or down,

    .. math:: \beta = \max(0, 1 - 1/\theta), \qquad \eta = \frac{0.7}{L} \min(1, \theta (1 - \beta)).

    Each snapshot also takes a Newton step in the span of the last moves. If training has become worse, it goes back to
    the snapshot before, with a shorter step. ``optimizer_params={'learning_rate': 'auto'}`` is short for this schedule.

    For the optimizers ``'sgd'``, ``'nag'`` and ``'proximalsgd'``. The momentum is chosen too, unless the user gives
    one; of an optimizer that is given as an instance, 0 counts as not given.

    Parameters
    ----------
    pairs : int, default 5
        How many of the last moves span the Newton step; 0 for none. They take twice as many arrays of the network's
        size.

    Raises
    ------
    ValueError
        `pairs` is no integer of at least 0.

    References
    ----------
    The secant as a local smoothness: Y. Malitsky and K. Mishchenko, "Adaptive gradient descent without descent", ICML
    2020. The Newton step in a subspace of differences: J. Nocedal and S. Wright, "Numerical Optimization", 2006,
    section 7.2 (limited memory) and 5.2; D. Goldfarb, 1970. Momentum for ill-conditioned problems: B. Polyak, 1964.

    Examples
    --------
    >>> import mxnet as mx
    >>> optimizer = mx.optimizer.create('sgd', lr_scheduler=AutoStep(pairs=2))
    >>> AutoStep(pairs=-1)
    Traceback (most recent call last):
        ...
    ValueError: pairs=-1 must be an integer of at least 0: how many of the last moves are kept, for instance 5
    """

    pairs: int

    def __init__(self, pairs: int = 5) -> None:
        if isinstance(pairs, bool) or not isinstance(pairs, numbers.Integral) or pairs < 0:
            raise ValueError(
                "pairs={!r} must be an integer of at least 0: how many of the last moves are kept, for instance "
                "5".format(pairs)
            )
        super().__init__(base_lr=0.0)
        self.pairs = int(pairs)


class BarzilaiBorwein(StepSize):
    r"""SVRG-BB: at each snapshot the learning rate of Barzilai and Borwein, from the last two snapshots.

    .. math:: \eta = \frac{1 - \beta}{m} \frac{\lVert s \rVert^2}{s \cdot y}

    :math:`s` is the difference of the two snapshots, :math:`y` that of the objective's gradients there, m the number of
    steps between them, :math:`\beta` the optimizer's momentum (of which the paper knows nothing). The rate stays if
    :math:`s \cdot y \le 0`. If training has become worse, it goes back to the snapshot before, and the rate is halved.

    For the optimizers ``'sgd'``, ``'nag'`` and ``'proximalsgd'``.

    Parameters
    ----------
    base_lr : float, default 0.01
        The rate until the second snapshot. An optimizer's `learning_rate` takes its place.

    Raises
    ------
    ValueError
        `base_lr` isn't positive.

    References
    ----------
    C. Tan, S. Ma, Y.-H. Dai and Y. Qian, "Barzilai-Borwein step size for stochastic gradient descent", NIPS 2016,
    algorithm 1.

    Examples
    --------
    >>> BarzilaiBorwein(base_lr=0.1)(num_update=7)
    0.1
    """

    def __init__(self, base_lr: float = 0.01) -> None:
        if isinstance(base_lr, bool) or not isinstance(base_lr, numbers.Real) or not 0 < base_lr < float("inf"):
            raise ValueError("base_lr={!r} must be a positive number: the first learning rate".format(base_lr))
        super().__init__(base_lr=float(base_lr))
        self.first: float = 0.0

    def begin_anew(self) -> None:
        """Take the first rate again."""
        # An optimizer's learning_rate may have been put in the place of what the constructor got.
        self.first = self.base_lr = self.first or self.base_lr


def chosen_by(optimizer: Any) -> Any:
    """The `StepSize` of an optimizer, or None."""
    schedule = getattr(optimizer, "lr_scheduler", None)
    return schedule if isinstance(schedule, StepSize) else None
