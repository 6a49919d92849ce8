"""Calls in the wrong order: what each method of a Module needs before it, and what to call to get there."""

import functools
import operator
from typing import Any, Callable, Dict, Tuple, TypeVar

T = TypeVar("T", bound=type)

# The states that BaseModule keeps, with the call that brings each about.
_REMEDY = {
    "binded": "bind(data_shapes, label_shapes)",
    "params_initialized": "init_params()",
    "optimizer_initialized": "init_optimizer()",
    "for_training": "bind(..., for_training=True, force_rebind=True)",
    "inputs_need_grad": "bind(..., inputs_need_grad=True, force_rebind=True)",
}
_BOUND = ("binded",)
_READY = ("binded", "params_initialized")
_TRAINING = _READY + ("for_training",)
_OPTIMIZED = _TRAINING + ("optimizer_initialized",)

NEEDS: Dict[str, Tuple[str, ...]] = {
    "data_shapes": _BOUND,
    "label_shapes": _BOUND,
    "output_shapes": _BOUND,
    "reshape": _BOUND,
    "prepare": _BOUND,
    "install_monitor": _BOUND,
    "get_params": ("params_initialized",),
    "init_optimizer": _READY,
    "forward": _READY,
    "forward_backward": _TRAINING,
    "backward": _TRAINING,
    "get_outputs": _READY,
    "get_input_grads": _READY + ("inputs_need_grad",),
    "get_states": _READY,
    "set_states": _READY,
    "update_metric": _READY,
    "score": _READY,
    "predict": _READY,
    "iter_predict": _READY,
    "update": _OPTIMIZED,
    "update_full_grads": _OPTIMIZED,
    "switch_bucket": _READY,
    "save_checkpoint": ("params_initialized",),
    "save_params": ("params_initialized",),
    "save_optimizer_states": ("optimizer_initialized",),
    "load_optimizer_states": ("optimizer_initialized",),
}


def check(module: Any, method: str) -> None:
    """Raise RuntimeError if `method` of `module` is called too early."""
    for state in NEEDS[method]:
        if not getattr(module, state):
            raise RuntimeError("{}() was called too early: call {} first".format(method, _REMEDY[state]))


def _guarded(method: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # A step of a small network makes nine of these calls: they must cost next to nothing.
    states = operator.attrgetter(*NEEDS[method], NEEDS[method][0])

    @functools.wraps(function)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        if False in states(self):
            check(self, method)
        return function(self, *args, **kwargs)

    return guarded


def ordered(cls: T) -> T:
    """Class decorator: let every method of `NEEDS` say what to call first, where Module has a bare assert."""
    for name in filter(functools.partial(hasattr, cls), NEEDS):
        attribute = getattr(cls, name)
        if isinstance(attribute, property):
            setattr(cls, name, property(_guarded(name, attribute.fget), doc=attribute.__doc__))  # type: ignore[arg-type]
        else:
            setattr(cls, name, _guarded(name, attribute))
    return cls
