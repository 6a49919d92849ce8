"""Ending a process when the job that it belongs to has lost another one: ps-lite itself would wait for ever.

Every process sends the scheduler a heartbeat, and the scheduler answers. So the scheduler knows who is dead, and every
other process knows whether the scheduler is. The scheduler ends when anybody dies, and all others when it does.
"""

import ctypes
import os
import sys
import threading
from typing import Any, Callable, Dict, List, Mapping

# ps-lite's number of the scheduler, and the exit code of a process that ends because of another one.
SCHEDULER = 1
EXIT_CODE = 70
# Seconds between heartbeats, and after how many without one a process is dead.
DEFAULTS = {"PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5"}


def timeout(environment: Mapping[str, str]) -> int:
    """After how many seconds without a heartbeat a process is dead; 0 if heartbeats are off.

    >>> timeout({}), timeout({'PS_HEARTBEAT_INTERVAL': '1', 'PS_HEARTBEAT_TIMEOUT': '7'})
    (0, 7)
    """
    interval, limit = (environment.get(name, "") for name in ("PS_HEARTBEAT_INTERVAL", "PS_HEARTBEAT_TIMEOUT"))
    return int(limit) if interval.isdigit() and int(interval) and limit.isdigit() else 0


def names_of_nodes(workers: int, servers: int) -> Dict[int, str]:
    """ps-lite's numbers of all processes but the scheduler.

    >>> names_of_nodes(2, 1)
    {9: 'worker 0', 11: 'worker 1', 8: 'server 0'}
    """
    nodes = {9 + 2 * rank: "worker {}".format(rank) for rank in range(workers)}
    nodes.update((8 + 2 * rank, "server {}".format(rank)) for rank in range(servers))
    return nodes


def dead(library: Any, handle: Any, nodes: Mapping[int, str], limit: int) -> List[str]:
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


class Watch:
    """A thread that ends the process as soon as one of the others is dead.

    Parameters
    ----------
    look : callable
        Says which processes are dead.
    role : str
        What this process is, for the message.
    consequence : str
        What else to say.
    """

    def __init__(self, look: Callable[[], List[str]], role: str, consequence: str) -> None:
        self._look, self._role, self._consequence = look, role, consequence
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="svrg_optimization.watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(1):
            gone = self._look()
            if gone:
                end("{}: no heartbeat from {}. {}".format(self._role, ", ".join(gone), self._consequence), EXIT_CODE)


def end(message: str, code: int) -> None:
    """End the process at once: its threads wait for processes that will never answer."""
    sys.stdout.flush()
    sys.stderr.write(message + "\n")
    sys.stderr.flush()
    os._exit(code)
