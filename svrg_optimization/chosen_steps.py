"""From ``learning_rate='auto'`` or a schedule of `step_sizes` to what controls a module's optimizer."""

import copy
from functools import partial
from typing import Any, Callable, Dict, Mapping, Optional

import mxnet as mx
import numpy as np

from .mxnet_api import internals
from .step_sizes import OPTIMIZERS, AutoStep, StepSize, chosen_by
from .svrg.coefficients import Coefficient, Constant
from .svrg.schedules import Growing, Schedule
from .svrg.step_control import Objective, StepControl, rule_for

_SHORT = "learning_rate='auto'"
_BOTH = "learning_rate={!r} with lr_scheduler={}: both say which rate to take; leave one of them out"
_FOR_INSTANCE = (
    "{} with an optimizer that is an instance, which has settings of its own; make it with "
    "lr_scheduler=svrg_optimization.AutoStep(), or give the optimizer's name"
)
_WRONG_OPTIMIZER = (
    "{}: the optimizer {} has no step of the form that is chosen for; use one of {}, or give {} a learning rate"
)


def with_schedule(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """The arguments of `_SVRGOptimizer`, with a schedule in the place of ``learning_rate='auto'``.

    Raises ValueError if the rate is another text, or the optimizer's step can't be chosen.

    >>> settings = with_schedule({'default_optimizer': 'sgd', 'learning_rate': 'auto'})
    >>> type(settings['lr_scheduler']).__name__, 'learning_rate' in settings
    ('AutoStep', False)
    """
    found = dict(settings)
    optimizer, rate = found["default_optimizer"], found.get("learning_rate")
    if isinstance(rate, str):
        if rate != "auto":
            raise ValueError("learning_rate={!r} must be a number, or 'auto' to let it be chosen".format(rate))
        if found.get("lr_scheduler") is not None:
            raise ValueError(_BOTH.format(rate, repr(found["lr_scheduler"])))
        del found["learning_rate"]
        found["lr_scheduler"] = AutoStep()
    if isinstance(getattr(optimizer, "lr", None), str):
        raise ValueError(_FOR_INSTANCE.format("learning_rate={!r}".format(optimizer.lr)))
    schedule = chosen_by(optimizer) or found.get("lr_scheduler")
    if isinstance(schedule, type):
        raise ValueError("lr_scheduler={0} is the class; make one: lr_scheduler={0}()".format(schedule.__name__))
    if isinstance(schedule, StepSize):
        name = optimizer if isinstance(optimizer, str) else type(optimizer).__name__
        known = [mx.optimizer.Optimizer.opt_registry.get(each) for each in OPTIMIZERS]
        kind = mx.optimizer.Optimizer.opt_registry.get(name.lower()) if isinstance(optimizer, str) else type(optimizer)
        if kind is not None and kind not in known:
            what = _SHORT if isinstance(rate, str) else "lr_scheduler={}()".format(type(schedule).__name__)
            raise ValueError(_WRONG_OPTIMIZER.format(what, name, ", ".join(map(repr, OPTIMIZERS)), name))
    given = getattr(optimizer, "lr", None) if chosen_by(optimizer) else found.get("learning_rate")
    if isinstance(schedule, AutoStep) and given is not None:
        raise ValueError(_BOTH.format(given, "AutoStep()"))
    return found


def refuse_for_instance(optimizer: Any, optimizer_params: Any) -> None:
    """Raise ValueError if the rate of an optimizer that is an instance is to be chosen by an argument."""
    if not isinstance(optimizer, str) and dict(optimizer_params or {}).get("learning_rate") == "auto":
        raise ValueError(_FOR_INSTANCE.format("learning_rate='auto'"))


def check_with(optimizer: Any, settings: Mapping[str, Any], schedule: Schedule, coefficient: Coefficient) -> None:
    """Raise ValueError if steps are to be chosen, and the snapshots aren't what they can be chosen from."""
    if not isinstance(settings.get("lr_scheduler", getattr(optimizer, "lr_scheduler", None)), StepSize):
        return
    reasons = [
        ("warm_start={}".format(schedule.warm_start), schedule.warm_start, "the first step needs a snapshot"),
        ("at={!r}".format(schedule.at), schedule.at != "last", "steps are judged by the last iterate"),
        ("Growing", isinstance(schedule, Growing), "steps are judged by the gradients of all samples"),
        ("a coefficient", coefficient.settings() != Constant(1).settings(), "the steps are those of SVRG"),
    ]
    for what, is_so, why in reasons:
        if is_so:
            raise ValueError(
                "the learning rate can't be chosen with {}: {}; give a learning rate, or leave that out".format(
                    what, why
                )
            )


def control(
    module: Any, optimizer: Any, settings: Mapping[str, Any], objective: Callable[[], Objective], workers: Any
) -> Optional[StepControl]:
    """What chooses the steps of this optimizer, the user's, of a module; None if nothing does.

    `settings` are those of the `_SVRGOptimizer`; `objective` says what the optimizer minimizes. Raises ValueError or
    RuntimeError if that can't be had.
    """
    by_name = isinstance(settings["default_optimizer"], str)
    schedule = chosen_by(optimizer)
    if schedule is None:
        return None
    momentum_is_given = (
        "momentum" in settings if by_name else bool(optimizer.momentum) and not schedule.chooses_momentum
    )
    chosen = "lr_scheduler={}()".format(type(optimizer.lr_scheduler).__name__)
    for name, arrays in internals.parameter_arrays(module):
        if arrays[0].dtype not in (np.float32, np.float64):
            raise ValueError(
                "{}: the parameter {!r} is {}, and steps are chosen for float32 and float64 only; give a learning "
                "rate".format(chosen, name, arrays[0].dtype.__name__)
            )
    if len(internals.contexts(module)) > 1 and internals.kvstore(module) is None:
        raise ValueError(
            "{} with kvstore=None: each device has weights of its own, for which no step can be chosen; use "
            "kvstore='local'".format(chosen)
        )
    workers.check_settable()
    if not isinstance(optimizer.momentum, (int, float, np.number)) or not 0 <= optimizer.momentum < 1:
        raise ValueError("{}: momentum={!r} must be at least 0 and less than 1".format(chosen, optimizer.momentum))
    # A copy: one schedule may be given to several modules.
    schedule = optimizer.lr_scheduler = copy.copy(schedule)
    schedule.chooses_momentum = isinstance(schedule, AutoStep) and not momentum_is_given
    momentum = None if schedule.chooses_momentum else float(optimizer.momentum)
    return StepControl(partial(rule_for, schedule, momentum), optimizer, objective(), workers)
