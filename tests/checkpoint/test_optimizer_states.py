"""Files of optimizer states hold arrays and numbers: what else there may be in a pickle is refused, and not run."""

import os
import pickle

import mxnet as mx
import numpy as np
import pytest
from checkpoint_runs import SOFTMAX, fit, new_module
from models import assert_same, iterator, ready, samples, train_steps

from svrg_optimization import SVRGModule
from svrg_optimization.checkpoint import optimizer_states
from svrg_optimization.mxnet_api import internals


class Runs:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


ATTACKS = {
    "a call": lambda path: Runs(os.mkdir, path), "a call in a state": lambda path: {0: (Runs(os.mkdir, path),)},
    "eval": lambda path: {0: Runs(eval, "__import__('os').mkdir({!r})".format(path))},
    "a getattr": lambda path: {0: Runs(getattr, mx.nd.NDArray, "asnumpy")},
    "mxnet's own functions": lambda path: {0: Runs(mx.nd.save, path, [mx.nd.ones(1)])},
    "an optimizer": lambda path: ({}, mx.optimizer.SGD()),
    "no states": lambda path: [1, 2],
}  # fmt: skip


@pytest.mark.parametrize("how", ["load", "load_optimizer_states"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_pickle_of_a_stranger_is_refused(attack, how, tmp_path):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    plain = ready(SOFTMAX, weights, train, module=mx.mod.Module)
    plain.save_checkpoint(str(tmp_path / "model"), 1, save_optimizer_states=True)
    path = tmp_path / "model-0001.states"
    path.write_bytes(pickle.dumps(ATTACKS[attack](str(tmp_path / "was here"))))
    load = {
        "load": lambda: SVRGModule.load(tmp_path / "model", 1, load_optimizer_states=True),
        "load_optimizer_states": lambda: ready(SOFTMAX, weights, train).load_optimizer_states(path),
    }[how]
    with pytest.raises(ValueError, match=r"model-0001.states can't be read \(it holds "):
        load()
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("state", [
    None, 1, 2.5, "text", b"bytes", bytearray(b"bytes"), 1j, [1, (2, {3: {4}})], frozenset([1]), slice(1),
    np.float32(1.5), np.arange(3.0), np.array(["text"]), mx.nd.ones(2), mx.nd.ones(2).tostype("row_sparse"),
    mx.nd.ones((2, 2)).tostype("csr"), mx.np.ones(2),
], ids=lambda state: type(state).__name__)  # fmt: skip
@pytest.mark.parametrize("protocol", range(3, pickle.HIGHEST_PROTOCOL + 1))
def test_what_states_may_be_made_of(state, protocol, tmp_path):
    path = tmp_path / "states"
    path.write_bytes(pickle.dumps({0: state}, protocol))
    found = optimizer_states.read(path)[0]
    assert type(found) is type(state)
    if hasattr(state, "asnumpy"):
        state, found = state.asnumpy(), found.asnumpy()
    assert np.array_equal(state, found) if isinstance(state, np.ndarray) else state == found


class Made:
    """Is pickled as a call with these arguments, and then a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


TYPE = Made(np.dtype, ("O8", False, True))
ARRAYS = {
    "objects": np.array([{}], dtype=object), "records": np.zeros(1, dtype=[("a", "f4")]),
    "raw bytes": np.zeros(1, dtype="V8"), "dates": np.zeros(1, dtype="M8[s]"),
    "an object type": Made(np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b"),
                           (1, (1,), TYPE, False, b"12345678")),
    "a shape that doesn't fit": Made(np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b"),
                                     (1, (9,), np.dtype("f4"), False, b"1234")),
    "no state": Made(np.core.multiarray._reconstruct, (np.ndarray, (0,), b"b")),
    "an NDArray without a handle": Made(mx.nd.NDArray, (None,), {"handle": None}),
    "an NDArray without a state": Made(mx.nd.NDArray, (None,)),
    "a type": np.ndarray, "a type of mxnet": mx.nd.NDArray,
}  # fmt: skip


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_none(kind, tmp_path):
    """Whatever NumPy or mxnet might be led to do with the bytes."""
    path = tmp_path / "states"
    path.write_bytes(pickle.dumps({0: ARRAYS[kind]}))
    with pytest.raises((ValueError, TypeError)):
        optimizer_states.read(path)


@pytest.mark.parametrize("saved_with", [(1, "local"), (2, "local"), (3, "device")])
@pytest.mark.parametrize("loaded_with", [(1, "local"), (2, "local"), (3, "device"), (1, None)])
def test_states_alone_go_to_other_devices(saved_with, loaded_with, tmp_path):
    data, weights = samples(SOFTMAX, 18)
    train = iterator(SOFTMAX, data, 6)

    def made(devices, store):
        return ready(SOFTMAX, weights, train, devices=devices, kvstore=store,
                     optimizer_params={"learning_rate": 0.25, "momentum": 0.5})  # fmt: skip

    first, other = made(*saved_with), made(*loaded_with)
    for module in (first, other):
        list(train_steps(module, train, 1))
    for state in states_of(other):
        state[:] = 7
    first.save_optimizer_states(str(tmp_path / "states"))
    other.load_optimizer_states(tmp_path / "states")
    for module in (first, other):
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
    assert_same(*({name: value.asnumpy() for name, value in m.get_params()[0].items()} for m in (other, first)),
                rtol=1e-12, atol=1e-14)  # fmt: skip


def states_of(module):
    """The momentum of each weight, as the module's updater holds it."""
    return [state for state in internals.updater_of_weights(module).states.values() if state is not None]


def test_there_is_no_such_file(tmp_path):
    module = new_module()
    fit(module, 0, 1)
    with pytest.raises(FileNotFoundError, match="states"):
        module.load_optimizer_states(str(tmp_path / "states"))
