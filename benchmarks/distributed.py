"""Time per step of `fit` with kvstore='dist_sync', 2 workers and 1 server, of all contenders in turn.

    python -m benchmarks.distributed [--rounds N] [--epochs N]

Each contender has a job of its own, which waits while the others are timed. The full pass is amortised; "step" is ours
with one snapshot, at the start.
"""

import argparse
import contextlib
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, Dict, Iterator, List, Optional

from . import report
from .contenders import UPDATE_FREQ, make, quiet
from .workloads import Workload, _activation, _classifier, _data, _images, mx

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKERS, SERVERS = 2, 1
# Seconds that the jobs have to start, and each of them to answer.
PATIENCE = 120


def _net() -> Any:
    hidden = _data()
    for layer in (1, 2, 3):
        hidden = _activation(mx.sym.FullyConnected(hidden, num_hidden=64, name="fc%d" % layer))
    return _classifier(hidden)


WORKLOAD = Workload("MLP 64-64-64-64-10, batch 32 for each worker", _net, _images(64), 32, 50, 50)
# What is made, and its update_freq.
CONTENDERS = {
    "Module": ("Module", UPDATE_FREQ), "ours": ("ours", UPDATE_FREQ), "step": ("ours", sys.maxsize),
    "upstream": ("upstream", UPDATE_FREQ),
}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- a worker


class _Turns:
    """Lets `fit` go on for so many epochs as asked for, and answers with the seconds they took; a callback."""

    def __init__(self, lines: Any, contender: str) -> None:
        self._lines, self._left, self._answer = lines, UPDATE_FREQ, lambda: contender

    def __call__(self, *_: Any) -> None:
        self._left -= 1
        if self._left:
            return
        mx.nd.waitall()
        print(self._answer(), file=self._lines, flush=True)
        asked = self._lines.readline()
        if not asked:
            sys.exit()
        start = time.perf_counter()
        self._left, self._answer = int(asked), lambda: str(time.perf_counter() - start)


def work(contender: str, port: int) -> None:
    """Train as long as the measurer wants; in one `fit`, for upstream's module doesn't survive a second one."""
    # Given by its name, upstream's module would make a second store, and wait for ever.
    store = mx.kv.create("dist_sync")
    train = WORKLOAD.iterator(WORKLOAD.data(WORKLOAD.batches))
    module = make(CONTENDERS[contender][0], WORKLOAD.symbol(), CONTENDERS[contender][1])
    with quiet(), socket.create_connection(("127.0.0.1", port)) as connection, connection.makefile("rw") as lines:
        module.fit(train, kvstore=store, num_epoch=sys.maxsize, initializer=mx.init.Xavier(),
                   optimizer_params={"learning_rate": WORKLOAD.learning_rate},
                   epoch_end_callback=_Turns(lines, contender))  # fmt: skip


# ------------------------------------------------------------------------------------------------------- the measurer


@contextlib.contextmanager
def _jobs(contenders: List[str]) -> Iterator[Dict[str, List[Any]]]:
    """Jobs that have warmed up: by contender, the connections of its workers."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(PATIENCE)
        for contender in contenders:
            command = [sys.executable, "-m", "svrg_optimization.launch", "-n", str(WORKERS), "-s", str(SERVERS), "--"]
            command += [sys.executable, "-m", "benchmarks.distributed", contender, str(listener.getsockname()[1])]
            job = stack.enter_context(subprocess.Popen(command, cwd=str(ROOT), stdout=sys.stderr))
            stack.callback(job.terminate)
        connections: Dict[str, List[Any]] = {contender: [] for contender in contenders}
        for _ in range(WORKERS * len(contenders)):
            connection = stack.enter_context(listener.accept()[0])
            connection.settimeout(PATIENCE)
            lines = stack.enter_context(connection.makefile("rw"))
            connections[lines.readline().strip()].append(lines)
        yield connections


def measure(contenders: List[str], rounds: int, epochs: int) -> Dict[str, List[float]]:
    """Milliseconds a step, of every round, by contender."""
    times: Dict[str, List[float]] = {contender: [] for contender in contenders}
    with _jobs(contenders) as connections:
        for number in range(rounds):
            turn = number % len(contenders)
            for contender in contenders[turn:] + contenders[:turn]:
                for lines in connections[contender]:
                    print(epochs, file=lines, flush=True)
                seconds = max(float(lines.readline()) for lines in connections[contender])
                times[contender].append(1000 * seconds / (epochs * WORKLOAD.batches))
    return times


def markdown(times: Dict[str, List[float]]) -> str:
    """The medians of the rounds, and of the ratios within a round."""
    rows = [
        [name, "{:.3g}".format(statistics.median(each)), "{:.2f}x".format(report.ratio(each, times["Module"]))]
        for name, each in times.items()
    ]
    return "{}, {} workers, {} server\n\n{}".format(
        WORKLOAD.title, WORKERS, SERVERS, report.table(["contender", "ms a step", "/Module"], rows)
    )


def main(arguments: Optional[List[str]] = None) -> None:
    """Measure, and print the table."""
    if "DMLC_ROLE" in os.environ:
        contender, port = sys.argv[1:]
        work(contender, int(port))
        return
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distributed", description=main.__doc__)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=9, help="how often each contender is timed")
    parser.add_argument("--epochs", type=int, default=8, help="how many epochs each time, an even number")
    chosen = parser.parse_args(arguments)
    print(markdown(measure(chosen.contenders, chosen.rounds, chosen.epochs)))


if __name__ == "__main__":
    main()
