"""Everything that Module has works on SVRGModule, with Module's meaning."""

import logging
import warnings
from collections import namedtuple

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule

LINEAR, LOGISTIC, SOFTMAX, TWO_LAYER = oracle.PROBLEMS
EXACT = dict(rtol=1e-12, atol=1e-14)
Batch = namedtuple("Batch", "data label")


def gradients_of(module):
    """The gradients, added up over the devices."""
    group = module._exec_group
    return {
        name: sum(g.asnumpy() for g in on_devices) for name, on_devices in zip(group.param_names, group.grad_arrays)
    }


def corrected(weights, snapshot, data, rows, problem=SOFTMAX):
    """The variance-reduced gradient of a batch, from the oracle."""
    mu = oracle.full_gradient(problem, snapshot, data)
    return oracle.sum_of(
        {
            name: here - there + mu[name]
            for (name, here), there in zip(
                problem.gradient(weights, *data[i]).items(), problem.gradient(snapshot, *data[i]).values()
            )
        }
        for i in rows
    )


def batch_of(data, rows, dtype=np.float64):
    return mx.io.DataBatch([nd([data[i][0] for i in rows], dtype)], [nd([data[i][1] for i in rows], dtype)], pad=0)


@pytest.fixture
def trained():
    """A softmax regression some steps after its snapshot: (module, data, snapshot's weights, weights)."""

    def make(devices=1, n=10, batch_size=4, **kwargs):
        data, snapshot = samples(SOFTMAX, n)
        train = iterator(SOFTMAX, data, batch_size)
        module = ready(SOFTMAX, snapshot, train, devices=devices, **kwargs)
        *_, weights = train_steps(module, train, 1)
        return module, data, snapshot, weights

    return make


# ------------------------------------------------------------------------------------------------ batches and passes


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("rows", [range(2), range(5), range(10)], ids=len)
def test_a_batch_of_another_size_adds_its_own_number_of_rows(trained, rows, devices):
    module, data, snapshot, weights = trained(devices)
    module.forward_backward(batch_of(data, rows))
    assert_same(gradients_of(module), corrected(weights, snapshot, data, rows), **EXACT)
    module.forward_backward(batch_of(data, range(4)))
    assert_same(gradients_of(module), corrected(weights, snapshot, data, range(4)), **EXACT)


def test_reshape_is_followed_by_the_snapshot(trained):
    module, data, snapshot, weights = trained()
    module.reshape([("data", (6, 3))], [("softmax_label", (6,))])
    module.forward_backward(batch_of(data, range(6)))
    assert module.get_outputs()[0].shape == (6, 3)
    assert_same(gradients_of(module), corrected(weights, snapshot, data, range(6)), **EXACT)


def test_a_list_of_batches_one_for_each_device(trained):
    module, data, snapshot, weights = trained(2)
    module.forward([batch_of(data, [0, 1]), batch_of(data, [2, 3])], is_train=True)
    module.backward()
    assert_same(gradients_of(module), corrected(weights, snapshot, data, range(4)), **EXACT)


def test_full_gradient_over_lists_of_batches():
    data, weights = samples(SOFTMAX, 7)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), devices=2)
    last = batch_of(data, [6, 0])
    last.pad = 1
    module.update_full_grads([[batch_of(data, [0, 1]), batch_of(data, [2, 3])], [batch_of(data, [4, 5]), last]])
    mu = oracle.full_gradient(SOFTMAX, weights, data)
    assert_same({name: value.asnumpy() for name, value in module._param_dict[1].items()},
                {name: 2 * value for name, value in mu.items()}, **EXACT)  # fmt: skip


@pytest.mark.parametrize("handling, batches", [("discard", 2), ("roll_over", 2), ("pad", 3)])
def test_full_gradient_is_over_all_samples_however_far_the_iterator_was(handling, batches):
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4, last_batch_handle=handling)
    module = ready(SOFTMAX, weights, train)
    list(train)
    train.reset()
    next(train)
    module.update_full_grads(train)
    mu = oracle.full_gradient(SOFTMAX, weights, data)
    assert_same({name: value.asnumpy() for name, value in module._param_dict[0].items()},
                {name: 4 * value for name, value in mu.items()}, **EXACT)  # fmt: skip
    assert train.last_batch_handle == handling
    assert len(list(train)) == batches, "the iterator was left at its start"


