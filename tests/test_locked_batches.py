"""LockedBatches: what is given, how the iterator inside is read, and what training by SVRG gains."""

import collections
import copy
import random

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import TOLERANCE, assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of
from PIL import Image

from svrg_optimization import LockedBatches, SVRGModule, VarianceMonitor, diagnose
from svrg_optimization.compute import data as data_of_pass
from svrg_optimization.schedules import EveryEpochs, EverySteps, Growing, Loopless

EXACT = TOLERANCE["float64"]
NET = oracle.PROBLEMS[3]


class Noisy(mx.io.DataIter):
    """Adds noise to the inputs at each reading, and may shuffle the samples anew.

    As many iterators do, it writes each batch over the one before, and loses its place if it is reset before its end,
    or asked again after it.
    """

    def __init__(self, data, batch_size, noise=0.5, shuffle=False, one_batch=True, layout="NCHW"):
        super().__init__(batch_size)
        self._x, self._y = np.array([x for x, _ in data]), np.array([y for _, y in data])
        self._rng, self._noise, self._shuffle, self._one_batch = np.random.default_rng(0), noise, shuffle, one_batch
        self.provide_data = [mx.io.DataDesc("data", (batch_size, *self._x.shape[1:]), np.float64)]
        self.provide_label = [mx.io.DataDesc("softmax_label", (batch_size,), np.float64)]
        self.asked, self._start, self._at_end = 0, 0, False
        self._batch, self._order = None, self._draw_order()

    def _draw_order(self):
        count = len(self._y)
        return self._rng.permutation(count) if self._shuffle else np.arange(count)

    def reset(self):
        assert self._start == 0 or self._at_end, "reset before its end"
        self._start, self._at_end, self._order = 0, False, self._draw_order()

    def next(self):
        assert not self._at_end, "asked after its end"
        self.asked += 1
        if self._start >= len(self._y):
            self._at_end = True
            raise StopIteration
        rows = self._order[np.arange(self._start, self._start + self.batch_size) % len(self._y)]
        self._start += self.batch_size
        x = self._x[rows] + self._rng.normal(0, self._noise, self._x[rows].shape)
        if self._batch is None or not self._one_batch:
            self._batch = mx.io.DataBatch([nd(x)], [nd(self._y[rows])])
        self._batch.data[0][:], self._batch.label[0][:] = x, self._y[rows]
        self._batch.pad = max(0, self._start - len(self._y))
        return self._batch


def noisy(n=24, batch_size=4, **kwargs):
    return Noisy(samples(NET, n)[0], batch_size, **kwargs)


def shuffled(handling):
    x, y = np.random.default_rng(0).normal(size=(22, 3)), np.arange(22.0)
    return mx.io.NDArrayIter(x, y, 4, shuffle=True, last_batch_handle=handling)


def images(directory, **kwargs):
    """An iterator over image files that crops them at random, and shuffles them."""
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    for number, each in enumerate(pixels):
        Image.fromarray(each).save(str(directory / "{}.png".format(number)))
    listed = [[float(number), "{}.png".format(number)] for number in range(len(pixels))]
    return mx.image.ImageIter(
        4, (3, 5, 5), path_root=str(directory), imglist=listed, shuffle=True, rand_crop=True, rand_mirror=True, **kwargs
    )


ITERATORS = {
    "noise": lambda directory: noisy(),
    "noise, ragged": lambda directory: noisy(22),
    "noise, shuffled": lambda directory: noisy(22, shuffle=True),
    "shuffled, padded": lambda directory: shuffled("pad"),
    "shuffled, discarded": lambda directory: shuffled("discard"),
    "shuffled, kept for the next epoch": lambda directory: shuffled("roll_over"),
    "prefetched": lambda directory: mx.io.PrefetchingIter(noisy(22, one_batch=False)),
    "cut to a part": lambda directory: mx.io.ResizeIter(shuffled("pad"), 4),
    "more than an epoch": lambda directory: mx.io.ResizeIter(shuffled("pad"), 8),
    "images": images,
    "images, kept for the next epoch": lambda directory: images(directory, last_batch_handle="roll_over"),
}


def content(batch):
    """All that is in a batch, as values."""
    arrays = [[array.asnumpy().tolist() for array in arrays] for arrays in (batch.data, batch.label)]
    return arrays, batch.pad, batch.index, batch.bucket_key


def epoch_of(data):
    """What an iterator gives until its end; resets it."""
    given = [content(batch) for batch in data]
    data.reset()
    return given


