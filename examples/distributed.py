"""SVRG on several workers, each with a part of the data: softmax regression on scikit-learn's digits.

    python -m svrg_optimization.launch -n 2 -s 1 -- python distributed.py

runs two workers and a parameter server on this machine. Every second digit
belongs to worker 0, the others to worker 1. Each worker trains on batches of its
own, half as large. The full gradient is that of all digits, and both workers
always have the same weights. So this is the same training as

    python distributed.py

in one process: the two print the same table, but for the last digits, which
are rounded otherwise.

With --directory, worker 0 saves a checkpoint after each epoch. Stop the job, by
Ctrl-C or by killing any of its processes, and start it again with --resume: it
goes on from the last checkpoint.

You should see a table in which the loss comes within 1e-12 of its minimum f*.
"f - f* at most" says how far from the minimum the loss may still be. It is
computed from the gradient; the minimum needn't be known.
"""

import argparse
import logging
import os
import sys
import warnings

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=_common.whole_number(), default=40, help="(default: 40)")
    parser.add_argument("--batch-size", type=_common.whole_number(1, 1792), default=64,
                        help="of all workers together (default: 64)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number,
                        help="constant step (default: half of 1 / smoothness of a batch's loss)")  # fmt: skip
    parser.add_argument("--directory", help="where checkpoints go (default: there are none)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--verbose", action="store_true", help="show the log: each full gradient and each epoch")
    args = parser.parse_args()
    if args.resume and not args.directory:
        parser.error("--resume needs --directory, where the checkpoints are")

import mxnet as mx
import numpy as np

from svrg_optimization import SVRGModule

UPDATE_FREQ = 2
# A power of two: mxnet rounds it to float32.
WEIGHT_DECAY = 2**-4
MOMENTUM = 0.5
# Of 1797: whole batches, for 1, 2 or 4 workers.
SAMPLES = 1792


class Objective:
    """f(w) = mean over the samples of the softmax loss + WEIGHT_DECAY/2 ||w||^2, in float64."""

    def __init__(self, x, y):
        self.x, self.y = x, y
        self.targets = np.eye(10)[y]

    def at(self, w):
        """Return f(w), how far it is above the minimum at most, and the share of digits classified correctly."""
        z = self.x @ w.T
        z -= z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        f = -np.mean(log_p[np.arange(len(self.y)), self.y]) + WEIGHT_DECAY / 2 * np.sum(w**2)
        gradient = (np.exp(log_p) - self.targets).T @ self.x / len(self.y) + WEIGHT_DECAY * w
        # f is at least as curved as its weight decay.
        return f, np.sum(gradient**2) / (2 * WEIGHT_DECAY), np.mean(z.argmax(axis=1) == self.y)


def network():
    """Return the symbol of a linear model with a softmax and its loss."""
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=10, no_bias=True, name="fc")
    return mx.sym.SoftmaxOutput(output, mx.sym.Variable("label"), name="softmax")


def new_or_resumed(prefix, resume):
    """Return a module and the epoch that it begins at."""
    last = SVRGModule.last_checkpoint(prefix) if resume else None
    if last is None:
        return SVRGModule(network(), label_names=["label"], update_freq=UPDATE_FREQ), 0
    return SVRGModule.load(prefix, last, load_optimizer_states=True, label_names=["label"]), last


def main():
    """Run the example."""
    # Without basicConfig, Python shows warnings only.
    level = logging.INFO if args.verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stdout, format="    %(message)s")
    prefix = os.path.join(args.directory or "", "digits")
    module, begin_epoch = new_or_resumed(prefix, args.resume)
    # The launcher has told this process that it is a worker; without it, this is a program for one machine.
    store = mx.kv.create("dist_sync" if "DMLC_ROLE" in os.environ else "local")
    rank, workers = store.rank, store.num_workers

    pixels, digits = _common.digits()
    x, y = _common.with_bias(pixels)[:SAMPLES], digits[:SAMPLES]
    own_x, own_y = x[rank::workers], y[rank::workers]
    data = _common.batches(own_x, own_y, max(1, args.batch_size // workers))
    # The second derivative of the softmax loss is at most 1/2. Momentum makes 1 / (1 - MOMENTUM) steps of one.
    lr = args.lr or (1 - MOMENTUM) * _common.step_size(pixels, args.batch_size, curvature=1 / 2)
    objective = Objective(x, y)

    def print_row(epoch, symbol, params, aux):
        f, above, correct = objective.at(params["fc_weight"].asnumpy())
        print("{:5}{:12.6f}{:14.1e}{:9.2%}".format(epoch + 1, f, above, correct), flush=True)

    callbacks = []
    if rank == 0:
        print("{} digits, {} of them here; batches of {} x {}; step {:.3g}{}\n".format(
            len(y), len(own_y), workers, data.batch_size, lr,
            "; going on after epoch {}".format(begin_epoch) if begin_epoch else ""))  # fmt: skip
        print("epoch        loss  f - f* at most  correct")
        callbacks.append(print_row)
        if args.directory:
            os.makedirs(args.directory, exist_ok=True)
            callbacks.append(mx.callback.module_checkpoint(module, prefix, save_optimizer_states=True))
    with warnings.catch_warnings():
        # A loaded module has its weights already, and Module says that it doesn't initialize them again.
        warnings.filterwarnings("ignore", "Parameters already initialized")
        module.fit(
            data,
            begin_epoch=begin_epoch,
            num_epoch=args.epochs,
            kvstore=store,
            optimizer="sgd",
            optimizer_params={"learning_rate": lr, "wd": WEIGHT_DECAY, "momentum": MOMENTUM},
            initializer=mx.init.Zero(),
            epoch_end_callback=callbacks,
        )


if __name__ == "__main__":
    main()
