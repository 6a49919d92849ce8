"""Full passes in larger batches, and what `fit` reads as views: that they are quick, and give the same."""

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples

from svrg_optimization import SVRGModule
from svrg_optimization.compute import full_pass, larger_batches, own_thread
from svrg_optimization.mxnet_api import shapes

PROBLEMS = {problem.name: problem for problem in oracle.PROBLEMS}


@pytest.fixture
def given(monkeypatch):
    """The number of rows of every batch that is given to a network at the snapshot."""
    rows = []

    def _gradients_of(self, module, batch, usual=full_pass.FullPass._gradients_of):
        rows.append(batch.data[0].shape[0])
        return usual(self, module, batch)

    def compute(self, batch, usual=larger_batches.RecordedNetwork.compute):
        rows.append(batch.data[0].shape[0])
        usual(self, batch)

    monkeypatch.setattr(full_pass.FullPass, "_gradients_of", _gradients_of)
    monkeypatch.setattr(larger_batches.RecordedNetwork, "compute", compute)
    return rows


def _bound(problem, n, batch_size=4, **kwargs):
    data, weights = samples(problem, n)
    train = iterator(problem, data, batch_size, **kwargs)
    return ready(problem, weights, train), train, data, weights


def _allow(monkeypatch, module, rows):
    monkeypatch.setattr(
        larger_batches, "AT_ONCE", rows * shapes.bytes_per_row(module, inputs=module._way.in_own_thread)
    )


