"""How a process of a job finds out that another one stands still, and how it ends.

Every process sends heartbeats to the scheduler; ps-lite does that. If a process has sent none for PS_HEARTBEAT_TIMEOUT
seconds, it is dead. Imports nothing of mxnet.
"""

import contextlib
import faulthandler
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Tuple

# The exit code of a process that ends because another one has died.
EXIT_CODE = 70
# Seconds between heartbeats, and after how many seconds without one a process is dead.
DEFAULTS = {"PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5"}
# With these commands a worker tells the servers that the job has begun, and that the job is over. mxnet's own servers
# unpickle what a command holds. For them the first is a message to print, and the second an optimizer without a use.
BEGUN = "csys\nexit\n(S'start this server by python -m svrg_optimization.server, and it ends with its job'\ntR."
OVER = "cmxnet.optimizer\nSGD\n(tR."

_SECONDS_TO_LEAVE = 15  # how long a process may take to end after its job is over


def timeout(environment: Mapping[str, str]) -> int:
    """After how many seconds without a heartbeat a process is dead; 0 if heartbeats are off.

    >>> timeout({}), timeout({'PS_HEARTBEAT_INTERVAL': '1', 'PS_HEARTBEAT_TIMEOUT': '7'})
    (0, 7)
    """
    return _seconds(environment, "PS_HEARTBEAT_TIMEOUT") if _seconds(environment, "PS_HEARTBEAT_INTERVAL") else 0


def _seconds(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdigit() else 0


def address_of_scheduler(environment: Mapping[str, str]) -> Tuple[str, int]:
    """Where the scheduler listens.

    >>> address_of_scheduler({'DMLC_PS_ROOT_URI': 'host0', 'DMLC_PS_ROOT_PORT': '9000'})
    ('host0', 9000)
    """
    return environment["DMLC_PS_ROOT_URI"], int(environment["DMLC_PS_ROOT_PORT"])


def address_of_watch(environment: Mapping[str, str]) -> Tuple[str, int]:
    """Where the scheduler listens for those who are watched. Raises ValueError if the port is no number.

    >>> address_of_watch({'DMLC_PS_ROOT_URI': 'host0', 'DMLC_PS_ROOT_PORT': '9000'})
    ('host0', 9001)
    >>> address_of_watch({'DMLC_PS_ROOT_URI': 'host0', 'DMLC_PS_ROOT_PORT': '9000', 'SVRG_WATCH_PORT': '9009'})
    ('host0', 9009)
    """
    host, port = address_of_scheduler(environment)
    return host, int(environment.get("SVRG_WATCH_PORT") or port + 1)


def names_of_nodes(workers: int, servers: int) -> Dict[int, str]:
    """All processes but the scheduler, by ps-lite's numbers.

    >>> names_of_nodes(2, 1)
    {9: 'worker 0', 11: 'worker 1', 8: 'server 0'}
    """
    nodes = {9 + 2 * rank: "worker {}".format(rank) for rank in range(workers)}
    nodes.update((8 + 2 * rank, "server {}".format(rank)) for rank in range(servers))
    return nodes


class Heartbeats:
    """A function that says, in the scheduler, whose heartbeats are missing; "" if nobody's are.

    `is_silent` says whether a process, by its number, has sent no heartbeat for so many seconds.
    """

    def __init__(self, is_silent: Callable[[int, int], bool], environment: Mapping[str, str]) -> None:
        self._is_silent, self._limit = is_silent, timeout(environment)
        # If this process stood still, or its clock was set, all others seem silent until their next heartbeats come.
        # So a process is dead only if it stays silent for longer than a heartbeat takes to come.
        self._patience = _seconds(environment, "PS_HEARTBEAT_INTERVAL") + 0.5
        self._silent_since: Dict[str, float] = {}
        self._nodes = names_of_nodes(int(environment["DMLC_NUM_WORKER"]), int(environment["DMLC_NUM_SERVER"]))
        self._scheduler, self._has_started = address_of_scheduler(environment), False

    def __call__(self) -> str:  # noqa: D102
        # ps-lite crashes if it is asked before it has been started. Then it listens.
        if not self._limit or not (self._has_started or _listens(self._scheduler)):
            return ""
        self._has_started = True
        now = time.monotonic()
        since = self._silent_since
        self._silent_since = {name: since.get(name, now) for name in self._silent()}
        dead = [name for name, start in self._silent_since.items() if now - start > self._patience]
        return "no heartbeat from " + ", ".join(dead) if dead else ""

    def _silent(self) -> List[str]:
        return [name for node, name in self._nodes.items() if self._is_silent(node, self._limit)]


def _listens(address: Tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def end(message: str, code: int) -> None:
    """End the process at once, without its threads, which may wait for a dead process."""
    say(message)
    os._exit(code)


def say(message: str) -> None:
    """Print a line to standard error, after what is still on its way to standard output."""
    # Nobody may read the output any more. Writing then fails, and the process must end all the same.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def fail_fast(name: str = "worker") -> None:
    """From now on, let an exception that nobody catches end this process at once; `name` is for the message.

    Otherwise mxnet would wait, while Python ends, for the other workers, and they for this one's gradients.
    In an interactive Python this does nothing: there an exception doesn't end the process.
    """
    if isinstance(sys.excepthook, _ReportAndEnd):
        sys.excepthook.name = name
    elif not (hasattr(sys, "ps1") or sys.flags.interactive):
        sys.excepthook = _ReportAndEnd(sys.excepthook, name)


class _ReportAndEnd:
    def __init__(self, usual: Any, name: str) -> None:
        self._usual, self.name = usual, name

    def __call__(self, kind: Any, value: Any, trace: Any) -> None:
        self._usual(kind, value, trace)
        what = "".join(traceback.format_exception_only(kind, value)).strip()
        end("{} ends: {}".format(self.name, what), 1)


def end_unless_left() -> None:
    """End the process if it hasn't ended soon. A job that is over isn't watched any more."""
    # faulthandler's thread isn't Python's: it still runs when Python's threads have ended.
    faulthandler.dump_traceback_later(_SECONDS_TO_LEAVE, exit=True, file=2)


def has_left() -> None:
    """Take `end_unless_left` back."""
    faulthandler.cancel_dump_traceback_later()


def say_later(message: str, seconds: float = 10) -> threading.Timer:
    """Print a message in so many seconds, unless the timer that is returned is cancelled before."""
    timer = threading.Timer(seconds, say, [message])
    timer.daemon = True
    # From Python 3.12 on, no thread starts any more when the process is about to end. Then there is no message.
    with contextlib.suppress(RuntimeError):
        timer.start()
    return timer
