"""SVRG in NumPy, one sample at a time: slow, and correct by inspection.

Everything is float64. What mxnet's optimizer operators take as float32 (the learning rate, rescale_grad) is rounded to
it.
"""

import numpy as np

# ------------------------------------------------------------------------------------- problems: one sample's loss


class Problem:
    """A network with a loss: `gradient(w, x, y)` is that of ONE sample, by parameter name."""

    def __init__(self, name, shapes, gradient, loss, targets):
        self.name, self.shapes, self.gradient, self.loss, self.targets = name, shapes, gradient, loss, targets

    def __repr__(self):
        return self.name


def _affine(w, x, layer="fc"):
    return w[layer + "_weight"] @ x + w[layer + "_bias"]


def _affine_gradient(error, x, layer="fc"):
    return {layer + "_weight": np.outer(error, x), layer + "_bias": error}


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def _softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def _one_hot(y, classes):
    return np.eye(classes)[int(y)]


def _mlp_gradient(w, x, y):
    hidden = np.tanh(_affine(w, x, "fc1"))
    error = _softmax(_affine(w, hidden, "fc2")) - _one_hot(y, 3)
    return {
        **_affine_gradient((w["fc2_weight"].T @ error) * (1 - hidden**2), x, "fc1"),
        **_affine_gradient(error, hidden, "fc2"),
    }


FEATURES = 3
PROBLEMS = [
    Problem(
        "linear",
        {"fc_weight": (1, FEATURES), "fc_bias": (1,)},
        lambda w, x, y: _affine_gradient(_affine(w, x) - y, x),
        lambda w, x, y: 0.5 * float((_affine(w, x)[0] - y) ** 2),
        lambda rng, n: rng.normal(size=n),
    ),
    Problem(
        "logistic",
        {"fc_weight": (1, FEATURES), "fc_bias": (1,)},
        lambda w, x, y: _affine_gradient(_sigmoid(_affine(w, x)) - y, x),
        lambda w, x, y: float(np.logaddexp(0, _affine(w, x)[0]) - y * _affine(w, x)[0]),
        lambda rng, n: rng.integers(0, 2, n).astype(float),
    ),
    Problem(
        "softmax",
        {"fc_weight": (3, FEATURES), "fc_bias": (3,)},
        lambda w, x, y: _affine_gradient(_softmax(_affine(w, x)) - _one_hot(y, 3), x),
        lambda w, x, y: -float(np.log(_softmax(_affine(w, x))[int(y)])),
        lambda rng, n: rng.integers(0, 3, n).astype(float),
    ),
    Problem(
        "two-layer",
        {"fc1_weight": (4, FEATURES), "fc1_bias": (4,), "fc2_weight": (3, 4), "fc2_bias": (3,)},
        _mlp_gradient,
        lambda w, x, y: -float(np.log(_softmax(_affine(w, np.tanh(_affine(w, x, "fc1")), "fc2"))[int(y)])),
        lambda rng, n: rng.integers(0, 3, n).astype(float),
    ),
]


# --------------------------------------------------------------- optimizers: w <- step(w, g), g already times rescale


class Optimizer:
    """A NumPy copy of an mxnet optimizer. Weight decay is for weights only, as mxnet has it."""

    def __init__(self, lr=0.25, wd=0.0, momentum=0.0, clip=None, halve_every=None, mult=None):
        self.lr, self.wd, self.momentum, self.clip = lr, wd, momentum, clip
        self.halve_every, self.mult, self.state, self.t = halve_every, mult or {}, {}, {}

    def _settings(self, name):
        self.t[name] = self.t.get(name, 0) + 1
        updates = max(self.t.values())
        halvings = 0 if self.halve_every is None else (updates - 1) // self.halve_every
        wd = self.wd if name.endswith("_weight") else 0.0
        return self.lr * 0.5**halvings * self.mult.get(name, 1.0), wd

    def _clipped(self, g):
        return g if self.clip is None else np.clip(g, -self.clip, self.clip)

    def step(self, name, w, g):
        lr, wd = self._settings(name)
        velocity = self.momentum * self.state.get(name, 0) - lr * (self._clipped(g) + wd * w)
        self.state[name] = velocity
        return w + velocity


class Proximal(Optimizer):
    """Soft thresholds of the weights, not of the biases, after each step."""

    def __init__(self, lr=0.25, l1=0.0, **kwargs):
        super().__init__(lr, **kwargs)
        self.l1 = l1

    def step(self, name, w, g):
        lr, wd = self._settings(name)
        moved = w - lr * (self._clipped(g) + wd * w)
        threshold = lr * self.l1 if name.endswith("_weight") else 0.0
        return np.sign(moved) * np.maximum(np.abs(moved) - threshold, 0)