@pytest.mark.parametrize(
    "n, most, rows", [(24, 24, [24]), (24, 13, [12, 12]), (23, 13, [12, 11]), (24, 4, [4] * 6), (3, 99, [3])]
)
@pytest.mark.parametrize("problem", oracle.PROBLEMS, ids=repr)
@pytest.mark.parametrize("strategy", ["automatic", "serial", "overlapped"], indirect=True)
def test_a_full_pass_takes_many_rows_at_once(problem, n, most, rows, given, strategy, monkeypatch):
    module, train, data, weights = _bound(problem, n)
    _allow(monkeypatch, module, most)
    for _ in range(2):
        module.update_full_grads(train)
        # What is computed at the same time are two batches.
        assert given == ([12, 12] if strategy == "overlapped" and rows == [24] else rows)
        given.clear()
        mu = oracle.full_gradient(problem, weights, data)
        full = {name: value.asnumpy() / 4 for name, value in module._param_dict[0].items()}
        assert_same(full, mu, rtol=1e-12, atol=1e-14)
        # And at other weights.
        weights = {name: value / 2 for name, value in weights.items()}
        module.set_params({name: nd(value) for name, value in weights.items()}, {})
    # Steps, and the iterator, go on as before.
    batches = list(train)
    assert [batch.data[0].shape[0] for batch in batches] == [4] * -(-n // 4)
    module.forward_backward(batches[0])
    assert module._mod_aux.data_shapes[0].shape[0] == 4


@pytest.mark.parametrize("strategy", ["memory saving"], indirect=True)
def test_memory_is_saved_in_full_passes_too(strategy, given):
    module, train, _, _ = _bound(PROBLEMS["softmax"], 12)
    module.update_full_grads(train)
    assert given == [4, 4, 4]


@pytest.mark.parametrize("strategy", ["automatic", "serial", "overlapped"], indirect=True)
@pytest.mark.parametrize("last", ["reshape", "rebind"])
def test_larger_batches_follow_a_module_that_is_bound_anew(strategy, last, given):
    problem = PROBLEMS["softmax"]
    module, train, data, weights = _bound(problem, 12)
    module.update_full_grads(train)
    if last == "reshape":
        module.forward_backward(next(iterator(problem, data, 3)))
        module.update()
    else:
        module.bind(train.provide_data, train.provide_label, force_rebind=True)
        module.init_optimizer(force_init=True)
    assert set(given) == ({6} if strategy == "overlapped" else {12})
    # Arrays that nobody uses any more would show.
    module.set_params({name: nd(value / 2) for name, value in weights.items()}, {})
    module.update_full_grads(train)
    mu = oracle.full_gradient(problem, {name: value / 2 for name, value in weights.items()}, data)
    assert_same(
        {name: value.asnumpy() / 4 for name, value in module._param_dict[0].items()}, mu, rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("strategy", ["overlapped"], indirect=True)
def test_larger_batches_leave_pending_gradients_alone(strategy, given):
    problem = PROBLEMS["softmax"]
    module, train, _, _ = _bound(problem, 12)
    module.forward_backward(next(train))
    before = [array.asnumpy() for (array,) in module._exec_group.grad_arrays]
    module.update_full_grads(train)
    assert given == [6, 6]
    for (array,), value in zip(module._exec_group.grad_arrays, before):
        np.testing.assert_array_equal(array.asnumpy(), value)


@pytest.mark.parametrize("settings", [dict(last_batch_handle="discard"), dict(last_batch_handle="roll_over"),
                                      dict(shuffle=True)], ids=str)  # fmt: skip
def test_the_iterator_may_shuffle_or_leave_rows_out(settings, given):
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 10)
    train = iterator(problem, data, 4, "float32", **settings)
    module = ready(problem, weights, train, dtype="float32")
    module.update_full_grads(train)
    assert given == [10]
    mu = oracle.full_gradient(problem, weights, data)
    full = {name: value.asnumpy() / 4 for name, value in module._param_dict[0].items()}
    assert_same(full, mu, rtol=1e-5, atol=1e-6)


def test_callbacks_see_the_batches_of_the_iterator(given):
    module, train, _, _ = _bound(PROBLEMS["softmax"], 12)
    seen = []
    module.update_full_grads(train, batch_end_callback=lambda param: seen.append(param.nbatch))
    assert seen == [0, 1, 2] and given == [4, 4, 4]


def _scores(rows=None):
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc")
    return output if rows is None else mx.sym.reshape(output, shape=(rows, 3))


def _log_loss(average):
    label = mx.sym.one_hot(mx.sym.Variable("softmax_label"), depth=3)
    loss = -mx.sym.sum(mx.sym.log_softmax(_scores()) * label, axis=1)
    return mx.sym.MakeLoss(mx.sym.mean(loss) if average else loss)


def _centred(scores):
    return mx.sym.broadcast_sub(scores, mx.sym.mean(scores, axis=0, keepdims=True))


ONE_SIZE = {
    "a loss that averages by itself": lambda: _log_loss(average=True),
    "a loss that may do anything": lambda: _log_loss(average=False),
    "normalization": lambda: mx.sym.SoftmaxOutput(_scores(), name="softmax", normalization="batch"),
    "a batch size in the symbol": lambda: mx.sym.SoftmaxOutput(_scores(4), name="softmax"),
    "batch normalisation": lambda: mx.sym.SoftmaxOutput(mx.sym.BatchNorm(_scores(), name="bn"), name="softmax"),
    "the mean of the rows": lambda: mx.sym.SoftmaxOutput(_centred(_scores()), name="softmax"),
    "dropout": lambda: mx.sym.SoftmaxOutput(mx.sym.Dropout(_scores()), name="softmax"),
    "an output that isn't a loss": lambda: 1 * mx.sym.SoftmaxOutput(_scores(), name="softmax"),
    "a loss that asks for head gradients": lambda: mx.sym.SoftmaxOutput(_scores(), name="softmax", out_grad=True),
}


@pytest.mark.parametrize("name", ONE_SIZE)
def test_networks_that_may_depend_on_the_batch_size_keep_it(name, given, rng):
    module = SVRGModule(ONE_SIZE[name]())
    train = mx.io.NDArrayIter(rng.normal(size=(12, 5)), rng.integers(0, 3, 12), 4)
    module.bind(train.provide_data, train.provide_label)
    module.init_params()
    module.init_optimizer()
    module.update_full_grads(train)
    assert given == [4, 4, 4]


@pytest.mark.parametrize("n", [4, 12])
def test_head_gradients_that_are_missing_are_an_error_whatever_the_size(n):
    scores = _scores()
    module = SVRGModule(mx.sym.Group([mx.sym.SoftmaxOutput(scores, name="softmax"), scores]))
    train = mx.io.NDArrayIter(np.zeros((n, 5)), np.zeros(n), 4)
    module.bind(train.provide_data, train.provide_label)
    module.init_params()
    module.init_optimizer()
    with pytest.raises(mx.base.MXNetError, match="head_gradient is required"):
        module.update_full_grads(train)


def test_labels_that_are_neither_given_nor_bound_keep_the_batch_size(given):
    train = mx.io.NDArrayIter(np.ones((12, 5)), None, 4)
    module = SVRGModule(mx.sym.SoftmaxOutput(_scores(), name="softmax"))
    with pytest.warns(UserWarning, match="don't match names specified by label_names"):
        module.bind(train.provide_data)
    module.init_params()
    module.init_optimizer()
    module.update_full_grads(train)
    assert given == [4, 4, 4]


@pytest.mark.parametrize("untrained", ["fixed", "grad_req"])
@pytest.mark.parametrize("strategy", ["automatic", "overlapped"], indirect=True)
def test_a_network_with_nothing_to_train_has_no_full_gradient(untrained, strategy):
    fixed = ["fc_weight", "fc_bias"] if untrained == "fixed" else None
    module = SVRGModule(mx.sym.SoftmaxOutput(_scores(), name="softmax"), fixed_param_names=fixed)
    train = mx.io.NDArrayIter(np.ones((12, 5)), np.zeros(12), 4)
    module.bind(train.provide_data, train.provide_label, grad_req="null" if untrained == "grad_req" else "write")
    module.init_params()
    module.init_optimizer()
    module.update_full_grads(train)
    assert module._param_dict == [{}]


@pytest.mark.parametrize("strategy", ["automatic", "overlapped"], indirect=True)
def test_what_must_be_copied_takes_the_same_memory_again(strategy, monkeypatch):
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 24)
    module = ready(problem, weights, iterator(problem, data, 2, "float32"), dtype="float32")
    monkeypatch.setattr(larger_batches, "AT_ONCE", 3 * shapes.bytes_per_row(module, inputs=True))
    copies, usual = [], mx.nd.NDArray.copyto
    pass_executors = module._larger._networks.values()

    def copyto(array, target):
        if any(target is copy for each in pass_executors for copy in each._copies.values()):
            copies.append(target)
        return usual(array, target)

    monkeypatch.setattr(mx.nd.NDArray, "copyto", copyto)
    for _ in range(2):
        module.update_full_grads(iterator(problem, data, 2, "float64"))
    # Eight batches, twice, of data and labels each.
    executors = 2 if strategy == "overlapped" else 1
    assert len(copies) == 8 * 2 * 2 and len({id(copy) for copy in copies}) == 2 * executors


