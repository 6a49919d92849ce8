r"""How much of the control variate is subtracted: alpha.

.. math:: g = \nabla_B(w) - \alpha \bigl(\nabla_B(\tilde w) - b\,\mu\bigr)

A `Coefficient` says two things: `at`, the alpha of the coming step; and `look`, what it learns from the gradients of a
step. As long as alpha doesn't depend on the batch of its own step, the mean of g over the batches is the gradient.
"""

import abc
import copy
import json
import math
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type

import mxnet as mx

from . import settings
from .clock import Clock
from .estimator import Alpha, Gradients, like, widened

__all__ = ["Coefficient", "Constant", "Linear", "OfClock", "PerLayer"]


class Coefficient(abc.ABC):
    """The coefficient of the control variate. Derive a class to choose another one."""

    # Whether `look` wants the gradients of the coming step.
    learns = False

    @abc.abstractmethod
    def at(self, clock: Clock) -> Alpha:
        """Give the coefficient of the coming step.

        Parameters
        ----------
        clock : Clock
            How far training has come.

        Returns
        -------
        float or dict of str to float
            A number, or one for each parameter; a parameter that isn't there has 1.
        """

    def look(  # noqa: B027 - most learn nothing
        self, gradients: Sequence[Gradients], mu: Mapping[str, Any], rows: float, clock: Clock, share: Any
    ) -> None:
        """Learn from a step, before its gradients are corrected.

        Parameters
        ----------
        gradients : sequence of Gradients
            By parameter, at the current weights and at the snapshot, on each device: sums over the batch.
        mu : dict of str to NDArray
            The full gradient by parameter, the mean per sample.
        rows : float
            How many rows the gradients are summed over.
        clock : Clock
            How far training has come.
        share : callable
            Turns a list of numbers into that of the first worker, on all workers, which call this in the same steps.
        """

    def __repr__(self) -> str:
        return settings.described(self.settings())

    def settings(self) -> Dict[str, Any]:
        """Give the class and its arguments, by which workers compare coefficients and a checkpoint makes an equal one.

        Returns
        -------
        dict
            The name under "class", and the attributes whose names don't begin with an underscore.
        """
        attributes = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return settings.of(type(self), attributes)

    def state(self) -> Dict[str, Any]:
        """Give what is needed to go on, for a checkpoint.

        Returns
        -------
        dict
            Numbers, texts and lists of them, and dicts of arrays.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most have no state
        """Go on from a state.

        Parameters
        ----------
        state : dict
            What `state` gave.
        """


class Constant(Coefficient):
    """The same coefficient in every step: 1 is SVRG, and 0 the plain optimizer.

    Parameters
    ----------
    value : float
        At least 0.

    Raises
    ------
    TypeError, ValueError
        `value` is no such number.

    Examples
    --------
    >>> Constant(0.75).at(Clock())
    0.75
    """

    def __init__(self, value: float) -> None:
        self.value = _checked("coefficient", value)

    def at(self, clock: Clock) -> float:
        """The coefficient.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        return self.value


