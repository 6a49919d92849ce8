"""``python -m svrg_optimization.launch``: the processes of a distributed job, on this machine or on several."""

import argparse
import contextlib
import functools
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence

from . import job_plan, keeper
from .job_plan import Host, Task

# Seconds that scheduler and servers have to end after the workers: more than they give themselves.
LEAVING = 20
# The exit codes of `timeout` and of a shell: timed out, and no such command.
TIMED_OUT, NOT_FOUND = 124, 127
SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=5"
_KEEPER = [sys.executable, "-m", "svrg_optimization.keeper"]
_LONGEST_LINE = 1 << 20

_DESCRIPTION = """\
Start a distributed training job: a scheduler, servers and workers, on this machine or, with -H, on several.

What they write comes out here line by line, each after the name of its process, which is also its number in the job:
"worker 0 | ...". If one of them fails, all end, and the exit code is that of the first failure. If this command ends,
in whatever way, all end.
"""

_EXAMPLES = """\
examples:
  4 workers and 2 servers on this machine, for an hour at most:
    python -m svrg_optimization.launch -n 4 -s 2 --timeout 3600 -- python train.py --epochs 10

  The same on two machines that ssh reaches without a password, and where the paths are the same as here:
    printf 'node1 slots=2\\nnode2 slots=2\\n' > hosts
    python -m svrg_optimization.launch -n 4 -s 2 -H hosts -- python train.py --epochs 10

  Print the commands, as lines for a shell, and start nothing:
    python -m svrg_optimization.launch -n 4 -s 2 -H hosts --dry-run -- python train.py --epochs 10

a host of a hostfile, one a line:
  node1                          its name or address; "user@node1" too
  node1 slots=4                  with at most 4 workers; they are dealt out in turn
  node1 address=10.0.0.1         the IPv4 address that the other hosts reach it at, if not what the name stands for
The scheduler runs on the first.

environment: all processes get DMLC_*, PS_*, MXNET_* and OMP_NUM_THREADS as they are here, and what --env names.
Processes on this machine get all the rest too. Without OMP_NUM_THREADS, several workers on this machine share half of
its cores. Each gets its port in PORT.

exit codes: 0; that of the process that failed first, 128 + N if signal N ended it; 124 after --timeout; 130 after
Ctrl-C; 2 for wrong arguments; 127 if there is no such command.
"""


