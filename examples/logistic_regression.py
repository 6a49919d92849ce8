"""SVRG against SGD on logistic regression: how far the loss is above its minimum, by gradient evaluations.

    python logistic_regression.py [--dataset digits]

At a constant step, SGD comes near the minimum and then wanders around it: the noise of its gradients doesn't shrink.
SVRG's does, because it measures each batch's gradient against the gradient of the same batch at a snapshot, whose mean
is known; so the same step takes it to the minimum, as far as the floating-point type can tell.

You should see a table of f - f* (the loss less its minimum), where SVRG's columns keep falling and SGD's soon
stops, and the same as a picture, svrg_logistic_regression.png.

Training is Module's own `fit`: SGD and SVRG differ in the class that is made, and in nothing else.
"""

import argparse
import time

import _common
import mxnet as mx
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

from svrg_optimization import SVRGModule

UPDATE_FREQ = 2
# f - f* can't be told from 0 below this: f itself is rounded.
ROUNDING = np.finfo(np.float64).eps


def load(dataset):
    """Return standardised features, and labels that are 0 or 1."""
    if dataset == "breast_cancer":
        x, y = load_breast_cancer(return_X_y=True)
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    else:
        x, digit = _common.digits()
        y = digit % 2
    return x, y.reshape(-1, 1)


class Loss:
    """f(w) = mean of log(1 + exp(-z)) over the samples + wd/2 ||w||^2, in float64; the bias isn't regularised."""

    def __init__(self, x, y, wd):
        self.rows = _common.with_bias(x)
        self.y = y.ravel()
        self.wd = np.append(np.full(x.shape[1], wd), 0.0)
        self.minimum = self.at(self.newton())

    def at(self, w):
        """Return f(w)."""
        z = self.rows @ w
        return np.mean(np.logaddexp(0, z) - self.y * z) + self.wd @ w**2 / 2

    def newton(self):
        """Return the weights at the minimum, exact to rounding."""
        w = np.zeros(self.rows.shape[1])
        for _ in range(20):
            p = 1 / (1 + np.exp(-self.rows @ w))
            gradient = self.rows.T @ (p - self.y) / len(self.y) + self.wd * w
            hessian = (self.rows.T * (p * (1 - p))) @ self.rows / len(self.y) + np.diag(self.wd)
            w = w - np.linalg.solve(hessian, gradient)
        return w

    def above_minimum(self, params):
        """Return f - f* at a module's parameters."""
        weight, bias = (params[name].asnumpy().astype(np.float64).ravel() for name in ("fc_weight", "fc_bias"))
        return max(self.at(np.append(weight, bias)) - self.minimum, ROUNDING)


class Shuffled(mx.io.DataIter):
    """An NDArrayIter in a new random order each epoch, of any type: with shuffle=True it would always be float32."""

    def __init__(self, x, y, batch_size, dtype):
        super().__init__(batch_size)
        self.x, self.y = mx.nd.array(x, dtype=dtype), mx.nd.array(y, dtype=dtype)
        self.random = np.random.default_rng(0)
        self.reset()
        self.provide_data, self.provide_label = self.batches.provide_data, self.batches.provide_label

    def reset(self):
        """Start again, in another order."""
        order = mx.nd.array(self.random.permutation(len(self.y)), dtype="int64")
        self.batches = mx.io.NDArrayIter(self.x.take(order), self.y.take(order), self.batch_size, label_name="label")

    def next(self):
        """Return the next batch."""
        return self.batches.next()


def network():
    """Return the symbol of a linear model with a logistic loss."""
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    return mx.sym.LogisticRegressionOutput(output, mx.sym.Variable("label"))


def train(module, data, epochs, lr, wd, loss):
    """Train from zero weights; return f - f* at the start and after each epoch."""
    gaps = [loss.at(np.zeros(loss.rows.shape[1])) - loss.minimum]
    module.fit(
        data,
        num_epoch=epochs,
        optimizer="sgd",
        optimizer_params={"learning_rate": lr, "wd": wd},
        initializer=mx.init.Zero(),
        eval_metric="mse",
        epoch_end_callback=lambda epoch, symbol, params, aux: gaps.append(loss.above_minimum(params)),
    )
    return gaps


