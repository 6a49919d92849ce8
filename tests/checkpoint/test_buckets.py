"""Checkpoints of an SVRGBucketingModule."""

import mxnet as mx
import numpy as np
import oracle
import pytest
from bucketing import LONGEST, in_buckets, pooled_words, ready, sentences, summed, unrolled
from checkpoint_runs import settings_of
from models import assert_same, nd, samples, symbol, weights_of

from svrg_optimization import SVRGBucketingModule, SVRGModule
from svrg_optimization.coefficients import PerLayer
from svrg_optimization.schedules import EverySteps

SOFTMAX = oracle.PROBLEMS[2]


def with_dropout(length):
    kept = mx.sym.Dropout(mx.sym.sum(mx.sym.Variable("data"), axis=1), p=0.5)
    return symbol(SOFTMAX)(data=kept), ["data"], ["softmax_label"]


def fit(module, begin, end, store="local", optimizer="momentum", callback=None, snapshot_data=False):
    data, weights = samples(SOFTMAX, 22)
    train = in_buckets(SOFTMAX, data, 4, dtype=np.float32)
    module.fit(train, begin_epoch=begin, num_epoch=end, kvstore=store, epoch_end_callback=callback,
               arg_params={name: nd(value, np.float32) for name, value in weights.items()}, aux_params={},
               snapshot_data=list(train.batches) if snapshot_data else None, **settings_of(optimizer))  # fmt: skip
    return module


def resume_and_compare(prefix, cut, sym_gen=None, devices=1, kwargs=None, **settings):
    sym_gen = sym_gen or summed(SOFTMAX)
    contexts = [mx.cpu(k) for k in range(devices)]

    def save(epoch, *_):
        if epoch + 1 == cut:
            whole.save_checkpoint(prefix, cut, save_optimizer_states=True)

    whole = SVRGBucketingModule(sym_gen, LONGEST, context=contexts, **(kwargs or {"update_freq": 3}))
    fit(whole, 0, 5, callback=save, **settings)
    assert SVRGBucketingModule.last_checkpoint(prefix) == cut
    resumed = SVRGBucketingModule.load(prefix, cut, sym_gen, LONGEST, load_optimizer_states=True, context=contexts)
    # What another process has drawn.
    mx.random.seed(9)
    fit(resumed, cut, 5, **settings)
    assert_same(weights_of(resumed), weights_of(whole))
    timeless = [[{**vars(record), "seconds": 0} for record in module.history] for module in (resumed, whole)]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("cut", [1, 3, 4])
@pytest.mark.parametrize("devices, store", [(1, None), (1, "local"), (2, "local"), (2, None)])
def test_resumed_bit_for_bit(cut, devices, store, tmp_path):
    resume_and_compare(str(tmp_path / "model"), cut, devices=devices, store=store)


@pytest.mark.parametrize("optimizer", ["adam", "sgld", "scheduled", "auto", "auto with momentum"])
def test_resumed_with_other_optimizers(optimizer, tmp_path):
    resume_and_compare(str(tmp_path / "model"), 2, optimizer=optimizer)


@pytest.mark.parametrize("sym_gen", [with_dropout])
@pytest.mark.parametrize("devices", [1, 2])
def test_resumed_with_the_very_dropout_masks(devices, sym_gen, tmp_path):
    resume_and_compare(str(tmp_path / "model"), 2, sym_gen, devices)


def test_resumed_with_a_schedule_and_a_coefficient(tmp_path):
    plan = {"snapshots": EverySteps(8, at="average"), "coefficient": PerLayer()}
    resume_and_compare(str(tmp_path / "model"), 2, kwargs=plan, snapshot_data=True)


def test_any_bucket_may_be_the_current_one_when_it_is_saved(tmp_path):
    prefix, train, runs = str(tmp_path / "model"), sentences(4), []
    module = ready(unrolled, train, optimizer_params={"learning_rate": 0.25, "momentum": 0.5})
    module.update_full_grads(train)
    for k, each in enumerate(train.batches):
        if k == 1:
            # The default bucket, which has made the first step, now knows the weights; the next ones aren't its own.
            weights_of(module)
        if k == 3:
            module.forward(train.batches[1])
            module.save_checkpoint(prefix, 1, save_optimizer_states=True)
        module.forward_backward(each)
        module.update()
    runs.append(weights_of(module))
    module = SVRGBucketingModule.load(prefix, 1, unrolled, LONGEST, load_optimizer_states=True)
    module.bind(train.provide_data, train.provide_label)
    module.forward(train.batches[1])
    module.init_optimizer(optimizer_params={"learning_rate": 0.25, "momentum": 0.5})
    for each in train.batches[3:]:
        module.forward_backward(each)
        module.update()
    assert_same(weights_of(module), runs[0])


