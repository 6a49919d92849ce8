"""Runs the processes of a job to their end. Nothing of them is left, and what they write comes out line by line."""

import contextlib
import functools
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence

from ..distributed import liveness
from . import run_and_clean_up
from .job_plan import Task

# Seconds that scheduler and servers have to end after the workers. It is more than they take by themselves.
LEAVING = 20
UNWRITABLE = 2  # the exit code if the launcher can't write
TIMED_OUT = 124  # the exit code of the command `timeout`
# As a file: as a module it would import the package, and a worker's environment makes a worker of whoever does so.
_CLEAN_UP = [sys.executable, run_and_clean_up.__file__]
# Seconds from the first process that ends because another one has died, until that other one has to have ended.
_SECONDS_TO_FAIL = 3
_LONGEST_LINE = 1 << 20


class _Stop(Exception):
    """The job must end before it is over."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# ------------------------------------------------------------------------------------------------------------ output


def say(message: str, stream: Any = None) -> None:
    """Print a line of the launcher itself; to standard error, unless `stream` is another."""
    _write((stream or sys.stderr).buffer, "launch | {}\n".format(message).encode())


def _write(stream: Any, text: bytes) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Nobody reads any more, for instance after `| head`. What is still to come goes to /dev/null.
        _to_nowhere(stream)
        raise _Stop(128 + signal.SIGPIPE, "") from None
    except OSError as error:
        _to_nowhere(stream)
        message = "the output can't be written: {}; let it go elsewhere".format(error.strerror)
        raise _Stop(UNWRITABLE, message) from None


def _to_nowhere(stream: Any) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Lines:
    """Passes on what a process writes, line by line, each after the name of the process."""

    def __init__(self, name: str, stream: Any) -> None:
        self._prefix, self._stream, self._rest = "{} | ".format(name).encode(), stream, b""

    def take(self, data: bytes) -> None:
        """Pass on the lines that are whole; at the end, which is b"", the rest too."""
        # A progress bar goes back to the start of its line: each state of it is a line here.
        *lines, self._rest = re.split(rb"\r?\n|\r(?=.)", self._rest + data, flags=re.DOTALL)
        if self._rest and (not data or len(self._rest) > _LONGEST_LINE):
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            _write(self._stream, b"".join(self._prefix + line + b"\n" for line in lines))


# --------------------------------------------------------------------------------------------------------- processes


class _Process:
    """A process of the job, inside of `run_and_clean_up`. It ends when its standard input, which we hold, closes."""

    def __init__(self, task: Task, ssh: Sequence[str]) -> None:
        self.task = task
        self.name = task.name + (" on " + task.host.name if task.host.name else "")
        environment: Optional[Dict[str, str]] = None
        if task.host.name:
            command = [*ssh, task.host.name, task.line(os.getcwd(), _CLEAN_UP)]
        else:
            command, environment = [*_CLEAN_UP, *task.command], {**os.environ, **task.environment}
        # With a session for each process, Ctrl-C comes to the launcher alone. Besides, each process gets a signal when
        # the launcher ends: ssh doesn't notice that its standard input is closed while it waits for its host.
        self.popen = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: run_and_clean_up.end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - there is one thread
        )  # fmt: skip

    @property
    def is_worker(self) -> bool:
        return self.task.name.startswith("worker")

    @property
    def exit_code(self) -> Optional[int]:
        """None as long as the process runs."""
        code = self.popen.poll()
        return code if code is None or code >= 0 else 128 - code

    def failure(self) -> str:
        """How the process has ended."""
        code = self.exit_code or 0
        if self.task.host.name and code == 255:
            return "{}: ssh failed".format(self.name)
        with contextlib.suppress(ValueError):
            number = signal.Signals(code - 128)
            how = "was stopped, which counts as dead, by" if number in run_and_clean_up.STOPS else "was ended by"
            return "{} {} {}".format(self.name, how, number.name)
        return "{} ended with exit code {}".format(self.name, code)


class _Processes:
    """All processes of the job."""

    def __init__(self, ssh: Sequence[str]) -> None:
        self._ssh = ssh
        self._processes: List[_Process] = []
        self._outputs = selectors.DefaultSelector()
        self._first_failure: Optional[float] = None

    def start(self, task: Task) -> None:
        process = _Process(task, self._ssh)
        self._processes.append(process)
        for pipe, stream in (process.popen.stdout, sys.stdout.buffer), (process.popen.stderr, sys.stderr.buffer):
            self._outputs.register(pipe, selectors.EVENT_READ, _Lines(task.name, stream))  # type: ignore[arg-type]

    def _running(self) -> List[_Process]:
        return [process for process in self._processes if process.exit_code is None]

    def running_names(self) -> str:
        return ", ".join(process.name for process in self._running())

    def wait(self) -> int:
        """Wait until a process has failed, or all have ended; return the exit code of the job."""
        deadline = float("inf")
        while True:
            self._pass_on_output()
            running = self._running()
            failed = self._failed()
            if failed is not None:
                self._pass_on_last_output(failed)
                say("{}; all end".format(failed.failure()))
                return failed.exit_code or 0
            if not running:
                return 0
            if time.monotonic() > deadline:
                message = "all workers are done, and {} s later {} aren't; they end"
                say(message.format(LEAVING, self.running_names()))
                return 0
            if deadline == float("inf") and not any(process.is_worker for process in running):
                deadline = time.monotonic() + LEAVING

    def _failed(self) -> Optional[_Process]:
        """The process whose failure ends the job; None as long as there is none."""
        failed = [process for process in self._processes if process.exit_code]
        if failed and self._first_failure is None:
            self._first_failure = time.monotonic()
        # Those that end because another one has died may end sooner than that one.
        cause = next((process for process in failed if process.exit_code != liveness.EXIT_CODE), None)
        late = self._first_failure is not None and time.monotonic() > self._first_failure + _SECONDS_TO_FAIL
        return cause or (failed[0] if failed and (late or not self._running()) else None)

    def _pass_on_output(self) -> None:
        # Without output, wait a little: for a process that ends, and for one that has closed its output but goes on.
        for key, _ in self._outputs.select(0.5 if self._outputs.get_map() else 0.01):
            self._read(key)

    def _pass_on_last_output(self, process: _Process) -> None:
        """What explains the end of a process comes out before the launcher says that the process has ended."""
        pipes = (process.popen.stdout, process.popen.stderr)
        while any(key.fileobj in pipes for key, _ in self._outputs.select(0)):
            self._pass_on_output()

    def _read(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, 1 << 16)
        if not data:
            self._outputs.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]
        key.data.take(data)

    def end(self) -> None:
        """End all that is left, and wait for that."""
        for process in self._processes:
            process.popen.stdin.close()  # type: ignore[union-attr]
        self._pass_on_output_while(self._running)
        # If a run_and_clean_up was killed, its command is still there.
        run_and_clean_up.kill_descendants()
        self._pass_on_output_while(self._outputs.get_map)

    def _pass_on_output_while(self, condition: Callable[[], Any]) -> None:
        while condition():
            with contextlib.suppress(_Stop):
                self._pass_on_output()


# ----------------------------------------------------------------------------------------------------------- the job

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


def _on_signals(what: Callable[[int, Any], Any]) -> None:
    for number in _SIGNALS:
        # What `nohup` ignores stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, what)


def _stop(timeout: float, number: int, _: Any) -> NoReturn:
    if number == signal.SIGALRM:
        raise _Stop(TIMED_OUT, "timed out after {:g} s".format(timeout))
    raise _Stop(128 + number, "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


def run(tasks: Sequence[Task], timeout: float, ssh: Sequence[str], announcement: str) -> int:
    """Run the processes of a job to their end, in the main thread; return the exit code.

    They end anyway `timeout` seconds after the last one has been started, unless that is 0. `ssh` is the command that
    starts a command on another host. The `announcement` is said first.
    """
    run_and_clean_up.adopt_orphans()
    processes = _Processes(ssh)
    message = ""
    try:
        _on_signals(functools.partial(_stop, timeout))
        say(announcement)
        for task in tasks:
            processes.start(task)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        code = processes.wait()
    except _Stop as stop:
        code, message = stop.code, str(stop)
    # From now on a signal ends the launcher at once, and so does a timer: the processes end by themselves then.
    _on_signals(lambda *_: os._exit(code))
    signal.setitimer(signal.ITIMER_REAL, run_and_clean_up.GRACE + 9)
    if message:
        running = processes.running_names()
        message += "; these are still running, and end: {}".format(running) if running else ""
        # If one of the two streams can't be written, what is written to it goes nowhere from now on.
        for stream in (sys.stderr, sys.stdout) if code == UNWRITABLE else (sys.stderr,):
            with contextlib.suppress(_Stop):
                say(message, stream)
    processes.end()
    return code
