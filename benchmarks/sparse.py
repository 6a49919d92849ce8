"""Steps on sparse data: how long they take, what they allocate, and how they converge.

    python -m benchmarks.sparse

csr data with 50 non-zeros a row, whose columns follow a power law, and row_sparse weights.

steps: ``forward``, ``backward`` and ``update`` on batches of 128 rows, in float32, for logistic regression and for a
factorization machine of 16 factors, as the number of columns d grows. Plain Module gets ready-made CSRNDArrays; ours
the same ones, and then the batches of a CSRIter over the same rows. All take turns in each round, and ratios are taken
within a round. The full gradient is taken before, and timed apart: it is as large as the weights.

memory: of 50 such steps, after as many others, in a process of its own: the peak of what NumPy has allocated, and by
how much the peak of the process's memory, MXNet's included, is above what it held before.

convergence: L2-regularised logistic regression in float64, lambda = 1/n (--decay), to a relative suboptimality of 1e-8.
The minimum is scikit-learn's newton-cg's, checked by its gradient. Ours has learning_rate='auto', batches of 3 sqrt(n)
rows and a snapshot every epoch; scikit-learn's and cyanure's solvers have their defaults, and a tolerance of zero. Each
clock starts with the same csr matrix of scipy.

At the end stands what the steps and the convergence are judged by, and whether it holds.
"""

import argparse
import contextlib
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
import tracemalloc
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from svrg_optimization import CSRIter

from . import convergence, logistic, report
from .contenders import REST, make, quiet
from .convergence import Method
from .memory import peak

PARTS = ("steps", "memory", "convergence")
ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = 128
NONZEROS = 50
BATCHES = 10
FACTORS = 16
COLUMNS = (10_000, 100_000, 1_000_000)
ROUNDS = 9
# Seconds that a contender has for itself in a round, at least.
SECONDS = 0.05
RATE = 0.01
DECAY = 2.0**-13
STEPS_OF_MEMORY = 50
TARGETS = (1e-4, 1e-8)
# At most these multiples of plain Module's step: at the fewest and at the most columns.
MOST = {"logistic": (2.5, 1.0), "fm": (3.0, 1.0)}
MOST_GROWTH = 2.0
MOST_PASSES = 1.5


class Mode(NamedTuple):
    """A contender: plain Module, or ours with this `sparse`."""

    sparse: Optional[str]
    decay: float = 0.0


MODES = {
    "Module": Mode(None),
    "lazy": Mode("lazy"),
    "lazy, decay": Mode("lazy", DECAY),
    "reweighted": Mode("reweighted"),
}

# ---------------------------------------------------------------------------------------------- networks and batches


def linear(columns: int) -> Any:
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("w_weight", stype="row_sparse", shape=(columns, 1))
    scores = mx.sym.broadcast_add(mx.sym.dot(data, weight), mx.sym.Variable("w0_bias", shape=(1,)))
    return mx.sym.LogisticRegressionOutput(scores, mx.sym.Variable("softmax_label"), name="output")


def machine(columns: int) -> Any:
    """A factorization machine, of MXNet's operators for sparse arrays."""
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("w_weight", stype="row_sparse", shape=(columns, 1))
    factors = mx.sym.Variable("v_weight", stype="row_sparse", shape=(columns, FACTORS))
    sums = mx.sym.sum(mx.sym.square(mx.sym.dot(data, factors)), axis=1, keepdims=True)
    lengths = mx.symbol._internal._square_sum(factors, axis=1, keepdims=True)
    pairs = 0.5 * (sums - mx.sym.dot(data.square(), lengths))
    scores = mx.sym.broadcast_add(mx.sym.dot(data, weight) + pairs, mx.sym.Variable("w0_bias", shape=(1,)))
    return mx.sym.LogisticRegressionOutput(scores, mx.sym.Variable("softmax_label"), name="output")


NETWORKS: Dict[str, Callable[[int], Any]] = {"logistic": linear, "fm": machine}
TITLES = {"logistic": "logistic regression", "fm": "factorization machine, {} factors".format(FACTORS)}