def test_full_gradient_over_an_iterator_of_other_batch_size(trained):
    module, data, snapshot, weights = trained()
    module.update_full_grads(iterator(SOFTMAX, data, 7))
    module.forward_backward(batch_of(data, range(4)))
    assert_same(gradients_of(module), corrected(weights, weights, data, range(4)), **EXACT)


def fixed_batch_size(problem, size):
    """A network with the batch size written into it."""
    data = mx.sym.Variable("data").reshape((size, oracle.FEATURES))
    output = mx.sym.FullyConnected(data, num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(output, mx.sym.Variable("softmax_label"), name="out")


@pytest.mark.parametrize("n", [5, 6, 7, 8])
def test_full_gradient_of_a_network_that_takes_one_batch_size_only(n):
    data, weights = samples(SOFTMAX, n)
    train = iterator(SOFTMAX, data, 4)
    module = SVRGModule(fixed_batch_size(SOFTMAX, 4))
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer()
    module.update_full_grads(train)
    assert_same({name: value.asnumpy() for name, value in module._param_dict[0].items()},
                {name: 4 * value for name, value in oracle.full_gradient(SOFTMAX, weights, data).items()},
                rtol=1e-12, atol=1e-13)  # fmt: skip


@pytest.mark.parametrize("layout", ["TNC", "NTC"])
def test_the_batch_axis_is_the_layouts(layout):
    # Three time steps, summed; only the axis that the rows lie along differs.
    axis = layout.find("N")
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(7, 3, 2)), rng.normal(size=(7, 1)), rng.normal(size=(1, 2))
    summed = mx.sym.sum(mx.sym.Variable("data"), axis=1 - axis)
    output = mx.sym.FullyConnected(summed, num_hidden=1, no_bias=True, name="fc")
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")))
    shape = (3, 4, 2) if axis else (4, 3, 2)
    module.bind([mx.io.DataDesc("data", shape, np.float64, layout)],
                [mx.io.DataDesc("softmax_label", (4, 1), np.float64, "NC")])  # fmt: skip
    module.init_params(arg_params={"fc_weight": nd(w)}, aux_params={})
    module.init_optimizer()
    batches = []
    for rows in ([0, 1, 2, 3], [4, 5, 6, 0]):
        values = x[rows].swapaxes(0, 1) if axis else x[rows]
        batches.append(mx.io.DataBatch([nd(values)], [nd(y[rows])], pad=int(rows[-1] == 0)))
    module.update_full_grads(batches)
    total = x.sum(axis=1)
    mu = (total @ w.T - y).T @ total / 7
    np.testing.assert_allclose(module._param_dict[0]["fc_weight"].asnumpy(), 4 * mu, rtol=1e-12)


@pytest.mark.parametrize("n", [8, 10])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("normalization", ["batch", "valid"])
def test_output_layers_that_average_train_like_those_that_sum(normalization, devices, n):
    data, weights = samples(SOFTMAX, n)
    train = iterator(SOFTMAX, data, 4)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    mean = SVRGModule(mx.sym.SoftmaxOutput(output, mx.sym.Variable("softmax_label"), normalization=normalization),
                      context=[mx.cpu(i) for i in range(devices)])  # fmt: skip
    mean.bind(train.provide_data, train.provide_label)
    mean.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    mean.init_optimizer(optimizer_params={"learning_rate": 0.25, "rescale_grad": 1 / devices})
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=4, update_freq=2)
    for actual, wanted in zip(train_steps(mean, train, 4), expected):
        assert_same(actual, wanted, **EXACT)


def test_output_layers_that_disagree_are_mentioned(caplog):
    data = mx.sym.Variable("data")
    SVRGModule(mx.sym.Group([mx.sym.SoftmaxOutput(data, name="a", normalization="batch"),
                             mx.sym.SoftmaxOutput(data, name="b")]), label_names=["a_label", "b_label"])  # fmt: skip
    assert "give all output layers the same normalization" in caplog.text


def test_head_gradients_for_a_network_without_a_loss():
    """backward(out_grads): softmax regression with its loss outside the network."""
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    output = mx.sym.softmax(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc"))

    def head(outputs, batch):
        # d(-log p_y) / dp
        chosen = mx.nd.one_hot(batch.label[0], 3, dtype="float64")
        return [-chosen / outputs[0]]

    module = SVRGModule(output, label_names=None)
    module.bind(train.provide_data)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=1)
    for _ in range(2):
        module.update_full_grads(train, out_grads=head)
        train.reset()
        for batch in train:
            module.forward(batch)
            module.backward(head)
            module.update()
            assert_same(weights_of(module), next(expected), **EXACT)


