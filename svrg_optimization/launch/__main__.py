"""The command line of ``python -m svrg_optimization.launch``."""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from typing import Any, List, Optional, Sequence

from . import job_plan, processes
from .job_plan import Host, Task

_PROGRAM = "python -m svrg_optimization.launch"
WRONG = 2  # the exit code for wrong arguments
NOT_FOUND = 127  # the exit code of a shell if there is no such command
SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=5"

_LONGEST_TIMEOUT = 1e9  # 31 years; timers of systems have a limit

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

exit codes: 0; that of the process that failed first (70 only if no other failed: a process ends with 70 because
another one has died), 128 + N if signal N ended it; 124 after --timeout; 130 after
Ctrl-C; 2 for wrong arguments and for an output that can't be written; 127 if there is no such command.
"""


def _positive(text: str) -> int:
    if not job_plan.is_positive(text):
        raise argparse.ArgumentTypeError("{!r} must be a whole number, at least 1".format(text))
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= _LONGEST_TIMEOUT:
            return float(text)
    raise argparse.ArgumentTypeError("{!r} must be a number of seconds, more than 0 and at most {:.0f}; without "
                                     "--timeout there is no limit".format(text, _LONGEST_TIMEOUT))  # fmt: skip


def _command(text: str) -> List[str]:
    with contextlib.suppress(ValueError):
        words = shlex.split(text)
        if words and words[0]:
            return words
    raise argparse.ArgumentTypeError("{!r} must be a command, as for a shell; for instance 'ssh -p 2222'".format(text))


class _Parser(argparse.ArgumentParser):
    def print_help(self, file: Any = None) -> None:
        # argparse's own goes on in silence if it can't write.
        (file or sys.stdout).write(self.format_help())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=_PROGRAM, usage="%(prog)s -n WORKERS [-s SERVERS] [options] -- COMMAND ...",
        description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("-n", "--workers", type=_positive, required=True, help="number of workers, which run COMMAND")
    add("-s", "--servers", type=_positive, default=1, help="number of servers, which hold the weights (default: 1)")
    add("-H", "--hostfile", metavar="FILE", help="the hosts to run on, by ssh; see below (default: this machine)")
    add("--timeout", type=_seconds, default=0, metavar="SECONDS", help="end everything after this time, with code 124")
    add("--env", action="append", default=[], metavar="NAME[=VALUE]",
        help="a further variable for all processes; may be repeated")  # fmt: skip
    add("--port", type=_positive, help="the scheduler's port; the others and the watch have those that follow "
        "(default: free ones of this machine)")  # fmt: skip
    add("--ssh", type=_command, default=SSH, metavar="COMMAND", help="how to reach another host (default: %(default)s)")
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
    try:
        hosts = job_plan.read_hosts(args.hostfile) if args.hostfile is not None else [Host("", "127.0.0.1")]
        common = job_plan.settings(os.environ, args.env)
        number = job_plan.number_of_ports(args.workers, args.servers)
        if args.port:
            job_plan.check_ports(args.port, number)
            if args.hostfile is None and not args.dry_run:
                job_plan.check_free(args.port, number)
        port, _held = (args.port, []) if args.port else job_plan.reserve_ports(number)
        tasks = job_plan.plan(command, args.workers, args.servers, hosts, port, common, _cores())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if args.dry_run:
        _print_plan(tasks, args.ssh)
        return 0
    for task in tasks:
        program = args.ssh[0] if task.host.name else task.command[0]
        if shutil.which(program) is None:
            sys.stderr.write("{}: error: there is no command {!r}\n".format(parser.prog, program))
            return NOT_FOUND
    threads = {task.environment.get("OMP_NUM_THREADS") for task in tasks} - {common.get("OMP_NUM_THREADS")}
    return processes.run(tasks, args.timeout, args.ssh, "{}, {}; scheduler at {}:{}{}".format(
        _count(args.workers, "worker"), _count(args.servers, "server"), hosts[0].address, port,
        "".join("; OMP_NUM_THREADS={} for the workers on this machine".format(each) for each in threads)))  # fmt: skip


def run() -> int:
    """Run the command line of this process, whose output may be closed or full; return the exit code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            return _refuse("{} is closed; let it go somewhere, for instance to /dev/null".format(_NAMES[name]))
    try:
        try:
            code = main()
        except SystemExit as end:
            # argparse's, for --help and wrong arguments.
            code = int(end.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        return _refuse("the output can't be written: {}; let it go elsewhere".format(error.strerror))
    return code


_NAMES = {"stdout": "standard output", "stderr": "standard error"}


def _refuse(message: str) -> int:
    """Say what is wrong with the output, where that is possible."""
    line = "{}: error: {}\n".format(_PROGRAM, message)
    for stream in (sys.stderr, sys.stdout):
        with contextlib.suppress(AttributeError, OSError):
            stream.write(line)
            stream.flush()
            break
    # Python would try once more to write what couldn't be written, and end with a code of its own.
    for stream in filter(None, (sys.stderr, sys.stdout)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return WRONG


if __name__ == "__main__":
    sys.exit(run())