def power_law(rows: int, columns: int, rng: np.random.Generator, dtype: Any) -> Any:
    """A csr matrix of scipy; how many rows have column j falls as j ** (-2/3)."""
    from scipy.sparse import csr_matrix

    of_rows = []
    for _ in range(rows):
        drawn = np.unique((columns * rng.random(2 * NONZEROS) ** 3).astype(np.int64))
        of_rows.append(np.sort(rng.permutation(drawn)[:NONZEROS]))
    starts = np.cumsum([0, *map(len, of_rows)])
    values = rng.standard_normal(starts[-1]).astype(dtype)
    return csr_matrix((values, np.concatenate(of_rows), starts), (rows, columns))


class Batches:
    """Ready-made batches, again and again: an iterator that costs nothing."""

    batch_size = ROWS

    def __init__(self, batches: Iterable[Any]) -> None:
        self._batches = list(batches)

    def __iter__(self) -> Any:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def reset(self) -> None:
        """There is nothing to do."""


def batches(columns: int) -> Tuple[Batches, Batches, float]:
    """The batches of MXNet's arrays, those of a CSRIter, and how many columns a batch has, on average."""
    rng = np.random.default_rng(0)
    x = power_law(BATCHES * ROWS, columns, rng, np.float32)
    y = (rng.random((x.shape[0], 1)) > 0.5).astype(np.float32)
    # `data` of a CSRIter's batch makes the array and keeps it: so each kind gets batches of its own.
    slices, others = (list(CSRIter(x, y, ROWS)) for _ in range(2))
    ready = [mx.io.DataBatch(batch.data, batch.label, pad=0) for batch in others]
    return Batches(ready), Batches(slices), statistics.mean(len(np.unique(batch.csr[0].columns)) for batch in slices)


def module_of(mode: Mode, symbol: Any, train: Any, columns: int) -> Any:
    """A bound module with an optimizer, and with a snapshot if it is ours."""
    module = make("Module", symbol) if mode.sparse is None else make("ours", symbol, sparse=mode.sparse)
    module.bind([("data", (ROWS, columns))], [("softmax_label", (ROWS, 1))])
    module.init_params(mx.init.Normal(0.01))
    module.init_optimizer(kvstore=None, optimizer_params={"learning_rate": RATE, "wd": mode.decay})
    if mode.sparse is not None:
        module.update_full_grads(train)
    return module


def step(module: Any, batch: Any) -> None:
    module.forward(batch, is_train=True)
    module.backward()
    module.update()


# ------------------------------------------------------------------------------------------------------------- steps


class Steps(NamedTuple):
    """Of one network and one d: by contender, the milliseconds a step of every round; and of full passes."""

    columns: int
    touched: float
    times: Dict[str, List[float]]
    full_passes: Dict[str, float]

    def ratio(self, name: str) -> float:
        return report.ratio(self.times[name], self.times["Module"])


FROM_ITERATOR = ", CSRIter"


def time_steps(network: str, columns: int, rounds: int, seconds: float) -> Steps:
    ready, slices, touched = batches(columns)
    symbol = NETWORKS[network](columns)
    runners = {}
    for name, mode in MODES.items():
        runners[name] = module_of(mode, symbol, ready, columns), ready
        if mode.sparse is not None:
            runners[name + FROM_ITERATOR] = module_of(mode, symbol, slices, columns), slices
    full_passes = {}
    for name, (module, train) in runners.items():
        if name != "Module":
            _epoch(module, train)
            full_passes[name] = min(_milliseconds(lambda m=module, t=train: m.update_full_grads(t)) for _ in range(3))
    # So many epochs in a round that the fastest one takes as long as it should.
    fastest = min(min(_milliseconds(lambda m=m, t=t: _epoch(m, t)) for _ in range(2)) for m, t in runners.values())
    epochs = max(1, math.ceil(1e3 * seconds / fastest))
    times: Dict[str, List[float]] = {name: [] for name in runners}
    names = list(runners)
    for number in range(rounds):
        # Another one begins each round: nobody always runs after the same neighbour's work.
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            module, train = runners[name]
            took = _milliseconds(lambda m=module, t=train: [_epoch(m, t) for _ in range(epochs)])
            times[name].append(took / (epochs * len(train)))
    return Steps(columns, touched, times, full_passes)


