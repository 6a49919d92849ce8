"""Which exit code this process is going to end with. Python itself doesn't tell those who run at its exit."""

import functools
import sys
import threading
from typing import Any, NoReturn

_given: Any = 0


def remember() -> None:
    """From now on, remember what `sys.exit` is called with. Another ``raise SystemExit(code)`` isn't seen."""
    usual = sys.exit

    # As `sys.exit` it can be pickled, as the usual one can.
    @functools.wraps(usual)
    def exit(status: Any = None, /) -> NoReturn:
        global _given  # noqa: PLW0603 - a process has one exit code
        # In another thread it ends that thread alone.
        if threading.current_thread() is threading.main_thread():
            _given = status
        usual(status)

    sys.exit = exit


def nonzero() -> int:
    """The exit code, or 1 if it would be 0 or isn't known.

    >>> nonzero()
    1
    """
    # Python prints what is no number, and ends with 1.
    return (_given & 0xFF if isinstance(_given, int) else 1) or 1