class Linear(Coefficient):
    r"""From `start` down to 0, constant between two snapshots: alpha-SVRG.

    .. math:: \alpha = \mathrm{start} \cdot \max\Bigl(0,\, 1 - \frac{t}{\mathrm{epochs} - T}\Bigr)

    t is when the last snapshot was taken, in epochs, and T how many epochs a snapshot is kept. So the last snapshot of
    the training has the coefficient 0: its period is that of the plain optimizer.

    Parameters
    ----------
    start : float
        The coefficient after the first snapshot, at least 0. Yin et al. recommend 0.75.
    epochs : int
        The number of epochs of the whole training, `num_epoch` of `fit`.

    Raises
    ------
    TypeError, ValueError
        An argument is no such number.

    Notes
    -----
    In a training loop of your own, say the epoch: ``module.update_full_grads(data, epoch=epoch)``.

    References
    ----------
    Y. Yin, Z. Xu, Z. Li, T. Darrell and Z. Liu, "A coefficient makes SVRG effective", ICLR 2025.

    Examples
    --------
    >>> clock, linear, found = Clock(), Linear(0.75, epochs=4), []
    >>> for epoch in range(4):
    ...     clock.begin_epoch(epoch)
    ...     clock.begin_period(steps_per_epoch=10)
    ...     found.append(linear.at(clock))
    >>> found
    [0.75, 0.5, 0.25, 0.0]
    """

    def __init__(self, start: float, epochs: int) -> None:
        self.start, self.epochs = _checked("start", start), settings.integer("epochs", epochs, 1)

    def at(self, clock: Clock) -> float:
        """The coefficient of the present period.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        length = self.epochs - clock.period
        if length <= 0:
            return self.start
        return self.start * max(0.0, (length - clock.last_epoch) / length)


class OfClock(Coefficient):
    """What a function of the clock, or one of MXNet's learning rate schedules, gives.

    Parameters
    ----------
    function : callable
        Gets the `Clock`, or, if it is an ``mx.lr_scheduler.LRScheduler``, the number of steps; a copy is used.

    Examples
    --------
    >>> clock = Clock()
    >>> OfClock(lambda clock: 1 / (1 + clock.steps)).at(clock)
    1.0
    >>> OfClock(mx.lr_scheduler.FactorScheduler(1, 0.5, base_lr=1.0)).at(clock)
    1.0
    """

    def __init__(self, function: Callable[[Any], float]) -> None:
        self._of_steps = isinstance(function, mx.lr_scheduler.LRScheduler)
        # A schedule changes when it is asked.
        self._function = copy.deepcopy(function) if self._of_steps else function

    def at(self, clock: Clock) -> float:
        """What the function gives.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        found = self._function(clock.steps if self._of_steps else clock)
        return _checked("coefficient={!r} gave a number that".format(self._function), found)

    def settings(self) -> Dict[str, Any]:
        """The class, and the name of the function: an equal one can't be made from them."""
        named = self._function if hasattr(self._function, "__qualname__") else type(self._function)
        return {"class": "OfClock", "function": "{}.{}".format(named.__module__, named.__qualname__)}

    def state(self) -> Dict[str, Any]:
        """How far a learning rate schedule has come."""
        return _simple(vars(self._function)) if self._of_steps else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : dict
            What `state` gave.
        """
        if self._of_steps:
            vars(self._function).update(state)


class PerLayer(Coefficient):
    r"""For each parameter the coefficient that leaves its gradient the least variance, from the batches of the period.

    .. math:: \alpha = \frac{\sum_k \mathrm{Cov}(x_k, y_k)}{\sum_k \mathrm{Var}(y_k)}
              \quad\text{clamped to } [0, \mathrm{most}]

    :math:`x_k` and :math:`y_k` are the k-th numbers of the batches' gradients at the current weights and at the
    snapshot, means per sample. A period begins with the coefficients of the one before, and 1 in the first; they are
    estimated anew after 2, 4, 8, ... of its batches, from all of them, so never from a step's own batch. Weight decay
    is in neither. Takes two arrays of the network's size; several devices count together, and of several workers the
    first one estimates.

    Parameters
    ----------
    most : float, default 2
        The largest coefficient.

    Raises
    ------
    TypeError, ValueError
        `most` is no number of at least 0.

    References
    ----------
    Y. Yin, Z. Xu, Z. Li, T. Darrell and Z. Liu, "A coefficient makes SVRG effective", ICLR 2025, who have one for each
    number; with one for all numbers of a parameter, this quotient minimizes the sum of their variances.

    Examples
    --------
    >>> clock, layer = Clock(), PerLayer()
    >>> clock.begin_period(steps_per_epoch=2)
    >>> for here, there in ((1.0, 2.0), (2.0, 4.0)):
    ...     gradients = [Gradients('w', [mx.nd.array([here])], [mx.nd.array([there])])]
    ...     layer.look(gradients, {'w': mx.nd.array([3.0])}, 1, clock, share=list)
    ...     clock.step()
    >>> layer.at(clock)
    {'w': 0.5}
    """

    learns = True

    def __init__(self, most: float = 2.0) -> None:
        self.most = _checked("most", most)
        self._alphas: Dict[str, float] = {}
        self._begin_period(0)

    def _begin_period(self, number: int) -> None:
        # The period that is looked at, and how many batches of it have been; by parameter, the sums over them: of
        # d = x - y and of e = y - mu, and of their products d e and e e.
        self._period, self._batches = number, 0
        self._sums: Dict[str, List[Any]] = {}

    def at(self, clock: Clock) -> Alpha:
        """By parameter; a parameter that isn't there has 1.

        Parameters
        ----------
        clock : Clock
            How far training has come.
        """
        return self._alphas or min(1.0, self.most)

    def look(
        self, gradients: Sequence[Gradients], mu: Mapping[str, Any], rows: float, clock: Clock, share: Any
    ) -> None:
        """Take in a batch, and estimate anew if it is the second, fourth, eighth, ... of the period.

        Parameters
        ----------
        gradients, mu, rows, clock, share
            As in `Coefficient.look`.
        """
        others = bool(self._sums) and self._sums.keys() != {name for name, _, _ in gradients if name in mu}
        if clock.snapshots != self._period or others:
            self._begin_period(clock.snapshots)
        self._batches += 1
        for name, live, snapshot in gradients:
            if name in mu:
                # Both are small near the snapshot and near the optimum, so that their moments are exact there.
                there = _mean_of(snapshot, rows)
                d, e = _mean_of(live, rows) - there, there - mu[name]
                added = [d, e, (d * e).sum(), (e * e).sum()]
                sums = self._sums.get(name)
                # The network may have been bound to other types or devices.
                self._sums[name] = added if sums is None else [like(old, new) + new for old, new in zip(sums, added)]
        if self._batches >= 2 and self._batches & (self._batches - 1) == 0:
            names = list(self._sums)
            self._alphas = dict(zip(names, share([self._estimate(*self._sums[name]) for name in names])))

    def _estimate(self, d: Any, e: Any, d_e: Any, e_e: Any) -> float:
        count = self._batches
        covariance = d_e.asscalar() / count - float((d * e).sum().asscalar()) / count**2
        variance = e_e.asscalar() / count - float((e * e).sum().asscalar()) / count**2
        # Cov(x, y) = Cov(d, e) + Var(e).
        best = 1.0 + float(covariance) / float(variance) if variance > 0 else 1.0
        return min(max(best, 0.0) if math.isfinite(best) else 1.0, self.most)

    def state(self) -> Dict[str, Any]:
        """The coefficients, and what has been seen of the period."""
        names = ("d", "e", "de", "ee")
        sums = {"sums of " + each: {} for each in names}  # type: Dict[str, Dict[str, Any]]
        for name, of_parameter in self._sums.items():
            for each, array in zip(names, of_parameter):
                sums["sums of " + each][name] = array
        return {"alphas": dict(self._alphas), "period": self._period, "batches": self._batches, **sums}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : dict
            What `state` gave.
        """
        self._alphas, self._period, self._batches = dict(state["alphas"]), state["period"], state["batches"]
        columns = [state["sums of " + each] for each in ("d", "e", "de", "ee")]
        self._sums = {name: [column[name] for column in columns] for name in columns[0]}


