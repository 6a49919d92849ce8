"""Passes to a given accuracy, for each schedule of snapshots, and what the first epochs of a growing one cost.

    python -m benchmarks.schedules                                      # the tables
    python -m benchmarks.schedules --picture docs/images/schedules_measured.png  # and the picture

L2-regularised logistic regression on scikit-learn's breast cancer data and on generated data (100,000 rows of 90
correlated features), and softmax regression on its digits; float64, all through ``fit``, from zero weights. A pass is n
gradient evaluations, as the module counts them: two a row in a step of SVRG, one a row in a step of SGD and in a full
gradient. The objective is computed in NumPy, apart from the training, four times a pass. The rows come in a new order
each epoch; full gradients are read from ``snapshot_data``. The minimum is found by Newton's method.

Each method has the constant step of a grid that comes first to the last target with seed 0, chosen with hindsight; SGD,
which is a plain Module, has another one for each target; and 'auto' chooses for itself. What a method takes is then the
median over the seeds, which choose the order of the rows and what schedules draw. These figures don't depend on the
machine. The milliseconds of full passes do.
"""

import argparse
import contextlib
import logging
import math
import statistics
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from svrg_optimization import SVRGModule
from svrg_optimization.schedules import EveryEpochs, EverySteps, Growing, Loopless, Schedule
from svrg_optimization.theory import smoothness

from . import logistic, report
from .auto_step import Arrived, network
from .families import Problem, solved

PARTS = ("passes", "full gradients")
TARGETS = (1e-3, 1e-6, 1e-10)
SEEDS = 5
# The constant steps, as multiples of 1 / smoothness. SGD needs shorter ones the nearer it is to come.
STEPS = tuple(2.0**k for k in range(3, -3, -1))
STEPS_OF_SGD = tuple(2.0**k for k in range(1, -8, -1))
SGD, AUTO = "SGD", "EveryEpochs(1), 'auto'"
LOOKS_PER_PASS = 4
ROWS = 100_000
ROUNDS = 5
_QUIET = logging.getLogger("benchmarks.quiet")
_QUIET.setLevel(logging.CRITICAL)


class Case(NamedTuple):
    """A problem, the rows of a batch, and after how many passes a training is given up."""

    problem: Problem
    rows: int
    most: float


# ---------------------------------------------------------------------------------------------------------- problems


def breast_cancer() -> Case:
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    return _case("breast_cancer", "logistic", (x - x.mean(axis=0)) / x.std(axis=0), y, 8)


def digits() -> Case:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return _case("digits", "softmax", (x - x.mean(axis=0)) / x.std(), y, 16)


def _case(name: str, loss: str, x: Any, y: Any, rows: int) -> Case:
    # The bias is a weight like the others, with decay.
    x = np.hstack([x, np.ones((len(x), 1))])
    problem = Problem(name, loss, x, y.astype(np.float64), 10 / len(x), classes=len(set(y)))
    return Case(solved(problem), rows, 300)