def test_no_more_rows_at_once_than_are_summed_exactly(given, monkeypatch):
    module, train, _, _ = _bound(PROBLEMS["softmax"], 24)
    monkeypatch.setattr(larger_batches, "ROWS_AT_ONCE", 9)
    module.update_full_grads(train)
    assert given == [8, 8, 8]


def test_a_full_pass_leaves_gradients_with_respect_to_the_data_alone(given):
    module, train, _, _ = _bound(PROBLEMS["softmax"], 12)
    x = train.data[0][1]
    x.attach_grad()
    x.grad[:] = 7
    with mx.autograd.record():
        module.update_full_grads(train)
    assert given == [12] and (x.grad.asnumpy() == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("strategy", ["automatic", "overlapped"], indirect=True)
def test_other_types_are_cast_as_for_a_step(dtype, strategy, given):
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 12)
    module = ready(problem, weights, iterator(problem, data, 4, "float32"), dtype="float32")
    module.update_full_grads(iterator(problem, data, 4, dtype))
    assert set(given) == ({6} if strategy == "overlapped" else {12})
    mu = oracle.full_gradient(problem, weights, data)
    full = {name: value.asnumpy() / 4 for name, value in module._param_dict[0].items()}
    assert_same(full, mu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["automatic", "overlapped"], indirect=True)
