"""Inputs with noise that is drawn anew at each reading, and LockedBatches, which keep it from snapshot to snapshot.

    python locked_noise.py

A small network learns to read scikit-learn's images of digits, and each reading
adds new noise to the pixels, as data augmentation does. SVRG's full gradient is
then of other noise than its steps: all steps until the next snapshot are off by
the same difference, which doesn't average out. With LockedBatches the steps see
the very noise of the full pass.

You should see a table with the error of SVRG's gradients along the last period,
from one snapshot to the next, as a part of plain gradients' error. At the
snapshot, locked gradients have none. Then come the losses at the end, at equal
cost, for noise that nobody has trained on: SGD's is the lowest, and locking makes
little difference to SVRG's. What locking takes away is an error against the noise
of the period, and this noise is only one draw of many. The picture,
svrg_locked_noise.png, has both.
"""

import argparse

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--noise", type=_common.positive_number, default=1.0,
                        help="its standard deviation; that of the pixels is 1 (default: 1)")  # fmt: skip
    parser.add_argument("--passes", type=_common.whole_number(3), default=100,
                        help="training costs at most so many passes over the data (default: 100)")  # fmt: skip
    parser.add_argument("--update-freq", type=_common.whole_number(), default=2,
                        help="epochs between snapshots (default: 2)")  # fmt: skip
    parser.add_argument("--batch-size", type=_common.whole_number(1, 1440), default=120, help="(default: 120)")
    parser.add_argument("--hidden", type=_common.whole_number(), default=32,
                        help="units of the hidden layer (default: 32)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number, default=0.1, help="learning rate (default: 0.1)")
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_locked_noise.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()

import mxnet as mx
import numpy as np

from svrg_optimization import LockedBatches, SVRGModule, VarianceMonitor

STYLES = {
    "SGD": dict(color="#888888"),
    "SVRG": dict(color="#e07b00", linewidth=3),
    "SVRG, locked": dict(color="#103d7c", linestyle="--"),
}


class Noisy(mx.io.DataIter):
    """Gives the batches of another iterator, with noise that is drawn anew each time."""

    def __init__(self, batches, noise, seed):
        super().__init__(batches.batch_size)
        self._batches, self._noise, self._rng = batches, noise, np.random.default_rng(seed)
        self.provide_data, self.provide_label = batches.provide_data, batches.provide_label

    def reset(self):
        """Go to the start."""
        self._batches.reset()

    def next(self):
        """Return the next batch, with new noise."""
        batch = next(self._batches)
        noise = self._rng.normal(0, self._noise, batch.data[0].shape)
        return mx.io.DataBatch([batch.data[0] + mx.nd.array(noise)], batch.label, pad=batch.pad)


def load(seed):
    """Return an iterator over 1440 digits with noise."""
    x, y = _common.digits()
    order = np.random.default_rng(0).permutation(len(y))[:1440]
    return Noisy(mx.io.NDArrayIter(x[order], y[order], args.batch_size, label_name="label"), args.noise, seed)


def network():
    """Return the symbol of a network of one hidden layer, with a softmax and its loss."""
    hidden = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=args.hidden, name="hidden")
    scores = mx.sym.FullyConnected(mx.sym.Activation(hidden, act_type="tanh"), num_hidden=10, name="scores")
    return mx.sym.SoftmaxOutput(scores, mx.sym.Variable("label"), name="softmax")


class Gradients(VarianceMonitor):
    """Keeps the gradients of each batch, per sample, at the current weights and at the snapshot."""

    def __init__(self):
        super().__init__()
        self.plain, self.at_snapshot = [], []

    def look(self, gradients, rows):
        """Take in the gradients of a batch, sums over its rows."""
        self.plain.append(np.concatenate([plain[0].asnumpy().ravel() for _, plain, _ in gradients]) / rows)
        self.at_snapshot.append(np.concatenate([there[0].asnumpy().ravel() for _, _, there in gradients]) / rows)


