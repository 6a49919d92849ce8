"""Programs written for mxnet.contrib.svrg_optimization run when only their import is changed."""

import logging
import pickle

import mxnet as mx
import numpy as np
import pytest

import svrg_optimization

PACKAGE = svrg_optimization


def network():
    data, label = mx.sym.Variable("data"), mx.sym.Variable("lin_reg_label")
    return mx.sym.LinearRegressionOutput(mx.sym.FullyConnected(data, num_hidden=1, name="fc1"), label, name="lro")


def training_data():
    x = np.arange(1, 1001, dtype=np.float32).reshape(-1, 2) / 1000
    return mx.io.NDArrayIter(x, x.sum(1), batch_size=32, shuffle=False, label_name="lin_reg_label")


def test_the_constructor_takes_every_argument_in_upstreams_order():
    module = PACKAGE.svrg_module.SVRGModule(
        network(), ("data",), ("lin_reg_label",), logging, mx.cpu(), [1], None, None, None, None, 3
    )
    assert module.update_freq == 3
    assert isinstance(module, mx.mod.Module) and isinstance(module._mod_aux, mx.mod.Module)


@pytest.mark.parametrize("kvstore", [None, "local", "device"])
@pytest.mark.parametrize("devices", [1, 2])
def test_the_high_level_api(devices, kvstore):
    module = PACKAGE.svrg_module.SVRGModule(symbol=network(), data_names=["data"], label_names=["lin_reg_label"],
                                            context=[mx.cpu(i) for i in range(devices)], update_freq=2)  # fmt: skip
    train = training_data()
    module.fit(train, eval_metric="mse", optimizer="sgd", optimizer_params=(("learning_rate", 0.25),), num_epoch=60,
               kvstore=kvstore)  # fmt: skip
    assert dict(module.score(train, "mse"))["mse"] < 1e-4


def test_the_intermediate_level_api():
    module = PACKAGE.svrg_module.SVRGModule(symbol=network(), data_names=["data"], label_names=["lin_reg_label"],
                                            update_freq=2)  # fmt: skip
    train = training_data()
    module.bind(data_shapes=train.provide_data, label_shapes=train.provide_label)
    assert module.binded and module._mod_aux.binded
    module.init_params(initializer=mx.init.Uniform(0.01), allow_missing=False, force_init=False, allow_extra=False)
    module.init_optimizer(kvstore="local", optimizer="sgd", optimizer_params=(("learning_rate", 0.25),))
    metric = mx.metric.create("mse")
    for epoch in range(60):
        metric.reset()
        if epoch % module.update_freq == 0:
            module.update_full_grads(train)
        train.reset()
        for batch in train:
            module.forward_backward(data_batch=batch)
            module.update()
            module.update_metric(metric, batch.label)
    assert metric.get()[1] < 1e-4
    assert set(module._param_dict[0]) == {"fc1_weight", "fc1_bias"}


@pytest.mark.parametrize("keys", [(0, 1), ("weight", "weight_full")], ids=["int", "str"])
def test_the_optimizer_on_a_store(keys):
    optimizer = mx.optimizer.create("_SVRGOptimizer", default_optimizer="sgd", learning_rate=1.0,
                                    param_idx2name={0: "weight", 1: "weight_full"})  # fmt: skip
    store = mx.kv.create("local")
    store.set_optimizer(optimizer)
    for key, expected in zip(keys, ([-1.0, -2.0], [1.0, 2.0])):
        value = mx.nd.zeros(2)
        store.init(key, value)
        store.push(key, mx.nd.array([1.0, 2.0]))
        store.pull(key, out=value)
        assert value.asnumpy().tolist() == expected, "a weight is updated, a full gradient assigned"


def test_the_optimizers_by_hand():
    optimizer = mx.optimizer.create("_SVRGOptimizer", default_optimizer=mx.optimizer.Adam(),
                                    param_idx2name={0: "weight", 1: "weight_full"})  # fmt: skip
    assert isinstance(optimizer.default_opt, mx.optimizer.Adam)
    assert isinstance(optimizer.aux_opt, PACKAGE.svrg_optimizer._AssignmentOptimizer)
    weight, full, grad = mx.nd.zeros(2), mx.nd.zeros(2), mx.nd.ones(2)
    assert len(optimizer.create_state(0, weight)) == 2 and optimizer.create_state(1, full) is None
    optimizer.update(1, full, grad, None)
    assert full.asnumpy().tolist() == [1, 1]
    assignment = mx.optimizer.create("_AssignmentOptimizer")
    assignment.update(0, weight, grad, None)
    assert weight.asnumpy().tolist() == [1, 1]


def test_the_optimizer_is_pickled_for_a_server():
    settings = dict(learning_rate=0.5, momentum=0.25, lr_scheduler=mx.lr_scheduler.FactorScheduler(2))
    optimizer = mx.optimizer.create("_SVRGOptimizer", default_optimizer="sgd", param_idx2name={0: "w"}, **settings)
    copy = pickle.loads(pickle.dumps(optimizer, 0))
    assert (copy.lr, copy.momentum, copy.idx2name, copy.lr_scheduler.step) == (0.5, 0.25, {0: "w"}, 2)
    with pytest.raises(AttributeError):
        copy.no_such_attribute
