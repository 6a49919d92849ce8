"""Programs with sparse data, as users write them."""

import mxnet as mx
import numpy as np
import pytest
from scipy.sparse import random as random_csr

from svrg_optimization import CSRIter, SVRGModule

SAMPLES, COLUMNS = 120, 300


def problem(dtype=np.float64):
    """csr samples, and labels that are 0 or 1."""
    x = random_csr(SAMPLES, COLUMNS, density=0.03, format="csr", random_state=0).astype(dtype)
    y = x @ np.random.default_rng(0).normal(size=COLUMNS) > 0
    return x, y.reshape(-1, 1).astype(dtype)


def linear(stype="row_sparse"):
    """Logistic regression."""
    data = mx.sym.Variable("data", stype="csr")
    weight = mx.sym.Variable("linear_weight", stype=stype, shape=(COLUMNS, 1))
    return mx.sym.LogisticRegressionOutput(mx.sym.dot(data, weight), mx.sym.Variable("softmax_label"))


def weights_after_steps(network, epochs=3, **kwargs):
    """The weights after each step of a `fit`."""
    module, seen = SVRGModule(network, update_freq=1, sparse=kwargs.pop("sparse", None)), []
    module.fit(
        CSRIter(*problem(), batch_size=12), num_epoch=epochs, eval_metric="mse", initializer=mx.init.Zero(),
        batch_end_callback=lambda _: seen.append(module.get_params()[0]["linear_weight"].asnumpy()), **kwargs,
    )  # fmt: skip
    return seen


@pytest.mark.parametrize("store", [None, "local"])
def test_dense_steps_are_chosen_alike_whether_the_weight_is_row_sparse(store):
    # The secants of 'auto' are those of this step's weights, not of copies that an earlier one has made.
    settings = {"sparse": "dense", "kvstore": store, "optimizer_params": {"learning_rate": "auto", "wd": 2.0**-9}}
    for ours, theirs in zip(*(weights_after_steps(linear(stype), **settings) for stype in ("row_sparse", "default"))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