def seed():
    for each in (random, np.random, mx.random):
        each.seed(0)


@pytest.mark.parametrize("make", ITERATORS.values(), ids=list(ITERATORS))
def test_a_period_is_an_epoch_of_the_iterator_again_and_again(make, tmp_path):
    seed()
    data = make(tmp_path)
    epochs = [epoch_of(data) for _ in range(4)]
    assert epochs[0] != epochs[1] != epochs[2]
    seed()
    locked = LockedBatches(make(tmp_path))
    for epoch in epochs:
        assert [epoch_of(locked) for _ in range(3)] == [epoch] * 3
        locked.redraw()


@pytest.mark.parametrize("read", range(1, 7))
def test_a_reading_that_is_broken_off(read):
    """reset() and redraw() from anywhere; the iterator inside isn't reset before its end, nor asked after it."""
    data = noisy()
    first, second, third = (epoch_of(data) for _ in range(3))
    locked = LockedBatches(noisy())
    assert [content(next(locked)) for _ in range(read)] == first[:read]
    locked.reset()
    assert [content(next(locked)) for _ in range(2)] == first[:2]
    locked.hard_reset()
    assert epoch_of(locked) == first
    locked.redraw()
    assert [content(next(locked)) for _ in range(read)] == second[:read]
    locked.redraw()
    assert epoch_of(locked) == third
    assert [content(next(locked)) for _ in range(read)] == third[:read]


def test_redraw_without_a_reading_does_nothing():
    data = noisy()
    locked = LockedBatches(data)
    locked.redraw()
    assert epoch_of(locked) == epoch_of(noisy())
    locked.redraw()
    for _ in range(3):
        locked.redraw()
    reference = noisy()
    epoch_of(reference)
    assert epoch_of(locked) == epoch_of(reference)


def test_the_end_is_the_end_until_reset():
    locked = LockedBatches(noisy())
    assert len(list(locked)) == 6
    assert list(locked) == list(locked) == []
    with pytest.raises(StopIteration):
        locked.next()


def test_a_used_up_iterator_is_begun_anew():
    data = mx.io.NDArrayIter(np.arange(6.0), None, 2)
    list(data)
    locked = LockedBatches(data)
    assert [len(epoch_of(locked)) for _ in range(2)] == [3, 3]


class Empty(mx.io.DataIter):
    def next(self):
        raise StopIteration


def test_an_iterator_that_gives_nothing():
    locked = LockedBatches(Empty())
    for _ in range(2):
        assert epoch_of(locked) == []
        locked.redraw()


def test_changes_of_a_batch_leave_what_is_locked():
    locked = LockedBatches(noisy())
    before = epoch_of(locked)
    for batch in locked:
        batch.data[0][:], batch.label[0][:], batch.pad, batch.label = 0, 0, 3, []
    locked.reset()
    assert epoch_of(locked) == before


class OverOneBuffer(mx.io.DataIter):
    """Its batches are NumPy's memory, which it writes while mxnet may still read it."""

    def __init__(self):
        super().__init__(1)
        self._memory = np.zeros((1, 2000000), np.float32)
        self._array = mx.nd.from_numpy(self._memory[:], zero_copy=True)
        self._count = 0

    def next(self):
        if self._count == 5:
            raise StopIteration
        self._count += 1
        self._memory[:] = self._count
        return mx.io.DataBatch([self._array])


def test_memory_that_is_written_over_is_copied_before():
    locked = LockedBatches(OverOneBuffer())
    assert len(list(locked)) == 5
    locked.reset()
    assert [np.unique(batch.data[0].asnumpy()).tolist() for batch in locked] == [[1], [2], [3], [4], [5]]


OnlyData = collections.namedtuple("OnlyData", ["data"])


class Given(mx.io.DataIter):
    """Gives these batches."""

    def __init__(self, batches):
        super().__init__(2)
        self._batches = batches
        self.reset()

    def reset(self):
        self._left = iter(self._batches)

    def next(self):
        return next(self._left)


