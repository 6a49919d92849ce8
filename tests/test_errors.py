"""Bad input gets an error that names argument, value and remedy, and loses nothing."""

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule

SOFTMAX = oracle.PROBLEMS[2]


@pytest.fixture
def trained():
    """(module, train): one epoch after its snapshot."""
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    list(train_steps(module, train, 1))
    return module, train


def everything(module):
    """All that an error must not lose: weights, snapshot, full gradient."""
    parts = [module.get_params()[0], module._mod_aux.get_params()[0], module._param_dict[0]]
    on_devices = zip(module._mod_aux._exec_group.param_names, module._mod_aux._exec_group.param_arrays)
    parts.append({name: arrays[0] for name, arrays in on_devices})
    return {
        "{}:{}".format(i, name): value.asnumpy().copy() for i, part in enumerate(parts) for name, value in part.items()
    }


class Broken(mx.io.NDArrayIter):
    """Raises in its second batch."""

    def next(self):
        if self.cursor >= 0:
            raise KeyboardInterrupt
        return super().next()


def spoiled(value):
    data, _ = samples(SOFTMAX, 8)
    data[5] = (np.array([0.0, value, 0.0]), data[5][1])
    return iterator(SOFTMAX, data, 4)


def interrupted():
    data, _ = samples(SOFTMAX, 8)
    return Broken(nd([x for x, _ in data]), nd([y for _, y in data]), 4)


def of_shape(data, label):
    return mx.io.NDArrayIter(nd(np.ones(data)), nd(np.zeros(label)), 4)


BAD_DATA = {
    "no batches": (lambda: [], ValueError, "train_data=.* gave no samples"),
    "an exhausted generator": (lambda: iter([]), ValueError, "gave no samples"),
    "nan": (lambda: spoiled(np.nan), FloatingPointError, "gradient of fc_weight, fc_bias in epoch 7 has NaN or Inf.*"
            "learning rate"),  # fmt: skip
    "inf": (lambda: spoiled(np.inf), FloatingPointError, "in epoch 7 has NaN or Inf"),
    "features": (lambda: of_shape((8, 5), 8), ValueError, r"batch 0 of train_data has data \[\(4, 5\)\].*bound to data"
                 r" \[\(4, 3\)\]"),  # fmt: skip
    "no arrays": (lambda: [mx.io.DataBatch([], [nd(np.ones(4))])], ValueError, "data has 0 arrays"),
    "no labels": (lambda: mx.io.NDArrayIter(nd(np.ones((8, 3))), None, 4), ValueError, "it has no labels"),
    "interrupt": (interrupted, KeyboardInterrupt, None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_DATA)
def test_a_failed_full_pass_keeps_the_old_snapshot(trained, name):
    module, train = trained
    make, error, message = BAD_DATA[name]
    before = everything(module)
    with pytest.raises(error, match=message):
        module.update_full_grads(make(), epoch=7)
    assert_same(everything(module), before)
    # Training goes on as if nothing had been tried.
    data, weights = samples(SOFTMAX, 8)
    expected = list(oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=2))
    train.reset()
    for batch, wanted in zip(train, expected[2:]):
        module.forward_backward(batch)
        module.update()
        assert_same(weights_of(module), wanted, rtol=1e-12, atol=1e-14)


def test_a_callback_that_raises_keeps_the_old_snapshot(trained):
    module, train = trained
    before = everything(module)

    def fail(param):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        module.update_full_grads(train, batch_end_callback=fail)
    assert_same(everything(module), before)


def test_a_batch_that_does_not_fit_leaves_the_module_as_it_was(trained):
    module, train = trained
    with pytest.raises(ValueError, match=r"the batch has data \[\(4, 5\)\].*Give an iterator that provides"):
        module.forward(mx.io.DataBatch([nd(np.ones((4, 5)))], [nd(np.ones(4))]))
    with pytest.raises(ValueError, match="it is a list of 2 for 1 devices"):
        module.forward([BATCH, BATCH])
    with pytest.raises(ValueError, match="must have the same shapes"):
        module.forward([BATCH, mx.io.DataBatch([nd(np.ones((5, 3)))], [nd(np.ones(5))])])
    with pytest.raises(ValueError, match="must not be empty"):
        module.forward([])
    train.reset()
    module.forward_backward(next(train))
    assert module.get_outputs()[0].shape == (4, 3)


