"""One test for each defect measured in mxnet.contrib.svrg_optimization, named after its symptom.

`mutation_run.py` seeds each defect and sees the test fail.
"""

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, sharer_of, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule, _SVRGOptimizer

LINEAR, _, SOFTMAX, TWO_LAYER = oracle.PROBLEMS
EXACT = dict(rtol=1e-12, atol=1e-14)


def full_gradients(module, device=0):
    return {name: value.asnumpy() for name, value in module._param_dict[device].items()}


def times(factor, arrays):
    return {name: factor * value for name, value in arrays.items()}


def test_weights_named_fullyconnected_become_nan():
    # mxnet's own default name, fullyconnected0_weight, contains "full".
    names = {"fc_weight": "fullyconnected0_weight", "fc_bias": "fullyconnected0_bias"}
    data, weights = samples(LINEAR, 8)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fullyconnected0")
    train = iterator(LINEAR, data, 4)
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")),
                        context=[mx.cpu(0), mx.cpu(1)])  # fmt: skip
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={names[name]: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    expected = oracle.svrg(LINEAR, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, {names[name]: value for name, value in wanted.items()}, **EXACT)


def test_parameter_named_like_the_full_gradient_of_another_is_mistaken_for_it():
    clash = mx.sym.Variable("x_weight", shape=(1,)) + mx.sym.Variable("x_weight_full", shape=(1,))
    with pytest.raises(ValueError, match="'x_weight' and 'x_weight_full'.*rename one"):
        SVRGModule(clash, data_names=None, label_names=None)


def test_full_gradient_remembers_the_last_snapshot():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.update_full_grads(train)
    module.update_full_grads(train)
    assert_same(full_gradients(module), times(4, oracle.full_gradient(SOFTMAX, weights, data)), **EXACT)


@pytest.mark.parametrize("n", [5, 6, 7, 9, 13], ids="n={}".format)
def test_padded_rows_are_counted_in_the_full_gradient(n):
    data, weights = samples(SOFTMAX, n)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.update_full_grads(train)
    assert_same(full_gradients(module), times(4, oracle.full_gradient(SOFTMAX, weights, data)), **EXACT)


def test_init_optimizer_zeroes_the_weights_when_the_store_updates_them():
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), devices=2, kvstore="local")
    assert_same(weights_of(module), weights)
    for on_devices in module._exec_group.param_arrays:
        assert all(np.array_equal(on_devices[0].asnumpy(), other.asnumpy()) for other in on_devices)
        assert on_devices[0].asnumpy().any()


@pytest.mark.parametrize(
    "kind, reason", [("dist_sync", "a job"), ("dist_device_sync", "a job"), ("dist_async", "the same weights")]
)
def test_a_distributed_store_hangs_for_ever(kind, reason):
    # What happens in a job is in test_distributed.
    data, weights = samples(SOFTMAX, 8)
    with pytest.raises(ValueError, match="kvstore='{}'.*{}".format(kind, reason)):
        ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), kvstore=kind)


def test_fixed_parameters_crash():
    data, weights = samples(TWO_LAYER, 8)
    fixed = ["fc1_weight", "fc2_bias"]
    train = iterator(TWO_LAYER, data, 4)
    module = ready(TWO_LAYER, weights, train, fixed_param_names=fixed)
    expected = oracle.svrg(TWO_LAYER, weights, data, lambda: oracle.Optimizer(mult=dict.fromkeys(fixed, 0.0)),
                           batch_size=4, epochs=3, update_freq=2)  # fmt: skip
    for actual, wanted in zip(train_steps(module, train, 3), expected):
        assert_same(actual, wanted, **EXACT)
    assert_same({name: actual[name] for name in fixed}, {name: weights[name] for name in fixed})


def test_float64_crashes_or_is_computed_in_float32():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.update_full_grads(train)
    for name, value in module._param_dict[0].items():
        assert value.dtype == module._mod_aux._exec_group.grad_arrays[0][0].dtype == np.float64, name


