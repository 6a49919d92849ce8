"""When the objective's gradient is small enough, and when it doesn't get smaller."""

import math
import numbers
from typing import Any, Sequence

# Of so many snapshots none has a smaller gradient than one before them: training stands still.
_PATIENCE = 10
# Roundings: a gradient of this many isn't expected to get smaller.
_ROUNDINGS = 1e3


def check_tol(tol: Any) -> None:
    """Raise ValueError unless `tol` can be reached.

    >>> check_tol(2)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: tol=2 must be a number between 0 and 1, for instance 1e-6: the part of the first gradient's norm to ...
    """
    if isinstance(tol, bool) or not isinstance(tol, numbers.Real) or not 0 < float(tol) < 1:
        raise ValueError(
            "tol={!r} must be a number between 0 and 1, for instance 1e-6: the part of the first gradient's norm to "
            "stop at".format(tol)
        )


def has_converged(norms: Sequence[float], tol: float) -> bool:
    """Whether the last of the objective's gradients is at most `tol` times the first.

    >>> has_converged([2.0, 0.1, 0.01], 0.01), has_converged([2.0, 0.03], 0.01)
    (True, False)
    """
    return bool(norms) and norms[-1] <= tol * norms[0]


def is_at_roundings(norms: Sequence[float], epsilon: float) -> bool:
    """Whether what is left of the objective's gradients are the roundings of the weights' type, of this `epsilon`.

    They are small, and the last three snapshots haven't halved them.

    >>> large, falling, level = [1e-2] * 4, [1e-5, 1e-6, 1e-7, 1e-8], [1e-6, 2e-6, 1e-6, 2e-6]
    >>> [is_at_roundings([1.0, *last], epsilon=1e-7) for last in (large, falling, level)]
    [False, False, True]
    """
    return len(norms) > 4 and _is_small(norms, epsilon) and norms[-1] > 0.5 * min(norms[-4:-1])


def _is_small(norms: Sequence[float], epsilon: float) -> bool:
    return norms[-1] <= _ROUNDINGS * epsilon * norms[0]


def has_stalled(norms: Sequence[float], epsilon: float) -> bool:
    """Whether the objective's gradients stand still, and not at their roundings. Once in ten snapshots.

    `epsilon` is that of the weights' type.

    >>> falls, stands = [2.0 ** -k for k in range(30)], [1.0, 0.5] + 20 * [0.6]
    >>> [k for k in range(20) if has_stalled(stands[:k], 1e-16)], any(has_stalled(falls[:k], 1e-16) for k in range(30))
    ([12], False)
    """
    if len(norms) <= _PATIENCE or _is_small(norms, epsilon):
        return False
    # How many snapshots ago the smallest was.
    ago = len(norms) - 1 - min(range(len(norms)), key=lambda k: norms[k] if math.isfinite(norms[k]) else math.inf)
    return ago > 0 and ago % _PATIENCE == 0
