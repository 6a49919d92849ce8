"""Programs that other people write around a module: iterators, batches, loops, and what else they do meanwhile."""

import collections
import contextlib
import gc
import logging
import struct
import weakref
import zlib

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule

LINEAR, _, SOFTMAX, _ = oracle.PROBLEMS
EXACT = dict(rtol=1e-12, atol=1e-13)


def full_gradient(module):
    return {name: value.asnumpy() for name, value in module.full_gradient.items()}


def assert_full_gradient(module, problem, data, rtol=1e-12, atol=1e-13):
    """The full gradient is that of these data at the snapshot."""
    snapshot = {name: value.asnumpy().astype(float) for name, value in module._mod_aux.get_params()[0].items()}
    assert_same(full_gradient(module), oracle.full_gradient(problem, snapshot, data), rtol=rtol, atol=atol)


def fit(module, train, begin, end, **settings):
    module.fit(train, begin_epoch=begin, num_epoch=end, initializer=mx.init.Uniform(1), **settings)


def batch_of(data, pad=0):
    """A batch of these samples of SOFTMAX, the last `pad` of them padding."""
    return mx.io.DataBatch([nd([x for x, _ in data])], [nd([y for _, y in data])], pad=pad)


def passes_of(caplog):
    """The number of samples of each full pass in the log."""
    return [record.args[1] for record in caplog.records if "Full gradient: samples=" in record.msg]


def warnings_of(caplog, part):
    return [record for record in caplog.records if record.levelno == logging.WARNING and part in record.getMessage()]


# ------------------------------------------------- faults 7 and 9: iterators that lose their place, and their wrappers


class Reader(mx.io.DataIter):
    """Loses its place as mxnet's readers do: reset before its end, it gives the rest too. Of LINEAR, 4 rows at a time.

    Parameters
    ----------
    data, *later
        The samples of the first pass and of those after it; of the last ones for ever.
    """

    def __init__(self, data, *later):
        super().__init__(4)
        self._passes, self.calls = [data, *later], []
        rows = iterator(LINEAR, data, 4)
        self.provide_data, self.provide_label = rows.provide_data, rows.provide_label
        self._left = list(rows)

    def reset(self):
        self.calls.append("reset")
        self._passes = self._passes[1:] or self._passes
        self._left += iterator(LINEAR, self._passes[0], 4)

    def next(self):
        if not self._left:
            raise StopIteration
        self.calls.append("batch")
        return self._left.pop(0)


class Delegating(mx.io.DataIter):
    """Hands everything on."""

    def __init__(self, inner):
        super().__init__(inner.batch_size)
        self.inner = inner

    provide_data = property(lambda self: self.inner.provide_data)
    provide_label = property(lambda self: self.inner.provide_label)

    def reset(self):
        self.inner.reset()

    def next(self):
        return self.inner.next()


class DelegatingHardReset(Delegating):
    """Has a method that a reader inside lacks."""

    def hard_reset(self):
        self.inner.hard_reset()


WRAPPERS = {
    "bare": lambda reader: reader,
    "prefetching": mx.io.PrefetchingIter,
    "delegating": Delegating,
    "hard_reset": DelegatingHardReset,
    "two": lambda reader: mx.io.PrefetchingIter(Delegating(reader)),
}


