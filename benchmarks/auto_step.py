"""Passes to a given accuracy: the steps that 'auto' chooses, against the best constant step of a grid.

For each problem of `families`, every constant step of a grid of STEPS, without and with momentum 0.9, is tried, and the
best one is chosen with hindsight. 'auto' knows nothing. All go through ``SVRGModule.fit``, in float64, with batches of
4 sqrt(n) rows and a snapshot every epoch; a pass is n gradient evaluations, counted by the module.

    python -m benchmarks auto_step [family ...]
"""

import logging
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Dict, List, NamedTuple, Optional

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
WAYS: Dict[str, Dict[str, Any]] = {"auto": {}, "momentum 0.9": {"momentum": 0.9}}


class Arrived(Exception):
    """A training may end."""


def network(problem: Problem) -> mx.symbol.Symbol:
    layer = {"squared": mx.sym.LinearRegressionOutput, "logistic": mx.sym.LogisticRegressionOutput,
             "softmax": mx.sym.SoftmaxOutput}[problem.loss]  # fmt: skip
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=problem.shape[0], no_bias=True, name="fc")
    return layer(scores, mx.sym.Variable("softmax_label"))


def passes(problem: Problem, params: Dict[str, Any], most: float, dtype: str = "float64", rows: int = 0) -> float:
    """Passes until the target; infinite if not within `most`."""
    rows = rows or round(4 * math.sqrt(len(problem.y)))
    y = problem.y if problem.loss == "softmax" else problem.y[:, None]
    data = mx.io.NDArrayIter(mx.nd.array(problem.x, dtype=dtype), mx.nd.array(y, dtype=dtype), rows)
    module = SVRGModule(network(problem), update_freq=1, logger=logging.getLogger("quiet"))
    module.bind(data.provide_data, data.provide_label)
    module.init_params(arg_params={"fc_weight": mx.nd.zeros(problem.shape, dtype=dtype)}, aux_params={})
    used = 0.0

    def look(epoch: int, symbol: Any, weights: Any, *_: Any) -> None:
        nonlocal used
        # The steps of this epoch, and the snapshot that begins it.
        used = 3.0 * (epoch + 1)
        with np.errstate(all="ignore"):
            gap = problem.suboptimality(weights["fc_weight"].asnumpy())
        if gap < TARGET[dtype]:
            raise Arrived
        if used >= most or not gap < 1e9:
            used = math.inf
            raise Arrived

    try:
        module.fit(data, num_epoch=int(most), eval_metric=mx.metric.Loss(),
                   optimizer_params={**params, "wd": problem.decay}, epoch_end_callback=look)  # fmt: skip
    except (Arrived, FloatingPointError) as error:
        return used if isinstance(error, Arrived) else math.inf
    return math.inf


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


def main(names: Optional[List[str]] = None) -> None:
    names = names or sys.argv[2:]
    dtype = "float32" if "float32" in names else "float64"
    chosen = [name for name in names if name != "float32"] or list(families.FAMILIES)
    cases = [(family, loss, decay, dtype) for family in chosen for loss in families.LOSSES for decay in (1, 10)]
    ratios: Dict[str, List[float]] = {way: [] for way in WAYS}
    with ProcessPoolExecutor(2) as pool:
        for result in pool.map(compare, *zip(*cases)):
            print("{:40} best {:5.0f}  {}".format(result.name, result.best, "  ".join(
                "{} {:5.0f}".format(*each) for each in zip(WAYS, result.found))), flush=True)  # fmt: skip
            for way, found in zip(WAYS, result.found):
                if result.best < math.inf:
                    ratios[way].append(found / result.best)
    for way, of_way in ratios.items():
        print("{}: geometric mean {:.2f}, worst {:.2f}, of {}".format(
            way, geometric_mean(of_way), max(of_way), len(of_way)))  # fmt: skip


if __name__ == "__main__":
    main()
