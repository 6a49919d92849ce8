"""SVRG with steps that choose themselves, against constant steps and SGD: logistic regression.

    python logistic_regression.py
    python logistic_regression.py --dataset digits

With learning_rate='auto' there is nothing to tune, and with tol training stops
by itself. For comparison, SVRG also trains with constant steps: 1/L, where L is
the smoothness of a batch's loss, ten times less, and ten times more. SGD takes
1/L, too. It comes near the minimum and then wanders around it, since the noise
of its gradients doesn't shrink. The noise of SVRG's gradients does shrink: SVRG
measures each batch's gradient against the gradient of the same batch at a
snapshot, where the mean over all samples is known.

You should see a table of f - f*, the loss less its minimum. With 'auto' it
falls until training stops. A constant step needs the right size: 0.1/L is slow,
and 10/L gets nowhere. Below the table is why 'auto' stopped, and a certificate:
how far the loss is above its minimum at most, found without knowing the
minimum. The true distance stands beside it, and is smaller. The picture,
svrg_logistic_regression.png, has f - f* against passes and against seconds.

The training is Module's own `fit`. SGD and SVRG differ only in the class of the
module.
"""

import argparse
import itertools
import logging
import sys
import time
from typing import NamedTuple

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=["breast_cancer", "digits"], default="breast_cancer",
                        help="digits: tell the odd from the even (default: breast_cancer)")  # fmt: skip
    parser.add_argument("--dtype", choices=["float32", "float64", "both"], default="both",
                        help="of 'auto'; the others take the last of them (default: both)")  # fmt: skip
    parser.add_argument("--passes", type=_common.whole_number(3), default=120,
                        help="gradient evaluations per sample; SVRG's first epoch takes 3 (default: 120)")  # fmt: skip
    parser.add_argument("--tol", type=_common.positive_number,
                        help="'auto' stops at this part of the first gradient (default: 1e-6 in float32, 1e-10 in "
                        "float64)")  # fmt: skip
    parser.add_argument("--constant", type=_common.positive_number, nargs="*", default=[0.1, 1, 10], metavar="STEP",
                        help="constant steps of SVRG, times 1 / L (default: 0.1 1 10)")  # fmt: skip
    parser.add_argument("--batch-size", type=_common.whole_number(1, 569), help="(default: 8, or 32 for digits)")
    parser.add_argument("--wd", type=_common.positive_number, default=1 / 64,
                        help="weight decay, which is L2 regularisation (default: 1/64)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_logistic_regression.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()
    args.batch_size = args.batch_size or {"breast_cancer": 8, "digits": 32}[args.dataset]

import mxnet as mx
import numpy as np
from sklearn.datasets import load_breast_cancer

from svrg_optimization import SVRGModule

UPDATE_FREQ = 2
# The part of the first gradient that is left at the end; float32 gradients have an error of about 1e-7.
TOL = {"float32": 1e-6, "float64": 1e-10}


def load(dataset):
    """Return standardised features, and labels that are 0 or 1."""
    if dataset == "breast_cancer":
        x, y = load_breast_cancer(return_X_y=True)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    else:
        x, digit = _common.digits()
        y = digit % 2
    # Both types are to train on the same numbers.
    return x.astype("float32").astype("float64"), y.reshape(-1, 1)


class Loss:
    """f(w) = mean of log(1 + exp(-z)) over the samples + wd/2 ||w||^2, in float64; the bias is one of the weights."""

    def __init__(self, x, y, wd):
        self.rows, self.y, self.wd = _common.with_bias(x), y.ravel(), wd
        self.solution = self.newton()
        self.p = self.probabilities(self.solution)

    def probabilities(self, w):
        """Return for each sample the probability that its label is 1."""
        return 1 / (1 + np.exp(-self.rows @ w))

    def newton(self):
        """Return the weights at the minimum, exact to rounding."""
        w = np.zeros(self.rows.shape[1])
        for _ in range(20):
            p = self.probabilities(w)
            gradient = self.rows.T @ (p - self.y) / len(self.y) + self.wd * w
            hessian = (self.rows.T * (p * (1 - p))) @ self.rows / len(self.y) + self.wd * np.eye(len(w))
            w = w - np.linalg.solve(hessian, gradient)
        return w

    def above_minimum(self, w):
        """Return f(w) - f*.

        It may be much smaller than the roundings of f, so it isn't f(w) less f*: the gradient at the minimum is 0, and
        what is computed is by how much each term of f is above its tangent there.
        """
        away = w - self.solution
        z = self.rows @ away
        return np.mean(np.log1p(self.p * np.expm1(z)) - self.p * z) + self.wd / 2 * away @ away


def network():
    """Return the symbol of a linear model with a logistic loss."""
    # mxnet leaves biases out of the weight decay. With it on all parameters there is a certificate.
    bias = mx.sym.Variable("fc_bias", wd_mult=1.0)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), bias=bias, num_hidden=1, name="fc")
    return mx.sym.LogisticRegressionOutput(output, mx.sym.Variable("label"))


class Run(NamedTuple):
    """A training; the lists have what was at its start and after each epoch."""

    name: str
    dtype: str
    module: mx.mod.Module
    passes: list
    seconds: list
    gaps: list


class Stopwatch:
    """The seconds between `start` and `stop`, added up."""

    def __init__(self):
        self.seconds = 0.0

    def start(self):
        """Go on."""
        self.started = time.perf_counter()

    def stop(self):
        """Pause, and return the seconds so far."""
        self.seconds += time.perf_counter() - self.started
        return self.seconds


