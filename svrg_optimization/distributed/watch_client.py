"""The side of workers and servers in the watch: a thread that ends this process when the job's scheduler says so.

A worker begins when it imports the package: long before it trains another process may die. Imports nothing of mxnet.
`watch_service` is the other side.
"""

import atexit
import os
import select
import socket
import threading
import traceback
from typing import Any, Callable, Dict, Mapping, Optional

from . import exit_code, liveness
from .attendance import Member
from .lines import Lines
from .watch_service import GREETING, PATIENCE

# Set in the environment of a process that is watched: those that it starts are no workers.
_WATCHED = "SVRG_WATCHED"
# How long a worker waits for the scheduler's watch: when it has come to the job, and when it ends without having begun
# anything.
SECONDS_TO_CONNECT = 5


class WatchClient:
    """A process that is watched: one with this role and environment."""

    def __init__(self, role: str, environment: Mapping[str, str]) -> None:
        where = "{} (process {} on {})".format(role, os.getpid(), socket.gethostname())
        self._member = Member(role, environment.get("SVRG_PROCESS") or where, 0)
        self._environment = environment
        self._job, self._address = environment["DMLC_PS_ROOT_PORT"], liveness.address_of_watch(environment)
        self._lock = threading.Lock()
        self._lines: Optional[Lines] = None
        self._connected, self._let_go, self._stopped = threading.Event(), threading.Event(), threading.Event()
        self._seconds_of_silence, self._is_watched = 0, False
        self._thread = threading.Thread(target=self._run, name="svrg_optimization.watch", daemon=True)
        self._thread.start()

    # ---------------------------------------------------------------------------------------- what this process does

    @property
    def name(self) -> str:
        """The name of this process."""
        return self._member.name

    def rename(self, name: str) -> None:
        """Have another name from now on."""
        self._change(name=name)

    def has_store(self) -> None:
        """Know that this process makes its distributed store, or has one. That waits for all workers."""
        if not self._member.operations:
            self._change(operations=1)

    def count_operation(self) -> None:
        """Know that this process begins an operation that waits for all workers."""
        # Not sent: the scheduler hears it within a second.
        self._member = self._member._replace(operations=self._member.operations + 1)

    def is_connected(self, seconds: float) -> bool:
        """Whether the scheduler watches this process, or will do so within so many seconds."""
        return self._connected.wait(seconds)

    def leave(self) -> None:
        """Wait until all workers leave. If another one goes on, this process ends here, non-zero."""
        if self._stopped.is_set():
            return
        seconds = 0 if self._member.operations else SECONDS_TO_CONNECT
        if self.is_connected(seconds):
            self._change(leaves=True)
            if not self._let_go.wait(PATIENCE):
                liveness.say("{}: done; waiting for the other workers".format(self.name))
                self._let_go.wait()

    def say_goodbye(self) -> None:
        """Leave the job: from now on nobody watches this process."""
        if not self._stopped.is_set():
            self._change(gone=True)
            self._stopped.set()
            if self._lines is not None:
                self._lines.close()

    def forget(self) -> None:
        """In a process that was forked: be no part of the job. The connection ends with its owner alone."""
        self._stopped.set()
        if self._lines is not None:
            self._lines.forget()

    def _change(self, **what: Any) -> None:
        self._member = self._member._replace(**what)
        self.tell()

    def tell(self) -> None:
        """Tell the scheduler how it is with this process."""
        with self._lock:
            if self._lines is not None:
                self._lines.send(**self._member._asdict())

    # ------------------------------------------------------------------------------------------- what the thread does

    def _run(self) -> None:
        try:
            self._connect()
            while not self._stopped.is_set():
                self._listen()
        except Exception as error:
            if not self._stopped.is_set():
                # Without a watch the process might wait for ever.
                traceback.print_exc()
                liveness.end("{} ends: its watch raised {!r}".format(self.name, error), 1)

    def _connect(self) -> None:
        """Connect as soon as the scheduler is there."""
        tries = 0
        while not self._stopped.is_set() and not self._try_to_connect():
            tries += 1
            if tries == PATIENCE:
                liveness.say("{}: waiting for the scheduler, python -m svrg_optimization.server, to answer at {}:{}. "
                             "Until then nobody watches this job".format(self.name, *self._address))  # fmt: skip
            self._stopped.wait(0.1 if tries < 5 else 1)

    def _try_to_connect(self) -> bool:
        try:
            connection = socket.create_connection(self._address, timeout=1)
        except OSError:
            return False
        lines = Lines(connection)
        try:
            # Whoever else listens there may say nothing, or wait for us to say something.
            (greeting, *others) = lines.receive() if select.select([lines], [], [], 1)[0] else ({},)
        except (ConnectionError, ValueError):
            greeting = {}
        if greeting.get("service") != GREETING or greeting.get("job") != self._job:
            lines.close()
            return False
        self._lines, self._is_watched = lines, bool(greeting.get("watches"))
        self.tell()
        self._connected.set()
        for message in others:
            self._hear(message)
        return True

    def _listen(self) -> None:
        """Hear what the scheduler says within a second, and tell it how it is with this process."""
        assert self._lines is not None
        if not select.select([self._lines], [], [], 1)[0]:
            self._count_silence()
            return
        self._seconds_of_silence = 0
        try:
            messages = self._lines.receive()
        except (ConnectionError, ValueError):
            if not self._stopped.is_set():
                self._end("the scheduler has ended")
            return
        for message in messages:
            self._hear(message)

    def _hear(self, message: Dict[str, Any]) -> None:
        if message.get("unfinished"):
            liveness.end(
                "{} ends: it leaves, and other workers wait for it: its fit or loop is unfinished. Let all workers "
                "take the same number of steps and epochs".format(self.name), exit_code.nonzero(),
            )  # fmt: skip
        if message.get("wrong"):
            self._end("the scheduler says: {}".format(message["wrong"]))
        if message.get("over") or message.get("bye"):
            self._let_go.set()
        if message.get("bye"):
            self._stopped.set()
        if "watches" in message:
            self._is_watched = bool(message["watches"])
            self.tell()

    def _count_silence(self) -> None:
        # The seconds of this process's own running: if it stands still itself, it has heard nothing of the scheduler.
        self._seconds_of_silence += 1
        limit = liveness.timeout(self._environment)
        if self._is_watched and limit and self._seconds_of_silence > limit + 1:
            self._end("no word from the scheduler for {} s".format(self._seconds_of_silence))
        elif self._seconds_of_silence == PATIENCE:
            liveness.say("{}: waiting for the scheduler: no word from it for {} s".format(self.name, PATIENCE))

    def _end(self, wrong: str) -> None:
        advice = "Start the job again from its checkpoint."
        liveness.end("{}: {}. {}".format(self.name, wrong, advice), liveness.EXIT_CODE)