@pytest.mark.parametrize("update_freq", [1, 2])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_fit_reads_a_reader_in_a_wrapper_whole(wrapper, update_freq, caplog):
    caplog.set_level(logging.INFO)
    data, _ = samples(LINEAR, 10)
    seen = []
    module = SVRGModule(symbol(LINEAR), update_freq=update_freq)
    module.fit(WRAPPERS[wrapper](Reader(data)), num_epoch=4, eval_metric="mse", initializer=mx.init.Uniform(1),
               batch_end_callback=lambda param: seen.append((param.epoch, param.locals["data_batch"].pad)))  # fmt: skip
    assert seen == [(epoch, pad) for epoch in range(4) for pad in (0, 0, 2)]
    assert passes_of(caplog) == [10] * (4 // update_freq)
    assert_full_gradient(module, LINEAR, data)
    assert not warnings_of(caplog, "")


@pytest.mark.parametrize("used", ["new", "begun", "read"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_loop_of_ones_own_reads_a_reader_in_a_wrapper_whole(wrapper, used, caplog):
    caplog.set_level(logging.INFO)
    data, weights = samples(LINEAR, 10)
    train = WRAPPERS[wrapper](Reader(data))
    module = ready(LINEAR, weights, train)
    for _ in range({"new": 0, "begun": 1, "read": 4}[used]):
        next(train, None)
    for epoch in range(4):
        if epoch % 2 == 0:
            module.update_full_grads(train)
            assert_full_gradient(module, LINEAR, data)
        steps = 0
        for batch in train:
            module.forward_backward(batch)
            module.update()
            steps += 1
        assert steps == 3
        train.reset()
    assert passes_of(caplog) == [10, 10]


def test_fit_does_not_reset_a_new_iterator():
    data, _ = samples(LINEAR, 10)
    once = ["batch"] * 3 + ["reset"]
    alone = Reader(data)
    SVRGModule(symbol(LINEAR)).fit(alone, num_epoch=2, eval_metric="mse")
    assert alone.calls == 3 * once
    train, whole = Reader(data), Reader(data)
    SVRGModule(symbol(LINEAR)).fit(train, num_epoch=2, eval_metric="mse", snapshot_data=whole)
    assert train.calls == 2 * once and whole.calls == once


@pytest.mark.parametrize("by", ["fit", "loop"])
@pytest.mark.parametrize("later", [9, 10, 12])
def test_passes_with_other_numbers_of_samples_are_mentioned_once(later, by, caplog):
    data, weights = samples(LINEAR, 12)
    train = Reader(data[:10], data[:10], data[:later], data[:later], data[:10], data[:10])
    module = SVRGModule(symbol(LINEAR), update_freq=1)
    if by == "fit":
        module.fit(train, num_epoch=4, eval_metric="mse")
    else:
        module = ready(LINEAR, weights, train)
        for _ in range(4):
            module.update_full_grads(train)
    message = "train_data gave {} samples in this full pass, and 10 in the one before".format(later)
    assert len(warnings_of(caplog, message)) == (later != 10)


def png(pixel):
    """An image of one pixel."""
    header, row = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), zlib.compress(b"\0" + bytes(pixel))
    parts = [kind + content for kind, content in ((b"IHDR", header), (b"IDAT", row), (b"IEND", b""))]
    chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


class EndlessError(BaseException):
    """An iterator gives batches for ever."""


class Images(mx.image.ImageIter):
    """mxnet's iterator over image files; ends what would go on for ever."""

    asked = 0

    def next(self):
        self.asked += 1
        if self.asked > 100:
            raise EndlessError
        return super().next()


@pytest.mark.parametrize("by", ["fit", "loop"])
@pytest.mark.parametrize("handling", ["pad", "discard", "roll_over"])
def test_an_image_iterator_gives_all_its_images(handling, by, tmp_path, caplog, rng):
    caplog.set_level(logging.INFO)
    pixels, labels = rng.integers(0, 4, (11, 3), dtype=np.uint8), [float(i % 3) for i in range(11)]
    for number, pixel in enumerate(pixels):
        (tmp_path / "{}.png".format(number)).write_bytes(png(pixel))
    train = Images(
        4, (3, 1, 1), path_root=str(tmp_path), aug_list=[], last_batch_handle=handling, label_name="softmax_label",
        imglist=[[label, "{}.png".format(number)] for number, label in enumerate(labels)],
    )  # fmt: skip
    data = list(zip(pixels.astype(float), labels))
    module = SVRGModule(symbol(SOFTMAX), update_freq=1)
    if by == "fit":
        seen = []
        fit(module, train, 0, 3, batch_end_callback=lambda param: seen.append(param.epoch))
        # roll_over has no rows left of an epoch before the full pass.
        assert seen == sorted(list(range(3)) * (3 if handling == "pad" else 2))
    else:
        module = ready(SOFTMAX, samples(SOFTMAX, 1)[1], train, update_freq=1, dtype=np.float32)
        list(train_steps(module, train, 3))
    assert passes_of(caplog) == [11] * 3
    assert_full_gradient(module, SOFTMAX, data, rtol=1e-5, atol=1e-6)
    assert train.last_batch_handle == handling


# ------------------------------------------------------------------------------------------- fault 10: plain batches

OnlyData = collections.namedtuple("OnlyData", ["data"])


@pytest.mark.parametrize("devices", [1, 2])
def test_batches_with_data_alone(devices):
    data, weights = samples(LINEAR, 8)
    output = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    loss = mx.sym.MakeLoss(0.5 * mx.sym.square(output - 0.5))
    module = SVRGModule(loss, label_names=None, context=[mx.cpu(i) for i in range(devices)])
    module.bind([mx.io.DataDesc("data", (4, 3), np.float64)])
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    batches = [OnlyData([nd([x for x, _ in data[start : start + 4]])]) for start in (0, 4)]
    expected = oracle.svrg(LINEAR, weights, [(x, 0.5) for x, _ in data], oracle.Optimizer, batch_size=4, epochs=3,
                           update_freq=2)  # fmt: skip
    for epoch in range(3):
        if epoch % 2 == 0:
            module.update_full_grads(batches)
        for batch, wanted in zip(batches, expected):
            module.forward_backward(batch)
            module.update()
            assert_same(weights_of(module), wanted, **EXACT)


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("callback", [None, lambda param: None], ids=["", "callback"])
def test_a_batch_that_is_all_padding(callback, devices):
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), devices=devices)
    batches = [batch_of(data[:4]), batch_of(data[4:], pad=2), batch_of(data[:4], pad=4)]
    if devices == 2:
        batches = [batch_of(data[:4]), [batch_of(data[4:6]), batch_of(data[6:], pad=2)], batch_of(data[:4], pad=4)]
    module.update_full_grads(batches, batch_end_callback=callback)
    assert_full_gradient(module, SOFTMAX, data[:6])
    with pytest.raises(ValueError, match="gave no samples"):
        module.update_full_grads(batches[2:])
    assert_full_gradient(module, SOFTMAX, data[:6])


