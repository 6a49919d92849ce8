"""SVRG against the methods that one would use instead: the figures of the page "Is SVRG for me?".

    python -m benchmarks.alternatives

**Logistic regression** (`logistic.py`), all in float64: seconds, and passes over the data, to a relative suboptimality
of TARGETS. How a method is timed is said in `convergence.py`.

**A net**, the one of examples/mlp.py, on scikit-learn's digits: training loss and test accuracy of SVRG, Adam and AdamW
after the same number of gradient evaluations, medians over seeds. A seed chooses the test data, the first weights and
the order of the rows, the same for all methods. Each method but SVRG's 'auto' has the learning rate of a grid that
gives it the smallest training loss after the last of the passes, chosen with hindsight. These figures don't depend on
the machine's load.
"""

import argparse
import math
import statistics
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from . import convergence, report
from .contenders import REST, make, quiet
from .convergence import Method

PARTS = ("logistic", "net")

# ------------------------------------------------------------------------------------------------ logistic regression

TARGETS = (1e-3, 1e-6, 1e-10)
OTHERS = {
    "L-BFGS": "scikit-learn lbfgs",
    "Newton-Cholesky": "scikit-learn newton-cholesky",
    "SAGA": "scikit-learn saga",
}
# With 5,000 rows it comes nearer to the minimum than 0.001, 0.003, 0.03 and 0.1 do, after as many passes as SVRG needs.
RATE_OF_ADAM = 0.01


def _in_float64(contender: str, optimizer: str, settings: Dict[str, Any]) -> Callable[..., np.ndarray]:
    """A method of `convergence`, in float64."""

    def solve(x: np.ndarray, y: np.ndarray, decay: float, epochs: int) -> np.ndarray:
        data, label = (mx.nd.array(each, dtype="float64") for each in (x, y > 0))
        train = mx.io.NDArrayIter(data, label, convergence.batch_size(len(x)))
        module = make(contender, convergence.network(), update_freq=convergence.UPDATE_FREQ)
        module.fit(train, num_epoch=epochs, initializer=mx.init.Zero(), optimizer=optimizer,
                   optimizer_params={**settings, "wd": decay}, eval_metric=mx.metric.CompositeEvalMetric([]),
                   epoch_end_callback=lambda *_: mx.nd.waitall())  # fmt: skip
        return module.get_params()[0]["fc_weight"].asnumpy()

    return solve


def measure(n: int, rounds: int, patience: float, rest: float = REST) -> Dict[str, List[Dict[str, Any]]]:
    """What `convergence.measure` gives, for the methods and targets of this page."""
    known = convergence.methods()
    chosen = {
        "SVRG 'auto'": Method(_in_float64("ours", "sgd", {"learning_rate": "auto"}), known["ours"].passes),
        **{name: known[of_convergence] for name, of_convergence in OTHERS.items()},
        "Adam, rate %g" % RATE_OF_ADAM: Method(_in_float64("Module", "adam", {"learning_rate": RATE_OF_ADAM}), float),
    }
    return convergence.measure(str(n), rounds, patience, chosen, TARGETS, rest)


def logistic_tables(n: int, found: Dict[str, List[Dict[str, Any]]]) -> str:
    """One of passes and one of seconds: narrow ones, for a phone."""
    passes, seconds = [], []
    for name, reached in found.items():
        never = ["never ({:.0e})".format(each["best"]) for each in reached]
        passes.append([name, *(
            other if each["passes"] is None else "{:.0f}".format(each["passes"]) for each, other in zip(reached, never)
        )])  # fmt: skip
        seconds.append([name, *(
            "{:.2g}".format(statistics.median(each["seconds"])) if each["seconds"] else "never" for each in reached
        )])  # fmt: skip
    parts = []
    for what, rows in ("Passes", passes), ("Seconds", seconds):
        parts += ["{}, {:,} samples:".format(what, n)]
        parts += [
            report.table(["method", *("to {:.0e}".format(target).replace("e-0", "e-") for target in TARGETS)], rows)
        ]
    return "\n\n".join(parts)


# -------------------------------------------------------------------------------------------------------------- a net

PASSES = (11, 55)
SEEDS = 5
BATCH_SIZE = 32
TEST_ROWS = 357
HIDDEN = 64
# Johnson & Zhang's choice for nets, and that of the example.
UPDATE_FREQ = 5
# AdamW's usual weight decay.
DECAY = 0.01


class Way(NamedTuple):
    """A method, and the grid of its learning rates."""

    contender: str
    optimizer: str
    rates: Sequence[Any]
    settings: Dict[str, Any]

    @property
    def passes_of_epoch(self) -> float:
        return 2 + 1 / UPDATE_FREQ if self.contender == "ours" else 1.0


_CONSTANT, _ADAPTIVE = (0.2, 0.5, 1.0, 2.0, 4.0), (0.001, 0.003, 0.01, 0.03, 0.1)
WAYS = {
    "SVRG, 'auto'": Way("ours", "sgd", ("auto",), {}),
    "SVRG, constant": Way("ours", "sgd", _CONSTANT, {}),
    "SGD, constant": Way("Module", "sgd", _CONSTANT, {}),
    "Adam": Way("Module", "adam", _ADAPTIVE, {}),
    "AdamW": Way("Module", "adamw", _ADAPTIVE, {"wd": DECAY}),
}


