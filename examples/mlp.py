"""A gluon network trained by SVRG in a loop of your own, without `fit`.

    python mlp.py

A small network (a multilayer perceptron, MLP) learns to read scikit-learn's
images of digits. It is written with gluon, turned into a symbol, and given to
SVRGModule. The training loop is the usual one of a Module, with two more
lines: every `update_freq` epochs, they take a snapshot. Johnson & Zhang take
one every 5 epochs for nets, and so does this example.

You should see a line for each epoch and, from the log, one for each snapshot.
The training loss falls epoch by epoch, and about 98 of 100 validation digits
are classified correctly. The picture, svrg_mlp.png, has the losses: after the
second snapshot the training loss falls faster, and after 10 epochs the
validation loss stops falling. From there on, a lower training loss makes no
better predictions.
"""

import argparse
import logging
import sys

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=_common.whole_number(), default=25, help="(default: 25)")
    parser.add_argument("--update-freq", type=_common.whole_number(), default=5,
                        help="epochs between snapshots (default: 5)")  # fmt: skip
    parser.add_argument("--batch-size", type=_common.whole_number(1, 352), default=32, help="(default: 32)")
    parser.add_argument("--hidden", type=_common.whole_number(), default=64,
                        help="units of the hidden layer (default: 64)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number, default=0.5, help="learning rate (default: 0.5)")
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_mlp.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show how fast the batches go, too")
    args = parser.parse_args()

import mxnet as mx
import numpy as np
from mxnet.gluon import nn

from svrg_optimization import SVRGModule


def network(hidden):
    """Return the symbol of a network of one hidden layer, with a softmax and its loss."""
    net = nn.HybridSequential(prefix="mlp_")
    with net.name_scope():
        net.add(nn.Dense(hidden, activation="tanh"), nn.Dense(10))
    return mx.sym.SoftmaxOutput(net(mx.sym.Variable("data")), mx.sym.Variable("label"), name="softmax")


def load(batch_size):
    """Return iterators over 1440 digits for training, and over the other 357 for validation."""
    x, y = _common.digits()
    order = np.random.permutation(len(y))
    train, validation = order[:1440], order[1440:]
    return (
        mx.io.NDArrayIter(x[train], y[train], batch_size, shuffle=True, label_name="label"),
        # The last batch is left out if it isn't full: the rows that would fill it up would count in the score.
        mx.io.NDArrayIter(x[validation], y[validation], batch_size, last_batch_handle="discard", label_name="label"),
    )


def draw(losses, update_freq, path):
    """Draw the losses after each epoch, log scale, and where the snapshots were taken."""
    figure, (axes,) = _common.new_figure("An MLP on digits, trained by SVRG", [4])
    for snapshot in range(0, len(losses), update_freq):
        axes.axvline(snapshot, color="#888888", linestyle=":", label=None if snapshot else "a snapshot")
    epochs = range(1, len(losses) + 1)
    for column, color, name in ((0, "#103d7c", "training loss"), (1, "#e07b00", "validation loss")):
        axes.semilogy(epochs, [row[column] for row in losses], "o-", color=color, markersize=4, label=name)
    axes.set_xlabel("epochs")
    axes.set_ylabel("cross-entropy  (log scale)")
    axes.legend()
    figure.savefig(path)


def main():
    """Run the example."""
    # The log has a line for each snapshot. Without basicConfig, Python shows warnings only.
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="    %(message)s")
    np.random.seed(0)
    mx.random.seed(0)
    train_data, validation_data = load(args.batch_size)

    module = SVRGModule(network(args.hidden), label_names=["label"], update_freq=args.update_freq)
    module.bind(data_shapes=train_data.provide_data, label_shapes=train_data.provide_label)
    module.init_params(mx.init.Xavier())
    module.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": args.lr})

    # With --verbose, a line in the log every 20 batches.
    speedometer = mx.callback.Speedometer(args.batch_size, 20) if args.verbose else []
    metric = mx.metric.create(["ce", "acc"])  # cross-entropy, and the share of correct predictions
    losses = []
    for epoch in range(args.epochs):
        if epoch % module.update_freq == 0:
            module.update_full_grads(train_data, batch_end_callback=speedometer, epoch=epoch)
        train_data.reset()
        for nbatch, batch in enumerate(train_data):
            module.forward(batch)
            module.backward()  # leaves the variance-reduced gradient
            module.update()
            if args.verbose:
                speedometer(mx.model.BatchEndParam(epoch, nbatch, None, None))
        (_, loss), (_, correct) = module.score(train_data, metric)
        (_, validation_loss), (_, validation_correct) = module.score(validation_data, metric)
        losses.append((loss, validation_loss))
        print("Epoch {:2}: training loss {:.5f}, {:6.2%} correct; validation {:.5f}, {:6.2%}".format(
            epoch, loss, correct, validation_loss, validation_correct), flush=True)  # fmt: skip
    draw(losses, args.update_freq, args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
