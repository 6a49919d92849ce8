"""SVRGBucketingModule: all buckets are one training."""

import gc
import itertools
import logging
import random
import re
import weakref
from functools import partial

import mxnet as mx
import numpy as np
import oracle
import pytest
from bucketing import (
    LONGEST,
    WORDS,
    Batches,
    batch,
    following_words,
    in_buckets,
    padded,
    pooled_words,
    ready,
    sentences,
    summed,
    texts,
    unrolled,
)
from models import OPTIMIZERS, TOLERANCE, assert_same, nd, samples, symbol, train_steps, weights_of

import svrg_optimization.bucket as bucket_of_training
from svrg_optimization import AutoStep, BarzilaiBorwein, LockedBatches, SVRGBucketingModule, SVRGModule, VarianceMonitor
from svrg_optimization.coefficients import Linear, PerLayer
from svrg_optimization.mxnet_api import internals
from svrg_optimization.schedules import EveryEpochs, EverySteps, Growing, Loopless

PROBLEMS = {problem.name: problem for problem in oracle.PROBLEMS}
SOFTMAX = PROBLEMS["softmax"]
STORES = [(1, None, 1), (1, "local", 1), (1, "device", 0), (2, None, 1), (2, "local", 1), (2, "local", 0)]
WAYS = {"automatic": {}, "serial": {"overlap": False}, "overlapped": {"overlap": True},
        "memory saving": {"save_memory": True}}  # fmt: skip


# -------------------------------------------------------------------------------------------------- equal to the oracle


def compare(problem, optimizer="momentum", *, n=22, devices=1, store="local", update_freq=2, epochs=3, **kwargs):
    data, weights = samples(problem, n)
    name, params, copy = OPTIMIZERS[optimizer]
    train = in_buckets(problem, data, 4)
    module = ready(summed(problem), train, weights=weights, devices=devices, kvstore=store, optimizer=name,
                   optimizer_params=params() if callable(params) else params, update_freq=update_freq,
                   **kwargs)  # fmt: skip
    expected = oracle.svrg(problem, weights, data, copy, batch_size=4, epochs=epochs, update_freq=update_freq,
                           devices=devices, synchronised=store is not None)  # fmt: skip
    for actual, wanted in itertools.zip_longest(train_steps(module, train, epochs), expected):
        assert_same(actual, wanted, **TOLERANCE["float64"])


