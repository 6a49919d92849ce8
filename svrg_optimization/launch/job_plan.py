"""Which processes a distributed job has, where each runs, and what its environment says."""

import contextlib
import random
import re
import shlex
import socket
import sys
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from ..distributed import liveness

# The command of the scheduler and of a server.
SERVER = [sys.executable, "-m", "svrg_optimization.server"]
# Of the launcher's environment, all processes of a job get the variables whose names begin so.
PASSED_ON = ("DMLC_", "PS_", "MXNET_")
# What `plan` sets.
OF_LAUNCHER = (
    "DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER", "DMLC_NODE_HOST",
    "PORT", "SVRG_WATCH_PORT", "SVRG_PROCESS",
)  # fmt: skip
# Systems take the ports of outgoing connections from those above.
_PORTS = range(10000, 32768)
_LAST_PORT = 65535


class Host(NamedTuple):
    """A machine."""

    name: str  # for ssh; "" for this machine
    address: str  # the IPv4 address at which the others reach it
    slots: Optional[int] = None  # how many workers it may have; None for any number


class Task(NamedTuple):
    """A process of a job."""

    name: str
    host: Host
    command: List[str]
    environment: Dict[str, str]

    def line(self, directory: str, around: Sequence[str] = ()) -> str:
        """The command for a shell, run by another command `around` it."""
        settings = ["{}={}".format(name, value) for name, value in sorted(self.environment.items())]
        words = ["env", *settings, *around, *self.command]
        return "cd {} && exec {}".format(shlex.quote(directory), " ".join(map(shlex.quote, words)))


def is_positive(text: str) -> bool:
    """Whether a text is a whole number, at least 1.

    >>> [is_positive(text) for text in ('12', '0', '-1', '1.5', '\u00b2')]
    [True, False, False, False, False]
    """
    return text.isascii() and text.isdigit() and int(text) > 0


# ------------------------------------------------------------------------------------------------------------- hosts


