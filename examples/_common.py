"""What the examples share: types of arguments, counting passes, a step size from the data, digits, and pictures.

This file is quick to import. mxnet, scikit-learn and matplotlib take seconds, so only the functions that need them
import them. Importing this file, before mxnet, also sets what mxnet reads from the environment when it is loaded.
"""

import argparse
import functools
import importlib.util
import math
import os
import sys

import numpy as np

# Networks as small as these gain nothing from threads, and lose much where other programs keep the processors busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# mxnet would say on stderr, for every network, which library of kernels it uses.
os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")
# And it would say so where it makes a row_sparse array dense for a moment, as for a norm with weight decay.
os.environ.setdefault("MXNET_STORAGE_FALLBACK_LOG_VERBOSE", "0")

for package in ("svrg_optimization", "mxnet", "sklearn", "matplotlib"):
    if importlib.util.find_spec(package) is None:
        sys.exit("{} isn't installed. In the root of the repository, this installs what the examples need:\n\n"
                 "    pip install '.[examples]'".format(package))  # fmt: skip


def whole_number(least=1, most=None):
    """Return a type for argparse: a whole number from `least` to `most`."""

    def parse(text):
        number = int(text)
        if number < least or (most is not None and number > most):
            bounds = "at least {}".format(least) if most is None else "from {} to {}".format(least, most)
            raise argparse.ArgumentTypeError("must be {}, not {}".format(bounds, number))
        return number

    parse.__name__ = "whole number"  # argparse says "invalid whole number value: 'x'"
    return parse


def positive_number(text):
    """Be a type for argparse: a number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("must be above 0, not {}".format(text))
    return number


positive_number.__name__ = "number"


def existing_file(path):
    """Be a type for argparse: the path of a file that is there."""
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError("there is no file {}".format(path))
    return path


def picture_file(path):
    """Be a type for argparse: the path of a picture that can be written. Training comes first: better to know now."""
    if not path.endswith((".png", ".svg", ".pdf")):
        raise argparse.ArgumentTypeError("must end in .png, .svg or .pdf, not as {} does".format(path))
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise argparse.ArgumentTypeError("there is no directory {}".format(os.path.dirname(path)))
    return path


def passes_after(epochs, update_freq):
    """Return the cost of so many epochs of SVRG, in passes: gradient evaluations per sample.

    An inner epoch costs two, at the weights and at the snapshot; a full gradient, every `update_freq` epochs, one.
    An epoch of SGD costs one.
    """
    return 2 * epochs + math.ceil(epochs / update_freq)


def epochs_within(passes, update_freq):
    """Return how many epochs of SVRG cost at most so many passes."""
    epochs = 0
    while passes_after(epochs + 1, update_freq) <= passes:
        epochs += 1
    return epochs


def with_bias(features):
    """Return the features and one more that is always 1: its weight is the bias."""
    return np.hstack([features, np.ones((len(features), 1))])


def step_size(features, batch_size, curvature, of_samples=np.mean):
    """Return 1 / (smoothness of the loss of a mini-batch), for a linear model.

    The smoothness of a loss bounds how fast its gradient changes. That of the mean loss is the largest eigenvalue of
    the features' second moments, times the largest second derivative of the loss in the model's output, `curvature`.
    A batch of b samples adds 1 / b of a sample's own, the squared length of its row: that of the average sample, or
    with `of_samples=numpy.max` of the longest.
    """
    rows = with_bias(features)
    mean_loss = np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1]
    sample = of_samples((rows**2).sum(axis=1))
    return float(1 / (curvature * (mean_loss + sample / batch_size)))


def batches(x, y, batch_size):
    """Return an iterator over float64 data."""
    import mxnet as mx

    # NDArrays: of NumPy's float64 the iterator would make float32.
    x, y = mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64")
    return mx.io.NDArrayIter(x, y, batch_size, label_name="label")


def shuffled_batches(x, y, batch_size, dtype="float64", seed=0):
    """Return an iterator with a new random order each epoch; NDArrayIter(shuffle=True) would always be float32."""
    import mxnet as mx

    class Shuffled(mx.io.DataIter):
        def __init__(self):
            super().__init__(batch_size)
            self.x, self.y = mx.nd.array(x, dtype=dtype), mx.nd.array(y, dtype=dtype)
            self.random = np.random.default_rng(seed)
            self.reset()
            self.provide_data, self.provide_label = self.batches.provide_data, self.batches.provide_label

        def reset(self):
            order = mx.nd.array(self.random.permutation(len(self.y)), dtype="int64")
            self.batches = mx.io.NDArrayIter(self.x.take(order), self.y.take(order), batch_size, label_name="label")

        def next(self):
            return self.batches.next()

    return Shuffled()


@functools.lru_cache(maxsize=None)  # it reads a file of text
def digits():
    """Return scikit-learn's 1797 images of handwritten digits: the pixels, centred and of unit size, and the digits."""
    from sklearn.datasets import load_digits

    images = load_digits()
    # All pixels have one unit, so they share one scale: each by its own would blow up those that are nearly constant.
    pixels = images.data - images.data.mean(axis=0)
    return pixels / pixels.std(), images.target


def power_law(samples, columns, nonzeros, random):
    """Return a csr matrix; the number of samples with column j falls as j ** (-2/3)."""
    from scipy.sparse import csr_matrix

    shape = samples, nonzeros
    drawn = (columns * random.random(shape) ** 3).astype(np.int64)
    values = random.standard_normal(shape) / np.sqrt(nonzeros)
    starts = np.arange(samples + 1) * nonzeros
    x = csr_matrix((values.ravel(), drawn.ravel(), starts), (samples, columns))
    # A column that is drawn twice is one, added up.
    x.sum_duplicates()
    return x


def labels_by(scores, random):
    """Return labels that are drawn by a logistic model with these scores."""
    return random.random(len(scores)) < 1 / (1 + np.exp(-3 * scores / scores.std()))


def libsvm(path):
    """Return the samples of a file as a csr matrix, and their labels as 0 or 1."""
    from sklearn.datasets import load_svmlight_file

    try:
        x, y = load_svmlight_file(path)
    except ValueError as error:
        sys.exit("{} isn't in libsvm's format: {}".format(path, error))
    values = np.unique(y)
    if len(values) != 2:
        sys.exit("{} has {} values of labels, not 2".format(path, len(values)))
    return x, y == values[1]


def new_figure(title, heights, **options):
    """Return a matplotlib figure, narrow enough for a phone, and its panels, one above the other, of these heights."""
    from matplotlib.figure import Figure  # without pyplot: no window is opened

    figure = Figure(figsize=(5.6, sum(heights)), dpi=130, constrained_layout=True)
    panels = figure.subplots(len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}, **options)[:, 0]
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5)
    for panel in panels:
        panel.grid(alpha=0.3)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    return figure, panels
