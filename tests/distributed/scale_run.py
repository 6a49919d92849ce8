"""Jobs with more processes than a test has, 16 workers and 4 servers; and what the processes of jobs send each other.

    make scale
    make scale ARGS=--all           # the jobs and the speeds of which docs/cluster.md has the figures

Not among the tests that pytest collects: it takes minutes. The launcher starts the jobs. Every step of every worker is
compared with the oracle, in float64, and every message about an array with `expected_messages`: ps-lite prints them if
PS_VERBOSE is 2. Exits 1 if a job fails or if anything differs.
"""

import argparse
import contextlib
import math
import os
import pathlib
import re
import socket
import stat
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve()
# oracle.py and models.py are there.
sys.path.append(str(HERE.parent.parent))

BYTES = 8  # of a float64
TOLERANCE = 1e-12
LIMIT = 240  # no job takes as many seconds
SETTINGS = dict(batch_size=4, epochs=6, update_freq=2)


class Size(NamedTuple):
    """A network; the optimizer; and MXNET_KVSTORE_BIGARRAY_BOUND, from which size on an array is on all servers."""

    problem: str
    features: int
    optimizer: str
    bound: int = 1000000  # mxnet's own


SIZES = {
    # Two of the four arrays are divided.
    "small": Size("two-layer", 3, "adam", bound=8),
    "medium": Size("softmax", 10000, "momentum"),
    # One of the two arrays is divided, at mxnet's own bound.
    "large": Size("softmax", 400000, "momentum"),
}


class Case(NamedTuple):
    """A job."""

    size: str
    workers: int
    servers: int
    on_servers: bool  # whether the servers run the optimizer

    def __str__(self):
        """As the table's first columns."""
        return "{} | {} | {} | {}".format(*self[:3], "servers" if self.on_servers else "workers")


LARGEST = [Case("small", 16, 4, True), Case("small", 16, 4, False)]
TABLE = [Case("medium", w, s, w != 2) for w in (1, 2, 4) for s in (1, 2, 4)]
TABLE += [Case("small", 8, 2, True), Case("large", 1, 4, False), Case("large", 2, 2, True), Case("large", 2, 4, False)]

# ------------------------------------------------------------------------------------------------- what is expected


def problem_of(size):
    """The oracle's problem, for this size's number of features."""
    import oracle

    found = next(each for each in oracle.PROBLEMS if each.name == size.problem)
    # The first of the shapes is that of the weight by which the features are multiplied.
    shapes = {name: (*shape[:-1], size.features) if k == 0 else shape
              for k, (name, shape) in enumerate(found.shapes.items())}  # fmt: skip
    return oracle.Problem(found.name, shapes, found.gradient, found.loss, found.targets)


def shards_and_weights(case):
    """The samples of each worker, and the start weights."""
    import numpy as np

    size, rng = SIZES[case.size], np.random.default_rng(0)
    problem = problem_of(size)
    # The smallest shards have two batches, others three; so the workers' numbers of samples differ.
    counts = [8 + rank % 4 for rank in range(case.workers)]
    scale = math.sqrt(3 / size.features)
    x, y = rng.normal(size=(sum(counts), size.features)) * scale, problem.targets(rng, sum(counts))
    weights = {name: rng.normal(size=shape) * scale / 2 for name, shape in problem.shapes.items()}
    samples, starts = list(zip(x, y)), [sum(counts[:rank]) for rank in range(case.workers)]
    return problem, [samples[start : start + count] for start, count in zip(starts, counts)], weights


def expected_steps(case):
    """The oracle's weights after every step."""
    import oracle
    from models import OPTIMIZERS

    problem, shards, weights = shards_and_weights(case)
    return oracle.data_parallel_svrg(problem, weights, shards, OPTIMIZERS[SIZES[case.size].optimizer][2], **SETTINGS)


def parts(key, numbers, servers, bound):
    """How mxnet divides an array, whose key has this number: how many numbers each server gets."""
    if numbers < bound:
        return {key * 9973 % servers: numbers}
    ends = [math.floor(numbers / servers * k + 0.5) for k in range(servers + 1)]
    return {k: ends[k + 1] - ends[k] for k in range(servers)}