@pytest.mark.parametrize("devices, store, update_on_kvstore", STORES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_step_equals_the_oracle(optimizer, devices, store, update_on_kvstore, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    compare(SOFTMAX, optimizer, devices=devices, store=store)


def test_every_step_equals_the_oracle_without_padding():
    compare(SOFTMAX, n=20)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("devices, store, update_on_kvstore", STORES)
@pytest.mark.parametrize("problem", ["linear", "two-layer"])
def test_every_step_equals_the_oracle_in_every_way(problem, devices, store, update_on_kvstore, way, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    compare(PROBLEMS[problem], devices=devices, store=store, **WAYS[way])


@pytest.mark.parametrize("update_freq", [1, 3])
def test_snapshots_at_other_epochs(update_freq):
    compare(SOFTMAX, update_freq=update_freq, epochs=5)


# ------------------------------------------------------------------------------------------------- equal to one network


@pytest.mark.parametrize("optimizer, last", [("sgd", 0), ("momentum", 3), ("adam", 3)])
@pytest.mark.parametrize("devices, store, update_on_kvstore", STORES)
@pytest.mark.parametrize("sym_gen", [pooled_words, unrolled])
def test_buckets_equal_one_padded_network(sym_gen, devices, store, update_on_kvstore, optimizer, last, monkeypatch):
    monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", str(update_on_kvstore))
    name, params, _ = OPTIMIZERS[optimizer]
    settings = dict(devices=devices, kvstore=store, optimizer=name, optimizer_params=params)
    train = sentences(4, last=last)
    module = ready(sym_gen, train, **settings)
    start = weights_of(module)
    symbol, *_ = sym_gen(LONGEST)
    one = SVRGModule(symbol, context=[mx.cpu(i) for i in range(devices)])
    filled = padded(train)
    one.bind(filled.provide_data, filled.provide_label)
    one.init_params(arg_params=module.get_params()[0], aux_params={})
    one.init_optimizer(kvstore=store, optimizer=name, optimizer_params=params)
    steps = 0
    for actual, wanted in itertools.zip_longest(train_steps(module, train, 4), train_steps(one, filled, 4)):
        assert_same(actual, wanted, rtol=1e-10, atol=1e-10)
        steps += 1
    assert steps == 24
    assert not np.allclose(actual["words_weight"], start["words_weight"])


@pytest.mark.parametrize("optimizer", ["auto", "barzilai-borwein"])
@pytest.mark.parametrize("devices", [1, 2])
def test_chosen_steps_equal_those_of_one_padded_network(devices, optimizer):
    schedules = {"auto": AutoStep, "barzilai-borwein": lambda: BarzilaiBorwein(0.25)}
    data, weights = samples(SOFTMAX, 20)
    train, trained = in_buckets(SOFTMAX, data, 4), []
    for sym_gen, given in ((summed(SOFTMAX), train), (summed(SOFTMAX), padded(train))):
        settings = {"wd": 0.125, "lr_scheduler": schedules[optimizer]()}
        module = ready(sym_gen, given, weights=weights, devices=devices, optimizer_params=settings, update_freq=1)
        module.fit(given, num_epoch=8, eval_metric="ce", tol=1e-9)
        trained.append(module)
    ours, one = trained
    assert len(ours.history) > 3
    for name in ("learning_rate", "gradient_norm"):
        values = [[getattr(record, name) for record in module.history] for module in trained]
        np.testing.assert_allclose(*values, rtol=1e-6)
    assert_same(weights_of(ours), weights_of(one), rtol=1e-8)


# ------------------------------------------------------------------------------------- like BucketingModule and Module


def train_plainly(module, train, epochs):
    for _ in range(epochs):
        train.reset()
        for each in train:
            module.forward_backward(each)
            module.update()
            yield weights_of(module)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("devices, store", [(1, None), (1, "local"), (2, None), (2, "local")])
def test_a_plain_bucketing_module_before_the_first_snapshot(devices, store, optimizer):
    name, params, _ = OPTIMIZERS[optimizer]
    train, runs = sentences(4), []
    for module in (mx.mod.BucketingModule, SVRGBucketingModule):
        mx.random.seed(3)
        made = ready(unrolled, train, devices=devices, kvstore=store, optimizer=name, optimizer_params=params,
                     module=module)  # fmt: skip
        runs.append(list(train_plainly(made, train, 3)))
    assert len(runs[0]) == 18
    for actual, wanted in zip(*runs):
        assert_same(actual, wanted)


@pytest.mark.parametrize("update_freq", [1, 2])
def test_fit_takes_the_same_steps_as_a_loop(update_freq):
    data, weights = samples(SOFTMAX, 22)
    train, seen = in_buckets(SOFTMAX, data, 4), []
    by_hand, fitted = (ready(summed(SOFTMAX), train, weights=weights, update_freq=update_freq) for _ in range(2))
    fitted.fit(train, num_epoch=5, batch_end_callback=lambda _: seen.append(weights_of(fitted)))
    expected = list(train_steps(by_hand, train, 5))
    assert len(seen) == len(expected) == 30
    for actual, wanted in zip(seen, expected):
        assert_same(actual, wanted)
    assert [record.samples for record in fitted.history] == [22] * len(range(0, 5, update_freq))


def test_fit_binds_initializes_and_logs_as_bucketing_module_does(caplog):
    caplog.set_level("INFO")
    train, logs = sentences(4), []
    for module in (mx.mod.BucketingModule, partial(SVRGBucketingModule, update_freq=100)):
        mx.random.seed(3)
        caplog.clear()
        module(pooled_words, LONGEST).fit(
            train, sentences(4, batches=3), eval_metric="ce", num_epoch=2, kvstore=None,
            epoch_end_callback=lambda epoch, symbol, args, aux: logging.info("Time's end %d %s", epoch, sorted(args)),
            optimizer_params={"learning_rate": 0.0},
        )  # fmt: skip
        logs.append([re.sub("cost=.*", "", record.getMessage()) for record in caplog.records
                     if re.search("Train-|Validation-|Time", record.getMessage())])  # fmt: skip
    assert logs[0] == logs[1]
    assert len(logs[0]) == 8


def test_score_and_predict_equal_those_of_a_bucketing_module():
    train, seen = sentences(4), []
    for module in (mx.mod.BucketingModule, SVRGBucketingModule):
        mx.random.seed(3)
        made = ready(pooled_words, train, module=module)
        if module is SVRGBucketingModule:
            made.update_full_grads(train)
        train.reset()
        seen.append((made.score(train, "ce"), [output.asnumpy() for (output,), *_ in made.iter_predict(train)]))
        assert len(seen[-1][1]) == 6
    assert seen[0][0] == seen[1][0]
    np.testing.assert_array_equal(seen[0][1], seen[1][1])


@pytest.mark.filterwarnings("ignore:Data provided by label_shapes")
@pytest.mark.parametrize("devices", [1, 2])
def test_a_bucket_that_was_first_seen_without_labels_gets_them(devices):
    problem, (data, weights) = SOFTMAX, samples(SOFTMAX, 16)
    train = in_buckets(problem, data, 4)
    name, params, _ = OPTIMIZERS["momentum"]
    found = []
    for predicts in (False, True):
        module = ready(
            summed(problem), train, weights=weights, devices=devices, optimizer=name, optimizer_params=params
        )
        if predicts:
            for each in train.batches:
                bare = mx.io.DataBatch(each.data, None, bucket_key=each.bucket_key, provide_data=each.provide_data)
                module.forward(bare, is_train=False)
        steps = list(train_steps(module, train, 2))
        assert module.score(train, "ce")
        found.append(steps)
    for actual, wanted in itertools.zip_longest(*found):
        assert_same(actual, wanted)


@pytest.mark.parametrize("devices, store", [(1, "object"), (2, "local")])
@pytest.mark.parametrize("how", ["trained", "set"])
def test_an_optimizer_that_is_installed_keeps_what_another_bucket_has_changed(how, devices, store):
    train, found = sentences(4), []
    for again in (False, True):
        mx.random.seed(3)
        module = ready(pooled_words, train, devices=devices)
        ones = {name: array * 0 + 1 for name, array in module.get_params()[0].items()}
        for each in train.batches[:3]:
            module.forward_backward(each)
            module.update()
        assert internals.current_bucket(module)[0] != LONGEST
        if how == "set":
            module.set_params(ones, {}, allow_missing=True)
        # Who asks for the weights brings the buckets' copies up to date, so that is done last.
        if again:
            module.init_optimizer(mx.kv.create("local") if store == "object" else store, force_init=True)
        found.append(weights_of(module))
    assert_same(*found)


# ----------------------------------------------------------------------------------------------------- a full pass


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("devices", [1, 2])
def test_the_full_gradient_is_the_mean_over_the_samples_of_all_buckets(devices, way):
    data, weights = samples(SOFTMAX, 22)
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(summed(SOFTMAX), train, weights=weights, devices=devices, **WAYS[way])
    assert module.full_gradient is None
    module.update_full_grads(train)
    found = {name: value.asnumpy() for name, value in module.full_gradient.items()}
    assert_same(found, oracle.full_gradient(SOFTMAX, weights, data), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_new", [False, True], ids=["buckets that are there", "new buckets"])
@pytest.mark.parametrize("sym_gen, train", [(unrolled, sentences(4)), (following_words(), texts())])
def test_a_full_pass_leaves_the_current_bucket_as_it_was(sym_gen, train, is_new, way):
    module = ready(sym_gen, train, **WAYS[way])
    first, second, third = train.batches[:3]
    for each in (first, second) if is_new else (first, third, second):
        module.forward(each, is_train=True)
    symbol, shapes = module.symbol, (module.data_shapes, module.label_shapes)
    before = [output.asnumpy() for output in module.get_outputs()]
    module.update_full_grads(train)
    assert module.symbol is symbol and shapes == (module.data_shapes, module.label_shapes)
    np.testing.assert_array_equal(before, [output.asnumpy() for output in module.get_outputs()])
    with pytest.raises(RuntimeError, match="needs a new forward"):
        module.backward()


def test_the_full_pass_calls_back_after_each_batch():
    train, seen = sentences(4), []
    module = SVRGBucketingModule(pooled_words, LONGEST, update_freq=2)
    module.fit(train, num_epoch=3, full_grads_batch_end_callback=lambda param: seen.append((param.epoch, param.nbatch)))
    assert seen == [(epoch, nbatch) for epoch in (0, 2) for nbatch in range(6)]


def test_a_failed_full_pass_keeps_the_snapshot_and_the_buckets():
    train = sentences(4)
    module = ready(pooled_words, train)
    module.update_full_grads(train)
    before = {name: value.asnumpy() for name, value in module.full_gradient.items()}
    strange = mx.io.DataBatch(train.batches[0].data, train.batches[0].label, bucket_key=9,
                              provide_data=[("data", (4, 9, 9))], provide_label=train.provide_label)  # fmt: skip
    with pytest.raises(RuntimeError, match="simple_bind"):
        module.update_full_grads([*train.batches, strange])
    assert_same({name: value.asnumpy() for name, value in module.full_gradient.items()}, before)
    with pytest.raises(RuntimeError, match="simple_bind"):
        module.forward(strange)
    assert list(module._buckets) == [4, 2, 3]
    module.forward_backward(train.batches[1])
    module.update()


def test_snapshot_data_in_other_buckets():
    data, weights = samples(SOFTMAX, 22)
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(summed(SOFTMAX), train, weights=weights)
    module.fit(train, num_epoch=1, snapshot_data=in_buckets(SOFTMAX, data, 11, lengths=[7, 2]))
    mu = {name: value.asnumpy() for name, value in module.full_gradient.items()}
    assert_same(mu, oracle.full_gradient(SOFTMAX, weights, data), rtol=1e-12, atol=1e-14)


def test_head_gradients_are_computed_for_each_bucket():
    def scores(length):
        total = mx.sym.sum(mx.sym.Variable("data"), axis=1)
        return mx.sym.FullyConnected(total, num_hidden=3, name="fc"), ["data"], None

    def heads(outputs, each):
        return [mx.nd.softmax(outputs[0]) - mx.nd.one_hot(each.label[0], 3, dtype="float64")]

    data, weights = samples(SOFTMAX, 20)
    train, runs = in_buckets(SOFTMAX, data, 4), []
    for sym_gen, out_grads in ((summed(SOFTMAX), None), (scores, heads)):
        for each in train.batches if out_grads else ():
            each.provide_label = train.provide_label = None
        module = ready(sym_gen, train, weights=weights)
        module.update_full_grads(train, out_grads=out_grads)
        for each in train:
            module.forward(each, is_train=True)
            module.backward(out_grads=out_grads)
            module.update()
        runs.append(weights_of(module))
    assert_same(*runs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("normalization, ignored", [("null", False), ("null", True), ("batch", False), ("valid", True)])
def test_normalizations_of_losses_over_all_words(normalization, ignored):
    """One loss for each word; with `ignored` those of padding don't count. Rows are sentences."""

    # mxnet rounds what it divides by to float32: powers of two.
    train = texts([4, 2, 2, 4])
    module = ready(following_words(normalization, ignored), train)
    module.update_full_grads(train)
    weights, total = weights_of(module), 0
    for each in train.batches:
        words, labels = each.data[0].asnumpy().astype(int).ravel(), each.label[0].asnumpy().astype(int).ravel()
        counts = labels != 0 if ignored else labels >= 0
        errors = np.exp(weights["words_weight"][words] @ weights["fc_weight"].T + weights["fc_bias"])
        errors = (errors / errors.sum(1, keepdims=True) - np.eye(WORDS)[labels])[counts]
        divisor = {"null": 1, "batch": labels.size / 4, "valid": counts.sum() / 4}[normalization]
        total = total + errors.sum(0) / divisor
    np.testing.assert_allclose(module.full_gradient["fc_bias"].asnumpy(), total / 16, rtol=1e-12, atol=1e-14)


# --------------------------------------------------------------------------------------- one training for all buckets


def test_every_attribute_is_of_the_training_or_of_a_network():
    of_network = {
        "_alpha", "_batch", "_corrected", "_correction", "_fixed_gammas", "_full_batch_rows", "_gradient",
        "_has_corrected", "_has_gradients_of_rows", "_held_dense", "_larger",
        "_mod_aux", "_monitored", "_network_draws", "_next_states", "_passes", "_restoring", "_sparse",
        "_sparse_mode", "_way", "_ways",
    }  # fmt: skip
    data, weights = samples(SOFTMAX, 8)
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(summed(SOFTMAX), train, weights=weights)
    list(train_steps(module, train, 1))
    one = SVRGModule(summed(SOFTMAX)(LONGEST)[0])
    one.bind(train.provide_data, train.provide_label)
    one.init_params()
    one.init_optimizer()
    plain = mx.mod.Module(summed(SOFTMAX)(LONGEST)[0])
    assert set(vars(one)) - set(vars(plain)) == of_network | set(bucket_of_training.OF_TRAINING)
    first, second = module._buckets.values()
    for name in bucket_of_training.OF_TRAINING:
        assert getattr(first, name) is getattr(second, name), name
    same = {"_alpha", "_corrected", "_fixed_gammas", "_has_corrected", "_has_gradients_of_rows", "_monitored",
            "_network_draws", "_next_states", "_passes", "_restoring", "_sparse", "_sparse_mode", "_ways"}  # fmt: skip
    for name in of_network - same:
        assert getattr(first, name) is not getattr(second, name), name


@pytest.mark.parametrize("schedule", [
    EveryEpochs(2, warm_start=1), EverySteps(4), Loopless(0.25, seed=1), EveryEpochs(1, at="average"),
    EverySteps(5, at="random"),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("coefficient", [1.0, 0.5, Linear(0.75, epochs=4), PerLayer()], ids=repr)
def test_schedules_and_coefficients_are_those_of_one_padded_network(schedule, coefficient):
    data, weights = samples(SOFTMAX, 22)
    train = in_buckets(SOFTMAX, data, 4)

    def run(given):
        module = ready(summed(SOFTMAX), given, weights=weights, snapshots=schedule, coefficient=coefficient)
        steps = []
        module.fit(given, num_epoch=4, snapshot_data=Batches(given.batches),
                   batch_end_callback=lambda _: steps.append(weights_of(module)))  # fmt: skip
        return steps, [(record.num_update, record.samples) for record in module.history]

    (steps, taken), (expected, expected_snapshots) = run(train), run(padded(train))
    assert taken == expected_snapshots and len(steps) == len(expected) == 24
    for actual, wanted in zip(steps, expected):
        assert_same(actual, wanted, rtol=1e-11, atol=1e-13)


def test_a_loop_of_ones_own_asks_when_a_snapshot_is_due():
    data, weights = samples(SOFTMAX, 20)
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(summed(SOFTMAX), train, weights=weights, snapshots=EverySteps(3))
    due = []
    for epoch in range(2):
        for k, each in enumerate(train.batches):
            due.append(module.snapshot_is_due(epoch if k == 0 else None))
            if due[-1]:
                module.update_full_grads(train.batches)
            module.forward_backward(each)
            module.update()
    assert [k for k, is_due in enumerate(due) if is_due] == [0, 3, 6, 9]
    with pytest.raises(AttributeError, match=r"snapshots=EverySteps"):
        _ = module.update_freq


def test_update_freq_may_change():
    module = SVRGBucketingModule(pooled_words, LONGEST)
    module.update_freq = 3
    module.fit(sentences(4), num_epoch=7)
    assert [record.epoch for record in module.history] == [0, 3, 6]


@pytest.mark.parametrize("schedule", [False, True])
def test_a_learning_rate_schedule_counts_all_steps(schedule):
    data, weights = samples(SOFTMAX, 20)
    settings = {"learning_rate": 0.5, "lr_scheduler": mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=0.5)}
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(summed(SOFTMAX), train, weights=weights, optimizer_params=settings)
    list(train_steps(module, train, 2))
    assert module.history[0].learning_rate == 0.5
    module.update_full_grads(train)
    assert module.history[-1].num_update == 10 and module.history[-1].learning_rate == 0.0625


def test_variances_are_those_of_one_padded_network():
    data, weights = samples(SOFTMAX, 20)
    train, found = in_buckets(SOFTMAX, data, 4), []
    for given in (train, padded(train)):
        module, monitor = ready(summed(SOFTMAX), given, weights=weights), VarianceMonitor()
        module.fit(given, num_epoch=2, monitor=monitor)
        assert module.history[0].variance_ratio == monitor.epochs[-1].total.ratio
        found.append([epoch.total for epoch in monitor.epochs])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-10)


def test_a_monitor_sees_all_buckets():
    train, seen = sentences(4), []
    monitor = mx.mon.Monitor(1, lambda array: array.sum(), pattern="fc.*output")
    module = ready(pooled_words, train)
    module.install_monitor(monitor)
    for each in train.batches[:3]:
        monitor.tic()
        module.forward_backward(each)
        module.update()
        seen.append(len(monitor.toc()))
    assert len(set(seen)) == 1 and seen[0] > 0


def test_the_step_chooser_is_let_go_for_all_buckets(caplog):
    data, weights = samples(SOFTMAX, 20)
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(summed(SOFTMAX), train, weights=weights, optimizer_params={"learning_rate": "auto"})
    list(train_steps(module, train, 1))
    optimizer = module._default._users_optimizer()
    optimizer.lr_scheduler = None
    optimizer.lr = 0.0
    module.update_full_grads(train)
    assert "its steps aren't chosen any more" in caplog.text
    before = weights_of(module)
    for each in train.batches:
        module.forward_backward(each)
        module.update()
    assert_same(weights_of(module), before)


# ------------------------------------------------------------------------------------------------- other networks


def with_dropout(lengths):
    """The `sym_gen` of a network that has Dropout if it is for one of these lengths."""

    def sym_gen(length):
        total = mx.sym.sum(mx.sym.Variable("data"), axis=1)
        kept = mx.sym.Dropout(total, p=0.5) if length in lengths else total
        return symbol(SOFTMAX)(data=kept), ["data"], ["softmax_label"]

    return sym_gen


@pytest.mark.parametrize("lengths", [[2, 3, 4], [2], [4]], ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_dropout_draws_the_same_at_the_snapshot_in_every_bucket(way, lengths):
    data, weights = samples(SOFTMAX, 20)
    train = in_buckets(SOFTMAX, data, 4)
    module = ready(with_dropout(lengths), train, weights=weights, **WAYS[way])
    module.update_full_grads(train)
    for each in train.batches:
        module.forward_backward(each)
        # No step was taken: the weights are the snapshot's, and what is left of the gradients is b mu.
        gradients = module._curr_module._exec_group.grad_arrays
        for (array,), (name, mu) in zip(gradients, module.full_gradient.items()):
            np.testing.assert_allclose(array.asnumpy(), 4 * mu.asnumpy(), rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("lengths", [[2, 3, 4], [2]], ids=repr)
def test_a_seed_governs_the_draws_of_all_buckets(lengths):
    data, weights = samples(SOFTMAX, 20)
    train, runs = in_buckets(SOFTMAX, data, 4), []
    for seed in (1, 1, 2):
        mx.random.seed(seed)
        module = ready(with_dropout(lengths), train, weights=weights)
        list(train_steps(module, train, 2))
        runs.append(weights_of(module))
    assert_same(runs[0], runs[1])
    assert not np.array_equal(runs[0]["fc_weight"], runs[2]["fc_weight"])


def test_batch_norm_moves_its_statistics_by_steps_alone():
    def sym_gen(length):
        normed = mx.sym.BatchNorm(mx.sym.sum(mx.sym.Variable("data"), axis=1), fix_gamma=False, name="bn")
        return symbol(SOFTMAX)(data=normed), ["data"], ["softmax_label"]

    data, weights = samples(SOFTMAX, 20)
    train = in_buckets(SOFTMAX, data, 4, dtype=np.float32)
    module = SVRGBucketingModule(sym_gen, LONGEST)
    module.bind(train.provide_data, train.provide_label)
    module.init_params()
    module.init_optimizer()
    for each in train.batches[:2]:
        module.forward_backward(each)
        module.update()
    before = {name: array.asnumpy().copy() for name, array in module.get_params()[1].items()}
    module.update_full_grads(train)
    assert_same({name: array.asnumpy() for name, array in module.get_params()[1].items()}, before)


def with_states(length):
    total = mx.sym.sum(mx.sym.Variable("data"), axis=1) + mx.sym.Variable("state")
    return symbol(SOFTMAX)(data=total), ["data"], ["softmax_label"]


def test_states_that_are_the_same_for_all_batches():
    data, weights = samples(SOFTMAX, 20)
    moved = [(x + 0.5, y) for x, y in data]
    train = in_buckets(SOFTMAX, data, 4)
    module = SVRGBucketingModule(with_states, LONGEST, state_names=["state"])
    shapes = [mx.io.DataDesc("data", (4, LONGEST, 3), np.float64)]
    module.bind(shapes, train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    module.set_states(value=0.5)
    expected = oracle.svrg(SOFTMAX, weights, moved, lambda: oracle.Optimizer(0.25), batch_size=4, epochs=3,
                           update_freq=2)  # fmt: skip
    for actual, wanted in itertools.zip_longest(train_steps(module, train, 3), expected):
        assert_same(actual, wanted, **TOLERANCE["float64"])
    module.set_states(value=1)
    for each in train.batches[:2]:
        with pytest.raises(RuntimeError, match="set_states"):
            module.forward(each, is_train=True)


def test_sequences_with_the_time_first():
    data, weights = samples(SOFTMAX, 20)
    train = in_buckets(SOFTMAX, data, 4)

    def sym_gen(length):
        total = mx.sym.sum(mx.sym.Variable("data"), axis=0)
        return symbol(SOFTMAX)(data=total), ["data"], ["softmax_label"]

    def turned(each):
        array = mx.nd.swapaxes(each.data[0], 0, 1)
        described = [mx.io.DataDesc("data", array.shape, np.float64, layout="TNC")]
        return mx.io.DataBatch([array], each.label, pad=each.pad, bucket_key=each.bucket_key,
                               provide_data=described, provide_label=each.provide_label)  # fmt: skip

    module = SVRGBucketingModule(sym_gen, LONGEST)
    batches = list(map(turned, train.batches))
    module.bind([mx.io.DataDesc("data", (LONGEST, 4, 3), np.float64, layout="TNC")], train.provide_label)
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    module.update_full_grads(batches)
    mu = {name: value.asnumpy() for name, value in module.full_gradient.items()}
    assert_same(mu, oracle.full_gradient(SOFTMAX, weights, data), rtol=1e-12, atol=1e-14)


def test_a_bucket_with_fewer_rows_in_its_batches():
    data, weights = samples(SOFTMAX, 22)
    train = in_buckets(SOFTMAX, data[:16], 4)
    rest = in_buckets(SOFTMAX, data[16:], 2, lengths=[6])
    module = ready(summed(SOFTMAX), train, weights=weights)
    module.update_full_grads([*train.batches, *rest.batches])
    mu = {name: value.asnumpy() for name, value in module.full_gradient.items()}
    assert_same(mu, oracle.full_gradient(SOFTMAX, weights, data), rtol=1e-12, atol=1e-14)
    module.forward_backward(rest.batches[0])
    # At the snapshot: two rows' full gradient.
    gradient = module._curr_module._exec_group.grad_arrays
    for (array,), (name, value) in zip(gradient, mu.items()):
        np.testing.assert_allclose(array.asnumpy(), 2 * value, rtol=1e-12, atol=1e-14, err_msg=name)


# ------------------------------------------------------------------------------------------------------- binding anew


def test_bound_anew_weights_snapshot_and_optimizer_survive():
    data, weights = samples(SOFTMAX, 20)
    train, runs = in_buckets(SOFTMAX, data, 4), []
    for again in (False, True):
        module = ready(summed(SOFTMAX), train, weights=weights, update_freq=9,
                       optimizer_params={"learning_rate": 0.25, "momentum": 0.5})  # fmt: skip
        steps = list(train_steps(module, train, 1))
        if again:
            module.bind(train.provide_data, train.provide_label, for_training=False, force_rebind=True)
            assert_same(weights_of(module), steps[-1])
            module.score(train, "acc")
            module.bind(train.provide_data, train.provide_label, force_rebind=True)
        steps += list(train_plainly(module, train, 2))
        runs.append(steps)
    for actual, wanted in zip(*runs):
        assert_same(actual, wanted)


def test_fit_twice_with_force_rebind():
    module, train = SVRGBucketingModule(pooled_words, LONGEST), sentences(4)
    module.fit(train, num_epoch=2)
    module.fit(train, begin_epoch=2, num_epoch=4, force_rebind=True)
    assert [record.epoch for record in module.history] == [0, 2]


def test_a_module_is_freed_with_its_last_reference():
    train = sentences(4)
    module = ready(pooled_words, train)
    module.fit(train, num_epoch=2, monitor=VarianceMonitor())
    module.update_full_grads(train)
    with pytest.raises(ValueError, match="bucket_key"):
        module.update_full_grads([batch(np.ones((4, 2)), np.ones(4)), mx.io.DataBatch(train.batches[0].data)])
    refs = [weakref.ref(each) for each in (module, *module._buckets.values())]
    gc.collect()
    gc.disable()
    try:
        del module
        assert [ref() for ref in refs] == [None] * len(refs)
    finally:
        gc.enable()


# --------------------------------------------------------------------------------------------- programs of mxnet.rnn


def language(count, words=12, longest=9):
    """Sentences in which each word follows from the one before, mostly."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        sentence = [int(rng.integers(1, words))]
        while len(sentence) < rng.integers(4, longest + 1):
            sentence.append(sentence[-1] % (words - 1) + 1 if rng.random() < 0.9 else int(rng.integers(1, words)))
        found.append(sentence)
    return found


def lstm(length):
    stack = mx.rnn.SequentialRNNCell()
    for k in range(2):
        stack.add(mx.rnn.LSTMCell(num_hidden=8, prefix="lstm_{}_".format(k)))
    words = mx.sym.Embedding(mx.sym.Variable("data"), input_dim=12, output_dim=6, name="embed")
    return predictions(stack.unroll(length, inputs=words, merge_outputs=True)[0])


def fused(length):
    cell = mx.rnn.FusedRNNCell(8, num_layers=1, mode="gru", prefix="gru_")
    words = mx.sym.Embedding(mx.sym.Variable("data"), input_dim=12, output_dim=6, name="embed")
    return predictions(cell.unroll(length, inputs=words, merge_outputs=True, layout="TNC")[0])


def predictions(outputs):
    scores = mx.sym.FullyConnected(mx.sym.reshape(outputs, (-1, 8)), num_hidden=12, name="scores")
    label = mx.sym.reshape(mx.sym.Variable("softmax_label"), (-1,))
    return mx.sym.SoftmaxOutput(scores, label, name="softmax"), ("data",), ("softmax_label",)


@pytest.mark.parametrize("sym_gen, layout, devices", [(lstm, "NT", 1), (fused, "TN", 1), (fused, "TN", 2)])
def test_a_language_model_of_mxnet_rnn(sym_gen, layout, devices, caplog):
    random.seed(0)
    train = mx.rnn.BucketSentenceIter(language(320), 16, buckets=[6, 9], invalid_label=0, layout=layout)
    module = SVRGBucketingModule(sym_gen, train.default_bucket_key, context=[mx.cpu(k) for k in range(devices)])
    metric, seen = mx.metric.Perplexity(0), []
    module.fit(train, eval_metric=metric, num_epoch=6, kvstore="device", initializer=mx.init.Xavier(magnitude=2.34),
               optimizer="adam",
               optimizer_params={"learning_rate": 0.03, "wd": 1e-5},
               epoch_end_callback=lambda *_: seen.append(metric.get()[1]))  # fmt: skip
    assert seen[-1] < 0.6 * seen[0] and seen[-1] < 4
    given = sum(len(rows) // 16 * 16 for rows in train.data)
    assert [record.samples for record in module.history] == [given] * 3
    left_out = sum(map(len, train.data)) - given
    assert left_out > 0
    assert ["leaves out %d" % left_out in text for text in caplog.messages if "BucketSentenceIter" in text] == [True]


# ----------------------------------------------------------------------------------------------------------- errors


def plain_iterator():
    return mx.io.NDArrayIter(nd(np.ones((8, LONGEST))), nd(np.ones(8)), 4)


def new_module(**kwargs):
    return SVRGBucketingModule(pooled_words, LONGEST, **kwargs)


def other_names(length):
    symbol, *names = pooled_words(length)
    return (mx.sym.SoftmaxOutput(mx.sym.FullyConnected(symbol.get_internals()["fc_output"], num_hidden=3, name="more"),
                                 name="softmax") if length == 2 else symbol, *names)  # fmt: skip


STRANGE = {
    "no default": (lambda: SVRGBucketingModule(pooled_words), ValueError, "default_bucket_key=None"),
    "no function": (lambda: SVRGBucketingModule(3, 4), TypeError, "sym_gen=3 must be a function"),
    "no names": (lambda: SVRGBucketingModule(lambda key: pooled_words(key)[0], 4), TypeError,
                 r"sym_gen\(4\) returned <Symbol softmax>, and must return \(symbol"),
    "update_freq": (lambda: new_module(update_freq=0), ValueError, "update_freq=0 must be at least 1"),
    "compression": (lambda: new_module(compression_params={"type": "2bit"}), ValueError, "compression_params="),
    "both ways": (lambda: new_module(overlap=True, save_memory=True), ValueError, "overlap=True with save_memory=True"),
    "growing": (lambda: new_module(snapshots=Growing(4)), ValueError, r"snapshots=Growing\(.*draws rows"),
    "next states": (lambda: new_module(next_states={}), TypeError, "next_states"),
    "sharing": (lambda: new_module().bind([("data", (4, LONGEST))], shared_module=new_module()), ValueError,
                "shared_module=.*leave it out"),
    "grad_req": (lambda: new_module().bind([("data", (4, LONGEST))], grad_req="add"), ValueError, "grad_req='add'"),
    "not bound": (lambda: new_module().init_params(), RuntimeError, r"too early: call bind"),
    "no weights": (lambda: new_module().get_params(), RuntimeError, r"too early: call init_params"),
    "not trained": (lambda: new_module().update_full_grads(sentences(4)), RuntimeError, r"too early: call bind"),
    "no epochs": (lambda: new_module().fit(sentences(4)), ValueError, "num_epoch=None"),
    "no buckets": (lambda: new_module().fit(plain_iterator(), num_epoch=1), ValueError,
                   "batch 0 of train_data has no bucket_key"),
    "no key": (lambda: ready(pooled_words, sentences(4)).forward(next(plain_iterator())), ValueError,
               "the batch has no bucket_key"),
    "a list": (lambda: ready(pooled_words, sentences(4)).forward(sentences(4).batches[:1]), ValueError,
               "the batch has no bucket_key"),
    "no key to prepare": (lambda: ready(pooled_words, sentences(4)).prepare(next(plain_iterator())), ValueError,
                          "the batch has no bucket_key"),
    "no shapes": (lambda: ready(pooled_words, sentences(4)).switch_bucket(7, None), ValueError,
                  "bucket_key=7 is a new bucket, and data_shapes is None"),
    "switched too early": (lambda: new_module().switch_bucket(7, [("data", (4, 7))]), RuntimeError, "too early"),
    "other parameters": (lambda: ready(other_names, sentences(4)).update_full_grads(sentences(4)), ValueError,
                         "bucket_key=2: sym_gen gave a symbol with the parameters words_weight, .*more_bias"),
    "no samples": (lambda: ready(pooled_words, sentences(4)).update_full_grads([]), ValueError, "gave no samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_what_cannot_be_trained_with_is_said(name):
    attempt, error, message = STRANGE[name]
    with pytest.raises(error, match=message):
        attempt()


def test_a_failed_bind_can_be_repeated():
    train, module = sentences(4), new_module()
    with pytest.raises(ValueError, match="grad_req"):
        module.bind(train.provide_data, train.provide_label, grad_req="add")
    module.fit(train, num_epoch=1)
    with pytest.raises(ValueError, match="grad_req"):
        module.bind(train.provide_data, train.provide_label, grad_req="add", force_rebind=True)
    module.fit(train, begin_epoch=1, num_epoch=3)
    assert [record.epoch for record in module.history] == [0, 2]


def test_buckets_that_differ_in_their_normalization(caplog):
    def sym_gen(length):
        scores = pooled_words(length)[0].get_internals()["fc_output"]
        normalization = "batch" if length == 2 else "null"
        return mx.sym.SoftmaxOutput(scores, normalization=normalization, name="softmax"), ["data"], ["softmax_label"]

    ready(sym_gen, sentences(4)).update_full_grads(sentences(4))
    assert sum("give all buckets the same normalization" in text for text in caplog.messages) == 1


def test_notices_are_given_once_for_all_buckets(caplog):
    train = sentences(4)
    module = ready(pooled_words, train)
    list(itertools.islice(train_plainly(module, train, 20), 110))
    assert sum("updates without a snapshot" in text for text in caplog.messages) == 1


def test_locked_batches_of_a_bucket_sentence_iter(caplog):
    """The steps of a period take the sentences of its full pass, though the iterator leaves out others each time."""
    random.seed(0)
    train = LockedBatches(mx.rnn.BucketSentenceIter(language(90, WORDS), 16, buckets=[6, 9], invalid_label=0))
    sym_gen = following_words(dtype="float32")
    module, plain = (made(sym_gen, 9) for made in (SVRGBucketingModule, mx.mod.BucketingModule))
    for each in (module, plain):
        each.bind(train.provide_data, train.provide_label)
    module.init_params(mx.init.Uniform(1))
    module.init_optimizer()
    plain.init_params(arg_params=module.get_params()[0], aux_params={})
    for _ in range(2):
        module.update_full_grads(train)
        total = 0
        for each in train:
            plain.forward_backward(each)
            total = total + plain._curr_module._exec_group.grad_arrays[1][0].asnumpy()
        samples_of_pass = module.history[-1].samples
        assert 0 < samples_of_pass < 90
        mu = module.full_gradient["fc_weight"].asnumpy()
        np.testing.assert_allclose(mu * samples_of_pass, total, rtol=1e-5, atol=1e-5)
    assert "leaves out" not in caplog.text