def error(module, data):
    """Return the mean squared error of SVRG's gradients, as a part of that of plain ones, over an epoch of the data.

    Both are errors against the mean of the plain gradients over the same batches.
    """
    gradients = Gradients()
    module.install_monitor(gradients)
    for batch in data:
        module.forward_backward(batch)
    data.reset()
    module.install_monitor(None)
    full_gradient = np.concatenate([array.asnumpy().ravel() for array in module.full_gradient.values()])
    plain = np.array(gradients.plain, dtype=np.float64)
    reduced = plain - gradients.at_snapshot + full_gradient
    mean = plain.mean(axis=0)
    return ((reduced - mean) ** 2).sum() / ((plain - mean) ** 2).sum()


def train(name):
    """Train; return (passes, loss) after each period, and (step, error) along the last one."""
    np.random.seed(0)
    mx.random.seed(0)
    data = load(seed=1)
    if name == "SGD":
        module, epochs = mx.mod.Module(network(), label_names=["label"]), args.passes
    else:
        module = SVRGModule(network(), label_names=["label"], update_freq=args.update_freq)
        epochs = _common.epochs_within(args.passes, args.update_freq)
    if name == "SVRG, locked":
        data = LockedBatches(data)
    module.bind(data.provide_data, data.provide_label)
    module.init_params(mx.init.Xavier())
    module.init_optimizer(optimizer_params={"learning_rate": args.lr})

    losses, errors, step = [], [], 0
    last_period = (epochs - 1) // args.update_freq * args.update_freq
    for epoch in range(epochs):
        if name != "SGD" and epoch % args.update_freq == 0:
            module.update_full_grads(data)  # locked batches draw anew here
            step = 0
        # A list, as measuring reads the data in between.
        batches = list(data)
        data.reset()
        for batch in batches:
            if name != "SGD" and epoch >= last_period and step & (step - 1) == 0:  # 0, 1, 2, 4, 8, ...
                errors.append((step, error(module, data)))
            module.forward_backward(batch)
            module.update()
            step += 1
        if (epoch + 1) % args.update_freq == 0 or epoch + 1 == epochs:
            passes = epoch + 1 if name == "SGD" else _common.passes_after(epoch + 1, args.update_freq)
            losses.append((passes, np.mean([module.score(fresh, "ce")[0][1] for fresh in map(load, range(100, 105))])))
    return losses, errors


def draw(losses, errors, path):
    """Draw the errors along the last period, and the losses."""
    figure, (above, below) = _common.new_figure("Inputs with noise, drawn anew at each reading", [3, 3])
    for name, points in errors.items():
        steps, values = zip(*points)
        above.semilogy(steps, values, marker="o", label=name, **STYLES[name])
    above.axhline(1 / (2 + 1 / args.update_freq), color="#444444", linestyle=":", label="below: worth its cost")
    above.set_ylim(bottom=1e-4)
    above.set_xlabel("steps since the snapshot")
    above.set_ylabel("error / SGD's  (log scale)")
    above.legend(fontsize=8)
    for name, points in losses.items():
        below.plot(*zip(*points), label=name, **STYLES[name])
    below.set_xlabel("passes over the data")
    below.set_ylabel("loss with other noise")
    below.legend(fontsize=8)
    figure.savefig(path)


def main():
    """Run the example."""
    print("1440 digits with noise of standard deviation {:g}, batches of {}".format(args.noise, args.batch_size),
          flush=True)  # fmt: skip
    losses, errors = {}, {}
    for name in STYLES:
        losses[name], found = train(name)
        if found:
            errors[name] = found
    print("\nSquared error of SVRG's gradients, as a part of plain ones':")
    print("step since the snapshot  not locked    locked")
    for (step, unlocked), (_, locked) in zip(errors["SVRG"], errors["SVRG, locked"]):
        print("{:23}{:12.5f}{:10.5f}".format(step, unlocked, locked))
    print("\nLoss with other noise, at equal cost:")
    for name, points in losses.items():
        print("{:<13} {:.4f} after {} passes".format(name, points[-1][1], points[-1][0]))
    draw(losses, errors, args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
