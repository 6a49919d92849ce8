"""Does SVRG take away noise on this problem? A monitor of the gradients' variance."""

import logging
import math
import weakref
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from .history import Record
from .svrg.estimator import Gradients
from .svrg.variance import Spreads, Variance, break_even, in_all

__all__ = ["Variance", "VarianceMonitor", "Variances"]

# What is added to a record of the history.
VARIANCES = ("plain_variance", "variance", "variance_ratio", "best_coefficient")


class Variances(NamedTuple):
    """What was measured over an epoch.

    Attributes
    ----------
    epoch : int or None
        Its number; None in a loop of one's own.
    batches : int
        How many batches were measured.
    by_parameter : dict of str to Variance
        For each parameter.
    total : Variance
        Of the whole gradient.
    """

    epoch: Optional[int]
    batches: int
    by_parameter: Dict[str, Variance]
    total: Variance

    def __str__(self) -> str:
        titles = ("gradient of", "plain", "reduced", "ratio", "best coefficient")
        lines = ["{:24} {:>10} {:>10} {:>8} {:>17}".format(*titles)]
        for name, each in [*self.by_parameter.items(), ("all", self.total)]:
            lines.append("{:24} {:10.3g} {:10.3g} {:8.3g} {:17.3g}".format(
                name, each.plain, each.reduced, each.ratio, each.best_coefficient))  # fmt: skip
        return "\n".join(lines)


class VarianceMonitor:
    r"""Measures, over each epoch, the variance of the plain and of the variance-reduced gradient.

    .. math:: \mathrm{ratio} = \frac{V(\nabla_B(w) - \nabla_B(\tilde w))}{V(\nabla_B(w))}, \qquad
              \alpha^* = \frac{\sum \mathrm{Cov}}{\sum \mathrm{Var}}

    By parameter and in all; per sample, before ``rescale_grad`` and weight decay, with the coefficient 1. As the
    weights move in an epoch, what they move by is part of both variances. In a job it is about this worker's batches.

    Give it to `fit` as `monitor`, or to `SVRGModule.install_monitor`. It logs a line an epoch; adds `plain_variance`,
    `variance`, `variance_ratio` and `best_coefficient` to the last record of the module's history; and warns once if
    SVRG isn't worth what it costs. If the ratio is above 1 / (2 + 1 / update_freq), plain steps of as many gradients
    have less noise. Each step copies both gradients to NumPy; without a monitor nothing is copied.

    Parameters
    ----------
    logger : logging.Logger, optional
        Where to say what was found. By default ``logging.getLogger('svrg_optimization.variance_monitor')``.

    Attributes
    ----------
    epochs : list of Variances
        What was measured over each epoch; in a loop of one's own, from one snapshot to the next.

    References
    ----------
    A. Defazio and L. Bottou, "On the ineffectiveness of variance reduced optimization for deep learning", NeurIPS
    2019.

    Examples
    --------
    >>> import mxnet as mx
    >>> import numpy as np
    >>> from svrg_optimization import SVRGModule
    >>> data = np.random.default_rng(0).normal(size=(64, 3))
    >>> output = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=1, no_bias=True, name='fc')
    >>> module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable('label')), label_names=['label'])
    >>> monitor = VarianceMonitor()
    >>> module.fit(mx.io.NDArrayIter(data, data.sum(1) + 1, 8, label_name='label'), num_epoch=2, eval_metric='mse',
    ...            monitor=monitor, initializer=mx.init.Zero(), optimizer_params={'learning_rate': 0.01})
    >>> [epoch.total.ratio < 0.1 for epoch in monitor.epochs]
    [True, True]
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger or logging.getLogger(__name__)
        self.epochs: List[Variances] = []
        self._has_warned = False
        self._owner: Optional[Callable[[], Any]] = None
        self.forget()

    def forget(self) -> None:
        """Begin an epoch anew."""
        self._spreads = Spreads()

    def belong_to(self, module: Any) -> None:
        """Note which module this monitor is installed in; SVRGModule calls this.

        Parameters
        ----------
        module : SVRGModule
            The module.

        Raises
        ------
        ValueError
            Another module has this monitor.
        """
        if self._owner is not None and self._owner() not in (None, module):
            raise ValueError(
                "this VarianceMonitor is installed in another module, whose gradients it measures; make one for each "
                "module"
            )
        self._owner = weakref.ref(module)

    def tic(self) -> None:
        """A batch begins; `fit` calls this."""

    def toc_print(self) -> None:
        """A batch is done; `fit` calls this."""

    def install(self, executor: Any) -> None:
        """Raise TypeError: only an SVRGModule has two gradients to compare.

        Parameters
        ----------
        executor : Executor
            That of a plain Module, which calls this.

        Raises
        ------
        TypeError
            Always.
        """
        raise TypeError("a VarianceMonitor can be installed in an SVRGModule only, whose gradients it compares")

    def look(self, gradients: Sequence[Gradients], rows: int) -> None:
        """Take in the gradients of a step; SVRGModule calls this.

        Parameters
        ----------
        gradients : sequence of Gradients
            By parameter, at the current weights and at the snapshot, before they are corrected.
        rows : int
            How many rows they are summed over.
        """
        self._spreads.add(gradients, rows)

    def end(self, epoch: Optional[int], update_freq: float, record: Optional[Record]) -> Optional[Variances]:
        """End an epoch: note and log what was measured, if there were steps with a snapshot; SVRGModule calls this.

        Parameters
        ----------
        epoch : int or None
            Its number; None in a loop of one's own.
        update_freq : float
            Number of epochs between two snapshots, for what a step costs.
        record : Record or None
            That of the last snapshot, which gets the variances.

        Returns
        -------
        Variances or None
            What was measured; None if no step had a snapshot.
        """
        if not self._spreads.batches:
            return None
        by_parameter = self._spreads.variances()
        found = Variances(epoch, self._spreads.batches, by_parameter, in_all(list(by_parameter.values())))
        self.forget()
        self.epochs.append(found)
        if record is not None:
            _add_to(record, found.total)
        self._say(found, update_freq)
        return found

    def _say(self, found: Variances, update_freq: float) -> None:
        total, most = found.total, break_even(update_freq)
        where = "Variances:" if found.epoch is None else "Epoch[{}] Variances:".format(found.epoch)
        self._logger.info("%s plain=%.4g reduced=%.4g ratio=%.4g best-coefficient=%.3g", where, total.plain,
                          total.reduced, total.ratio, total.best_coefficient)  # fmt: skip
        if total.ratio > most and not self._has_warned:
            self._has_warned = True
            self._logger.warning(
                "%s SVRG isn't worth its cost here: its gradients have %.3g times the variance of plain ones, and a "
                "step costs %.3g gradients, so that it would have to be below %.3g. Take snapshots more often, a "
                "smaller learning rate, or a plain Module", where, total.ratio, 1 / most, most,
            )  # fmt: skip


def _add_to(record: Record, total: Variance) -> None:
    numbers = (total.plain, total.reduced, total.ratio, total.best_coefficient)
    vars(record).update(zip(VARIANCES, (number if math.isfinite(number) else None for number in numbers)))
