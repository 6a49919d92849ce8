"""Does SVRG help on my problem? One call says so, for a trained or a fresh module."""

import copy
import logging
import math
import warnings
from typing import Any, Dict, List, NamedTuple, Optional, Set

import mxnet as mx
from mxnet.module import Module

from .compute import data
from .mxnet_api import checks, internals
from .svrg import networks
from .svrg.variance import break_even
from .svrg_module import SVRGModule
from .variance_monitor import VarianceMonitor, Variances

__all__ = ["Diagnosis", "Point", "diagnose"]

# Where in a period the variances are measured: as by Defazio & Bottou.
_PARTS = (0.02, 0.11, 0.33, 1.0)
_QUIET = logging.getLogger(__name__ + ".quiet")
_QUIET.setLevel(logging.CRITICAL)


class Point(NamedTuple):
    """A point of a period, and the variances of the gradients there, over all batches.

    Attributes
    ----------
    part : float
        Where in the period, as a part of its steps.
    variances : Variances
        What was measured there.
    """

    part: float
    variances: Variances

    @property
    def ratio(self) -> float:
        """Of the whole gradient."""
        return self.variances.total.ratio


class Diagnosis(NamedTuple):
    """What `diagnose` has found; ``print`` says it in words.

    Attributes
    ----------
    points : list of Point
        The variances at about 2, 11, 33 and 100 % of a period.
    ratio : float
        Of the whole gradient: the variance of SVRG's, as a part of the plain one's, over the period. NaN if there is no
        noise.
    break_even : float
        Below this, SVRG is worth its cost: 1 / (2 + 1 / update_freq).
    helps : bool
        Whether the ratio is below it.
    update_freq : int
        The epochs of the period.
    batch_size : int
        The rows of a batch.
    steps : int
        The steps of the period.
    learning_rate : float or None
        That at the end of the period; None if the optimizer has none.
    """

    points: List[Point]
    ratio: float
    break_even: float
    helps: bool
    update_freq: int
    batch_size: int
    steps: int
    learning_rate: Optional[float]

    def __str__(self) -> str:
        if math.isnan(self.ratio):
            return (
                "SVRG doesn't help here: there is no noise to take away, since each batch has the same gradient. Take "
                "smaller batches, or a full-batch method."
            )
        lines = [
            "SVRG {} here: its gradients have {:.3g} times the variance of plain ones, and below {:.3g} it is worth "
            "its cost.".format("helps" if self.helps else "doesn't help", self.ratio, self.break_even),
            "A period of {} epochs, {} steps with batches of {}, learning_rate={}:".format(
                self.update_freq, self.steps, self.batch_size,
                None if self.learning_rate is None else "%.3g" % self.learning_rate),
            "  after  variance, plain  reduced     ratio   best coefficient",
        ]  # fmt: skip
        for part, (_, _, _, total) in self.points:
            lines.append("  {:4.0%} {:16.3g} {:8.3g} {:9.3g} {:18.3g}".format(
                part, total.plain, total.reduced, total.ratio, total.best_coefficient))  # fmt: skip
        if not self.helps:
            lines.append("Smaller: with snapshots more often, a smaller learning rate, or larger batches. Nets with "
                         "BatchNorm, and noisy inputs, often have no small ratio.")  # fmt: skip
        return "\n".join(lines)


