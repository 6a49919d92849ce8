"""How the snapshot moves, rolls back, and tells who wants to know."""

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, ready, samples, train_steps, weights_of

SOFTMAX = oracle.PROBLEMS[2]
EXACT = dict(rtol=1e-12, atol=1e-14)


@pytest.fixture
def trained():
    """(module, train, data, start weights), with two snapshots to come."""
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    return ready(SOFTMAX, weights, train, update_freq=2), train, data, weights


def numbers(arrays):
    return {name: array.asnumpy().copy() for name, array in arrays.items()}


def test_listeners_get_the_old_and_the_new_point(trained):
    module, train, data, start = trained
    seen = []
    module._snapshot.listeners.append(lambda old, new: seen.append((old, new)))
    at_second = list(train_steps(module, train, 3))[5]
    (none, first), (old, new) = seen
    assert none is None
    for point, weights in ((first, start), (old, start), (new, at_second)):
        assert_same(numbers(point.weights), weights)
        assert_same(numbers(point.full_gradient), oracle.full_gradient(SOFTMAX, weights, data), **EXACT)


def test_a_listener_that_comes_later_has_no_old_point_to_miss(trained):
    module, train, data, start = trained
    module.update_full_grads(train)
    seen = []
    module._snapshot.listeners.append(lambda old, new: seen.append(old))
    module.update_full_grads(train)
    assert_same(numbers(seen[0].weights), start)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_pass_that_fails_tells_nobody_and_moves_nothing(trained, error):
    module, train, data, start = trained
    list(train_steps(module, train, 1))
    before = module._snapshot.number, module._snapshot.samples, module._snapshot.full_gradient

    def fail(param):
        raise error

    module._snapshot.listeners.append(lambda old, new: pytest.fail("it hasn't moved"))
    with pytest.raises(error):
        module.update_full_grads(train, batch_end_callback=fail)
    assert (module._snapshot.number, module._snapshot.samples) == before[:2]
    assert module._snapshot.full_gradient is before[2]
    assert_same(numbers(module._mod_aux.get_params()[0]), start)


def test_full_gradient_is_public_and_per_sample(trained):
    module, train, data, start = trained
    assert module.full_gradient is None
    module.update_full_grads(train)
    mu = oracle.full_gradient(SOFTMAX, start, data)
    assert_same(numbers(module.full_gradient), mu, **EXACT)
    for array in module.full_gradient.values():
        array[:] = 0
    assert_same(numbers(module.full_gradient), mu, **EXACT)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_clock_counts_epochs_steps_and_gradient_evaluations(devices):
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module = ready(SOFTMAX, weights, train, update_freq=2, devices=devices)
    module.forward_backward(next(train))
    module.update()
    assert (module._clock.steps, module._clock.evaluations) == (1, 4), "without a snapshot"
    train.reset()
    module.fit(train, num_epoch=3)
    # Two full passes of 10 samples; nine steps with 4 rows at the weights and at the snapshot.
    assert (module._clock.epoch, module._clock.steps, module._clock.evaluations) == (2, 10, 4 + 2 * 10 + 9 * 8)


def test_a_full_pass_in_the_middle_of_an_epoch_leaves_the_iterator_alone(trained):
    module, train, data, start = trained
    rows = []

    def middle(param):
        if param.nbatch == 1:
            module.update_full_grads(train)
            rows.append(weights_of(module))

    module.fit(train, num_epoch=2, batch_end_callback=middle)
    assert module._clock.steps == 6 and module._snapshot.number == 3
    assert_same(numbers(module.full_gradient), oracle.full_gradient(SOFTMAX, rows[1], data), **EXACT)


class Own(mx.io.DataIter):
    """Nobody knows where its data lie."""

    def __init__(self, data):
        super().__init__(data.batch_size)
        self._data, self.provide_data, self.provide_label = data, data.provide_data, data.provide_label

    def reset(self):
        self._data.reset()

    def next(self):
        return self._data.next()


@pytest.mark.parametrize("other", [False, True], ids=["the iterator itself", "another"])
def test_in_the_middle_of_an_epoch_another_iterator_needs_data_of_its_own(trained, other):
    module, train, data, start = trained

    def middle(param):
        module.update_full_grads(Own(iterator(SOFTMAX, data, 4)) if other else own)

    own = Own(train)
    if other:
        module.fit(own, num_epoch=1, batch_end_callback=middle)
        np.testing.assert_equal(module._snapshot.number, 4)
    else:
        with pytest.raises(ValueError, match="middle of an epoch.*snapshot_data"):
            module.fit(own, num_epoch=1, batch_end_callback=middle)


@pytest.mark.parametrize("call", [1, 2], ids=["when the pass begins", "when the pass is over"])
def test_an_interrupt_while_the_weights_are_set_keeps_weights_and_full_gradient_together(trained, call, monkeypatch):
    module, train, data, start = trained
    list(train_steps(module, train, 1))
    calls, usual = [], module._mod_aux.set_params

    def interrupted(*args, **kwargs):
        usual(*args, **kwargs)
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt

    monkeypatch.setattr(module._mod_aux, "set_params", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.update_full_grads(train)
    group = module._mod_aux._exec_group
    on_device = {name: arrays[0].asnumpy() for name, arrays in zip(group.param_names, group.param_arrays)}
    assert_same(numbers(module._mod_aux.get_params()[0]), on_device)
    assert_same(numbers(module.full_gradient), oracle.full_gradient(SOFTMAX, on_device, data), **EXACT)


def test_the_epoch_may_be_a_number_of_numpy(trained, tmp_path):
    module, train, data, start = trained
    module.update_full_grads(train, epoch=np.int64(3))
    module.save_checkpoint(str(tmp_path / "model"), 3, save_optimizer_states=True)
    assert module._snapshot.epoch == 3


@pytest.mark.parametrize("settings", [dict(last_batch_handle="roll_over"), dict(shuffle=True)], ids=str)
def test_a_full_pass_at_the_end_of_an_epoch_leaves_the_order_alone(settings):
    data, weights = samples(SOFTMAX, 10)
    seen = []
    for passes in (False, True):
        np.random.seed(5)
        train = iterator(SOFTMAX, data, 4, np.float32, **settings)
        module = ready(SOFTMAX, weights, train, dtype=np.float32)
        rows = []

        def at_end(*_, module=module, train=train, passes=passes):
            if passes:
                module.update_full_grads(train)

        forward = module.forward_backward
        module.forward_backward = lambda batch, rows=rows, forward=forward: (
            rows.append(batch.data[0].asnumpy().tolist()), forward(batch))  # fmt: skip
        module.fit(train, num_epoch=4, epoch_end_callback=at_end)
        seen.append(rows)
    assert seen[0] == seen[1]


def test_a_fit_inside_a_fit_leaves_the_outer_one_alone(trained):
    module, train, data, start = trained
    inner = iterator(SOFTMAX, data, 4)

    def nested(param):
        if param.epoch == 0 and param.nbatch == 0:
            module.fit(inner, begin_epoch=5, num_epoch=6)
            module.update_full_grads(train)

    module.fit(train, num_epoch=1, batch_end_callback=nested)
    assert module._clock.steps == 3 + 3
