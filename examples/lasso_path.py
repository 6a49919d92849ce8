"""The path of the Lasso: linear regression with L1, for a falling series of alphas.

    python lasso_path.py

The Lasso minimizes ||y - X w||^2 / 2n + alpha ||w||_1. The L1 term sets weights
to zero: the larger alpha is, the more of them. Here alpha falls from where all
weights are zero, on scikit-learn's diabetes data (442 patients, 10 features).
Each training begins at the weights of the one before (a warm start). It chooses
its steps itself, and tol stops it. The optimizer 'proximalsgd' applies L1; SVRG
with this optimizer is Prox-SVRG.

You should see a table with a row for each alpha: how many weights aren't zero,
the passes that the training took, and how far its weights are from those of
scikit-learn's own lasso_path, which is next to nothing. The picture,
svrg_lasso_path.png, has the weights: lines are SVRG's, dots scikit-learn's.
"""

import argparse
import logging
import sys

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alphas", type=_common.whole_number(), default=25, help="how many (default: 25)")
    parser.add_argument("--batch-size", type=_common.whole_number(1, 442), default=34,
                        help="(default: 34, of which 442 is a multiple)")  # fmt: skip
    parser.add_argument("--tol", type=_common.positive_number, default=1e-8,
                        help="each training stops at this part of its first gradient (default: 1e-8)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_lasso_path.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()

import mxnet as mx
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import lasso_path

from svrg_optimization import SVRGModule

# The last alpha is this part of the first.
SMALLEST = 1e-3


def load():
    """Return standardised features and labels, and the features' names."""
    data = load_diabetes()
    x, y = data.data, data.target
    return (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std(), data.feature_names


def network():
    """Return the symbol of a linear model with a squared loss. Its data are centred: they need no bias."""
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
    return mx.sym.LinearRegressionOutput(output, mx.sym.Variable("label"))


def train(data, alpha, previous, tol):
    """Train with this alpha, from the weights of the previous module, if there is one; return a module."""
    # A new module for each alpha: tol is a part of the first gradient that a module has seen.
    module = SVRGModule(network(), label_names=["label"], update_freq=2)
    module.fit(
        data,
        num_epoch=1000,
        tol=tol,
        optimizer="proximalsgd",
        # A step takes the mean of a batch's gradients, so `l1` is alpha.
        optimizer_params={"learning_rate": "auto", "l1": alpha},
        initializer=mx.init.Zero(),
        arg_params=previous and previous.get_params()[0],
        eval_metric="mse",
    )
    return module


def draw(alphas, path, exact, names, output):
    """Draw the weights against alpha, log scale, the largest alpha on the left."""
    figure, (axes,) = _common.new_figure("The path of the Lasso on diabetes data", [5])
    for k, name in enumerate(names):
        axes.semilogx(alphas, exact[:, k], "o", color="C{}".format(k), alpha=0.3, markersize=7, markeredgewidth=0)
        axes.semilogx(alphas, path[:, k], "-", color="C{}".format(k), linewidth=1.6, label=name)
    axes.plot([], [], "-", color="#222222", label="SVRG")
    axes.plot([], [], "o", color="#222222", alpha=0.3, markersize=7, markeredgewidth=0, label="scikit-learn")
    axes.invert_xaxis()
    axes.set_xlabel("alpha  (log scale, falling)")
    axes.set_ylabel("weight of the standardised feature")
    axes.axhline(0, color="#444444", linewidth=0.8, zorder=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=4, frameon=False)
    figure.savefig(output)


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    x, y, names = load()
    print("{} samples, {} features, batches of {}".format(*x.shape, args.batch_size), flush=True)
    # All weights are zero if alpha is as large as the gradient there. A little larger, so that roundings don't matter.
    largest = abs(x.T @ y).max() / len(y) * (1 + 1e-9)
    alphas = largest * np.geomspace(1, SMALLEST, args.alphas)
    _, exact, _ = lasso_path(x, y, alphas=alphas, tol=1e-14, max_iter=1000000)
    exact = exact.T
    data = _common.batches(x, y.reshape(-1, 1), args.batch_size)

    print("\n    alpha  non-zeros  passes  difference from scikit-learn")
    module, path, passes = None, [], 0
    for alpha, solution in zip(alphas, exact):
        module = train(data, alpha, module, args.tol)
        path.append(module.get_params()[0]["fc_weight"].asnumpy().ravel())
        passes += module.history[-1].passes
        print("{:9.6f}{:11}{:8.0f}{:12.1e}".format(
            alpha, np.count_nonzero(path[-1]), module.history[-1].passes, abs(path[-1] - solution).max()
        ), flush=True)  # fmt: skip
    path = np.array(path)
    draw(alphas, path, exact, names, args.output)
    print("\n{:.0f} passes over the data in all. The largest difference is {:.1e}, the largest weight {:.2f}.".format(
        passes, abs(path - exact).max(), abs(exact).max()))  # fmt: skip
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