def diagnose(
    module: Module, train_data: Any, *, update_freq: Optional[int] = None, optimizer: Any = None,
    optimizer_params: Any = None,
) -> Diagnosis:  # fmt: skip
    """Measure how much noise SVRG would take away from here: train a copy for one period, and look.

    Parameters
    ----------
    module : Module
        Trained or fresh; a plain Module or an SVRGModule. It is left as it is. It must have weights.
    train_data : DataIter
        What it is trained on; it is left at its start.
    update_freq : int, optional
        Number of epochs between two snapshots: the length of the period. By default that of the module, or 2.
    optimizer : str or Optimizer, optional
        The name of an optimizer or an instance. By default a copy of the module's, without its states; if it has none,
        ``'sgd'``.
    optimizer_params : dict, optional
        The settings of an optimizer that is given by name, `learning_rate` for instance. By default those of the
        module's optimizer; if it has none, the learning rate is ``'auto'``.

    Returns
    -------
    Diagnosis
        Whether SVRG helps, and the variances.

    Raises
    ------
    RuntimeError
        The module isn't bound or has no weights.
    TypeError
        `module` is no Module, or `train_data` no DataIter.
    ValueError
        `train_data` has no batches, or the network doesn't end in losses.

    Notes
    -----
    It costs the period, and four times an epoch, on the module's first device. At each of the points the weights stand
    still, so that the variances are exact. Random numbers are drawn, as in training.

    Examples
    --------
    >>> import numpy as np
    >>> data = np.random.default_rng(0).normal(size=(64, 3))
    >>> output = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=1, no_bias=True, name='fc')
    >>> module = mx.mod.Module(mx.sym.LinearRegressionOutput(output, mx.sym.Variable('label')), label_names=['label'])
    >>> train = mx.io.NDArrayIter(data, data.sum(1) + 1, 8, label_name='label')
    >>> module.bind(train.provide_data, train.provide_label)
    >>> module.init_params(mx.init.Zero())
    >>> diagnose(module, train, optimizer_params={'learning_rate': 0.01}).helps
    True
    """
    _check(module, train_data)
    freq = checks.update_freq(getattr(module, "update_freq", 2) if update_freq is None else update_freq)
    probe = _copy_of(module, train_data, freq, optimizer, optimizer_params)
    if probe._steps is not None:
        # The first period finds out which steps to take.
        _train(probe, train_data, set())
    steps = freq * data.count_batches(train_data)
    places = _train(probe, train_data, {max(1, round(part * steps)) for part in _PARTS})
    points = [Point(step / steps, _measure(probe, train_data, place)) for step, place in places.items()]
    plain, reduced = (sum(getattr(point.variances.total, which) for point in points) for which in ("plain", "reduced"))
    ratio, most = reduced / plain if plain > 0 else math.nan, break_even(freq)
    rate = internals.learning_rate(probe._users_optimizer(), probe._clock.steps)
    return Diagnosis(points, ratio, most, ratio < most, freq, sum(internals.rows_on_devices(probe)), steps, rate)


def _check(module: Any, train_data: Any) -> None:
    if not isinstance(module, Module):
        raise TypeError("module={!r} must be an mxnet.module.Module or an SVRGModule".format(module))
    if not isinstance(train_data, mx.io.DataIter):
        raise TypeError("train_data={!r} must be a DataIter, for instance an NDArrayIter".format(train_data))
    if not (module.binded and module.params_initialized):
        raise RuntimeError("module must be bound and have weights: call its bind() and init_params(), or fit(), first")
    if not networks.ends_in_losses(module.symbol):
        raise ValueError(
            "the network {} doesn't end in loss layers alone, so its gradients can't be told; diagnose a symbol that "
            "ends in a loss, by MakeLoss for instance".format(module.output_names)
        )


def _copy_of(module: Module, train_data: Any, update_freq: int, optimizer: Any, params: Any) -> SVRGModule:
    """A module like this one, on its first device, with the same weights, and an optimizer."""
    probe = SVRGModule(
        module.symbol, module.data_names, module.label_names, logger=_QUIET, context=internals.contexts(module)[0],
        fixed_param_names=internals.fixed_parameters(module), state_names=internals.state_names(module),
        update_freq=update_freq, next_states=getattr(module, "_next_states", None),
    )  # fmt: skip
    grad_req = internals.grad_req(module) if module.for_training else "write"
    probe.bind(train_data.provide_data, train_data.provide_label, grad_req=grad_req)
    probe.set_params(*module.get_params())
    if optimizer is None and params is None and module.optimizer_initialized:
        optimizer, params = _optimizer_like(module), {}
    params = {"learning_rate": "auto"} if params is None else params
    with warnings.catch_warnings():
        # Of a rescale_grad that isn't mxnet's own.
        warnings.simplefilter("ignore")
        probe.init_optimizer(kvstore=None, optimizer=optimizer or "sgd", optimizer_params=params)
    return probe


def _optimizer_like(module: Module) -> mx.optimizer.Optimizer:
    """A copy of a module's optimizer for one device and worker, without its states."""
    installed = internals.optimizer(module)
    copied = copy.deepcopy(getattr(installed, "default_opt", installed))
    copied.idx2name = {}
    workers = getattr(module, "_workers", None)
    copied.rescale_grad *= 1 if workers is None else workers.number
    return copied


def _train(probe: SVRGModule, train_data: Any, stops: Set[int]) -> Dict[int, Any]:
    """Train for a period; the weights after these steps."""
    probe.update_full_grads(train_data)
    done, found = 0, {}
    for _ in range(probe.update_freq):
        for batch in train_data:
            probe.forward_backward(batch)
            probe.update()
            done += 1
            if done in stops:
                found[done] = [{name: array.copy() for name, array in of.items()} for of in probe.get_params()]
        data.restart(train_data, at_end=True)
    return found


def _measure(probe: SVRGModule, train_data: Any, place: Any) -> Variances:
    """The variances over an epoch at these weights."""
    monitor = VarianceMonitor(_QUIET)
    probe._steps = None
    probe.install_monitor(monitor)
    probe.set_params(*place)
    for batch in train_data:
        probe.forward_backward(batch)
    data.restart(train_data, at_end=True)
    found = monitor.end(None, probe.update_freq, None)
    assert found is not None
    return found
