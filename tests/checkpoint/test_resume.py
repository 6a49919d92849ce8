"""Training goes on from a checkpoint: bit for bit, or to rounding where devices or stores are others."""

import collections
import os
import pickle

import mxnet as mx
import numpy as np
import oracle
import pytest
from checkpoint_runs import OPTIMIZERS, SOFTMAX, fit, new_module, settings_of
from models import assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule, module_state
from svrg_optimization.mxnet_api import internals


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


# -------------------------------------------------------------------------------------- other devices, other stores


class Setup:
    """On which devices a run is, and who updates its weights."""

    def __init__(self, devices, store, update_on_kvstore):
        self.devices, self.store, self.update_on_kvstore = devices, store, update_on_kvstore

    def __repr__(self):
        return "{}-{}-{}".format("".join(map(str, self.devices)), self.store, self.update_on_kvstore)

    def trajectory(self, optimizer):
        """What two setups share on which mxnet computes the same."""
        if len(self.devices) > 1 and self.store is None:
            # Each device trains on its own rows.
            return "apart", len(self.devices)
        if len(self.devices) > 1 and optimizer == "nadam" and not self.update_on_kvstore:
            # Its m_schedule is multiplied at each update, so on each device.
            return "nadam", len(self.devices)
        return "together", 0


SETUPS = [
    Setup(devices, store, update)
    for devices in ((0,), (0, 1), (0, 1, 2), (5,)) for store in (None, "local", "device") for update in (0, 1)
]  # fmt: skip
FIRST = ("0-local-1", "01-local-1", "012-device-0", "01-local-0", "01-None-0")
STATEFUL = {
    "momentum": ("sgd", dict(momentum=0.5, lr_scheduler=lambda: mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=0.25))),
    "adam": ("adam", dict(learning_rate=0.125)), "nadam": ("nadam", dict(learning_rate=0.125)),
}  # fmt: skip


