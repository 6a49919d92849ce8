"""Unusual programs that plain Module runs: iterators, losses, stores and sharing that a review found broken."""

import ctypes
import gc
import logging
import sys
import weakref

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, sharer_of, symbol, train_steps, weights_of
from mxnet.base import _LIB, check_call

from svrg_optimization import SVRGModule
from svrg_optimization.checkpoint import files
from svrg_optimization.svrg.random_draws import draws_random_numbers

LINEAR, LOGISTIC, SOFTMAX, TWO_LAYER = oracle.PROBLEMS
EXACT = dict(rtol=1e-12, atol=1e-13)


def full_gradients(module, device=0):
    return {name: value.asnumpy() for name, value in module._param_dict[device].items()}


def expected_full(weights, data, rows, problem=SOFTMAX):
    return {name: rows * value for name, value in oracle.full_gradient(problem, weights, data).items()}


def start(module, train, weights, dtype=np.float64, **optimizer_params):
    """Bind, set these weights, and install SGD."""
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={name: nd(value, dtype) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params=optimizer_params or {"learning_rate": 0.25})
    return module


# ------------------------------------------------------------------------------------------------------ the optimizer


@pytest.mark.parametrize("names", [{0: "fc1_weight", 1: "fc1_bias", 2: "fc2_weight", 3: "fc2_bias"}, {0: "fc_weight"}],
                         ids=["of another network", "not all"])  # fmt: skip
def test_an_optimizer_instance_with_names_of_its_own(names):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    optimizer = mx.optimizer.SGD(learning_rate=0.25, rescale_grad=0.25, param_idx2name=names)
    module = ready(SOFTMAX, weights, train, devices=2, optimizer=optimizer)
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, **EXACT)


@pytest.mark.parametrize("store", ["local", "object"])
def test_an_optimizer_borrowed_from_a_plain_module(store, tmp_path):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    owner = ready(SOFTMAX, weights, train, module=mx.mod.Module,
                  kvstore=mx.kv.create("local") if store == "object" else store)  # fmt: skip
    module = sharer_of(owner, SOFTMAX, train)
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, **EXACT)
    module.save_checkpoint(str(tmp_path / "model"), 2, save_optimizer_states=True)
    resumed = SVRGModule.load(str(tmp_path / "model"), 2, load_optimizer_states=True)
    assert "momentum" not in resumed._restoring.sections["optimizer"]["scalars"]


def test_borrowing_an_optimizer_that_is_not_there():
    with pytest.raises(RuntimeError, match=r"call shared_module.init_optimizer\(\) first"):
        SVRGModule(symbol(SOFTMAX)).borrow_optimizer(mx.mod.Module(symbol(SOFTMAX)))


def test_three_devices_that_hold_different_weights(monkeypatch):
    """SGLD draws its noise for each device: the weights seen from outside are the mean, as Module has it."""
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
    seen = []
    for cls in (mx.mod.Module, SVRGModule):
        mx.random.seed(1)
        data, weights = samples(SOFTMAX, 12)
        train = iterator(SOFTMAX, data, 6, np.float32)
        module = ready(SOFTMAX, weights, train, module=cls, devices=3, kvstore="device", optimizer="sgld",
                       optimizer_params={"learning_rate": 0.01}, dtype=np.float32)  # fmt: skip
        for batch in train:
            module.forward_backward(batch)
            module.update()
        seen.append(weights_of(module))
    assert_same(*seen)


@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
def test_an_optimizer_installed_while_bound_for_inference():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = SVRGModule(symbol(SOFTMAX))
    module.bind(train.provide_data, for_training=False)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(kvstore=mx.kv.create("local"), optimizer_params={"learning_rate": 0.25})
    module.bind(train.provide_data, train.provide_label, force_rebind=True)
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 2), expected):
        assert_same(actual, wanted, **EXACT)


# ------------------------------------------------------------------------------------------------ iterators and losses