def expected_messages(case):
    """What a worker sends in a step, and what a snapshot adds: (server, bytes), each with how often.

    Servers answer each message with one of the same size.
    """
    from svrg_optimization import keys
    from svrg_optimization.distributed.exchange_of_numbers import WIDTH

    size = SIZES[case.size]
    counts = {name: math.prod(shape) for name, shape in problem_of(size).shapes.items()}
    order = keys.server_keys(list(counts), case.servers)

    def messages(name, numbers, of_each=BYTES):
        divided = parts(order.index(name), numbers, case.servers, size.bound)
        return [(server, count * of_each) for server, count in divided.items()]

    step, snapshot = Counter(), Counter(messages(keys.EXCHANGE, case.workers * WIDTH, 4))
    for name, numbers in counts.items():
        step.update(messages(name, numbers))
        snapshot.update(messages(keys.full_gradient_key(name), numbers))
    return step, snapshot


# ------------------------------------------------------------------------------------------------------ the worker

AFTER_STEP = "-- after a step"
WIRE = "-- bytes of TCP: {} {}"


def say(text):
    """Print where ps-lite prints, and in its order."""
    os.write(2, (text + "\n").encode())


def bytes_of_tcp():
    """How many bytes all connections of this process have sent, and received, so far."""
    sent = received = 0
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        # What isn't open any more, or no TCP connection, raises OSError.
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as each:
                    information = each.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                received += struct.unpack_from("<Q", information, 128)[0]
                sent += struct.unpack_from("<Q", information, 200)[0]
    return sent, received


def work(case, directory):
    """Be a worker. It leaves its weights after every step in a file."""
    import mxnet as mx
    import numpy as np
    from models import OPTIMIZERS, iterator, nd, symbol

    from svrg_optimization import SVRGModule

    store = mx.kv.create("dist_sync")
    problem, shards, weights = shards_and_weights(case)
    name, params, _ = OPTIMIZERS[SIZES[case.size].optimizer]
    module, steps = SVRGModule(symbol(problem), update_freq=SETTINGS["update_freq"]), []

    def remember(_):
        steps.append({name: value.asnumpy() for name, value in module.get_params()[0].items()})
        say(WIRE.format(*bytes_of_tcp()))
        say(AFTER_STEP)

    module.fit(
        iterator(problem, shards[store.rank], SETTINGS["batch_size"]), kvstore=store, num_epoch=SETTINGS["epochs"],
        arg_params={name: nd(value) for name, value in weights.items()}, initializer=mx.init.Zero(),
        optimizer=name, optimizer_params=params, batch_end_callback=remember,
    )  # fmt: skip
    named = {"{}/{}".format(k, name): value for k, step in enumerate(steps) for name, value in step.items()}
    np.savez(pathlib.Path(directory, "steps{}.npz".format(store.rank)), **named)


def launch(case, *arguments, verbose):
    """Run a job of this program by the launcher to its good end; return its output by process."""
    environment = {
        **os.environ, "PS_VERBOSE": str(verbose), "OMP_NUM_THREADS": "1",
        "MXNET_KVSTORE_BIGARRAY_BOUND": str(SIZES[case.size].bound),
        "MXNET_UPDATE_ON_KVSTORE": str(int(case.on_servers)),
    }  # fmt: skip
    command = [sys.executable, "-m", "svrg_optimization.launch", "-n", str(case.workers), "-s", str(case.servers)]
    command += ["--timeout", str(LIMIT), "--", sys.executable, "-W", "ignore", str(HERE), *arguments]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError("exit code {}: {}".format(done.returncode, done.stdout[-3000:]))
    outputs = {}
    for line in done.stdout.splitlines():
        name, _, text = line.partition(" | ")
        outputs.setdefault(name, []).append(text)
    return {name: "\n".join(lines) for name, lines in outputs.items()}


# ------------------------------------------------------------------------------------------------- the comparisons


def compare_steps(case, directory):
    """How many arrays are compared, and the largest relative difference of a worker's step from the oracle's.

    Raises AssertionError if a worker has another number of steps, or other weights than the first, in any bit.
    """
    import numpy as np

    compared, worst, of_worker = 0, 0.0, [np.load(directory / "steps{}.npz".format(k)) for k in range(case.workers)]
    for number, expected in enumerate(expected_steps(case)):
        names = sorted(expected)
        wanted = np.concatenate([expected[name].ravel() for name in names])
        first = None
        for rank, file in enumerate(of_worker):
            actual = [file["{}/{}".format(number, name)] for name in names]
            assert all(each.dtype == np.float64 for each in actual)
            actual = np.concatenate([each.ravel() for each in actual])
            first = actual if first is None else first
            assert np.array_equal(actual, first), "worker {} differs from worker 0 at step {}".format(rank, number)
            worst = max(worst, float(np.linalg.norm(actual - wanted) / np.linalg.norm(wanted)))
            compared += 1
    assert all(len(file.files) == (number + 1) * len(names) for file in of_worker), "too many steps"
    return compared, worst