def test_batches_of_every_kind():
    array, sparse = nd([[1.0], [2.0]]), nd([[0.0], [2.0]]).tostype("csr")
    of_bucket = mx.io.DataBatch([array], index=np.array([3, 4]), bucket_key=7, provide_data=[("data", (2, 1))])
    of_bucket.remark = "its own"
    locked = LockedBatches(
        Given([of_bucket, [of_bucket, of_bucket], OnlyData([array]), mx.io.DataBatch([sparse], [array])])
    )
    list(locked)
    of_bucket.index[:] = 0
    array[:] = 0
    locked.reset()
    first, devices, alone, mixed = locked
    for each in (first, *devices):
        assert (each.bucket_key, each.index.tolist(), each.remark, each.pad, each.label) == (
            7,
            [3, 4],
            "its own",
            None,
            None,
        )
        assert each.provide_data == [("data", (2, 1))]
    assert type(alone) is OnlyData
    assert {each.data[0].asnumpy().tolist()[0][0] for each in (first, *devices, alone)} == {1}
    assert mixed.data[0].stype == "csr" and mixed.data[0].asnumpy().tolist() == [[0], [2]]


def test_the_iterators_attributes_pass_through():
    data = mx.io.NDArrayIter(np.zeros((6, 2)), np.zeros(6), 4)
    data.default_bucket_key = 5
    locked = LockedBatches(data)
    assert (locked.batch_size, locked.default_bucket_key, locked.num_data) == (4, 5, 6)
    assert (locked.provide_data, locked.provide_label) == (data.provide_data, data.provide_label)
    assert not hasattr(locked, "__len__") and not hasattr(locked, "_cache_data") and not hasattr(locked, "size")
    assert copy.copy(locked).num_data == 6


@pytest.mark.parametrize("data", [[], np.zeros(3), None])
def test_what_is_no_iterator_is_refused(data):
    with pytest.raises(TypeError, match="must be a DataIter, to be locked"):
        LockedBatches(data)


# ------------------------------------------------------------------------------------------------- how it is read


def test_the_ways_to_its_start_ask_nothing_of_the_iterator_inside():
    data = noisy()
    locked = LockedBatches(data)
    assert data_of_pass.count_batches(locked) == 6
    asked = data.asked
    assert data_of_pass.count_batches(locked) == 6
    next(locked)
    data_of_pass.restart(locked, at_end=False)
    with data_of_pass.whole(locked) as batches:
        first = [content(batch) for batch in batches]
    assert len(first) == 6 and epoch_of(locked) == first
    epochs = data_of_pass.Epochs(locked, lambda: 4, iter)
    for _ in range(2):
        assert [content(batch) for batch in epochs] == first[:4]
        epochs.reset()
    assert data.asked == asked == 7


def test_an_epoch_that_is_cut_off_locks_what_it_has_not_read():
    data = noisy()
    epochs = data_of_pass.Epochs(LockedBatches(data), lambda: 4, iter)
    assert len(list(epochs)) == 4
    epochs.reset()
    assert data.asked <= 5
    assert epoch_of(epochs._data) == epoch_of(noisy())


# -------------------------------------------------------------------------------------------------------- training


class Steps:
    """A callback of `fit`: the batches of each epoch, and the full gradient of each step."""

    def __init__(self, module):
        self._module, self.epochs, self.mu = module, [], []

    def __call__(self, param):
        if param.nbatch == 0:
            self.epochs.append([])
        batch = param.locals["data_batch"]
        rows = list(zip(batch.data[0].asnumpy(), batch.label[0].asnumpy()))
        self.epochs[-1].append((rows, rows[: len(rows) - batch.pad]))
        self.mu.append({name: value.asnumpy() for name, value in self._module.full_gradient.items()})

    def samples(self, epoch):
        """The true rows of an epoch, in the order of its steps."""
        return [row for _, true in self.epochs[epoch] for row in true]