def run(setup, optimizer, begin, end, module=None, callback=None):
    """Train in float64; return the module."""
    data, weights = samples(SOFTMAX, 18)
    name, params = STATEFUL[optimizer]
    module = module or SVRGModule(symbol(SOFTMAX), context=list(map(mx.cpu, setup.devices)), update_freq=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MXNET_UPDATE_ON_KVSTORE", str(setup.update_on_kvstore))
        module.fit(iterator(SOFTMAX, data, 6), begin_epoch=begin, num_epoch=end, kvstore=setup.store, optimizer=name,
                   optimizer_params={key: value() if callable(value) else value for key, value in params.items()},
                   arg_params={key: nd(value) for key, value in weights.items()}, aux_params={},
                   epoch_end_callback=callback)  # fmt: skip
    return module


@pytest.mark.parametrize("optimizer", STATEFUL)
@pytest.mark.parametrize("first", [each for each in SETUPS if repr(each) in FIRST], ids=repr)
def test_any_devices_and_store_go_on(first, optimizer, tmp_path):
    def save(epoch, *_):
        if epoch == 3:
            whole.save_checkpoint(tmp_path / "model", 4, save_optimizer_states=True)

    whole = SVRGModule(symbol(SOFTMAX), context=list(map(mx.cpu, first.devices)), update_freq=3)
    run(first, optimizer, 0, 6, whole, save)
    compared = [setup for setup in SETUPS if setup.trajectory(optimizer) == first.trajectory(optimizer)]
    assert len(compared) >= 2
    for setup in compared:
        resumed = SVRGModule.load(tmp_path / "model", 4, load_optimizer_states=True,
                                  context=list(map(mx.cpu, setup.devices)))  # fmt: skip
        run(setup, optimizer, 4, 6, resumed)
        assert_same(weights_of(resumed), weights_of(whole), rtol=1e-10, atol=1e-14)
        assert internals.optimizer(resumed).num_update == internals.optimizer(whole).num_update


def saved_and_loaded(module, train, directory):
    """A module that goes on from a module's checkpoint, and lacks the optimizer only."""
    module.save_checkpoint(str(directory / "model"), 1, save_optimizer_states=True)
    resumed = SVRGModule.load(directory / "model", 1, load_optimizer_states=True)
    resumed.bind(train.provide_data, train.provide_label)
    return resumed


def test_a_plain_module_of_two_devices_goes_on_with_one(tmp_path):
    """Its states are numbered by parameter and device, and nothing says how many devices there were."""
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    settings = dict(kvstore="local", optimizer_params={"learning_rate": 0.25, "momentum": 0.5})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
        plain = ready(SOFTMAX, weights, train, module=mx.mod.Module, devices=2, **settings)
    for batch in train:
        plain.forward_backward(batch)
        plain.update()
    resumed = saved_and_loaded(plain, train, tmp_path)
    resumed.init_optimizer(**settings)
    train.reset()
    for batch in train:
        for module in (plain, resumed):
            module.forward_backward(batch)
            module.update()
        assert_same(weights_of(resumed), weights_of(plain), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("saved", ["ours", "Module's"])
@pytest.mark.parametrize("first, then", [("adam", "sgd"), ("sgd", "adam"), ("adam", "nag")])
def test_states_of_another_optimizer(first, then, saved, tmp_path):
    params = {"adam": {}, "sgd": {"momentum": 0.5}, "nag": {"momentum": 0.5}}
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, module=SVRGModule if saved == "ours" else mx.mod.Module, optimizer=first,
                   optimizer_params=params[first])  # fmt: skip
    for batch in train:
        module.forward_backward(batch)
        module.update()
    resumed = saved_and_loaded(module, train, tmp_path)
    with pytest.raises(ValueError, match="model-0001.states has the states of .*load_optimizer_states=False"):
        resumed.init_optimizer(optimizer=then, optimizer_params=params[then])


def test_states_begin_anew_if_the_settings_need_others(tmp_path, caplog):
    module = new_module()
    fit(module, 0, 2, optimizer="sgd")
    module.save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    resumed = SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
    caplog.set_level("INFO")
    fit(resumed, 2, 3, optimizer="momentum")
    said = [message for message in caplog.messages if "begin anew" in message]
    assert len(said) == 1 and "fc_weight, fc_bias begin anew" in said[0]


def test_another_schedule_is_the_users(tmp_path):
    """One that has ended goes on as it was only if the same is given again."""
    module = new_module()
    fit(module, 0, 3, optimizer="poly")
    module.save_checkpoint(tmp_path / "model", 3, save_optimizer_states=True)
    resumed = SVRGModule.load(tmp_path / "model", 3, load_optimizer_states=True)
    data, _ = samples(SOFTMAX, 10)
    # This one has ended before it was asked, so it keeps the rate that it began with.
    schedule = mx.lr_scheduler.PolyScheduler(3, base_lr=0.5)
    resumed.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=3, num_epoch=4,
                optimizer_params={"learning_rate": 0.5, "lr_scheduler": schedule})  # fmt: skip
    assert schedule.base_lr == 0.5


def on_devices(module):
    """Every weight and moving statistic, on each device."""
    return {"{} {}".format(name, k): array.asnumpy() for k, each in enumerate(internals.executors(module))
            for name, array in [*each.arg_dict.items(), *each.aux_dict.items()]
            if name not in ("data", "softmax_label")}  # fmt: skip