class Reader(mx.io.MXDataIter):
    """Stands for mxnet's own readers, whose threads make a poor test: reset before its end, it gives rows twice."""

    def __init__(self, problem, data, batch_size):
        self._rows = iterator(problem, data, batch_size)
        self.batch_size, self._left = batch_size, []
        self._load()

    def __del__(self):
        pass

    provide_data = property(lambda self: self._rows.provide_data)
    provide_label = property(lambda self: self._rows.provide_label)

    def _load(self):
        self._rows.reset()
        self._left += list(self._rows)

    def reset(self):
        self._load()

    def next(self):
        if not self._left:
            raise StopIteration
        return self._left.pop(0)


@pytest.mark.parametrize("used", ["new", "reset", "begun", "read"])
def test_mxnets_own_readers_are_read_whole(used):
    data, weights = samples(LINEAR, 10)
    train = Reader(LINEAR, data, 4)
    module = start(SVRGModule(symbol(LINEAR)), train, weights)
    for _ in range(3):
        if used == "reset":
            train.reset()
        elif used == "begun":
            next(train, None)
        elif used == "read":
            list(train)
        module.update_full_grads(train)
        assert_same(full_gradients(module), expected_full(weights, data, 4, LINEAR), **EXACT)
        assert len(list(train)) == 3


def test_fit_reads_mxnets_own_readers_whole(caplog):
    caplog.set_level(logging.INFO)
    steps = []
    SVRGModule(symbol(LINEAR), update_freq=2).fit(
        Reader(LINEAR, samples(LINEAR, 10)[0], 4), num_epoch=6, eval_metric="mse",
        batch_end_callback=lambda param: steps.append(param.epoch),
    )  # fmt: skip
    assert caplog.text.count("samples=10 ") == 3
    assert [steps.count(epoch) for epoch in range(6)] == [3] * 6


class Skipping(Reader):
    """Leaves rows out of every other pass, as with round_batch=True."""

    _loads = 0

    def _load(self):
        super()._load()
        self._loads += 1
        if self._loads % 4 == 0:
            del self._left[0]


@pytest.mark.parametrize("reader, times", [(Reader, 0), (Skipping, 1)])
def test_readers_that_skip_rows_are_mentioned_once(reader, times, caplog):
    data, weights = samples(LINEAR, 10)
    train = reader(LINEAR, data, 4)
    module = start(SVRGModule(symbol(LINEAR)), train, weights)
    for _ in range(4):
        module.update_full_grads(train)
    assert caplog.text.count("need round_batch=False") == times


def test_a_csv_file(tmp_path):
    """One of mxnet's readers itself, read once from start to end.

    It gets no label file, so its labels are zero. With one, about one of 2,000 readers of mxnet 1.9.1 mixed up the two
    files' rows or ran out of memory, without this package, and one crashed the tests; of 36,000 without one, none did.
    """
    data, weights = samples(LINEAR, 12)
    np.savetxt(str(tmp_path / "x"), [x for x, _ in data], delimiter=",")
    train = mx.io.CSVIter(data_csv=str(tmp_path / "x"), data_shape=(3,), label_shape=(1,), batch_size=4,
                          label_name="softmax_label", round_batch=False)  # fmt: skip
    module = start(SVRGModule(symbol(LINEAR)), train, weights, np.float32)
    module.update_full_grads(train)
    unlabelled = [(x, 0.0) for x, _ in data]
    assert_same(full_gradients(module), expected_full(weights, unlabelled, 4, LINEAR), rtol=1e-5, atol=1e-5)


def test_an_iterator_that_only_looks_like_an_ndarrayiter():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)

    class Other:
        last_batch_handle = "discard"

        def __iter__(self):
            return iter(train)

    module.update_full_grads(Other())
    assert_same(full_gradients(module), expected_full(weights, data, 4), **EXACT)