class Reached(NamedTuple):
    """After so many passes."""

    loss: float  # of the training data
    accuracy: float  # of the test data


def network() -> Any:
    """That of examples/mlp.py."""
    hidden = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=HIDDEN, name="fc1")
    scores = mx.sym.FullyConnected(mx.sym.Activation(hidden, act_type="tanh"), num_hidden=10, name="fc2")
    return mx.sym.SoftmaxOutput(scores, mx.sym.Variable("softmax_label"), name="softmax")


def _digits(seed: int) -> Tuple[Tuple[np.ndarray, np.ndarray], Tuple[np.ndarray, np.ndarray]]:
    """Training and test data."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x - x.mean(axis=0)) / (x - x.mean(axis=0)).std()
    order = np.random.default_rng(seed).permutation(len(y))
    test, train = order[:TEST_ROWS], order[TEST_ROWS:]
    return (x[train].astype(np.float32), y[train]), (x[test].astype(np.float32), y[test])


def train(way: Way, rate: Any, seed: int, passes: Sequence[float]) -> List[Reached]:
    """What is reached after each of the passes."""
    training, test = _digits(seed)
    # The first weights, and the order of the rows.
    mx.random.seed(seed)
    np.random.seed(seed)
    data = mx.io.NDArrayIter(*training, BATCH_SIZE, shuffle=True)
    module = make(way.contender, network(), update_freq=UPDATE_FREQ)
    epochs = [round(each / way.passes_of_epoch) for each in passes]
    found: List[Reached] = []

    def look(epoch: int, *_: Any) -> None:
        if epoch + 1 in epochs:
            found.append(_reached(module, training, test))

    module.fit(data, num_epoch=max(epochs), initializer=mx.init.Xavier(), optimizer=way.optimizer,
               optimizer_params={"learning_rate": rate, **way.settings}, epoch_end_callback=look)  # fmt: skip
    return found


def _reached(module: Any, training: Any, test: Any) -> Reached:
    of_training, of_test = (
        module.predict(mx.io.NDArrayIter(x, None, BATCH_SIZE)).asnumpy() for x, _ in (training, test)
    )
    right = of_training[np.arange(len(of_training)), training[1]].astype(np.float64)
    return Reached(
        float(-np.log(np.maximum(right, 1e-30)).mean()), float((of_test.argmax(axis=1) == test[1]).mean())
    )  # fmt: skip


class Row(NamedTuple):
    """A method with its best rate: for each of the passes, what every seed has reached."""

    name: str
    rate: Any
    reached: List[List[Reached]]


def _median_loss(of_seeds: Sequence[Reached]) -> float:
    losses = [each.loss for each in of_seeds]
    # A rate that is too large gives NaN.
    return statistics.median(losses) if all(map(math.isfinite, losses)) else math.inf


def compare(seeds: int, passes: Sequence[float]) -> Iterator[Row]:
    for name, way in WAYS.items():
        rows = []
        for rate in way.rates:
            with quiet():
                of_seeds = [train(way, rate, seed, passes) for seed in range(seeds)]
            rows.append(Row(name, rate, [list(each) for each in zip(*of_seeds)]))
        yield min(rows, key=lambda row: _median_loss(row.reached[-1]))


def net_tables(rows: Sequence[Row], passes: Sequence[float]) -> str:
    """One of losses and one of accuracies."""
    header, losses, accuracies = ["after %g passes" % each for each in passes], [], []
    for name, rate, reached in rows:
        losses.append([name, str(rate), *("{:.2g}".format(_median_loss(of_seeds)) for of_seeds in reached)])
        of_test = (statistics.median(each.accuracy for each in of_seeds) for of_seeds in reached)
        accuracies.append([name, *("{:.1%}".format(each) for each in of_test)])
    return "\n\n".join([
        "Training loss:", report.table(["method", "rate", *header], losses),
        "Test accuracy:", report.table(["method", *header], accuracies),
    ])  # fmt: skip


# ------------------------------------------------------------------------------------------------------- command line


def main(arguments: Optional[List[str]] = None) -> None:
    """Measure, and print the tables in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alternatives", description=main.__doc__)
    parser.add_argument("--only", choices=PARTS, help="one of the two parts")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000], metavar="N", help="rows")
    parser.add_argument("--rounds", type=int, default=7, help="how often each method is timed (default: 7)")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds after which a method is given up")
    parser.add_argument("--rest", type=float, default=REST, help="seconds before each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the net (default: %d)" % SEEDS)
    parser.add_argument(
        "--passes", type=float, nargs="+", default=list(PASSES), help="after which the net is looked at"
    )
    chosen = parser.parse_args(arguments)
    machine = report.environment()
    print(report._about({"environment": machine, "settings": chosen.__dict__}) + "\n", flush=True)
    for n in chosen.sizes if chosen.only != "net" else ():
        print(logistic_tables(n, measure(n, chosen.rounds, chosen.patience, chosen.rest)) + "\n", flush=True)
    if chosen.only != "logistic":
        rows = list(compare(chosen.seeds, chosen.passes))
        print("A net, medians of {} seeds\n\n{}".format(chosen.seeds, net_tables(rows, chosen.passes)))


if __name__ == "__main__":
    main()
