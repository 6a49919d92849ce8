"""``python -m svrg_optimization.keeper COMMAND ...``: run a command, and leave nothing of it behind.

The command, and all that it has started, end when it ends itself, when the keeper gets a signal, and when the keeper's
standard input closes. The other end of that is held by whoever started the job, on this machine or over ssh: however
that process ends, killed or cut off, its end closes.

The exit code is the command's, or 128 + the number of the signal that ended it.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from typing import Dict, List, Optional, Sequence

# Seconds that processes have from being asked to end until they are killed.
GRACE = 3
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _control(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def adopt_orphans() -> None:
    """Become, on Linux, the parent of every descendant whose own parent ends, in whatever session it is."""
    _control(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent(number: int) -> None:
    """Get this signal, on Linux, when the parent ends. For a child to call between fork and exec."""
    _control(_PR_SET_PDEATHSIG, number)


def descendants() -> List[int]:
    """All processes that this one and its descendants have started, those that nobody has waited for included."""
    by_parent: Dict[int, List[int]] = {}
    for entry in os.listdir("/proc") if sys.platform == "linux" else []:
        if entry.isdigit():
            # It may have ended meanwhile.
            with contextlib.suppress(OSError), open("/proc/{}/stat".format(entry), "rb") as stat:
                # The name, in parentheses, may hold anything.
                by_parent.setdefault(int(stat.read().rpartition(b")")[2].split()[1]), []).append(int(entry))
    found = by_parent.get(os.getpid(), [])
    for pid in found:
        found += by_parent.get(pid, [])
    return found


def send(number: int, group: Optional[int] = None) -> None:
    """Send a signal to all descendants; where that isn't Linux, to a process group."""
    for pid in descendants():
        with contextlib.suppress(OSError):
            os.kill(pid, number)
    if group is not None and sys.platform != "linux":
        with contextlib.suppress(OSError):
            os.killpg(group, number)


def kill_descendants(group: Optional[int] = None) -> None:
    """Kill all descendants, and wait until they are gone: see `adopt_orphans`."""
    while True:
        send(signal.SIGKILL, group)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


class _Keeper:
    """A running command and the signals that are about it."""

    def __init__(self, command: Sequence[str]) -> None:
        adopt_orphans()
        self._wake, write = os.pipe()
        for end in (self._wake, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._command = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=lambda: end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - there is one thread
        )  # fmt: skip

    def wait(self) -> int:
        """The command's exit code; or that of a signal, or of the end of standard input."""
        while True:
            self._reap()
            if self._command.returncode is not None:
                return self._command.returncode
            for ready in select.select([sys.stdin.fileno(), self._wake], [], [])[0]:
                heard = os.read(ready, 4096)
                if ready != self._wake and not heard:
                    return 128 + signal.SIGTERM
                for number in heard if ready == self._wake else ():
                    if number != signal.SIGCHLD:
                        return 128 + number

    def end(self) -> None:
        """Ask what is left of the command to end; kill what doesn't."""
        for number in (signal.SIGTERM, signal.SIGCONT):  # stopped processes hear of it when they go on
            send(number, self._command.pid)
        deadline = time.monotonic() + GRACE
        while self._reap() and time.monotonic() < deadline:
            if select.select([self._wake], [], [], max(0, deadline - time.monotonic()))[0]:
                os.read(self._wake, 4096)
        kill_descendants(self._command.pid)

    def _reap(self) -> bool:
        """Wait for all children that have ended; return whether there are others."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._command.pid:
                self._command.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def main(command: Optional[Sequence[str]] = None) -> int:
    """Run the command to its end."""
    command = sys.argv[1:] if command is None else command
    try:
        keeper = _Keeper(command)
    except OSError as error:
        sys.stderr.write("{} can't be started: {}\n".format(command[0], error.strerror))
        return 127 if isinstance(error, FileNotFoundError) else 126
    code = keeper.wait()
    keeper.end()
    return code


if __name__ == "__main__":
    sys.exit(main())
