"""Passes to a given accuracy: the steps that 'auto' chooses, against the best constant step of a grid.

For each problem of `families`, every constant step of a grid of STEPS, without and with momentum 0.9, is tried, and the
best one is chosen with hindsight. 'auto' knows nothing. All go through ``SVRGModule.fit``, in float64, with batches of
4 sqrt(n) rows and a snapshot every epoch; a pass is n gradient evaluations, counted by the module.

    python -m benchmarks.auto_step [family ...]
"""

import argparse
import contextlib
import logging
import math
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np

from svrg_optimization import SVRGModule
from svrg_optimization.theory import smoothness

from . import families
from .families import Problem

# The constant steps, as multiples of 1 / smoothness.
STEPS = [2.0**k for k in range(2, -11, -1)]
TARGET = {"float64": 1e-10, "float32": 1e-8}
MOST_PASSES = 300.0
# Of an epoch: two in its steps, and the snapshot's.
PASSES = 3.0
WAYS: Dict[str, Dict[str, Any]] = {"auto": {}, "momentum 0.9": {"momentum": 0.9}}


class Arrived(Exception):
    """A training may end."""


def network(problem: Problem) -> mx.symbol.Symbol:
    layer = {"squared": mx.sym.LinearRegressionOutput, "logistic": mx.sym.LogisticRegressionOutput,
             "softmax": mx.sym.SoftmaxOutput}[problem.loss]  # fmt: skip
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=problem.shape[0], no_bias=True, name="fc")
    return layer(scores, mx.sym.Variable("softmax_label"))


def trace(
    problem: Problem, params: Dict[str, Any], most: float, dtype: str = "float64", rows: int = 0
) -> Tuple[List[float], SVRGModule]:
    """The relative suboptimality after each epoch, until the target or so many passes; and the module."""
    rows = rows or round(4 * math.sqrt(len(problem.y)))
    y = problem.y if problem.loss == "softmax" else problem.y[:, None]
    data = mx.io.NDArrayIter(mx.nd.array(problem.x, dtype=dtype), mx.nd.array(y, dtype=dtype), rows)
    module = SVRGModule(network(problem), update_freq=1, logger=logging.getLogger("quiet"))
    module.bind(data.provide_data, data.provide_label)
    module.init_params(arg_params={"fc_weight": mx.nd.zeros(problem.shape, dtype=dtype)}, aux_params={})
    gaps: List[float] = []

    def look(epoch: int, symbol: Any, weights: Any, *_: Any) -> None:
        with np.errstate(all="ignore"):
            gaps.append(problem.suboptimality(weights["fc_weight"].asnumpy()))
        if gaps[-1] < TARGET[dtype] or PASSES * len(gaps) >= most or not gaps[-1] < 1e9:
            raise Arrived

    with contextlib.suppress(Arrived, FloatingPointError):
        module.fit(data, num_epoch=int(most), eval_metric=mx.metric.Loss(),
                   optimizer_params={**params, "wd": problem.decay}, epoch_end_callback=look)  # fmt: skip
    return gaps, module


def passes(problem: Problem, params: Dict[str, Any], most: float, dtype: str = "float64") -> float:
    """Passes until the target; infinite if it isn't reached within `most`."""
    gaps, _ = trace(problem, params, most, dtype)
    return PASSES * len(gaps) if gaps and gaps[-1] < TARGET[dtype] else math.inf


class Result(NamedTuple):
    """For a problem, the passes of the best constant step and of each of WAYS."""

    name: str
    best: float
    found: List[float]


def compare(family: str, loss: str, decay: float, dtype: str = "float64", n: int = 2000, seed: int = 0) -> Result:
    problem = families.make(family, loss, decay, n=n, seed=seed)
    largest = smoothness(problem.x, loss, intercept=False, decay=problem.decay).L
    best = MOST_PASSES
    for momentum in (0.0, 0.9):
        for step in STEPS:
            best = min(best, passes(problem, {"learning_rate": step / largest, "momentum": momentum}, best, dtype))
    found = [passes(problem, {"learning_rate": "auto", **given}, MOST_PASSES, dtype) for given in WAYS.values()]
    return Result("{}, {}, {}/n".format(family, loss, decay), best if best < MOST_PASSES else math.inf, found)


