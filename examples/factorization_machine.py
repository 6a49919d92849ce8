"""A factorization machine on sparse data: plain Module's SGD and Adam, and SVRG.

    python factorization_machine.py
    python factorization_machine.py --data rcv1_train.binary

A factorization machine scores a sample x by

    w0 + sum of w[j] x[j] + sum over pairs of (v[i] . v[j]) x[i] x[j]

Each column j has a weight w[j] and a short vector v[j], and so pairs of columns
that never came together have a weight, too. It is MXNet's own example of sparse
training: csr data, w and v row_sparse. Here plain Module and SVRGModule train it.
Without --data the labels are those of another such machine, with noise.

SVRG with SGD takes lazy steps: those that all rows would take in each step, done when
a row is needed. With Adam it takes reweighted ones, which leave the rows alone that
the batch doesn't touch. Each method has the learning rate that was best for it, of a
few, and all have as many gradient evaluations: an epoch of SVRG costs three of plain
ones.

You should see the loss on the training samples, and on others, which ends up higher and
soon rises: no weight decay holds it. SVRG with SGD stays behind plain SGD, since a net
of this kind leaves the snapshot fast. With Adam SVRG is about as good as plain Adam, and
no better on new samples. So SVRG doesn't pay here; with convex losses it does, see
sparse_logistic.py. The picture, svrg_factorization_machine.png, has both losses.
"""