def trained(data, update_freq, devices=1, **kwargs):
    """A module after four epochs of `fit`, and its steps."""
    module = SVRGModule(symbol(NET), context=[mx.cpu(i) for i in range(devices)], update_freq=update_freq)
    steps = Steps(module)
    module.fit(
        data, num_epoch=4, batch_end_callback=steps, optimizer_params={"learning_rate": 0.25},
        arg_params={name: nd(value) for name, value in samples(NET, 1)[1].items()}, **kwargs,
    )  # fmt: skip
    return module, steps


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("n", [24, 22], ids=["", "ragged"])
@pytest.mark.parametrize("update_freq", [1, 2])
def test_fit_is_svrg_on_the_rows_that_its_steps_see(update_freq, n, devices):
    module, steps = trained(LockedBatches(noisy(n, shuffle=True)), update_freq, devices)
    w, mus = samples(NET, 1)[1], iter(steps.mu)
    for epoch, batches in enumerate(steps.epochs):
        rows = steps.samples(epoch)
        if epoch % update_freq == 0:
            assert epoch == 0 or not np.array_equal(rows[0][0], steps.samples(epoch - 1)[0][0])
            snapshot, mu = w, oracle.full_gradient(NET, w, rows)
        else:
            np.testing.assert_array_equal([x for x, _ in rows], [x for x, _ in steps.samples(epoch - 1)])
        for padded, _ in batches:
            assert_same(next(mus), mu, **EXACT)
            here, there = (oracle.full_gradient(NET, weights, padded) for weights in (w, snapshot))
            w = {name: w[name] - 0.25 * (here[name] - there[name] + mu[name]) for name in w}
    assert_same(weights_of(module), w, **EXACT)
    assert [record.samples for record in module.history] == [n] * (4 // update_freq)


@pytest.mark.parametrize("update_freq", [1, 2])
def test_without_a_lock_the_full_gradient_is_of_other_rows(update_freq):
    _, steps = trained(noisy(), update_freq)
    mu = oracle.full_gradient(NET, samples(NET, 1)[1], steps.samples(0))
    assert abs(mu["fc1_weight"] - steps.mu[0]["fc1_weight"]).max() > 0.01


def test_fit_sees_the_epochs_of_the_iterator():
    """With a snapshot in each epoch, `fit` reads as many epochs of the iterator as Module's would: none is lost."""
    _, steps = trained(LockedBatches(noisy()), update_freq=1)
    data = noisy()
    for epoch in range(4):
        np.testing.assert_array_equal([x for x, _ in steps.samples(epoch)],
                                      np.concatenate([arrays[0][0] for arrays, *_ in epoch_of(data)]))  # fmt: skip


# When it has kept two rows for the next epoch, an NDArrayIter says that two rows of the first batch are padding.
@pytest.mark.parametrize("handling, seen", [("pad", [22, 22]), ("discard", [20, 20]), ("roll_over", [20, 22])])
def test_the_full_gradient_is_of_what_is_given(handling, seen):
    data = iterator(NET, samples(NET, 22)[0], 4, last_batch_handle=handling)
    module, steps = trained(LockedBatches(data), update_freq=2)
    assert [record.samples for record in module.history] == seen
    for epoch in range(4):
        assert len(steps.samples(epoch)) == seen[epoch // 2]


def test_a_loop_of_ones_own():
    module, locked = ready(NET, samples(NET, 1)[1], noisy()), LockedBatches(noisy())
    given = []
    for epoch in range(4):
        if epoch % 2 == 0:
            before = weights_of(module)
            module.update_full_grads(locked)
        given.append([])
        for batch in locked:
            given[-1] += zip(batch.data[0].asnumpy(), batch.label[0].asnumpy())
            module.forward_backward(batch)
            module.update()
        locked.reset()
        mu = {name: value.asnumpy() for name, value in module.full_gradient.items()}
        assert_same(mu, oracle.full_gradient(NET, before, given[-1]), **EXACT)
    assert len(module.history) == 2


def test_a_full_pass_that_fails():
    """The snapshot of before is kept, and the next pass sees a whole epoch of the iterator."""
    module, locked = ready(NET, samples(NET, 1)[1], noisy()), LockedBatches(noisy())
    module.update_full_grads(locked)
    before = module.full_gradient

    def interrupt(param):
        if param.nbatch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.update_full_grads(locked, batch_end_callback=interrupt)
    assert_same({name: value.asnumpy() for name, value in module.full_gradient.items()},
                {name: value.asnumpy() for name, value in before.items()})  # fmt: skip
    module.update_full_grads(locked)
    data = noisy()
    assert epoch_of(locked) == [epoch_of(data) for _ in range(3)][-1]
    assert [record.samples for record in module.history] == [24, 24]


@pytest.mark.parametrize("at", [0, 3])
def test_a_snapshot_in_the_middle_of_an_epoch_is_refused(at):
    locked, module = LockedBatches(noisy()), SVRGModule(symbol(NET))
    given = []

    def callback(param):
        if param.nbatch == at:
            given.append(module.full_gradient)
            module.update_full_grads(locked)

    with pytest.raises(ValueError, match="is locked until the epoch of fit.. has ended.*at the start of an epoch"):
        module.fit(locked, num_epoch=1, batch_end_callback=callback)
    assert_same({name: value.asnumpy() for name, value in module.full_gradient.items()},
                {name: value.asnumpy() for name, value in given[0].items()})  # fmt: skip
    locked.reset()
    assert epoch_of(locked) == epoch_of(noisy()), "nothing has been drawn anew"


def test_a_snapshot_after_the_last_step_of_an_epoch():
    locked, module = LockedBatches(noisy()), SVRGModule(symbol(NET), update_freq=9)
    module.fit(locked, num_epoch=2,
               batch_end_callback=lambda param: param.nbatch == 5 and module.update_full_grads(locked))  # fmt: skip
    assert len(module.history) == 3
    data = noisy()
    assert epoch_of(locked) == [epoch_of(data) for _ in range(3)][-1]


def test_snapshots_of_other_data_are_refused():
    locked = LockedBatches(noisy())
    with pytest.raises(ValueError, match="snapshot_data=.* has other draws than train_data.*leave snapshot_data out"):
        trained(locked, 2, snapshot_data=noisy())
    module, _ = trained(locked, 2, snapshot_data=locked)
    assert len(module.history) == 2


@pytest.mark.parametrize("schedule", [EverySteps(3), Loopless(0.5), Growing(8)], ids=repr)
def test_schedules_that_need_other_data_are_refused(schedule):
    with pytest.raises(ValueError, match="snapshots=.*LockedBatches draw anew with each snapshot.*take EveryEpochs"):
        SVRGModule(symbol(NET), snapshots=schedule).fit(LockedBatches(noisy()), num_epoch=2)


@pytest.mark.parametrize(
    "settings, epochs",
    [
        (dict(snapshots=EveryEpochs(2, warm_start=3)), [0, 1, 2, 3, 3, 4, 4]),
        (dict(coefficient=0), [0, 1, 2, 3, 4, 5, 6]),
        (dict(coefficient=lambda step: 0.5, snapshots=EveryEpochs(4, at="average")), [0, 0, 0, 0, 1, 1, 1]),
    ],
    ids=["warm start", "no control variate", "half of it"],
)
def test_which_epoch_of_the_iterator_an_epoch_of_fit_sees(settings, epochs):
    """Epochs of plain steps draw anew, as there is no full gradient whose draws they would have to see."""
    locked, seen = LockedBatches(noisy()), []
    SVRGModule(symbol(NET), **settings).fit(
        locked, num_epoch=7, batch_end_callback=lambda param: seen.append(content(param.locals["data_batch"]))
    )
    data = noisy()
    given = [epoch_of(data) for _ in range(7)]
    assert seen == [batch for epoch in epochs for batch in given[epoch]]


def test_a_loop_of_plain_steps_draws_anew_when_told_to():
    module, locked = SVRGModule(symbol(NET)), LockedBatches(noisy())
    seen = []
    mx.mod.Module.fit(
        module, locked, num_epoch=3, epoch_end_callback=lambda *_: locked.redraw(),
        batch_end_callback=lambda param: seen.append(content(param.locals["data_batch"])),
    )  # fmt: skip
    data = noisy()
    assert seen == [batch for _ in range(3) for batch in epoch_of(data)]
    module.fit(locked, begin_epoch=3, num_epoch=4)
    assert len(module.history) == 1


# ----------------------------------------------------------------------------------------------------- the variance


class Gradients(VarianceMonitor):
    """The gradients of each batch, at the weights and at the snapshot, per sample."""

    def __init__(self):
        super().__init__()
        self.at_weights, self.at_snapshot = [], []

    def look(self, gradients, rows):
        super().look(gradients, rows)
        for found, k in ((self.at_weights, 1), (self.at_snapshot, 2)):
            found.append(np.concatenate([each[k][0].asnumpy().ravel() for each in gradients]) / rows)


Measured = collections.namedtuple("Measured", ["plain", "reduced", "offset", "by_monitor", "g", "gradients", "mu"])


def measure(module, data):
    """Over an epoch at weights that stand still: the mean squared errors of both gradients, as by Defazio & Bottou.

    Both are about the mean of the plain gradients over these batches. `offset` is how far the mean of the
    variance-reduced gradients is from it.
    """
    monitor = Gradients()
    module.install_monitor(monitor)
    for batch in data:
        module.forward_backward(batch)
    data.reset()
    by_monitor = monitor.end(None, 2, None).total
    module.install_monitor(None)
    mu = np.concatenate([value.asnumpy().ravel() for value in module.full_gradient.values()])
    gradients = np.array(monitor.at_weights)
    g = gradients - np.array(monitor.at_snapshot) + mu
    mean = gradients.mean(axis=0)
    plain, reduced = (float(np.mean(np.sum((each - mean) ** 2, axis=1))) for each in (gradients, g))
    return Measured(plain, reduced, mu - np.mean(monitor.at_snapshot, axis=0), by_monitor, g, gradients, mu)


def period(lock, data, net=None, after=(0, 1, 2, 4, 8), rate=2**-4):
    """What is measured after so many steps of a period."""
    data = LockedBatches(data) if lock else data
    module = SVRGModule(symbol(NET) if net is None else net)
    module.bind(data.provide_data, data.provide_label)
    module.init_params(mx.init.Xavier())
    module.init_optimizer(optimizer_params={"learning_rate": rate})
    module.update_full_grads(data)
    found, batches = [], list(data)
    data.reset()
    for step in range(max(after) + 1):
        if step in after:
            found.append(measure(module, data))
        module.forward_backward(batches[step % len(batches)])
        module.update()
    return found


def test_locked_batches_take_away_the_variance_that_noise_in_the_inputs_leaves():
    """Defazio & Bottou's figure: mean squared errors, as a part of plain gradients', along a period."""
    unlocked, locked = (period(lock, noisy(48, one_batch=False)) for lock in (False, True))
    ratios = [[each.reduced / each.plain for each in found] for found in (unlocked, locked)]
    # At the snapshot nothing is left but roundings; without the lock, the full gradient's own noise.
    assert ratios[1][0] < 1e-28
    assert ratios[0][0] > 0.05
    offset = unlocked[0].offset
    assert unlocked[0].reduced == pytest.approx(offset @ offset, rel=1e-12)
    # Behind the snapshot.
    for without, with_lock in list(zip(*ratios))[1:]:
        assert with_lock < without / 4
    # Without the lock the error is the offset's, and the offset is that of all steps: it doesn't average out.
    for each in unlocked[1:]:
        assert each.offset @ each.offset > 0.5 * each.reduced


def bias(found):
    """By how much the mean of g over the batches is not the mean of their gradients."""
    return abs(found.g.mean(axis=0) - found.gradients.mean(axis=0)).max()


@pytest.mark.parametrize("shuffle", [False, True])
def test_locked_gradients_are_unbiased(shuffle):
    """Wherever the weights are."""
    without, locked = (period(lock, noisy(shuffle=shuffle, one_batch=False)) for lock in (False, True))
    assert all(bias(found) < 1e-14 for found in locked)
    assert all(bias(found) > 1e-2 for found in without)


def test_a_monitor_does_not_see_what_is_locked():
    """Both gradients of a step see the same draws, locked or not, and a monitor measures about the mean of its own."""
    for lock in (False, True):
        at_snapshot, *later = (found.by_monitor for found in period(lock, noisy(48, one_batch=False)))
        assert at_snapshot.ratio == 0
        assert all(0 < each.ratio < 0.1 for each in later)


def test_diagnose():
    found = []
    for lock in (False, True):
        data = LockedBatches(noisy(48)) if lock else noisy(48)
        module = ready(NET, samples(NET, 1)[1], data, optimizer_params={"learning_rate": 2**-4})
        found.append(diagnose(module, data))
        assert len(epoch_of(data)) == 12, "left at its start"
    assert found[0].helps and found[1].helps


@pytest.mark.parametrize("lock", [False, True])
def test_batch_norm_and_shuffled_batches(lock):
    """A row's gradient depends on its batch; locked, the steps have the batches of the full pass."""
    hidden = mx.sym.BatchNorm(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4), fix_gamma=False)
    net = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.tanh(hidden), num_hidden=3), name="softmax")
    for found in period(lock, noisy(noise=0, shuffle=True, one_batch=False), net):
        assert bias(found) < 1e-14 if lock else bias(found) > 1e-3


def test_locked_training_is_that_of_the_oracle_on_a_list_of_the_batches():
    """Once more without Noisy: a list of batches that never changes."""
    data, weights = samples(NET, 24)
    locked = LockedBatches(iterator(NET, data, 4))
    expected = oracle.svrg(NET, weights, data, oracle.Optimizer, batch_size=4, epochs=4, update_freq=2)
    for actual, wanted in zip(train_steps(ready(NET, weights, locked), locked, 4), expected):
        assert_same(actual, wanted, **EXACT)
