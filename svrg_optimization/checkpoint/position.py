"""How far an optimizer and its schedule have come."""

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np

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
    numbers = {name: _plain(value) for name, value in vars(optimizer).items() if name not in _SETTINGS}
    return {
        name: each for name, each in numbers.items() if isinstance(each, (int, float)) and not isinstance(each, bool)
    }


def schedule_of(optimizer: Any) -> Optional[Dict[str, Any]]:
    """The class of an optimizer's learning rate schedule and its attributes; None if they aren't simple values.

    >>> import mxnet as mx
    >>> schedule_of(mx.optimizer.SGD(lr_scheduler=mx.lr_scheduler.FactorScheduler(4, 0.5)))['base_lr']
    0.01
    """
    attributes = getattr(optimizer.lr_scheduler, "__dict__", None)
    if attributes is None or not all(map(_is_simple, map(_plain, attributes.values()))):
        return None
    found = {
        "class": type(optimizer.lr_scheduler).__name__,
        **{name: _plain(each) for name, each in attributes.items()},
    }
    # Lists instead of tuples, as in what is read from a file.
    return dict(json.loads(json.dumps(found)))


def unsaved(optimizer: Any) -> List[str]:
    """What a schedule keeps that a checkpoint can't hold, so that it begins anew when training goes on.

    >>> import mxnet as mx
    >>> schedule = mx.lr_scheduler.FactorScheduler(4, 0.5)
    >>> schedule.seen = {1, 2}
    >>> unsaved(mx.optimizer.SGD(lr_scheduler=schedule))
    ['seen']
    """
    attributes = getattr(optimizer.lr_scheduler, "__dict__", {})
    return [name for name, value in attributes.items() if not (_is_simple(_plain(value)) or callable(value))]


def _plain(value: Any) -> Any:
    """A number of NumPy's as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _is_simple(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_simple, value))
    return value is None or isinstance(value, (bool, int, float, str))


class Position:
    """How far an optimizer has come since this was made, when the user's settings were all that it had."""

    def __init__(self, optimizer: Any) -> None:
        self._of_user = optimizer
        self._numbers, self._schedule = numbers_of(optimizer), schedule_of(optimizer)

    def state(self, parameters: Sequence[Updated], optimizer: Any = None) -> Dict[str, Any]:
        """What `restore` takes; of another optimizer that works in the place of this one, if that is given."""
        working = optimizer or self._of_user
        counts = {each.name: _count(working, each.keys) for each in parameters}
        now = numbers_of(working)
        changed = [name for name in now if now[name] != self._numbers.get(name)]
        return {
            "class": type(working).__name__, "devices": max((len(each.keys) for each in parameters), default=0),
            "counts": counts, "scalars": {name: now[name] for name in changed},
            "scalars at start": {name: self._numbers.get(name) for name in changed},
            "schedule": [self._schedule, schedule_of(working)],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any], parameters: Sequence[Updated]) -> None:
        """Put the new optimizer where the saved one was; the state is as `by_name` makes it."""
        saved, counts = state["counts"], update_counts(self._of_user)
        # 0: a KVStore may keep weights of its own.
        for device in {0, *(weight.context.device_id for each in parameters for weight in each.weights)}:
            of_device = counts.setdefault(device, {})
            of_device.update((key, saved[each.name]) for each in parameters if each.name in saved for key in each.keys)
        at_first = state.get("scalars at start", {})
        for name, value in state["scalars"].items():
            # What the user gives another value keeps that.
            if name not in at_first or at_first[name] == self._numbers.get(name):
                setattr(self._of_user, name, value)
        at_start, now = state.get("schedule", [None, None])
        if at_start is not None and now is not None and json.dumps(at_start) == json.dumps(self._schedule):
            # The user has given the same schedule again.
            scheduler = self._of_user.lr_scheduler
            changed: List[str] = [name for name in now if now[name] != at_start.get(name)]
            vars(scheduler).update((name, now[name]) for name in changed)


def by_name(state: Mapping[str, Any], parameters: Sequence[Updated]) -> Mapping[str, Any]:
    """A state with the counts by parameter; in files of format 1 and 2 they are by device and key.

    >>> by_name({"counts": [[0, 0, 3], [0, 1, 3]]}, [Updated('weight', 0, [0], []), Updated('bias', 1, [1], [])])
    {'counts': {'weight': 3, 'bias': 3}}
    """
    counts = state.get("counts")
    if not isinstance(counts, list):
        return state
    by_key = optimizer_states.by_parameter({key: count for _, key, count in counts}, parameters)
    return {**state, "counts": {name: max(of_parameter) for name, of_parameter in by_key.items()}}


def _count(optimizer: Any, keys: Sequence[Any]) -> int:
    """How often a parameter has been updated."""
    return max((of_device.get(key, 0) for of_device in update_counts(optimizer).values() for key in keys), default=0)
