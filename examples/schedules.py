"""When the snapshot moves: the same training with other schedules of snapshots.

    python schedules.py

Logistic regression on scikit-learn's breast cancer data, by SVRG. All trainings
have the same data, the same constant step and as many passes. They differ in
one argument of SVRGModule, `snapshots`: when the snapshot moves, to which
weights, and over how many samples the full gradient there is. A pass is a
gradient evaluation per sample: a step of SVRG costs two for each of its rows, a
step of a warm start one, and a full gradient one for each sample that it is over.

You should see a table of f - f*, the loss less its minimum, and then how many
snapshots each schedule took. An epoch of plain steps before the first snapshot (a
warm start) pays off. At this step size a snapshot every two epochs is too
seldom: SVRG's gradients are too inexact at the end of such a period. Loopless has
some periods that are as long, by chance. Twice an epoch is steadier at the
beginning, and costs more. Growing saves passes in its full gradients and loses
more than that, since of so few samples a part says too little. The mean of the
iterates lags behind the last one. The picture, svrg_schedules.png, has f - f*
against passes. Try --step 1, too: there, longer periods are better.
"""

import argparse
import logging
import sys
from typing import NamedTuple

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=_common.whole_number(5), default=60,
                        help="gradient evaluations per sample (default: 60)")  # fmt: skip
    parser.add_argument("--step", type=_common.positive_number, default=2,
                        help="the learning rate, times 1 / L; L is the loss's smoothness (default: 2)")  # fmt: skip
    parser.add_argument("--batch-size", type=_common.whole_number(1, 284), default=8, help="(default: 8)")
    parser.add_argument("--seed", type=_common.whole_number(0), default=0,
                        help="of the order of the rows, and of what schedules draw (default: 0)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_schedules.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()

import mxnet as mx
import numpy as np
from sklearn.datasets import load_breast_cancer

from svrg_optimization import SVRGModule, theory
from svrg_optimization.schedules import EveryEpochs, EverySteps, Growing, Loopless

# Weight decay, which is L2 regularisation; a number that float32 has.
DECAY = 1 / 64


def schedules(samples):
    """Return the schedules, by name."""
    steps = -(-samples // args.batch_size)  # of an epoch
    return {
        "1 epoch": EveryEpochs(1),  # what update_freq=1 means
        "2 epochs": EveryEpochs(2),
        "half": EverySteps(steps // 2),
        "warm start": EveryEpochs(1, warm_start=1),
        "Loopless": Loopless(1 / steps, seed=args.seed),
        "Growing": Growing(samples // 16, factor=2, seed=args.seed),
        "average": EveryEpochs(1, at="average"),
    }


class Loss:
    """f(w) = mean of log(1 + exp(-z)) over the samples + wd/2 ||w||^2, and its minimum."""

    def __init__(self, x, y):
        self.x, self.y = x, y
        w = np.zeros(x.shape[1])
        for _ in range(20):  # Newton's method
            p = 1 / (1 + np.exp(-x @ w))
            gradient = x.T @ (p - y) / len(y) + DECAY * w
            w = w - np.linalg.solve((x.T * (p * (1 - p))) @ x / len(y) + DECAY * np.eye(len(w)), gradient)
        self.minimum = self.at(w)

    def at(self, w):
        """Return f(w)."""
        z = self.x @ w
        return np.mean(np.logaddexp(0, z) - self.y * z) + DECAY / 2 * w @ w


class Run(NamedTuple):
    """A training; the lists have what was after each epoch."""

    module: SVRGModule
    passes: list
    gaps: list


def train(schedule, loss, step):
    """Train for so many passes, from zero weights; return a Run."""
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
    network = mx.sym.LogisticRegressionOutput(output, mx.sym.Variable("label"))
    module = SVRGModule(network, label_names=["label"], snapshots=schedule)
    samples, steps, run = len(loss.y), [0], Run(module, [0], [loss.at(np.zeros(loss.x.shape[1])) - loss.minimum])

    def count(_):
        steps[0] += 1

    def measure(epoch, symbol, params, aux):
        # A record of the history has the passes until a snapshot, and the number of steps before it.
        last = module.history[-1] if module.history else None
        since, cost = (steps[0] - last.num_update, 2) if last else (steps[0], 1)
        run.passes.append((last.passes if last else 0) + since * cost * args.batch_size / samples)
        run.gaps.append(loss.at(params["fc_weight"].asnumpy().ravel()) - loss.minimum)

    # An epoch costs two passes at least, but for that of a warm start. What is beyond the passes isn't shown.
    arrays = loss.x, loss.y.reshape(-1, 1), args.batch_size
    module.fit(
        _common.shuffled_batches(*arrays, seed=args.seed),
        # In the middle of an epoch a full pass can't read the iterator that training reads; it can read this one's
        # arrays. If the data were an NDArrayIter themselves, this wouldn't be needed.
        snapshot_data=_common.batches(*arrays),
        num_epoch=1 + args.passes // 2,
        optimizer="sgd",
        optimizer_params={"learning_rate": step, "wd": DECAY},
        initializer=mx.init.Zero(),
        eval_metric="mse",
        batch_end_callback=count,
        epoch_end_callback=measure,
    )
    return run


def print_table(runs):
    """Print f - f* of each run at the end of the last epoch within so many passes."""
    print("\nf - f* after at most so many passes (gradient evaluations per sample)\n")
    print("passes" + "".join("{:>12}".format(name) for name in runs))
    for passes in range(0, args.passes + 1, 5):
        gaps = [run.gaps[np.searchsorted(run.passes, passes, side="right") - 1] for run in runs.values()]
        print("{:6}".format(passes) + "".join("{:>12}".format("%.1e" % max(gap, 1e-16)) for gap in gaps))


def draw(runs, title, path):
    """Draw f - f* against passes, log scale."""
    figure, (axes,) = _common.new_figure(title, [4.4])
    colors = ["#103d7c", "#5b9bd5", "#2e8b57", "#e07b00", "#c0392b", "#8e44ad", "#7f6000"]
    for (name, run), color in zip(runs.items(), colors):
        axes.semilogy(run.passes, run.gaps, "o-", color=color, markersize=3, linewidth=1.5, label=name)
    axes.set_xlim(0, args.passes)
    axes.set_ylim(1e-15, 1)
    axes.set_xlabel("gradient evaluations / n  (passes)")
    axes.set_ylabel("f - f*")
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    x, y = load_breast_cancer(return_X_y=True)
    x = _common.with_bias((x - x.mean(axis=0)) / x.std(axis=0))
    loss = Loss(x, y)
    step = args.step / theory.smoothness(x, "logistic", decay=DECAY).L
    print("{} samples, batches of {}, learning rate {:.3g}".format(len(y), args.batch_size, step), flush=True)
    chosen = schedules(len(y))
    runs = {name: train(schedule, loss, step) for name, schedule in chosen.items()}
    print_table(runs)
    print()
    for name, run in runs.items():
        snapshots = sum(record.passes <= args.passes for record in run.module.history)
        print("{:10}{:3} snapshots: {}".format(name, snapshots, chosen[name]))
    draw(runs, "Logistic regression with L2, by schedules of snapshots", args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
