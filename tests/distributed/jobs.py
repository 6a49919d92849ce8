"""Jobs of several processes for the tests: as processes without the launcher; and what they should compute."""

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import select
import socket
import sys
import tempfile
import time
from multiprocessing import forkserver
from pathlib import Path

import distributed_worker
import numpy as np
import oracle
from distributed_worker import PROBLEMS, shards_of
from models import OPTIMIZERS, samples

from svrg_optimization.distributed import new_stores, watch_client
from svrg_optimization.launch import job_plan

# The processes are forked from one that has imported mxnet, which takes longer than most of these jobs.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["distributed_worker", "svrg_optimization.server"])


def _start_forking():
    before = dict(os.environ)
    # Python hands its sys.path to that process too late for what it is to import first.
    folders = [Path(module.__file__).parent for module in (distributed_worker, oracle)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*map(str, folders), *filter(None, [before.get("PYTHONPATH")])])
    # What a server would otherwise start anew for.
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.tcache_count=0"
    # The processes of a job are more than there are cores; threads of OpenMP that wait keep them from each other.
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def server():
    """A scheduler or a server, whose watch fails when the test wants it to."""
    from svrg_optimization import server
    from svrg_optimization.distributed.watch_client import WatchClient
    from svrg_optimization.distributed.watch_service import WatchService

    def failing(usual):
        def method(self):
            if os.path.exists(os.environ["TEST_FAILS_IF"]):
                raise ValueError("as the test wants")
            usual(self)

        return method

    def make_store(role, usual=server._make_store):
        if role == "server":
            _tell_watched()
        return usual(role)

    WatchService.each_second, WatchClient.tell = failing(WatchService.each_second), failing(WatchClient.tell)
    server._make_store = make_store
    server.main()


def _tell_watched():
    """Tell the test that the scheduler watches this process, which it can't see until then."""
    assert watch_client.of_process().is_connected(LIMIT)
    # Open for reading too, so that this never waits.
    os.write(os.open(os.environ["TEST_WATCHED"], os.O_RDWR), b"!")


def plain_server():
    """What plain mxnet runs."""
    from mxnet.kvstore import kvstore_server

    kvstore_server._init_kvstore_server_module()


def rounding_server():
    """What plain mxnet runs, where memory isn't zero by chance: M_PERTURB fills it with ones."""
    ctypes.CDLL(None).mallopt(-6, 0xFE)
    plain_server()


def ignorant_server():
    """A plain server that can't import our package."""
    for name in list(sys.modules):
        if name.startswith("svrg_optimization"):
            sys.modules[name] = None
    plain_server()


def worker(job, rank):
    """A worker. It was forked with the package imported, so what that import does in a worker is to be done here."""
    watch_client.join_as_worker()
    _tell_watched()
    new_stores.register()
    distributed_worker.main(job, rank)


def _child(function, arguments, environment, output):
    """Be a process of its own: forked ones neither report exceptions nor run what `atexit` holds by themselves."""
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), stream)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    code = 0
    try:
        function(*arguments)
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)


# No job of the tests takes longer, however busy the machine is; no process outlives a dead one for longer. In seconds.
LIMIT, SOON = 240, 15

# The settings of a job. `of_rank`: other settings for some workers; `hold`: where, and in which epoch, the first worker
# stops until the test lets it go on; `used`: the store has a key before; `plain`: by a Module; `borrows`: with the
# optimizer of another module; `begin_epoch`: which isn't the one that it should begin at; `compression`: the threshold
# of the store's gradient compression; `exits`: all workers end before they make a store; `halves`: sgd, whose learning
# rate the program halves after each third step; `fixed`: parameters; `params`: further ones of the optimizer; `tol`: of
# fit; `probe`: the length of the first step that 'auto' takes; `sets`: the first worker sets its weights;
# `snapshots` and `coefficient`: arguments of the module; `buckets`: by an SVRGBucketingModule.
DEFAULTS = dict(
    problem="softmax", optimizer="momentum", shards=[8, 8], batch_size=4, epochs=3, update_freq=2, dtype="float32",
    devices=1, store="dist_sync", by_name=False, default_names=False, weights_by_rank=False, of_rank={}, resume=None,
    hold=None, checkpoints=False, used=False, by_hand=False, plain=False,
    borrows=False, begin_epoch=None, compression=None, exits=False, halves=False, fixed=(), params={}, tol=None,
    probe=None, sets=False, snapshots=None, coefficient=1, buckets=False,
)  # fmt: skip


def settings(directory, **job):
    """All settings of a job, which leaves its files in this directory."""
    Path(directory).mkdir(exist_ok=True)
    return {**DEFAULTS, **job, "directory": str(directory)}


def _environment(role, ports, number, workers, servers, extra):
    # ps-lite numbers the servers, and the workers, by their ports.
    return {
        "DMLC_ROLE": role, "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(ports),
        "DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers),
        "DMLC_NODE_HOST": "127.0.0.1", "PORT": str(ports + number),
        "SVRG_WATCH_PORT": str(ports + job_plan.number_of_ports(workers, servers) - 1),
        "PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "60", **extra,
    }  # fmt: skip