# ---------------------------------------------------------------------------------------------------- of this process

_client: Optional[WatchClient] = None


def of_process() -> Optional[WatchClient]:
    """What watches this process; None if nothing does."""
    return _client


def join(environment: Any = os.environ) -> None:
    """Be watched from now on, if this process is a worker or a server of a job. Call it once."""
    global _client  # noqa: PLW0603 - a process is in one job
    needed = ("DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT")
    if _WATCHED in environment or any(not environment.get(name) for name in needed):
        return
    for name, value in liveness.DEFAULTS.items():
        environment.setdefault(name, value)
    try:
        _client = WatchClient(environment["DMLC_ROLE"], environment)
    except ValueError:
        return  # a port that is no number, which mxnet is going to say
    environment[_WATCHED] = str(os.getpid())
    os.register_at_fork(after_in_child=_forget)


def join_as_worker() -> None:
    """Be watched, let an exception end this process at once, and leave the job together with the other workers."""
    if _WATCHED in os.environ:
        return
    join()
    liveness.fail_fast()
    if _client is not None:
        liveness.fail_fast(_client.name)
        exit_code.remember()
        atexit.register(leave)


def _forget() -> None:
    global _client  # noqa: PLW0603
    if _client is not None:
        _client.forget()
        _client = None


def call(what: Callable[[WatchClient], Any]) -> None:
    """Call this with what watches the process, if anything does."""
    if _client is not None:
        what(_client)


def leave() -> None:
    """At the end of a worker: wait until all leave, and say goodbye."""
    if _client is not None:
        _client.leave()
        _client.say_goodbye()