def generated(n: int) -> Case:
    x, y, decay, minimum = logistic.make(n)
    return Case(Problem("generated", "logistic", x, (y > 0).astype(np.float64), decay, minimum), min(100, n // 4), 60)


# ----------------------------------------------------------------------------------------------------------- methods


def methods(n: int, rows: int, seed: int) -> Dict[str, Optional[Schedule]]:
    """By name, the schedule; None for SGD."""
    steps = n // rows
    return {
        SGD: None,
        "EveryEpochs(1)": EveryEpochs(1),
        AUTO: EveryEpochs(1),
        "EveryEpochs(2)": EveryEpochs(2),
        "EveryEpochs(1, warm_start=1)": EveryEpochs(1, warm_start=1),
        "EverySteps, 2 an epoch": EverySteps(max(1, steps // 2)),
        "Loopless, 1 an epoch": Loopless(1 / steps, seed),
        "Loopless, 1 in 2 epochs": Loopless(1 / (2 * steps), seed),
        "Growing(n / 64)": Growing(max(1, n // 64), seed=seed),
        "Growing(n / 4)": Growing(max(1, n // 4), seed=seed),
        "EveryEpochs(1, at='average')": EveryEpochs(1, at="average"),
        "EveryEpochs(1, at='random')": EveryEpochs(1, at="random", seed=seed),
    }


# --------------------------------------------------------------------------------------------------------- trainings


class Shuffled(mx.io.DataIter):
    """The rows of an NDArrayIter in a new order each epoch, in float64, which it can't shuffle; whole batches only."""

    def __init__(self, data: mx.io.NDArrayIter, seed: int) -> None:
        super().__init__(data.batch_size)
        self._arrays = [array for _, array in (*data.data, *data.label)]
        self._rng = np.random.default_rng(seed)
        self.provide_data, self.provide_label = data.provide_data, data.provide_label
        self.reset()

    def reset(self) -> None:
        order = mx.nd.array(self._rng.permutation(len(self._arrays[0])), dtype="int64")
        x, y = (array.take(order) for array in self._arrays)
        self._batches = mx.io.NDArrayIter(x, y, self.batch_size, last_batch_handle="discard")

    def next(self) -> Any:
        return self._batches.next()


# (passes, suboptimality)
Trace = List[Tuple[float, float]]


class Watch:
    """Looks at the objective while a module trains, and ends the training at a target, or after so many passes."""

    def __init__(self, module: Any, case: Case, target: float, most: float) -> None:
        self._module, self._case, self._target, self._most = module, case, target, most
        self._rows = 0
        self.trace: Trace = []

    def __call__(self, *_: Any) -> None:
        self._rows += self._case.rows
        clock = getattr(self._module, "_clock", None)
        passes = (self._rows if clock is None else clock.evaluations) / len(self._case.problem.y)
        if self.trace and int(passes * LOOKS_PER_PASS) == int(self.trace[-1][0] * LOOKS_PER_PASS):
            return
        with np.errstate(all="ignore"):
            gap = self._case.problem.suboptimality(self._module.get_params()[0]["fc_weight"].asnumpy())
        self.trace.append((passes, gap))
        if gap < self._target or passes >= self._most or not gap < 1e9:
            raise Arrived


def in_order(case: Case) -> mx.io.NDArrayIter:
    """The data as they are."""
    problem = case.problem
    y = problem.y if problem.loss == "softmax" else problem.y[:, None]
    return mx.io.NDArrayIter(*(mx.nd.array(array, dtype="float64") for array in (problem.x, y)), case.rows)


def train(case: Case, data: mx.io.NDArrayIter, name: str, rate: Any, seed: int, most: float) -> Trace:
    """Train by a method until the last target, or for so many passes."""
    schedule = methods(len(case.problem.y), case.rows, seed)[name]
    symbol = network(case.problem)
    if schedule is None:
        module, settings = mx.mod.Module(symbol, logger=_QUIET), {}
    else:
        module, settings = SVRGModule(symbol, logger=_QUIET, snapshots=schedule), {"snapshot_data": data}
    watch = Watch(module, case, TARGETS[-1], most)
    with contextlib.suppress(Arrived, FloatingPointError):
        module.fit(Shuffled(data, seed), num_epoch=10**6, eval_metric=mx.metric.CompositeEvalMetric([]),
                   arg_params={"fc_weight": mx.nd.zeros(case.problem.shape, dtype="float64")},
                   optimizer_params={"learning_rate": rate, "wd": case.problem.decay}, batch_end_callback=watch,
                   **settings)  # fmt: skip
    return watch.trace


def reached(trace: Trace, target: float) -> float:
    """After how many passes; infinite if not."""
    return next((passes for passes, gap in trace if gap <= target), math.inf)


def best(trace: Trace) -> float:
    """The smallest suboptimality that was seen."""
    return min((gap for _, gap in trace if gap == gap), default=math.inf)


# ------------------------------------------------------------------------------------------------------- comparison


class Row(NamedTuple):
    """A method: for each target its step (times 1 / L, or 'auto'), and the traces of all seeds with it."""

    name: str
    steps: Sequence[Any]
    traces: Sequence[Sequence[Trace]]


def compare(case: Case, seeds: int, chosen: Optional[Sequence[str]] = None) -> List[Row]:
    """A row for each method."""
    problem, data = case.problem, in_order(case)
    largest = smoothness(problem.x, problem.loss, decay=problem.decay).L
    rows = []
    for name in chosen or methods(len(problem.y), case.rows, 0):
        found: Dict[Any, Trace] = {}
        most = case.most
        rates = {step: step / largest for step in (STEPS_OF_SGD if name == SGD else STEPS)}
        rates = {"auto": "auto"} if name == AUTO else rates
        for step, rate in rates.items():
            found[step] = train(case, data, name, rate, 0, most)
            if name != SGD:
                # A step that takes longer than another one isn't chosen.
                most = min(most, reached(found[step], TARGETS[-1]))
        steps = [
            min(found, key=lambda step: (reached(found[step], target), best(found[step])))
            for target in (TARGETS if name == SGD else TARGETS[-1:] * len(TARGETS))
        ]
        traces = {
            step: [found[step], *(train(case, data, name, rates[step], seed, case.most) for seed in range(1, seeds))]
            for step in dict.fromkeys(steps)
        }
        rows.append(Row(name, steps, [traces[step] for step in steps]))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Passes to the targets, in Markdown."""
    lines = []
    for name, steps, traces in rows:
        line = [
            name,
            ", ".join("{:g}".format(step) if isinstance(step, float) else step for step in dict.fromkeys(steps)),
        ]
        for target, of_seeds in zip(TARGETS, traces):
            passes = statistics.median(reached(trace, target) for trace in of_seeds)
            never = "never ({:.0e})".format(statistics.median(map(best, of_seeds)))
            line.append("{:.1f}".format(passes) if passes < math.inf else never)
        lines.append(line)
    header = ["schedule", "step x L", *("to {:.0e}".format(target).replace("e-0", "e-") for target in TARGETS)]
    return report.table(header, lines)


# -------------------------------------------------------------------------------------------- the costs of full passes


def costs_of_growing(case: Case, rounds: int) -> str:
    """What each full gradient costs until it is that of all samples, and once more, in Markdown."""
    n, data = len(case.problem.y), in_order(case)
    evaluations: List[int] = []
    seconds: List[List[float]] = []
    for number in range(rounds + 1):
        module = SVRGModule(network(case.problem), logger=_QUIET, snapshots=Growing(max(1, n // 64)))
        module.bind(data.provide_data, data.provide_label)
        module.init_params(mx.init.Zero())
        module.init_optimizer()
        mx.nd.waitall()
        evaluations, of_round = [], []
        while evaluations[-2:] != [n, n]:
            before, start = module._clock.evaluations, time.perf_counter()
            module.update_full_grads(data)
            mx.nd.waitall()
            of_round.append(time.perf_counter() - start)
            evaluations.append(module._clock.evaluations - before)
        if number:
            # The first round is MXNet's to get ready.
            seconds.append(of_round)
    medians = [statistics.median(each) for each in zip(*seconds)]
    lines = [
        [str(k + 1), "{:,}".format(rows), "{:.3f}".format(rows / n), "{:.1f}".format(1e3 * took),
         "{:.2f}".format(took / medians[-1])]
        for k, (rows, took) in enumerate(zip(evaluations, medians))
    ]  # fmt: skip
    return report.table(["snapshot", "gradients of samples", "of n", "ms", "of a full pass"], lines)


# ----------------------------------------------------------------------------------------------------------- picture

_COLOURS = {SGD: "#a0a0a0", "EveryEpochs(1)": "#103d7c", "EveryEpochs(2)": "#5b9bd5",
            "EveryEpochs(1, warm_start=1)": "#e07b00", "EverySteps, 2 an epoch": "#2e8b57",
            "Loopless, 1 an epoch": "#c0392b", "Growing(n / 4)": "#8e44ad", "Growing(n / 64)": "#c9a0dc",
            "EveryEpochs(1, at='average')": "#7f6000"}  # fmt: skip


def draw(results: Dict[str, List[Row]], path: str) -> None:
    """Suboptimality against passes, of the first seed: a panel for each problem."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 2.9 * len(results) + 1), dpi=130, constrained_layout=True)
    panels = figure.subplots(len(results), 1, squeeze=False)[:, 0]
    for axes, (title, rows) in zip(panels, results.items()):
        for name, _, traces in rows:
            if name in _COLOURS:
                # SGD's is that for the first target.
                passes, gaps = zip(*traces[0][0])
                axes.semilogy(passes, gaps, color=_COLOURS[name], label=name,
                              linewidth=2.4 if name == "EveryEpochs(1)" else 1.4)  # fmt: skip
        longest = max(traces[-1][0][-1][0] for name, _, traces in rows if name != SGD)
        axes.set_title(title, loc="left", fontsize=10)
        axes.set(xlim=(0, longest), ylim=(TARGETS[-1], 10), ylabel="(f - f*) / f*")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("gradient evaluations / n  (passes)")
    handles = panels[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncol=2, frameon=False, fontsize="small")
    figure.savefig(path)


# ------------------------------------------------------------------------------------------------------- command line

_MAKE = {"breast_cancer": lambda n: breast_cancer(), "digits": lambda n: digits(), "generated": generated}


def main(arguments: Optional[List[str]] = None) -> None:
    """Measure, print the tables in Markdown, and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schedules", description=main.__doc__)
    parser.add_argument("--only", choices=PARTS, help="one of the two parts")
    parser.add_argument("--problems", nargs="+", choices=list(_MAKE), default=list(_MAKE))
    parser.add_argument("--methods", nargs="+", metavar="NAME", choices=list(methods(64, 1, 0)), help="default all")
    parser.add_argument("--n", type=int, default=ROWS, help="rows of the generated data (default: {:,})".format(ROWS))
    parser.add_argument("--seeds", type=int, default=SEEDS, help="(default: %(default)s)")
    parser.add_argument("--passes", type=float, help="after which a training is given up (default: 60 with the "
                        "generated data, 300 with the others)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often full passes are timed (default: 5)")
    parser.add_argument("--picture", metavar="PNG", help="draw the picture, too")
    chosen = parser.parse_args(arguments)
    print(report._about({"environment": report.environment(), "settings": chosen.__dict__}) + "\n", flush=True)
    results = {}
    for name in chosen.problems if chosen.only != PARTS[1] else ():
        case = _MAKE[name](chosen.n)
        case = case._replace(most=chosen.passes or case.most)
        title = "{}: {:,} rows, batches of {}".format(name, len(case.problem.y), case.rows)
        results[title] = compare(case, chosen.seeds, chosen.methods)
        print("Passes, {}:\n\n{}\n".format(title, table(results[title])), flush=True)
    if chosen.only != PARTS[0]:
        costs = costs_of_growing(generated(chosen.n), chosen.rounds)
        print("Full gradients of Growing(n / 64), generated, {:,} rows:\n\n{}\n".format(chosen.n, costs))
    if chosen.picture and results:
        draw(results, chosen.picture)


if __name__ == "__main__":
    main()