@pytest.mark.parametrize("work_load_list", [[1, 1], [3, 1]], ids=str)
@pytest.mark.parametrize("n", [5, 6, 7, 10])
def test_uneven_devices_and_few_rows(n, work_load_list):
    data, weights = samples(SOFTMAX, n)
    train = iterator(SOFTMAX, data, 4)
    module = start(SVRGModule(symbol(SOFTMAX), context=[mx.cpu(0), mx.cpu(1)], work_load_list=work_load_list),
                   train, weights)  # fmt: skip
    module.update_full_grads(train)
    for device, rows in enumerate([3, 1] if work_load_list == [3, 1] else [2, 2]):
        assert_same(full_gradients(module, device), expected_full(weights, data, rows), **EXACT)


@pytest.mark.parametrize("devices", [1, 2])
def test_sparse_data_with_a_padded_last_batch(devices):
    rng = np.random.default_rng(0)
    x = (rng.random((6, 5)) * (rng.random((6, 5)) < 0.5)).astype(np.float32)
    y, w = rng.random((6, 1)).astype(np.float32), rng.random((5, 1)).astype(np.float32)
    output = mx.sym.sparse.dot(mx.sym.Variable("data", stype="csr"), mx.sym.Variable("w_weight", shape=(5, 1)))
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")),
                        context=[mx.cpu(i) for i in range(devices)])  # fmt: skip
    module.bind([("data", (4, 5))], [("softmax_label", (4, 1))])
    module.init_params(arg_params={"w_weight": mx.nd.array(w)}, aux_params={})
    module.init_optimizer()
    batches = [mx.io.DataBatch([mx.nd.array(x[rows]).tostype("csr")], [mx.nd.array(y[rows])], pad=pad)
               for rows, pad in (([0, 1, 2, 3], 0), ([4, 5, 0, 1], 2))]  # fmt: skip
    module.update_full_grads(batches)
    mu = x.T @ (x @ w - y) / 6
    np.testing.assert_allclose(module._param_dict[0]["w_weight"].asnumpy(), 4 / devices * mu, rtol=1e-5, atol=1e-6)


def test_a_loss_that_averages_by_itself_with_a_padded_last_batch():
    data, weights = samples(LINEAR, 10)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    loss = mx.sym.MakeLoss(mx.sym.mean(0.5 * mx.sym.square(output - mx.sym.Variable("softmax_label"))))
    train = iterator(LINEAR, data, 4)
    module = start(SVRGModule(loss), train, weights, learning_rate=0.25, rescale_grad=1.0)
    expected = oracle.svrg(LINEAR, weights, data, oracle.Optimizer, batch_size=4, epochs=3, update_freq=2)
    for actual, wanted in zip(train_steps(module, train, 3), expected):
        assert_same(actual, wanted, **EXACT)


def test_batch_normalisation_sees_the_true_rows_of_a_padded_batch():
    data, _ = samples(SOFTMAX, 6)
    net = mx.sym.BatchNorm(mx.sym.Variable("data"), fix_gamma=False, name="bn")
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(net, num_hidden=3, name="fc"), mx.sym.Variable("softmax_label"))
    train = iterator(SOFTMAX, data, 4, np.float32)
    module = SVRGModule(net)
    module.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Uniform(0.5))
    module.init_optimizer()
    module.update_full_grads(train)
    reference = mx.mod.Module(net)
    total = 0
    for rows in ([0, 1, 2, 3], [4, 5]):
        shapes = [("data", (len(rows), 3))], [("softmax_label", (len(rows),))]
        reference.bind(*shapes, force_rebind=True)
        reference.set_params(*module.get_params())
        reference.forward_backward(mx.io.DataBatch([nd([data[i][0] for i in rows], np.float32)],
                                                   [nd([data[i][1] for i in rows], np.float32)]))  # fmt: skip
        total = total + reference._exec_group.execs[0].grad_dict["fc_weight"].asnumpy()
    np.testing.assert_allclose(full_gradients(module)["fc_weight"], 4 * total / 6, rtol=1e-4, atol=1e-6)