def test_head_gradients_given_as_arrays():
    """Arrays do when they don't depend on the outputs: here, ones on a loss of each sample."""
    data, weights = samples(LINEAR, 8)
    train = iterator(LINEAR, data, 4)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    module = SVRGModule(0.5 * mx.sym.square(output - mx.sym.Variable("softmax_label")))
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    expected = oracle.svrg(LINEAR, weights, data, oracle.Optimizer, batch_size=4, epochs=1, update_freq=1)
    module.update_full_grads(train, out_grads=lambda outputs, _: [mx.nd.ones_like(outputs[0])])
    for batch in train:
        module.forward(batch)
        module.backward([mx.nd.ones((4, 1), dtype="float64")])
        module.update()
        assert_same(weights_of(module), next(expected), **EXACT)


def test_outputs_are_those_of_the_live_weights(trained):
    module, data, _, _ = trained()
    plain = mx.mod.Module(symbol(SOFTMAX))
    plain.bind([mx.io.DataDesc("data", (4, 3), np.float64)], [mx.io.DataDesc("softmax_label", (4,), np.float64)])
    plain.set_params(*module.get_params())
    for each in (module, plain):
        each.forward_backward(batch_of(data, range(4)))
    np.testing.assert_array_equal(*(each.get_outputs()[0].asnumpy() for each in (module, plain)))


def test_input_gradients_are_those_of_the_current_weights(trained):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    made = []
    for cls in (SVRGModule, mx.mod.Module):
        module = cls(symbol(SOFTMAX))
        module.bind(train.provide_data, train.provide_label, inputs_need_grad=True)
        module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
        module.init_optimizer()
        made.append(module)
    made[0].update_full_grads(train)
    for module in made:
        module.forward_backward(batch_of(data, range(4)))
    assert np.array_equal(*(module.get_input_grads()[0].asnumpy() for module in made))


@pytest.mark.parametrize("grad_req", [
    {"fc1_weight": "null"}, ["null", "null", "write", "write", "write", "null"],
    {"fc1_weight": "null", "data": "write"},
], ids=["dict", "list", "dict with inputs"])  # fmt: skip
def test_grad_req_null_leaves_a_parameter_alone(grad_req):
    data, weights = samples(TWO_LAYER, 8)
    train = iterator(TWO_LAYER, data, 4)
    module = SVRGModule(symbol(TWO_LAYER))
    assert module.symbol.list_arguments() == [
        "data",
        "fc1_weight",
        "fc1_bias",
        "fc2_weight",
        "fc2_bias",
        "softmax_label",
    ]
    module.bind(train.provide_data, train.provide_label, grad_req=grad_req)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    copy = lambda: oracle.Optimizer(mult={"fc1_weight": 0.0})  # noqa: E731
    expected = oracle.svrg(TWO_LAYER, weights, data, copy, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, **EXACT)


def test_states_are_the_same_at_the_snapshot():
    """A state is an input that the module keeps: here, added to the output."""
    data, weights = samples(LINEAR, 10)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc") + mx.sym.Variable("state")
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")), state_names=["state"])
    train = iterator(LINEAR, data, 4)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    module.set_states(value=0.5)
    shifted = [(x, y - 0.5) for x, y in data]
    expected = oracle.svrg(LINEAR, weights, shifted, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, rtol=1e-12, atol=1e-13)


# ------------------------------------------------------------------------------------- evaluation, binding, monitors


# Module itself warns of the missing labels.
@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
def test_evaluation_does_not_pay_for_the_snapshot(trained, monkeypatch):
    module, data, _, weights = trained()

    def fail(*args, **kwargs):
        raise AssertionError("the snapshot was run")

    for method in ("forward", "backward", "reshape", "set_params"):
        monkeypatch.setattr(module._mod_aux, method, fail)
    held_out = iterator(SOFTMAX, data, 5)
    module.score(held_out, "acc")
    assert module.predict(held_out).shape == (10, 3)
    module.forward(batch_of(data, range(3)), is_train=False)
    inference = SVRGModule(symbol(SOFTMAX))
    inference.bind(held_out.provide_data, for_training=False)
    assert not inference._mod_aux.binded
    inference.set_params(*module.get_params())
    np.testing.assert_array_equal(inference.predict(held_out).asnumpy(), module.predict(held_out).asnumpy())