class Adam(Optimizer):
    beta1, beta2, epsilon = 0.5, 0.75, 2.0**-10

    def step(self, name, w, g):
        lr, wd = self._settings(name)
        t = self.t[name]
        g = self._clipped(g + wd * w)
        m, v = self.state.get(name, (0, 0))
        m, v = self.beta1 * m + (1 - self.beta1) * g, self.beta2 * v + (1 - self.beta2) * g**2
        self.state[name] = m, v
        rate = np.float32(lr * np.sqrt(1 - self.beta2**t) / (1 - self.beta1**t))
        return w - rate * m / (np.sqrt(v) + self.epsilon)


class AdamW(Adam):
    """The decay is beside the step. What mxnet's operator takes as float32 is the same fraction, expanded."""

    def step(self, name, w, g):
        lr, wd = self._settings(name)
        t = self.t[name]
        g = self._clipped(g)
        m, v = self.state.get(name, (0, 0))
        m, v = self.beta1 * m + (1 - self.beta1) * g, self.beta2 * v + (1 - self.beta2) * g**2
        self.state[name] = m, v
        root = np.sqrt(1 - self.beta2**t)
        rate, epsilon = np.float64(np.float32(root / (1 - self.beta1**t))), np.float64(np.float32(self.epsilon * root))
        return w - lr * (rate * m / (np.sqrt(v) + epsilon) + wd * w)


# ---------------------------------------------------------------------------------------------------------- algorithm


def sum_of(gradients):
    """The sum of gradients, given as dicts."""
    total = {}
    for gradient in gradients:
        for name, value in gradient.items():
            total[name] = total.get(name, 0) + value
    return total


def full_gradient(problem, w, data):
    """mu: the mean of the samples' gradients."""
    return {name: g / len(data) for name, g in sum_of(problem.gradient(w, x, y) for x, y in data).items()}


def padded_batches(n, batch_size):
    """The samples of each batch; the last one is filled up from the start, as NDArrayIter does."""
    return [[i % n for i in range(start, start + batch_size)] for start in range(0, n, batch_size)]


def svrg(problem, w, data, make_optimizer, *, batch_size, epochs, update_freq, devices=1, synchronised=True):
    """Yield the weights after every step.

    Without a KVStore Module never adds up the devices' gradients: each device trains weights of its own on its part
    of the batch (`synchronised=False`). The weights seen from outside are the mean over the devices.
    """
    copies = [dict(w) for _ in range(1 if synchronised else devices)]
    optimizers = [make_optimizer() for _ in copies]
    part = batch_size // len(copies)
    for epoch in range(epochs):
        if epoch % update_freq == 0:
            snapshot = {name: sum(copy[name] for copy in copies) / len(copies) for name in w}
            mu = full_gradient(problem, snapshot, data)
        for batch in padded_batches(len(data), batch_size):
            for k, (copy, optimizer) in enumerate(zip(copies, optimizers)):
                gradient = sum_of(
                    {
                        name: here - there + mu[name]
                        for (name, here), there in zip(
                            problem.gradient(copy, *data[i]).items(), problem.gradient(snapshot, *data[i]).values()
                        )
                    }
                    for i in batch[k * part : (k + 1) * part]
                )
                for name in w:
                    copy[name] = optimizer.step(name, copy[name], gradient[name] / batch_size)
            yield {name: sum(copy[name] for copy in copies) / len(copies) for name in w}


def data_parallel_svrg(problem, w, shards, make_optimizer, *, batch_size, epochs, update_freq):
    """Yield the weights after every step that all workers take together, each with a batch of its own shard."""
    optimizer, everything = make_optimizer(), [sample for shard in shards for sample in shard]
    for epoch in range(epochs):
        if epoch % update_freq == 0:
            snapshot, mu = dict(w), full_gradient(problem, w, everything)
        for batches in zip(*(padded_batches(len(shard), batch_size) for shard in shards)):
            gradient = sum_of(
                {
                    name: here - there + mu[name]
                    for (name, here), there in zip(
                        problem.gradient(w, *shard[i]).items(), problem.gradient(snapshot, *shard[i]).values()
                    )
                }
                for shard, batch in zip(shards, batches)
                for i in batch
            )
            rescale = float(np.float32(1 / (batch_size * len(shards))))
            w = {name: optimizer.step(name, w[name], gradient[name] * rescale) for name in w}
            yield w
