"""A recurrent network on sentences of different lengths, in buckets: SVRG against SGD.

    python buckets.py

A small LSTM learns which word follows in sentences of a made-up language. It
is unrolled for the length of a sentence, so there is a network for each of
three lengths: the buckets. MXNet's BucketingModule trains them together by SGD,
and SVRGBucketingModule by SVRG; one name differs. All buckets share one
snapshot, and each full gradient is over the sentences of all.

You should see, for two learning rates, how the perplexity falls: it is how
many words the network wavers between, at each place. At the smaller rate SVRG
gains nothing at equal cost. At the larger one SGD jumps about, and SVRG goes
on: its gradients have less noise. How much less is said at the end, and a
warning says whether that is worth what SVRG costs. The picture,
svrg_buckets.png, has the perplexities against passes over the data.
"""

import argparse
import contextlib
import logging
import random
import sys

import _common

if __name__ == "__main__":
    # The arguments come before the imports that take seconds: --help and errors are there at once.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passes", type=_common.whole_number(3), default=50,
                        help="what each training may cost, in passes over the data (default: 50)")  # fmt: skip
    parser.add_argument("--update-freq", type=_common.whole_number(), default=1,
                        help="epochs between snapshots (default: 1)")  # fmt: skip
    parser.add_argument("--hidden", type=_common.whole_number(), default=16,
                        help="units of the LSTM (default: 16)")  # fmt: skip
    parser.add_argument("--lr", type=_common.positive_number, nargs="+", default=[0.5, 1.0],
                        help="learning rates (default: 0.5 1)")  # fmt: skip
    parser.add_argument("--output", metavar="PNG", type=_common.picture_file, default="svrg_buckets.png",
                        help="where the picture goes (default: %(default)s)")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show the log, too")
    args = parser.parse_args()

import mxnet as mx
import numpy as np

from svrg_optimization import SVRGBucketingModule, VarianceMonitor

LENGTHS = [5, 9, 13]
# Word 0 fills sentences up to the length of their bucket; the last word ends each sentence.
WORDS, BATCH_SIZE = 16, 16


def sentences(count, seed):
    """Return so many sentences of each length. Each word is drawn by the one before, mostly one of two or three."""
    following = np.random.RandomState(0).dirichlet([0.15] * (WORDS - 2), size=WORDS)
    generator, found = np.random.RandomState(seed), []
    for longest in LENGTHS:
        for _ in range(count):
            sentence = [generator.randint(1, WORDS - 1)]
            while len(sentence) < generator.randint(longest - 3, longest):
                sentence.append(1 + generator.choice(WORDS - 2, p=following[sentence[-1]]))
            found.append([*sentence, WORDS - 1])
    return found


def in_batches(count, seed):
    """Return an iterator over sentences. It gives full batches only, so `count` is a multiple of their size."""
    with contextlib.redirect_stdout(None):  # it prints how many sentences are too long: none
        return mx.rnn.BucketSentenceIter(sentences(count, seed), BATCH_SIZE, buckets=list(LENGTHS), invalid_label=0)


def network(length):
    """Return the network of a bucket: the symbol, and the names of data and labels."""
    cell = mx.rnn.LSTMCell(num_hidden=args.hidden, prefix="lstm_")
    words = mx.sym.Embedding(mx.sym.Variable("data"), input_dim=WORDS, output_dim=8, name="embed")
    outputs, _ = cell.unroll(length, inputs=words, merge_outputs=True)
    scores = mx.sym.FullyConnected(mx.sym.reshape(outputs, (-1, args.hidden)), num_hidden=WORDS, name="scores")
    label = mx.sym.reshape(mx.sym.Variable("softmax_label"), (-1,))
    # A sentence's loss is the sum over its words. What fills it up doesn't count.
    loss = mx.sym.SoftmaxOutput(scores, label, use_ignore=True, ignore_label=0, name="softmax")
    return loss, ["data"], ["softmax_label"]


def train(module, epochs, lr, monitor=None):
    """Train; return the perplexity of the training data after each epoch, and at the end that of new sentences."""
    random.seed(0)
    np.random.seed(0)
    mx.random.seed(0)
    data, same, new = in_batches(128, 1), in_batches(128, 1), in_batches(64, 2)
    perplexity, seen = mx.metric.Perplexity(ignore_label=0), []
    module.fit(
        data, eval_metric=perplexity, num_epoch=epochs, monitor=monitor, initializer=mx.init.Xavier(magnitude=2.34),
        optimizer="sgd", optimizer_params={"learning_rate": lr},
        epoch_end_callback=lambda *_: seen.append(module.score(same, perplexity, reset=True)[0][1]),
    )  # fmt: skip
    return seen, module.score(new, perplexity)[0][1]


def draw(runs, path):
    """Draw the perplexities against passes, a panel for each learning rate."""
    rates = sorted({lr for lr, *_ in runs})
    figure, panels = _common.new_figure("An LSTM in buckets: SGD and SVRG", [2.6] * len(rates), sharex=True)
    for rate, axes in zip(rates, panels):
        for lr, name, passes, seen, _ in runs:
            if lr == rate:
                axes.plot(passes, seen, ".-", color={"SGD": "#e07b00", "SVRG": "#103d7c"}[name], label=name)
        axes.set_ylim(3.4, 6)
        axes.set_title("learning rate {:g}".format(rate), loc="left", fontsize=9)
        axes.set_ylabel("perplexity")
    panels[0].legend()
    panels[-1].set_xlabel("passes over the data: gradients per sentence")
    figure.savefig(path)


def main():
    """Run the example."""
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, stream=sys.stdout,
                        format="    %(message)s")  # fmt: skip
    epochs = _common.epochs_within(args.passes, args.update_freq)
    runs, ratios = [], {}
    for lr in args.lr:
        sgd = mx.mod.BucketingModule(network, default_bucket_key=max(LENGTHS))
        runs.append((lr, "SGD", range(1, args.passes + 1), *train(sgd, args.passes, lr)))
        svrg = SVRGBucketingModule(network, default_bucket_key=max(LENGTHS), update_freq=args.update_freq)
        monitor = VarianceMonitor()
        passes = [_common.passes_after(epoch + 1, args.update_freq) for epoch in range(epochs)]
        runs.append((lr, "SVRG", passes, *train(svrg, epochs, lr, monitor)))
        ratios[lr] = [each.total.ratio for each in monitor.epochs]
    print("Perplexity of the training data after so many passes, and of new sentences at the end:")
    marks = [args.passes * part // 5 for part in range(1, 6)]
    print("    rate      " + "".join("{:>8}".format(mark) for mark in marks) + "     new")
    for lr, name, passes, seen, new in runs:
        found = [[value for passed, value in zip(passes, seen) if passed <= mark] for mark in marks]
        columns = ["{:8.2f}".format(values[-1]) if values else " " * 8 for values in found]
        print("    {:<5g} {:4}".format(lr, name) + "".join(columns) + "{:8.2f}".format(new))
    for lr, of_epochs in ratios.items():
        line = "At rate {:g}, SVRG's gradients had {:.0%} of the variance of plain ones (median over the epochs)."
        print(line.format(lr, np.median(of_epochs)))
    draw(runs, args.output)
    print("Picture: {}".format(args.output))


if __name__ == "__main__":
    main()
