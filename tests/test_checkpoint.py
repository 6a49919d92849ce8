"""Training goes on from a checkpoint bit for bit; a kill at any moment leaves one checkpoint whole."""

import os
import shutil

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule, checkpoint

SOFTMAX = oracle.PROBLEMS[2]
PARAMS = {"learning_rate": 0.125, "wd": 0.125}
# Those whose state is more than an array for each weight come with what makes it so.
OPTIMIZERS = {
    "sgd": {}, "momentum": {"optimizer": "sgd", "momentum": 0.9}, "adam": {}, "nadam": {}, "nag": {"momentum": 0.9},
    "rmsprop": {}, "adagrad": {}, "adadelta": {}, "ftrl": {}, "ftml": {}, "adamax": {}, "signum": {}, "lamb": {},
    "dcasgd": {}, "lars": {"momentum": 0.9}, "sgld": {},
    "scheduled": {"optimizer": "sgd", "momentum": 0.9,
                  "lr_scheduler": lambda: mx.lr_scheduler.FactorScheduler(4, 0.7, base_lr=0.125)},
}  # fmt: skip


def settings_of(name):
    params = {key: value() if callable(value) else value for key, value in OPTIMIZERS[name].items()}
    optimizer = params.pop("optimizer", name)
    return dict(optimizer=optimizer, optimizer_params={**PARAMS, **params})


def network(dropout):
    if not dropout:
        return symbol(SOFTMAX)
    hidden = mx.sym.Dropout(mx.sym.Variable("data"), p=0.5)
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=3, name="fc"),
                                mx.sym.Variable("softmax_label"), name="out")  # fmt: skip


def new_module(devices=1, update_freq=3, dropout=False):
    return SVRGModule(network(dropout), context=[mx.cpu(i) for i in range(devices)], update_freq=update_freq)


def fit(module, begin, end, store="local", optimizer="momentum", callback=None):
    data, weights = samples(SOFTMAX, 10)
    # float32: some of mxnet's optimizers take nothing else.
    module.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=begin, num_epoch=end, kvstore=store,
               arg_params={name: nd(value, np.float32) for name, value in weights.items()}, aux_params={},
               epoch_end_callback=callback, **settings_of(optimizer))  # fmt: skip


def resume_and_compare(prefix, cut, *, devices=1, store="local", optimizer="momentum", dropout=False, epochs=7):
    mx.random.seed(3)
    whole = new_module(devices, dropout=dropout)

    def save(epoch, *_):
        if epoch + 1 == cut:
            whole.save_checkpoint(prefix, cut, save_optimizer_states=True)

    fit(whole, 0, epochs, store, optimizer, save)
    mx.random.seed(99)  # A new process knows nothing of the old one's generators.
    resumed = SVRGModule.load(prefix, cut, load_optimizer_states=True, context=[mx.cpu(i) for i in range(devices)])
    assert resumed.update_freq == 3
    fit(resumed, cut, epochs, store, optimizer)
    assert_same(weights_of(resumed), weights_of(whole))
    assert_same(*({name: value.asnumpy() for name, value in module._param_dict[-1].items()}
                  for module in (resumed, whole)))  # fmt: skip


@pytest.mark.parametrize("cut", range(1, 7))
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(optimizer, cut, tmp_path):
    resume_and_compare(str(tmp_path / "model"), cut, optimizer=optimizer)


