"""Full gradients of networks that other people write, against a plain Module that gets a row or a batch at a time."""

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, weights_of

from svrg_optimization import SVRGModule

TWO_LAYER = oracle.PROBLEMS[3]
EXACT = dict(rtol=1e-12, atol=1e-13)
# How the snapshot is computed, whatever the strategy of the test.
ALL_WAYS = [dict(overlap=overlap, save_memory=save_memory) for overlap, save_memory in
            ((True, False), (False, False), (False, True))]  # fmt: skip


def full_gradient(module):
    return {name: value.asnumpy() for name, value in module.full_gradient.items()}


def parameters(network, x, y, seed=1):
    """Weights, drawn at random."""
    rng = np.random.default_rng(seed)
    shapes = zip(network.list_arguments(), network.infer_shape(data=x.shape, softmax_label=y.shape)[0])
    return {name: rng.normal(size=shape) / 2 for name, shape in shapes if name not in ("data", "softmax_label")}


def bind(module, weights, x, y):
    """Bind a module to batches like this one, with these weights."""
    arrays = {"data": x, "softmax_label": y}
    descriptions = [mx.io.DataDesc(name, array.shape, array.dtype) for name, array in arrays.items()]
    module.bind(descriptions[:1], descriptions[1:])
    module.init_params(arg_params={name: nd(value, x.dtype) for name, value in weights.items()}, aux_params={})
    return module


def mean_gradient(network, weights, x, y, groups, is_mean=False):
    """The full gradient by a plain Module that is bound to each of these groups of rows.

    With `is_mean` the gradient of a group is the mean over its rows, else their sum.
    """
    total = dict.fromkeys(weights, 0.0)
    for rows in groups:
        module = bind(mx.mod.Module(network), weights, x[rows], y[rows])
        module.forward_backward(mx.io.DataBatch([nd(x[rows])], [nd(y[rows])]))
        for name, (gradient,) in zip(module._exec_group.param_names, module._exec_group.grad_arrays):
            total[name] = total[name] + gradient.asnumpy() * (len(rows) if is_mean else 1)
    return {name: value / len(x) for name, value in total.items()}


# --------------------------------------------------- fault 1: operators that can't add to the gradients of before


def _weight(name):
    return mx.sym.Variable(name, shape=(3, 3))


def _last_of_rnn(data):
    """The last output of a recurrent layer that goes over three equal steps."""
    steps = mx.sym.stack(data, data, data, axis=0)
    start = mx.sym.expand_dims(mx.sym.zeros_like(data), axis=0)
    outputs = mx.sym.RNN(steps, mx.sym.Variable("rnn_parameters"), start, mode="rnn_tanh", state_size=3, num_layers=1)
    return mx.sym.squeeze(mx.sym.slice_axis(outputs, axis=0, begin=2, end=3), axis=0)


SUMMED_WRONGLY = {
    "dot of a sum": lambda data: mx.sym.dot(data, _weight("v") + _weight("w")),
    "layer of a sum": lambda data: mx.sym.FullyConnected(
        data, weight=_weight("v") + _weight("w"), no_bias=True, num_hidden=3
    ),
    "gemm2": lambda data: mx.sym.linalg_gemm2(data, _weight("w")),
    "rnn": _last_of_rnn,
}


@pytest.mark.parametrize("callback", [None, lambda param: None], ids=["", "callback"])
@pytest.mark.parametrize("repeats, batch_size", [(1, 5), (1 << 13, 1 << 12)], ids=["12 rows", "98304 rows"])
@pytest.mark.parametrize("name", SUMMED_WRONGLY)
def test_operators_that_add_wrongly(name, repeats, batch_size, callback, rng):
    network = mx.sym.LinearRegressionOutput(SUMMED_WRONGLY[name](mx.sym.Variable("data")),
                                            mx.sym.Variable("softmax_label"))  # fmt: skip
    x, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 3))
    weights = parameters(network, x, y)
    train = mx.io.NDArrayIter(nd(np.tile(x, (repeats, 1))), nd(np.tile(y, (repeats, 1))), batch_size)
    module = bind(SVRGModule(network), weights, *(np.zeros((batch_size, 3)) for _ in range(2)))
    module.init_optimizer()
    module.update_full_grads(train, batch_end_callback=callback)
    assert_same(full_gradient(module), mean_gradient(network, weights, x, y, [[i] for i in range(12)]), **EXACT)


# ----------------------------------------------------------- fault 2: rows that influence each other, and padding

