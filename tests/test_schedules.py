"""Every step equals the oracle, for each schedule of snapshots and each coefficient."""

import functools
import itertools
import logging
import math

import mxnet as mx
import numpy as np
import oracle
import pytest
import schedule_oracle as so
from models import OPTIMIZERS, TOLERANCE, assert_same, iterator, ready, samples, symbol, weights_of

from svrg_optimization import SVRGModule
from svrg_optimization.coefficients import Coefficient, Constant, Linear, PerLayer
from svrg_optimization.schedules import Clock, EveryEpochs, EverySteps, Growing, Loopless
from svrg_optimization.svrg.numbered_draws import uniform

PROBLEMS = {problem.name: problem for problem in oracle.PROBLEMS}
SIZES = {"even": 12, "ragged": 10}
BATCH, EPOCHS = 4, 4
GROWING = Growing(3, factor=1.75, seed=5)


def _rows(schedule):
    """The rows of the s-th part: how many there are is computed here, which ones is the schedule's draw."""

    def rows(s, n):
        clock = Clock()
        clock.snapshots = s
        count = min(n, math.ceil(schedule.first * schedule.factor**s))
        found = range(n) if count == n else schedule.rows(clock, n, n, 0)
        assert len(set(found)) == count
        return found

    return rows


def _random(seed):
    return functools.partial(so.random_one, seed=seed)