def _epoch(module: Any, train: Batches) -> None:
    for batch in train:
        step(module, batch)


def _milliseconds(run: Callable[[], Any]) -> float:
    mx.nd.waitall()
    start = time.perf_counter()
    run()
    mx.nd.waitall()
    return 1e3 * (time.perf_counter() - start)


def table_of_steps(found: Sequence[Steps]) -> str:
    """Milliseconds and, in brackets, times plain Module's."""
    lines = []
    for name in found[0].times:
        line = [name]
        for each in found:
            median = "{:.3g}".format(statistics.median(each.times[name]))
            line.append(median if name == "Module" else "{} ({:.2f}x)".format(median, each.ratio(name)))
        growth = report.ratio(found[-1].times[name], found[0].times[name])
        lines.append([*line, "{:.2f}x".format(growth)])
    touched = ["rows that a batch touches", *("{:,.0f}".format(each.touched) for each in found)]
    lines.append([*touched, "{:.2f}x".format(found[-1].touched / found[0].touched)])
    passes = ["full pass, {} batches: lazy".format(BATCHES)]
    passes += ["{:.3g}".format(each.full_passes["lazy"]) for each in found]
    lines.append([*passes, "{:.2f}x".format(found[-1].full_passes["lazy"] / found[0].full_passes["lazy"])])
    return report.table(["ms a step", *("d = {:,}".format(each.columns) for each in found), "growth"], lines)


def claims_of_steps(network: str, found: Sequence[Steps]) -> List[str]:
    """For each way that isn't plain Module's, whether it is fast enough."""
    lines = []
    for name in found[0].times:
        if name != "Module":
            few, many = found[0].ratio(name), found[-1].ratio(name)
            growth = report.ratio(found[-1].times[name], found[0].times[name])
            limits = [(few, MOST[network][0]), (many, MOST[network][1])]
            limits += [(growth, MOST_GROWTH)] if network == "logistic" else []
            lines.append("{}, {}: {}".format(TITLES[network], name, _judged(limits)))
    return lines


def _judged(limits: Sequence[Tuple[float, float]]) -> str:
    shown = ", ".join("{:.2f} (at most {:g})".format(value, limit) for value, limit in limits)
    return shown + (": holds" if all(value <= limit for value, limit in limits) else ": DOESN'T HOLD")


# ------------------------------------------------------------------------------------------------------------ memory


class Memory(NamedTuple):
    """KB of steps: the peak that NumPy allocates, and the growth of the peak of the process."""

    numpy: float
    process: float


def memory_of_steps(network: str, name: str, columns: int) -> Memory:
    """In this process: measure it in a new one."""
    ready, slices, _ = batches(columns)
    # As they come: ours reads slices, plain Module its arrays.
    train = ready if MODES[name].sparse is None else slices
    module = module_of(MODES[name], NETWORKS[network](columns), train, columns)
    many = STEPS_OF_MEMORY // BATCHES

    def steps() -> None:
        for _ in range(many):
            _epoch(module, train)
        mx.nd.waitall()

    steps()
    before = _forget_peak()
    steps()
    process = 1024 * (peak() - before)
    tracemalloc.start()
    held = tracemalloc.get_traced_memory()[0]
    steps()
    numpy = (tracemalloc.get_traced_memory()[1] - held) / 1024
    return Memory(numpy, process)