def measure(x, y, args, loss):
    """Return {(method, dtype): (passes, f - f* after each)}; say on the way what is done."""
    curves = {}
    for method, dtype in [("SGD", args.dtypes[-1])] + [("SVRG", dtype) for dtype in args.dtypes]:
        if method == "SGD":
            module = mx.mod.Module(network(), label_names=["label"])
            passes = list(range(args.passes + 1))
        else:
            module = SVRGModule(network(), label_names=["label"], update_freq=UPDATE_FREQ)
            epochs = _common.epochs_within(args.passes, UPDATE_FREQ)
            passes = [_common.passes_after(epoch, UPDATE_FREQ) for epoch in range(epochs + 1)]
        started = time.time()
        print("{:4} {}: training ...".format(method, dtype), end=" ", flush=True)
        gaps = train(module, Shuffled(x, y, args.batch_size, dtype), len(passes) - 1, args.lr, args.wd, loss)
        print("{} passes in {:.1f} s".format(passes[-1], time.time() - started), flush=True)
        curves[method, dtype] = passes, gaps
    return curves


def print_table(curves):
    """Print f - f* of each method wherever SVRG has finished an epoch."""
    (_, sgd), *svrg = curves.values()
    print("\nf - f* after so many passes (gradient evaluations per sample)\n")
    print("passes" + "".join("{:>16}".format(" ".join(key)) for key in curves))
    for k, passes in enumerate(svrg[0][0]):
        row = [sgd[passes]] + [gaps[k] for _, gaps in svrg]
        print("{:6}".format(passes) + "".join("{:16.2e}".format(gap) for gap in row))


STYLES = {
    ("SGD", "float32"): ("#888888", "-"),
    ("SGD", "float64"): ("#888888", "-"),
    ("SVRG", "float32"): ("#e07b00", "--"),
    ("SVRG", "float64"): ("#1f5fa8", "-"),
}


def draw(curves, title, path):
    """Draw the curves, log scale."""
    figure = Figure(figsize=(7.5, 4.5), dpi=110)
    axes = figure.add_subplot()
    for key, (passes, gaps) in curves.items():
        colour, style = STYLES[key]
        # The dashes lie over the other type's line: the two are the same until float32 ends.
        axes.semilogy(passes, gaps, style, color=colour, linewidth=2, label=" ".join(key), zorder=len(style) + 2)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("gradient evaluations / n  (passes)")
    axes.set_ylabel("f - f*  (loss above its minimum)")
    axes.margins(x=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, bbox_inches="tight")


def main():
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=["breast_cancer", "digits"], default="breast_cancer",
                        help="digits: tell the odd from the even (default: breast_cancer)")  # fmt: skip
    parser.add_argument("--dtype", choices=["float32", "float64", "both"], default="both", help="(default: both)")
    parser.add_argument("--passes", type=int, default=60, help="gradient evaluations per sample (default: 60)")
    parser.add_argument("--batch-size", type=int, help="(default: 8, or 32 for digits)")
    parser.add_argument("--lr", type=float, help="constant step (default: 1 / smoothness of a batch's loss)")
    parser.add_argument("--wd", type=float, default=1 / 16, help="L2 regularisation (default: 1/16)")
    parser.add_argument("--output", metavar="PNG", default="svrg_logistic_regression.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    if args.passes < 3:
        parser.error("--passes must be at least 3: the first epoch of SVRG costs as many")
    args.dtypes = ["float32", "float64"] if args.dtype == "both" else [args.dtype]

    args.batch_size = args.batch_size or {"breast_cancer": 8, "digits": 32}[args.dataset]

    x, y = load(args.dataset)
    # The second derivative of the logistic loss is at most 1/4.
    args.lr = args.lr or _common.step_size(x, args.batch_size, curvature=1 / 4)
    loss = Loss(x, y, args.wd)
    problem = "{}: {} samples, {} features, batches of {}, step {:.3g}".format(
        args.dataset, *x.shape, args.batch_size, args.lr
    )
    print(problem)
    curves = measure(x, y, args, loss)
    print_table(curves)
    draw(curves, "L2-regularised logistic regression\n" + problem, args.output)
    ends = ", ".join("{} {:.0e}".format(" ".join(key), gaps[-1]) for key, (_, gaps) in curves.items())
    print("\nAll took the same constant step, and ended above the minimum by: {}.".format(ends))
    print("SGD is kept away by the noise of its gradients; SVRG's noise vanishes. Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