def _mean_of(arrays: Sequence[Any], rows: float) -> Any:
    """The gradient of a batch on all devices together, per row; on the first device."""
    first, *others = [widened(array) for array in arrays]
    total = first / rows
    for other in others:
        total += other.as_in_context(first.context) / rows
    return total


def _checked(name: str, value: Any) -> float:
    found = settings.number(name, value)
    if found < 0:
        raise ValueError("{}={} must be at least 0: 1 is SVRG, and 0 the plain optimizer".format(name, value))
    return found


def _simple(attributes: Mapping[str, Any]) -> Dict[str, Any]:
    """The attributes that JSON can hold."""
    found = {}
    for name, value in attributes.items():
        try:
            found[name] = json.loads(json.dumps(value))
        except TypeError:
            continue
    return found


KINDS: Tuple[Type[Coefficient], ...] = (Constant, Linear, PerLayer)


def from_settings(saved: Optional[Dict[str, Any]]) -> Optional[Coefficient]:
    """The coefficient that has these `settings`; None if they are those of another class, or of a function.

    >>> from_settings(Linear(0.5, epochs=3).settings()).start
    0.5
    """
    return settings.instance(KINDS, saved)


def of_argument(coefficient: Any) -> Coefficient:
    """The coefficient that an argument of an SVRGModule means.

    >>> of_argument(1).value, type(of_argument(lambda clock: 0.5)).__name__
    (1.0, 'OfClock')
    """
    if isinstance(coefficient, Coefficient):
        # One that learns is for one module. A class of the user's decides that itself.
        return copy.deepcopy(coefficient) if type(coefficient) in KINDS else coefficient
    if callable(coefficient):
        return OfClock(coefficient)
    return Constant(coefficient)