def test_random_operators_in_the_body_of_a_loop():
    def body(x, state):
        return x * mx.sym.random.uniform(0, 1, shape=(8,)), state

    data = mx.sym.Variable("data")
    outputs, _ = mx.sym.contrib.foreach(body, data, [mx.sym.Variable("state")])
    assert draws_random_numbers(outputs)


# -------------------------------------------------------------------------------------------------- binding and sharing


def test_a_sharer_with_dropout_of_a_module_without():
    train = mx.io.NDArrayIter(mx.nd.random.normal(shape=(8, 20)), mx.nd.zeros(8), 8)
    modules = []
    for dropout in (0.0, 0.5):
        hidden = mx.sym.Dropout(mx.sym.Variable("data"), p=dropout) if dropout else mx.sym.Variable("data")
        output = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=3, name="fc"), name="softmax")
        module = SVRGModule(output)
        module.bind(train.provide_data, train.provide_label, shared_module=modules[0] if modules else None)
        if not modules:
            module.init_params(mx.init.Uniform(1))
            module.init_optimizer()
        modules.append(module)
    module = modules[1]
    module.update_full_grads(train)
    module.forward(next(train), is_train=True)
    np.testing.assert_array_equal(module.get_outputs()[0].asnumpy(), module._mod_aux.get_outputs()[0].asnumpy())


def _address(array):
    address = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return address.value


@pytest.mark.parametrize("sizes", [[4], [4, 2, 4]], ids=["as bound", "after another size"])
def test_memory_is_shared_if_it_is_to_be_saved(strategy, sizes):
    data, weights = samples(TWO_LAYER, 8)
    train = iterator(TWO_LAYER, data, 4)
    module = ready(TWO_LAYER, weights, train)
    module.update_full_grads(train)
    for size in sizes:
        module.forward_backward(next(iterator(TWO_LAYER, data, size)))
    live, snapshot = (each.get_outputs()[0] for each in (module, module._mod_aux))
    assert (_address(live) == _address(snapshot)) == (strategy == "memory saving")


def test_binding_anew_frees_what_was_bound():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    list(train_steps(module, train, 1))
    bound = [weakref.ref(each._exec_group.execs[0]) for each in (module, module._mod_aux)]
    gradient = module._exec_group.grad_arrays[0][0]
    module.bind(train.provide_data, train.provide_label, for_training=False, force_rebind=True)
    assert [each() for each in bound] == [None, None]
    assert sys.getrefcount(gradient) == 2, "this function's, and getrefcount's own"


def test_a_module_that_is_freed_asks_none_of_its_arrays(monkeypatch):
    """The garbage collector may have freed them before; who asks them then ends the process by SIGSEGV."""
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, devices=2)
    list(train_steps(module, train, 1))
    module.itself, lives, asked = module, weakref.ref(module), []
    monkeypatch.setattr(mx.nd.NDArray, "wait_to_read", asked.append)
    del module
    gc.collect()
    assert lives() is None and not asked