@pytest.mark.parametrize("cut", [3, 4, 5])
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "nadam"])
@pytest.mark.parametrize("devices, store, update_on_kvstore", [
    (1, "object", 1), (1, "object", 0), (2, "local", 1), (2, "device", 0), (2, "object", 1), (3, "local", 1),
])  # fmt: skip
def test_resumed_on_every_kind_of_store(devices, store, update_on_kvstore, optimizer, cut, tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    created = mx.kv.create
    if store == "object":
        # One store for each module.
        monkeypatch.setattr("mxnet.model._create_kvstore", lambda *_: (created("local"), bool(update_on_kvstore)))
        monkeypatch.setattr("mxnet.module.module._create_kvstore",
                            lambda *_: (created("local"), bool(update_on_kvstore)))  # fmt: skip
        store = "local"
    resume_and_compare(str(tmp_path / "model"), cut, devices=devices, store=store, optimizer=optimizer)


@pytest.mark.parametrize("cut", [3, 4])
@pytest.mark.parametrize("devices", [1, 2])
def test_resumed_with_the_very_dropout_masks_of_the_uninterrupted_run(devices, cut, tmp_path):
    resume_and_compare(str(tmp_path / "model"), cut, devices=devices, dropout=True)


def test_the_same_seed_gives_the_same_run_with_dropout():
    runs = []
    for seed in (1, 1, 2):
        mx.random.seed(seed)
        module = new_module(dropout=True)
        fit(module, 0, 3)
        runs.append(weights_of(module))
    assert_same(runs[0], runs[1])
    assert not np.array_equal(runs[0]["fc_weight"], runs[2]["fc_weight"])


def test_a_learning_rate_given_anew_is_used(tmp_path):
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(str(tmp_path / "model"), 2, save_optimizer_states=True)
    resumed = SVRGModule.load(str(tmp_path / "model"), 2, load_optimizer_states=True)
    data, _ = samples(SOFTMAX, 10)
    resumed.fit(
        iterator(SOFTMAX, data, 4, np.float32), begin_epoch=2, num_epoch=3, optimizer_params={"learning_rate": 0.0}
    )
    assert_same(weights_of(resumed), weights_of(module))


def test_other_devices_may_go_on(tmp_path):
    """From one device to two: the full gradient is spread over their rows."""
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, update_freq=3)
    *_, at_two = train_steps(module, train, 2)
    module.save_checkpoint(str(tmp_path / "model"), 2, save_optimizer_states=True)
    resumed = SVRGModule.load(str(tmp_path / "model"), 2, load_optimizer_states=True, context=[mx.cpu(0), mx.cpu(1)])
    resumed.bind(train.provide_data, train.provide_label)
    resumed.init_optimizer(optimizer_params={"learning_rate": 0.25})
    expected = list(train_steps(module, train, 5, begin_epoch=2))
    for actual, wanted in zip(train_steps(resumed, train, 5, begin_epoch=2), expected):
        assert_same(actual, wanted, rtol=1e-12, atol=1e-14)