@pytest.mark.parametrize("pad", [5, 9, -1])
def test_more_padding_than_rows(pad):
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4))
    with pytest.raises(ValueError, match="a batch of 4 rows has pad={}: .*from 0 to the number of rows".format(pad)):
        module.update_full_grads([batch_of(data[:4]), batch_of(data[4:], pad=pad)])
    assert module.full_gradient is None


# --------------------------------------------------------------------------- fault 11: what is no iterator of mxnet's


def loader(data, **settings):
    """A gluon DataLoader over samples of SOFTMAX."""
    dataset = mx.gluon.data.ArrayDataset(nd([x for x, _ in data]), nd([y for _, y in data]))
    return mx.gluon.data.DataLoader(dataset, 4, **settings)


PAIRS = {
    "DataLoader": loader,
    "shuffled DataLoader": lambda data: loader(data, shuffle=True),
    "pairs": lambda data: [(nd([x for x, _ in part]), nd([y for _, y in part])) for part in (data[:3], data[3:])],
    "pairs of lists": lambda data: [[[nd([x])], [nd([y])]] for x, y in data],
}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("callback", [None, lambda param: None], ids=["", "callback"])
def test_pairs_of_data_and_label_for_a_full_pass(callback, kind):
    data, weights = samples(SOFTMAX, 10)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4))
    pairs = PAIRS[kind](data)
    for _ in range(2):
        module.update_full_grads(pairs, batch_end_callback=callback)
        assert_full_gradient(module, SOFTMAX, data)


