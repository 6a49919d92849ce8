"""Sparse data: steps that cost what the batch touches, not what the model holds.

    python sparse_logistic.py
    python sparse_logistic.py --data rcv1_train.binary

Logistic regression with L2 on csr data, whose weight is row_sparse. Without --data
the samples are drawn: some columns are in many of them, most in a few, as with words
or with what users click. A file in libsvm's format may be compressed; its labels
have two values.

The full gradient is dense: a step of SVRG adds it to all rows of the weight. But
what it does to a row that the batch doesn't touch is known in advance. SVRGModule
does it later, when the row is needed again: 'lazy', the default with plain SGD. The
steps are the same ones. 'reweighted' does nothing to such rows, and more to one
that is touched the more seldom it is. 'dense' moves all rows in each step. All have
learning_rate='auto', and stop by tol. SGD is plain Module's, at a constant step.

You should see a table of f - f*, the loss less its minimum. SVRG's falls until training
stops; that of SGD, which also moves all rows, soon falls no more, since its steps stay
noisy. The three ways of SVRG take about as many passes: lazy and dense have the same
steps, but for the learning rates, which 'auto' chooses by the rows of a batch there and
by all of them here. Below the table is why each stopped, and how far it can be from the
minimum at most. With 50,000 columns dense steps take about as long as the others; with
--columns 1000000 they take much longer. The picture, svrg_sparse_logistic.png, has f - f*
against passes and against seconds.
"""