MIXES_ROWS = {
    "mean": lambda rows: mx.sym.broadcast_sub(rows, mx.sym.mean(rows, axis=0, keepdims=True)),
    "max": lambda rows: mx.sym.broadcast_sub(rows, mx.sym.max(rows, axis=0, keepdims=True)),
    "softmax": lambda rows: mx.sym.softmax(rows, axis=0),
    "norm": lambda rows: mx.sym.broadcast_div(rows, mx.sym.norm(rows, axis=0, keepdims=True)),
    "reverse": lambda rows: rows * mx.sym.reverse(rows, axis=0),
    "attention": lambda rows: mx.sym.dot(mx.sym.softmax(mx.sym.dot(rows, rows, transpose_b=True)), rows),
}


@pytest.mark.parametrize("devices, n", [(1, 10), (1, 9), (2, 10)], ids=str)
@pytest.mark.parametrize("name", MIXES_ROWS)
def test_padding_where_rows_influence_each_other(name, devices, n, rng):
    hidden = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc1")
    output = mx.sym.FullyConnected(MIXES_ROWS[name](hidden), num_hidden=2, name="fc2")
    network = mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label"))
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(n, 2))
    weights = parameters(network, x, y)
    module = bind(SVRGModule(network, context=[mx.cpu(i) for i in range(devices)]), weights, x[:4], y[:4])
    module.init_optimizer()
    module.update_full_grads(mx.io.NDArrayIter(nd(x), nd(y), 4))
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9][: n - 8]]
    if devices == 2:
        groups = [[0, 1], [2, 3], [4, 5], [6, 7], [8], [9]]
    assert_same(full_gradient(module), mean_gradient(network, weights, x, y, groups), **EXACT)


@pytest.mark.parametrize("multi_output", [False, True])
@pytest.mark.parametrize("n", [10, 11])
def test_padding_where_only_valid_labels_count(n, multi_output, rng):
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=6 if multi_output else 3, name="fc")
    if multi_output:
        scores = mx.sym.reshape(scores, shape=(-1, 3, 2))
    network = mx.sym.SoftmaxOutput(scores, mx.sym.Variable("softmax_label"), normalization="valid", use_ignore=True,
                                   ignore_label=-1, multi_output=multi_output)  # fmt: skip
    x, y = rng.normal(size=(n, 4)), rng.integers(0, 3, (n, 2) if multi_output else n).astype(float)
    # Not the same part of each batch; and the row that a copy would repeat.
    y[[0, 5, 6, 8]] = -1
    weights = parameters(network, x, y)
    module = bind(SVRGModule(network), weights, x[:4], y[:4])
    module.init_optimizer()
    module.update_full_grads(mx.io.NDArrayIter(nd(x), nd(y), 4))
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10][: n - 8]]
    assert_same(full_gradient(module), mean_gradient(network, weights, x, y, groups, is_mean=True), **EXACT)


# -------------------------------------------------------------------------------------- fault 3: random draws