@pytest.mark.parametrize("rows", [4, 3], ids=["as bound", "another size"])
def test_a_batch_may_be_filled_anew_before_the_backward_pass(strategy, rows):
    data, weights = samples(TWO_LAYER, 16)
    results = []
    for early in (False, True):
        train = iterator(TWO_LAYER, data, 4)
        module = ready(TWO_LAYER, weights, train)
        module.update_full_grads(train)
        for batch in iterator(TWO_LAYER, data[:12], rows):
            buffers = [array.copy() for array in (*batch.data, *batch.label)]
            module.forward(mx.io.DataBatch(buffers[:1], buffers[1:]), is_train=True)
            for buffer in buffers if early else ():
                buffer[:] = 0.5
            module.backward()
            module.update()
        results.append(weights_of(module))
    assert_same(*results)


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "sharer"])
def test_states_may_be_set_before_the_backward_pass(strategy, shares):
    stateless = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    scores = stateless + mx.sym.Variable("state")
    network = mx.sym.Group([mx.sym.SoftmaxOutput(scores, name="softmax"), mx.sym.BlockGrad(mx.sym.tanh(scores))])
    random = np.random.RandomState(0)
    rows, labels = nd(random.randn(24, 5), np.float32), nd(random.randint(0, 3, 24), np.float32)
    start = {"fc_weight": nd(random.randn(3, 5), np.float32), "fc_bias": mx.nd.zeros(3)}
    results = []
    for early in (False, True):
        train = mx.io.NDArrayIter(rows, labels, 6)
        first = module = SVRGModule(network, state_names=["state"], next_states={"state": network.list_outputs()[1]})
        if shares:
            # Its network has none.
            first = SVRGModule(mx.sym.SoftmaxOutput(stateless, name="softmax"))
        first.bind(train.provide_data, train.provide_label)
        first.init_params(arg_params=start)
        first.init_optimizer(optimizer_params={"learning_rate": 0.1})
        if shares:
            module.bind(train.provide_data, train.provide_label, shared_module=first)
        module.set_states(value=0)
        module.update_full_grads(train)
        for batch in train:
            module.forward(batch)
            following = [[module.get_outputs()[1].copy()]]
            if early:
                module.set_states(states=following)
            module.backward()
            module.update()
            if not early:
                module.set_states(states=following)
        results.append(weights_of(module))
    assert_same(*results)


def test_outputs_are_new_objects_in_each_step():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.update_full_grads(train)
    for batch in train:
        module.forward(batch, is_train=True)
        output = module.get_outputs()[0]
        assert output.grad is None
        output.attach_grad()


def test_a_full_pass_leaves_the_pending_gradients_of_a_sharer_alone():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    owner = ready(SOFTMAX, weights, train)
    sharer = sharer_of(owner, SOFTMAX, train)
    sharer.borrow_optimizer(owner)
    sharer.forward_backward(next(train))
    before = [array.asnumpy() for (array,) in sharer._exec_group.grad_arrays]
    owner.update_full_grads(train)
    for (array,), value in zip(sharer._exec_group.grad_arrays, before):
        np.testing.assert_array_equal(array.asnumpy(), value)
    sharer.forward(next(train))
    owner.update_full_grads(train)
    with pytest.raises(RuntimeError, match="needs a new forward"):
        sharer.backward()


def test_sparse_gradients_of_dense_weights(rng):
    tokens, labels = nd(rng.integers(0, 6, (8, 3)), np.float32), nd(rng.integers(0, 2, 8), np.float32)
    weights = []
    for sparse in (False, True):
        output = mx.sym.Embedding(mx.sym.Variable("data"), input_dim=6, output_dim=2, sparse_grad=sparse, name="words")
        output = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(output, num_hidden=2, name="fc"), name="softmax")
        module = SVRGModule(output)
        train = mx.io.NDArrayIter(tokens, labels, 4)
        mx.random.seed(1)
        module.fit(train, num_epoch=2, initializer=mx.init.Uniform(1), optimizer_params={"learning_rate": 0.25})
        weights.append(weights_of(module))
    assert_same(*weights, rtol=1e-5, atol=1e-6)


def test_a_full_pass_without_parameters_to_train():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, fixed_param_names=list(weights))
    for callback in (None, lambda param: None):
        module.update_full_grads(train, batch_end_callback=callback)
        module.forward_backward(next(train))
        module.update()
    assert_same(weights_of(module), weights)


def test_sharing_part_of_the_parameters_of_another_network():
    data, weights = samples(TWO_LAYER, 8)
    train = iterator(TWO_LAYER, data, 4)
    owner = ready(TWO_LAYER, weights, train)
    hidden = mx.sym.tanh(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4, name="fc1"))
    sharer = SVRGModule(mx.sym.LinearRegressionOutput(hidden, mx.sym.Variable("softmax_label")))
    sharer.bind(train.provide_data, [mx.io.DataDesc("softmax_label", (4, 4), np.float64)], shared_module=owner)
    owner.update_full_grads(train)
    before = full_gradients(owner)
    targets = mx.io.NDArrayIter(nd([x for x, _ in data]), nd(np.ones((8, 4))), 4)
    sharer.update_full_grads(targets)
    assert set(full_gradients(sharer)) == {"fc1_weight", "fc1_bias"}
    assert_same(full_gradients(owner), before)


