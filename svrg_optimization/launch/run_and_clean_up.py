"""``python -m svrg_optimization.launch.run_and_clean_up COMMAND ...``: run a command, and leave no process behind.

The command and all processes that it has started end in four cases: when the command ends, when it has been stopped
for longer than PS_HEARTBEAT_TIMEOUT seconds, when this program gets a signal, and when its standard input closes.
Whoever starts this program, on this machine or over ssh, holds the other end of its standard input. That end closes
however its holder ends, even if the holder is killed or cut off.

The exit code is the command's, or 128 + the number of the signal that ended or stopped the command.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from typing import Dict, List, Mapping, Optional, Sequence

# Seconds from asking a process to end until it is killed.
GRACE = 3
# The signals that stop a process.
STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _control(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def adopt_orphans() -> None:
    """Become, on Linux, the parent of every descendant whose own parent ends, in whatever session it is."""
    _control(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: int) -> None:
    """Get this signal, on Linux, when the parent ends. A child calls it between fork and exec."""
    _control(_PR_SET_PDEATHSIG, number)


def descendants() -> List[int]:
    """All descendants of this process, zombies included; [] where that isn't Linux."""
    by_parent: Dict[int, List[int]] = {}
    for entry in os.listdir("/proc") if sys.platform == "linux" else []:
        if entry.isdigit():
            # The process may have ended since.
            with contextlib.suppress(OSError), open("/proc/{}/stat".format(entry), "rb") as stat:
                # The parent is the second number after the name. The name is in parentheses, and may contain anything.
                by_parent.setdefault(int(stat.read().rpartition(b")")[2].split()[1]), []).append(int(entry))
    found = by_parent.get(os.getpid(), [])
    for pid in found:
        found += by_parent.get(pid, [])
    return found


def send(number: int, group: Optional[int] = None) -> None:
    """Send a signal to all descendants; on another system than Linux, to a process group."""
    for pid in descendants():
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    if group is not None and sys.platform != "linux":
        with contextlib.suppress(OSError):
            os.killpg(group, number)


def kill_descendants(group: Optional[int] = None) -> None:
    """Kill all descendants, and wait until they are gone. Before, call `adopt_orphans`."""
    while True:
        send(signal.SIGKILL, group)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def stopped_limit(environment: Mapping[str, str]) -> int:
    """How many seconds a process may be stopped; 0 for any number: where there are no heartbeats, nobody dies so."""
    interval, timeout = (environment.get("PS_HEARTBEAT_" + name, "") for name in ("INTERVAL", "TIMEOUT"))
    return int(timeout) if timeout.isdigit() and interval.isdigit() and int(interval) else 0


class _Command:
    """The running command, and what this program waits for."""

    def __init__(self, command: Sequence[str]) -> None:
        adopt_orphans()
        self._limit = stopped_limit(os.environ)
        self._stopped_by, self._stopped_since = 0, 0.0
        # A signal writes its number into this pipe.
        self._signals, write = os.pipe()
        for end in (self._signals, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - there is one thread
        )  # fmt: skip

    def wait(self) -> int:
        """The command's exit code; or 128 + the number of a signal: SIGTERM if standard input has closed.

        That is the signal that stopped the command, if it has been stopped for too long.
        """
        while True:
            self._reap()
            if self._popen.returncode is not None:
                return self._popen.returncode
            left = self._stopped_since + self._limit - time.monotonic() if self._stopped_by and self._limit else None
            if left is not None and left <= 0:
                return 128 + self._stopped_by
            for ready in select.select([sys.stdin.fileno(), self._signals], [], [], left)[0]:
                read = os.read(ready, 4096)
                if ready != self._signals and not read:
                    return 128 + signal.SIGTERM
                for number in read if ready == self._signals else ():
                    if number != signal.SIGCHLD:
                        return 128 + number

    def clean_up(self) -> None:
        """Ask all descendants to end; kill those that don't."""
        for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process gets the first after the second
            send(number, self._popen.pid)
        deadline = time.monotonic() + GRACE
        while self._reap() and time.monotonic() < deadline:
            if select.select([self._signals], [], [], max(0, deadline - time.monotonic()))[0]:
                os.read(self._signals, 4096)
        kill_descendants(self._popen.pid)

    def _reap(self) -> bool:
        """Wait for all children that have ended; return whether there are others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if os.WIFSTOPPED(status) or os.WIFCONTINUED(status):
                if pid == self._popen.pid:
                    self._stopped_by = os.WSTOPSIG(status) if os.WIFSTOPPED(status) else 0
                    self._stopped_since = time.monotonic()
            elif pid == self._popen.pid:
                self._popen.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def main() -> int:
    """Run the command to its end."""
    arguments = sys.argv[1:]
    try:
        command = _Command(arguments)
    except OSError as error:
        sys.stderr.write("{} can't be started: {}\n".format(arguments[0], error.strerror))
        return 127 if isinstance(error, FileNotFoundError) else 126
    code = command.wait()
    command.clean_up()
    return code


if __name__ == "__main__":
    sys.exit(main())