@pytest.mark.parametrize("kind", PAIRS)
def test_pairs_of_data_and_label_as_snapshot_data(kind, caplog):
    caplog.set_level(logging.INFO)
    data, _ = samples(SOFTMAX, 10)
    module = SVRGModule(symbol(SOFTMAX), update_freq=1)
    module.fit(iterator(SOFTMAX, data, 4), num_epoch=2, initializer=mx.init.Uniform(1), snapshot_data=PAIRS[kind](data))
    assert passes_of(caplog) == [10, 10]
    assert_full_gradient(module, SOFTMAX, data)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda batches: iter([]), ValueError, "snapshot_data=.* gave no samples.*generator"),
        (lambda batches: (batch for batch in batches), ValueError, "snapshot_data=<generator.* gave no samples"),
        (lambda batches: [1], TypeError, "snapshot_data gave 'int'; it must give batches"),
        (lambda batches: 5, TypeError, "snapshot_data=5 must be a DataIter"),
        (lambda batches: [mx.io.DataBatch([mx.nd.zeros((4, 7))], [mx.nd.zeros(4)])], ValueError,
         "batch 0 of snapshot_data has data"),
    ],
    ids=["nothing", "generator", "numbers", "number", "shape"],
)  # fmt: skip
def test_errors_in_snapshot_data_name_it(make, error, message):
    data, _ = samples(SOFTMAX, 8)
    snapshot_data = make([batch_of(data[:4]), batch_of(data[4:])])
    with pytest.raises(error, match=message):
        SVRGModule(symbol(SOFTMAX), update_freq=1).fit(iterator(SOFTMAX, data, 4), num_epoch=2,
                                                       snapshot_data=snapshot_data)  # fmt: skip


@pytest.mark.parametrize("devices", [1, 2])
def test_data_arrays_that_nobody_asked_for(devices):
    # Module ignores them.
    data, weights = samples(SOFTMAX, 10)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), devices=devices)
    batches = list(iterator(SOFTMAX, data, 4))
    for batch in batches:
        batch.data.append(mx.nd.zeros((4, 7)))
    expected = oracle.svrg(SOFTMAX, weights, data, oracle.Optimizer, batch_size=4, epochs=2, update_freq=1)
    for _ in range(2):
        module.update_full_grads(batches)
        for batch in batches:
            module.forward_backward(batch)
            module.update()
            assert_same(weights_of(module), next(expected), **EXACT)


# --------------------------------------------------------------------------------- fault 12: networks without a loss


def without_loss(weights):
    """Softmax regression with its loss outside the network; and that loss."""
    output = mx.sym.softmax(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, name="fc"))
    module = SVRGModule(output, label_names=None)
    module.bind([mx.io.DataDesc("data", (4, 3), np.float64)])
    module.init_params(arg_params={name: nd(value) for name, value in weights.items()}, aux_params={})
    module.init_optimizer(optimizer_params={"learning_rate": 0.25})
    return module, lambda outputs, batch: [-mx.nd.one_hot(batch.label[0], 3, dtype="float64") / outputs[0]]


def test_a_network_without_a_loss_needs_head_gradients():
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module, head = without_loss(weights)
    message = "doesn't end in loss layers.*update_full_grads.*out_grads"
    with pytest.raises(mx.base.MXNetError, match=message):
        module.update_full_grads(train)
    for _ in range(2):
        train.reset()
        module.forward(next(train))
        with pytest.raises(mx.base.MXNetError, match=message):
            module.backward()
        module.update_full_grads(train, out_grads=head)
    assert_full_gradient(module, SOFTMAX, data)


@pytest.mark.parametrize("sizes", [[4, 4, 2], [2, 4, 4], [3, 3, 3, 1], [5, 5]], ids=str)
def test_head_gradients_of_batches_of_any_size(sizes):
    data, weights = samples(SOFTMAX, 10)
    ends = np.cumsum(sizes)
    batches = [batch_of(data[end - size : end]) for size, end in zip(sizes, ends)]
    module, head = without_loss(weights)
    within = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4))
    for _ in range(2):
        module.update_full_grads(batches, out_grads=head)
        assert_full_gradient(module, SOFTMAX, data)
        within.update_full_grads(batches)
        for batch in batches:
            module.forward(batch)
            module.backward(head)
            module.update()
            within.forward_backward(batch)
            within.update()
            assert_same(weights_of(module), weights_of(within), **EXACT)


