"""Ending a process when the job that it belongs to has lost another one: ps-lite itself would wait for ever.

Every process sends the scheduler a heartbeat, and the scheduler answers. So the scheduler knows who is dead, and ends
when anybody is. Before that it says at its port who it was, where all others ask every second. They end then, or when
nobody listens there any more, or when heartbeats are no longer answered.
"""

import contextlib
import ctypes
import faulthandler
import os
import select
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

# ps-lite's number of the scheduler, and the exit code of a process that ends because of another one.
SCHEDULER = 1
EXIT_CODE = 70
# Seconds between heartbeats, and after how many without one a process is dead.
DEFAULTS = {"PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5"}
# How long a process may take to leave a job that is over, in seconds.
_LEAVING = 15
# For how many seconds the scheduler says who is dead, and how that begins: ZeroMQ, which it is else, begins with 0xff.
_FAREWELL = 3
_SAYS = b"svrg_optimization: "


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


def ask(address: Tuple[str, int]) -> Optional[str]:
    """What a scheduler that ends says to whoever connects; "" if it doesn't end, and None if nobody listens there."""
    try:
        with socket.create_connection(address, timeout=1) as connection:
            said = connection.recv(4096)
    except ConnectionRefusedError:
        return None
    except OSError:
        return ""
    return said[len(_SAYS) :].decode() if said.startswith(_SAYS) else ""


def say_at(port: int, words: str, seconds: float = _FAREWELL) -> None:
    """Say something to whoever connects to what this process listens with at a port, in the place of ZeroMQ."""
    listener = _take_from_zeromq(port)
    if listener is None:
        # The others see the scheduler end, and only it has said why.
        return
    deadline = time.monotonic() + seconds
    with listener:
        while time.monotonic() < deadline:
            listener.settimeout(max(0.01, deadline - time.monotonic()))
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.sendall(_SAYS + words.encode())


def _take_from_zeromq(port: int) -> Optional[socket.socket]:
    """What listens at a port, and ZeroMQ isn't told of connections any more; None without Linux's /proc and epoll."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    descriptors = list(map(int, os.listdir("/proc/self/fd")))
    found = next((each for each in descriptors if _listens_with(each, port)), None)
    if found is None:
        return None
    for each in descriptors:
        with contextlib.suppress(OSError), select.epoll.fromfd(os.dup(each)) as events:
            events.unregister(found)
    return socket.socket(fileno=os.dup(found))


def _listens_with(descriptor: int, port: int) -> bool:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as each:
        listens = each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return bool(listens) and each.family in (socket.AF_INET, socket.AF_INET6) and each.getsockname()[1] == port
    return False


def names_of_nodes(workers: int, servers: int) -> Dict[int, str]:
    """ps-lite's numbers of all processes but the scheduler.

    >>> names_of_nodes(2, 1)
    {9: 'worker 0', 11: 'worker 1', 8: 'server 0'}
    """
    nodes = {9 + 2 * rank: "worker {}".format(rank) for rank in range(workers)}
    nodes.update((8 + 2 * rank, "server {}".format(rank)) for rank in range(servers))
    return nodes


def silent(library: Any, handle: Any, nodes: Mapping[int, str], limit: int) -> List[str]:
    """Which of these processes have sent no heartbeat for `limit` seconds.

    `library` is libmxnet, and `handle` a KVStore's. May be called once ps-lite has been started, and not before.
    """
    number = ctypes.c_int()
    gone = []
    for node, name in nodes.items():
        library.MXKVStoreGetNumDeadNode(handle, node, ctypes.byref(number), limit)
        if number.value:
            gone.append(name)
    return gone


def looks(library: Any, handle: Any, role: str, environment: Mapping[str, str]) -> Callable[[], str]:
    """A function that says what is wrong with the other processes; "" if nothing is."""
    limit = timeout(environment)
    # Since when who is silent. If this process stood still, or the clock was set, everybody seems silent until the next
    # heartbeats: so dead is who stays silent for longer than they take to come.
    since: Dict[str, float] = {}
    patience = _seconds(environment, "PS_HEARTBEAT_INTERVAL") + 0.5
    if role == "scheduler":
        nodes = names_of_nodes(int(environment["DMLC_NUM_WORKER"]), int(environment["DMLC_NUM_SERVER"]))
        address = None
    else:
        nodes = {SCHEDULER: "the scheduler"}
        address = address_of_scheduler(environment)

    def look() -> str:
        if address is not None:
            said = ask(address)
            if said is None:
                return "the scheduler has ended"
            if said:
                return "the scheduler says: " + said
        now = time.monotonic()
        now_silent = silent(library, handle, nodes, limit)
        for name in set(since) - set(now_silent):
            del since[name]
        gone = [name for name in now_silent if now - since.setdefault(name, now) > patience]
        return "no heartbeat from " + ", ".join(gone) if gone else ""

    return look


class Watch:
    """A thread that ends the process as soon as another one is dead.

    Parameters
    ----------
    look : callable
        Says what is wrong; "" for nothing.
    name : str
        What this process is, for the message.
    consequence : str
        What else to say.
    tell : callable
        Called with what is wrong, last of all.
    """

    def __init__(
        self, look: Callable[[], str], name: str, consequence: str, tell: Callable[[str], None] = lambda wrong: None
    ) -> None:
        self._look, self._name, self._consequence, self._tell = look, name, consequence, tell
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
                wrong = self._look()
            except Exception as error:
                # Without a watch the process might wait for ever.
                traceback.print_exc()
                end("{} ends: its watch raised {!r}".format(self._name, error), 1)
            if wrong:
                _say("{}: {}. {}".format(self._name, wrong, self._consequence))
                try:
                    self._tell(wrong)
                finally:
                    os._exit(EXIT_CODE)


def end(message: str, code: int) -> None:
    """End the process at once: its threads wait for processes that will never answer."""
    _say(message)
    os._exit(code)


def _say(message: str) -> None:
    # Who read the output may be gone. That must not keep this process.
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def end_unless_left() -> None:
    """End the process if it doesn't do so itself soon: nobody watches a job any more that is over."""
    # By a thread that isn't Python's: those may have ended by then.
    faulthandler.dump_traceback_later(_LEAVING, exit=True, file=2)


def say_later(message: str, seconds: float = 10) -> threading.Timer:
    """Print a message in so many seconds, unless it is cancelled before."""
    timer = threading.Timer(seconds, lambda: sys.stderr.write(message + "\n"))
    timer.daemon = True
    timer.start()
    return timer
