"""A gluon network trained by SVRG in a loop of one's own: the intermediate-level API.

    python mlp.py

A small network learns to read scikit-learn's digits. It is written with gluon, made into a symbol, and handed to
SVRGModule; the training loop is the usual one of a Module, and two lines that take a snapshot every `update_freq`
epochs. For nets Johnson & Zhang take one every 5 epochs.

You should see the training loss fall epoch by epoch, and about 98 of 100 digits of the validation data told right.
"""

import argparse
import logging
import sys

import _common
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


def main():
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25, help="(default: 25)")
    parser.add_argument("--update-freq", type=int, default=5, help="epochs between snapshots (default: 5)")
    parser.add_argument("--batch-size", type=int, default=32, help="(default: 32)")
    parser.add_argument("--hidden", type=int, default=64, help="units of the hidden layer (default: 64)")
    parser.add_argument("--lr", type=float, default=0.5, help="(default: 0.5)")
    parser.add_argument("--verbose", action="store_true", help="show how fast the batches go, too")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    np.random.seed(0)
    mx.random.seed(0)

    x, y = _common.digits()
    order = np.random.permutation(len(y))
    train, rest = order[:1440], order[1440:]
    di = mx.io.NDArrayIter(x[train], y[train], args.batch_size, shuffle=True, label_name="label")
    # The rows that would fill up a last batch would count in the score.
    validation = mx.io.NDArrayIter(x[rest], y[rest], args.batch_size, last_batch_handle="discard", label_name="label")

    mod = SVRGModule(network(args.hidden), label_names=["label"], update_freq=args.update_freq)
    mod.bind(data_shapes=di.provide_data, label_shapes=di.provide_label)
    mod.init_params(mx.init.Xavier())
    mod.init_optimizer(optimizer="sgd", optimizer_params={"learning_rate": args.lr})

    # A line in the log every so many batches.
    speedometer = mx.callback.Speedometer(args.batch_size, 20) if args.verbose else []
    metric = mx.metric.create(["ce", "acc"])
    for epoch in range(args.epochs):
        if epoch % mod.update_freq == 0:
            mod.update_full_grads(di, batch_end_callback=speedometer, epoch=epoch)
        di.reset()
        for nbatch, batch in enumerate(di):
            mod.forward(batch)
            mod.backward()
            mod.update()
            if args.verbose:
                speedometer(mx.model.BatchEndParam(epoch, nbatch, None, None))
        (_, loss), (_, read) = mod.score(di, metric)
        (_, validation_loss), (_, validation_read) = mod.score(validation, metric)
        print("Epoch {:2}:  training loss {:.5f}, {:6.2%} right;  validation loss {:.5f}, {:6.2%} right".format(
            epoch, loss, read, validation_loss, validation_read), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