# -------------------------------------------------------------------------------------- fault 13: a fit on other data


def _other_iterator(train, other):
    return other


def _other_arrays(train, other):
    train.data, train.label = other.data, other.label
    return train


@pytest.mark.parametrize("change", [_other_iterator, _other_arrays])
@pytest.mark.parametrize("n", [8, 10, 12])
def test_a_fit_on_other_data_begins_with_a_snapshot(n, change, caplog):
    caplog.set_level(logging.INFO)
    data, _ = samples(SOFTMAX, 8)
    others, _ = samples(SOFTMAX, n, seed=1)
    train, other = iterator(SOFTMAX, data, 4), iterator(SOFTMAX, others, 4)
    if change is _other_arrays and n != 8:
        other = iterator(SOFTMAX, others[:8], 4)
    module = SVRGModule(symbol(SOFTMAX), update_freq=3)
    fit(module, train, 0, 1)
    before = full_gradient(module)
    changed = change(train, other)
    fit(module, changed, 1, 3)
    assert passes_of(caplog) == [8, other.num_data]
    assert_full_gradient(module, SOFTMAX, others[: other.num_data])
    assert np.abs(full_gradient(module)["fc_weight"] - before["fc_weight"]).max() > 0.01
    # And then by the schedule.
    fit(module, changed, 3, 5)
    assert passes_of(caplog) == [8] + [other.num_data] * 2


def test_a_fit_with_other_snapshot_data_begins_with_a_snapshot(caplog):
    caplog.set_level(logging.INFO)
    data, _ = samples(SOFTMAX, 8)
    train, whole, other = (iterator(SOFTMAX, data, size) for size in (4, 8, 2))
    module = SVRGModule(symbol(SOFTMAX), update_freq=4)
    for epoch, (snapshot_data, passes) in enumerate([(whole, 1), (whole, 1), (other, 2), (None, 3)]):
        fit(module, train, epoch, epoch + 1, snapshot_data=snapshot_data)
        assert len(passes_of(caplog)) == passes


def test_a_list_of_batches_is_known_by_its_batches(caplog):
    # A new list in the place of one that is gone looks like the old one, filled anew.
    caplog.set_level(logging.INFO)
    data, _ = samples(SOFTMAX, 12)
    train, batches = iterator(SOFTMAX, data, 4), []
    module = SVRGModule(symbol(SOFTMAX), update_freq=5)
    for number, part in enumerate([data[:8], data[4:]]):
        batches[:] = [batch_of(part[:4]), batch_of(part[4:])]
        for epoch in (2 * number, 2 * number + 1):
            fit(module, train, epoch, epoch + 1, snapshot_data=batches)
            train.reset()
            assert len(passes_of(caplog)) == number + 1
            assert_full_gradient(module, SOFTMAX, part)


@pytest.mark.parametrize("make", [
    lambda data: iterator(SOFTMAX, data, 4), lambda data: iterator(SOFTMAX, data, 4, np.float32, shuffle=True),
    lambda data: mx.io.PrefetchingIter(iterator(SOFTMAX, data, 4)),
], ids=["arrays", "shuffled", "prefetching"])  # fmt: skip
def test_the_schedule_decides_if_the_data_are_the_same(make, caplog):
    caplog.set_level(logging.INFO)
    train = make(samples(SOFTMAX, 10)[0])
    module = SVRGModule(symbol(SOFTMAX), update_freq=3)
    for epoch, passes in enumerate([1, 1, 1, 2, 2, 2, 3]):
        fit(module, train, epoch, epoch + 1)
        train.reset()
        assert passes_of(caplog) == [10] * passes


