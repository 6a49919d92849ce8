"""Training that stops, and goes on from its checkpoint as if it had never stopped.

    python resume.py

A checkpoint with the optimizer's states also holds the snapshot and the full
gradient, so training may stop between two snapshots. Here snapshots are taken
at the start of epochs 0 and 4, and training stops after epochs 0, 1 and 2. A
new module, loaded from the checkpoint, trains epochs 3, 4 and 5. Its weights
are compared, bit by bit, with those of a run that was never interrupted. A
second new module is loaded without the optimizer's states, for contrast.

The network has dropout and the optimizer is Adam. The checkpoint holds where
the random masks of dropout were, and Adam's moments. It doesn't hold the order
of the samples: that is yours to repeat, and here it is always the same.

You should see "identical, bit for bit" for the module with the states, and a
difference for the one without. The log lines in between show each snapshot
("Full gradient"): without the states, epoch 3 has to begin with a snapshot.
"""

import argparse
import logging
import os
import sys
import tempfile
import warnings

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=_common.whole_number(2), default=6, help="(default: 6)")
    parser.add_argument("--stop", type=_common.whole_number(), default=3,
                        help="epochs before the interruption (default: 3)")  # fmt: skip
    parser.add_argument("--update-freq", type=_common.whole_number(), default=4,
                        help="epochs between snapshots (default: 4)")  # fmt: skip
    parser.add_argument("--directory", help="where the checkpoints go, and stay (default: a temporary directory)")
    args = parser.parse_args()
    if args.stop >= args.epochs:
        parser.error("argument --stop: must be less than --epochs={}, not {}".format(args.epochs, args.stop))

import mxnet as mx
import numpy as np

from svrg_optimization import SVRGModule


def network():
    """Return the symbol of a small network with dropout."""
    hidden = mx.sym.tanh(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=32, name="fc1"))
    hidden = mx.sym.Dropout(hidden, p=0.25)
    scores = mx.sym.FullyConnected(hidden, num_hidden=10, name="fc2")
    return mx.sym.SoftmaxOutput(scores, mx.sym.Variable("label"), name="softmax")


def new_module(update_freq):
    """Return an untrained module; the seed fixes its initial weights and its dropout masks."""
    mx.random.seed(1)
    return SVRGModule(network(), label_names=["label"], update_freq=update_freq)


def train(module, data, begin_epoch, num_epoch, epoch_end_callback=None):
    """Train from one epoch to another; return the weights."""
    with warnings.catch_warnings():
        # A loaded module has its weights already, and Module says that it doesn't initialize them again.
        warnings.filterwarnings("ignore", "Parameters already initialized")
        module.fit(
            data,
            begin_epoch=begin_epoch,
            num_epoch=num_epoch,
            optimizer="adam",
            optimizer_params={"learning_rate": 0.005},
            initializer=mx.init.Xavier(),
            epoch_end_callback=epoch_end_callback,
        )
    return {name: array.asnumpy() for name, array in module.get_params()[0].items()}


def compared(weights, others):
    """Return in words how two sets of weights differ."""
    if all(weights[name].tobytes() == others[name].tobytes() for name in weights):
        return "identical, bit for bit"
    return "different, by up to {:.2g}".format(max(np.abs(weights[name] - others[name]).max() for name in weights))


def main():
    """Run the example."""
    # The log has a line for each snapshot, checkpoint and epoch. Without basicConfig, Python shows warnings only.
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="    %(message)s")
    if args.directory:
        os.makedirs(args.directory, exist_ok=True)
    x, y = _common.digits()
    data = mx.io.NDArrayIter(x[:960], y[:960], batch_size=32, label_name="label")

    with tempfile.TemporaryDirectory() as temporary:
        prefix = os.path.join(args.directory or temporary, "digits")

        print("\n1. Training for {} epochs without a stop".format(args.epochs), flush=True)
        uninterrupted = train(new_module(args.update_freq), data, 0, args.epochs)

        print("\n2. Training again, and stopping after {} epochs".format(args.stop), flush=True)
        module = new_module(args.update_freq)
        train(module, data, 0, args.stop, mx.callback.module_checkpoint(module, prefix, save_optimizer_states=True))
        del module
        last = "digits-{:04d}".format(args.stop)
        print("The last checkpoint:", ", ".join(
            name for name in sorted(os.listdir(os.path.dirname(prefix))) if name.startswith(last)))  # fmt: skip

        print("\n3. Going on from the checkpoint, with the optimizer's states", flush=True)
        module = SVRGModule.load(prefix, args.stop, load_optimizer_states=True, label_names=["label"])
        resumed = train(module, data, args.stop, args.epochs)

        print("\n4. Going on from the checkpoint's weights alone", flush=True)
        module = SVRGModule.load(prefix, args.stop, label_names=["label"], update_freq=args.update_freq)
        weights_only = train(module, data, args.stop, args.epochs)

    print("\nThe weights, compared with those of the uninterrupted training:")
    print("  with the optimizer's states:  " + compared(resumed, uninterrupted))
    print("  from the weights alone:       " + compared(weights_only, uninterrupted))


if __name__ == "__main__":
    main()