@pytest.mark.parametrize("devices", [1, 2])
def test_rebinding_keeps_the_snapshot(trained, devices):
    module, data, snapshot, weights = trained(devices)
    module.bind([mx.io.DataDesc("data", (2, 3), np.float64)], [mx.io.DataDesc("softmax_label", (2,), np.float64)],
                force_rebind=True)  # fmt: skip
    module.forward_backward(batch_of(data, [3, 4]))
    assert_same(gradients_of(module), corrected(weights, snapshot, data, [3, 4]), **EXACT)


def test_rebinding_before_the_first_snapshot():
    data, weights = samples(SOFTMAX, 8)
    train, first = iterator(SOFTMAX, data, 4), iterator(SOFTMAX, data, 2)
    module = SVRGModule(symbol(SOFTMAX))
    module.bind(first.provide_data, first.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.bind(train.provide_data, train.provide_label, force_rebind=True)
    module.init_optimizer(kvstore=mx.kv.create("local"), optimizer_params={"learning_rate": 0.25})
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, **EXACT)


@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
def test_from_inference_to_training_and_back(trained):
    module, data, snapshot, weights = trained()
    module.bind([("data", (4, 3))], for_training=False, force_rebind=True)
    module.predict(iterator(SOFTMAX, data, 4))
    train = iterator(SOFTMAX, data, 4)
    module.bind(train.provide_data, train.provide_label, force_rebind=True)
    module.forward_backward(batch_of(data, range(4)))
    assert_same(gradients_of(module), corrected(weights, snapshot, data, range(4)), **EXACT)


def test_set_params_keeps_the_snapshot(trained):
    module, data, snapshot, _ = trained()
    other = {name: value + 0.5 for name, value in snapshot.items()}
    module.set_params({name: nd(value) for name, value in other.items()}, {})
    module.forward_backward(batch_of(data, range(4)))
    assert_same(gradients_of(module), corrected(other, snapshot, data, range(4)), **EXACT)


def test_monitor_sees_the_live_network_and_the_corrected_gradients(trained):
    module, data, snapshot, weights = trained()
    monitor = mx.mon.Monitor(1, stat_func=lambda array: array.copy(), pattern=".*fc.*", sort=True)
    module.install_monitor(monitor)
    monitor.tic()
    module.forward_backward(batch_of(data, range(4)))
    seen = {name: value for _, name, value in monitor.toc()}
    assert "fc_output" in seen and "fc_weight" in seen
    shown = {name: module._exec_group.execs[0].grad_dict[name].asnumpy() for name in weights}
    assert_same(shown, corrected(weights, snapshot, data, range(4)), **EXACT)


def test_gradients_corrected_once_however_often_update_is_called(trained):
    module, data, snapshot, weights = trained()
    module.forward_backward(batch_of(data, range(4)))
    module.update()
    module.update()
    gradient = corrected(weights, snapshot, data, range(4))
    assert_same(weights_of(module), {name: weights[name] - 2 * 0.25 * gradient[name] / 4 for name in weights}, **EXACT)


def test_snapshot_between_backward_and_update_leaves_that_step_alone(trained):
    module, data, snapshot, weights = trained()
    module.forward_backward(batch_of(data, range(4)))
    gradient = corrected(weights, snapshot, data, range(4))
    module.update_full_grads(iterator(SOFTMAX, data, 4))
    module.update()
    assert_same(weights_of(module), {name: weights[name] - 0.25 * gradient[name] / 4 for name in weights}, **EXACT)


def batch_norm_net():
    normed = mx.sym.BatchNorm(mx.sym.Variable("data"), fix_gamma=False, momentum=0.5, name="bn")
    output = mx.sym.FullyConnected(normed, num_hidden=3, name="fc")
    return mx.sym.SoftmaxOutput(output, mx.sym.Variable("softmax_label"), name="out")