@pytest.mark.parametrize("devices, store", [(1, "local"), (2, "local"), (3, "local"), (2, None)])
def test_each_devices_moving_statistics_and_weights_go_on(devices, store, tmp_path):
    normed = mx.sym.BatchNorm(mx.sym.Variable("data"), name="norm", fix_gamma=False)
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(normed, num_hidden=3, name="fc"), name="softmax")
    data, _ = samples(SOFTMAX, 18)
    context = list(map(mx.cpu, range(devices)))
    train = iterator(SOFTMAX, data, 6, np.float32)

    def with_optimizer(module):
        module.bind(train.provide_data, train.provide_label)
        module.init_params()
        module.init_optimizer(kvstore=store, optimizer_params={"learning_rate": 0.25, "momentum": 0.5})
        return module

    # In a loop of one's own: Module.fit averages over the devices after each epoch.
    whole = with_optimizer(SVRGModule(net, context=context, update_freq=3))
    list(train_steps(whole, train, 4))
    whole.save_checkpoint(tmp_path / "model", 4, save_optimizer_states=True)
    saved = on_devices(whole)
    resumed = with_optimizer(SVRGModule.load(tmp_path / "model", 4, load_optimizer_states=True, context=context))
    assert_same(on_devices(resumed), saved)
    for module in (whole, resumed):
        list(train_steps(module, train, 7, begin_epoch=4))
    assert_same(on_devices(resumed), on_devices(whole))


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


# ------------------------------------------------------------------------------------------------ odd ways to go on


def four_layers():
    """Layers of one shape, without biases."""
    net = mx.sym.Variable("data")
    for k in range(4):
        net = mx.sym.FullyConnected(net, num_hidden=3, no_bias=True, name="l{}".format(k))
    return mx.sym.LinearRegressionOutput(net, mx.sym.Variable("label"))


def with_four_layers(kind, fixed, devices=1, module=None):
    train = mx.io.NDArrayIter(np.ones((4, 3)), np.zeros((4, 3)), 4, label_name="label")
    arguments = dict(label_names=["label"], fixed_param_names=fixed, context=list(map(mx.cpu, range(devices))))
    module = kind(four_layers(), **arguments) if module is None else module(**arguments)
    module.bind(train.provide_data, train.provide_label)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
        module.init_params()
        module.init_optimizer(optimizer_params={"momentum": 0.5})
    return module


SOME = ["l2_weight", "l3_weight"]


@pytest.mark.parametrize("kind", [mx.mod.Module, SVRGModule])
@pytest.mark.parametrize("fixed, fixed_then", [([], []), ([], SOME), ([], ["l0_weight"]), (SOME, SOME)])
@pytest.mark.parametrize("devices", [1, 2])
def test_states_of_layers_that_are_alike(devices, fixed, fixed_then, kind, tmp_path):
    """Each goes to its layer, or is refused: a plain Module's file doesn't say on how many devices it was saved."""
    module = with_four_layers(kind, fixed, devices)
    states = internals.updater_of_weights(module).states
    for each in internals.updated_parameters(module):
        for key in each.keys:
            states[key] = mx.nd.full((3, 3), each.position)
    module.save_checkpoint(str(tmp_path / "model"), 1, save_optimizer_states=True)

    def load(**arguments):
        return SVRGModule.load(tmp_path / "model", 1, load_optimizer_states=True, **arguments)

    refused = 0
    for devices_then in (1, 2):
        try:
            resumed = with_four_layers(None, fixed_then, devices_then, load)
        except ValueError:
            refused += 1
            continue
        for each in internals.updated_parameters(resumed):
            for key in each.keys:
                state = internals.updater_of_weights(resumed).states[key]
                assert state.asnumpy().tolist() == np.full((3, 3), each.position).tolist()
    if kind is SVRGModule:
        assert not refused
    elif not fixed_then:
        # As it was saved.
        with_four_layers(None, [], devices, load)


@pytest.mark.parametrize(
    "states",
    [{"other_weight": mx.nd.ones((3, 3))}, {7: mx.nd.ones((3, 3)), 9: mx.nd.ones((3, 3))}],
    ids=["names", "numbers"],
)
def test_states_of_another_network(states, tmp_path):
    (tmp_path / "states").write_bytes(pickle.dumps(states))
    module = with_four_layers(SVRGModule, [])
    with pytest.raises(ValueError, match="states: it (has states, but none of this|doesn't say on how many devices)"):
        module.load_optimizer_states(tmp_path / "states")