class Running:
    """The processes of a job, by name, and what each has printed."""

    def __init__(self, job, servers=(server,), environment=(), worker=worker):
        self.listener, self.held, self.held_name = socket.create_server(("127.0.0.1", 0)), None, None
        self.since = None
        self.directory = tempfile.TemporaryDirectory()
        job = {**job, "port": self.listener.getsockname()[1]}
        _start_forking()
        functions = {"scheduler": (server,)}
        functions.update(("server {}".format(k), (function,)) for k, function in enumerate(servers))
        functions.update(("worker {}".format(k), (worker, job, k)) for k in range(len(job["shards"])))
        number_of_ports = job_plan.number_of_ports(len(job["shards"]), len(servers))
        ports, self.reserved = job_plan.reserve_ports(number_of_ports)
        self.processes, self.watched = {}, {}
        for number, (name, (function, *arguments)) in enumerate(functions.items()):
            settings = _environment(
                name.split()[0], ports, number, len(job["shards"]), len(servers), dict(environment)
            )  # fmt: skip
            settings["TEST_FAILS_IF"] = str(self._file(name + " fails"))
            settings["TEST_WATCHED"] = str(self._file(name + " is watched"))
            os.mkfifo(settings["TEST_WATCHED"])
            self.watched[name] = os.open(settings["TEST_WATCHED"], os.O_RDONLY | os.O_NONBLOCK)
            self._file(name).touch()
            self.processes[name] = _FORKS.Process(
                target=_child, args=(function, arguments, settings, str(self._file(name)))
            )
            self.processes[name].start()

    def _file(self, name):
        return Path(self.directory.name, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.join()
            process.close()
        for each in (self.listener, *self.reserved):
            each.close()
        for each in self.watched.values():
            os.close(each)
        if self.held is not None:
            self.held.close()
        self.directory.cleanup()

    def harm(self, name, how):
        """Send a process a signal, or let it do something: what `distributed_worker.hold` knows, or fail."""
        self.since = time.monotonic()
        if isinstance(how, int):
            os.kill(self.processes[name].pid, how)
        elif name == self.held_name:
            self.held.sendall(how.encode())
        else:
            self._file(name + " fails").touch()

    def wait_until_watched(self):
        """Wait until the scheduler watches all workers and servers."""
        for name, pipe in self.watched.items():
            assert name == "scheduler" or select.select([pipe], [], [], LIMIT)[0], self.output(name)

    def output(self, name):
        """What a process has printed so far."""
        return self._file(name).read_text()

    def wait(self, limit=LIMIT, but=()):
        """The exit codes of all processes (but some), which must end so many seconds from now, or since one died."""
        deadline = (self.since or time.monotonic()) + limit
        codes = {}
        for name, process in self.processes.items():
            if name not in but:
                process.join(max(0.01, deadline - time.monotonic()))
                codes[name] = process.exitcode
        late = [name for name, code in codes.items() if code is None]
        assert not late, "still running: {}".format({name: self.output(name)[-1000:] for name in late})
        return codes

    def wait_for_end(self, name):
        """Wait until a process has ended by itself, which the others must see from then on."""
        self.processes[name].join(LIMIT)
        self.since = time.monotonic()

    def exit_code(self, name):
        """The exit code of a process that ends by itself."""
        self.processes[name].join(LIMIT)
        return self.processes[name].exitcode

    def wait_for_hold(self):
        """The name of the process that has come to the place that the job holds it at."""
        self.listener.settimeout(LIMIT)
        try:
            self.held, _ = self.listener.accept()
        except socket.timeout:
            outputs = {name: self.output(name) for name in self.processes}
            raise AssertionError("nobody has come to the place in {} s: {}".format(LIMIT, outputs)) from None
        pid = int(self.held.recv(100))
        self.held_name = next(name for name, process in self.processes.items() if process.pid == pid)
        return self.held_name


def steps_of(directory, workers):
    """The weights after every step of each worker."""
    steps = []
    for rank in range(workers):
        by_step = {}
        with np.load(Path(directory, "steps{}.npz".format(rank))) as file:
            for key, value in file.items():
                number, name = key.split("/")
                by_step.setdefault(int(number), {})[name] = value
        steps.append([by_step[k] for k in sorted(by_step)])
    return steps


def run_all(jobs, **kwargs):
    """Run jobs at the same time to their good ends; for each the steps, and what each worker has printed."""
    with contextlib.ExitStack() as stack:
        all_running = [stack.enter_context(Running(job, **kwargs)) for job in jobs]
        results = []
        for job, running in zip(jobs, all_running):
            codes = running.wait()
            assert not any(codes.values()), {name: running.output(name)[-3000:] for name, code in codes.items() if code}
            outputs = [running.output(name) for name in codes if name.startswith("worker")]
            results.append((steps_of(job["directory"], len(job["shards"])), outputs))
    return results


def run(job, **kwargs):
    """Run a job to its good end; the weights after every step of each worker, by rank, and what each has printed."""
    return run_all([job], **kwargs)[0]


def expected_steps(job):
    """The oracle's weights after every step."""
    problem = PROBLEMS[job["problem"]]
    data, weights = samples(problem, sum(job["shards"]))
    steps = oracle.data_parallel_svrg(
        problem, weights, shards_of(data, job["shards"]), OPTIMIZERS[job["optimizer"]][2],
        batch_size=job["batch_size"], epochs=job["epochs"], update_freq=job["update_freq"],
    )  # fmt: skip
    return [
        {"fullyconnected0" + name[2:] if job["default_names"] else name: value for name, value in step.items()}
        for step in steps
    ]
