"""A thread that binds networks: what it binds shares no temporary memory and no random generators with other networks.

mxnet 1.9.1 has a store of temporary memory and of random generators for each thread that binds, which it lends to the
operators of all cpu ids, to one operator at a time. Two networks that compute at the same time must not share a store;
and ``mx.random.seed`` seeds the generators of the thread that calls it. The store goes when its thread ends, so this
thread stays.
"""

import functools
import queue
import threading
from typing import Any, Callable, List, Optional, Tuple

import mxnet as mx


class _Worker(threading.Thread):
    """A thread that calls functions, one after the other."""

    def __init__(self) -> None:
        super().__init__(name="svrg_optimization.own_thread", daemon=True)
        self._calls: "queue.SimpleQueue[Tuple[Callable[[], Any], Any]]" = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        while True:
            # In no variable of this loop, which would keep the function's module in memory until the next call.
            _answer(*self._calls.get())

    def call(self, function: Callable[[], Any]) -> None:
        # Each call has an answer of its own: nobody else gets that of a call whose caller was interrupted.
        answer: "queue.SimpleQueue[Optional[BaseException]]" = queue.SimpleQueue()
        self._calls.put((function, answer))
        error = answer.get()
        if error is not None:
            raise error


def _answer(function: Callable[[], Any], answer: Any) -> None:
    try:
        function()
    except BaseException as error:
        answer.put(error)
    else:
        answer.put(None)


_worker: List[_Worker] = []


def call(function: Callable[[], Any]) -> None:
    """Call a function in the thread, and raise here what the function raises there."""
    if not (_worker and _worker[0].is_alive()):
        # There is none yet, or none in this process, which was forked.
        _worker[:] = [_Worker()]
    _worker[0].call(function)


class SnapshotModule(mx.mod.Module):
    """The snapshot's network: a Module that may be bound in the thread, and then is each time it is bound anew."""

    in_own_thread = False

    def bind(self, *args: Any, **kwargs: Any) -> None:
        """``Module.bind``."""
        self.call(super().bind, *args, **kwargs)

    def reshape(self, *args: Any, **kwargs: Any) -> None:
        """``Module.reshape``."""
        self.call(super().reshape, *args, **kwargs)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function, in the thread if this module is bound there."""
        if self.in_own_thread:
            call(functools.partial(function, *args, **kwargs))
        else:
            function(*args, **kwargs)
