"""The arguments of schedules and coefficients: checked, told to other workers, and saved."""

import inspect
import json
import math
import numbers
from typing import Any, Dict, Optional, Sequence


def integer(name: str, value: Any, least: int) -> int:
    """The value of an argument that must be an integer.

    >>> integer("k", 2, 1)
    2
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError("{}={!r} must be an integer".format(name, value))
    if value < least:
        raise ValueError("{}={} must be at least {}".format(name, value, least))
    return int(value)


def number(name: str, value: Any) -> float:
    """The value of an argument that must be a finite number.

    >>> number("p", 0.5)
    0.5
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError("{}={!r} must be a number".format(name, value))
    if not math.isfinite(value):
        raise ValueError("{}={} must be finite".format(name, value))
    return float(value)


def of(kind: type, attributes: Dict[str, Any]) -> Dict[str, Any]:
    """A class and attributes, as they are when they have been saved: what JSON can't hold is described.

    >>> of(int, {"bounds": (0, 1)})
    {'class': 'builtins.int', 'bounds': [0, 1]}
    """
    is_ours = kind.__module__.startswith(__package__)
    name = kind.__name__ if is_ours else "{}.{}".format(kind.__module__, kind.__qualname__)
    found: Dict[str, Any] = json.loads(json.dumps({"class": name, **attributes}, default=repr))
    return found


def described(saved: Dict[str, Any]) -> str:
    """What `settings` gave, as one would write it.

    >>> described({"class": "EverySteps", "k": 3})
    'EverySteps(k=3)'
    """
    arguments = ("{}={!r}".format(name, value) for name, value in saved.items() if name != "class")
    return "{}({})".format(saved["class"], ", ".join(arguments))


def instance(kinds: Sequence[type], saved: Optional[Dict[str, Any]]) -> Any:
    """An instance of the class that is saved under "class", made from the other items; None if it is none of these."""
    for kind in kinds:
        if saved is not None and saved.get("class") == kind.__name__:
            known = inspect.signature(kind).parameters
            return kind(**{name: value for name, value in saved.items() if name in known})
    return None