AVERAGE = functools.partial(so.average, seed=None)
SCHEDULES = {
    "update_freq": (2, so.When(so.every_epochs(2))),
    "warm start": (EveryEpochs(2, warm_start=1), so.When(so.every_epochs(2, 1), 1)),
    "random": (EveryEpochs(1, at="random", seed=3), so.When(so.every_epochs(1), iterate=_random(3))),
    "average": (EveryEpochs(2, 1, "average"), so.When(so.every_epochs(2, 1), 1, AVERAGE)),
    "steps": (EverySteps(2, warm_start=1), so.When(so.every_steps(2), 1)),
    "average of steps": (EverySteps(5, at="average"), so.When(so.every_steps(5), iterate=AVERAGE)),
    "random of steps": (EverySteps(4, at="random"), so.When(so.every_steps(4), iterate=_random(0))),
    "loopless": (Loopless(0.375, seed=4), so.When(so.coins(0.375, 4))),
    "growing": (GROWING, so.When(so.every_epochs(1), part=_rows(GROWING))),
    "growing average": (
        Growing(3, 1.5, k=2, at="average"),
        so.When(so.every_epochs(2), iterate=AVERAGE, part=_rows(Growing(3, 1.5))),
    ),
}  # fmt: skip
COEFFICIENTS = {
    "1": (lambda: 1, so.One),
    "0.75": (lambda: 0.75, lambda: so.Of(lambda steps, epoch: 0.75)),
    "clock": (
        lambda: lambda clock: 1 / (1 + clock.steps + clock.epoch),
        lambda: so.Of(lambda steps, epoch: 1 / (1 + steps + epoch)),
    ),
    "scheduler": (
        lambda: mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=1.5),
        lambda: so.Of(lambda steps, epoch: 1.5 * 0.5 ** (max(0, steps - 1) // 3)),
    ),
    "some 0": (
        lambda: lambda clock: float(clock.steps % 3 == 0),
        lambda: so.Of(lambda steps, epoch: float(steps % 3 == 0)),
    ),
    "layers": (PerLayer, so.ByLayer),
    "few": (lambda: PerLayer(most=0.5), lambda: so.ByLayer(0.5)),
}


def train(schedule, **how):
    """A module that is to be trained by a schedule or an update_freq."""
    how = {**how, "update_freq": schedule} if isinstance(schedule, int) else {**how, "snapshots": schedule}
    return {**how, "update_freq": how.get("update_freq", 2)}


def fit_steps(module, data, epochs, begin_epoch=0, **kwargs):
    """Fit; the weights after every step, before a snapshot may move them, and the number of snapshots until then."""
    found, update = [], module.update

    def recording():
        update()
        found.append((weights_of(module), module._snapshot.number))

    module.update = recording
    module.fit(data, num_epoch=epochs, begin_epoch=begin_epoch, eval_metric=mx.metric.CompositeEvalMetric([]), **kwargs)
    del module.update
    return found


def loop_steps(module, data, epochs, begin_epoch=0):
    """The same by hand."""
    found = []
    for epoch in range(begin_epoch, epochs):
        if module.snapshot_is_due(epoch):
            module.update_full_grads(data)
        data.reset()
        for number, batch in enumerate(data):
            if number and module.snapshot_is_due():
                module.update_full_grads(data)
            module.forward_backward(batch)
            module.update()
            found.append((weights_of(module), module._snapshot.number))
    return found


@functools.lru_cache(maxsize=None)
def expected(schedule, coefficient, size, problem="two-layer", optimizer="momentum", epochs=EPOCHS, snapshots=None):
    """The oracle's steps."""
    of_problem = PROBLEMS[problem]
    data, weights = samples(of_problem, SIZES[size])
    chosen = so.Falling(0.75, snapshots) if coefficient == "linear" else COEFFICIENTS[coefficient][1]()
    return list(so.scheduled_svrg(
        of_problem, weights, data, OPTIMIZERS[optimizer][2](), batch_size=BATCH, epochs=epochs,
        when=SCHEDULES[schedule][1], coefficient=chosen,
    ))  # fmt: skip


def assert_steps(actual, wanted, **tolerance):
    """The weights after every step, and the numbers of snapshots, are the same."""
    assert [number for _, number in actual] == [number for _, number in wanted]
    for (weights, _), (others, _) in zip(actual, wanted):
        assert_same(weights, others, **(tolerance or TOLERANCE["float64"]))


def made(schedule, coefficient, size, devices=1, problem="two-layer", optimizer="momentum", **kwargs):
    """A module, ready to train, and its data."""
    of_problem = PROBLEMS[problem]
    data, weights = samples(of_problem, SIZES[size])
    batches = iterator(of_problem, data, BATCH)
    name, params, _ = OPTIMIZERS[optimizer]
    module = ready(of_problem, weights, batches, devices=devices, optimizer=name, optimizer_params=params,
                   **train(schedule, coefficient=coefficient, **kwargs))  # fmt: skip
    return module, batches


@pytest.mark.parametrize("strategy", ["automatic", "serial", "overlapped", "memory saving"], indirect=True)
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_step_equals_the_oracle(schedule, coefficient, devices, strategy):
    module, data = made(SCHEDULES[schedule][0], COEFFICIENTS[coefficient][0](), "ragged", devices)
    assert_steps(fit_steps(module, data, EPOCHS), expected(schedule, coefficient, "ragged"))


@pytest.mark.parametrize("coefficient", ["1", "layers"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_loop_by_hand_takes_the_same_steps(schedule, coefficient):
    steps = []
    for train_by in (fit_steps, loop_steps):
        module, data = made(SCHEDULES[schedule][0], COEFFICIENTS[coefficient][0](), "ragged")
        steps.append(train_by(module, data, EPOCHS))
    assert_steps(*steps, rtol=0, atol=0)


@pytest.mark.parametrize("schedule, snapshots", [
    ("update_freq", 2), ("random", 4), ("random of steps", 3),
])  # fmt: skip
def test_linear_is_constant_between_snapshots_and_ends_at_0(schedule, snapshots):
    # With 12 rows, periods of 4 steps don't end with the epochs of 3.
    module, data = made(SCHEDULES[schedule][0], Linear(0.75, epochs=EPOCHS), "even")
    assert_steps(fit_steps(module, data, EPOCHS), expected(schedule, "linear", "even", snapshots=snapshots))


@pytest.mark.parametrize("schedule, coefficient", [
    ("average of steps", "layers"), ("random of steps", "clock"), ("loopless", "0.75"), ("growing", "layers"),
])  # fmt: skip
def test_200_steps_equal_the_oracle(schedule, coefficient):
    # The logistic loss is convex, so that roundings don't grow.
    how = dict(problem="logistic", optimizer="wd")
    module, data = made(SCHEDULES[schedule][0], COEFFICIENTS[coefficient][0](), "ragged", **how)
    wanted = expected(schedule, coefficient, "ragged", **how, epochs=67)
    assert len(wanted) > 200
    assert_steps(fit_steps(module, data, 67), wanted, rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------------------------- to the bit as before

BIT_FOR_BIT = [
    dict(update_freq=2, coefficient=1), dict(update_freq=2, coefficient=lambda clock: 1.0),
    dict(snapshots=EveryEpochs(2)), dict(update_freq=2, coefficient=Constant(1)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("how", BIT_FOR_BIT, ids=["number", "function", "schedule", "object"])
def test_the_default_in_other_words_is_the_default_in_every_bit(how, dtype):
    steps = []
    for arguments in (dict(update_freq=2), how):
        problem = PROBLEMS["two-layer"]
        data, weights = samples(problem, 10)
        batches = iterator(problem, data, BATCH, dtype)
        steps.append(fit_steps(ready(problem, weights, batches, dtype=dtype, optimizer_params={"momentum": 0.5},
                                     **{"update_freq": 2, **arguments}), batches, EPOCHS))  # fmt: skip
    assert_steps(*steps, rtol=0, atol=0)


def _dropout(module=SVRGModule, **kwargs):
    data = mx.sym.Dropout(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=8, name="fc1"), p=0.5)
    output = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(data, num_hidden=3, name="fc2"), name="softmax")
    return module(output, **kwargs)


@pytest.mark.parametrize("coefficient", [0, 0.0, Constant(0)], ids=repr)
@pytest.mark.parametrize("devices", [1, 2])
def test_0_is_module_in_every_bit_and_computes_nothing_at_the_snapshot(coefficient, devices, monkeypatch, caplog):
    rng, found = np.random.default_rng(0), []
    x, y = mx.nd.array(rng.normal(size=(50, 4))), mx.nd.array(rng.integers(0, 3, 50))
    for module in (mx.mod.Module, functools.partial(SVRGModule, coefficient=coefficient)):
        mx.random.seed(1)
        made = _dropout(module, context=[mx.cpu(k) for k in range(devices)])
        if isinstance(made, SVRGModule):
            monkeypatch.setattr(made._mod_aux, "forward", None)
            monkeypatch.setattr(made._mod_aux, "backward", None)
        made.fit(mx.io.NDArrayIter(x, y, 8), num_epoch=40, optimizer_params={"momentum": 0.5, "learning_rate": 0.25})
        found.append(weights_of(made))
    assert_same(*found)
    assert made._clock.evaluations == 40 * 7 * 8 and not made.history
    assert "without a snapshot" not in caplog.text


def test_with_0_a_tolerance_is_still_seen():
    module, data = made(2, 0, "ragged", problem="logistic", optimizer="wd")
    module.fit(data, num_epoch=500, tol=0.5, eval_metric="mse")
    assert module.converged and len(module.history) > 1


# ---------------------------------------------------------------------------------------------------- unbiasedness


def _mean_of_steps(module, data, state):
    """The mean over the batches of the variance-reduced gradients per row, each at the same weights."""
    gradients = []
    for batch in data:
        module.forward_backward(batch)
        gradients.append({name: arrays[0].asnumpy() / BATCH for name, arrays in state(module)})
    data.reset()
    return {name: np.mean([each[name] for each in gradients], axis=0) for name in gradients[0]}


def _gradients(module):
    from svrg_optimization.mxnet_api import internals

    return internals.gradients(module)


@pytest.mark.parametrize("coefficient", ["1", "0.75", "clock", "scheduler", "layers"])
@pytest.mark.parametrize("at", ["last", "average", "random"])
def test_the_mean_of_the_steps_is_the_gradient(coefficient, at):
    module, data = made(EverySteps(5, at=at), COEFFICIENTS[coefficient][0](), "even")
    fit_steps(module, data, 3)
    # A step's own batch doesn't decide its coefficient: here the coefficients stay where they are.
    module._coefficient.learns = False
    weights = weights_of(module)
    actual = _mean_of_steps(module, data, _gradients)
    wanted = oracle.full_gradient(PROBLEMS["two-layer"], weights, samples(PROBLEMS["two-layer"], 12)[0])
    assert_same(actual, wanted, rtol=1e-12, atol=1e-15)


def test_the_mean_over_all_parts_is_the_full_gradient(monkeypatch):
    problem, parts = PROBLEMS["two-layer"], list(itertools.combinations(range(10), 3))
    found = []
    module, data = made(Growing(3, 2.0), 1, "ragged")
    for part in parts:
        monkeypatch.setattr(Growing, "rows", lambda *_, part=part: np.array(part))
        module._clock.snapshots = 0
        module.update_full_grads(data)
        found.append({name: array.asnumpy() for name, array in module._snapshot.full_gradient[0].items()})
    assert len(found) == 120
    pairs, weights = samples(problem, 10)
    wanted = oracle.full_gradient(problem, weights, pairs)
    assert_same(
        {name: np.mean([each[name] for each in found], axis=0) for name in wanted}, wanted, rtol=1e-12, atol=1e-15
    )


# ------------------------------------------------------------------------------------------------------ the schedules


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_loopless_takes_as_many_snapshots_as_its_probability_says(p, seed):
    clock, schedule, steps = Clock(), Loopless(p, seed=seed), 10**4
    taken = 0
    for _ in range(steps):
        clock.step()
        if schedule.due(clock):
            taken += 1
            clock.begin_period(100)
            assert not schedule.due(clock)
    assert abs(taken - p * steps) < 3 * math.sqrt(p * (1 - p) * steps)


def test_draws_are_uniform():
    drawn = np.array([uniform(0, number) for number in range(10**4)])
    counts, _ = np.histogram(drawn, 20, (0, 1))
    # The 99.9 % quantile of chi-squared with 19 degrees of freedom.
    assert ((counts - 500) ** 2 / 500).sum() < 43.8
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 3 / 100


def test_a_random_iterate_is_each_one_equally_often():
    counts = np.zeros(5)
    from svrg_optimization.svrg.iterates import Random

    for seed in range(5000):
        clock, iterates = Clock(), Random(seed)
        for number in range(5):
            iterates.before_step([("w", mx.nd.array([number]))], clock)
            clock.step()
        counts[int(iterates.chosen()["w"].asscalar())] += 1
    # The 99.9 % quantile of chi-squared with 4 degrees of freedom.
    assert ((counts - 1000) ** 2 / 1000).sum() < 18.5


def test_growing_costs_what_it_promises():
    module, data = made(Growing(3, 2.0), 1, "even")
    evaluations = []
    for epoch in range(4):
        before = module._clock.evaluations
        module.fit(data, begin_epoch=epoch, num_epoch=epoch + 1, eval_metric="mse")
        evaluations.append(module._clock.evaluations - before - 2 * 12)
    assert evaluations == [3, 6, 12, 12]
    assert [record.samples for record in module.history] == [12] * 4
    np.testing.assert_allclose(
        [record.passes for record in module.history], np.cumsum([3, 24 + 6, 24 + 12, 24 + 12]) / 12
    )


def test_a_tolerance_is_reached_at_full_gradients_of_all_samples_only():
    module, data = made(Growing(1, 1.5), 1, "ragged", problem="logistic", optimizer="wd")
    module.fit(data, num_epoch=60, tol=0.5, eval_metric="mse")
    assert module.converged
    whole = [record.gradient_norm for record in module.history[6:]]
    assert len(whole) >= 2 and whole[-1] <= 0.5 * whole[0] < whole[-2]


@pytest.mark.parametrize("at_snapshot", [3, 7])
def test_training_that_converges_in_the_middle_of_an_epoch_leaves_the_data_at_their_start(at_snapshot):
    module, data = made(EverySteps(2), 1, "even", problem="logistic", optimizer="wd")
    first = next(batch.data[0].asnumpy() for batch in data)
    data.reset()
    norms, progress = [], module._progress

    def has_ended(tol, epsilon):
        norms.append(None)
        return len(norms) == at_snapshot

    progress.has_ended = has_ended
    module.fit(data, num_epoch=9, tol=0.5, eval_metric="mse")
    assert len(norms) == at_snapshot
    np.testing.assert_array_equal(next(data).data[0].asnumpy(), first)


def test_johnson_and_zhangs_rate():
    """eta = 0.1/L and m = 50 L/sigma halve the suboptimality in each stage, with the random iterate of option II."""
    problem, sigma, n = PROBLEMS["logistic"], 0.25, 12
    data, weights = samples(problem, n)
    x = np.array([[*row, 1.0] for row, _ in data])
    y = np.array([label for _, label in data])
    smoothness = float((x**2).sum(1).max()) / 4 + sigma
    steps = math.ceil(50 * smoothness / sigma)

    def objective(w):
        z = x @ w
        return float(np.mean(np.logaddexp(0, z) - y * z) + sigma / 2 * w @ w)

    best = np.zeros(4)
    for _ in range(50):
        p = 1 / (1 + np.exp(-(x @ best)))
        hessian = x.T @ (x * (p * (1 - p))[:, None]) / n + sigma * np.eye(4)
        best = best - np.linalg.solve(hessian, x.T @ (p - y) / n + sigma * best)
    contractions = []
    for seed in range(5):
        module = SVRGModule(symbol(problem), snapshots=EverySteps(steps, at="random", seed=seed))
        batches = iterator(problem, data, 1, shuffle=True)
        module.bind(batches.provide_data, batches.provide_label)
        module.init_params(arg_params={name: mx.nd.array(value, dtype="float64") for name, value in weights.items()})
        module.init_optimizer(optimizer_params={"learning_rate": 0.1 / smoothness, "wd": sigma})
        module._users_optimizer().set_wd_mult({"fc_bias": 1.0})
        values = []

        def look(old, new, values=values):
            found = {name: array.asnumpy() for name, array in new.weights.items()}
            values.append(objective(np.concatenate([found["fc_weight"].ravel(), found["fc_bias"]])) - objective(best))

        module._snapshot.listeners.append(look)
        rng = np.random.default_rng(seed)
        arrays = batches.data[0][1], batches.label[0][1]
        while len(values) < 7:
            if module.snapshot_is_due():
                module.update_full_grads(batches)
            # Johnson & Zhang draw with replacement.
            row = int(rng.integers(n))
            module.forward_backward(mx.io.DataBatch([arrays[0][row : row + 1]], [arrays[1][row : row + 1]]))
            module.update()
        contractions += [after / before for before, after in zip(values, values[1:])]
    assert len(contractions) == 30
    assert np.median(contractions) <= 0.5


# -------------------------------------------------------------------------------------------------------- checkpoints

RESUMED = [
    ("warm start", "layers"), ("random", "scheduler"), ("average", "0.75"), ("steps", "linear"),
    ("average of steps", "layers"), ("random of steps", "layers"), ("loopless", "1"), ("growing", "few"),
    ("growing average", "linear"),
]  # fmt: skip


def _coefficient(name):
    return Linear(0.75, EPOCHS) if name == "linear" else COEFFICIENTS[name][0]()


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("schedule, coefficient", RESUMED)
def test_training_goes_on_from_a_checkpoint_in_every_bit(schedule, coefficient, devices, cut, tmp_path):
    whole, data = made(SCHEDULES[schedule][0], _coefficient(coefficient), "ragged", devices)
    fit_steps(whole, data, cut)
    whole.save_checkpoint(tmp_path / "model", cut, save_optimizer_states=True)
    rest = fit_steps(whole, data, EPOCHS, begin_epoch=cut)
    # What a file can't hold is given again.
    given = {"coefficient": _coefficient(coefficient)} if coefficient == "scheduler" else {}
    resumed = SVRGModule.load(tmp_path / "model", cut, True, context=[mx.cpu(k) for k in range(devices)], **given)
    name, params, _ = OPTIMIZERS["momentum"]
    steps = fit_steps(resumed, data, EPOCHS, begin_epoch=cut, optimizer=name, optimizer_params=params)
    assert_steps(steps, rest, rtol=0, atol=0)
    assert resumed._clock.state() == whole._clock.state()
    assert repr(resumed._schedule) == repr(whole._schedule)


@pytest.mark.parametrize("cut", range(1, 8))
@pytest.mark.parametrize("schedule, coefficient", RESUMED)
def test_training_goes_on_from_the_middle_of_an_epoch(schedule, coefficient, cut, tmp_path):
    def steps(module, first, last):
        for step in range(first, last):
            epoch, number = divmod(step, len(batches))
            if module.snapshot_is_due(None if number else epoch):
                module.update_full_grads(data)
            module.forward_backward(batches[number])
            module.update()
            yield weights_of(module)

    whole, data = made(SCHEDULES[schedule][0], _coefficient(coefficient), "ragged")
    batches = list(data)
    list(steps(whole, 0, cut))
    whole.save_checkpoint(tmp_path / "model", cut, save_optimizer_states=True)
    rest = list(steps(whole, cut, 12))
    given = {"coefficient": _coefficient(coefficient)} if coefficient == "scheduler" else {}
    resumed = SVRGModule.load(tmp_path / "model", cut, True, **given)
    resumed.bind(data.provide_data, data.provide_label)
    name, params, _ = OPTIMIZERS["momentum"]
    resumed.init_optimizer(optimizer=name, optimizer_params=params)
    for actual, wanted in itertools.zip_longest(steps(resumed, cut, 12), rest):
        assert_same(actual, wanted)


def test_a_function_must_be_given_again(tmp_path):
    module, data = made(2, lambda clock: 0.5, "even")
    fit_steps(module, data, 2)
    module.save_checkpoint(tmp_path / "model", 2, True)
    with pytest.raises(
        ValueError, match=r"coefficient can't be made from it: tests?.*<lambda>.*load\(..., coefficient="
    ):
        SVRGModule.load(tmp_path / "model", 2, True)
    assert SVRGModule.load(tmp_path / "model", 2, True, coefficient=0.5)._coefficient.value == 0.5
    assert SVRGModule.load(tmp_path / "model", 2)._coefficient.value == 1


def test_other_arguments_than_those_saved_are_the_users(tmp_path):
    module, data = made(EverySteps(5, at="average"), PerLayer(), "even")
    fit_steps(module, data, 2)
    module.save_checkpoint(tmp_path / "model", 2, True)
    resumed = SVRGModule.load(
        tmp_path / "model", 2, True, snapshots=EverySteps(3, at="random"), coefficient=PerLayer(1.5)
    )
    fit_steps(resumed, data, 4, begin_epoch=2)
    assert resumed._clock.snapshots > module._clock.snapshots
    assert SVRGModule.load(tmp_path / "model", 2, True, update_freq=3).update_freq == 3


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, error, message", [
    (lambda: EveryEpochs(0), ValueError, "k=0 must be at least 1"),
    (lambda: EverySteps(True), TypeError, "k=True must be an integer"),
    (lambda: EverySteps(2, warm_start=-1), ValueError, "warm_start=-1 must be at least 0"),
    (lambda: EverySteps(2, at="first"), ValueError, "at='first' must be one of 'last', 'average', 'random'"),
    (lambda: Loopless(0), ValueError, "p=0 must be above 0 and at most 1"),
    (lambda: Loopless(float("nan")), ValueError, "p=nan must be finite"),
    (lambda: Growing(10, factor=1), ValueError, "factor=1 must be above 1"),
    (lambda: Growing("10"), TypeError, "first='10' must be an integer"),
    (lambda: Linear(-1, 3), ValueError, "start=-1 must be at least 0"),
    (lambda: Linear(0.5, 0), ValueError, "epochs=0 must be at least 1"),
    (lambda: PerLayer(most=None), TypeError, "most=None must be a number"),
    (lambda: made(2, "much", "even"), TypeError, "coefficient='much' must be a number"),
    (lambda: made(2, -0.5, "even"), ValueError, "coefficient=-0.5 must be at least 0"),
    (lambda: SVRGModule(symbol(PROBLEMS["linear"]), snapshots=3), TypeError, "snapshots=3 must be a schedule"),
    (lambda: SVRGModule(symbol(PROBLEMS["linear"]), update_freq=3, snapshots=EverySteps(3)), ValueError,
     r"update_freq=3 and snapshots=EverySteps\(.*\): give one of them"),
    (lambda: made(EverySteps(3, at="average"), 1, "even", devices=2, kvstore=None), ValueError,
     "at='average' with kvstore=None"),
])  # fmt: skip
def test_arguments_that_can_not_be_meant(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("how, message", [
    (dict(snapshots=EveryEpochs(2, warm_start=1)), "warm_start=1: the first step needs a snapshot"),
    (dict(snapshots=EverySteps(2, at="random")), "at='random': steps are judged by the last iterate"),
    (dict(snapshots=Growing(3)), "Growing: steps are judged by the gradients of all samples"),
    (dict(coefficient=0.5), "a coefficient: the steps are those of SVRG"),
])  # fmt: skip
@pytest.mark.parametrize("auto", [{"learning_rate": "auto"}, None], ids=["name", "instance"])
def test_steps_are_not_chosen_with_what_they_are_not_made_for(how, message, auto):
    from svrg_optimization import AutoStep

    problem = PROBLEMS["linear"]
    data, weights = samples(problem, 12)
    optimizer = {"optimizer": mx.optimizer.SGD(lr_scheduler=AutoStep())} if auto is None else {"optimizer_params": auto}
    with pytest.raises(ValueError, match="can't be chosen with " + message):
        ready(problem, weights, iterator(problem, data, 4), **{"update_freq": 2, **how, **optimizer})


@pytest.mark.parametrize("schedule", [EverySteps(4), Loopless(0.25)], ids=repr)
def test_steps_are_chosen_at_snapshots_within_epochs(schedule):
    problem = PROBLEMS["logistic"]
    data, weights = samples(problem, 40)
    train_data = iterator(problem, data, 4)
    module = SVRGModule(symbol(problem), snapshots=schedule)
    module.fit(train_data, num_epoch=60, arg_params={name: mx.nd.array(value) for name, value in weights.items()},
               optimizer_params={"learning_rate": "auto", "wd": 0.125}, eval_metric="mse", tol=1e-5)  # fmt: skip
    assert module.converged


@pytest.mark.parametrize("wrap", [lambda data: mx.io.PrefetchingIter(data), lambda data: mx.io.ResizeIter(data, 3)])
@pytest.mark.parametrize("schedule", [EverySteps(2), Loopless(0.5), Growing(3)], ids=repr)
def test_a_snapshot_within_an_epoch_needs_data_that_can_be_read_there(schedule, wrap):
    module, data = made(schedule, 1, "even")
    wrapped = wrap(iterator(PROBLEMS["two-layer"], samples(PROBLEMS["two-layer"], 12)[0], BATCH))
    with pytest.raises(ValueError, match="give .*snapshot_data"):
        module.fit(wrapped, num_epoch=2)
    module.fit(wrapped, num_epoch=2, snapshot_data=data)
    other, _ = made(schedule, 1, "even")
    other.fit(iterator(PROBLEMS["two-layer"], samples(PROBLEMS["two-layer"], 12)[0], BATCH), num_epoch=2)
    assert_same(weights_of(module), weights_of(other), rtol=1e-12)


def test_update_freq_of_other_schedules_is_unknown():
    module = SVRGModule(symbol(PROBLEMS["linear"]), snapshots=Loopless(0.5))
    with pytest.raises(AttributeError, match=r"snapshots=Loopless\(.*ask snapshot_is_due"):
        _ = module.update_freq
    module.update_freq = 3
    assert module.update_freq == 3


def test_a_full_gradient_that_is_not_finite_leaves_the_weights_where_they_were():
    module, data = made(EverySteps(3, at="average"), 1, "even")
    fit_steps(module, data, 1)
    before, snapshot = weights_of(module), module._snapshot.number
    broken = mx.io.NDArrayIter(data.data[0][1] * float("nan"), data.label[0][1], BATCH)
    with pytest.raises(FloatingPointError):
        module.update_full_grads(broken)
    assert_same(weights_of(module), before)
    assert module._snapshot.number == snapshot and module._iterates.count


def test_a_warm_start_is_not_taken_for_a_mistake(caplog):
    module, data = made(EveryEpochs(1, warm_start=50), 1, "even")
    with caplog.at_level(logging.WARNING):
        fit_steps(module, data, 40)
    assert "without a snapshot" not in caplog.text


# ------------------------------------------------------------------------------------------------ found by fresh eyes


@pytest.mark.parametrize("at", ["average", "random"])
@pytest.mark.parametrize("how", ["set_params", "init_params", "fit"])
def test_weights_that_the_user_sets_are_where_the_snapshot_is_taken(how, at):
    module, data = made(EverySteps(50, at=at), 1, "even")
    fit_steps(module, data, 2)
    new = {name: mx.nd.array(value + 1, dtype="float64") for name, value in weights_of(module).items()}
    if how == "fit":
        module.fit(data, num_epoch=1, arg_params=new, force_init=True, eval_metric="mse")
        assert module._iterates.count == 3
        return
    if how == "set_params":
        module.set_params(new, {})
    else:
        module.init_params(arg_params=new, aux_params={}, force_init=True)
    module.update_full_grads(data)
    for found in (weights_of(module), {name: each.asnumpy() for name, each in module._mod_aux.get_params()[0].items()}):
        assert_same(found, {name: each.asnumpy() for name, each in new.items()})


@pytest.mark.parametrize("at", ["average", "random"])
def test_iterates_and_estimates_begin_anew_if_other_parameters_are_trained(at, tmp_path):
    problem = PROBLEMS["two-layer"]
    data, weights = samples(problem, 12)
    train_data = iterator(problem, data, BATCH)
    module = ready(problem, weights, train_data, fixed_param_names=["fc1_weight", "fc1_bias"],
                   **train(EverySteps(8, at=at), coefficient=PerLayer()))  # fmt: skip
    fit_steps(module, train_data, 1)
    module.save_checkpoint(tmp_path / "model", 1, True)
    resumed = SVRGModule.load(tmp_path / "model", 1, True)
    steps = fit_steps(resumed, train_data, 2, begin_epoch=1)
    assert resumed._iterates.count == 3
    period = [weights_of(module), *(step for step, _ in steps)]
    resumed.update_full_grads(train_data)
    wanted = so.average(period, 0, 0) if at == "average" else None
    for name, array in resumed._mod_aux.get_params()[0].items():
        if wanted is not None:
            np.testing.assert_allclose(array.asnumpy(), wanted[name], rtol=1e-12)
        else:
            assert any((array.asnumpy() == each[name]).all() for each in period)


@pytest.mark.parametrize("optimizer, params, dtype", [
    ("ftrl", {}, "float32"), ("sgd", {"multi_precision": True}, "float16"),
    ("adam", {"multi_precision": True}, "float16"),
])  # fmt: skip
def test_an_optimizer_that_keeps_the_weights_is_refused(optimizer, params, dtype):
    problem = PROBLEMS["linear"]
    data, weights = samples(problem, 8)
    with pytest.raises(ValueError, match="at='average': the optimizer .* keeps the weights"):
        ready(problem, weights, iterator(problem, data, 4, dtype), dtype=dtype, optimizer=optimizer,
              optimizer_params=params, update_freq=2, snapshots=EverySteps(3, at="average"))  # fmt: skip


@pytest.mark.parametrize("how", [
    dict(update_freq=2, coefficient=Linear(0.75, 4)), dict(snapshots=EveryEpochs(1, warm_start=2)),
    dict(snapshots=EverySteps(3), coefficient=lambda clock: float(clock.steps % 3 == 0)),
], ids=["Linear", "warm start", "function"])  # fmt: skip
@pytest.mark.parametrize("optimizer", ["sgd", "sgld"])
@pytest.mark.parametrize("cut", [1, 3])
def test_plain_steps_that_draw_go_on_in_every_bit(how, optimizer, cut, tmp_path):
    rng = np.random.default_rng(0)
    data = mx.io.NDArrayIter(mx.nd.array(rng.normal(size=(50, 4))), mx.nd.array(rng.integers(0, 3, 50)), 8)
    mx.random.seed(1)
    whole = _dropout(**how)
    settings = dict(optimizer=optimizer, eval_metric="acc", initializer=mx.init.One())
    whole.fit(data, num_epoch=cut, **settings)
    whole.save_checkpoint(tmp_path / "model", cut, True)
    whole.fit(data, begin_epoch=cut, num_epoch=4, **settings)
    mx.random.seed(2)
    resumed = SVRGModule.load(tmp_path / "model", cut, True, **{k: v for k, v in how.items() if k == "coefficient"})
    resumed.fit(data, begin_epoch=cut, num_epoch=4, **settings)
    assert_same(weights_of(resumed), weights_of(whole))


@pytest.mark.parametrize("schedule", [EveryEpochs(1, warm_start=2), EverySteps(5, warm_start=2)], ids=repr)
@pytest.mark.parametrize("other_data", [False, True])
def test_a_second_fit_has_its_warm_start(schedule, other_data):
    module, data = made(schedule, 1, "even", optimizer="sgd")
    fit_steps(module, data, 4)
    if other_data:
        data = iterator(PROBLEMS["two-layer"], samples(PROBLEMS["two-layer"], 12)[0], BATCH)
    begin = {name: mx.nd.array(value, dtype="float64") for name, value in samples(PROBLEMS["two-layer"], 12)[1].items()}
    module.set_params(begin, {})
    before = module._snapshot.number
    again = [(weights, number - before) for weights, number in fit_steps(module, data, 4)]
    fresh, data = made(schedule, 1, "even", optimizer="sgd")
    assert_steps(again, fit_steps(fresh, data, 4), rtol=0, atol=0)


class _Listed(EverySteps):
    """A user's class, with settings that JSON changes."""

    def __init__(self):
        super().__init__(3, at="average")
        self.k_of_user, self.bounds, self.array = 2.5, (0, {1: 2}), np.zeros(2)


class _Learns(Coefficient):
    learns = True

    def __init__(self):
        self.seen = 0
        self.bounds = (0, 1)

    def at(self, clock):
        return 1 / (1 + self._seen) if hasattr(self, "_seen") else 1.0

    def look(self, gradients, mu, rows, clock, share):
        self._seen = getattr(self, "_seen", 0) + 1

    def state(self):
        return {"seen": self._seen}

    def restore(self, state):
        self._seen = state["seen"]


def test_classes_of_the_user_go_on_from_a_checkpoint(tmp_path, caplog):
    coefficient = _Learns()
    whole, data = made(_Listed(), coefficient, "even")
    fit_steps(whole, data, 2)
    assert coefficient._seen == 6
    whole.save_checkpoint(tmp_path / "model", 2, True)
    rest = fit_steps(whole, data, 4, begin_epoch=2)
    with pytest.raises(ValueError, match=r"snapshots can't be made from it: .*_Listed.*load\(..., snapshots="):
        SVRGModule.load(tmp_path / "model", 2, True, coefficient=_Learns())
    resumed = SVRGModule.load(tmp_path / "model", 2, True, snapshots=_Listed(), coefficient=_Learns())
    name, params, _ = OPTIMIZERS["momentum"]
    steps = fit_steps(resumed, data, 4, begin_epoch=2, optimizer=name, optimizer_params=params)
    assert_steps(steps, rest, rtol=0, atol=0)
    with caplog.at_level(logging.INFO):
        other = SVRGModule.load(
            tmp_path / "model", 2, True, snapshots=EverySteps(3, at="random"), coefficient=PerLayer()
        )
        other.fit(data, begin_epoch=2, num_epoch=3, eval_metric="mse")
    assert caplog.text.count("isn't that of the checkpoint") == 2


@pytest.mark.parametrize("value", [-3.0, float("nan"), {"fc1_bias": float("inf")}])
def test_a_coefficient_of_the_user_is_looked_at(value):
    coefficient = _Learns()
    coefficient.at = lambda clock: value
    module, data = made(2, coefficient, "even")
    with pytest.raises(ValueError, match="the coefficient of .* is .*: at.. must give finite numbers of at least 0"):
        fit_steps(module, data, 1)


@pytest.mark.parametrize("first, then", [("float32", "float64"), ("float64", "float32")])
@pytest.mark.parametrize("schedule, coefficient", [(EverySteps(50, at="average"), 1), (EverySteps(50), PerLayer())])
def test_another_type_in_the_middle_of_a_period(schedule, coefficient, first, then):
    problem = PROBLEMS["two-layer"]
    data, weights = samples(problem, 12)
    module = ready(problem, weights, iterator(problem, data, BATCH, first), dtype=first,
                   **train(schedule, coefficient=coefficient))  # fmt: skip
    for dtype in (first, then):
        train_data = iterator(problem, data, BATCH, dtype)
        module.bind([mx.io.DataDesc("data", (BATCH, 3), dtype)], [mx.io.DataDesc("softmax_label", (BATCH,), dtype)],
                    force_rebind=True)  # fmt: skip
        module.init_optimizer(optimizer_params={"learning_rate": 0.25}, force_init=True)
        if not module._snapshot.taken:
            module.update_full_grads(train_data)
        for batch in train_data:
            module.forward_backward(batch)
            module.update()
    assert (module._iterates.count or module._coefficient._batches) == 6


def test_a_loop_over_data_that_a_full_pass_resets_is_told(caplog):
    module, data = made(EverySteps(2), 1, "even")
    wrapped = mx.io.ResizeIter(data, 3)
    assert module.snapshot_is_due(0)
    module.update_full_grads(wrapped)
    for _ in range(2):
        module.forward_backward(next(wrapped))
        module.update()
    assert module.snapshot_is_due()
    module.update_full_grads(wrapped)
    assert "has read ResizeIter to its end, and reset it" in caplog.text
    assert not module.snapshot_is_due()


def test_modules_that_share_weights_count_steps_together():
    owner, data = made(EverySteps(6, at="average"), PerLayer(), "even")
    sharer = SVRGModule(symbol(PROBLEMS["two-layer"]), snapshots=EverySteps(6, at="average"), coefficient=PerLayer())
    sharer.bind(data.provide_data, data.provide_label, shared_module=owner)
    sharer.borrow_optimizer(owner)
    alone, _ = made(EverySteps(6, at="average"), PerLayer(), "even")
    wanted = loop_steps(alone, data, 4)
    data.reset()
    batches = list(data)
    for epoch in range(4):
        for number, batch in enumerate(batches):
            if owner.snapshot_is_due(None if number else epoch):
                owner.update_full_grads(data)
            module = (owner, sharer)[number % 2]
            module.forward_backward(batch)
            module.update()
            assert_same(weights_of(module), wanted.pop(0)[0], rtol=1e-12)


def test_0_with_a_tolerance_stays_at_its_iterates():
    module, data = made(EverySteps(3, at="average"), 0, "ragged")
    plain, _ = made(2, 0, "ragged")
    module.fit(data, num_epoch=3, tol=1e-9, eval_metric="mse")
    plain.fit(data, num_epoch=3, eval_metric="mse")
    assert_same(weights_of(module), weights_of(plain))


@pytest.mark.parametrize("first, factor, number, part", [(100, 1.1, 1, 110), (1000, 1.1, 2, 1210), (3, 1.75, 1, 6)])
def test_parts_are_as_large_as_the_digits_say(first, factor, number, part):
    clock = Clock()
    clock.snapshots = number
    assert Growing(first, factor).part(clock, 10**6) == part
    clock.snapshots = 10**6
    assert Growing(first, factor).part(clock, 10**6) == 10**6