def test_the_running_statistics_of_the_snapshot_never_touch_the_live_ones():
    data, _ = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4, np.float32)
    module = SVRGModule(batch_norm_net())
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Uniform(0.5))
    module.init_optimizer()

    def running():
        # mxnet 1.9.1 writes these without telling its engine.
        mx.nd.waitall()
        return {name: value[0].asnumpy() for name, value in
                zip(module._exec_group.aux_names, module._exec_group.aux_arrays)}  # fmt: skip

    before = running()
    module.update_full_grads(train)
    assert_same(running(), before)
    batch = batch_of(data, range(4), np.float32)
    module.forward_backward(batch)
    x = np.array([x for x, _ in data[:4]], np.float32)
    np.testing.assert_allclose(running()["bn_moving_mean"], x.mean(0) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(running()["bn_moving_var"], 0.5 + x.var(0) / 2, rtol=1e-5, atol=1e-6)
    # The weights are the snapshot, so with the same batch statistics only the full gradient is left.
    for name, gradient in gradients_of(module).items():
        np.testing.assert_allclose(gradient, module._param_dict[0][name].asnumpy(), rtol=0, atol=1e-5)


# mxnet recommends multi_precision=True.
@pytest.mark.filterwarnings("ignore:Accumulating with float16")
@pytest.mark.parametrize("multi_precision", [False, True])
def test_float16_keeps_its_full_gradient_in_float32(multi_precision, rng):
    weight = mx.sym.Variable("scale_weight", shape=(1, 3))
    output = mx.sym.broadcast_mul(mx.sym.Variable("data"), weight)
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label"), grad_scale=3))
    x, y = (rng.normal(size=(2048, 3)).astype(np.float16) for _ in range(2))
    train = mx.io.NDArrayIter(nd(x, np.float16), nd(y, np.float16), 4)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.One())
    module.init_optimizer(optimizer_params={"learning_rate": 0.25, "multi_precision": multi_precision})
    module.update_full_grads(train)
    full = module._param_dict[0]["scale_weight"]
    assert full.dtype == np.float32
    # Sums of 4 rows come in float16, 512 of them are added in float32.
    wide = x.astype(np.float64)
    np.testing.assert_allclose(full.asnumpy()[0], 4 * (wide * (wide - y)).mean(0), rtol=0, atol=4e-3)
    module.forward_backward(next(train))
    module.update()
    # Still at the snapshot: the step is along the full gradient, rounded once to float16.
    expected = np.float16(1) - np.float16(0.25 / 4) * full.asnumpy()[0].astype(np.float16)
    np.testing.assert_allclose(module.get_params()[0]["scale_weight"].asnumpy()[0], expected, rtol=1e-3)


def test_a_gluon_network_trains_through_its_symbol():
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Dense(4, activation="tanh", prefix="fc1_"), mx.gluon.nn.Dense(3, prefix="fc2_"))
    net.cast("float64")
    output = mx.sym.SoftmaxOutput(net(mx.sym.Variable("data")), mx.sym.Variable("softmax_label"))
    data, weights = samples(TWO_LAYER, 10)
    train = iterator(TWO_LAYER, data, 4)
    module = SVRGModule(output)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={"net_" + name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    expected = oracle.svrg(TWO_LAYER, weights, data, oracle.Optimizer, batch_size=4, epochs=3, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 3), expected):
        assert_same({name[len("net_") :]: value for name, value in actual.items()}, wanted, **EXACT)


# ------------------------------------------------------------------------------------------------------ fit and logs


def test_fit_takes_snapshots_when_due(caplog):
    caplog.set_level(logging.INFO)
    data, weights = samples(SOFTMAX, 10)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), update_freq=3)
    epochs = []
    take = module.update_full_grads
    module.update_full_grads = lambda *args, **kwargs: (epochs.append(kwargs["epoch"]), take(*args, **kwargs))
    module.fit(iterator(SOFTMAX, data, 4), begin_epoch=2, num_epoch=8)
    assert epochs == [2, 3, 6], "none yet; then every third"


def test_fit_with_other_batches_for_the_full_passes():
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    passes = []
    module.fit(
        train, num_epoch=4, snapshot_data=iterator(SOFTMAX, data, 5), full_grads_batch_end_callback=passes.append
    )
    assert [param.nbatch for param in passes] == [0, 1, 0, 1]
    *_, expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=4, update_freq=2)
    assert_same(weights_of(module), expected, **EXACT)


