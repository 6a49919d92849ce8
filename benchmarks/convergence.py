"""Seconds, and passes over the data, to a given accuracy of l2-regularised logistic regression.

Every method is a function of the data and a number of iterations, run from scratch: its clock starts with the same
two float64 NumPy arrays and stops with the weights, so that conversion, step size, set-up and compilation count for
all. How many iterations a method needs is found first, off the clock; then the methods run in turn.

Nothing is tuned. Ours chooses its steps itself (learning_rate='auto'), with batches of 6 sqrt(n) rows for all data, and
a snapshot every epoch. Upstream gets the step size 1 / L for this batch size, and momentum 0.9. The others have their
defaults, a tolerance of zero aside. They run in float64, for in float32 cyanure stops at about 1e-7; ours runs in
float32.
"""

import importlib.util
import math
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from . import families
from .contenders import REST, make, quiet
from .logistic import FEATURES, Problem
from .logistic import make as make_problem

TARGETS = (1e-6, 1e-10)
MOMENTUM = 0.9
UPDATE_FREQ = 1
# The rows that the step size is computed from.
SAMPLE = 20_000
MOST_ITERATIONS = 10_000


class Method(NamedTuple):
    """`solve` takes x, y, the decay and a number of iterations, and returns the weights.

    `passes` turns iterations into evaluations of the gradient of every sample.
    """

    solve: Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]
    passes: Callable[[int], float]


# ----------------------------------------------------------------------------------------------- ours and upstream


def batch_size(n: int) -> int:
    """6 sqrt(n): the number of steps of an epoch and their cost then both grow with sqrt(n)."""
    return round(6 * math.sqrt(n))


def settings_of(contender: str, x: np.ndarray, rows: int, decay: float) -> Dict[str, Any]:
    """The optimizer's."""
    if contender == "ours":
        return {"learning_rate": "auto", "wd": decay}
    return {"learning_rate": learning_rate(x, rows, decay), "momentum": MOMENTUM, "wd": decay}


def learning_rate(x: np.ndarray, rows: int, decay: float) -> float:
    """1 / L for batches of so many rows and MOMENTUM.

    L is what a batch is expected to have (Gower et al., "SGD: general analysis and improved rates", ICML 2019, without
    the terms in 1/n): that of the mean, and for the noise the largest of a single sample's, divided by the batch
    size. Momentum lets the noise of 1 / (1 - MOMENTUM) steps add up.
    """
    of_mean, of_sample = _smoothness(x[:SAMPLE])
    return 1 / (of_mean + of_sample / (rows * (1 - MOMENTUM)) + decay)


def _smoothness(x: np.ndarray) -> Tuple[float, float]:
    """Of the mean of the losses, by the power method, and of the least smooth one."""
    gram = x.T @ x / len(x)
    vector = np.ones(len(gram))
    for _ in range(100):
        vector = gram @ (vector / np.linalg.norm(vector))
    return 0.25 * np.linalg.norm(vector), 0.25 * np.einsum("ij,ij->i", x, x).max()


def network() -> Any:
    score = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
    return mx.sym.LogisticRegressionOutput(score, mx.sym.Variable("softmax_label"), name="output")


def _fit(contender: str) -> Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]:
    def solve(x: np.ndarray, y: np.ndarray, decay: float, epochs: int) -> np.ndarray:
        rows = batch_size(len(x))
        # NDArrayIter casts to float32.
        train = mx.io.NDArrayIter(x, y > 0, rows)
        module = make(contender, network(), update_freq=UPDATE_FREQ)
        # Without a metric nothing makes Python wait for mxnet, and what is still to do fills the memory.
        module.fit(train, num_epoch=epochs, initializer=mx.init.Zero(), eval_metric=mx.metric.CompositeEvalMetric([]),
                   optimizer_params=settings_of(contender, x, rows, decay),
                   epoch_end_callback=lambda *_: mx.nd.waitall())  # fmt: skip
        return module.get_params()[0]["fc_weight"].asnumpy()

    return solve


def _svrg_passes(epochs: int) -> float:
    # A step evaluates the gradient twice, a snapshot once.
    return 2 * epochs + math.ceil(epochs / UPDATE_FREQ)


# ---------------------------------------------------------------------------------------------------------- others


def _scikit_learn(solver: str) -> Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]:
    def solve(x: np.ndarray, y: np.ndarray, decay: float, iterations: int) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(solver=solver, C=1 / (decay * len(y)), fit_intercept=False, tol=0,
                                   max_iter=iterations, random_state=0)  # fmt: skip
        return model.fit(x, y).coef_

    return solve


