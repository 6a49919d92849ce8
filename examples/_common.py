"""What the examples share: what a pass over the data is, a step size from the data, and one classic data set.

Importing it, before mxnet, also sets what mxnet reads from the environment when it is loaded.
"""

import math
import os

# Networks as small as these gain nothing from threads, and lose much where other programs keep the processors busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# mxnet would say on stderr, for every network, which library of kernels it uses.
os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")

import mxnet as mx
import numpy as np
from sklearn.datasets import load_digits


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
    # NDArrays: of NumPy's float64 the iterator would make float32.
    x, y = mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64")
    return mx.io.NDArrayIter(x, y, batch_size, label_name="label")


def digits():
    """Return scikit-learn's 1797 images of handwritten digits: the pixels, centred and of unit size, and the digits."""
    images = load_digits()
    # All pixels have one unit, so they share one scale: each by its own would blow up those that are nearly constant.
    pixels = images.data - images.data.mean(axis=0)
    return pixels / pixels.std(), images.target
