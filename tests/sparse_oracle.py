"""SVRG on rows in NumPy: every step on whole dense weights, in float64. Slow, and correct by inspection.

Of each row-parameter it asks which rows a batch names. 'dense' and 'lazy' steps move all rows; 'reweighted' ones those
that the batch names, where the full gradient and the weight decay are D times as large. What no batch names decays.
"""

import copy

import numpy as np

FACTORS, CLASSES, WORDS = 2, 3, 3


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def one_hot(ids, rows):
    """(samples, places) of row numbers as (samples, places, rows)."""
    return np.eye(rows)[ids.astype(int)]


class Net:
    """A network: `gradient(w, x, y)` is the sum over the samples; `rows`: by which inputs a parameter's are named."""

    def __init__(self, name, shapes, rows, inputs, gradient, classes=2):
        self.name, self.shapes, self.rows, self.inputs, self.gradient, self.classes = (
            name, shapes, rows, inputs, gradient, classes)  # fmt: skip

    def __repr__(self):
        return self.name

    def named(self, parameter, x):
        """Of each row of a parameter, whether the samples name it; all rows, if they don't name rows of it."""
        if parameter not in self.rows:
            return np.ones(self.shapes[parameter][0], bool)
        found = np.zeros(self.shapes[parameter][0], bool)
        for name in self.rows[parameter]:
            if self.inputs[name] == "csr":
                found |= (x[name] != 0).any(axis=0)
            else:
                found[x[name].astype(int).ravel()] = True
        return found

    def samples(self, n, seed=0):
        """Inputs, labels and weights to start from. Nothing names the last row; sample 1 has no number in csr data."""
        rng = np.random.default_rng(seed)
        x = {}
        for name, kind in self.inputs.items():
            rows = next(self.shapes[p][0] for p, names in self.rows.items() if name in names)
            if kind == "csr":
                often = np.linspace(0.9, 0.1, rows) * (np.arange(rows) < rows - 1)
                x[name] = rng.uniform(-1, 1, (n, rows)) * (rng.random((n, rows)) < often)
                x[name][1] = 0
            else:
                x[name] = np.minimum(rng.geometric(0.4, (n, WORDS)) - 1, rows - 2).astype(float)
        weights = {name: rng.normal(size=shape) / 2 for name, shape in self.shapes.items()}
        return x, rng.integers(0, self.classes, n).astype(float), weights


def _linear(w, x, y):
    error = sigmoid(x["data"] @ w["x_weight"] + w["bias"]) - y[:, None]
    return {"x_weight": x["data"].T @ error, "bias": error.sum(0)}


def _softmax(w, x, y):
    scores = np.exp(x["data"] @ w["x_weight"] + w["bias"])
    error = scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[y.astype(int)]
    return {"x_weight": x["data"].T @ error, "bias": error.sum(0)}


def _machine(w, x, y):
    x, v = x["data"], w["v_weight"]
    sums = x @ v
    score = x @ w["x_weight"] + w["bias"] + 0.5 * (sums**2).sum(1, keepdims=True)
    score = score - 0.5 * x**2 @ (v**2).sum(1, keepdims=True)
    error = sigmoid(score) - y[:, None]
    of_squares = (x**2).T @ error
    return {"x_weight": x.T @ error, "v_weight": x.T @ (error * sums) - of_squares * v, "bias": error.sum(0)}


def _embedding(w, x, y):
    places = one_hot(x["data"], len(w["e_weight"]))
    mean = (places @ w["e_weight"]).mean(1)
    error = sigmoid(mean @ w["fc_weight"].T + w["fc_bias"]) - y[:, None]
    of_mean = error @ w["fc_weight"] / WORDS
    return {
        "e_weight": np.einsum("npr,nf->rf", places, of_mean),
        "fc_weight": error.T @ mean, "fc_bias": error.sum(0),
    }  # fmt: skip


def _shared(w, x, y):
    left, right = one_hot(x["left"], len(w["e_weight"])).sum(1), one_hot(x["right"], len(w["e_weight"])).sum(1)
    a, b = left @ w["e_weight"], right @ w["e_weight"]
    error = sigmoid((a * b).sum(1, keepdims=True)) - y[:, None]
    return {"e_weight": left.T @ (error * b) + right.T @ (error * a)}


