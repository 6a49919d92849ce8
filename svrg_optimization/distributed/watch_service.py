"""The scheduler's side of the watch: a thread that listens to all processes of the job, and tells all who is dead.

Whoever has come is dead if its connection ends before it has said that it has left. Whoever stands still keeps its
connection; `inspect`, which asks ps-lite, finds that out. `watch_client` is the other side.
"""

import contextlib
import os
import selectors
import socket
import threading
import time
import traceback
from typing import Any, Callable, Dict, Mapping, Optional

from . import liveness
from .attendance import Attendance, read_member
from .lines import Lines

# What a service says first. Whoever hears anything else has come to another program.
GREETING = "svrg_optimization.watch"
# After so many seconds there is a line about who hasn't come or hasn't said anything; strangers have to go.
PATIENCE = 10

_SECONDS_OF_FAREWELL = 1  # how long the scheduler waits for the others to hear who is dead
_STRANGERS = 64  # so many connections more than there are processes


class WatchService:
    """Watches the processes of a job from the time that each has come to this one's port.

    Raises OSError if this process can't listen there.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._job = environment["DMLC_PS_ROOT_PORT"]
        workers, servers = int(environment["DMLC_NUM_WORKER"]), int(environment["DMLC_NUM_SERVER"])
        self._attendance = Attendance(workers, servers)
        self._most_connections = workers + servers + _STRANGERS
        self._inspect: Optional[Callable[[], str]] = None
        # Two threads say whether this one watches. Whoever hears that must hear the newest last.
        self._watching = threading.Lock()
        self._seconds_of_silence: Dict[Lines, int] = {}
        self._said, self._seconds_unchanged = "", 0
        host, port = liveness.address_of_watch(environment)
        self._listener = socket.create_server(("" if environment.get("DMLC_USE_KUBERNETES") == "1" else host, port))
        self._listener.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for each in (self._listener, self._woken):
            self._selector.register(each, selectors.EVENT_READ)
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="svrg_optimization.watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def inspect_by(self, inspect: Callable[[], str]) -> None:
        """From now on, ask this every second which process stands still.

        From now on, too, this process has nothing else to do. So if the others hear nothing of it, it stands still.
        """
        with self._watching:
            self._inspect = inspect
            self._tell_all(watches=True)

    def stop(self) -> None:
        """Tell all that the job is over, and stop."""
        self._stopped = True
        self._wake.send(b"!")
        self._thread.join()
        self._tell_all(bye=True)
        for connection in list(self._seconds_of_silence):
            self._close(connection)
        for each in (self._listener, self._wake, self._woken):
            each.close()

    def _run(self) -> None:
        try:
            next_second = time.monotonic() + 1
            while not self._stopped:
                self._take(max(0.0, next_second - time.monotonic()))
                if time.monotonic() >= next_second:
                    # Not from the last one on: a process that stood still has heard nobody meanwhile.
                    next_second = time.monotonic() + 1
                    self.each_second()
        except Exception as error:
            # Without a watch the job might wait for ever.
            traceback.print_exc()
            liveness.end("scheduler ends: its watch raised {!r}".format(error), 1)

    # --------------------------------------------------------------------------------------------------- what comes

    def _take(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if isinstance(key.fileobj, Lines):
                self._hear(key.fileobj)
            elif key.fileobj is self._listener:
                self._accept()

    def _accept(self) -> None:
        # Whoever knocked may have gone.
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            if len(self._seconds_of_silence) >= self._most_connections:
                connection.close()
                return
            lines = Lines(connection)
            self._selector.register(lines, selectors.EVENT_READ)
            with self._watching:
                self._seconds_of_silence[lines] = 0
                lines.send(service=GREETING, job=self._job, watches=self._inspect is not None)

    def _hear(self, connection: Lines) -> None:
        try:
            messages = connection.receive()
            for message in messages:
                self._attendance.hear(connection, read_member(message))
        except (ConnectionError, ValueError):
            # Or a stranger, who needn't end because we don't listen any longer.
            connection.send(bye=True)
            self._lose(connection)
            return
        self._seconds_of_silence[connection] = 0
        if messages:
            self._decide()

    def _lose(self, connection: Lines) -> None:
        self._close(connection)
        wrong = self._attendance.lose(connection)
        if wrong:
            self._end_all(wrong)

    def _close(self, connection: Lines) -> None:
        del self._seconds_of_silence[connection]
        self._selector.unregister(connection)
        connection.close()

    # ------------------------------------------------------------------------------------------------ what it means

    def _decide(self) -> None:
        early = self._attendance.who_left_too_early()
        if early is not None:
            early.send(unfinished=True)  # type: ignore[attr-defined]
            self._end_all("{} has left, and others wait for it: its fit or loop is unfinished".format(
                self._attendance.name(early)))  # fmt: skip
        for connection in self._attendance.let_go():
            connection.send(over=True)  # type: ignore[attr-defined]
        if self._attendance.is_over:
            # ps-lite ends everywhere, and so do its heartbeats.
            self._inspect = None
            liveness.end_unless_left()

    def each_second(self) -> None:
        """What there is to do every second."""
        with self._watching:
            self._tell_all(watches=self._inspect is not None)
        wrong = self._inspect() if self._inspect is not None else ""
        if wrong:
            self._end_all(wrong)
        for connection in list(self._seconds_of_silence):
            self._count_silence(connection)
        missing = self._attendance.missing()
        self._seconds_unchanged = self._seconds_unchanged + 1 if missing == self._said else 0
        self._said = missing
        if missing and self._seconds_unchanged == PATIENCE:
            liveness.say("scheduler: {}".format(missing))

    def _count_silence(self, connection: Lines) -> None:
        self._seconds_of_silence[connection] += 1
        if self._seconds_of_silence[connection] != PATIENCE:
            return
        if connection not in self._attendance:
            self._close(connection)
            return
        # Not dead for sure: its Python may be busy in another thread.
        liveness.say("scheduler: waiting for {}: no word from it for {} s, it is stopped or busy".format(
            self._attendance.name(connection), PATIENCE))  # fmt: skip

    # -------------------------------------------------------------------------------------------------- what is said

    def _tell_all(self, **message: Any) -> None:
        for connection in list(self._seconds_of_silence):
            connection.send(**message)

    def _end_all(self, wrong: str) -> None:
        """Tell all who is dead, wait until they have ended, and end this process."""
        liveness.say("scheduler: {}. The job is over: start it again from its checkpoint.".format(wrong))
        self._tell_all(wrong=wrong)
        deadline = time.monotonic() + _SECONDS_OF_FAREWELL
        with contextlib.suppress(Exception):
            while self._seconds_of_silence and time.monotonic() < deadline:
                for key, _ in self._selector.select(max(0.0, deadline - time.monotonic())):
                    if isinstance(key.fileobj, Lines):
                        self._drain(key.fileobj)
        os._exit(liveness.EXIT_CODE)

    def _drain(self, connection: Lines) -> None:
        try:
            connection.receive()
        except (ConnectionError, ValueError):
            self._close(connection)
