"""Which processes a distributed job has, where each runs, and what its environment says."""

import random
import shlex
import socket
import sys
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

from . import watch

# What runs as scheduler and as server.
SERVER = [sys.executable, "-m", "svrg_optimization.server"]
# These variables of the launcher's environment have a meaning for every process of a job.
PASSED_ON = ("DMLC_", "PS_", "MXNET_")
# Below the ports that systems give to outgoing connections, which come and go.
_PORTS = range(10000, 32768)


class Host(NamedTuple):
    """A machine: its name for ssh, the IPv4 address that the others reach it at, and how many workers it may have.

    `name` is "" for this machine.
    """

    name: str
    address: str
    slots: Optional[int] = None


class Task(NamedTuple):
    """A process of a job."""

    name: str
    host: Host
    command: List[str]
    environment: Dict[str, str]

    def line(self, directory: str, keeper: Sequence[str] = ()) -> str:
        """The command for a shell."""
        settings = ["{}={}".format(name, value) for name, value in sorted(self.environment.items())]
        words = ["env", *settings, *keeper, *self.command]
        return "cd {} && exec {}".format(shlex.quote(directory), " ".join(map(shlex.quote, words)))


# ------------------------------------------------------------------------------------------------------------- hosts


def read_hosts(path: str) -> List[Host]:
    """The hosts of a hostfile: one a line, by name or address, and optionally ``slots=`` and ``address=``.

    Raises
    ------
    ValueError
        A line that can't be understood, an address that can't be found or that the other hosts can't reach.
    """
    hosts: List[Host] = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.partition("#")[0].split()
            if words:
                try:
                    hosts.append(_host(words[0], words[1:]))
                except ValueError as error:
                    raise ValueError("{}, line {}: {}".format(path, number, error)) from None
    _check(path, hosts)
    return hosts


def _host(name: str, settings: Sequence[str]) -> Host:
    if name.startswith("-"):
        raise ValueError("{!r} is no host".format(name))
    given = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in ("slots", "address") or not value:
            raise ValueError("{!r} is neither slots=NUMBER nor address=ADDRESS".format(setting))
        given[key] = value
    slots = given.get("slots")
    if slots is not None and not (slots.isdigit() and int(slots)):
        raise ValueError("slots={}: must be at least 1".format(slots))
    address = _address(given.get("address", name.rpartition("@")[2]))
    return Host("" if _is_here(address) else name, address, None if slots is None else int(slots))


def _address(name: str) -> str:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError("{}: {}; add address=ADDRESS".format(name, error.strerror)) from None
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
        raise ValueError("{} names no host".format(path))
    addresses = [host.address for host in hosts]
    for host in hosts:
        if addresses.count(host.address) > 1:
            raise ValueError("{}: {} is there twice".format(path, host.address))
        if len(hosts) > 1 and host.address.startswith("127."):
            raise ValueError(
                "{}: {} is an address that the other hosts can't reach; add address=ADDRESS to its line".format(
                    path, host.address
                )
            )


def deal(count: int, hosts: Sequence[Host]) -> List[Host]:
    """A host for each worker: in turn, as long as each has slots.

    Raises
    ------
    ValueError
        There are not enough slots.
    """
    dealt: List[Host] = []
    while len(dealt) < count:
        free = [host for host in hosts if host.slots is None or dealt.count(host) < host.slots]
        if not free:
            raise ValueError("{} workers, and the hosts have {} slots in all".format(count, len(dealt)))
        dealt += free[: count - len(dealt)]
    return dealt


def in_order_of_rank(hosts: Sequence[Host]) -> List[Host]:
    """The hosts in the order in which ps-lite numbers what runs there: by address, as text, from the last.

    >>> [host.address for host in in_order_of_rank([Host('a', '10.0.0.10'), Host('b', '10.0.0.9')])]
    ['10.0.0.9', '10.0.0.10']
    """
    return sorted(hosts, key=lambda host: host.address, reverse=True)


def free_ports(count: int) -> int:
    """The first of so many consecutive ports that are free on this machine."""
    for first in random.SystemRandom().sample(_PORTS, 1000):
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise ValueError("no {} consecutive free ports among {} to {}; give --port".format(count, _PORTS[0], _PORTS[-1]))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


# --------------------------------------------------------------------------------------------------------- processes


def threads_of_a_worker(cores: int, workers: int) -> int:
    """How many threads each of several workers of a machine gets: together as many as mxnet takes for one process.

    >>> threads_of_a_worker(16, 2), threads_of_a_worker(2, 4)
    (4, 1)
    """
    return max(1, cores // 2 // workers)


def settings(environment: Mapping[str, str], extra: Sequence[str] = ()) -> Dict[str, str]:
    """What every process of the job has to have in its environment.

    Parameters
    ----------
    environment : mapping
        The launcher's.
    extra : sequence of str
        Names of further variables to pass on, or ``NAME=VALUE``.

    Raises
    ------
    ValueError
        A name of `extra` isn't in the environment.
    """
    passed = {name: value for name, value in environment.items() if name.startswith(PASSED_ON)}
    if "OMP_NUM_THREADS" in environment:
        passed["OMP_NUM_THREADS"] = environment["OMP_NUM_THREADS"]
    for each in extra:
        name, given, value = each.partition("=")
        if not given and name not in environment:
            raise ValueError("--env {}: there is no such variable; set it, or give --env {}=VALUE".format(name, name))
        passed[name] = value if given else environment[name]
    # Lines are to be seen when they are written.
    return {**watch.DEFAULTS, "PYTHONUNBUFFERED": environment.get("PYTHONUNBUFFERED", "1"), **passed}


def plan(
    command: Sequence[str], workers: int, servers: int, hosts: Sequence[Host], port: int, common: Mapping[str, str],
    cores: int = 0,
) -> List[Task]:  # fmt: skip
    """The processes of a job: scheduler, servers and workers.

    Parameters
    ----------
    command : sequence of str
        What the workers run.
    workers, servers : int
        How many.
    hosts : sequence of Host
        Where. The scheduler is on the first.
    port : int
        The scheduler's; the others have the ports that follow.
    common : mapping
        From `settings`.
    cores : int
        How many cores this machine has, for several workers to share, unless OMP_NUM_THREADS says how many threads
        each has; 0 not to share them.
    """
    shared = {
        **common, "DMLC_PS_ROOT_URI": hosts[0].address, "DMLC_PS_ROOT_PORT": str(port),
        "DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers),
    }  # fmt: skip

    def task(name: str, host: Host, what: Sequence[str], own_port: int, **own: str) -> Task:
        # ps-lite listens where PORT says, and numbers processes by host and port: so worker 0 here is worker 0 there.
        own = {"DMLC_ROLE": name.split()[0], "DMLC_NODE_HOST": host.address, "PORT": str(own_port), **own}
        return Task(name, host, list(what), {**shared, **own})

    tasks = [task("scheduler", hosts[0], SERVER, port)]
    server_hosts = in_order_of_rank(deal(servers, [host._replace(slots=None) for host in hosts]))
    for k, host in enumerate(server_hosts):
        tasks.append(task("server {}".format(k), host, SERVER, port + 1 + k))
    worker_hosts = in_order_of_rank(deal(workers, hosts))
    for k, host in enumerate(worker_hosts):
        here = worker_hosts.count(host)
        own = {}
        if not host.name and here > 1 and cores and "OMP_NUM_THREADS" not in common:
            own["OMP_NUM_THREADS"] = str(threads_of_a_worker(cores, here))
        tasks.append(task("worker {}".format(k), host, command, port + 1 + servers + k, **own))
    return tasks