@pytest.mark.parametrize("n", [10, 11])
@pytest.mark.parametrize("as_snapshot_data", [False, True])
def test_a_resumed_run_on_as_many_samples_is_the_uninterrupted_one(as_snapshot_data, n, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    data, _ = samples(SOFTMAX, 11)
    prefix = str(tmp_path / "model")

    def arguments(n):
        whole = iterator(SOFTMAX, data[:n], 5)
        return iterator(SOFTMAX, data[:n], 4), {"snapshot_data": whole if as_snapshot_data else None}

    module = SVRGModule(symbol(SOFTMAX), update_freq=3)
    train, settings = arguments(10)
    fit(module, train, 0, 2, epoch_end_callback=lambda epoch, *_: epoch or module.save_checkpoint(prefix, 1, True),
        **settings)  # fmt: skip
    resumed = SVRGModule.load(prefix, 1, load_optimizer_states=True)
    train, settings = arguments(n)
    fit(resumed, train, 1, 2, **settings)
    if n == 10:
        assert passes_of(caplog) == [10]
        assert_same(weights_of(resumed), weights_of(module))
    else:
        assert passes_of(caplog) == [10, 11]
        assert_full_gradient(resumed, SOFTMAX, data)


# ------------------------------------------------------------------------------------------------- fault 14: memory


def _ended_by_an_error(module, train):
    def fail(param):
        if param.nbatch == 1:
            raise ZeroDivisionError

    for data, callback in ((train, fail), ([batch_of(samples(SOFTMAX, 4)[0]), 1], None)):
        with contextlib.suppress(Exception):
            module.update_full_grads(data, batch_end_callback=callback)


def _with_head_gradients(module, train):
    module.update_full_grads(train, out_grads=lambda outputs, batch: [mx.nd.ones_like(outputs[0])])
    module.forward(next(train))
    module.backward(lambda outputs, batch: [mx.nd.ones_like(outputs[0])])
    module.update()


def _of_another_size(module, train):
    list(train_steps(module, train, 1))
    module.forward_backward(batch_of(samples(SOFTMAX, 2)[0]))
    module.update()


def _shared(module, train):
    sharer = SVRGModule(symbol(SOFTMAX), context=module._context)
    sharer.bind(train.provide_data, train.provide_label, shared_module=module)
    sharer.borrow_optimizer(module)
    sharer.update_full_grads(train)
    for each, batch in zip((module, sharer), train):
        each.forward_backward(batch)
        each.update()


LIVES = {
    "shared": _shared,
    "steps": lambda module, train: list(train_steps(module, train, 3)),
    "full pass": lambda module, train: module.update_full_grads(train),
    "callbacks": lambda module, train: module.update_full_grads(
        train, epoch=1, batch_end_callback=[mx.callback.Speedometer(4, 1), mx.callback.ProgressBar(3)]
    ),
    # Module.fit with a batch_end_callback makes a reference cycle of its own.
    "fit": lambda module, train: module.fit(train, train, num_epoch=3, epoch_end_callback=lambda *_: None,
                                            full_grads_batch_end_callback=mx.callback.Speedometer(4, 1)),
    "error": _ended_by_an_error,
    "head gradients": _with_head_gradients,
    "another size": _of_another_size,
    "bound anew": lambda module, train: module.bind(train.provide_data, train.provide_label, force_rebind=True),
}  # fmt: skip


@pytest.fixture
def no_collector():
    gc.disable()
    yield
    gc.enable()


def _dead(references):
    return [reference() is None for reference in references]


def test_a_module_that_was_never_bound_is_freed_at_once(no_collector):
    module = SVRGModule(symbol(SOFTMAX))
    references = [weakref.ref(each) for each in (module, module._mod_aux)]
    del module
    assert all(_dead(references))


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("life", LIVES)
def test_a_module_is_freed_at_once(life, devices, no_collector):
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, devices=devices)
    LIVES[life](module, train)
    executors = [*module._exec_group.execs, *module._mod_aux._exec_group.execs]
    references = [weakref.ref(each) for each in (module, module._mod_aux, *executors)]
    del module, executors
    assert all(_dead(references))


