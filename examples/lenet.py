"""A published Module program, moved over: MXNet's LeNet on MNIST.

    python lenet.py
    python lenet.py --data DIRECTORY

The network and the settings are those of MXNet's image-classification example:
two convolutions, two dense layers, SGD with momentum. It is trained by plain
Module and by SVRGModule. DIRECTORY has MNIST's four files, packed or not;
Fashion-MNIST's have the same names and work, too. Without --data the images are
scikit-learn's digits, enlarged to 28 x 28 pixels, and training takes half a
minute.

SVRGModule trains --epochs epochs. Module goes on until its training has cost as
many gradient evaluations, which is several times as many epochs; the table
below the log has both, and Module after --epochs epochs, too.

You should see that both read the test images about equally well. After as many
epochs SVRG's training loss is about Module's, or somewhat lower, and has cost
2.5 times the gradient evaluations; after as many gradient evaluations Module's
is the lower one. So it is with most nets: two lines move a program over, but
SVRG is worth its cost where the optimum itself is wanted, as in
logistic_regression.py.
"""

import argparse
import gzip
import logging
import math
import os
import struct
import sys
import time
import zlib

import _common
import numpy as np

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SOURCE = "MNIST's files are at https://ossci-datasets.s3.amazonaws.com/mnist/, with the ending .gz"


def find(directory):
    """Return the paths of the four files, as they are or packed."""
    if not os.path.isdir(directory):
        raise ValueError("{} is no directory".format(directory))
    paths = []
    for name in NAMES:
        candidates = [os.path.join(directory, name + ending) for ending in ("", ".gz")]
        existing = [path for path in candidates if os.path.isfile(path)]
        if not existing:
            raise ValueError("{} has neither {} nor {}.gz. {}".format(directory, name, name, SOURCE))
        paths.append(existing[0])
    return paths


def read(path, dimensions):
    """Return the bytes of an idx file as an array of so many dimensions."""
    try:
        with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
            content = file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError("{} is damaged ({}). {}".format(path, error, SOURCE)) from None
    # Two zeros, 8 for bytes, the number of dimensions; the dimensions, most significant byte first; the bytes.
    header = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) < header:
        raise ValueError("{} is no idx file of bytes in {} dimension{}. {}".format(
            path, dimensions, "s" * (dimensions > 1), SOURCE))  # fmt: skip
    shape = struct.unpack(">{}I".format(dimensions), content[4:header])
    wanted = header + math.prod(shape)
    if len(content) != wanted:
        raise ValueError("{} is damaged: it has {} bytes, and {} are announced. {}".format(
            path, len(content), wanted, SOURCE))  # fmt: skip
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def read_mnist(paths):
    """Return (images, labels) for training and for testing."""
    parts = []
    for images_path, labels_path in (paths[:2], paths[2:]):
        images, labels = read(images_path, 3), read(labels_path, 1)
        if images.shape[1:] != (28, 28):
            raise ValueError("{} has images of {} x {} pixels; LeNet takes 28 x 28".format(
                images_path, *images.shape[1:]))  # fmt: skip
        if len(images) != len(labels) or not len(labels):
            raise ValueError("{} has {} images, and {} has {} labels".format(
                images_path, len(images), labels_path, len(labels)))  # fmt: skip
        if labels.max() > 9:
            raise ValueError("{} has the label {}; LeNet tells 10 classes apart, 0 to 9".format(
                labels_path, labels.max()))  # fmt: skip
        parts.append((images[:, None].astype("float32") / 255, labels.astype("float32")))
    return parts


if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", metavar="DIRECTORY", help="where MNIST's four files are (default: digits)")
    parser.add_argument("--method", choices=["both", "module", "svrg"], default="both", help="(default: both)")
    parser.add_argument("--epochs", type=_common.whole_number(), default=10, help="(default: 10)")
    parser.add_argument("--update-freq", type=_common.whole_number(), default=2,
                        help="epochs between snapshots (default: 2)")  # fmt: skip
    parser.add_argument("--batch-size", type=_common.whole_number(), default=64, help="(default: 64)")
    # MXNet's example has 0.05. The digits have too few steps in an epoch for it: some seeds diverge.
    parser.add_argument("--lr", type=_common.positive_number, help="learning rate (default: 0.03, or 0.05 with --data)")
    parser.add_argument("--momentum", type=float, default=0.9, help="(default: 0.9)")
    parser.add_argument("--wd", type=float, default=0.0001, help="weight decay (default: 0.0001)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the orders (default: 0)")
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_lenet.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    if args.lr is None:
        args.lr = 0.05 if args.data else 0.03
    if args.data:
        try:
            images = read_mnist(find(args.data))
        except ValueError as error:
            parser.error(str(error))

import mxnet as mx

from svrg_optimization import SVRGModule