def geometric_mean(ratios: List[float]) -> float:
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def draw(path: str, n: int, family: str = "correlated", loss: str = "logistic") -> None:
    """A picture: every constant step, and 'auto', on one problem; and which steps 'auto' took."""
    from matplotlib.figure import Figure

    problem = families.make(family, loss, 1, n=n)
    largest = smoothness(problem.x, loss, intercept=False, decay=problem.decay).L
    figure = Figure(figsize=(5, 6.6), dpi=144, constrained_layout=True)
    upper, lower = figure.subplots(2, 1)
    for momentum, colour in ((0.0, "#9aa5b1"), (0.9, "#d8a86a")):
        for step in STEPS:
            gaps, _ = trace(problem, {"learning_rate": step / largest, "momentum": momentum}, 90)
            upper.semilogy([PASSES * k for k in range(1, len(gaps) + 1)], gaps, color=colour, linewidth=0.8)
        upper.plot([], [], color=colour, label="constant steps, momentum %g" % momentum)
    gaps, module = trace(problem, {"learning_rate": "auto"}, 90)
    upper.semilogy([PASSES * k for k in range(1, len(gaps) + 1)], gaps, color="#1f5fa8", linewidth=2.5, label="'auto'")
    upper.set(xlabel="passes over the data", ylabel="(f - f*) / f*", ylim=(TARGET["float64"], 10), xlim=(0, 90))
    upper.legend(loc="lower left", framealpha=0.9, fontsize="small")
    at = [record.passes for record in module.history[1:]]
    rates = [record.learning_rate * largest for record in module.history[1:]]
    lower.step(at, rates, where="post", color="#1f5fa8", label="learning rate times L")
    lower.step(at, [record.momentum for record in module.history[1:]], where="post", color="#c0392b", label="momentum")
    lower.set(xlabel="passes over the data", ylim=(0, None), title="the steps that 'auto' took")
    lower.legend(frameon=False, fontsize="small")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def main(arguments: Optional[List[str]] = None) -> None:
    """Compare, and print the passes of each problem and the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto_step", description=main.__doc__)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help="default all: %s" % ", ".join(families.FAMILIES))
    parser.add_argument("--losses", nargs="+", choices=families.LOSSES, default=list(families.LOSSES))
    parser.add_argument("--dtype", choices=list(TARGET), default="float64")
    parser.add_argument("--n", type=int, default=2000, help="rows (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", metavar="PNG", help="draw the picture of the docs instead")
    chosen = parser.parse_args(arguments)
    if chosen.picture:
        draw(chosen.picture, chosen.n)
        return
    unknown = set(chosen.families) - set(families.FAMILIES)
    if unknown:
        parser.error("no such family: %s" % ", ".join(sorted(unknown)))
    cases = [
        (family, loss, decay, chosen.dtype, chosen.n, chosen.seed)
        for family in chosen.families or families.FAMILIES
        for loss in chosen.losses
        for decay in (1, 10)
    ]
    ratios: Dict[str, List[float]] = {way: [] for way in WAYS}
    with ProcessPoolExecutor(2) as pool:
        for result in pool.map(compare, *zip(*cases)):
            found = "  ".join("{} {:5.0f}".format(*each) for each in zip(WAYS, result.found))
            print("{:40} best {:5.0f}  {}".format(result.name, result.best, found), flush=True)
            for way, of_way in zip(WAYS, result.found):
                if result.best < math.inf:
                    ratios[way].append(of_way / result.best)
    for way, of_ratios in ratios.items():
        mean, worst = geometric_mean(of_ratios), max(of_ratios)
        print("{}: geometric mean {:.2f}, worst {:.2f}, of {}".format(way, mean, worst, len(of_ratios)))


if __name__ == "__main__":
    main()