def test_a_loaded_module_is_freed_at_once(tmp_path, no_collector):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    list(train_steps(module, train, 1))
    module.save_checkpoint(str(tmp_path / "model"), 1, save_optimizer_states=True)
    loaded = SVRGModule.load(str(tmp_path / "model"), 1, load_optimizer_states=True)
    train.reset()
    loaded.fit(train, begin_epoch=1, num_epoch=2)
    references = [weakref.ref(each) for each in (module, loaded, module._mod_aux, loaded._mod_aux)]
    del module, loaded
    assert all(_dead(references))


# ----------------------------------------------------------------------------- fault 17: training that isn't SVRG

NOT_SVRG = "updates without a snapshot: so far this is plain training, not SVRG"


def plain_steps(module, train, updates):
    for _ in range(updates):
        train.reset()
        module.forward_backward(next(train))
        module.update()


def test_a_sequential_module_is_told_once_that_it_does_not_train_by_svrg(caplog):
    train = iterator(SOFTMAX, samples(SOFTMAX, 12)[0], 4, np.float32)
    sequence = mx.mod.SequentialModule()
    sequence.add(SVRGModule(symbol(SOFTMAX)), take_labels=True, auto_wiring=True)
    sequence.fit(train, num_epoch=3)
    (record,) = warnings_of(caplog, NOT_SVRG)
    assert record.getMessage().startswith("3 updates")
    assert "if epoch % module.update_freq == 0: module.update_full_grads(train_data)" in record.getMessage()


def test_a_loop_is_told_once_that_it_does_not_train_by_svrg(caplog):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    asks = ready(SOFTMAX, weights, train)
    asks.get_params()
    assert not warnings_of(caplog, NOT_SVRG)
    for _ in range(3):
        plain_steps(asks, train, 2)
        asks.get_params()
    assert len(warnings_of(caplog, NOT_SVRG)) == 1
    caplog.clear()
    # Of one that asks for nothing, the number of updates tells.
    module = ready(SOFTMAX, weights, train)
    plain_steps(module, train, 99)
    assert not warnings_of(caplog, NOT_SVRG)
    plain_steps(module, train, 150)
    assert len(warnings_of(caplog, NOT_SVRG)) == 1


def test_a_warm_start_is_told_nothing(caplog):
    train = iterator(SOFTMAX, samples(SOFTMAX, 8)[0], 4)
    module = SVRGModule(symbol(SOFTMAX))
    mx.mod.Module.fit(module, train, num_epoch=51)
    train.reset()
    module.fit(train, begin_epoch=51, num_epoch=52)
    assert module.full_gradient is not None
    assert not warnings_of(caplog, NOT_SVRG)


def test_training_by_svrg_is_told_nothing(caplog):
    data, weights = samples(SOFTMAX, 8)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train)
    plain_steps(module, train, 60)
    list(train_steps(module, train, 25))
    SVRGModule(symbol(SOFTMAX)).fit(train, num_epoch=51)
    assert not warnings_of(caplog, NOT_SVRG)


# ------------------------------------------------------------------------------- fault 19: operators written in Python


class _Noise(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], in_data[0])

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self.assign(in_grad[0], req[0], out_grad[0])


@mx.operator.register("svrg_optimization_test_noise")
class _NoiseProperties(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):
        return _Noise()


def test_a_custom_operator_is_mentioned_once(caplog):
    data, _ = samples(SOFTMAX, 8)
    noisy = mx.sym.Custom(mx.sym.Variable("data"), op_type="svrg_optimization_test_noise")
    output = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(noisy, num_hidden=3, name="fc"), name="softmax")
    SVRGModule(output).fit(iterator(SOFTMAX, data, 4, np.float32), num_epoch=3)
    (record,) = warnings_of(caplog, "Custom")
    assert "random numbers that it draws by itself can't be repeated at the snapshot" in record.getMessage()
    caplog.clear()
    SVRGModule(symbol(SOFTMAX)).fit(iterator(SOFTMAX, data, 4), num_epoch=3)
    assert not warnings_of(caplog, "Custom")
