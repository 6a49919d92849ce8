"""Data in buckets, and networks for them whose padded positions don't contribute."""

import mxnet as mx
import numpy as np
import oracle
from models import nd, symbol

from svrg_optimization import SVRGBucketingModule

LENGTHS = (4, 2, 3)
LONGEST = max(LENGTHS)
WORDS, CLASSES = 7, 3


class Batches(mx.io.DataIter):
    """Batches of several buckets, in this order in each epoch."""

    def __init__(self, batches, longest=LONGEST):
        super().__init__(batches[0].data[0].shape[0])
        self.batches, self.default_bucket_key = batches, longest
        (data,), (label,) = batches[0].provide_data, batches[0].provide_label
        self.provide_data = [mx.io.DataDesc(data.name, (data.shape[0], longest, *data.shape[2:]), data.dtype)]
        self.provide_label = [label]
        self.reset()

    def reset(self):
        self.rest = iter(self.batches)

    def next(self):
        return next(self.rest)


def batch(data, label, pad=0, dtype=np.float64):
    """A batch of the bucket of its length."""
    return mx.io.DataBatch(
        [nd(data, dtype)], [nd(label, dtype)], pad=pad, bucket_key=data.shape[1],
        provide_data=[mx.io.DataDesc("data", data.shape, dtype)],
        provide_label=[mx.io.DataDesc("softmax_label", label.shape, dtype)],
    )  # fmt: skip


def padded(train, longest=LONGEST):
    """The same batches, all of one length: filled up with zeros."""
    found = []
    for each in train.batches:
        data, label = each.data[0].asnumpy(), each.label[0].asnumpy()
        filled = np.zeros((data.shape[0], longest, *data.shape[2:]), data.dtype)
        filled[:, : data.shape[1]] = data
        found.append(batch(filled, label, each.pad, data.dtype))
    return Batches(found, longest)


# ------------------------------------------------------------------------------- a problem of the oracle, in buckets


def in_buckets(problem, data, batch_size, lengths=LENGTHS, dtype=np.float64):
    """The samples (x, y), in order: each x as a sequence of vectors with this sum, a batch's of one length."""
    rng, found = np.random.default_rng(1), []
    for k, rows in enumerate(oracle.padded_batches(len(data), batch_size)):
        x, y = (np.array(values) for values in zip(*(data[row] for row in rows)))
        parts = rng.normal(size=(batch_size, lengths[k % len(lengths)], oracle.FEATURES))
        parts[:, -1] = x - parts[:, :-1].sum(axis=1)
        label = y.reshape(-1, 1) if problem.name in ("linear", "logistic") else y
        found.append(batch(parts, label, max(0, (k + 1) * batch_size - len(data)), dtype))
    return Batches(found)


def summed(problem):
    """The `sym_gen` of a problem: the network of the sum over a sequence."""

    def sym_gen(length):
        total = mx.sym.sum(mx.sym.Variable("data"), axis=1)
        return symbol(problem)(data=total), ["data"], ["softmax_label"]

    return sym_gen


# ---------------------------------------------------------------------------------------- networks of words; 0 is none


def pooled_words(length):
    """An embedding, the sum over the words, and softmax regression."""
    words, vectors = mx.sym.Variable("data"), mx.sym.Variable("words_weight", shape=(WORDS, 4))
    vectors = mx.sym.Embedding(words, vectors, input_dim=WORDS, output_dim=4, dtype="float64")
    pooled = mx.sym.sum(mx.sym.broadcast_mul(vectors, mx.sym.expand_dims(words > 0, axis=2)), axis=1)
    scores = mx.sym.FullyConnected(mx.sym.tanh(pooled), num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(scores, name="softmax"), ["data"], ["softmax_label"]


def unrolled(length):
    """A recurrent network, unrolled. Where there is no word, its state stays."""
    words, vectors = mx.sym.Variable("data"), mx.sym.Variable("words_weight", shape=(WORDS, 4))
    vectors = mx.sym.Embedding(words, vectors, input_dim=WORDS, output_dim=4, dtype="float64")
    inputs = mx.sym.split(vectors, num_outputs=length, axis=1, squeeze_axis=True) if length > 1 else [vectors]
    present = mx.sym.split(words > 0, num_outputs=length, axis=1)
    names = ("in_weight", "in_bias", "state_weight", "state_bias")
    weights = {name: mx.sym.Variable(name) for name in names}
    state = None
    for vector, is_word in zip(inputs, present):
        total = mx.sym.FullyConnected(vector, weights["in_weight"], weights["in_bias"], num_hidden=4)
        state = mx.sym.zeros_like(total) if state is None else state
        total = total + mx.sym.FullyConnected(state, weights["state_weight"], weights["state_bias"], num_hidden=4)
        state = state + mx.sym.broadcast_mul(is_word, mx.sym.tanh(total) - state)
    scores = mx.sym.FullyConnected(state, num_hidden=CLASSES, name="fc")
    return mx.sym.SoftmaxOutput(scores, name="softmax"), ["data"], ["softmax_label"]


def following_words(normalization="null", ignored=False, dtype="float64"):
    """The `sym_gen` of a network that predicts each word from the one before, with a loss for each."""

    def sym_gen(length):
        words, vectors = mx.sym.Variable("data"), mx.sym.Variable("words_weight", shape=(WORDS, 4))
        vectors = mx.sym.Embedding(words, vectors, input_dim=WORDS, output_dim=4, dtype=dtype)
        scores = mx.sym.FullyConnected(mx.sym.reshape(vectors, (-1, 4)), num_hidden=WORDS, name="fc")
        label = mx.sym.reshape(mx.sym.Variable("softmax_label"), (-1,))
        loss = mx.sym.SoftmaxOutput(scores, label, use_ignore=ignored, ignore_label=0, normalization=normalization)
        return loss, ["data"], ["softmax_label"]

    return sym_gen


def texts(lengths=LENGTHS):
    """Batches of words, with the word that follows as the label of each; half of the words are none."""
    rng, found = np.random.default_rng(4), []
    for length in lengths:
        words = rng.integers(1, WORDS, (4, length))
        words[:, : length // 2] = 0
        found.append(batch(words, np.roll(words, -1, axis=1)))
    train = Batches(found)
    train.provide_label = [mx.io.DataDesc("softmax_label", (4, LONGEST), np.float64)]
    return train


def sentences(batch_size, batches=6, last=0, lengths=LENGTHS):
    """Batches of sentences of words and their classes; the `last` one has so many padded rows."""
    rng, found = np.random.default_rng(2), []
    for k in range(batches):
        words = rng.integers(1, WORDS, size=(batch_size, lengths[k % len(lengths)]))
        # Some are shorter than their bucket.
        words[::3, -1] = 0
        found.append(batch(words, rng.integers(0, CLASSES, batch_size), last if k == batches - 1 else 0))
    return Batches(found)


def ready(sym_gen, train, *, weights=None, devices=1, kvstore="local", optimizer="sgd",
          optimizer_params=(("learning_rate", 0.25),), module=SVRGBucketingModule, **kwargs):  # fmt: skip
    """A module, bound, with weights and an optimizer."""
    made = module(sym_gen, train.default_bucket_key, context=[mx.cpu(i) for i in range(devices)], **kwargs)
    made.bind(train.provide_data, train.provide_label)
    arguments = {name: nd(value) for name, value in (weights or {}).items()}
    made.init_params(mx.init.Uniform(1), arg_params=arguments or None, aux_params={} if arguments else None)
    made.init_optimizer(kvstore=kvstore, optimizer=optimizer, optimizer_params=optimizer_params)
    return made