def _cyanure(solver: str) -> Callable[[np.ndarray, np.ndarray, float, int], np.ndarray]:
    def solve(x: np.ndarray, y: np.ndarray, decay: float, iterations: int) -> np.ndarray:
        from cyanure.estimators import Classifier

        model = Classifier(loss="logistic", penalty="l2", lambda_1=decay, solver=solver, fit_intercept=False, tol=1e-30,
                           max_iter=iterations, verbose=False)  # fmt: skip
        return model.fit(x, y).coef_

    return solve


def methods() -> Dict[str, Method]:
    """Those that are installed. Says so of those that are not."""
    found = {
        "ours": Method(_fit("ours"), _svrg_passes),
        "upstream": Method(_fit("upstream"), _svrg_passes),
    }
    if _installed("sklearn"):
        for solver in ("sag", "saga"):
            found["scikit-learn " + solver] = Method(_scikit_learn(solver), float)
        # One evaluation an iteration and one to begin with; at least, for a line search may need more.
        for solver in ("lbfgs", "newton-cholesky"):
            found["scikit-learn " + solver] = Method(_scikit_learn(solver), lambda k: k + 1)
    if _installed("cyanure"):
        # An iteration is n steps, two evaluations each, and on average one full pass. What 'auto' does isn't known.
        for solver in ("svrg", "acc-svrg", "auto"):
            found["cyanure " + solver] = Method(_cyanure(solver), lambda k: 3 * k)
    return found


def _installed(package: str) -> bool:
    if importlib.util.find_spec(package) is not None:
        return True
    print("{} is not installed: it is missing from the comparison".format(package), flush=True)
    return False


# ------------------------------------------------------------------------------------------------------ comparison


class Trace:
    """What a method has reached on a problem after so many iterations; runs it when it isn't known yet."""

    def __init__(self, method: Method, problem: Problem, rest: float) -> None:
        self._method, self._problem, self._rest = method, problem, rest
        self.reached: Dict[int, Tuple[float, float]] = {}

    def run(self, iterations: int) -> Tuple[float, float]:
        """(seconds, suboptimality), from scratch."""
        x, y, decay, _ = self._problem
        time.sleep(self._rest)
        start = time.perf_counter()
        with quiet():
            w = self._method.solve(x, y, decay, iterations)
        seconds = time.perf_counter() - start
        self.reached[iterations] = seconds, self._problem.suboptimality(w)
        return self.reached[iterations]

    def suboptimality(self, iterations: int) -> float:
        return (self.reached.get(iterations) or self.run(iterations))[1]

    def first(self, target: float, patience: float) -> Optional[int]:
        """The number of iterations at which `target` is reached first; None if not by a run of `patience` seconds."""
        below, above = 0, 1
        while not self.suboptimality(above) <= target:
            # A method that has stopped by itself gives the same again.
            stopped = below > 0 and self.suboptimality(above) == self.suboptimality(below)
            if stopped or self.reached[above][0] > patience or above > MOST_ITERATIONS:
                return None
            below, above = above, 2 * above
        while above - below > 1:
            middle = (below + above) // 2
            if self.suboptimality(middle) <= target:
                above = middle
            else:
                below = middle
        return above


def problem_of(name: str) -> Problem:
    """Of a name like ``5000``, correlated features, or ``heavy rows 5000``, one of `families.FAMILIES`."""
    *family, n = name.split()
    if not family:
        return make_problem(int(n))
    found = families.make(" ".join(family), "logistic", 1, n=int(n), d=FEATURES)
    return Problem(found.x, 2 * found.y - 1, found.decay, found.minimum)


def measure(
    name: str, rounds: int, patience: float, chosen: Optional[Dict[str, Method]] = None,
    targets: Sequence[float] = TARGETS, rest: float = REST,
) -> Dict[str, List[Dict[str, Any]]]:  # fmt: skip
    """For each method and target: iterations, passes, and seconds of every round, on the problem of this name."""
    problem = problem_of(name)
    chosen = methods() if chosen is None else chosen
    traces = {name: Trace(method, problem, rest) for name, method in chosen.items()}
    iterations = {(name, target): trace.first(target, patience) for name, trace in traces.items() for target in targets}
    seconds: Dict[Tuple[str, float], List[float]] = {key: [] for key in iterations}
    for _ in range(rounds):
        for (name, target), count in iterations.items():
            if count is not None:
                seconds[name, target].append(traces[name].run(count)[0])
    return {
        name: [
            {
                "target": target,
                "iterations": iterations[name, target],
                "passes": None if iterations[name, target] is None else chosen[name].passes(iterations[name, target]),
                "seconds": seconds[name, target],
                "best": min(suboptimality for _, suboptimality in traces[name].reached.values()),
            }
            for target in targets
        ]
        for name in chosen
    }