def train(name, dtype, step, x, y, loss):
    """Train by SGD, if that is in the name, or SVRG, from zero weights; return a Run."""
    if "SGD" in name:
        module = mx.mod.Module(network(), label_names=["label"])
        passes, settings = list(range(args.passes + 1)), {}
    else:
        module = SVRGModule(network(), label_names=["label"], update_freq=UPDATE_FREQ)
        epochs = _common.epochs_within(args.passes, UPDATE_FREQ)
        passes = [_common.passes_after(epoch, UPDATE_FREQ) for epoch in range(epochs + 1)]
        # A constant step gets the same passes, however far it comes.
        settings = {"tol": args.tol or TOL[dtype]} if step == "auto" else {}

    gaps, times = [loss.above_minimum(np.zeros(loss.rows.shape[1]))], [0.0]
    watch = Stopwatch()

    def measure(epoch, symbol, params, aux):
        times.append(watch.stop())
        gaps.append(loss.above_minimum(np.append(params["fc_weight"].asnumpy(), params["fc_bias"].asnumpy())))
        watch.start()

    # The seconds follow on the same line, unless the log comes first.
    print("{:11} {} ...".format(name, dtype), end="\n" if args.verbose else " ", flush=True)
    data = _common.shuffled_batches(x, y, args.batch_size, dtype)
    watch.start()
    module.fit(
        data,
        num_epoch=len(passes) - 1,
        optimizer="sgd",
        optimizer_params={"learning_rate": step, "wd": args.wd},
        initializer=mx.init.Zero(),
        eval_metric="mse",
        epoch_end_callback=measure,
        **settings,
    )
    print("{} passes in {:.1f} s".format(passes[len(gaps) - 1], watch.stop()), flush=True)
    return Run(name, dtype, module, passes[: len(gaps)], times, gaps)


def print_table(runs, passes):
    """Print f - f* of each run at the snapshots; a dash where it has stopped before."""
    print("\nf - f* after so many passes (gradient evaluations per sample)\n")
    print("      " + "".join("{:>12}".format(run.name) for run in runs))
    print("passes" + "".join("{:>12}".format(run.dtype) for run in runs))
    for k in passes:
        gaps = [dict(zip(run.passes, run.gaps)).get(k) for run in runs]
        print("{:6}".format(k) + "".join("{:>12}".format("-" if gap is None else "%.2e" % gap) for gap in gaps))


def print_certificate(run):
    """Print why a run stopped, and how far it is from the minimum."""
    last = run.module.history[-1]
    why = "converged" if run.module.converged else "had no more passes"
    # A snapshot is taken when an epoch begins: that of epoch k is of the weights after k epochs.
    print("{} {}: {} after {:.0f} passes. f - f* is at most {:.1e}, and is {:.1e}.".format(
        run.name, run.dtype, why, last.passes, last.bound, run.gaps[last.epoch]))  # fmt: skip


def draw(runs, title, path):
    """Draw f - f* against passes and against seconds, log scale."""
    figure, panels = _common.new_figure(title, [3.4, 2.4], sharey=True)
    pale = itertools.cycle(["#86b6d9", "#8cc29a", "#d9a0b4", "#c4b184"])
    for run in runs:
        style = {"color": "#a0a0a0", "linewidth": 1.4, "label": run.name.replace(" ", ", constant ")}
        if "auto" in run.name:
            # The dashes lie over the other type's line, if the two are the same.
            style = {"color": "#103d7c", "linewidth": 2.6, "label": "SVRG, 'auto', " + run.dtype, "zorder": 4}
            if run.dtype == "float32":
                style.update(color="#e07b00", linestyle="--", zorder=5)
        elif "SVRG" in run.name:
            style["color"] = next(pale)
        for axes, x in zip(panels, (run.passes, run.seconds)):
            axes.semilogy(x, run.gaps, **style)
            if "auto" in run.name and run.module.converged:
                axes.semilogy(x[-1], run.gaps[-1], "o", color=style["color"], zorder=6)
    for axes, name in zip(panels, ("gradient evaluations / n  (passes)", "seconds of training")):
        axes.set_xlabel(name)
        axes.set_xlim(left=0)
        axes.set_ylabel("f - f*")
    panels[0].legend(loc="lower left", frameon=False, fontsize=9)
    figure.savefig(path)


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    dtypes = ["float32", "float64"] if args.dtype == "both" else [args.dtype]

    x, y = load(args.dataset)
    # The second derivative of the logistic loss is at most 1/4.
    step = _common.step_size(x, args.batch_size, curvature=1 / 4)
    # mxnet rounds both to float32, which moves the minimum unless they are powers of two.
    batches = args.batch_size * float(np.float32(1 / args.batch_size))
    loss = Loss(x, y, float(np.float32(args.wd)) / batches)
    print("{}: {} samples, {} features, batches of {}, weight decay {:.3g}, 1/L = {:.3g}".format(
        args.dataset, *x.shape, args.batch_size, args.wd, step))  # fmt: skip
    constants = [("SGD 1/L", step)] + [("SVRG {:g}/L".format(each), each * step) for each in args.constant]
    runs = [train(name, dtypes[-1], each, x, y, loss) for name, each in constants]
    chosen = [train("SVRG auto", dtype, "auto", x, y, loss) for dtype in dtypes]
    runs += chosen

    epochs = _common.epochs_within(args.passes, UPDATE_FREQ)
    print_table(runs, [_common.passes_after(epoch, UPDATE_FREQ) for epoch in range(0, epochs + 1, UPDATE_FREQ)])
    print()
    for run in chosen:
        print_certificate(run)
    title = "Logistic regression with L2: the loss above its minimum\n{}, {} samples, batches of {}"
    draw(runs, title.format(args.dataset, len(y), args.batch_size), args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