def test_the_callback_of_mxnet_saves_all_that_is_needed(tmp_path):
    prefix = str(tmp_path / "model")
    module = SVRGBucketingModule(summed(SOFTMAX), LONGEST)
    fit(module, 0, 2, callback=mx.callback.module_checkpoint(module, prefix, save_optimizer_states=True))
    assert SVRGBucketingModule.last_checkpoint(prefix) == 2
    resumed = SVRGBucketingModule.load(prefix, 2, summed(SOFTMAX), LONGEST, load_optimizer_states=True)
    assert_same(weights_of(fit(resumed, 2, 4)), weights_of(fit(module, 2, 4)))


def outputs_of(module, train):
    module.bind(train.provide_data, train.provide_label, for_training=False)
    return [output.asnumpy() for (output,), *_ in module.iter_predict(train)]


@pytest.mark.parametrize("states", [False, True])
def test_a_bucketing_module_reads_our_checkpoint(states, tmp_path):
    prefix, train = str(tmp_path / "model"), sentences(4)
    module = SVRGBucketingModule(pooled_words, LONGEST)
    module.fit(train, num_epoch=1)
    module.save_checkpoint(prefix, 1, save_optimizer_states=states)
    plain = mx.mod.BucketingModule.load(prefix, 1, pooled_words, LONGEST)
    assert_same(weights_of(plain), weights_of(module))
    again = SVRGBucketingModule.load(prefix, 1, pooled_words, LONGEST)
    np.testing.assert_array_equal(outputs_of(plain, train), outputs_of(again, train))
    one = SVRGModule.load(prefix, 1)
    assert_same(weights_of(one), weights_of(module))


def test_we_read_the_checkpoint_of_a_bucketing_module(tmp_path):
    prefix, train = str(tmp_path / "model"), sentences(4)
    plain = mx.mod.BucketingModule(pooled_words, LONGEST)
    plain.fit(train, num_epoch=1)
    plain.save_checkpoint(prefix, 1)
    module = SVRGBucketingModule.load(prefix, 1, pooled_words, LONGEST)
    assert_same(weights_of(module), weights_of(plain))
    module.fit(train, begin_epoch=1, num_epoch=2)
    assert [record.epoch for record in module.history] == [1]
    with pytest.raises(FileNotFoundError, match=r"0001\.states does not exist"):
        SVRGBucketingModule.load(prefix, 1, pooled_words, LONGEST, load_optimizer_states=True)


def test_keys_that_are_no_integers(tmp_path):
    """BucketingModule.load knows integers only; ours takes any."""
    prefix, train = str(tmp_path / "model"), sentences(4)
    for each in train.batches:
        each.bucket_key = (each.bucket_key, "words")

    def sym_gen(key):
        return pooled_words(key[0])

    module = SVRGBucketingModule(sym_gen, (LONGEST, "words"))
    module.fit(train, num_epoch=1)
    module.save_checkpoint(prefix, 1, save_optimizer_states=True)
    assert not (tmp_path / "model.buckets").exists()
    resumed = SVRGBucketingModule.load(prefix, 1, sym_gen, (LONGEST, "words"), load_optimizer_states=True)
    for each in (module, resumed):
        each.fit(train, begin_epoch=1, num_epoch=2)
    assert_same(weights_of(resumed), weights_of(module))


def test_load_dict_takes_symbols_and_weights():
    train = sentences(4)
    module = SVRGBucketingModule(pooled_words, LONGEST)
    module.fit(train, num_epoch=1)
    args, aux = module.get_params()
    for made in (None, {length: pooled_words(length)[0] for length in (2, LONGEST)}):
        loaded = SVRGBucketingModule.load_dict(made, pooled_words, LONGEST, args, aux)
        assert_same(weights_of(loaded), weights_of(module))
        np.testing.assert_array_equal(outputs_of(loaded, train), outputs_of(module, train))
        if made:
            assert loaded._default.symbol is made[LONGEST]
        loaded.bind(train.provide_data, train.provide_label, force_rebind=True)
        loaded.fit(train, num_epoch=1)
        assert loaded.history[0].samples == 24


def test_a_checkpoint_needs_the_function_of_its_symbols(tmp_path):
    prefix = str(tmp_path / "model")
    with pytest.raises(FileNotFoundError, match="no checkpoint of epoch 1"):
        SVRGBucketingModule.load(prefix, 1, pooled_words, LONGEST)
    module = SVRGBucketingModule(pooled_words, LONGEST)
    with pytest.raises(RuntimeError, match="save_checkpoint"):
        module.save_checkpoint(prefix, 1)
    module.fit(sentences(4), num_epoch=1)
    module.save_checkpoint(prefix, 1)
    with pytest.raises(TypeError, match="sym_gen=None must be a function"):
        SVRGBucketingModule.load(prefix, 1)
    with pytest.raises(ValueError, match="default_bucket_key=None"):
        SVRGBucketingModule.load(prefix, 1, pooled_words)