def read_hosts(path: str) -> List[Host]:
    """The hosts of a hostfile: one a line, by name or address, and optionally ``slots=`` and ``address=``.

    Raises ValueError for a line that isn't like that, and for an address that doesn't exist or that the other hosts
    can't reach.
    """
    hosts: List[Host] = []
    for number, line in enumerate(_lines(path), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                hosts.append(_host(words[0], words[1:]))
            except ValueError as error:
                raise ValueError("{}, line {}: {}".format(path, number, error)) from None
    _check(path, hosts)
    return hosts


def _lines(path: str) -> List[str]:
    try:
        # Some editors begin a file with a mark that this leaves out.
        with open(path, encoding="utf-8-sig") as file:
            return file.readlines()
    except UnicodeDecodeError:
        raise ValueError("{} is no text; write a line like 'node1 slots=2' for each host".format(path)) from None


def _host(name: str, settings: Sequence[str]) -> Host:
    if name.startswith("-") or not name.rpartition("@")[2]:
        raise ValueError("{!r} is no host; begin the line with a name or an address".format(name))
    given: Dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in ("slots", "address") or not value:
            raise ValueError("{!r} is neither slots=NUMBER nor address=ADDRESS".format(setting))
        if key in given:
            raise ValueError("{}= is there twice; give it once".format(key))
        given[key] = value
    slots = given.get("slots")
    if slots is not None and not is_positive(slots):
        raise ValueError("slots={}: must be a whole number, at least 1".format(slots))
    address = _address(given.get("address", name.rpartition("@")[2]))
    return Host("" if _is_here(address) else name, address, None if slots is None else int(slots))


def _address(name: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError("{}: {}; add address=ADDRESS".format(name, error.strerror)) from None
    except ValueError:
        raise ValueError("{!r} can't be the name of a host".format(name)) from None
    return str(found[0][4][0])


def _is_here(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _check(path: str, hosts: Sequence[Host]) -> None:
    if not hosts:
        raise ValueError("{} names no host; write a line like 'node1 slots=2' for each".format(path))
    addresses = [host.address for host in hosts]
    for address in addresses:
        if addresses.count(address) > 1:
            raise ValueError("{}: {} is there twice; give each host one line, with slots=NUMBER for several workers"
                             .format(path, address))  # fmt: skip
        if len(hosts) > 1 and address.startswith("127."):
            raise ValueError("{}: {} is an address that the other hosts can't reach; add address=ADDRESS to its line"
                             .format(path, address))  # fmt: skip


def deal(count: int, hosts: Sequence[Host]) -> List[Host]:
    """A host for each worker: in turn, as long as each has slots. Raises ValueError if the slots don't suffice."""
    dealt: List[Host] = []
    while len(dealt) < count:
        free = [host for host in hosts if host.slots is None or dealt.count(host) < host.slots]
        if not free:
            raise ValueError("{} workers, and the hosts have {} slots in all; add slots or hosts, or take fewer workers"
                             .format(count, len(dealt)))  # fmt: skip
        dealt += free[: count - len(dealt)]
    return dealt


def in_order_of_rank(hosts: Sequence[Host]) -> List[Host]:
    """The hosts in the order in which ps-lite numbers what runs there: by address, as text, from the last.

    >>> [host.address for host in in_order_of_rank([Host('a', '10.0.0.10'), Host('b', '10.0.0.9')])]
    ['10.0.0.9', '10.0.0.10']
    """
    return sorted(hosts, key=lambda host: host.address, reverse=True)


# ------------------------------------------------------------------------------------------------------------- ports


def reserve_ports(count: int) -> Tuple[int, List[socket.socket]]:
    """The first of consecutive free ports of this machine, and sockets that reserve them as long as they are open.

    On Linux no other launcher takes the ports meanwhile, and the processes of the job can listen there. On other
    systems they couldn't, so there the ports are free but not reserved.
    """
    for first in random.SystemRandom().sample(_PORTS, 1000) if count <= len(_PORTS) else ():
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            held = [stack.enter_context(socket.socket()) for _ in range(count)]
            for port, holder in enumerate(held, first):
                # Bound without the option, so that the port has to be free; with the option from then on, so that
                # ZeroMQ, which sets it too, can bind to the same port. Linux allows that, as no holder listens.
                holder.bind(("", port))
                holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sys.platform == "linux":
                stack.pop_all()
            return first, held
    raise ValueError("there are no {} consecutive free ports among {} to {}, one for each process; give --port, or "
                     "start fewer processes".format(count, _PORTS[0], _PORTS[-1]))  # fmt: skip


def number_of_ports(workers: int, servers: int) -> int:
    """How many consecutive ports a job needs: one for each process, and that of the watch.

    >>> number_of_ports(2, 1)
    5
    """
    return 1 + servers + workers + 1


def check_ports(first: int, count: int) -> None:
    """Raise ValueError if there aren't so many ports from this one on."""
    if first + count - 1 > _LAST_PORT:
        raise ValueError("--port {}: the job needs {} ports from there on, and the last possible one is {}; give at "
                         "most --port {}".format(first, count, _LAST_PORT, _LAST_PORT - count + 1))  # fmt: skip


def check_free(first: int, count: int) -> None:
    """Raise ValueError if a process of this machine listens at one of so many ports from this one on."""
    for port in range(first, first + count):
        with socket.socket() as each:
            # As ZeroMQ does: a connection of before may still be closing.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                each.bind(("", port))
            except OSError as error:
                raise ValueError("--port {}: port {} of this machine: {}; give another --port, from which on {} are "
                                 "free".format(first, port, error.strerror, count)) from None  # fmt: skip


# --------------------------------------------------------------------------------------------------------- processes


def threads_of_a_worker(cores: int, workers: int) -> int:
    """How many threads each of several workers of a machine gets: together as many as mxnet takes for one process.

    >>> threads_of_a_worker(16, 2), threads_of_a_worker(2, 4)
    (4, 1)
    """
    return max(1, cores // 2 // workers)


def settings(environment: Mapping[str, str], extra: Sequence[str] = ()) -> Dict[str, str]:
    """What every process of the job has to have in its environment.

    `environment` is the launcher's; `extra` has ``NAME=VALUE``, or the names of further variables to pass on. Raises
    ValueError if there is no such variable.
    """
    passed = {name: value for name, value in environment.items() if name.startswith(PASSED_ON)}
    if "OMP_NUM_THREADS" in environment:
        passed["OMP_NUM_THREADS"] = environment["OMP_NUM_THREADS"]
    for each in extra:
        name, given, value = each.partition("=")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("--env {!r}: there is no name; give --env NAME or --env NAME=VALUE".format(each))
        if name in OF_LAUNCHER:
            raise ValueError("--env {}: the launcher sets this variable, for each process; see --help".format(name))
        if not given and name not in environment:
            raise ValueError("--env {}: there is no such variable; set it, or give --env {}=VALUE".format(name, name))
        passed[name] = value if given else environment[name]
    for name in liveness.DEFAULTS:
        if name in passed and not passed[name].isdigit():
            raise ValueError("{}={!r} must be a whole number of seconds, for instance {}".format(
                name, passed[name], liveness.DEFAULTS[name]))  # fmt: skip
    # Python's output comes at once, not when a buffer is full.
    return {**liveness.DEFAULTS, "PYTHONUNBUFFERED": environment.get("PYTHONUNBUFFERED", "1"), **passed}


def plan(
    command: Sequence[str], workers: int, servers: int, hosts: Sequence[Host], port: int, common: Mapping[str, str],
    cores: int = 0,
) -> List[Task]:  # fmt: skip
    """The processes of a job: scheduler, servers and workers.

    The workers run the `command`. The scheduler is on the first of the `hosts`, and has the `port`; the others have the
    ports that follow, and the watch the one after these. `common` is from `settings`. Several workers of this machine
    share its `cores`, unless that is 0 or OMP_NUM_THREADS is set.
    """
    shared = {
        **common, "DMLC_PS_ROOT_URI": hosts[0].address, "DMLC_PS_ROOT_PORT": str(port),
        "DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers),
        "SVRG_WATCH_PORT": str(port + number_of_ports(workers, servers) - 1),
    }  # fmt: skip
    tasks: List[Task] = []

    def add(name: str, host: Host, command: Sequence[str], **own: str) -> None:
        # ps-lite listens at PORT, and numbers processes by host and port: so worker 0 here is worker 0 there.
        own = {
            "DMLC_ROLE": name.split()[0], "SVRG_PROCESS": name, "DMLC_NODE_HOST": host.address,
            "PORT": str(port + len(tasks)), **own,
        }  # fmt: skip
        tasks.append(Task(name, host, list(command), {**shared, **own}))

    add("scheduler", hosts[0], SERVER)
    server_hosts = in_order_of_rank(deal(servers, [host._replace(slots=None) for host in hosts]))
    for k, host in enumerate(server_hosts):
        add("server {}".format(k), host, SERVER)
    worker_hosts = in_order_of_rank(deal(workers, hosts))
    for k, host in enumerate(worker_hosts):
        here = worker_hosts.count(host)
        shares = not host.name and here > 1 and cores and "OMP_NUM_THREADS" not in common
        own = {"OMP_NUM_THREADS": str(threads_of_a_worker(cores, here))} if shares else {}
        add("worker {}".format(k), host, command, **own)
    return tasks