@pytest.mark.parametrize("grad_req", ["add", {"fc_weight": "add"}, ["write", "add", "write", "null"]], ids=str)
def test_grad_req_add(grad_req):
    with pytest.raises(ValueError, match="grad_req=.*fc_weight.*use grad_req='write'"):
        SVRGModule(symbol(SOFTMAX)).bind([("data", (4, 3))], [("softmax_label", (4,))], grad_req=grad_req)


@pytest.mark.parametrize("grad_req, message", [
    (["write"], "list with one for each of the arguments data, fc_weight"), (3, "must be 'write' or 'null'"),
    ("wirte", "'wirte' is neither 'write' nor 'null'"),
], ids=str)  # fmt: skip
def test_grad_req_of_another_kind(grad_req, message):
    with pytest.raises(ValueError, match=message):
        SVRGModule(symbol(SOFTMAX)).bind([("data", (4, 3))], [("softmax_label", (4,))], grad_req=grad_req)


def test_a_full_pass_over_nothing_that_can_be_passed_over(trained):
    module, train = trained
    with pytest.raises(TypeError, match="train_data=None must be a DataIter"):
        module.update_full_grads(None)
    with pytest.raises(TypeError, match="out_grads is NDArray, and must be a function of"):
        module.update_full_grads(train, out_grads=nd([1.0]))


@pytest.mark.parametrize("heads, kind", [
    (nd([[1.0]]), "NDArray"), ([np.ones((4, 1))], "list of ndarray"), (None, "NoneType"),
], ids=["a bare array", "NumPy's", "nothing"])  # fmt: skip
def test_head_gradients_of_another_kind(heads, kind):
    module = SVRGModule(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc"), label_names=None)
    module.bind([("data", (4, 3))])
    module.init_params()
    module.forward(mx.io.DataBatch([mx.nd.ones((4, 3))]))
    with pytest.raises(TypeError, match="out_grads returned a {}, and must return a list with an NDArray".format(kind)):
        module.backward(lambda outputs, batch: heads)


def test_no_devices():
    with pytest.raises(ValueError, match="context=.* is empty"):
        SVRGModule(symbol(SOFTMAX), context=[])


def test_fewer_rows_than_devices():
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), devices=2)
    with pytest.raises(ValueError, match="too few rows for 2 devices"):
        module.forward(mx.io.DataBatch([nd(np.ones((1, 3)))], [nd(np.ones(1))]))
    module.forward(BATCH)
    assert module.get_outputs()[0].shape == (4, 3)


def test_gradient_compression():
    with pytest.raises(ValueError, match="compression_params={'type': '2bit'}.*leave compression_params out"):
        SVRGModule(symbol(SOFTMAX), compression_params={"type": "2bit"})


def test_work_load_list_of_another_length():
    with pytest.raises(ValueError, match=r"work_load_list=\[1, 2\] has 2 entries for 1 devices"):
        SVRGModule(symbol(SOFTMAX), work_load_list=[1, 2])


@pytest.mark.parametrize("arguments, error, message", [
    (dict(kvstore="lokal"), ValueError, "kvstore='lokal'.*use one of local, device"),
    (dict(kvstore=3), TypeError, "kvstore=3 must be"),
    (dict(optimizer="sdg"), ValueError, "optimizer='sdg' is not registered; use .*'sgd'"),
    (dict(optimizer=None), TypeError, "optimizer=None must be"),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("devices", [1, 2])
def test_unknown_store_or_optimizer(devices, arguments, error, message):
    data, weights = samples(SOFTMAX, 8)
    with pytest.raises(error, match=message):
        ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), devices=devices, **arguments)


def test_unknown_store_object():
    data, weights = samples(SOFTMAX, 8)
    with pytest.raises(ValueError, match="kvstore='lokal'.*silently"):
        ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), kvstore=mx.kv.create("lokal"))