@pytest.mark.parametrize("interrupted", ["the wrong optimizer", "an interrupt"])
def test_a_second_try_goes_on_from_the_checkpoint(interrupted, tmp_path, monkeypatch):
    whole = new_module()
    fit(whole, 0, 4, optimizer="adam",
        callback=lambda epoch, *_: epoch == 1 and whole.save_checkpoint(tmp_path / "model", 2, True))  # fmt: skip
    resumed = SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
    if interrupted == "an interrupt":
        with pytest.MonkeyPatch.context() as patch:
            for name in ("restore_snapshot", "restore_optimizer"):
                method = getattr(module_state, name)

                def interrupt(*args, method=method):
                    method(*args)
                    raise KeyboardInterrupt

                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(module_state, name, interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        fit(resumed, 2, 4, optimizer="adam")
    else:
        with pytest.raises(ValueError, match="the states of Adam, and the optimizer is SGD"):
            fit(resumed, 2, 4, optimizer="momentum")
    fit(resumed, 2, 4, optimizer="adam")
    assert_same(weights_of(resumed), weights_of(whole))


def test_devices_that_trained_apart_go_on_together(tmp_path):
    """With a KVStore all have the weights of the .params file."""
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, devices=2, kvstore=None)
    list(train_steps(module, train, 2))
    module.save_checkpoint(tmp_path / "model", 2, save_optimizer_states=True)
    for kvstore, apart in ((None, True), ("local", False)):
        for update in "01":
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MXNET_UPDATE_ON_KVSTORE", update)
                resumed = SVRGModule.load(
                    tmp_path / "model", 2, load_optimizer_states=True, context=[mx.cpu(0), mx.cpu(1)]
                )
                resumed.bind(train.provide_data, train.provide_label)
                resumed.init_optimizer(kvstore=kvstore, optimizer_params={"learning_rate": 0.25})
            first, second = (each.arg_dict["fc_weight"].asnumpy() for each in internals.executors(resumed))
            assert np.array_equal(first, second) is not apart


class Counting(mx.lr_scheduler.LRScheduler):
    """Keeps how often it was asked, in some form."""

    def __init__(self, start):
        super().__init__(base_lr=0.125)
        self.asked = start

    def __call__(self, num_update):
        self.asked = self.asked + 1
        return 0.125 / float(np.sum(self.asked))


@pytest.mark.parametrize("start, is_kept", [(1, True), (1.0, True), (np.int64(1), True), (np.float32(1), True),
                                            (np.ones(1), False)], ids=lambda each: type(each).__name__)  # fmt: skip
def test_a_schedule_of_ones_own(start, is_kept, tmp_path, caplog):
    def train(module, begin, end, callback=None):
        data, weights = samples(SOFTMAX, 10)
        module.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=begin, num_epoch=end,
                   arg_params={name: nd(value, np.float32) for name, value in weights.items()}, aux_params={},
                   epoch_end_callback=callback, optimizer_params={"lr_scheduler": Counting(start)})  # fmt: skip

    whole = new_module()
    train(whole, 0, 4, lambda epoch, *_: epoch == 1 and whole.save_checkpoint(tmp_path / "model", 2, True))
    resumed = SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
    train(resumed, 2, 4)
    if is_kept:
        assert_same(weights_of(resumed), weights_of(whole))
    said = [message for message in caplog.messages if "which a checkpoint can't hold" in message]
    assert len(said) == (not is_kept) and all("Counting keeps asked" in message for message in said)


def test_a_decay_in_numpys_numbers_is_not_applied_twice(tmp_path):
    """Its count is a number of NumPy's, its rate one of Python's: both are restored, or none."""

    def train(module, begin, end, callback=None):
        schedule = mx.lr_scheduler.FactorScheduler(np.int64(4), np.float32(0.5), base_lr=0.5)
        data, _ = samples(SOFTMAX, 10)
        module.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=begin, num_epoch=end,
                   epoch_end_callback=callback, initializer=mx.init.One(),
                   optimizer_params={"lr_scheduler": schedule, "learning_rate": 0.5})  # fmt: skip
        return schedule.base_lr

    whole = new_module()
    expected = train(whole, 0, 6, lambda epoch, *_: epoch == 2 and whole.save_checkpoint(tmp_path / "model", 3, True))
    assert train(SVRGModule.load(tmp_path / "model", 3, load_optimizer_states=True), 3, 6) == expected