import argparse
import logging
import sys
import time
from typing import NamedTuple

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FILE", type=_common.existing_file,
                        help="a libsvm file with two values of labels (default: generated data)")  # fmt: skip
    parser.add_argument("--samples", type=_common.whole_number(10), default=20_000, help="(default: 20000)")
    parser.add_argument("--columns", type=_common.whole_number(), default=50_000, help="(default: 50000)")
    parser.add_argument("--nonzeros", type=_common.whole_number(), default=50, help="of a row (default: 50)")
    parser.add_argument("--batch-size", type=_common.whole_number(), help="(default: 3 sqrt(samples))")
    parser.add_argument("--wd", type=_common.positive_number,
                        help="weight decay, which is L2 regularisation (default: 1/samples, or near)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number, help="constant step of SVRG (default: 'auto')")
    parser.add_argument("--tol", type=_common.positive_number, default=1e-6,
                        help="training stops at this part of the first gradient (default: 1e-6)")  # fmt: skip
    parser.add_argument("--passes", type=_common.whole_number(3), default=60,
                        help="gradient evaluations per sample at most (default: 60)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_sparse_logistic.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()

import mxnet as mx
import numpy as np
from sklearn.linear_model import LogisticRegression

from svrg_optimization import CSRIter, SVRGModule, theory


def generate():
    """Return samples as a csr matrix, and labels that are 0 or 1."""
    random = np.random.default_rng(0)
    x = _common.power_law(args.samples, args.columns, args.nonzeros, random)
    scores = x @ random.standard_normal(args.columns)
    return x, _common.labels_by(scores, random)


class Loss:
    """f(w) = mean of log(1 + exp(-z)) over the samples + wd/2 ||w||^2, and its minimum by Newton's method."""

    def __init__(self, x, y, wd):
        self.x, self.y, self.wd = x, y, wd
        solver = LogisticRegression(solver="newton-cg", C=1 / (wd * len(y)), fit_intercept=False, tol=1e-10)
        self.minimum = self.at(solver.fit(x, y).coef_.ravel())

    def at(self, w):
        """Return f(w)."""
        z = self.x @ w
        return np.mean(np.logaddexp(0, z) - self.y * z) + self.wd / 2 * w @ w


def network(columns, stype):
    """Return the symbol of a linear model with a logistic loss."""
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("linear_weight", stype=stype, shape=(columns, 1))
    return mx.sym.LogisticRegressionOutput(mx.sym.dot(data, weight), mx.sym.Variable("label"))


class Run(NamedTuple):
    """A training; the lists have what was at its start and after each epoch."""

    name: str
    module: mx.mod.Module
    passes: list
    seconds: list
    gaps: list


def train(name, step, loss):
    """Train by SGD, or by SVRG with steps of this name, from zero weights; return a Run."""
    # Whoever has all rows moved in each step has no use for a weight in rows.
    symbol = network(loss.x.shape[1], "default" if name in ("SGD", "dense") else "row_sparse")
    if name == "SGD":
        module = mx.mod.Module(symbol, label_names=["label"])
        passes, settings = list(range(args.passes + 1)), {}
    else:
        module = SVRGModule(symbol, label_names=["label"], update_freq=1, sparse=name)
        passes, settings = list(range(0, args.passes + 1, 3)), {"tol": args.tol}
    gaps, times, waited = [loss.at(np.zeros(loss.x.shape[1])) - loss.minimum], [0.0], [0.0]

    def measure(epoch, symbol, params, aux):
        times.append(time.perf_counter() - started - waited[0])
        gaps.append(loss.at(params["linear_weight"].asnumpy().ravel()) - loss.minimum)
        waited[0] = time.perf_counter() - started - times[-1]

    print("{:10} ...".format(name), end="\n" if args.verbose else " ", flush=True)
    data = CSRIter(loss.x, loss.y.reshape(-1, 1).astype(float), args.batch_size, shuffle=True, label_name="label")
    started = time.perf_counter()
    module.fit(
        data,
        num_epoch=len(passes) - 1,
        optimizer="sgd",
        # With lazy_update, its default, MXNet's SGD doesn't decay rows that the batch doesn't touch: that has another
        # minimum. SVRGModule sees to it that they are decayed.
        optimizer_params={"learning_rate": step, "wd": loss.wd, "lazy_update": name not in ("SGD", "dense")},
        initializer=mx.init.Zero(),
        eval_metric=mx.metric.CompositeEvalMetric([]),  # none
        epoch_end_callback=measure,
        **settings,
    )
    print("{} passes in {:.1f} s".format(passes[len(gaps) - 1], times[-1]), flush=True)
    return Run(name, module, passes[: len(gaps)], times, gaps)


def print_table(runs):
    """Print f - f* of each run after each epoch of SVRG; a dash where it has stopped before."""
    print("\nf - f* after so many passes (gradient evaluations per sample)\n")
    print("passes" + "".join("{:>12}".format(run.name) for run in runs))
    for k in range(0, args.passes + 1, 3):
        gaps = [dict(zip(run.passes, run.gaps)).get(k) for run in runs]
        print("{:6}".format(k) + "".join("{:>12}".format("-" if gap is None else "%.1e" % max(gap, 1e-16))
                                         for gap in gaps))  # fmt: skip


def print_certificate(run):
    """Print why a run stopped, and how far it is from the minimum."""
    last = run.module.history[-1]
    why = "converged" if run.module.converged else "had no more passes"
    # A snapshot is taken when an epoch begins: that of epoch k is of the weights after k epochs.
    print("{}: {} after {:.0f} passes and {:.1f} s. f - f* is at most {:.1e}, and is {:.1e}.".format(
        run.name, why, last.passes, run.seconds[last.epoch], last.bound, max(run.gaps[last.epoch], 1e-16)))  # fmt: skip


def draw(runs, title, path):
    """Draw f - f* against passes and against seconds, log scale."""
    figure, panels = _common.new_figure(title, [3.2, 2.8], sharey=True)
    styles = {"SGD": ("#888888", "-"), "lazy": ("#103d7c", "-"), "reweighted": ("#2e8b57", "-"),
              "dense": ("#e07b00", "--")}  # fmt: skip
    for run in runs:
        color, line = styles[run.name]
        for axes, x in zip(panels, (run.passes, run.seconds)):
            axes.semilogy(x, np.maximum(run.gaps, 1e-16), line, color=color, linewidth=2, label=run.name)
            if run.name != "SGD" and run.module.converged:
                axes.semilogy(x[-1], max(run.gaps[-1], 1e-16), "o", color=color)
    for axes, name in zip(panels, ("gradient evaluations / n  (passes)", "seconds of training")):
        axes.set_xlabel(name)
        axes.set_xlim(left=0)
        axes.set_ylabel("f - f*")
    panels[0].legend(frameon=False, fontsize=9)
    figure.savefig(path)


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    x, y = _common.libsvm(args.data) if args.data else generate()
    samples = len(y)
    args.batch_size = args.batch_size or round(3 * np.sqrt(samples))
    if args.batch_size > samples:
        sys.exit("--batch-size must be at most {}, the number of samples, not {}".format(samples, args.batch_size))
    # mxnet rounds it to float32, which moves the minimum unless it is a power of two.
    loss = Loss(x, y, float(np.float32(args.wd or 2.0 ** -round(np.log2(samples)))))
    smoothness = theory.smoothness(x, "logistic", intercept=False, decay=loss.wd)
    step_of_sgd = 1 / (smoothness.L + smoothness.L_max / args.batch_size)
    touched = len(np.unique(x[: args.batch_size].indices))
    print("{} samples, {} columns, {} non-zeros; weight decay {:.2g}".format(*x.shape, x.nnz, loss.wd))
    print("a batch of {} touches {} of the rows of the weight".format(args.batch_size, touched), flush=True)

    svrg = [train(name, args.lr or "auto", loss) for name in ("lazy", "reweighted", "dense")]
    runs = [train("SGD", step_of_sgd, loss), *svrg]
    print_table(runs)
    print()
    for run in svrg:
        print_certificate(run)
    draw(runs, "Sparse logistic regression: the loss above its minimum", args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
