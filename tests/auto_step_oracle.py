"""SVRG whose steps choose themselves, in NumPy: slow, and to be compared with docs/auto_step.md line by line."""

import numpy as np
import oracle

PART, PROBE, FLAT, LONGEST = 0.7, 1e-4, 1e-4, 3.0
NO_MOMENTUM = 1e-30


def as_vector(arrays, names):
    """One vector of all parameters."""
    return np.concatenate([np.ravel(arrays[name]) for name in names])


class AutoStep:
    """The rule. Vectors are those of the objective, decay included; `free` are the coordinates of a Newton step."""

    def __init__(self, momentum, most):
        self.L, self.theta, self.seen, self.pairs, self.e = 0.0, 1.0, 0.0, [], 0.0
        self.users, self.most, self.since_start = momentum, most, 0.0
        self.slope = self.tested = self.at_begin = 0.0

    def rate(self):
        """eta and beta."""
        beta = max(NO_MOMENTUM, 1 - 1 / self.theta) if self.users is None else self.users
        # In the first period, a step goes at most ten times as far as secants were measured.
        longest = 10 * self.tested / self.slope if self.slope else np.inf
        return min(longest, PART / self.L * min(1, self.theta * (1 - beta))), beta

    def see(self, secant, distance):
        self.seen, self.tested = max(self.seen, secant), max(self.tested, distance)
        self.L = max(self.L, self.seen)
        self.at_begin = self.at_begin or secant

    def snapshot(self, w0, g0, w, g):
        """Whether it is better than the last one; then `e` is where the period begins, seen from it."""
        d, y = w - w0, g - g0
        change = (g + g0) @ d / 2
        above_start = self.since_start + change > 0
        doubled = np.linalg.norm(g) > 2 * np.linalg.norm(g0)
        if not np.isfinite(d @ g) or (change > 0 and (doubled or above_start)):
            self.L = min(self.L, 10 * self.at_begin)
            self.theta, self.pairs, self.seen, self.e = max(self.theta / 4, 1e-3), [], 0.0, 0.0
            self.at_begin, self.tested = self.L, self.tested / 100
            return False
        if np.linalg.norm(d) <= 10 * np.finfo(float).eps * np.linalg.norm(w):
            self.seen, self.e = 0.0, 0.0
            return True
        self.since_start += change
        self.theta = min(1.5 * self.theta, 10) if g @ (d - self.e) < 0 else max(self.theta / 2, 1e-3)
        self.L = max(self.seen, np.linalg.norm(y) / np.linalg.norm(d), 0.9 * self.L)
        self.seen, self.at_begin, self.slope = 0.0, self.L, 0.0
        if self.most and d @ y > 0:
            self.pairs = [*self.pairs, (d / np.linalg.norm(d), y / np.linalg.norm(d))][-self.most :]
        self.e = np.zeros_like(w)
        if self.pairs:
            s, ys = (np.array(rows) for rows in zip(*self.pairs))
            curvatures, q = np.linalg.eigh((s @ ys.T + ys @ s.T) / 2)
            directions = list(zip(curvatures, q.T @ s))
            most = max(curvature for curvature, _ in directions)
            self.e = sum(-u * (u @ g) / curvature for curvature, u in directions if curvature > FLAT * most)
            length, most = np.linalg.norm(self.e), LONGEST * np.linalg.norm(d)
            self.e *= min(1, most / length) if length else 1
        return True


def svrg(problem, w, shards, *, batch_size, epochs, update_freq=1, wd=0.0, momentum=None, most=5, rule=None):
    """Yield the weights after each step, and what the rule has come to: (w, rate, momentum, whether it went back).

    `shards` has the data of each worker, of whose batches all take a step together.
    """
    names, everything = sorted(w), [sample for shard in shards for sample in shard]
    decays = as_vector({name: np.full(w[name].shape, wd if name.endswith("_weight") else 0.0) for name in w}, names)
    rule, w0, batch = rule or AutoStep(momentum, most), None, batch_size * len(shards)

    def apart(vector):
        sizes = np.cumsum([np.size(w[name]) for name in names])[:-1]
        return {name: part.reshape(np.shape(w[name])) for name, part in zip(names, np.split(vector, sizes))}

    def gradient(at, samples):
        return as_vector(oracle.sum_of(problem.gradient(apart(at), *sample) for sample in samples), names)

    at, v, first, measured, known = as_vector(w, names), 0.0, True, None, None
    for epoch in range(epochs):
        went_back = False
        if epoch % update_freq == 0:
            for secant in (known, measured):
                if secant:
                    rule.see(*secant)
            measured, known, steps = None, None, 0
            mu = gradient(at, everything) / len(everything)
            g = mu + decays * at
            if w0 is None:
                w0, mu0, g0, eta, beta = at, mu, g, PROBE / np.linalg.norm(g), momentum or NO_MOMENTUM
                rule.slope, rule.tested = np.linalg.norm(g), PROBE
            elif rule.snapshot(w0, g0, at, g):
                w0, mu0, g0, first = at, mu, g, False
                at = at + rule.e
                v = v if momentum is None else 0.0
            else:
                at, v, went_back = w0, 0.0, True
            if rule.L:
                eta, beta = rule.rate()
        for batches in zip(*(oracle.padded_batches(len(shard), batch_size) for shard in shards)):
            changes = [
                gradient(at, [shard[i] for i in rows]) - gradient(w0, [shard[i] for i in rows])
                for shard, rows in zip(shards, batches)
            ]
            # After the first period, a secant is seen in the step after the next measurement.
            if known is not None:
                if known:
                    rule.see(*known)
                known = None
            if first or steps == 3 or steps % 8 == 7:
                d = np.linalg.norm(at - w0)
                far = d > 10 * np.finfo(float).eps * np.linalg.norm(w0)
                secant = (sum(map(np.linalg.norm, changes)) / batch / d + max(decays), d) if far else ()
                if not first:
                    known, measured = measured, secant
                elif far:
                    rule.see(*secant)
            if rule.L:
                eta, beta = rule.rate()
            eta32, beta32, rescale = np.float32(eta), np.float32(beta), np.float32(1 / batch)
            v = beta32 * v - eta32 * (rescale * (sum(changes) + batch * mu0) + decays * at)
            at, steps = at + v, steps + 1
            yield apart(at), eta, beta, went_back
