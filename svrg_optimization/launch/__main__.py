"""The command line of ``python -m svrg_optimization.launch``."""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from typing import Optional, Sequence

from . import job_plan, processes
from .job_plan import Host, Task

NOT_FOUND = 127  # the exit code of a shell if there is no such command
SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=5"

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
        number = 1 + args.servers + args.workers
        port, _held = (args.port, []) if args.port else job_plan.reserve_ports(number)
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
    processes.say("{}, {}; scheduler at {}:{}{}".format(
        _count(args.workers, "worker"), _count(args.servers, "server"), hosts[0].address, port,
        "".join("; OMP_NUM_THREADS={} for the workers on this machine".format(each) for each in threads)))  # fmt: skip
    return processes.run(tasks, args.timeout, ssh)


if __name__ == "__main__":
    sys.exit(main())
