"""Ends a process when another process of its job has died. ps-lite itself would wait for ever.

A death is noticed like this:

- Every process sends heartbeats to the scheduler, and the scheduler answers them. ps-lite does that.
- If a process has sent none for PS_HEARTBEAT_TIMEOUT seconds, the scheduler says at its port which one, and ends.
- Workers and servers connect to that port every second. They end when the scheduler says who is dead, when nobody
  listens at the port any more, and when the scheduler doesn't answer heartbeats.

Imports nothing of mxnet.
"""

import contextlib
import faulthandler
import os
import select
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

# The exit code of a process that ends because another one has died.
EXIT_CODE = 70
# Seconds between heartbeats, and after how many seconds without one a process is dead.
DEFAULTS = {"PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5"}
# With these commands a worker tells the servers that the job has begun, and that the job is over. mxnet's own servers
# unpickle what a command holds. For them the first is a message to print, and the second an optimizer without a use.
BEGUN = "csys\nexit\n(S'start this server by python -m svrg_optimization.server, and it ends with its job'\ntR."
OVER = "cmxnet.optimizer\nSGD\n(tR."

_SCHEDULER = 1  # ps-lite's number of the scheduler
_SECONDS_TO_LEAVE = 15  # how long a process may take to end after its job is over
_SECONDS_OF_FAREWELL = 3  # how long the scheduler says who is dead, unless all others have heard it before
_FAREWELL = b"svrg_optimization: "  # what the scheduler says begins with this; what ZeroMQ says begins with 0xff


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


def ask_scheduler(address: Tuple[str, int]) -> Optional[str]:
    """Who is dead, as the scheduler says; "" if the scheduler says nothing, and None if nobody listens there."""
    try:
        with socket.create_connection(address, timeout=1) as connection:
            said = connection.recv(4096)
    except ConnectionRefusedError:
        return None
    except OSError:
        return ""
    return said[len(_FAREWELL) :].decode() if said.startswith(_FAREWELL) else ""


def say_at_port(port: int, listeners: int, words: str) -> None:
    """Say something to so many processes that connect to a port at which this process's ZeroMQ listens."""
    listener = _take_listener_from_zeromq(port)
    if listener is None:
        return
    deadline = time.monotonic() + _SECONDS_OF_FAREWELL
    with listener:
        while listeners and time.monotonic() < deadline:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(_FAREWELL + words.encode())
                listeners -= 1


def _take_listener_from_zeromq(port: int) -> Optional[socket.socket]:
    """The socket that listens at a port; None without Linux's /proc and epoll. ZeroMQ stops to accept connections."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    descriptors = list(map(int, os.listdir("/proc/self/fd")))
    found = next((each for each in descriptors if _listens_at(each, port)), None)
    if found is None:
        return None
    for each in descriptors:
        with contextlib.suppress(OSError), select.epoll.fromfd(os.dup(each)) as events:
            events.unregister(found)
    return socket.socket(fileno=os.dup(found))


def _listens_at(descriptor: int, port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as each:
        listens = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens) and each.family in (socket.AF_INET, socket.AF_INET6) and each.getsockname()[1] == port
    return False


def names_of_nodes(workers: int, servers: int) -> Dict[int, str]:
    """All processes but the scheduler, by ps-lite's numbers.

    >>> names_of_nodes(2, 1)
    {9: 'worker 0', 11: 'worker 1', 8: 'server 0'}
    """
    nodes = {9 + 2 * rank: "worker {}".format(rank) for rank in range(workers)}
    nodes.update((8 + 2 * rank, "server {}".format(rank)) for rank in range(servers))
    return nodes


class Inspection:
    """A function that says who is dead, as a process with this role and environment sees it; "" if all live.

    `is_silent` says whether a process, by its number, has sent no heartbeat for so many seconds.
    """

    def __init__(self, is_silent: Callable[[int, int], bool], role: str, environment: Mapping[str, str]) -> None:
        self._is_silent, self._limit = is_silent, timeout(environment)
        # If this process stood still, or its clock was set, all others seem silent until their next heartbeats come.
        # So a process is dead only if it stays silent for longer than a heartbeat takes to come.
        self._patience = _seconds(environment, "PS_HEARTBEAT_INTERVAL") + 0.5
        self._silent_since: Dict[str, float] = {}
        if role == "scheduler":
            self._nodes = names_of_nodes(int(environment["DMLC_NUM_WORKER"]), int(environment["DMLC_NUM_SERVER"]))
            self._scheduler = None
        else:
            self._nodes = {_SCHEDULER: "the scheduler"}
            self._scheduler = address_of_scheduler(environment)

    def __call__(self) -> str:  # noqa: D102
        if self._scheduler is not None:
            said = ask_scheduler(self._scheduler)
            if said is None:
                return "the scheduler has ended"
            if said:
                return "the scheduler says: " + said
        now = time.monotonic()
        since = self._silent_since
        self._silent_since = {name: since.get(name, now) for name in self._silent()}
        dead = [name for name, start in self._silent_since.items() if now - start > self._patience]
        return "no heartbeat from " + ", ".join(dead) if dead else ""

    def _silent(self) -> List[str]:
        return [name for node, name in self._nodes.items() if self._is_silent(node, self._limit)]


class Watch:
    """A thread that ends this process as soon as another process of the job is dead.

    `inspect` says every second who is dead. The message at the end has the `name` of this process and an `advice` for
    the user. Then `tell` is called with what `inspect` said.
    """

    def __init__(
        self, inspect: Callable[[], str], name: str, advice: str, tell: Callable[[str], None] = lambda wrong: None
    ) -> None:
        self._inspect, self._name, self._advice, self._tell = inspect, name, advice, tell
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="svrg_optimization.watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(1):
            try:
                wrong = self._inspect()
            except Exception as error:
                # Without a watch the process might wait for ever.
                traceback.print_exc()
                end("{} ends: its watch raised {!r}".format(self._name, error), 1)
            if wrong:
                _say("{}: {}. {}".format(self._name, wrong, self._advice))
                try:
                    self._tell(wrong)
                finally:
                    os._exit(EXIT_CODE)


def end(message: str, code: int) -> None:
    """End the process at once, without its threads, which may wait for a dead process."""
    _say(message)
    os._exit(code)


def _say(message: str) -> None:
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
    timer = threading.Timer(seconds, lambda: sys.stderr.write(message + "\n"))
    timer.daemon = True
    timer.start()
    return timer