class _Stop(Exception):
    """The job is to end before it is over."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


# ------------------------------------------------------------------------------------------------------------ output


def _say(message: str) -> None:
    _write(sys.stderr.buffer, "launch | {}\n".format(message).encode())


def _write(stream: Any, text: bytes) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Nobody reads any more, for instance after `| head`; nor will what is still to come be read.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise _Stop(128 + signal.SIGPIPE, "") from None


class _Lines:
    """Passes on what a process writes, line by line, each after the name of the process."""

    def __init__(self, name: str, stream: Any) -> None:
        self._prefix, self._stream, self._rest = "{} | ".format(name).encode(), stream, b""

    def take(self, data: bytes) -> None:
        """Pass on the lines that are whole; with b"", the end, what is left."""
        # Progress bars go back to the start of the line.
        *lines, self._rest = re.split(rb"\r?\n|\r(?=.)", self._rest + data, flags=re.DOTALL)
        if self._rest and (not data or len(self._rest) > _LONGEST_LINE):
            lines, self._rest = [*lines, self._rest], b""
        if lines:
            _write(self._stream, b"".join(self._prefix + line + b"\n" for line in lines))


# --------------------------------------------------------------------------------------------------------- processes


class _Process:
    """A process of the job, with its keeper. Ends when its standard input, which we hold, closes."""

    def __init__(self, task: Task, ssh: Sequence[str]) -> None:
        self.task = task
        self.name = task.name + (" on " + task.host.name if task.host.name else "")
        environment: Optional[Dict[str, str]] = None
        if task.host.name:
            command = [*ssh, task.host.name, task.line(os.getcwd(), _KEEPER)]
        else:
            command, environment = [*_KEEPER, *task.command], {**os.environ, **task.environment}
        # A session of its own, so that Ctrl-C comes to us alone. ssh doesn't notice that its standard input is closed
        # while it waits for its host, so it gets a signal as well.
        self.popen = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: keeper.end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - there is one thread
        )  # fmt: skip

    @property
    def is_worker(self) -> bool:
        return self.task.name.startswith("worker")

    @property
    def exit_code(self) -> Optional[int]:
        """None as long as it runs."""
        code = self.popen.poll()
        return code if code is None or code >= 0 else 128 - code

    def failure(self) -> str:
        """How it has ended."""
        code = self.exit_code or 0
        if self.task.host.name and code == 255:
            return "{}: ssh failed".format(self.name)
        with contextlib.suppress(ValueError):
            return "{} was ended by {}".format(self.name, signal.Signals(code - 128).name)
        return "{} ended with exit code {}".format(self.name, code)


class _Job:
    """The processes, from the first to the last."""

    def __init__(self, ssh: Sequence[str]) -> None:
        self._ssh = ssh
        self._processes: List[_Process] = []
        self._outputs = selectors.DefaultSelector()

    def start(self, task: Task) -> None:
        process = _Process(task, self._ssh)
        self._processes.append(process)
        for pipe, stream in (process.popen.stdout, sys.stdout.buffer), (process.popen.stderr, sys.stderr.buffer):
            self._outputs.register(pipe, selectors.EVENT_READ, _Lines(task.name, stream))  # type: ignore[arg-type]

    def _running(self) -> List[_Process]:
        return [process for process in self._processes if process.exit_code is None]

    def running_names(self) -> List[str]:
        return [process.name for process in self._running()]

    def wait(self) -> int:
        """The exit code: once one has failed, or all have ended."""
        deadline = float("inf")
        while True:
            self._pass_on_output()
            running = self._running()
            failed = next((process for process in self._processes if process.exit_code), None)
            if failed is not None:
                self._pass_on_last_output(failed)
                _say("{}; all end".format(failed.failure()))
                return failed.exit_code or 0
            if not running:
                return 0
            if time.monotonic() > deadline:
                names = ", ".join(process.name for process in running)
                _say("all workers are done, and {} s later {} aren't; they end".format(LEAVING, names))
                return 0
            if deadline == float("inf") and not any(process.is_worker for process in running):
                deadline = time.monotonic() + LEAVING

    def _pass_on_output(self) -> None:
        # A pipe closes, and wakes us, when all have ended that might write into it.
        for key, _ in self._outputs.select(0.5 if self._outputs.get_map() else 0.01):
            self._read(key)

    def _pass_on_last_output(self, process: _Process) -> None:
        """What explains its end comes before we say that it has ended."""
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
        """End all that is left, and wait for it."""
        for process in self._processes:
            process.popen.stdin.close()  # type: ignore[union-attr]
        self._pass_on_output_while(self._running)
        # What a keeper that was killed has left.
        keeper.kill_descendants()
        self._pass_on_output_while(self._outputs.get_map)

    def _pass_on_output_while(self, condition: Callable[[], Any]) -> None:
        while condition():
            with contextlib.suppress(_Stop):
                self._pass_on_output()


# ----------------------------------------------------------------------------------------------------------- the job

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


def _on_signals(what: Callable[[int, Any], Any], seconds: float) -> None:
    for number in _SIGNALS:
        # What `nohup` ignores stays ignored.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, what)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _stop(timeout: float, number: int, _: Any) -> NoReturn:
    if number == signal.SIGALRM:
        raise _Stop(TIMED_OUT, "timed out after {:g} s".format(timeout))
    raise _Stop(128 + number, "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)


def run(tasks: Sequence[Task], timeout: float = 0, ssh: Sequence[str] = ()) -> int:
    """Run a job to its end, in the main thread; nothing of it is left.

    Parameters
    ----------
    tasks : sequence of Task
        Its processes.
    timeout : float
        After how many seconds it ends anyway; 0 for never.
    ssh : sequence of str
        The command that starts a command on another host.

    Returns
    -------
    int
        The exit code.
    """
    keeper.adopt_orphans()
    job = _Job(ssh)
    message = ""
    try:
        _on_signals(functools.partial(_stop, timeout), timeout)
        for task in tasks:
            job.start(task)
        code = job.wait()
    except _Stop as stop:
        code, message = stop.code, str(stop)
    # From now on another signal doesn't wait, nor is ending to take for ever; the keepers do the rest by themselves.
    _on_signals(lambda *_: os._exit(code), keeper.GRACE + 9)
    if message:
        with contextlib.suppress(_Stop):
            _say("{}; these are still running, and end: {}".format(message, ", ".join(job.running_names())))
    job.end()
    return code


# ---------------------------------------------------------------------------------------------------- the command line


def _positive(text: str) -> int:
    if not (text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError("{!r} must be a whole number, at least 1".format(text))
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError("{!r} must be a number of seconds, more than 0".format(text))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m svrg_optimization.launch", usage="%(prog)s -n WORKERS [-s SERVERS] [options] -- COMMAND ...",
        description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("-n", "--workers", type=_positive, required=True, help="number of workers, which run COMMAND")
    add("-s", "--servers", type=_positive, default=1, help="number of servers, which hold the weights (default: 1)")
    add("-H", "--hostfile", metavar="FILE", help="the hosts to run on, by ssh; see below (default: this machine)")
    add("--timeout", type=_seconds, default=0, metavar="SECONDS", help="end everything after this time, with code 124")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="a further variable for all processes; may be repeated")  # fmt: skip
    add("--port", type=_positive, help="the scheduler's port; the others have those that follow "
        "(default: free ones of this machine)")  # fmt: skip
    add("--ssh", default=SSH, metavar="COMMAND", help="how to reach another host (default: %(default)s)")
    add("--dry-run", action="store_true", help="print the commands and start nothing")
    add("command", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="the training program and its arguments")
    return parser


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(number: int, what: str) -> str:
    return "{} {}{}".format(number, what, "" if number == 1 else "s")


def _print_plan(tasks: Sequence[Task], ssh: Sequence[str]) -> None:
    for task in tasks:
        line = task.line(os.getcwd())
        if task.host.name:
            line = " ".join(map(shlex.quote, [*ssh, task.host.name, line]))
        print("# {}{}\n{}".format(task.name, " on " + task.host.name if task.host.name else "", line))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("no command for the workers; for instance: -n 2 -- python train.py")
    ssh = shlex.split(args.ssh)
    try:
        hosts = job_plan.read_hosts(args.hostfile) if args.hostfile else [Host("", "127.0.0.1")]
        common = job_plan.settings(os.environ, args.env)
        port = args.port or job_plan.free_ports(1 + args.servers + args.workers)
        tasks = job_plan.plan(command, args.workers, args.servers, hosts, port, common, _cores())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.dry_run:
        _print_plan(tasks, ssh)
        return 0
    for task in tasks:
        program = ssh[0] if task.host.name else task.command[0]
        if shutil.which(program) is None:
            sys.stderr.write("{}: error: there is no command {!r}\n".format(parser.prog, program))
            return NOT_FOUND
    threads = {task.environment.get("OMP_NUM_THREADS") for task in tasks} - {common.get("OMP_NUM_THREADS")}
    _say("{}, {}; scheduler at {}:{}{}".format(
        _count(args.workers, "worker"), _count(args.servers, "server"), hosts[0].address, port,
        "".join("; OMP_NUM_THREADS={} for the workers on this machine".format(each) for each in threads)))  # fmt: skip
    return run(tasks, args.timeout, ssh)


if __name__ == "__main__":
    sys.exit(main())
