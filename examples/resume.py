"""Training that stops, and goes on from its checkpoint as if it had never stopped.

    python resume.py

A checkpoint with the optimizer's states holds the snapshot and the full gradient as well, so training may stop between
two snapshots too. Here snapshots are taken in epochs 0 and 4, and it stops after epochs 0, 1 and 2. A new module,
loaded from the checkpoint, trains epochs 3, 4 and 5. Its weights are compared, bit by bit, with those of a run that was
never interrupted; for contrast, so are the weights that one gets without the optimizer's states.

The network has dropout and the optimizer is Adam: the random masks go on where they were, and so do Adam's moments. The
order of the samples is yours: this iterator always gives the same one.

You should see "identical", and for contrast a difference.
"""

import argparse
import os
import tempfile
import warnings

import _common
import mxnet as mx
import numpy as np

from svrg_optimization import SVRGModule


def network():
    """Return the symbol of a small network with dropout."""
    hidden = mx.sym.tanh(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=32, name="fc1"))
    hidden = mx.sym.Dropout(hidden, p=0.25)
    return mx.sym.SoftmaxOutput(
        mx.sym.FullyConnected(hidden, num_hidden=10, name="fc2"), mx.sym.Variable("label"), name="softmax"
    )


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


def new_module(update_freq):
    """Return an untrained module; the seed fixes its initial weights and its dropout masks."""
    mx.random.seed(1)
    return SVRGModule(network(), label_names=["label"], update_freq=update_freq)


def compared(weights, others):
    """Return in words how two sets of weights differ."""
    if all(weights[name].tobytes() == others[name].tobytes() for name in weights):
        return "identical, bit for bit"
    return "they differ, by up to {:.2g}".format(max(np.abs(weights[name] - others[name]).max() for name in weights))


def main():
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="(default: 6)")
    parser.add_argument("--stop", type=int, default=3, help="epochs before the interruption (default: 3)")
    parser.add_argument("--update-freq", type=int, default=4, help="epochs between snapshots (default: 4)")
    parser.add_argument("--directory", help="where the checkpoints go, and stay (default: a temporary directory)")
    args = parser.parse_args()
    if not 0 < args.stop < args.epochs:
        parser.error("--stop must be between 0 and --epochs")

    if args.directory:
        os.makedirs(args.directory, exist_ok=True)

    x, y = _common.digits()
    data = mx.io.NDArrayIter(x[:960], y[:960], batch_size=32, label_name="label")
    with tempfile.TemporaryDirectory() as temporary:
        prefix = os.path.join(args.directory or temporary, "digits")

        print("Training {} epochs without a stop ...".format(args.epochs), flush=True)
        uninterrupted = train(new_module(args.update_freq), data, 0, args.epochs)

        print("Training again, and stopping after {} ...".format(args.stop), flush=True)
        module = new_module(args.update_freq)
        train(module, data, 0, args.stop, mx.callback.module_checkpoint(module, prefix, save_optimizer_states=True))
        del module
        print("The last checkpoint:", ", ".join(
            name for name in sorted(os.listdir(os.path.dirname(prefix))) if "{:04d}".format(args.stop) in name
        ))  # fmt: skip

        print("Going on from it, with its optimizer states ...", flush=True)
        module = SVRGModule.load(prefix, args.stop, load_optimizer_states=True, label_names=["label"])
        resumed = train(module, data, args.stop, args.epochs)

        print("Going on from its weights alone ...", flush=True)
        module = SVRGModule.load(prefix, args.stop, label_names=["label"], update_freq=args.update_freq)
        weights_only = train(module, data, args.stop, args.epochs)

    print("\nWith the states, the weights and those of the uninterrupted run: " + compared(resumed, uninterrupted))
    print("From the weights alone: " + compared(weights_only, uninterrupted))


if __name__ == "__main__":
    main()
