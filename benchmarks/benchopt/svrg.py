"""SVRGModule as a solver for benchopt's benchmark_logreg_l2. How to run it: README.md beside this file."""

import contextlib
import math
import sys
import warnings

import numpy as np
from benchopt import BaseSolver
from scipy import sparse

from svrg_optimization import SVRGModule

with warnings.catch_warnings():
    # mxnet 1.9.1 uses what NumPy and Python have deprecated since.
    warnings.simplefilter("ignore")
    import mxnet as mx


class Solver(BaseSolver):
    """Minimizes sum(log(1 + exp(-y x'w))) + lmbd |w|^2 / 2 by SVRG, with steps that choose themselves, in float64.

    Parameters
    ----------
    batch_factor : float
        A batch has this times sqrt(n) of the n rows.
    update_freq : int
        Epochs from one snapshot to the next.
    """

    name = "svrg-mxnet"
    sampling_strategy = "callback"
    parameters = {"batch_factor": [6], "update_freq": [1]}  # noqa: RUF012 - as benchopt wants it

    def skip(self, X, y, lmbd, fit_intercept=False):
        """Whether the solver can't take the problem, and why."""
        if sparse.issparse(X):
            return True, "X is sparse, and this solver takes dense data only"
        if fit_intercept:
            return True, "this solver fits no intercept"
        return False, None

    def set_objective(self, X, y, lmbd, fit_intercept=False):
        """Copy the data to MXNet, in an order drawn once: files may be sorted by label."""
        n = len(X)
        order = np.random.default_rng(0).permutation(n)
        # NDArrayIter would cast NumPy's arrays, and those that it shuffles itself, to float32.
        self.train = mx.io.NDArrayIter(
            mx.nd.array(X[order], dtype="float64"),
            mx.nd.array(y[order] > 0, dtype="float64"),  # LogisticRegressionOutput wants 0 and 1
            batch_size=max(1, min(n, round(self.batch_factor * math.sqrt(n)))),
        )
        # SVRGModule minimizes the mean over the rows, the benchmark the sum.
        self.decay = lmbd / n
        self.beta = np.zeros(X.shape[1])

    def run(self, cb):
        """Train until the callback, called before the first epoch and after each, returns False."""
        self.beta = np.zeros_like(self.beta)
        if not cb():
            return

        def after_epoch(epoch, symbol, weights, auxiliary):
            self.beta = weights["fc_weight"].asnumpy().ravel()
            if not cb():
                raise _Stopped

        score = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
        network = mx.sym.LogisticRegressionOutput(score, mx.sym.Variable("softmax_label"))
        self.train.reset()
        with contextlib.suppress(_Stopped):
            SVRGModule(network, update_freq=self.update_freq).fit(
                self.train,
                num_epoch=sys.maxsize,
                initializer=mx.init.Zero(),
                optimizer="sgd",
                optimizer_params={"learning_rate": "auto", "wd": self.decay},
                eval_metric=mx.metric.CompositeEvalMetric([]),  # none: it would take time
                epoch_end_callback=after_epoch,
            )

    def get_result(self):
        """The weights."""
        return {"beta": self.beta}


class _Stopped(Exception):
    """The callback wants no more epochs."""
