"""What was measured at each snapshot, as files and as a picture.

`SVRGModule.history` is a list of `Record`.
"""

import csv
import json
import math
import types
from typing import Any, Dict, List, Sequence

__all__ = ["Record", "plot", "to_csv", "to_json_lines"]


class Record(types.SimpleNamespace):
    """What was measured at a snapshot.

    Attributes
    ----------
    epoch : int or None
        The epoch that begins with the snapshot; None if a loop of one's own doesn't say.
    num_update : int
        How many steps had been taken.
    passes : float
        Gradient evaluations of all workers so far, those of this snapshot included, divided by the number of samples
        that there were.
    samples : int
        The number of samples, n, of all workers.
    norm : float
        The norm of the full gradient: the mean per sample, without weight decay.
    gradient_norm : float
        The norm of the objective's gradient, mean loss and weight decay.
    bound : float or None
        The objective is at most so much above its minimum, if the loss is convex. None unless all parameters decay.
    learning_rate : float or None
        That of the optimizer; None if it has none.
    momentum : float or None
        That of the optimizer; None if it has none.
    seconds : float
        Since the first snapshot began. After `SVRGModule.load`, since then in all processes.
    """


def plain(record: Record) -> Dict[str, Any]:
    """What of a record a file can hold: numbers, texts and None; what isn't finite is None.

    >>> import numpy as np
    >>> plain(Record(epoch=0, norm=np.float32(0.5), bound=float("nan"), mine=[1]))
    {'epoch': 0, 'norm': 0.5, 'bound': None}
    """
    found: Dict[str, Any] = {}
    for name, value in vars(record).items():
        value = value.item() if hasattr(value, "item") and getattr(value, "shape", None) == () else value
        if isinstance(value, float) and not math.isfinite(value):
            value = None
        if value is None or isinstance(value, (bool, int, float, str)):
            found[name] = value
    return found


def columns(history: Sequence[Record]) -> List[str]:
    """The names of all attributes, in order.

    >>> columns([Record(epoch=0, norm=1.0), Record(epoch=1, norm=0.5, ratio=0.25)])
    ['epoch', 'norm', 'ratio']
    """
    return list(dict.fromkeys(name for record in history for name in vars(record)))


def to_csv(history: Sequence[Record], path: Any) -> None:
    """Write a line for each snapshot, below a line of names. What there isn't is empty.

    Parameters
    ----------
    history : list of Record
        `SVRGModule.history`.
    path : str or path
        Of the file, which is replaced.

    Examples
    --------
    >>> import tempfile
    >>> file = tempfile.NamedTemporaryFile()
    >>> to_csv([Record(epoch=0, norm=1.5, bound=None), Record(epoch=2, norm=0.25, bound=None)], file.name)
    >>> print(file.read().decode())
    epoch,norm,bound
    0,1.5,
    2,0.25,
    <BLANKLINE>
    """
    history = list(history)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns(history), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(vars, history))


def to_json_lines(history: Sequence[Record], path: Any) -> None:
    """Write a JSON object for each snapshot, each on a line. What isn't a number or a text, or isn't finite, is null.

    Parameters
    ----------
    history : list of Record
        `SVRGModule.history`.
    path : str or path
        Of the file, which is replaced.

    Examples
    --------
    >>> import tempfile
    >>> file = tempfile.NamedTemporaryFile()
    >>> to_json_lines([Record(epoch=0, norm=1.5)], file.name)
    >>> print(file.read().decode().strip())
    {"epoch": 0, "norm": 1.5}
    """
    with open(path, "w") as file:
        file.writelines(json.dumps(plain(record)) + "\n" for record in history)


def plot(history: Sequence[Record], axes: Any = None) -> Any:
    """Draw the norm of the objective's gradient, and the bound if there is one, against passes and seconds.

    Needs matplotlib.

    Parameters
    ----------
    history : list of Record
        `SVRGModule.history`.
    axes : sequence of two Axes, optional
        Where to draw; new ones by default.

    Returns
    -------
    sequence of two Axes
        Those that were drawn on: against passes, and against seconds.

    Raises
    ------
    ImportError
        There is no matplotlib.
    ValueError
        There are no records: no snapshot has been taken; or `axes` aren't two.
    """
    if not history:
        raise ValueError("the history is empty: it has a record for each snapshot, and none has been taken yet")
    if axes is None:
        import matplotlib.pyplot as plt

        _, axes = plt.subplots(1, 2, figsize=(9, 3.5), sharey=True, constrained_layout=True)
    if not (hasattr(axes, "__len__") and len(axes) == 2 and all(hasattr(axis, "semilogy") for axis in axes)):
        raise ValueError(
            "axes={!r} must be two Axes, for passes and for seconds: pyplot.subplots(1, 2)[1]".format(axes)
        )
    for axis, name in zip(axes, ("passes", "seconds")):
        x = [getattr(record, name) for record in history]
        axis.semilogy(x, [record.gradient_norm for record in history], "o-", markersize=3, label="norm of the gradient")
        if all(record.bound is not None for record in history):
            axis.semilogy(x, [record.bound for record in history], "--", label="f - f* at most, if convex")
        axis.set_xlabel({"passes": "passes over the data", "seconds": "seconds"}[name])
        axis.grid(True, alpha=0.3)
    axes[0].legend()
    return axes