@pytest.mark.parametrize("store", [None, "local", "object"])
def test_row_sparse_parameters_crash(store):
    rng = np.random.default_rng(0)
    x = (rng.random((8, 5)) * (rng.random((8, 5)) < 0.5)).astype(np.float32)
    y, w = rng.random((8, 1)).astype(np.float32), rng.random((5, 1)).astype(np.float32)
    weight = mx.sym.Variable("w_weight", stype="row_sparse", shape=(5, 1))
    output = mx.sym.sparse.dot(mx.sym.Variable("data", stype="csr"), weight)
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")))
    module.bind([("data", (4, 5))], [("softmax_label", (4, 1))])
    module.init_params(arg_params={"w_weight": mx.nd.array(w).tostype("row_sparse")}, aux_params={})
    module.init_optimizer(kvstore=mx.kv.create("local") if store == "object" else store,
                          optimizer_params={"learning_rate": 0.25})  # fmt: skip
    batches = [mx.io.DataBatch([mx.nd.array(x[i : i + 4]).tostype("csr")], [mx.nd.array(y[i : i + 4])]) for i in (0, 4)]
    all_rows = {"w_weight": mx.nd.arange(5, dtype="int64")}
    module.update_full_grads(batches)
    mu = x.T @ (x @ w - y) / 8
    at_snapshot = w.copy()
    for i, batch in zip((0, 4), batches):
        rows, target = x[i : i + 4], y[i : i + 4]
        module.prepare(batch, sparse_row_id_fn=(lambda _: all_rows) if store == "object" else None)
        module.forward_backward(batch)
        module.update()
        gradient = rows.T @ (rows @ w - target) - rows.T @ (rows @ at_snapshot - target) + 4 * mu
        w = w - 0.25 * gradient / 4
        np.testing.assert_allclose(module.get_params()[0]["w_weight"].asnumpy(), w, rtol=1e-5, atol=1e-6)


def test_forward_without_is_train_leaves_the_gradients_of_the_snapshot_stale():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=1, update_freq=1)
    module.update_full_grads(train)
    for batch, wanted in zip(train, expected):
        module.forward(batch)
        module.backward()
        module.update()
        assert_same(weights_of(module), wanted, **EXACT)


@pytest.mark.parametrize("devices", [1, 2])
def test_set_learning_rate_does_not_reach_the_optimizer(devices):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, devices=devices)
    module._optimizer.set_learning_rate(0.0)
    assert module._optimizer.learning_rate == module._optimizer.default_opt.lr == 0
    assert_same(list(train_steps(module, train, 1))[-1], weights)


@pytest.mark.parametrize("set_by", ["symbol", "method"])
@pytest.mark.parametrize("multiplier", ["lr_mult", "wd_mult"])
@pytest.mark.parametrize("devices", [1, 2])
def test_multipliers_do_not_reach_the_optimizer(devices, multiplier, set_by):
    data, weights = samples(LINEAR, 8)
    variable = mx.sym.Variable("fc_weight", **({multiplier: 0.0} if set_by == "symbol" else {}))
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), variable, num_hidden=1, name="fc")
    train = iterator(LINEAR, data, 4)
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")),
                        context=[mx.cpu(i) for i in range(devices)])  # fmt: skip
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25, "wd": 0.125})
    if set_by == "method":
        getattr(module._optimizer, "set_" + multiplier)({"fc_weight": 0.0, "fc_bias": 1.0})
        if multiplier == "wd_mult":
            module._optimizer.set_wd_mult({"fc_weight": 0.0})
    copy = {
        "lr_mult": lambda: oracle.Optimizer(wd=0.125, mult={"fc_weight": 0.0}),
        "wd_mult": lambda: oracle.Optimizer(),
    }[multiplier]
    expected = oracle.svrg(LINEAR, weights, data, copy, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, **EXACT)


def test_lr_scheduler_set_later_does_not_reach_the_optimizer():
    optimizer = mx.optimizer.create("_SVRGOptimizer", default_optimizer="sgd", param_idx2name={0: "w"})
    assert isinstance(optimizer, _SVRGOptimizer)
    optimizer.lr_scheduler = mx.lr_scheduler.FactorScheduler(1, 0.5, base_lr=1.0)
    weight = mx.nd.zeros(1)
    for wanted in (-1.0, -1.5, -1.75):
        optimizer.update(0, weight, mx.nd.ones(1), None)
        assert weight.asscalar() == wanted