def _masks(batches, **way):
    """The masks that Dropout draws in a full pass over so many batches of one row."""
    kept = mx.sym.Dropout(mx.sym.Variable("data"), p=0.5) * mx.sym.Variable("w_weight", shape=(1, 64))
    module = SVRGModule(mx.sym.MakeLoss(mx.sym.sum(kept)), label_names=None, **way)
    module.bind([("data", (1, 64))])
    module.init_params()
    module.init_optimizer()
    mx.random.seed(7)
    # Each batch is a power of 3: the sum of the gradients has a digit for each mask.
    module.update_full_grads([mx.io.DataBatch([mx.nd.full((1, 64), 3**i)], []) for i in range(batches)])
    digits = (module.full_gradient["w_weight"].asnumpy() * batches / 2).round().astype(int)
    return [(digits // 3**i % 3).ravel().tolist() for i in range(batches)]


def test_each_batch_has_a_mask_of_its_own_the_same_in_every_way():
    masks = _masks(4)
    assert {value for mask in masks for value in mask} == {0, 1}
    assert len(set(map(tuple, masks))) == 4
    for way in ALL_WAYS:
        assert _masks(4, **way) == masks


def test_the_full_gradient_with_dropout_is_the_same_in_every_way(rng):
    hidden = mx.sym.Dropout(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=16, name="fc1"), p=0.5)
    network = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=3, name="fc2"), name="softmax")
    x, y = (nd(each, np.float32) for each in (rng.normal(size=(22, 5)), rng.integers(0, 3, 22)))
    mus = []
    for way in [{}, *ALL_WAYS]:
        module = SVRGModule(network, **way)
        train = mx.io.NDArrayIter(x, y, 4)
        module.bind(train.provide_data, train.provide_label)
        mx.random.seed(3)
        module.init_params(mx.init.Uniform(1))
        module.init_optimizer()
        module.update_full_grads(train)
        mus.append(full_gradient(module))
    for other in mus[1:]:
        assert_same(other, mus[0], rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------------------------- fault 4: the live outputs


@pytest.mark.parametrize("last", ["padded", "fewer rows", "more rows"])
@pytest.mark.parametrize("rows", [4, 3], ids=["as bound", "another size"])
@pytest.mark.parametrize("snapshots", [0, 1])
@pytest.mark.parametrize("callback", [None, lambda param: None], ids=["", "callback"])
def test_outputs_stay_those_of_the_last_forward(callback, snapshots, rows, last):
    data, weights = samples(TWO_LAYER, 10)
    train = iterator(TWO_LAYER, data, 4)
    module = ready(TWO_LAYER, weights, train)
    if last != "padded":
        parts = [data[:4], data[4:8], data[8:]] if last == "fewer rows" else [data[:4], data[4:]]
        train = [next(iterator(TWO_LAYER, part, len(part))) for part in parts]
    for _ in range(snapshots):
        module.update_full_grads(train)
    batch = next(iterator(TWO_LAYER, data[5:], rows))
    module.forward_backward(batch)
    module.update()
    held = module.get_outputs()[0]
    before = held.asnumpy().copy()
    module.update_full_grads(train, batch_end_callback=callback)
    np.testing.assert_array_equal(module.get_outputs()[0].asnumpy(), before)
    np.testing.assert_array_equal(held.asnumpy(), before)
    metric = mx.metric.create("ce")
    module.update_metric(metric, batch.label)
    wanted = -np.log(before[range(rows), batch.label[0].asnumpy().astype(int)]).mean()
    assert metric.get()[1] == pytest.approx(wanted, rel=1e-6)


# ------------------------------------------------------------------------------------------- fault 5: carried states


def _carrying():
    """A recurrent network of one step for each batch: the next state is an output."""
    data, state = mx.sym.Variable("data"), mx.sym.Variable("state", shape=(0, 3))
    looped = mx.sym.FullyConnected(state, num_hidden=3, no_bias=True, name="loop")
    hidden = mx.sym.tanh(mx.sym.FullyConnected(data, num_hidden=3, name="in") + looped)
    loss = mx.sym.LinearRegressionOutput(mx.sym.FullyConnected(hidden, num_hidden=1, name="out"),
                                         mx.sym.Variable("softmax_label"), name="loss")  # fmt: skip
    return mx.sym.Group([loss, mx.sym.BlockGrad(hidden, name="next")])


class Carrying:
    """A module whose states the batches hand on, its data, and its weights."""

    def __init__(self, rng, devices=1, n=12, **settings):
        self.x, self.y = rng.normal(size=(n, 2)), rng.normal(size=(n, 1))
        shapes = zip(_carrying().list_arguments(), _carrying().infer_shape(data=(4, 2), softmax_label=(4, 1))[0])
        self.weights = {
            name: rng.normal(size=shape) for name, shape in shapes if name not in ("data", "state", "softmax_label")
        }
        self.train = mx.io.NDArrayIter(nd(self.x), nd(self.y), 4)
        context = [mx.cpu(i) for i in range(devices)]
        self.module = bind(SVRGModule(_carrying(), state_names=["state"], context=context, **settings), self.weights,
                           self.x[:4], self.y[:4])  # fmt: skip
        self.module.init_optimizer(optimizer_params={"learning_rate": 0.0})

    def steps(self):
        """An epoch; yields after each forward and backward pass."""
        self.module.set_states(value=0)
        self.train.reset()
        for batch in self.train:
            self.module.forward_backward(batch)
            yield batch
            self.module.update()
            outputs = self.module.get_outputs(merge_multi_context=False)
            self.module.set_states(states=outputs[1:])

    def expected(self):
        """The full gradient by a plain Module that hands on its states."""
        plain = bind(mx.mod.Module(_carrying(), state_names=["state"]), self.weights, self.x[:4], self.y[:4])
        plain.set_states(value=0)
        totals = dict.fromkeys(self.weights, 0.0)
        self.train.reset()
        for batch in self.train:
            plain.forward_backward(batch)
            for name, (gradient,) in zip(plain._exec_group.param_names, plain._exec_group.grad_arrays):
                totals[name] = totals[name] + gradient.asnumpy()
            plain.set_states(states=plain.get_outputs(merge_multi_context=False)[1:])
        return {name: total / len(self.x) for name, total in totals.items()}


def gradients(module):
    """The gradients of all devices, added up."""
    group = module._exec_group
    return {name: sum(each.asnumpy() for each in arrays) for name, arrays in zip(group.param_names, group.grad_arrays)}


NEXT = {"state": "next_output"}


def test_states_that_change_between_steps_must_be_explained(rng):
    carrying = Carrying(rng)
    carrying.module.set_states(value=0)
    carrying.module.update_full_grads(carrying.train)
    steps = carrying.steps()
    next(steps)
    with pytest.raises(RuntimeError, match=r"set_states\(\) between the steps.*next_states=.*before update_full_grads"):
        next(steps)


def test_states_that_stay_need_no_explanation(rng):
    carrying = Carrying(rng)
    for value in (0, 0.5):
        carrying.module.set_states(value=value)
        carrying.module.update_full_grads(carrying.train)
        for batch in carrying.train:
            carrying.module.set_states(value=value)
            carrying.module.forward_backward(batch)
            carrying.module.update()
        # At the snapshot, the last batch's gradient is b mu.
        wanted = {name: 4 * mu for name, mu in full_gradient(carrying.module).items()}
        assert_same(gradients(carrying.module), wanted, **EXACT)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("callback", [None, lambda param: None], ids=["", "callback"])
def test_a_full_pass_carries_the_states(callback, devices, rng):
    carrying = Carrying(rng, devices, next_states=NEXT)
    for _ in range(2):
        carrying.module.set_states(value=0)
        carrying.module.update_full_grads(carrying.train, batch_end_callback=callback)
        assert_same(full_gradient(carrying.module), carrying.expected(), **EXACT)
        # Whatever the steps in between have left.
        list(carrying.steps())


@pytest.mark.parametrize("devices", [1, 2])
def test_carried_states_at_the_snapshot(devices, rng):
    carrying = Carrying(rng, devices, next_states=NEXT)
    carrying.module.set_states(value=0)
    carrying.module.update_full_grads(carrying.train)
    wanted = {name: 4 * mu for name, mu in full_gradient(carrying.module).items()}
    for _ in range(2):
        for _ in carrying.steps():
            assert_same(gradients(carrying.module), wanted, **EXACT)


@pytest.mark.parametrize("devices", [1, 2])
def test_carried_states_away_from_the_snapshot(devices, rng, snapshot_gradients):
    carrying = Carrying(rng, devices, next_states=NEXT)
    carrying.module.set_states(value=0)
    carrying.module.update_full_grads(carrying.train)
    carrying.module.set_params({name: nd(value / 2) for name, value in carrying.weights.items()}, {})
    for _ in range(2):
        snapshot_gradients.clear()
        list(carrying.steps())
        assert len(snapshot_gradients) == 3
        total = {
            name: sum(sum(step[name]) for step in snapshot_gradients) / len(carrying.x) for name in carrying.weights
        }
        assert_same(total, full_gradient(carrying.module), **EXACT)


def test_carried_states_need_batches_without_padding(rng):
    carrying = Carrying(rng, n=10, next_states=NEXT)
    with pytest.raises(ValueError, match="batch 2 of train_data has padded rows.*batch size divide"):
        carrying.module.update_full_grads(carrying.train)


def test_carried_states_are_those_of_a_plain_module_in_training(rng):
    """The live states follow the current weights, however the snapshot carries its own."""
    carrying = Carrying(rng, next_states=NEXT)
    carrying.module.set_states(value=0)
    carrying.module.update_full_grads(carrying.train)
    carrying.weights = {name: value / 2 for name, value in carrying.weights.items()}
    carrying.module.set_params({name: nd(value) for name, value in carrying.weights.items()}, {})
    plain = bind(mx.mod.Module(_carrying(), state_names=["state"]), carrying.weights, carrying.x[:4], carrying.y[:4])
    plain.set_states(value=0)
    for batch in carrying.steps():
        plain.forward(batch)
        for ours, theirs in zip(carrying.module.get_outputs(), plain.get_outputs()):
            np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
        plain.set_states(states=plain.get_outputs(merge_multi_context=False)[1:])


# --------------------------------------------------------------------- fault 6: devices that hold different weights


@pytest.mark.parametrize("optimizer", ["nadam", "sgld"])
@pytest.mark.parametrize("callback", [None, lambda param: None], ids=["", "callback"])
def test_the_full_gradient_is_at_the_mean_of_the_devices_weights(callback, optimizer, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
    data, weights = samples(TWO_LAYER, 10)
    train = iterator(TWO_LAYER, data, 4)
    module = ready(TWO_LAYER, weights, train, devices=2, kvstore="device", optimizer=optimizer,
                   optimizer_params={"learning_rate": 0.125})  # fmt: skip
    for _ in range(3):
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
        on_devices = list(zip(module._exec_group.param_names, module._exec_group.param_arrays))
        held = [{name: arrays[k].asnumpy() for name, arrays in on_devices} for k in (0, 1)]
        assert all(np.abs(held[0][name] - held[1][name]).max() > 1e-3 for name in weights)
        mean = {name: (held[0][name] + held[1][name]) / 2 for name in weights}
        assert_same(weights_of(module), mean)
        module.update_full_grads(train, batch_end_callback=callback)
        assert_same(full_gradient(module), oracle.full_gradient(TWO_LAYER, mean, data), **EXACT)


# ------------------------------------------------------------------------------- fault 18: outputs without a gradient

WITHOUT_GRADIENT = {
    "grad_scale=0": lambda scores, label: mx.sym.SoftmaxOutput(scores, label, name="other", grad_scale=0),
    "BlockGrad": lambda scores, label: mx.sym.BlockGrad(mx.sym.SoftmaxOutput(scores, label, name="other")),
    "blocked scores": lambda scores, label: mx.sym.SoftmaxOutput(mx.sym.BlockGrad(scores), label, name="other"),
}


@pytest.mark.parametrize("kind", WITHOUT_GRADIENT)
def test_outputs_without_a_gradient_do_not_count_for_the_normalization(kind, caplog, rng):
    label = mx.sym.Variable("softmax_label")
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    loss = mx.sym.SoftmaxOutput(scores, label, name="loss", normalization="batch")
    network = mx.sym.Group([loss, WITHOUT_GRADIENT[kind](scores, label)])
    x, y = rng.normal(size=(10, 3)), rng.integers(0, 3, 10).astype(float)
    weights = parameters(network, x, y)
    module = bind(SVRGModule(network), weights, x[:4], y[:4])
    module.init_optimizer()
    module.update_full_grads(mx.io.NDArrayIter(nd(x), nd(y), 4))
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert_same(full_gradient(module), mean_gradient(network, weights, x, y, groups, is_mean=True), **EXACT)
    assert "normalization" not in caplog.text


@pytest.mark.parametrize("normalization", ["null", "batch"])
@pytest.mark.parametrize("axes", [1, 2], ids="{} axes".format)
def test_make_loss_divides_only_arrays_of_several_axes(axes, normalization, rng):
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    loss = mx.sym.square(scores - mx.sym.Variable("softmax_label"))
    loss = mx.sym.sum(loss, axis=1) if axes == 1 else loss
    network = mx.sym.MakeLoss(loss, normalization=normalization)
    x, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 1))
    weights = parameters(network, x, y)
    module = bind(SVRGModule(network), weights, x[:4], y[:4])
    module.init_optimizer()
    module.update_full_grads(mx.io.NDArrayIter(nd(x), nd(y), 4))
    errors = 2 * (x @ weights["fc_weight"].T + weights["fc_bias"] - y)
    wanted = {"fc_weight": errors.T @ x / 10, "fc_bias": errors.mean(axis=0)}
    assert_same(full_gradient(module), wanted, **EXACT)


def test_a_batch_without_labels_goes_on_with_those_of_before(rng):
    network = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc"),
                                   mx.sym.Variable("softmax_label"), name="softmax")  # fmt: skip
    x, y = rng.normal(size=(8, 3)), np.array([0.0, 1, 2, 0, 2, 2, 1, 1])
    weights = parameters(network, x, y)
    module = bind(SVRGModule(network), weights, x[:4], y[:4])
    module.init_optimizer(optimizer_params={"learning_rate": 0.0})
    train = mx.io.NDArrayIter(nd(x), nd(y), 4)
    module.update_full_grads(train)
    for batch in train:
        # It has labels, which the snapshot's network hasn't seen.
        module.forward(batch, is_train=False)
        module.forward_backward(mx.io.DataBatch(batch.data, None))
        # At the snapshot, the two gradients of a batch are the same.
        assert_same(gradients(module), {name: 4 * mu for name, mu in full_gradient(module).items()}, **EXACT)