import argparse
import logging
import sys
import time

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="FILE", type=_common.existing_file,
                        help="a libsvm file with two values of labels (default: generated data)")  # fmt: skip
    parser.add_argument("--samples", type=_common.whole_number(20), default=24_000, help="(default: 24000)")
    parser.add_argument("--columns", type=_common.whole_number(), default=1_000, help="(default: 1000)")
    parser.add_argument("--nonzeros", type=_common.whole_number(), default=20, help="of a row (default: 20)")
    parser.add_argument("--factors", type=_common.whole_number(), default=4, help="length of a v[j] (default: 4)")
    parser.add_argument("--batch-size", type=_common.whole_number(), default=100, help="(default: 100)")
    parser.add_argument("--wd", type=_common.positive_number, default=0.0,
                        help="weight decay; of plain Module's steps it decays only rows that the batch touches "
                        "(default: none)")  # fmt: skip
    parser.add_argument("--passes", type=_common.whole_number(3), default=30,
                        help="gradient evaluations per sample (default: 30)")  # fmt: skip
    parser.add_argument("--rates", type=_common.positive_number, nargs=4, default=[8, 0.01, 8, 0.01],
                        metavar=("SGD", "ADAM", "SVRG", "SVRG_ADAM"),
                        help="learning rates (default: 8 0.01 8 0.01)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_factorization_machine.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()

import mxnet as mx
import numpy as np

from svrg_optimization import CSRIter, SVRGModule


class Machine:
    """A factorization machine in NumPy."""

    def __init__(self, bias, linear, factors):
        self.bias, self.linear, self.factors = bias, linear, factors

    def scores(self, x):
        """Return the score of each row of a csr matrix."""
        squares = x.multiply(x) @ (self.factors**2).sum(axis=1)
        return self.bias + x @ self.linear + (((x @ self.factors) ** 2).sum(axis=1) - squares) / 2

    def loss(self, x, y):
        """Return the mean logistic loss."""
        scores = self.scores(x)
        return np.mean(np.logaddexp(0, scores) - y * scores)


def generate():
    """Return samples as a csr matrix, and labels that are 0 or 1."""
    random = np.random.default_rng(0)
    x = _common.power_law(args.samples, args.columns, args.nonzeros, random)
    machine = Machine(0, random.standard_normal(args.columns), random.standard_normal((args.columns, args.factors)))
    scores = machine.scores(x)
    return x, _common.labels_by(scores, random)


def network(columns):
    """Return the symbol: the pairs' part is half of (the square of the sum less the sum of the squares)."""
    data = mx.sym.Variable("data", stype="csr")
    linear = mx.sym.Variable("linear_weight", shape=(columns, 1), stype="row_sparse")
    factors = mx.sym.Variable("factors_weight", shape=(columns, args.factors), stype="row_sparse")
    bias = mx.sym.Variable("bias", shape=(1,))
    sums = mx.sym.sum(mx.sym.square(mx.sym.dot(data, factors)), axis=1, keepdims=True)
    lengths = mx.symbol._internal._square_sum(factors, axis=1, keepdims=True)
    pairs = (sums - mx.sym.dot(data.square(), lengths)) / 2
    scores = mx.sym.broadcast_add(mx.sym.dot(data, linear) + pairs, bias)
    return mx.sym.LogisticRegressionOutput(scores, mx.sym.Variable("label"))


def train(name, rate, train_data, other_data):
    """Train by a method; return the passes, and the losses on both data, at the start and after each epoch."""
    x, y = train_data
    mx.random.seed(0)  # the first weights
    if "SVRG" in name:
        module, cost = SVRGModule(network(x.shape[1]), label_names=["label"], update_freq=1), 3
    else:
        module, cost = mx.mod.Module(network(x.shape[1]), label_names=["label"]), 1
    losses = []

    def measure(params):
        machine = Machine(params["bias"].asnumpy(), params["linear_weight"].asnumpy().ravel(),
                          params["factors_weight"].asnumpy())  # fmt: skip
        losses.append((machine.loss(*train_data), machine.loss(*other_data)))

    data = CSRIter(
        x.astype(np.float32), y.reshape(-1, 1).astype(np.float32), args.batch_size, shuffle=True, label_name="label"
    )
    started = time.perf_counter()
    module.fit(
        data,
        num_epoch=args.passes // cost,
        initializer=mx.init.Normal(0.1),
        optimizer="adam" if "Adam" in name else "sgd",
        optimizer_params={"learning_rate": rate, "wd": args.wd},
        eval_metric=mx.metric.CompositeEvalMetric([]),  # none
        epoch_end_callback=lambda epoch, symbol, params, aux: measure(params),
    )
    seconds = time.perf_counter() - started
    print("{:12} rate {:g}: {} passes in {:.1f} s".format(name, rate, cost * len(losses), seconds), flush=True)
    return np.arange(1, len(losses) + 1) * cost, np.array(losses)


def print_table(runs):
    """Print both losses of each run after each epoch of SVRG."""
    print("\nLoss on the training samples and on others, after so many passes (gradient evaluations per sample)\n")
    print("passes" + "".join("{:>18}".format(name) for name in runs))
    for k in range(3, args.passes + 1, 3):
        of_runs = [losses[passes == k][0] for passes, losses in runs.values()]
        print("{:6}".format(k) + "".join("{:>10.4f}{:8.4f}".format(*each) for each in of_runs))


def draw(runs, path):
    """Draw the losses against passes: on the training samples as lines, on others as dashes."""
    figure, (axes,) = _common.new_figure("A factorization machine: loss", [4.4])
    for (name, (passes, losses)), color in zip(runs.items(), ["#888888", "#e07b00", "#103d7c", "#2e8b57"]):
        axes.plot(passes, losses[:, 0], color=color, linewidth=1.8, label=name)
        axes.plot(passes, losses[:, 1], "--", color=color, linewidth=1.2)
    axes.plot([], [], "--", color="black", linewidth=1.2, label="on other samples")
    axes.set_xlim(left=0)
    axes.set_xlabel("gradient evaluations / n  (passes)")
    axes.set_ylabel("mean logistic loss")
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    x, y = _common.libsvm(args.data) if args.data else generate()
    n = len(y) * 5 // 6
    if args.batch_size > n:
        sys.exit("--batch-size must be at most {}, the number of samples, not {}".format(n, args.batch_size))
    order = np.random.default_rng(1).permutation(len(y))
    chosen, others = ((x[rows], y[rows]) for rows in (order[:n], order[n:]))
    print("{} samples, and {} others; {} columns with {} numbers each; batches of {}".format(
        n, len(y) - n, x.shape[1], args.factors + 1, args.batch_size), flush=True)  # fmt: skip
    names = ["SGD", "Adam", "SVRG", "SVRG, Adam"]
    runs = {name: train(name, rate, chosen, others) for name, rate in zip(names, args.rates)}
    print_table(runs)
    print()
    for name, (passes, losses) in runs.items():
        best = losses[:, 1].argmin()
        print("{:12} best on other samples: {:.4f}, after {} passes".format(name, losses[best, 1], passes[best]))
    draw(runs, args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
