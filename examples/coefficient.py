"""How much of the control variate: the same net with other coefficients.

    python coefficient.py

A small net learns scikit-learn's images of digits, some of whose labels are wrong,
so that there is noise until the end. SVRG subtracts the control variate times a
coefficient: 1 in Johnson & Zhang's method; 0 is plain SGD. In a net the weights
leave the snapshot fast. What is subtracted then has less and less to do with the
noise that it is to take away, and less of it is better.

You should see, from a VarianceMonitor, how the best coefficient falls while SVRG
trains, and how much variance SVRG's gradients have. Then come the training losses
at the end, medians over seeds. After as many epochs, that of SVRG with the
coefficient 1 is the highest, higher than SGD's; smaller coefficients are better,
and 0.5 is better than SGD. But an epoch of SVRG costs three gradients a sample, and
SGD one: the last line is SGD after as many gradients, and it is far ahead of all.
The picture, svrg_coefficient.png, has the losses and the best coefficient.
"""

import argparse
import logging
import statistics
import sys

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=_common.whole_number(2), default=16, help="(default: 16)")
    parser.add_argument("--seeds", type=_common.whole_number(), default=3,
                        help="how often each training is repeated (default: 3)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number, default=0.1, help="learning rate (default: 0.1)")
    parser.add_argument("--batch-size", type=_common.whole_number(1, 1440), default=64, help="(default: 64)")
    parser.add_argument("--hidden", type=_common.whole_number(), default=128,
                        help="units of each of the two hidden layers (default: 128)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_coefficient.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()

import mxnet as mx
import numpy as np

from svrg_optimization import SVRGModule, VarianceMonitor
from svrg_optimization.coefficients import Linear, PerLayer

WRONG = 0.3
PASSES = 3  # of an epoch with a snapshot: two in its steps, one in its full gradient


def load():
    """Return 1440 digits, and labels of which some are wrong."""
    x, y = _common.digits()
    random = np.random.default_rng(0)
    wrong = random.random(len(y)) < WRONG
    return x[:1440], np.where(wrong, random.integers(0, 10, len(y)), y)[:1440]


def network():
    """Return the symbol of a net of two hidden layers."""
    layer = mx.sym.Variable("data")
    for name in ("fc1", "fc2"):
        layer = mx.sym.Activation(mx.sym.FullyConnected(layer, num_hidden=args.hidden, name=name), act_type="relu")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(layer, num_hidden=10, name="fc3"), name="softmax")


def train(x, y, coefficient, epochs, seed, monitor=None):
    """Train with this coefficient; return the loss after each epoch."""
    mx.random.seed(seed)  # the first weights
    np.random.seed(seed)  # the order of the rows
    module = SVRGModule(network(), update_freq=1, coefficient=coefficient)
    losses = []

    def measure(*_):
        probabilities = module.predict(mx.io.NDArrayIter(x, None, args.batch_size)).asnumpy()
        losses.append(float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-30)).mean()))

    module.fit(
        mx.io.NDArrayIter(x, y, args.batch_size, shuffle=True),
        num_epoch=epochs,
        initializer=mx.init.Xavier(),
        optimizer="sgd",
        optimizer_params={"learning_rate": args.lr, "momentum": 0.9},
        epoch_end_callback=measure,
        monitor=monitor,
    )
    return losses


def draw(losses, found, path):
    """Draw the losses against epochs, log scale, and the best coefficient."""
    figure, (upper, lower) = _common.new_figure("A net on digits with wrong labels, by coefficient", [3.6, 2.4])
    for name, color in zip(losses, ["#888888", "#103d7c", "#2e8b57", "#e07b00", "#c0392b"]):
        upper.semilogy(range(1, args.epochs + 1), losses[name], color=color, linewidth=1.8, label=name)
    upper.set_ylabel("training loss  (median)")
    upper.set_xlabel("epochs; of SVRG each costs %d passes, of SGD one" % PASSES)
    upper.legend(frameon=False, fontsize=9)
    epochs = range(1, len(found) + 1)
    lower.plot(epochs, [each.best_coefficient for each in found], color="#103d7c", label="the best coefficient")
    lower.plot(epochs, [each.ratio for each in found], color="#e07b00", linestyle="--",
               label="variance of SVRG's gradients / SGD's")  # fmt: skip
    lower.set_ylim(bottom=0)
    lower.set_xlabel("epochs of SVRG with coefficient 1")
    lower.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only: that of the VarianceMonitor.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    x, y = load()
    monitor = VarianceMonitor()
    train(x, y, 1, args.epochs, seed=0, monitor=monitor)
    found = [each.total for each in monitor.epochs]
    print("\nSVRG, coefficient 1:\nepoch  best coefficient  variance / SGD's")
    for epoch in range(0, len(found), max(1, len(found) // 8)):
        print("{:5}{:18.2f}{:18.2f}".format(epoch + 1, found[epoch].best_coefficient, found[epoch].ratio))

    ways = {
        "SGD": (0, args.epochs),  # a coefficient of 0 takes no snapshots
        "SVRG, 1": (1, args.epochs),
        "SVRG, 0.5": (0.5, args.epochs),
        "SVRG, Linear": (Linear(0.75, epochs=args.epochs), args.epochs),
        "SVRG, PerLayer": (PerLayer(), args.epochs),
        "SGD, longer": (0, PASSES * args.epochs),
    }
    print("\ncoefficient     epochs  passes  training loss (median of {})".format(args.seeds))
    losses = {}
    for name, (coefficient, epochs) in ways.items():
        of_seeds = [train(x, y, coefficient, epochs, seed) for seed in range(args.seeds)]
        losses[name] = [statistics.median(of_epoch) for of_epoch in zip(*of_seeds)]
        passes = epochs if coefficient == 0 else PASSES * epochs
        print("{:14}{:8}{:8}{:15.4f}".format(name, epochs, passes, losses[name][-1]), flush=True)
    draw(losses, found, args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