def test_parameters_that_get_a_gradient_after_the_snapshot(tmp_path):
    data, weights = samples(TWO_LAYER, 8)
    train = iterator(TWO_LAYER, data, 4)
    fixed = ready(TWO_LAYER, weights, train, fixed_param_names=["fc1_weight", "fc1_bias"])
    list(train_steps(fixed, train, 1))
    fixed.save_checkpoint(str(tmp_path / "model"), 1, save_optimizer_states=True)
    module = SVRGModule.load(str(tmp_path / "model"), 1, load_optimizer_states=True)
    train.reset()
    module.fit(train, begin_epoch=1, num_epoch=4, optimizer_params={"learning_rate": 0.25})
    assert set(module._param_dict[0]) == set(weights)


@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
def test_training_outputs_of_a_module_bound_for_inference():
    """Monte Carlo dropout."""
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.update_full_grads(train)
    module.bind(train.provide_data, for_training=False, force_rebind=True)
    module.forward(next(train), is_train=True)
    assert module.get_outputs()[0].shape == (4, 3)


def test_head_gradients_by_a_function_before_the_first_snapshot():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    seen = []
    module.forward(next(train))
    module.backward(lambda outputs, batch: seen.append(batch.data[0].shape) or [mx.nd.ones_like(outputs[0])])
    assert seen == [(4, 3)]


def test_states_on_two_devices_and_another_length():
    states = mx.sym.Variable("state", shape=(2, 3))
    output = mx.sym.FullyConnected(mx.sym.mean(mx.sym.Variable("data"), axis=1) + states, num_hidden=3, name="fc")
    module = SVRGModule(mx.sym.SoftmaxOutput(output, name="softmax"), context=[mx.cpu(0), mx.cpu(1)],
                        state_names=["state"])  # fmt: skip
    module.bind([("data", (4, 5, 3))], [("softmax_label", (4,))])
    module.init_params()
    module.set_states(value=0)
    module.forward(mx.io.DataBatch([mx.nd.ones((4, 7, 3))], [mx.nd.ones(4)]), is_train=True)
    assert module.get_outputs()[0].shape == (4, 3)


def test_rebinding_in_another_type():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4, np.float32)
    module = ready(SOFTMAX, weights, train, dtype=np.float32)
    module.update_full_grads(train)
    wide = iterator(SOFTMAX, data, 4)
    module.bind(wide.provide_data, wide.provide_label, force_rebind=True)
    module.forward_backward(next(wide))
    assert module._param_dict[0]["fc_weight"].dtype == np.float64


# ----------------------------------------------------------------------------------------------------- the full pass


