"""Nets: SVRG and alpha-SVRG under AdamW, against AdamW after as many updates, and after as many gradient evaluations.

    python -m benchmarks.nets

scikit-learn's digits, 1440 for training and 357 for tests. 30 % of the training labels are wrong: each of these is one
of the nine other classes, drawn at random. The test labels are right. A seed chooses the test data, the wrong labels,
the first weights and the order of the rows, the same for all methods. Every method is AdamW with the learning rate
RATE and the weight decay DECAY; what differs is the gradient that AdamW gets:

- the plain one;
- the plain one of batches three times as large: as many updates, and as many gradient evaluations, as SVRG;
- the variance-reduced one, with a snapshot each epoch, and the coefficient 1, `Linear(0.75)` or `PerLayer()`.

An epoch of SVRG has three gradient evaluations per sample: at the weights, at the snapshot, and in the full pass. So
the plain ones train for three times as many epochs; AdamW's own row in the table stands there twice. The loss is that
of the training data with their wrong labels, computed after each epoch as for predictions. A second table has the
variance of SVRG's gradient over an epoch, and which coefficient would leave the least. The figures don't depend on the
machine's load.
"""

import argparse
import statistics
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np

from svrg_optimization import VarianceMonitor
from svrg_optimization.coefficients import Linear, PerLayer

from . import report
from .contenders import make, quiet

EPOCHS = 24
RATE = 0.004
DECAY = 0.01
BATCH_SIZE = 32
NOISE = 0.3
TEST_ROWS = 357
# Gradient evaluations per sample of an epoch of SVRG that takes a snapshot in each.
PASSES = 3


class Way(NamedTuple):
    """A method: how many times EPOCHS it trains, how many times BATCH_SIZE its batches have, and SVRG's coefficient."""

    times: int
    batches: int
    coefficient: Optional[Callable[[int], Any]]  # of the number of epochs
    colour: str


WAYS = {
    "AdamW": Way(PASSES, 1, None, "#7b8794"),
    "AdamW, 3 times the batch": Way(PASSES, PASSES, None, "#d8a86a"),
    "SVRG": Way(1, 1, lambda epochs: 1.0, "#c0392b"),
    "alpha-SVRG, Linear": Way(1, 1, lambda epochs: Linear(0.75, epochs), "#1f5fa8"),
    "SVRG, PerLayer": Way(1, 1, lambda epochs: PerLayer(), "#3f9e6e"),
}


class Reached(NamedTuple):
    """After an epoch."""

    updates: int
    passes: float
    loss: float  # of the training data, with their wrong labels
    accuracy: float  # of the test data, whose labels are right


# --------------------------------------------------------------------------------------------------- nets and data


def mlp() -> Any:
    """Four layers, 128 wide, with ReLU."""
    hidden = mx.sym.Variable("data")
    for layer in ("fc1", "fc2", "fc3"):
        hidden = mx.sym.FullyConnected(hidden, num_hidden=128, name=layer)
        hidden = mx.sym.Activation(hidden, act_type="relu")
    return _classifier(hidden)


def convnet() -> Any:
    """Three layers of 3x3 filters with BatchNorm and ReLU."""
    hidden = mx.sym.Reshape(mx.sym.Variable("data"), shape=(-1, 1, 8, 8))
    for layer, filters, stride in (("1", 16, 1), ("2", 32, 2), ("3", 32, 1)):
        hidden = mx.sym.Convolution(hidden, num_filter=filters, kernel=(3, 3), pad=(1, 1), stride=(stride, stride),
                                    name="conv" + layer)  # fmt: skip
        hidden = mx.sym.BatchNorm(hidden, fix_gamma=False, name="norm" + layer)
        hidden = mx.sym.Activation(hidden, act_type="relu")
    return _classifier(mx.sym.Pooling(hidden, global_pool=True, kernel=(1, 1), pool_type="avg"))


def _classifier(hidden: Any) -> Any:
    scores = mx.sym.FullyConnected(hidden, num_hidden=10, name="scores")
    return mx.sym.SoftmaxOutput(scores, mx.sym.Variable("softmax_label"), name="softmax")


class Net(NamedTuple):
    """A network, what it is, and with how many seeds it is trained."""

    make: Callable[[], Any]
    title: str
    seeds: int


NETS = {
    "mlp": Net(mlp, "four layers, ReLU", 5),
    "convnet": Net(convnet, "convolutions, BatchNorm", 3),
}