def enlarged_digits():
    """Return (images, labels) for training and for testing, of scikit-learn's digits."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Each of the 8 x 8 pixels becomes 3 x 3, and a margin of 2 is added: 28 x 28.
    images = np.pad(np.kron(digits.images, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))
    images = images[:, None].astype("float32") / 16
    labels = digits.target.astype("float32")
    order = np.random.RandomState(0).permutation(len(labels))
    return [(images[rows], labels[rows]) for rows in (order[360:], order[:360])]


def lenet():
    """Return the symbol of the network."""
    layer = mx.sym.Variable("data")
    for filters in (20, 50):
        layer = mx.sym.Convolution(layer, kernel=(5, 5), num_filter=filters)
        layer = mx.sym.Activation(layer, act_type="tanh")
        layer = mx.sym.Pooling(layer, pool_type="max", kernel=(2, 2), stride=(2, 2))
    layer = mx.sym.FullyConnected(mx.sym.Flatten(layer), num_hidden=500)
    layer = mx.sym.Activation(layer, act_type="tanh")
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(layer, num_hidden=10), name="softmax")


def evaluate(module, images, labels, batch_size):
    """Return the mean loss of a module on some images, and how many it reads wrong."""
    # predict() leaves the rows out that fill up the last batch; a metric would count them.
    probabilities = module.predict(mx.io.NDArrayIter(images, None, batch_size)).asnumpy()
    of_labels = probabilities[np.arange(len(labels)), labels.astype(int)]
    loss = -np.log(np.maximum(of_labels, np.finfo("float32").tiny)).mean(dtype=float)
    return float(loss), int((probabilities.argmax(axis=1) != labels).sum())


def train(module, training, test, epochs, args):
    """Train by `fit`.

    Return for each epoch: the seconds of training so far, the training loss, and the numbers of training and of test
    images that were read wrong.
    """
    # The same weights at the start and the same orders, whichever module it is.
    mx.random.seed(args.seed)
    np.random.seed(args.seed)
    data = mx.io.NDArrayIter(*training, args.batch_size, shuffle=True)
    ends, evaluating = [], 0.0
    started = time.perf_counter()

    def look(*_):
        nonlocal evaluating
        stopped = time.perf_counter()
        ends.append((stopped - started - evaluating, *evaluate(module, *training, args.batch_size),
                     evaluate(module, *test, args.batch_size)[1]))  # fmt: skip
        evaluating += time.perf_counter() - stopped

    module.fit(
        data,
        num_epoch=epochs,
        optimizer="sgd",
        optimizer_params={"learning_rate": args.lr, "momentum": args.momentum, "wd": args.wd},
        initializer=mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2),
        batch_end_callback=mx.callback.Speedometer(args.batch_size, 100),
        epoch_end_callback=look,
    )
    return ends


def print_conclusion(module, svrg, epochs, passes, images):
    """Print what the numbers say."""
    same_epochs, same_passes, last = module[epochs - 1], module[-1], svrg[-1]
    print("\nTraining loss: after {} epochs SVRG's is {:.3g} times Module's, and has cost {:.2g} times the gradient\n"
          "evaluations. After as many evaluations it is {:.3g} times Module's.".format(
              epochs, last[1] / same_epochs[1], passes / epochs, last[1] / same_passes[1]))  # fmt: skip
    print("Test images that are read wrong, of {}: {} by SVRG, {} by Module after as many evaluations.".format(
        images, last[3], same_passes[3]))  # fmt: skip


def draw(series, path):
    """Draw the training loss against passes over the data, each series a list of (passes, loss)."""
    figure, (axes,) = _common.new_figure("LeNet: training loss", [4])
    for name, points in series.items():
        axes.semilogy(*zip(*points), marker=".", label=name)
    axes.set(xlabel="passes over the data (gradient evaluations per sample)", ylabel="training loss")
    axes.legend(frameon=False)
    figure.savefig(path)


def main(training, test):
    """Run the example."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)-10s %(message)s")
    print("{}: {} images for training, {} for testing; batches of {}".format(
        args.data or "digits", len(training[1]), len(test[1]), args.batch_size), flush=True)  # fmt: skip
    passes = [_common.passes_after(epoch, args.update_freq) for epoch in range(1, args.epochs + 1)]
    rows, series, module, svrg = [], {}, None, None
    if args.method != "svrg":
        epochs = args.epochs if args.method == "module" else passes[-1]
        logger = logging.getLogger("Module")
        module = train(mx.mod.Module(lenet(), logger=logger), training, test, epochs, args)
        rows += [("Module", epoch, epoch, module[epoch - 1]) for epoch in sorted({args.epochs, epochs})]
        series["Module"] = [(epoch, end[1]) for epoch, end in enumerate(module, start=1)]
    if args.method != "module":
        logger = logging.getLogger("SVRGModule")
        svrg = train(
            SVRGModule(lenet(), logger=logger, update_freq=args.update_freq), training, test, args.epochs, args
        )
        rows.append(("SVRGModule", args.epochs, passes[-1], svrg[-1]))
        series["SVRGModule"] = [(after, end[1]) for after, end in zip(passes, svrg)]

    print("\n            epochs  passes  seconds  training loss  training accuracy  test accuracy")
    for name, epoch, after, (seconds, loss, wrong, wrong_in_test) in rows:
        print("{:10}{:8}{:8}{:9.1f}{:15.3g}{:18.2f}%{:14.2f}%".format(
            name, epoch, after, seconds, loss, 100 - 100 * wrong / len(training[1]),
            100 - 100 * wrong_in_test / len(test[1])))  # fmt: skip
    if module and svrg:
        print_conclusion(module, svrg, args.epochs, passes[-1], len(test[1]))
    draw(series, args.output)
    print("\nPicture: " + args.output)


if __name__ == "__main__":
    main(*(images if args.data else enlarged_digits()))