def test_load_returns_a_plain_module_and_no_state_is_saved(tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module(update_freq=4)
    fit(module, 0, 3)
    module.save_checkpoint(prefix, 3, save_optimizer_states=True)
    loaded = SVRGModule.load(prefix, 3, load_optimizer_states=True)
    assert type(loaded) is SVRGModule and loaded.update_freq == 4
    loaded.bind([("data", (4, 3))], [("softmax_label", (4,))])
    assert_same(
        *({name: value.asnumpy() for name, value in m._mod_aux.get_params()[0].items()} for m in (loaded, module))
    )
    assert SVRGModule.load(prefix, 3, load_optimizer_states=True, update_freq=2).update_freq == 2
    assert SVRGModule.load(prefix, 3).update_freq == 2, "the default, without the optimizer's states"
    assert sorted(os.listdir(tmp_path)) == [
        "model-0003.params", "model-0003.states", "model-0003.svrg", "model-symbol.json"]  # fmt: skip


@pytest.mark.parametrize("states", [False, True])
def test_a_plain_modules_checkpoint_loads(states, tmp_path):
    prefix = str(tmp_path / "model")
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    plain = ready(SOFTMAX, weights, train, module=mx.mod.Module, optimizer_params={"momentum": 0.5})
    for batch in train:
        plain.forward_backward(batch)
        plain.update()
    plain.save_checkpoint(prefix, 1, save_optimizer_states=states)
    loaded = SVRGModule.load(prefix, 1, load_optimizer_states=states, update_freq=3)
    loaded.bind(train.provide_data, train.provide_label)
    loaded.init_optimizer(optimizer_params={"momentum": 0.5})
    assert_same(weights_of(loaded), weights_of(plain))
    if states:
        assert_same(*({str(i): state.asnumpy() for i, state in m._updater.states.items()} for m in (loaded, plain)))
    assert not loaded._snapshot.taken


@pytest.mark.parametrize("devices", [1, 2])
def test_module_loads_ours(devices, tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module(devices)
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    plain = mx.mod.Module.load(prefix, 2, load_optimizer_states=True, context=[mx.cpu(i) for i in range(devices)])
    data, _ = samples(SOFTMAX, 10)
    plain.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=2, num_epoch=3, **settings_of("momentum"))
    assert not np.array_equal(weights_of(plain)["fc_weight"], weights_of(module)["fc_weight"])


def test_optimizer_states_alone_can_be_saved_and_loaded(tmp_path):
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    params = {"learning_rate": 0.25, "momentum": 0.5}
    module = ready(SOFTMAX, weights, train, optimizer_params=params)
    list(train_steps(module, train, 1))
    module.save_optimizer_states(str(tmp_path / "states"))
    other = ready(SOFTMAX, weights, train, optimizer_params=params)
    other.load_optimizer_states(str(tmp_path / "states"))
    assert_same(*({str(i): state.asnumpy() for i, state in m._updater.states.items()} for m in (other, module)))


def test_checkpoints_by_mxnets_callback(tmp_path):
    module = new_module()
    fit(
        module,
        0,
        2,
        callback=mx.callback.module_checkpoint(module, str(tmp_path / "model"), save_optimizer_states=True),
    )
    assert SVRGModule.load(str(tmp_path / "model"), 2, load_optimizer_states=True).update_freq == 3


# -------------------------------------------------------------------------------------------- kills and mixed files


class Killed(BaseException):
    """What stands for SIGKILL: nothing of ours may catch it."""


def kill_at(monkeypatch, moment):
    """Make the `moment`th thing that a save does to the disk the last one; return a counter."""
    count = [0]

    def watched(function):
        def wrapper(*args, **kwargs):
            count[0] += 1
            if count[0] == moment:
                # A kill in the middle of writing a file leaves half of it.
                if function is checkpoint._write:
                    with open(args[0] + ".new", "wb") as half:
                        half.write(b"half")
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(checkpoint, "_write", watched(checkpoint._write))
    monkeypatch.setattr(checkpoint, "_sync_directory", watched(checkpoint._sync_directory))
    monkeypatch.setattr(os, "replace", watched(os.replace))
    return count


def state_of(prefix, epoch):
    """Everything that a checkpoint gives back."""
    module = SVRGModule.load(prefix, epoch, load_optimizer_states=True)
    sections = module._restoring
    parts = dict(module.get_params()[0])
    for group in ("full_gradient", "weights"):
        parts.update((group + ":" + name, array) for name, array in sections["snapshot"][group].items())
    result = {name: array.asnumpy() for name, array in parts.items()}
    with open("{}-{:04d}.states".format(prefix, epoch), "rb") as states:
        result["states"] = np.frombuffer(states.read(), np.uint8)
    result["counts"] = np.array([count for _, _, count in sections["optimizer"]["counts"]])
    return result


MOMENTS = range(1, 12)


@pytest.mark.parametrize("again", [False, True], ids=["new epoch", "same epoch"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_while_saving_leaves_the_old_or_the_new_checkpoint_whole(moment, again, tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    old = state_of(prefix, 2)
    fit(module, 2, 4)
    reference = str(tmp_path / "reference")
    module.save_checkpoint(reference, 2, save_optimizer_states=True)
    new = state_of(reference, 2)
    epoch = 2 if again else 4
    with pytest.MonkeyPatch.context() as patch:
        count = kill_at(patch, moment)
        with pytest.raises(Killed):
            module.save_checkpoint(prefix, epoch, save_optimizer_states=True)
    assert count[0] == moment
    if again:
        found = state_of(prefix, 2)
        assert_same(found, new if np.array_equal(found["fc_weight"], new["fc_weight"]) else old)
    else:
        assert_same(state_of(prefix, 2), old)
        try:
            found = state_of(prefix, 4)
        except FileNotFoundError:
            pass
        else:
            assert_same(found, new)
    # What the kill left behind doesn't disturb the next save.
    module.save_checkpoint(prefix, epoch, save_optimizer_states=True)
    assert_same(state_of(prefix, epoch), new)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".new")]


def test_two_kills_in_a_row(tmp_path):
    """The first behind its commit, the second before it: the first one's checkpoint is the one that counts."""
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 1)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    for begin, moment in ((1, 8), (2, 5)):
        fit(module, begin, begin + 1)
        if moment == 8:
            module.save_checkpoint(str(tmp_path / "reference"), 2, save_optimizer_states=True)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    assert_same(state_of(prefix, 2), state_of(str(tmp_path / "reference"), 2))


def test_another_network_under_the_same_name(tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    old = state_of(prefix, 2)
    other = new_module(dropout=True)
    fit(other, 0, 2)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, 3)
        with pytest.raises(Killed):
            other.save_checkpoint(prefix, 2, save_optimizer_states=True)
    assert_same(state_of(prefix, 2), old)
    assert "Dropout" not in mx.sym.load(prefix + "-symbol.json").tojson()


@pytest.mark.parametrize("content", [b"", b"half a file"])
def test_a_damaged_svrg_file(content, tmp_path):
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    (tmp_path / "model-0002.svrg").write_bytes(content)
    with pytest.raises(ValueError, match="model-0002.svrg can't be read.*load_optimizer_states=False"):
        SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
    assert SVRGModule.load(tmp_path / "model", 2).params_initialized


def test_the_moments_are_all_there_are(tmp_path, monkeypatch):
    module = new_module()
    fit(module, 0, 2)
    count = kill_at(monkeypatch, 0)
    module.save_checkpoint(str(tmp_path / "model"), 2, save_optimizer_states=True)
    assert count[0] == len(MOMENTS)


def test_files_of_different_saves_are_not_mixed(tmp_path):
    prefix = str(tmp_path / "model")
    module = new_module()
    fit(module, 0, 2)
    module.save_checkpoint(prefix, 2, save_optimizer_states=True)
    module.save_checkpoint(prefix, 3, save_optimizer_states=True)
    fit(module, 2, 4)
    module.save_checkpoint(prefix, 2)
    with pytest.raises(ValueError, match=r"model-0002.params wasn't saved together with .*load_optimizer_states=False"):
        SVRGModule.load(prefix, 2, load_optimizer_states=True)
    loaded, _ = SVRGModule.load(prefix, 2).get_params()
    assert_same({name: value.asnumpy() for name, value in loaded.items()}, weights_of(module))
    shutil.copy(prefix + "-0002.params", prefix + "-0003.svrg")
    with pytest.raises(ValueError, match="can't be read .not a .svrg file"):
        SVRGModule.load(prefix, 3, load_optimizer_states=True)


def test_a_checkpoint_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint of epoch 1: .*model-symbol.json does not exist"):
        SVRGModule.load(str(tmp_path / "model"), 1)


def test_before_the_first_snapshot(tmp_path):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    module.save_checkpoint(str(tmp_path / "model"), 0, save_optimizer_states=True)
    loaded = SVRGModule.load(str(tmp_path / "model"), 0, load_optimizer_states=True)
    loaded.bind(train.provide_data, train.provide_label)
    loaded.init_optimizer(optimizer_params={"learning_rate": 0.25})
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=1, update_freq=1)
    for actual, wanted in zip(train_steps(loaded, train, 1), expected):
        assert_same(actual, wanted, rtol=1e-12, atol=1e-14)
