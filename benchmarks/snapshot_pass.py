"""The full pass, `update_full_grads`, against the same two matrix products, batch by batch, in NumPy."""

import time
from typing import Dict, List

import mxnet as mx
import numpy as np

from .contenders import REST, make, quiet
from .convergence import batch_size, network
from .logistic import FEATURES

SEED = 0


def measure(n: int, rounds: int, rest: float = REST) -> Dict[str, List[float]]:
    """Milliseconds of a full pass over n rows of float32, of every round: ours and NumPy's."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((n, FEATURES), dtype=np.float32)
    y = rng.integers(0, 2, n).astype(np.float32)
    rows = batch_size(n)
    train = mx.io.NDArrayIter(x, y, rows)
    module = make("ours", network())
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Zero())
    module.init_optimizer()
    w = np.zeros(FEATURES, np.float32)

    def ours() -> None:
        module.update_full_grads(train)
        mx.nd.waitall()

    def numpy() -> None:
        total = np.zeros_like(w)
        for start in range(0, n, rows):
            batch = x[start : start + rows]
            scores = batch @ w
            total += batch.T @ (1 / (1 + np.exp(-scores)) - y[start : start + rows])

    contenders = {"ours": ours, "NumPy": numpy}
    times: Dict[str, List[float]] = {name: [] for name in contenders}
    with quiet():
        for number in range(rounds + 1):
            for name, function in contenders.items():
                time.sleep(rest)
                start = time.perf_counter()
                function()
                if number:  # the first one warms up
                    times[name].append(1000 * (time.perf_counter() - start))
    return times