def test_fit_without_num_epoch():
    with pytest.raises(ValueError, match="num_epoch=None"):
        SVRGModule(symbol(SOFTMAX)).fit(iterator(SOFTMAX, samples(SOFTMAX, 8)[0], 4))


BATCH = mx.io.DataBatch([nd(np.ones((4, 3)))], [nd(np.ones(4))])
METRIC = mx.metric.Accuracy()
UNBOUND = {
    "init_params": (), "forward": (BATCH,), "forward_backward": (BATCH,), "backward": (), "update": (),
    "update_full_grads": ([BATCH],), "init_optimizer": (), "get_outputs": (), "get_input_grads": (), "get_states": (),
    "set_states": (), "reshape": ([("data", (4, 3))],), "prepare": (BATCH,), "install_monitor": (None,),
    "get_params": (), "set_params": ({}, {}), "update_metric": (METRIC, []), "score": ([BATCH], METRIC),
    "predict": ([BATCH],), "iter_predict": ([BATCH],), "save_checkpoint": ("x", 1), "save_params": ("x",),
    "save_optimizer_states": ("x",), "load_optimizer_states": ("x",),
}  # fmt: skip


@pytest.mark.parametrize("method", UNBOUND)
def test_calls_before_bind(method):
    with pytest.raises(RuntimeError, match=r"\b{}\(\).* was called too early: call \w+\(.*\) first".format(method)):
        getattr(SVRGModule(symbol(SOFTMAX)), method)(*UNBOUND[method])


@pytest.mark.parametrize("attribute", ["data_shapes", "label_shapes", "output_shapes"])
def test_shapes_before_bind(attribute):
    with pytest.raises(RuntimeError, match="call bind"):
        getattr(SVRGModule(symbol(SOFTMAX)), attribute)


@pytest.mark.parametrize("method", ["forward", "backward", "update", "update_full_grads", "init_optimizer", "score"])
def test_calls_before_init_params(method):
    module = SVRGModule(symbol(SOFTMAX))
    module.bind([("data", (4, 3))], [("softmax_label", (4,))])
    with pytest.raises(RuntimeError, match=r"call init_params\(\) first"):
        getattr(module, method)(*UNBOUND[method])


@pytest.mark.parametrize("method", ["update", "update_full_grads", "save_optimizer_states"])
def test_calls_before_init_optimizer(method, tmp_path):
    module = SVRGModule(symbol(SOFTMAX))
    module.bind([("data", (4, 3))], [("softmax_label", (4,))])
    module.init_params()
    with pytest.raises(RuntimeError, match=r"call init_optimizer\(\) first"):
        getattr(module, method)(*UNBOUND[method])
    with pytest.raises(RuntimeError, match=r"call init_optimizer\(\) first"):
        module.save_checkpoint(str(tmp_path / "model"), 1, save_optimizer_states=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
def test_training_calls_when_bound_for_inference():
    module = SVRGModule(symbol(SOFTMAX))
    module.bind([("data", (4, 3))], for_training=False)
    module.init_params()
    module.init_optimizer()
    for method in ("backward", "update_full_grads", "forward_backward"):
        with pytest.raises(RuntimeError, match="for_training=True, force_rebind=True"):
            getattr(module, method)(*UNBOUND[method])
    with pytest.raises(RuntimeError, match="update"):
        module.update()
    with pytest.raises(ValueError, match="inputs_need_grad=True needs for_training=True"):
        module.bind([("data", (4, 3))], for_training=False, inputs_need_grad=True, force_rebind=True)


def test_sharing_with_a_module_that_is_not_ready():
    with pytest.raises(RuntimeError, match="shared_module must be bound"):
        SVRGModule(symbol(SOFTMAX)).bind([("data", (4, 3))], [("softmax_label", (4,))],
                                         shared_module=SVRGModule(symbol(SOFTMAX)))  # fmt: skip
    with pytest.raises(TypeError, match="shared_module=3 must be"):
        SVRGModule(symbol(SOFTMAX)).bind([("data", (4, 3))], shared_module=3)