def _two(w, x, y):
    error = sigmoid(x["left"] @ w["x_weight"] + x["right"] @ w["z_weight"] + w["bias"]) - y[:, None]
    return {"x_weight": x["left"].T @ error, "z_weight": x["right"].T @ error, "bias": error.sum(0)}


_LINEAR = ({"x_weight": (9, 1), "bias": (1,)}, {"x_weight": ["data"]}, {"data": "csr"}, _linear)
NETS = {
    net.name: net
    for net in [
        Net("logistic", *_LINEAR),
        Net("dense weight", *_LINEAR),
        Net("softmax", {"x_weight": (9, CLASSES), "bias": (CLASSES,)}, {"x_weight": ["data"]}, {"data": "csr"},
            _softmax, CLASSES),
        Net("machine", {"x_weight": (9, 1), "v_weight": (9, FACTORS), "bias": (1,)},
            {"x_weight": ["data"], "v_weight": ["data"]}, {"data": "csr"}, _machine),
        Net("embedding", {"e_weight": (9, FACTORS), "fc_weight": (1, FACTORS), "fc_bias": (1,)},
            {"e_weight": ["data"]}, {"data": "rows"}, _embedding),
        Net("shared", {"e_weight": (9, FACTORS)}, {"e_weight": ["left", "right"]}, {"left": "rows", "right": "rows"},
            _shared),
        Net("two inputs", {"x_weight": (9, 1), "z_weight": (5, 1), "bias": (1,)},
            {"x_weight": ["left"], "z_weight": ["right"]}, {"left": "csr", "right": "csr"}, _two),
    ]
}  # fmt: skip


# -------------------------------------------- optimizers: (w, g, states, rate, decay, t) -> (w, states), elementwise


def sgd(momentum=0.0):
    def step(w, g, states, rate, decay, t):
        (move,) = states or (0 * w,)
        move = momentum * move - rate * (g + decay * w)
        return w + move, (move,)

    return step


def nag(momentum):
    def step(w, g, states, rate, decay, t):
        (move,) = states or (0 * w,)
        push = rate * (g + decay * w)
        move = momentum * move - push
        return w + momentum * move - push, (move,)

    return step


def adam(beta1=0.5, beta2=0.75, epsilon=2.0**-10):
    def step(w, g, states, rate, decay, t):
        m, v = states or (0 * w, 0 * w)
        g = g + decay * w
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        rate = np.float64(np.float32(rate * np.sqrt(1 - beta2**t) / (1 - beta1**t)))
        return w - rate * m / (np.sqrt(v) + epsilon), (m, v)

    return step


def rmsprop(gamma=0.5, epsilon=2.0**-10):
    def step(w, g, states, rate, decay, t):
        (mean,) = states or (0 * w,)
        g = g + decay * w
        mean = (1 - gamma) * g**2 + gamma * mean
        return w - rate * g / np.sqrt(mean + epsilon), (mean,)

    return step


def adagrad(epsilon=2.0**-10):
    def step(w, g, states, rate, decay, t):
        (total,) = states or (0 * w,)
        total = total + g**2
        return w - rate * (g / np.sqrt(total + epsilon)), (total,)

    return step


def ftrl(lamda=0.0625, beta=1.0):
    def step(w, g, states, rate, decay, t):
        z, n = states or (0 * w, 0 * w)
        z = z + g - (np.sqrt(n + g**2) - np.sqrt(n)) * w / rate
        n = n + g**2
        return (np.sign(z) * lamda - z) / ((beta + np.sqrt(n)) / rate) * (np.abs(z) > lamda), (z, n)

    return step


class Settings:
    """An optimizer's arguments: `rate` is a number or a function of t, `mult` is by parameter (rate, decay)."""

    def __init__(self, step=None, rate=0.25, decay=0.0, mult=None):
        self.step, self._rate, self.decay, self.mult = step or sgd(), rate, decay, mult or {}

    def of(self, name, t):
        """The rate and decay of a parameter; mxnet decays weights only."""
        of_rate, of_decay = self.mult.get(name, (1.0, 1.0 if name.endswith("_weight") else 0.0))
        return (self._rate(t) if callable(self._rate) else self._rate) * of_rate, self.decay * of_decay


# ------------------------------------------------------------------------------------------------------------ training