def _forget_peak() -> float:
    """Let the peak of this process be what it holds now, if the system can do that; what it is then, in MB."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    return peak()


def measure_memory(network: str, name: str, columns: int) -> Memory:
    command = [sys.executable, "-m", "benchmarks.sparse", "--child", network, name, str(columns)]
    ended = subprocess.run(command, cwd=str(ROOT), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return Memory(*json.loads(ended.stdout.decode().strip().split("\n")[-1]))


def table_of_memory(found: Dict[str, List[Memory]], columns: Sequence[int]) -> str:
    lines = [
        [name, *("{:,.0f} / {:,.0f}".format(*each) for each in of_columns)] for name, of_columns in found.items()
    ]  # fmt: skip
    return report.table(["KB: NumPy / process", *("d = {:,}".format(each) for each in columns)], lines)


# ------------------------------------------------------------------------------------------------------- convergence


def problem(samples: int, columns: int, decay_times_n: float = 1.0) -> logistic.Problem:
    """Labels from a linear model with noise; the minimum by Newton's method."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = power_law(samples, columns, rng, np.float64)
    x.data /= math.sqrt(NONZEROS)
    scores = x @ rng.standard_normal(columns)
    y = np.where(rng.random(samples) < 1 / (1 + np.exp(-3 * scores / scores.std())), 1.0, -1.0)
    # mxnet's optimizers take it as float32.
    decay = float(np.float32(decay_times_n / samples))
    found = LogisticRegression(solver="newton-cg", C=1 / (decay * samples), fit_intercept=False, tol=1e-12,
                               max_iter=1000).fit(x, y)  # fmt: skip
    w = found.coef_.ravel()
    gradient = decay * w - x.T @ (y / (1 + np.exp(y * (x @ w)))) / samples
    made = logistic.Problem(x, y, decay, 0.0)
    made = made._replace(minimum=made.objective(w))
    # A loss with this decay is no further from its minimum than that.
    if gradient @ gradient / (2 * decay) > 1e-3 * TARGETS[-1] * made.minimum:
        raise RuntimeError("newton-cg isn't exact: its gradient's norm is {:.1e}".format(np.linalg.norm(gradient)))
    return made


class Ours:
    """A method for `convergence.Trace`, which remembers how many passes so many epochs were."""

    def __init__(self, sparse: str) -> None:
        self._sparse, self._passes = sparse, {0: 0.0}

    def solve(self, x: Any, y: Any, decay: float, epochs: int) -> Any:
        # Larger batches than elsewhere: a step has a cost of its own, and takes no more passes.
        rows = round(12 * math.sqrt(len(y)))
        train = CSRIter(x, (y > 0).astype(np.float64)[:, None], rows, shuffle=True)
        data = mx.sym.Variable("data", stype="csr")
        # Whoever moves all rows in each step has no use for a weight in rows.
        stype = "default" if self._sparse == "dense" else "row_sparse"
        weight = mx.sym.Variable("w_weight", stype=stype, shape=(x.shape[1], 1))
        symbol = mx.sym.LogisticRegressionOutput(mx.sym.dot(data, weight), mx.sym.Variable("softmax_label"))
        module = make("ours", symbol, update_freq=1, sparse=self._sparse)
        module.fit(train, num_epoch=epochs, initializer=mx.init.Zero(), eval_metric=mx.metric.CompositeEvalMetric([]),
                   optimizer_params={"learning_rate": "auto", "wd": decay})  # fmt: skip
        self._passes[epochs] = module._clock.evaluations / len(y)
        return module.get_params()[0]["w_weight"].asnumpy()

    def passes(self, epochs: int) -> float:
        return self._passes[epochs]


def solvers() -> Dict[str, Method]:
    found = {}
    for sparse in ("lazy", "reweighted", "dense"):
        ours = Ours(sparse)
        found["SVRGModule " + sparse] = Method(ours.solve, ours.passes)
    found.update((name, each) for name, each in convergence.methods().items() if name in OTHERS)
    return found


OTHERS = ("scikit-learn saga", "scikit-learn sag", "cyanure svrg")


class Reached(NamedTuple):
    """How a method has come to a target: passes, and the seconds of every round; or what it came to at best."""

    passes: Optional[float]
    seconds: List[float]
    best: float


def converge(made: logistic.Problem, rounds: int, patience: float, rest: float = REST) -> Dict[str, List[Reached]]:
    """For each method, what it took to reach each of TARGETS."""
    chosen = solvers()
    traces = {name: convergence.Trace(method, made, rest) for name, method in chosen.items()}
    iterations = {(name, target): traces[name].first(target, patience) for name in chosen for target in TARGETS}
    seconds: Dict[Tuple[str, float], List[float]] = {key: [] for key in iterations}
    for _ in range(rounds):
        for (name, target), count in iterations.items():
            if count is not None:
                seconds[name, target].append(traces[name].run(count)[0])
    found = {}
    for name, method in chosen.items():
        found[name] = [
            Reached(
                None if iterations[name, target] is None else method.passes(iterations[name, target]),
                seconds[name, target],
                min(gap for _, gap in traces[name].reached.values()),
            )
            for target in TARGETS
        ]
    return found