# A line of ps-lite about an array that was sent, or that has come from a server: the number of the message, and the
# bytes of the array. Digits of another thread's line may come right before it, so of who sent it the last digit is
# taken: the servers are 8, 10, 12 and 14.
MESSAGE = re.compile(
    r"(\?|[8024]) => (\d+)\. Meta: request=([01]), timestamp=(\d+), app_id=0, customer_id=0, simple_app=0, push=[01], "
    r"head=\d+(?:, data_type=\{[^}]*\} Body: data_size=8 data_size=(\d+))?"
)


class Message(NamedTuple):
    """A request of a worker about an array, or a server's answer. Worker and server are told by their ranks."""

    server: int
    worker: int
    number: int  # an answer has that of its request
    size: int


SERVERS = "8024"


def requests_of(output, worker):
    """What a worker has asked."""
    return [
        Message(int(receiver) // 2 - 4, worker, int(number), int(size or 0))
        for sender, receiver, request, number, size in MESSAGE.findall(output)
        if request == "1"
    ]


def answers_to(output, worker):
    """What has come to a worker, in order."""
    return [
        Message(SERVERS.index(sender), worker, int(number), int(size or 0))
        for sender, receiver, request, number, size in MESSAGE.findall(output)
        if request == "0"
    ]


def answers_of(output, server):
    """What a server has answered."""
    return [
        Message(server, int(receiver) // 2 - 4, int(number), int(size or 0))
        for sender, receiver, request, number, size in MESSAGE.findall(output)
        if request == "0"
    ]


def by_step(output, worker, on_servers):
    """For each step of a worker, from the one before: its requests, as in `expected_messages`; its bytes of TCP.

    A request belongs to the step in which its answer came. The line that says that it was sent may come too late.
    Raises AssertionError if an answer has another size than its request; but before the first step's end weights are
    sent without being asked for, or asked for without being sent.
    """
    sizes = {each[:3]: each.size for each in requests_of(output, worker)}
    # Between the first step and the last the scheduler gets heartbeats and, where servers have the optimizer's states,
    # lets workers wait for each other after a snapshot.
    commands = Counter(re.findall(r"cmd=(\w+)", "".join(output.split(AFTER_STEP)[1:-1])))
    del commands["HEARTBEAT"]
    assert commands == ({"BARRIER": 2 * (SETTINGS["epochs"] // SETTINGS["update_freq"] - 1)} if on_servers else {})
    for number, part in enumerate(output.split(AFTER_STEP)[:-1]):
        answers = answers_to(part, worker)
        assert number == 0 or all(each.size == sizes[each[:3]] for each in answers)
        requests = Counter((each.server, sizes[each[:3]]) for each in answers)
        yield requests, tuple(map(int, re.findall(WIRE.format(r"(\d+)", r"(\d+)"), part)[-1]))


def compare_traffic(case, outputs):
    """Raise AssertionError unless all messages after the first step are as expected, on both of their ends.

    Returns the bytes that TCP carried beside the arrays, for a request and for an answer: the median of the steps.
    """
    step, snapshot = expected_messages(case)
    beside, requests, answers = [], [], []
    for rank in range(case.workers):
        output = outputs["worker {}".format(rank)]
        requests += [each[:3] for each in requests_of(output, rank)]
        answers += answers_to(output, rank)
        steps = list(by_step(output, rank, case.on_servers))
        in_epoch = len(steps) // SETTINGS["epochs"]
        for number, ((_, before), (messages, after)) in enumerate(zip(steps, steps[1:]), 1):
            takes_snapshot = number % (in_epoch * SETTINGS["update_freq"]) == 0
            assert messages == (step + snapshot if takes_snapshot else step), (rank, number, messages)
            size = sum(size * count for (_, size), count in messages.items())
            beside.append([(late - early - size) / sum(messages.values()) for early, late in zip(before, after)])
    answered = [each for k in range(case.servers) for each in answers_of(outputs["server {}".format(k)], k)]
    assert sorted(answered) == sorted(answers), "not all that servers sent is what workers got"
    assert sorted(requests) == sorted(each[:3] for each in answers), "not each request has one answer"
    return [statistics.median(each) for each in zip(*beside)]


# ------------------------------------------------------------------------------------------------------- the table


def of_worker_and_busiest_server(messages, workers):
    """Requests and bytes, in each direction, of a worker, and of the servers that have most of each."""
    sizes, requests = Counter(), Counter()
    for (server, size), count in messages.items():
        sizes[server] += size * count
        requests[server] += count
    return "{} / {:,} | {} / {:,}".format(
        sum(requests.values()), sum(sizes.values()), workers * max(requests.values()), workers * max(sizes.values())
    )


TITLES = ("job", "workers", "servers", "who updates", "step, worker: requests / bytes", "step, busiest server",
          "snapshot, worker", "snapshot, busiest server", "TCP beside, per request / answer", "seconds")  # fmt: skip


def run(case):
    """Run a job; print its line of the table. Raises AssertionError or RuntimeError if anything is wrong."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        outputs = launch(case, "--worker", directory, *map(str, case), verbose=2)
        compared, worst = compare_steps(case, pathlib.Path(directory))
    assert worst < TOLERANCE, "the largest relative difference from the oracle is {:.1e}".format(worst)
    beside = compare_traffic(case, outputs)
    halves = [of_worker_and_busiest_server(messages, case.workers) for messages in expected_messages(case)]
    print("| {} | {} | {} | {:.0f} / {:.0f} | {:.0f} |".format(
        case, *halves, *beside, time.monotonic() - start), flush=True)  # fmt: skip
    return compared, worst


# ------------------------------------------------------------------------------------------------------ the speeds


def _servers_of_this_job():
    """The directories in /proc of the servers, and of what the launcher has around each."""
    wanted = {"DMLC_ROLE=server", "DMLC_PS_ROOT_PORT=" + os.environ["DMLC_PS_ROOT_PORT"]}
    for path in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if path.name.isdigit() and wanted <= set((path / "environ").read_text(errors="replace").split("\0")):
                yield path


def _cpu_seconds(path):
    """What a process has used."""
    fields = (path / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _costs(function, times=20):
    """The shortest time of a call; what a call takes of the CPUs on all servers; and here. In seconds."""
    servers = list(_servers_of_this_job())

    def on_servers():
        return sum(map(_cpu_seconds, servers))

    function()
    shortest, before, before_here = float("inf"), on_servers(), time.process_time()
    for _ in range(times):
        start = time.perf_counter()
        function()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest, (on_servers() - before) / times, (time.process_time() - before_here) / times


def measure():
    """Be a worker that measures: adding up, and sending arrays to a server and back."""
    import mxnet as mx

    from svrg_optimization.distributed import liveness
    from svrg_optimization.mxnet_api import internals

    store = mx.kv.create("dist_sync")
    if store.rank == 0:
        internals.send_to_servers(store, liveness.BEGUN)

    def tell(text, *numbers):
        if store.rank == 0:
            print(text.format(*numbers))

    def exchange(of):
        names = ["{} {}".format(len(of), k) for k in range(len(of))]
        store.init(names, of)

        def call():
            for name, array in zip(names, of):
                store.pushpull(name, array, out=array)
            mx.nd.waitall()

        return _costs(call)

    if store.num_workers == 1:
        total, given = (mx.nd.ones(1 << 22) for _ in range(2))

        def add():
            for _ in range(10):
                total.__iadd__(given)
            total.wait_to_read()

        tell("adding up, without sending: {:.1f} GB/s", 10 * (1 << 24) / 1e9 / _costs(add)[0])
    count = store.num_workers
    for kilobytes in (256, 1024, 4096, 16384):
        of = [mx.nd.ones(kilobytes * 256) for _ in range(65536 // kilobytes)]
        sent = 65536 * 1024 / 1e9
        shortest, there, here = exchange(of)
        tell("{} workers, arrays of {} KiB, to the servers and back: each {:.2f} GB/s; of CPUs, for 1 GB of a worker, "
             "servers take {:.2f} s, a worker {:.2f} s",
             count, kilobytes, sent / shortest, there / sent / count, here / sent)  # fmt: skip
    shortest, there, here = exchange([mx.nd.ones(1) for _ in range(2000)])
    tell("{} workers, arrays of one number: each {:.0f} a second; of CPUs, for one, servers take {:.0f} us, a worker "
         "{:.0f} us", count, 2000 / shortest, there / 2000 / count * 1e6, here / 2000 * 1e6)  # fmt: skip
    tell("{} workers, {} servers; files open in a worker: {}, in the processes of a server: {}", count,
         os.environ["DMLC_NUM_SERVER"], len(os.listdir("/proc/self/fd")),
         sorted(len(list((path / "fd").iterdir())) for path in _servers_of_this_job()))  # fmt: skip
    internals.barrier(store)
    if store.rank == 0:
        internals.send_to_servers(store, liveness.OVER)


# -------------------------------------------------------------------------------------------------- the arithmetic

# Seconds of a processor: for a GB to a server and back, on the server and on the worker, and for a request. `measure`
# found them on one machine, between 0.54 and 0.94, 0.33 and 0.67, and 22e-6 and 43e-6.
ON_SERVER, ON_WORKER, ON_REQUEST = 0.7, 0.5, 30e-6
MODELS = {"10 MB": (0.01, 20), "1 GB": (1.0, 200)}  # GB, and in how many arrays of equal size, of float32


def arithmetic(model, workers, servers, bound=1000000):
    """How long a step keeps what busy, in seconds, by name; and how long requests keep both processors busy.

    For a link, the times at 10 and at 100 Gb/s; the processors' times, which include the requests', are the same twice.
    """
    size, arrays = MODELS[model]
    if size * 1e9 / 4 / arrays < bound:
        # Whole arrays, of which the busiest server has one more than others.
        on_busiest = -(-arrays // servers)
        of_server, of_worker = workers * on_busiest * size / arrays, arrays
    else:
        on_busiest = arrays
        of_server, of_worker = workers * size / servers, arrays * servers
    requests = of_worker * ON_REQUEST, workers * on_busiest * ON_REQUEST
    return {
        "worker's link": (size / 1.25, size / 12.5), "server's link": (of_server / 1.25, of_server / 12.5),
        "worker's processor": (size * ON_WORKER + requests[0],) * 2,
        "server's processor": (of_server * ON_SERVER + requests[1],) * 2,
    }, requests  # fmt: skip


def print_arithmetic():
    """How busy each is, as a table: milliseconds of a step, and who is busiest."""
    titles = ("model", "workers", "servers", "worker's link", "server's link", "worker's processor (requests)",
              "server's processor (requests)", "busiest")  # fmt: skip
    print("\nArithmetic, ms of a step, at 10 / 100 Gb/s:\n")
    print("| {} |\n|{}".format(" | ".join(titles), "---|" * len(titles)))
    for model in MODELS:
        for workers, servers in [(8, 2), (8, 8), (64, 16), (64, 64), (512, 128), (512, 512)]:
            busy, requests = arithmetic(model, workers, servers)
            row = [" / ".join(map(_in_ms, both)) for name, both in busy.items() if "link" in name]
            row += ["{} ({})".format(_in_ms(busy[name][0]), _in_ms(of_requests))
                    for name, of_requests in zip(("worker's processor", "server's processor"), requests)]  # fmt: skip
            largest = [max(both[k] for both in busy.values()) for k in (0, 1)]
            first = [" and ".join(name for name, both in busy.items() if both[k] > 0.99 * largest[k]) for k in (0, 1)]
            print("| {} |".format(" | ".join(map(str, (model, workers, servers, *row, " / ".join(first))))))


def _in_ms(seconds):
    return "{:,.0f}".format(1000 * seconds) if seconds >= 0.1 else "{:.3g}".format(1000 * seconds)


def main(cases, speeds):
    """Run all jobs; return the number of those that failed."""
    print("Each direction, of a step, and what a snapshot adds, as expected and as counted:\n")
    print("| {} |\n|{}".format(" | ".join(TITLES), "---|" * len(TITLES)), flush=True)
    compared, largest, failed = 0, 0.0, 0
    for case in cases:
        try:
            number, worst = run(case)
            compared, largest = compared + number, max(largest, worst)
        except (AssertionError, RuntimeError) as error:
            failed += 1
            print("WRONG: {}: {}".format(case, error), flush=True)
    print("\nCompared with the oracle: weights after {} steps of workers; {} jobs failed.".format(compared, failed))
    print("The largest relative difference is {:.1e}; less than {:.0e} is right.".format(largest, TOLERANCE))
    for workers, servers in ((1, 1), (2, 1), (4, 2), (4, 4)) if speeds else ():
        outputs = launch(Case("medium", workers, servers, False), "--measure", verbose=0)
        print("\n" + outputs["worker 0"], flush=True)
    if speeds:
        print_arithmetic()
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="smaller jobs and speeds, too")
    parser.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure()
    elif args.worker:
        to, name, of_workers, of_servers, servers_update = args.worker
        work(Case(name, int(of_workers), int(of_servers), servers_update == "True"), to)
    else:
        sys.exit(1 if main(LARGEST + TABLE if args.all else LARGEST, args.all) else 0)
