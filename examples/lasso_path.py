"""The path of the Lasso: linear regression with L1, for one alpha after the other, each from the last one's weights.

    python lasso_path.py

L1 sets weights to zero, and the larger alpha is, the more of them. Here it goes down from where all are zero, on
scikit-learn's diabetes data: 442 patients, 10 features. Each fit begins at the weights of the last (a warm start) and
stops by tol, with steps that choose themselves. The optimizer is 'proximalsgd', and SVRG with it Prox-SVRG.

You should see a table with a row for each alpha: how many weights aren't zero, the passes that it took, and how far the
weights are from those of scikit-learn's own path, which is next to nothing. The weights are in a picture,
svrg_lasso_path.png, scikit-learn's as dots behind.

Both minimize ||y - X w||^2 / 2n + alpha ||w||_1. A step of SVRG takes the mean gradient of a batch, so `l1` is alpha.
"""

import argparse

import _common
import mxnet as mx
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_diabetes
from sklearn.linear_model import lasso_path

from svrg_optimization import SVRGModule

# The smallest alpha is this part of the largest.
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


def fit(data, alpha, begin, tol):
    """Train with L1 of this alpha, from the weights of `begin`, a trained module or None; return a module."""
    # A new one each time: tol is a part of the first gradient that a module has seen.
    module = SVRGModule(network(), label_names=["label"], update_freq=2)
    module.fit(
        data,
        num_epoch=1000,
        tol=tol,
        optimizer="proximalsgd",
        optimizer_params={"learning_rate": "auto", "l1": alpha},
        initializer=mx.init.Zero(),
        arg_params=begin and begin.get_params()[0],
        eval_metric="mse",
    )
    return module


def draw(alphas, path, exact, names, output):
    """Draw the weights against alpha, log scale, the largest alpha on the left."""
    figure = Figure(figsize=(7.5, 4.5), dpi=110, constrained_layout=True)
    axes = figure.add_subplot()
    for k, name in enumerate(names):
        axes.semilogx(alphas, exact[:, k], "o", color="C{}".format(k), alpha=0.3, markersize=7, markeredgewidth=0)
        axes.semilogx(alphas, path[:, k], "-", color="C{}".format(k), linewidth=1.6, label=name)
    axes.plot([], [], "o", color="#888888", alpha=0.5, markersize=7, markeredgewidth=0, label="scikit-learn")
    axes.invert_xaxis()
    axes.set_xlabel("alpha  (log scale, falling)")
    axes.set_ylabel("weight of the standardised feature")
    axes.set_title("The path of the Lasso on diabetes data: SVRG, lines; scikit-learn, dots", loc="left", fontsize=11)
    axes.axhline(0, color="#444444", linewidth=0.8, zorder=0)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(output)


def main():
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alphas", type=int, default=25, help="how many (default: 25)")
    parser.add_argument("--batch-size", type=int, default=34, help="(default: 34, of which 442 is a multiple)")
    parser.add_argument("--tol", type=float, default=1e-8,
                        help="the part of a fit's first gradient at which it stops (default: 1e-8)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", default="svrg_lasso_path.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    if args.alphas < 1:
        parser.error("--alphas must be at least 1")

    x, y, names = load()
    # At the gradient of zero weights, and above, all weights are zero; a little above, so that roundings don't matter.
    largest = abs(x.T @ y).max() / len(y) * (1 + 1e-9)
    alphas = largest * np.geomspace(1, SMALLEST, args.alphas)
    _, exact, _ = lasso_path(x, y, alphas=alphas, tol=1e-14, max_iter=1000000)
    exact = exact.T
    data = _common.batches(x, y.reshape(-1, 1), args.batch_size)

    print("{} samples, {} features, batches of {}; the difference is from scikit-learn's weights\n".format(
        *x.shape, args.batch_size))  # fmt: skip
    print("    alpha  non-zeros  passes  difference")
    module, path, passes = None, [], 0
    for alpha, solution in zip(alphas, exact):
        module = fit(data, alpha, module, args.tol)
        path.append(module.get_params()[0]["fc_weight"].asnumpy().ravel())
        passes += module.history[-1].passes
        print("{:9.6f}{:11}{:8.0f}{:12.1e}".format(
            alpha, np.count_nonzero(path[-1]), module.history[-1].passes, abs(path[-1] - solution).max()
        ), flush=True)  # fmt: skip
    path = np.array(path)
    draw(alphas, path, exact, names, args.output)
    print("\n{:.0f} passes over the data in all; the largest difference is {:.1e}, of weights up to {:.2f}.".format(
        passes, abs(path - exact).max(), abs(exact).max()))  # fmt: skip
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