def table_of_convergence(found: Dict[str, List[Reached]]) -> str:
    lines = []
    for name, reached in found.items():
        line = [name]
        for each in reached:
            if each.passes is None:
                line += ["never ({:.0e})".format(each.best), ""]
            else:
                line += ["{:.1f}".format(each.passes), "{:.2g}".format(statistics.median(each.seconds))]
        lines.append(line)
    header = [title for target in TARGETS for title in ("passes to {:.0e}".format(target), "s")]
    return report.table(["method", *header], lines)


def claims_of_convergence(found: Dict[str, List[Reached]]) -> List[str]:
    last = {name: reached[-1] for name, reached in found.items()}
    dense, saga, lines = last["SVRGModule dense"], last["scikit-learn saga"], []
    for name in ("SVRGModule lazy", "SVRGModule reweighted"):
        ours = last[name]
        if ours.passes is None:
            lines.append("{}: never: DOESN'T HOLD".format(name))
            continue
        if dense.passes is not None:
            lines.append("{}, passes / dense: {}".format(name, _judged([(ours.passes / dense.passes, MOST_PASSES)])))
        if saga.passes is None:
            lines.append("{}, seconds / saga's: saga never arrives: holds".format(name))
        else:
            lines.append("{}, seconds / saga's: {}".format(
                name, _judged([(report.ratio(ours.seconds, saga.seconds), 1.0)])))  # fmt: skip
    return lines


# ------------------------------------------------------------------------------------------------------- command line


def main(arguments: Optional[List[str]] = None) -> None:
    """Measure, and print the tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sparse", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument(
        "--columns", type=int, nargs="+", default=list(COLUMNS), metavar="D", help="of steps and memory"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each one is timed (default: 9)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="that one has in a round, at least")
    parser.add_argument("--samples", type=int, default=20_000, help="of the convergence comparison (default: 20000)")
    parser.add_argument("--features", type=int, default=50_000, help="of the convergence comparison (default: 50000)")
    parser.add_argument("--decay", type=float, default=1.0, help="lambda of that, times n (default: 1)")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds after which a method is given up")
    parser.add_argument("--rest", type=float, default=REST, help="seconds before each training (default: %(default)s)")
    parser.add_argument("--child", nargs=3, metavar=("NETWORK", "MODE", "D"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.child:
        network, name, columns = chosen.child
        with quiet():
            print(json.dumps(memory_of_steps(network, name, int(columns))))
        return
    machine_now = report.environment()
    print(report._about({"environment": machine_now, "settings": chosen.__dict__}) + "\n", flush=True)
    claims: List[str] = []
    if "steps" in chosen.only:
        for network in chosen.networks:
            of_network = [time_steps(network, columns, chosen.rounds, chosen.seconds) for columns in chosen.columns]
            print("Steps, {}:\n\n{}\n".format(TITLES[network], table_of_steps(of_network)), flush=True)
            claims += claims_of_steps(network, of_network)
    if "memory" in chosen.only:
        for network in chosen.networks:
            found = {name: [measure_memory(network, name, each) for each in chosen.columns] for name in MODES}
            print("Memory of {} steps, {}:\n\n{}\n".format(
                STEPS_OF_MEMORY, TITLES[network], table_of_memory(found, chosen.columns)), flush=True)  # fmt: skip
    if "convergence" in chosen.only:
        made = problem(chosen.samples, chosen.features, chosen.decay)
        of_methods = converge(made, chosen.rounds, chosen.patience, chosen.rest)
        title = "Convergence, n = {:,}, d = {:,}, {:,} non-zeros, lambda = {:g}/n".format(
            *made.x.shape, made.x.nnz, chosen.decay
        )
        print("{}:\n\n{}\n".format(title, table_of_convergence(of_methods)), flush=True)
        claims += claims_of_convergence(of_methods)
    if claims:
        ends = "at {:,} and at {:,} columns".format(chosen.columns[0], chosen.columns[-1])
        print("Judged, of steps the ratio to plain Module's {}, and the growth between them:\n".format(ends))
        print("\n".join("- " + each for each in claims))


if __name__ == "__main__":
    main()