def test_the_log_has_a_line_for_each_snapshot(caplog):
    caplog.set_level(logging.INFO)
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, update_freq=2)
    module.fit(train, num_epoch=3)
    lines = [record.getMessage() for record in caplog.records if "Full gradient" in record.getMessage()]
    assert len(lines) == 2
    mu = oracle.full_gradient(SOFTMAX, weights, data)
    norm = np.sqrt(sum((value**2).sum() for value in mu.values()))
    assert lines[0].startswith("Epoch[0] Full gradient: samples=10 time=")
    assert lines[0].endswith("norm={:.6g}".format(norm))
    assert lines[1].startswith("Epoch[2] Full gradient: samples=10")


def test_without_a_snapshot_it_is_a_plain_module_and_says_so_once(caplog):
    caplog.set_level(logging.INFO)
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    modules = [ready(SOFTMAX, weights, train, module=cls) for cls in (SVRGModule, mx.mod.Module)]
    for batch in train:
        for module in modules:
            module.forward_backward(batch)
            module.update()
        assert_same(*(weights_of(module) for module in modules))
    assert caplog.text.count("No snapshot yet") == 1


def test_the_full_pass_calls_back_after_each_batch(caplog):
    caplog.set_level(logging.INFO)
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    calls = []
    callbacks = [lambda param: calls.append((param.epoch, param.nbatch, param.eval_metric)),
                 mx.callback.Speedometer(4, 1), mx.callback.ProgressBar(3)]  # fmt: skip
    module.fit(train, num_epoch=3, full_grads_batch_end_callback=callbacks)
    assert calls == [(0, 0, None), (0, 1, None), (0, 2, None), (2, 0, None), (2, 1, None), (2, 2, None)]
    assert "samples/sec" in caplog.text
    module.update_full_grads(train, batch_end_callback=callbacks[0])
    assert calls[6:] == [(None, 0, None), (None, 1, None), (None, 2, None)]


# -------------------------------------------------------------------------------------------------------- optimizers

NAMED = ["sgd", "nag", "adam", "adagrad", "rmsprop", "adadelta", "ftrl", "adamax", "nadam", "signum", "ftml", "dcasgd",
         "lamb", "lars", "sgld", "adamw"]  # fmt: skip


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("by", ["name", "instance"])
@pytest.mark.parametrize("name", NAMED)
def test_every_registered_optimizer_gets_what_it_gets_from_module(name, by, devices):
    """A snapshot at which the full gradient is that of the only batch: the correction must vanish."""
    data, weights = samples(SOFTMAX, 4)
    train = iterator(SOFTMAX, data, 4, np.float32)
    params = {"learning_rate": 0.125, "wd": 0.125}
    seen = []
    for cls in (SVRGModule, mx.mod.Module):
        mx.random.seed(0)
        optimizer = name if by == "name" else mx.optimizer.create(name, rescale_grad=0.25, **params)
        module = ready(SOFTMAX, weights, train, module=cls, devices=devices, dtype=np.float32,
                       optimizer=optimizer, optimizer_params=params)  # fmt: skip
        for _ in range(3):
            module.forward_backward(next(train))
            module.update()
            train.reset()
        seen.append(weights_of(module))
    assert_same(*seen)


def test_sgd_updates_several_parameters_at_once(monkeypatch):
    data, weights = samples(TWO_LAYER, 8)
    train = iterator(TWO_LAYER, data, 4)
    module = ready(TWO_LAYER, weights, train)
    sizes = []
    sgd = module._optimizer.default_opt
    update = sgd.update_multi_precision
    monkeypatch.setattr(sgd, "update_multi_precision", lambda i, *rest: (sizes.append(len(i)), update(i, *rest)))
    next(train_steps(module, train, 1))
    assert sizes == [4]


def test_an_instance_with_another_rescale_grad_is_mentioned():
    data, weights = samples(SOFTMAX, 8)
    optimizer = mx.optimizer.SGD(learning_rate=0.25)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), optimizer=optimizer)
    assert any("has rescale_grad=1.0, but 1 / (batch size * workers) is 0.25" in str(w.message) for w in caught)
    assert module._optimizer.default_opt is optimizer
    assert optimizer.idx2name == {0: "fc_weight", 1: "fc_bias"}


def test_init_optimizer_twice_is_ignored_unless_forced(caplog):
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4))
    module.init_optimizer(optimizer="adam")
    assert isinstance(module._optimizer.default_opt, mx.optimizer.SGD)
    assert "already initialized" in caplog.text
    module.init_optimizer(optimizer="adam", force_init=True)
    assert isinstance(module._optimizer.default_opt, mx.optimizer.Adam)
