"""How far an optimizer and its schedule have come."""

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..mxnet_api.internals import Updated, update_counts
from . import optimizer_states

# Settings that the user passes again when training goes on; all other numbers of an optimizer that change as it
# works are part of where it is.
_SETTINGS = ("lr", "wd", "rescale_grad", "clip_gradient", "aggregate_num")


def numbers_of(optimizer: Any) -> Dict[str, float]:
    """The numbers that an optimizer keeps among its attributes.

    >>> import mxnet as mx
    >>> numbers_of(mx.optimizer.Nadam())['m_schedule']
    1.0
    """
    return {
        name: value for name, value in vars(optimizer).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _SETTINGS
    }  # fmt: skip


def schedule_of(optimizer: Any) -> Optional[Dict[str, Any]]:
    """The class of an optimizer's learning rate schedule, and its attributes that are simple values.

    >>> import mxnet as mx
    >>> schedule_of(mx.optimizer.SGD(lr_scheduler=mx.lr_scheduler.FactorScheduler(4, 0.5)))['base_lr']
    0.01
    """
    scheduler = optimizer.lr_scheduler
    if scheduler is None:
        return None
    simple = {name: value for name, value in getattr(scheduler, "__dict__", {}).items() if _is_simple(value)}
    # Lists instead of tuples, as in what is read from a file.
    return {"class": type(scheduler).__name__, **json.loads(json.dumps(simple))}


def _is_simple(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_simple, value))
    return value is None or isinstance(value, (bool, int, float, str))


class Position:
    """How far an optimizer has come since this was made, when the user's settings were all that it had."""

    def __init__(self, optimizer: Any) -> None:
        self._of_user = optimizer
        self._numbers, self._schedule = numbers_of(optimizer), schedule_of(optimizer)

    def state(self, parameters: Sequence[Updated]) -> Dict[str, Any]:
        """What `restore` takes."""
        counts = {each.name: _count(self._of_user, each.keys) for each in parameters}
        scalars = {name: value for name, value in numbers_of(self._of_user).items() if value != self._numbers.get(name)}
        return {
            "class": type(self._of_user).__name__, "devices": max((len(each.keys) for each in parameters), default=0),
            "counts": counts, "scalars": scalars, "schedule": [self._schedule, schedule_of(self._of_user)],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], parameters: Sequence[Updated]) -> None:
        """Put the new optimizer where the saved one was."""
        saved = state["counts"]
        if isinstance(saved, list):
            # In files of format 1 and 2 the counts are by device and key.
            by_key = optimizer_states.by_parameter({key: count for _, key, count in saved}, parameters)
            saved = {name: max(of_parameter) for name, of_parameter in by_key.items()}
        counts = update_counts(self._of_user)
        # 0: a KVStore may keep weights of its own.
        for device in {0, *(weight.context.device_id for each in parameters for weight in each.weights)}:
            of_device = counts.setdefault(device, {})
            of_device.update((key, saved[each.name]) for each in parameters if each.name in saved for key in each.keys)
        for name, value in state["scalars"].items():
            setattr(self._of_user, name, value)
        at_start, now = state.get("schedule", [None, None])
        if at_start is not None and at_start == self._schedule:
            # The user has given the same schedule again.
            scheduler = self._of_user.lr_scheduler
            changed: List[str] = [name for name in now if now[name] != at_start.get(name)]
            vars(scheduler).update((name, now[name]) for name in changed)


def _count(optimizer: Any, keys: Sequence[Any]) -> int:
    """How often a parameter has been updated."""
    return max((of_device.get(key, 0) for of_device in update_counts(optimizer).values() for key in keys), default=0)