def test_shared_module_makes_the_snapshot_follow_the_weights():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    owner = ready(SOFTMAX, weights, train)
    sharer = sharer_of(owner, SOFTMAX, train)
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    sharer.update_full_grads(train)
    for epoch in range(2):
        train.reset()
        # The two modules take turns: one set of weights, one snapshot.
        for module, batch in zip((owner, sharer), train):
            module.forward_backward(batch)
            module.update()
            assert_same(weights_of(module), next(expected), **EXACT)
    assert_same({name: value.asnumpy() for name, value in sharer._mod_aux.get_params()[0].items()}, weights)


def test_sharing_with_a_plain_module_makes_the_snapshot_follow_the_weights():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    owner = ready(SOFTMAX, weights, train, module=mx.mod.Module)
    sharer = sharer_of(owner, SOFTMAX, train)
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(sharer, train, 2), expected):
        assert_same(actual, wanted, **EXACT)


@pytest.mark.parametrize("value, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError),
                                          ("2", TypeError), (None, TypeError)], ids=repr)  # fmt: skip
def test_update_freq_that_is_no_positive_integer_is_accepted(value, error):
    with pytest.raises(error, match="update_freq={!r} must be".format(value)):
        SVRGModule(symbol(LINEAR), update_freq=value)


RANDOM_LAYERS = {
    "Dropout": lambda data: mx.sym.Dropout(data, p=0.5),
    "noise": lambda data: data + mx.sym.random.normal_like(data),
}


@pytest.mark.parametrize("layer", RANDOM_LAYERS)
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("evaluated", [None, 4])
def test_dropout_draws_other_masks_at_the_snapshot(devices, layer, evaluated, snapshot_gradients):
    hidden = RANDOM_LAYERS[layer](mx.sym.Variable("data"))
    output = mx.sym.FullyConnected(hidden, num_hidden=2, name="fc")
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")),
                        context=[mx.cpu(i) for i in range(devices)])  # fmt: skip
    train = mx.io.NDArrayIter(mx.nd.random.normal(shape=(8, 20)), mx.nd.random.normal(shape=(8, 2)), 8)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Uniform(1))
    module.init_optimizer()
    module.update_full_grads(train)
    # The weights are the snapshot: with the same draws, both gradients are the same, and only b * mu is left.
    train.reset()
    batch = next(train)
    seen = []
    for _ in range(2):
        if evaluated is not None:
            # A batch of another size, for evaluation, reshapes the live network.
            few = mx.io.DataBatch([batch.data[0][:evaluated]], [batch.label[0][:evaluated]])
            module.forward(few, is_train=False)
        module.forward_backward(batch)
        at_snapshot = list(snapshot_gradients[-1].values())
        seen.append(at_snapshot[0][0])
        for (name, corrected), same in zip(
            zip(module._exec_group.param_names, module._exec_group.grad_arrays), at_snapshot
        ):
            for device, gradient in enumerate(corrected):
                full = module._param_dict[device][name].asnumpy()
                np.testing.assert_allclose(gradient.asnumpy(), full, rtol=0, atol=1e-6 * abs(same[device]).max())
    assert not np.array_equal(*seen), "every step must draw anew"


def test_a_sharers_steps_count_at_the_next_snapshot():
    # Module itself gives weights that a sharer has changed since as they were.
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    owner = ready(SOFTMAX, weights, train)
    sharer = sharer_of(owner, SOFTMAX, train)
    owner.get_params()
    for batch in train:
        sharer.forward_backward(batch)
        sharer.update()
    owner.update_full_grads(train)
    now = weights_of(sharer)
    assert_same({name: value.asnumpy() for name, value in owner.full_gradient.items()},
                oracle.full_gradient(SOFTMAX, now, data), **EXACT)  # fmt: skip
    assert_same({name: value.asnumpy() for name, value in owner._mod_aux.get_params()[0].items()}, now)