def digits(seed: int) -> Tuple[Tuple[np.ndarray, np.ndarray], Tuple[np.ndarray, np.ndarray]]:
    """Training data, of which some labels are wrong, and test data."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, rng = (x / 16).astype(np.float32), np.random.default_rng(seed)
    order = rng.permutation(len(y))
    test, train = order[:TEST_ROWS], order[TEST_ROWS:]
    labels = y[train]
    wrong = rng.permutation(len(labels))[: round(NOISE * len(labels))]
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    return (x[train], labels), (x[test], y[test])


# -------------------------------------------------------------------------------------------------------- training

# By method, for each seed what it has reached after each epoch.
Curves = Dict[str, List[List[Reached]]]


def train(net: str, way: Way, seed: int, epochs: int, monitor: Optional[VarianceMonitor] = None) -> List[Reached]:
    """What is reached after each epoch; `epochs` are SVRG's."""
    training, test = digits(seed)
    # The first weights, and the order of the rows.
    mx.random.seed(seed)
    np.random.seed(seed)
    rows, samples = BATCH_SIZE * way.batches, len(training[0])
    data = mx.io.NDArrayIter(*training, rows, shuffle=True)
    symbol, is_plain = NETS[net].make(), way.coefficient is None
    module = make("Module", symbol) if is_plain else make("ours", symbol, 1, coefficient=way.coefficient(epochs))
    found: List[Reached] = []

    def look(epoch: int, *_: Any) -> None:
        passes = epoch + 1.0 if is_plain else module._clock.evaluations / samples
        (loss, _), (_, accuracy) = (_loss_and_accuracy(module, *each, rows) for each in (training, test))
        found.append(Reached((epoch + 1) * samples // rows, passes, loss, accuracy))

    with quiet():
        module.fit(data, num_epoch=epochs * way.times, initializer=mx.init.Xavier(), monitor=monitor, optimizer="adamw",
                   optimizer_params={"learning_rate": RATE, "wd": DECAY}, epoch_end_callback=look)  # fmt: skip
    return found


def _loss_and_accuracy(module: Any, x: np.ndarray, y: np.ndarray, rows: int) -> Tuple[float, float]:
    outputs = module.predict(mx.io.NDArrayIter(x, None, rows)).asnumpy().astype(np.float64)
    right = outputs[np.arange(len(y)), y]
    return float(-np.log(np.maximum(right, 1e-30)).mean()), float((outputs.argmax(axis=1) == y).mean())


def compare(net: str, seeds: int, epochs: int) -> Curves:
    return {name: [train(net, way, seed, epochs) for seed in range(seeds)] for name, way in WAYS.items()}


# ------------------------------------------------------------------------------------------------ table and picture


def _rows(curves: Curves, epochs: int) -> Iterator[Tuple[str, List[List[Reached]]]]:
    """The curves of the seeds; those of AdamW after as many updates, too."""
    for name, of_seeds in curves.items():
        if WAYS[name].times > WAYS[name].batches:
            yield name, [curve[:epochs] for curve in of_seeds]
        yield name, of_seeds


def table(curves: Curves, epochs: int) -> str:
    """Medians of the seeds, and in brackets the least and the most."""
    lines = []
    for name, of_seeds in _rows(curves, epochs):
        ends = [curve[-1] for curve in of_seeds]
        losses, accuracies = [each.loss for each in ends], [each.accuracy for each in ends]
        best = statistics.median(max(each.accuracy for each in curve) for curve in of_seeds)
        lines.append([
            name, str(ends[0].updates), "%.0f" % ends[0].passes,
            "{:.3g} ({:.3g} to {:.3g})".format(statistics.median(losses), min(losses), max(losses)),
            "{:.1%} ({:.1%} to {:.1%})".format(statistics.median(accuracies), min(accuracies), max(accuracies)),
            "{:.1%}".format(best),
        ])  # fmt: skip
    return report.table(["gradient", "updates", "passes", "training loss", "test accuracy", "at its best"], lines)


def variances(net: str, epochs: int) -> str:
    """Of SVRG's first seed."""
    monitor = VarianceMonitor()
    train(net, WAYS["SVRG"], 0, epochs, monitor)
    shown = sorted({each for each in (1, 2, 4, 8, 16, epochs) if each <= epochs})
    totals = [monitor.epochs[each - 1].total for each in shown]
    return report.table(
        ["epoch of SVRG", *map(str, shown)],
        [
            ["its variance / the plain gradient's", *("%.2f" % each.ratio for each in totals)],
            ["the best coefficient", *("%.2f" % each.best_coefficient for each in totals)],
        ],
    )


def draw(path: str, found: Dict[str, Curves]) -> None:
    """For each net, the training loss against the updates, and against the gradient evaluations; shaded, all seeds."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(3.7 * len(found) + 0.5, 6.4), dpi=100, constrained_layout=True)
    panels = figure.subplots(2, len(found), squeeze=False, sharey="col")
    for (net, curves), column in zip(found.items(), panels.T):
        for axes, of_axis in zip(column, (0, 1)):
            for name, of_seeds in curves.items():
                losses = np.array([[each.loss for each in curve] for curve in of_seeds])
                across = [each[of_axis] for each in of_seeds[0]]
                axes.semilogy(across, np.median(losses, axis=0), color=WAYS[name].colour, linewidth=1.6, label=name)
                axes.fill_between(across, losses.min(axis=0), losses.max(axis=0), color=WAYS[name].colour, alpha=0.12)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        most = max(curve[-1].updates for name in curves if WAYS[name].coefficient for curve in curves[name])
        column[0].set(xlim=(0, most), xlabel="updates", title="%s (%s)" % (net, NETS[net].title))
        column[1].set(xlim=(0, None), xlabel="gradient evaluations per sample")
    for axes in panels[:, 0]:
        axes.set_ylabel("training loss")
    panels[0, 0].legend(loc="lower left", framealpha=0.9, fontsize="x-small")
    figure.savefig(path)
    # The shades would make a large file.
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


def main(arguments: Optional[List[str]] = None) -> None:
    """Measure, and print a table for each net in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nets", description=main.__doc__)
    parser.add_argument("nets", nargs="*", metavar="NET", help="default all: %s" % ", ".join(NETS))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of SVRG (default: %d)" % EPOCHS)
    parser.add_argument("--seeds", type=int, help="default: 5 of the MLP, 3 of the convnet")
    parser.add_argument("--picture", metavar="PNG", help="draw the training losses, too")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.nets) - set(NETS)
    if unknown:
        parser.error("no such net: %s" % ", ".join(sorted(unknown)))
    found = {}
    for net in chosen.nets or NETS:
        seeds = chosen.seeds or NETS[net].seeds
        found[net] = compare(net, seeds, chosen.epochs)
        print("{} ({}), medians of {} seeds\n\n{}\n\n{}\n".format(
            net, NETS[net].title, seeds, table(found[net], chosen.epochs), variances(net, chosen.epochs)),
            flush=True)  # fmt: skip
    if chosen.picture:
        draw(chosen.picture, found)


if __name__ == "__main__":
    main()
