"""SVRG with snapshots at any time and a coefficient, one sample at a time: slow, and correct by inspection."""

import math

import numpy as np
from oracle import full_gradient, padded_batches, sum_of

from svrg_optimization.svrg.numbered_draws import uniform


class When:
    """When the snapshot moves: `due(epoch, batch, steps, first)` before a step; `first` is the step of the first one.

    `iterate` chooses from the period's iterates, `part` the rows of the s-th full gradient of n samples.
    """

    def __init__(self, due, warm_start=0, iterate=None, part=lambda s, n: range(n)):
        self.due, self.warm_start, self.iterate, self.part = due, warm_start, iterate, part


def every_epochs(k, warm_start=0):
    """At the start of epochs warm_start, warm_start + k, ..."""
    return lambda epoch, batch, steps, first: batch == 0 and (epoch - warm_start) % k == 0


def every_steps(k):
    """Before steps 0, k, 2k, ..., counted from the first snapshot."""
    return lambda epoch, batch, steps, first: (steps - first) % k == 0


def coins(p, seed):
    """After a step with probability p."""
    return lambda epoch, batch, steps, first: steps > 0 and uniform(seed, steps) < p


def average(period, first_step, seed):
    """The mean of the iterates after each step."""
    return {name: np.mean([w[name] for w in period[1:]], axis=0) for name in period[0]}


def random_one(period, first_step, seed):
    """One of the iterates before each step: the last t at which a draw falls below 1 / (t + 1)."""
    t = max(t for t in range(len(period) - 1) if t == 0 or uniform(seed, first_step + t) < 1 / (t + 1))
    return period[t]


class One:
    """The coefficient of SVRG; others derive from this."""

    def begin(self, epoch, batch, batches_of_epoch):
        """A snapshot is taken before this batch of this epoch."""

    def at(self, name, steps, epoch):
        """The coefficient of a parameter in the coming step."""
        return 1.0

    def look(self, x, y):
        """A step has these mean gradients, at the weights and at the snapshot."""


class Of(One):
    """A function of (steps, epoch)."""

    def __init__(self, function):
        self.function = function

    def at(self, name, steps, epoch):
        return self.function(steps, epoch)


class Falling(One):
    """The numbers of linspace(start, 0, number of snapshots), one after the other."""

    def __init__(self, start, snapshots):
        self.values = iter(np.linspace(start, 0, snapshots))

    def begin(self, epoch, batch, batches_of_epoch):
        self.value = next(self.values)

    def at(self, name, steps, epoch):
        return self.value


class ByLayer(One):
    """Sum of covariances by sum of variances of all batches of the period, after 2, 4, 8, ... of them."""

    def __init__(self, most=2.0):
        self.most, self.alphas, self.pairs = most, {}, []

    def begin(self, epoch, batch, batches_of_epoch):
        self.pairs = []

    def at(self, name, steps, epoch):
        return self.alphas.get(name, min(1.0, self.most))

    def look(self, x, y):
        self.pairs.append((x, y))
        if len(self.pairs) >= 2 and math.log2(len(self.pairs)).is_integer():
            for name in x:
                xs, ys = (np.array([pair[k][name].ravel() for pair in self.pairs]) for k in (0, 1))
                covariance = ((xs - xs.mean(0)) * (ys - ys.mean(0))).mean(0).sum()
                variance = ys.var(0).sum()
                self.alphas[name] = float(np.clip(covariance / variance, 0, self.most)) if variance > 0 else 1.0


def together(shards, batch_size):
    """The samples, numbered through all shards, of each step that all workers take; the first worker's come first."""
    starts = np.cumsum([0, *shards])
    of_workers = [[[start + i for i in batch] for batch in padded_batches(shard, batch_size)]
                  for start, shard in zip(starts, shards)]  # fmt: skip
    return [[i for of_worker in batches for i in of_worker] for batches in zip(*of_workers)]


def scheduled_svrg(problem, w, data, optimizer, *, batch_size, epochs, when, coefficient, shards=None):
    """Yield the weights after every step, and the number of snapshots before it.

    With `shards`, the workers' numbers of samples, a step has a batch of each; the first one's decides coefficients.
    """
    w, n, steps, taken, first, period = dict(w), len(data), 0, 0, None, []
    batches = padded_batches(n, batch_size) if shards is None else together(shards, batch_size)
    for epoch in range(epochs):
        for number, batch in enumerate(batches):
            if epoch >= when.warm_start and (first is None or when.due(epoch, number, steps, first)):
                first = steps if first is None else first
                if when.iterate is not None and taken:
                    w = dict(when.iterate(period, steps - len(period) + 1))
                snapshot, period, rows = dict(w), [dict(w)], when.part(taken, n)
                mu = full_gradient(problem, snapshot, [data[i] for i in rows])
                taken += 1
                coefficient.begin(epoch, number, len(batches))
            x = _mean_gradient(problem, w, data, batch)
            g = dict(x)
            if first is not None:
                y = _mean_gradient(problem, snapshot, data, batch)
                seen = [_mean_gradient(problem, at, data, batch[:batch_size]) for at in (w, snapshot)]
                g = {name: x[name] - coefficient.at(name, steps, epoch) * (y[name] - mu[name]) for name in x}
                coefficient.look(*seen)
            w = {name: optimizer.step(name, w[name], g[name]) for name in w}
            steps += 1
            if first is not None:
                period.append(dict(w))
            yield dict(w), taken


def _mean_gradient(problem, w, data, batch):
    return {name: total / len(batch) for name, total in sum_of(problem.gradient(w, *data[i]) for i in batch).items()}