def test_a_checkpoint_saved_in_a_callback_of_the_full_pass(tmp_path):
    """It has the snapshot of before, weights and full gradient together; and asking for them changes nothing."""
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    list(train_steps(module, train, 1))

    def save_and_stop(param):
        module._mod_aux.get_params()
        module.save_checkpoint(str(tmp_path / "model"), 1, save_optimizer_states=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.update_full_grads(train, batch_end_callback=save_and_stop)
    saved = files.load(tmp_path / "model", 1, to_go_on=True).sections["snapshot"]
    for snapshot, full in (
        (saved["weights"], saved["full_gradient"]), (module._mod_aux.get_params()[0], module.full_gradient)
    ):  # fmt: skip
        assert_same({name: value.asnumpy() for name, value in snapshot.items()}, weights)
        assert_same({name: value.asnumpy() for name, value in full.items()}, expected_full(weights, data, 1), **EXACT)


def test_an_interrupt_before_the_first_batch(monkeypatch):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    list(train_steps(module, train, 1))
    set_params = module._mod_aux.set_params
    calls = []

    def interrupted(*args, **kwargs):
        set_params(*args, **kwargs)
        if not calls:
            calls.append(1)
            raise KeyboardInterrupt

    monkeypatch.setattr(module._mod_aux, "set_params", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.update_full_grads(train)
    held = {name: arrays[0].asnumpy() for name, arrays in
            zip(module._mod_aux._exec_group.param_names, module._mod_aux._exec_group.param_arrays)}  # fmt: skip
    assert_same(held, weights)


def test_an_iterator_is_reset_after_an_error():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4, last_batch_handle="discard")
    module = ready(SOFTMAX, weights, train)

    def fail(param):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        module.update_full_grads(train, batch_end_callback=fail)
    assert len(list(train)) == 2 and train.last_batch_handle == "discard"


def test_backward_after_a_full_pass_needs_a_new_forward():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.forward(next(train))
    module.update_full_grads(train)
    with pytest.raises(RuntimeError, match="needs a new forward"):
        module.backward()


def test_snapshots_are_logged_with_their_samples(caplog):
    caplog.set_level(logging.INFO)
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4, last_batch_handle="roll_over")
    module = ready(SOFTMAX, weights, train)
    module.update_full_grads(train)
    assert "Snapshot[1] Full gradient: samples=10 " in caplog.text


@pytest.mark.parametrize("devices", [1, 2])
def test_states_that_the_iterator_sets_for_each_batch(devices):
    """They are the same in steps and in full passes: an input that depends on the batch."""
    data, weights = samples(LINEAR, 12)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc") + mx.sym.Variable("state")
    module = SVRGModule(mx.sym.LinearRegressionOutput(output, mx.sym.Variable("softmax_label")), state_names=["state"],
                        context=[mx.cpu(k) for k in range(devices)])  # fmt: skip
    rows = iterator(LINEAR, data, 4)

    class Setting(mx.io.DataIter):
        provide_data, provide_label = rows.provide_data, rows.provide_label

        def reset(self):
            rows.reset()

        def next(self):
            batch = rows.next()
            module.set_states(value=rows.cursor / 8)
            return batch

    train = Setting(4)
    start(module, train, weights)
    shifted = [(x, y - 4 * (k // 4) / 8) for k, (x, y) in enumerate(data)]
    expected = oracle.svrg(LINEAR, weights, shifted, oracle.Optimizer, batch_size=4, epochs=2, update_freq=1)
    for _ in range(2):
        module.update_full_grads(train)
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
            assert_same(weights_of(module), next(expected), **EXACT)


def test_moving_statistics_are_those_of_the_last_batch():
    """mxnet's backward pass writes them without telling its engine; here it takes long."""
    rows, width = 256, 100
    normed = mx.sym.BatchNorm(mx.sym.Variable("data"), name="norm", momentum=0.5)
    hidden = mx.sym.FullyConnected(normed, num_hidden=2000)
    network = mx.sym.LinearRegressionOutput(mx.sym.FullyConnected(hidden, num_hidden=1), mx.sym.Variable("label"))
    x = np.random.default_rng(0).normal(size=(4 * rows, width))
    train = mx.io.NDArrayIter(x, np.zeros(len(x)), rows, label_name="label")
    module = SVRGModule(network, label_names=["label"], update_freq=1)
    module.bind(train.provide_data, train.provide_label)
    module.init_params()
    module.init_optimizer(optimizer_params={"learning_rate": 0.0})
    expected = np.zeros(width)
    for _ in range(4):
        module.update_full_grads(train)
        for k, batch in enumerate(train):
            module.forward_backward(batch)
            module.update()
            expected = 0.5 * expected + 0.5 * x[k * rows : (k + 1) * rows].mean(axis=0)
            moving = module.get_params()[1]["norm_moving_mean"].asnumpy()
            np.testing.assert_allclose(moving, expected, rtol=1e-4, atol=1e-6)
