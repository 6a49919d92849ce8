"""Jobs of several processes for the tests: as processes without the launcher; and what they should compute."""

import atexit
import multiprocessing
import os
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

# The processes are forked from one that has imported mxnet, which takes longer than most of these jobs.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["distributed_worker", "svrg_optimization.server"])


def _start_forking():
    # Python hands its sys.path to that process too late for what it is to import first.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parent), before]))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def server():
    """A scheduler or a server."""
    from svrg_optimization import server

    server.main()


def plain_server():
    """What plain mxnet runs."""
    from mxnet.kvstore import kvstore_server

    kvstore_server._init_kvstore_server_module()


def ignorant_server():
    """A plain server that can't import our package."""
    for name in list(sys.modules):
        if name.startswith("svrg_optimization"):
            sys.modules[name] = None
    plain_server()


def worker(job):
    """A worker."""
    distributed_worker.main(job)


def _child(function, arguments, environment, output):
    """Be a process of its own: forked ones neither report exceptions nor run what `atexit` holds by themselves."""
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), stream)
    sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)
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


# No job of the tests may take longer, and no process may outlive a dead one for longer; in seconds.
LIMIT, SOON = 120, 15

DEFAULTS = dict(
    problem="softmax", optimizer="momentum", shards=[8, 8], batch_size=4, epochs=3, update_freq=2, dtype="float32",
    devices=1, store="dist_sync", by_name=False, default_names=False, weights_by_rank=False, of_rank={}, resume=None,
    hold=None, checkpoints=False,
)  # fmt: skip


def settings(directory, **job):
    """All settings of a job."""
    return {**DEFAULTS, **job, "directory": str(directory)}


def _environment(role, port, workers, servers, extra):
    return {
        "DMLC_ROLE": role, "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(port),
        "DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers), "DMLC_NODE_HOST": "127.0.0.1",
        "PS_HEARTBEAT_INTERVAL": "1", "PS_HEARTBEAT_TIMEOUT": "5", **extra,
    }  # fmt: skip


class Running:
    """The processes of a job, by name, and what each has printed."""

    def __init__(self, job, servers=(server,), environment=(), worker=worker):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.listener, self.held = socket.create_server(("127.0.0.1", 0)), None
        self.directory = tempfile.TemporaryDirectory()
        job = {**job, "port": self.listener.getsockname()[1]}
        _start_forking()
        functions = {"scheduler": (server,)}
        functions.update(("server {}".format(k), (function,)) for k, function in enumerate(servers))
        functions.update(("worker {}".format(k), (worker, job)) for k in range(len(job["shards"])))
        self.processes = {}
        for name, (function, *arguments) in functions.items():
            settings = _environment(name.split()[0], port, len(job["shards"]), len(servers), dict(environment))
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
        self.listener.close()
        if self.held is not None:
            self.held.close()
        self.directory.cleanup()

    def output(self, name):
        """What a process has printed so far."""
        return self._file(name).read_text()

    def wait(self, limit=LIMIT, but=()):
        """The exit codes of all processes (but some), which must end within so many seconds."""
        deadline = time.monotonic() + limit
        codes = {}
        for name, process in self.processes.items():
            if name not in but:
                process.join(max(0.01, deadline - time.monotonic()))
                codes[name] = process.exitcode
        late = [name for name, code in codes.items() if code is None]
        assert not late, "still running: {}".format({name: self.output(name) for name in late})
        return codes

    def wait_for_hold(self):
        """The name of the process that has come to the place that the job holds it at."""
        self.listener.settimeout(LIMIT)
        self.held, _ = self.listener.accept()
        pid = int(self.held.recv(100))
        return next(name for name, process in self.processes.items() if process.pid == pid)


def steps_of(directory, workers):
    """The weights after every step of each worker, and its numbers of requests."""
    steps, requests = [], []
    for rank in range(workers):
        by_step, counts = {}, {}
        with np.load(Path(directory, "steps{}.npz".format(rank))) as file:
            for key, value in file.items():
                first, name = key.split("/")
                if first == "requests":
                    counts[name] = int(value)
                else:
                    by_step.setdefault(int(first), {})[name] = value
        steps.append([by_step[k] for k in sorted(by_step)])
        requests.append(counts)
    return steps, requests


def run(job, **kwargs):
    """Run a job to its good end; the weights after every step and the numbers of requests, for each worker."""
    with Running(job, **kwargs) as running:
        codes = running.wait()
        assert not any(codes.values()), {name: running.output(name) for name, code in codes.items() if code}
    return steps_of(job["directory"], len(job["shards"]))


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
