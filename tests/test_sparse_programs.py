"""Programs with sparse data, as users write them."""

import re

import mxnet as mx
import numpy as np
import pytest
from scipy.sparse import random as random_csr

from svrg_optimization import CSRIter, SVRGModule, sparse_steps
from svrg_optimization.schedules import EveryEpochs

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


# -------------------------------------------------------------------------------------------- messages, and odd batches


def ready(network, **kwargs):
    """A module with a snapshot, whose first step was taken; and its batch."""
    train = CSRIter(*problem(), batch_size=12)
    module = SVRGModule(network, update_freq=1, **kwargs)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Zero())
    module.init_optimizer(optimizer_params={"learning_rate": 0.5})
    module.update_full_grads(train)
    batch = next(train)
    step(module, batch)
    return module, batch


def step(module, batch):
    module.forward_backward(batch)
    module.update()
    return module.get_params()[0]["linear_weight"].asnumpy()


@pytest.mark.parametrize(
    "network, sparse, optimizer, line",
    [
        (linear(), None, "sgd", "Steps are lazy: "),
        (linear(), "reweighted", "sgd", "Steps are reweighted: "),
        (linear(), None, "adam", "Steps are reweighted: .*: Adam is not SGD"),
        (linear("default"), None, "adam", "Steps are dense, .*: Adam is not SGD"),
    ],
)
def test_the_log_says_once_how_steps_treat_rows(network, sparse, optimizer, line, caplog):
    with caplog.at_level("INFO"):
        weights_after_steps(network, sparse=sparse, optimizer=optimizer)
    (said,) = (each.getMessage() for each in caplog.records if each.getMessage().startswith("Steps are"))
    assert re.match(line, said)


@pytest.mark.parametrize("sparse", ["lazy", "reweighted"])
def test_a_network_whose_gradients_have_all_rows(sparse):
    looked_up = mx.sym.Embedding(mx.sym.Variable("data"), input_dim=5, output_dim=1, name="vectors")
    network = mx.sym.LinearRegressionOutput(mx.sym.sum(looked_up, axis=1), mx.sym.Variable("softmax_label"))
    module = SVRGModule(network, sparse=sparse)
    module.bind([("data", (4, 3))], [("softmax_label", (4, 1))])
    module.init_params()
    with pytest.raises(ValueError, match="sparse='{}' can't be had: no weight .* sparse_grad=True".format(sparse)):
        module.init_optimizer()


@pytest.mark.parametrize("sparse", ["lazy", "reweighted"])
@pytest.mark.parametrize("column", [-1, COLUMNS])
def test_columns_that_a_batch_cannot_have(sparse, column, monkeypatch):
    # Dense steps are MXNet's own, which reads whatever lies there.
    monkeypatch.setattr(sparse_steps, "_SMALL", 0)
    module, batch = ready(linear(), sparse=sparse)
    wrong = mx.nd.sparse.csr_matrix(([1.0], [column], [0] + 12 * [1]), shape=(12, COLUMNS), dtype="float64")
    with pytest.raises(ValueError, match="has the column {}, and its columns are 0 to 299".format(column)):
        step(module, mx.io.DataBatch([wrong], batch.label))


@pytest.mark.parametrize("sparse", ["lazy", "reweighted", "dense"])
def test_dense_batches_for_csr_data(sparse, monkeypatch):
    monkeypatch.setattr(sparse_steps, "_SMALL", 0)
    (ours, batch), (theirs, _) = (ready(linear(), sparse=sparse) for _ in range(2))
    dense = mx.io.DataBatch([batch.data[0].tostype("default")], batch.label)
    np.testing.assert_array_equal(step(ours, dense), step(theirs, batch))


@pytest.mark.parametrize("at", ["average", "random"])
def test_snapshots_at_another_iterate_with_rows_that_nothing_has_moved(at):
    # The weights begin at 0, and rows that occur in no sample stay there.
    snapshots = EveryEpochs(1, at=at)
    modules = [SVRGModule(linear(stype), snapshots=snapshots) for stype in ("row_sparse", "default")]
    for module in modules:
        module.fit(CSRIter(*problem(), batch_size=12), num_epoch=3, eval_metric="mse", initializer=mx.init.Zero())
    ours, theirs = (module.get_params()[0]["linear_weight"].asnumpy() for module in modules)
    assert (theirs == 0).any()
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