def batches_of(n, size, last="pad"):
    """The samples of each batch and how many of them are padding; the last batch is padded, or ragged."""
    for start in range(0, n, size):
        rows = list(range(start, min(start + size, n)))
        pad = size - len(rows) if last == "pad" else 0
        yield rows + list(range(pad)), pad


def taken(x, rows):
    return {name: value[rows] for name, value in x.items()}


def parts_of(rows, devices):
    """The samples of each device, as mxnet splits a batch."""
    each = round(len(rows) / devices)
    return [rows[k * each : (k + 1) * each if k + 1 < devices else len(rows)] for k in range(devices)]


def full_gradient(net, w, x, y):
    """mu: the mean of the samples' gradients."""
    return {name: value / len(y) for name, value in net.gradient(w, x, y).items()}


def reweighting(net, x, parts):
    """D by parameter: the rows of all batches, divided by those of the batches that name a row; 0 if none does."""
    found = {}
    for name, shape in net.shapes.items():
        touches = sum(len(rows) * net.named(name, taken(x, rows)) for rows in parts)
        total = sum(map(len, parts))
        each = np.where(touches > 0, total / np.maximum(touches, 1), 0.0)
        found[name] = each.reshape((-1,) + (1,) * (len(shape) - 1))
    return found


class Svrg:
    """One set of weights that takes steps; `copies`: one for all devices, or one for each."""

    def __init__(self, net, weights, x, y, *, mode, settings=None, size=8, last="pad", devices=1, together=True):
        self.net, self.x, self.y, self.mode, self.settings, self.size = net, x, y, mode, settings or Settings(), size
        self.batches = list(batches_of(len(y), size, last))
        self.copies = [copy.deepcopy(weights) for _ in range(1 if together else devices)]
        self.states, self.t = [{} for _ in self.copies], 0
        self.devices = devices

    @property
    def weights(self):
        """As they are seen from outside: the mean over the copies."""
        return {name: sum(each[name] for each in self.copies) / len(self.copies) for name in self.net.shapes}

    def _parts(self, rows):
        return [rows] if len(self.copies) == 1 else parts_of(rows, self.devices)

    def snapshot(self):
        self.there = self.weights
        self.mu = full_gradient(self.net, self.there, self.x, self.y)
        of_copies = zip(*(self._parts(rows) for rows, _ in self.batches))
        self.factors = [reweighting(self.net, self.x, parts) for parts in of_copies]

    def direction(self, k, rows, alpha=1.0):
        """Of copy k, by parameter: g, the rows that a step may move, and D. With alpha = 0 it is mxnet's own step."""
        x, y, w, factors = taken(self.x, rows), self.y[rows], self.copies[k], self.factors[k]
        here, there = self.net.gradient(w, x, y), self.net.gradient(self.there, x, y)
        found = {}
        for name in self.net.shapes:
            named, d = self.net.named(name, x), 1.0
            a = alpha.get(name, 1.0) if isinstance(alpha, dict) else alpha
            if alpha != 0:
                if self.mode == "reweighted" and name in self.net.rows:
                    d = factors[name]
                else:
                    named = np.ones_like(named)
            found[name] = here[name] - a * there[name] + a * d * len(rows) * self.mu[name], named, d
        return found

    def step(self, rows, alpha=1.0, add=0.0):
        """A step with these samples; `add`: what is added to the weights before the update, behind the gradient."""
        self.t += 1
        for k, part in enumerate(self._parts(rows)):
            directions = self.direction(k, part, alpha)
            self.copies[k] = {name: value + add for name, value in self.copies[k].items()}
            for name, (g, named, d) in directions.items():
                rate, decay = self.settings.of(name, self.t)
                w, before = self.copies[k][name], self.states[k].get(name)
                moved, states = self.settings.step(w, g / self.size, before, rate, d * decay, self.t)
                named = named.reshape((-1,) + (1,) * (w.ndim - 1))
                before = before or [0.0] * len(states)
                # D is 0 where no batch names a row.
                self.copies[k][name] = np.where(named, moved, np.where(d == 0, w - rate * decay * w, w))
                self.states[k][name] = tuple(np.where(named, new, old) for new, old in zip(states, before))
        return self.weights

    def run(self, epochs, update_freq=2, alpha=lambda epoch: 1.0):
        """Yield the weights after each step."""
        for epoch in range(epochs):
            if epoch % update_freq == 0:
                self.snapshot()
            for rows, _ in self.batches:
                yield self.step(rows, alpha(epoch))