def test_a_momentum_given_anew_is_used(tmp_path):
    module = new_module()
    fit(module, 0, 1)
    internals.optimizer(module).momentum = 0.5
    module.save_checkpoint(tmp_path / "model", 1, save_optimizer_states=True)
    data, _ = samples(SOFTMAX, 10)
    for given, expected in ((0.9, 0.5), (0.75, 0.75)):
        resumed = SVRGModule.load(tmp_path / "model", 1, load_optimizer_states=True)
        resumed.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=1, num_epoch=2,
                    optimizer_params={"momentum": given})  # fmt: skip
        assert internals.optimizer(resumed).momentum == expected


@mx.optimizer.register
class Remembering(mx.optimizer.Optimizer):
    """An optimizer whose states change their form as it works."""

    def __init__(self, state=None, **kwargs):
        super().__init__(**kwargs)
        self.first = state

    def create_state(self, index, weight):
        return [self.first]

    def update(self, index, weight, grad, state):
        state[0] = (0 if state[0] is None else state[0]) + 0.5 * grad
        weight -= self._get_lr(index) * state[0]


def test_states_that_change_their_form(tmp_path):
    whole = new_module()
    data, weights = samples(SOFTMAX, 10)

    def train(module, begin, end, callback=None):
        module.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=begin, num_epoch=end, optimizer="remembering",
                   arg_params={name: nd(value, np.float32) for name, value in weights.items()}, aux_params={},
                   epoch_end_callback=callback)  # fmt: skip

    train(whole, 0, 4, lambda epoch, *_: epoch == 1 and whole.save_checkpoint(tmp_path / "model", 2, True))
    resumed = SVRGModule.load(tmp_path / "model", 2, load_optimizer_states=True)
    train(resumed, 2, 4)
    assert_same(weights_of(resumed), weights_of(whole))
    internals.updater_of_weights(whole).states[0] = collections.deque([1])
    with pytest.raises(ValueError, match="it holds collections.deque"):
        whole.save_checkpoint(tmp_path / "model", 4, save_optimizer_states=True)
    assert SVRGModule.last_checkpoint(tmp_path / "model") == 2


def test_two_modules_on_one_store(tmp_path):
    """The store has the second one's optimizer, as with Module, which recognises the full gradients of both."""
    data, weights = samples(SOFTMAX, 8)
    train, store = iterator(SOFTMAX, data, 4), mx.kv.create("local")
    alone = ready(SOFTMAX, weights, train, devices=2)
    expected = list(train_steps(alone, train, 2))
    first = ready(SOFTMAX, weights, train, devices=2, kvstore=store)
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="other"),
                               mx.sym.Variable("softmax_label"), name="out")  # fmt: skip
    second = SVRGModule(net, context=[mx.cpu(0), mx.cpu(1)])
    second.bind(train.provide_data, train.provide_label)
    second.init_params(
        arg_params={name.replace("fc", "other"): nd(value) for name, value in weights.items()}, aux_params={}
    )
    second.init_optimizer(kvstore=store, optimizer_params={"learning_rate": 0.25})
    for module in (first, second):
        for actual, wanted in zip(train_steps(module, train, 2), expected):
            assert_same({name.replace("other", "fc"): value for name, value in actual.items()}, wanted)
    for module in (first, second):
        counts = module_state.sections_of(module)["optimizer"]["counts"]
        assert counts and set(counts.values()) == {4}


def test_states_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    module = new_module()
    fit(module, 0, 1)
    module.save_optimizer_states("~/states")
    module.load_optimizer_states("~/states")
    assert (tmp_path / "states").exists()