def test_a_full_pass_leaves_no_mark_on_the_modules_arrays(strategy, given):
    module, train, _, _ = _bound(PROBLEMS["softmax"], 12)
    with mx.autograd.pause():
        module.update_full_grads(train)
        assert not mx.autograd.is_recording() and not mx.autograd.is_training()
    assert set(given) <= {6, 12}
    groups = module._exec_group, module._mod_aux._exec_group
    for (array,) in [each for group in groups for each in group.param_arrays + group.grad_arrays]:
        with mx.autograd.record():
            twice = 2 * array
        with pytest.raises(mx.base.MXNetError, match="not in a computational graph"):
            twice.backward()


class Augmenting(SVRGModule):
    """Changes its batches in place."""

    def forward(self, data_batch, is_train=None):
        data_batch.data[0][:] += 1
        super().forward(data_batch, is_train)


@pytest.mark.parametrize("by", ["subclass", "method of the module's own", "sparse_row_id_fn"])
def test_batches_that_others_may_change_are_copies(by):
    def change(batch):
        batch.data[0][:] += 1
        return {}

    data, _ = samples(PROBLEMS["softmax"], 8)
    train = iterator(PROBLEMS["softmax"], data, 4)
    before = train.data[0][1].asnumpy().copy()
    module = (Augmenting if by == "subclass" else SVRGModule)(mx.sym.SoftmaxOutput(_scores(), name="softmax"))
    if by == "method of the module's own":
        module.forward = lambda batch, usual=module.forward, **kwargs: (change(batch), usual(batch, **kwargs))
    options = {"sparse_row_id_fn": change, "kvstore": mx.kv.create("local")} if by == "sparse_row_id_fn" else {}
    module.fit(train, num_epoch=2, **options)
    np.testing.assert_array_equal(train.data[0][1].asnumpy(), before)


@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_reads_views_of_data_that_stay(shuffle, monkeypatch):
    calls, usual = [], mx.io.NDArrayIter.getdata
    monkeypatch.setattr(mx.io.NDArrayIter, "getdata", lambda data: (calls.append(data), usual(data))[1])
    data, _ = samples(PROBLEMS["softmax"], 8)
    train = iterator(PROBLEMS["softmax"], data, 4, "float32", shuffle=shuffle)
    module = SVRGModule(mx.sym.SoftmaxOutput(_scores(), name="softmax"))
    module.fit(train, num_epoch=2)
    assert len(calls) == (4 if shuffle else 0)
    # A view would keep the data as long as there is the module.
    assert module._batch is None


def test_head_gradients_are_computed_for_the_batches_of_the_iterator(given):
    problem = PROBLEMS["softmax"]
    data, weights = samples(problem, 12)
    train = iterator(problem, data, 4)
    module = SVRGModule(_scores(), label_names=None)
    module.bind(train.provide_data)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()})
    module.init_optimizer()

    def heads(outputs, batch):
        return [mx.nd.softmax(outputs[0]) - mx.nd.one_hot(batch.label[0], 3, dtype="float64")]

    module.update_full_grads(train, out_grads=heads)
    assert given == [4, 4, 4]
    full = {name: value.asnumpy() / 4 for name, value in module._param_dict[0].items()}
    assert_same(full, oracle.full_gradient(problem, weights, data), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("strategy", ["serial", "overlapped"], indirect=True)
def test_an_overlapped_snapshot_is_bound_apart_for_every_shape(strategy, monkeypatch):
    calls = []
    usual = own_thread.call
    monkeypatch.setattr(own_thread, "call", lambda function: (calls.append(function), usual(function)))
    problem = PROBLEMS["softmax"]
    module, train, data, _ = _bound(problem, 12)
    module.update_full_grads(train)
    for rows in (2, 4):
        module.forward_backward(next(iter(iterator(problem, data, rows))))
    # At first, for larger batches, and for each shape.
    assert len(calls) == (4 if strategy == "overlapped" else 0)
