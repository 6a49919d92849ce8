"""The objective's gradient, the bound, when fit stops, and the history, against NumPy."""

import importlib
import json
import logging
import pathlib
import sys

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule
from svrg_optimization import history as histories
from svrg_optimization.mxnet_api import internals

LINEAR, _, SOFTMAX, _ = oracle.PROBLEMS
DECAY = 0.125


def objective_of(problem, weights, data, decays):
    """The mean loss with decay, and its gradient by parameter."""
    loss = np.mean([problem.loss(weights, x, y) for x, y in data])
    gradient = oracle.full_gradient(problem, weights, data)
    for name, decay in decays.items():
        loss += decay / 2 * np.sum(weights[name] ** 2)
        gradient[name] = gradient[name] + decay * weights[name]
    return loss, gradient


def norm_of(gradient):
    return np.sqrt(sum(np.sum(each**2) for each in gradient.values()))


@pytest.mark.parametrize("devices, kvstore", [(1, "local"), (2, "local"), (2, None)])
@pytest.mark.parametrize("rescale", [1, 0.5])
@pytest.mark.parametrize("decay_of_bias", [0.0, 0.5])
def test_the_objectives_gradient_and_the_bound(decay_of_bias, rescale, devices, kvstore):
    """As the optimizer has it: the weight decay is added to the gradient times rescale_grad."""
    data, weights = samples(SOFTMAX, 11)
    train = iterator(SOFTMAX, data, 4)
    params = {"learning_rate": 0.25, "wd": DECAY, "rescale_grad": rescale / 4}
    module = ready(SOFTMAX, weights, train, devices=devices, kvstore=kvstore, optimizer_params=params)
    if decay_of_bias:
        internals.optimizer(module).set_wd_mult({"fc_bias": decay_of_bias})
    module.update_full_grads(train)
    (record,) = module.history
    # Without a store each device takes its own steps, whose gradients are of half as many rows.
    scale = rescale / devices if kvstore is None else rescale
    decays = {"fc_weight": DECAY / scale, "fc_bias": DECAY * decay_of_bias / scale}
    _, gradient = objective_of(SOFTMAX, weights, data, decays)
    np.testing.assert_allclose(record.gradient_norm, norm_of(gradient), rtol=1e-12)
    np.testing.assert_allclose(record.norm, norm_of(oracle.full_gradient(SOFTMAX, weights, data)), rtol=1e-12)
    if decay_of_bias:
        expected = norm_of(gradient) ** 2 / (2 * DECAY * min(1, decay_of_bias) / scale)
        np.testing.assert_allclose(record.bound, expected, rtol=1e-12)
    else:
        assert record.bound is None
    assert (record.samples, record.num_update, record.learning_rate, record.momentum) == (11, 0, 0.25, 0.0)
    assert record.passes == 1


def fit_linear(tmp_path=None, module=None, rate=0.25, begin=0, epochs=100, callback=None, **kwargs):
    """Ridge regression, with decay on everything; the module, its data and start weights."""
    data, weights = samples(LINEAR, 20)
    # The first gradient isn't about 1.
    data = [(x, 64 * y) for x, y in data]
    module = module or SVRGModule(symbol(LINEAR), update_freq=2)
    optimizer = mx.optimizer.SGD(learning_rate=rate, wd=DECAY, rescale_grad=1 / 4, momentum=0.5)
    module.fit(iterator(LINEAR, data, 4), optimizer=optimizer, begin_epoch=begin, num_epoch=epochs, eval_metric="mse",
               arg_params={name: nd(value) for name, value in weights.items()}, aux_params={},
               epoch_end_callback=callback, **kwargs)  # fmt: skip
    return module, data


def gap_of(weights, data):
    """How much the objective is above its minimum, which is solved for."""
    x = np.array([[*x, 1.0] for x, _ in data])
    y = np.array([y for _, y in data])
    hessian = x.T @ x / len(x) + DECAY * np.eye(x.shape[1])
    w = np.concatenate([weights["fc_weight"].ravel(), weights["fc_bias"]])
    away = w - np.linalg.solve(hessian, x.T @ y / len(x))
    return away @ hessian @ away / 2


@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-12])
def test_fit_stops_when_the_gradient_is_small_enough(tol, caplog):
    caplog.set_level(logging.INFO)
    ended = []
    module, data = fit_linear(tol=tol, callback=lambda epoch, *_: ended.append(epoch))
    norms = [record.gradient_norm for record in module.history]
    assert module.converged is True
    assert norms[-1] <= tol * norms[0] < min(norms[:-1])
    assert ended == list(range(module.history[-1].epoch))
    # The weights are those of the snapshot: nothing has come after it.
    assert_same(weights_of(module), {k: v.asnumpy() for k, v in module._mod_aux.get_params()[0].items()})
    gap = gap_of(weights_of(module), data)
    assert 0 <= gap <= module.history[-1].bound
    (line,) = [message for message in caplog.messages if "Converged" in message]
    assert "at most tol={:g} times the first".format(tol) in line and "If the loss is convex" in line


@pytest.mark.parametrize("when", range(0, 12, 2))
def test_the_bound_holds_at_every_snapshot(when):
    module, data = fit_linear(epochs=when + 1)
    weights = {k: v.asnumpy() for k, v in module._mod_aux.get_params()[0].items()}
    assert 0 < gap_of(weights, data) <= module.history[-1].bound


def test_the_last_epoch_comes_first(caplog):
    module, _ = fit_linear(tol=1e-6, epochs=3)
    assert module.converged is False
    (line,) = [record for record in caplog.records if "num_epoch" in record.message]
    assert line.levelname == "WARNING" and "num_epoch=3 came before tol=1e-06" in line.message
    assert "another learning rate than 0.25" in line.message
    fit_linear(module=module, tol=1e-6, begin=3)
    assert module.converged is True


@pytest.mark.parametrize("dtype, remedy", [("float32", "take a larger tol, or data and weights of float64"),
                                           ("float64", "take a larger tol")])  # fmt: skip
def test_a_tol_below_the_roundings_is_said(dtype, remedy, caplog):
    data, weights = samples(LINEAR, 20)
    module = SVRGModule(symbol(LINEAR), update_freq=1)
    module.fit(iterator(LINEAR, data, 4, dtype), num_epoch=80, tol=1e-17, optimizer_params={"learning_rate": "auto"},
               arg_params={k: nd(v, dtype) for k, v in weights.items()}, aux_params={}, eval_metric="mse")  # fmt: skip
    assert "more epochs don't take away: " in caplog.messages[-1]
    assert caplog.messages[-1].endswith(remedy)


def test_a_step_that_is_too_large_stalls_and_never_stops(caplog):
    """Its squares neither blow up nor come to rest: the gradient is clipped."""
    data, weights = samples(LINEAR, 20)
    module = SVRGModule(symbol(LINEAR), update_freq=1)
    module.fit(iterator(LINEAR, data, 4), optimizer_params={"learning_rate": 4.0, "clip_gradient": 0.5, "wd": DECAY},
               num_epoch=30, tol=1e-2, arg_params={k: nd(v) for k, v in weights.items()}, aux_params={},
               eval_metric="mse")  # fmt: skip
    assert module.converged is False and len(module.history) == 30
    stalls = [record for record in caplog.records if "hasn't become smaller" in record.message]
    assert stalls and all(record.levelname == "WARNING" for record in stalls)
    assert "learning_rate=4.0 may be too large: try a third of it" in stalls[0].message


def test_without_tol_nothing_is_said(caplog):
    module, _ = fit_linear(epochs=3)
    assert module.converged is False and not caplog.records


@pytest.mark.parametrize("tol", [0, 1, -1e-3, 2.0, "1e-6", True, float("nan")])
def test_wrong_tol(tol):
    with pytest.raises(ValueError, match="tol=.* must be a number between 0 and 1, for instance 1e-6"):
        fit_linear(tol=tol)


# ------------------------------------------------------------------------------------------------------- history


def test_the_history_of_a_loop_of_ones_own():
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    schedule = mx.lr_scheduler.FactorScheduler(3, 0.5, base_lr=0.5)
    module = ready(SOFTMAX, weights, train, update_freq=2, optimizer_params={"lr_scheduler": schedule})
    assert module.history == []
    list(train_steps(module, train, 5))
    assert [record.num_update for record in module.history] == [0, 6, 12]
    assert [record.learning_rate for record in module.history] == [0.5, 0.25, 0.0625]
    # Each step evaluates both gradients of a batch, of which the last one of an epoch is filled up to 4.
    assert [record.passes for record in module.history] == pytest.approx([1.0, 2 + 4.8, 3 + 9.6])
    assert [record.epoch for record in module.history] == [None] * 3
    seconds = [record.seconds for record in module.history]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_the_history_is_written_and_drawn(tmp_path):
    module, _ = fit_linear(epochs=5)
    histories.to_csv(module.history, tmp_path / "history.csv")
    names, *lines = (tmp_path / "history.csv").read_text().splitlines()
    assert names.split(",") == list(vars(module.history[0]))
    assert [float(line.split(",")[names.split(",").index("norm")]) for line in lines] == [
        record.norm for record in module.history]  # fmt: skip
    histories.to_json_lines(module.history, tmp_path / "history.jsonl")
    read = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [histories.Record(**each) for each in read] == module.history
    axes = histories.plot(module.history)
    for axis, name in zip(axes, ("passes", "seconds")):
        norm, bound = axis.get_lines()
        assert list(norm.get_xdata()) == [getattr(record, name) for record in module.history]
        assert list(norm.get_ydata()) == [record.gradient_norm for record in module.history]
        assert list(bound.get_ydata()) == [record.bound for record in module.history]
    with pytest.raises(ValueError, match="the history is empty"):
        histories.plot([])


class Writer:
    def __init__(self):
        self.seen = []

    def add_scalar(self, name, value, step):
        self.seen.append((name, value, step))


def test_a_writer_gets_each_number():
    data, weights = samples(SOFTMAX, 10)
    train = iterator(SOFTMAX, data, 4)
    module, writer = ready(SOFTMAX, weights, train, update_freq=1), Writer()
    module.add_writer(writer)
    list(train_steps(module, train, 2))
    expected = [("svrg/" + name, value, record.num_update) for record in module.history
                for name, value in vars(record).items() if value is not None]  # fmt: skip
    assert writer.seen == expected and len(expected) > 10
    with pytest.raises(TypeError, match=r"writer=3 must have the method add_scalar\(name, value, step\)"):
        module.add_writer(3)


def test_a_checkpoint_keeps_the_history(tmp_path):
    def save(epoch, *_):
        if epoch == 3:
            whole.save_checkpoint(tmp_path / "model", 4, save_optimizer_states=True)

    whole = SVRGModule(symbol(LINEAR), update_freq=2)
    fit_linear(module=whole, tol=1e-6, callback=save)
    resumed = SVRGModule.load(tmp_path / "model", 4, load_optimizer_states=True)
    fit_linear(module=resumed, tol=1e-6, begin=4)
    assert resumed.converged and len(resumed.history) == len(whole.history)
    for one, other in zip(resumed.history, whole.history):
        seconds = [vars(each).pop("seconds") for each in (one, other)]
        assert one == other and min(seconds) > 0


# --------------------------------------------------------------------------------------- found by fresh eyes


def test_a_short_step_of_a_proximal_optimizer_is_no_convergence():
    """In float32, w - (w - step * gradient) is 0 for a step of 1e-8, however large the gradient."""
    data, weights = samples(LINEAR, 20)
    module = SVRGModule(symbol(LINEAR), update_freq=1)
    schedule = mx.lr_scheduler.FactorScheduler(5, 0.5, base_lr=0.0625)
    start = {name: nd(np.ones_like(value), np.float32) for name, value in weights.items()}
    module.fit(iterator(LINEAR, data, 4, np.float32), num_epoch=60, tol=1e-3, eval_metric="mse",
               optimizer="proximalsgd", arg_params=start, aux_params={},
               optimizer_params={"lr_scheduler": schedule, "l1": 0.125})  # fmt: skip
    assert not module.converged
    assert module.history[-1].gradient_norm > 0.01 * module.history[0].gradient_norm


@pytest.mark.parametrize("step", [1e-6, 1.0])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("group", [None, "rows", "columns"])
def test_the_residual_is_that_of_the_formula(group, nonnegative, step):
    optimizer = mx.optimizer.create("proximalsgd", l1=0.5, group=group, nonnegative=nonnegative, wd=0.0,
                                    param_idx2name={0: "fc_weight"})  # fmt: skip
    rng = np.random.default_rng(0)
    weight, gradient = nd(rng.normal(size=(4, 6)) * (rng.random((4, 6)) < 0.5)), nd(rng.normal(size=(4, 6)))
    weight[1] = 0
    by_formula = (weight - optimizer.prox(0, weight - step * gradient, step / 2)) / step
    found = optimizer.residual(0, weight, gradient, step, 2.0)
    np.testing.assert_allclose(found.asnumpy(), by_formula.asnumpy(), atol=1e-16 / step * 10, rtol=1e-9)


@pytest.mark.parametrize("params", [
    {"learning_rate": np.float32(0.25)}, {"learning_rate": np.int64(1), "momentum": np.float64(0.5)},
], ids=str)  # fmt: skip
def test_settings_of_numpy_types_can_be_saved(params, tmp_path):
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4), optimizer_params=params)
    module.update_full_grads(iterator(SOFTMAX, data, 4))
    module.history[0].mine = np.ones(3)
    module.save_checkpoint(str(tmp_path / "model"), 1, True)
    histories.to_json_lines(module.history, tmp_path / "lines")
    assert json.loads((tmp_path / "lines").read_text())["learning_rate"] == float(params["learning_rate"])


def test_json_has_no_nan(tmp_path):
    histories.to_json_lines([histories.Record(norm=float("inf"), bound=float("nan"))], tmp_path / "lines")
    assert (tmp_path / "lines").read_text() == '{"norm": null, "bound": null}\n'


def test_tol_is_about_the_objective_that_is_minimized_now():
    """Other data, or another weight decay: then the first snapshot of before says nothing."""
    data, _ = samples(LINEAR, 20)
    module = SVRGModule(symbol(LINEAR), update_freq=1)
    settings = dict(eval_metric="mse", optimizer_params={"learning_rate": 0.25})
    module.fit(iterator(LINEAR, [(x, 1000 * y) for x, y in data], 4), num_epoch=4, **settings)
    start = {name: nd(np.zeros(shape)) for name, shape in LINEAR.shapes.items()}
    module.set_params(start, {})
    module.fit(iterator(LINEAR, [(x, 0.001 * y) for x, y in data], 4), num_epoch=1, tol=1e-3, **settings)
    assert not module.converged
    number = len(module.history)
    module.fit(iterator(LINEAR, data, 4), num_epoch=100, tol=1e-3, force_init=True, eval_metric="mse",
               optimizer_params={"learning_rate": 0.25, "wd": 0.5})  # fmt: skip
    assert module.converged
    assert module.history[-1].gradient_norm <= 1e-3 * module.history[number].gradient_norm


@pytest.mark.parametrize("group", [None, "rows"])
def test_the_residual_of_a_short_step_is_no_rounding(group):
    optimizer = mx.optimizer.create("proximalsgd", l1=0.5, group=group, param_idx2name={0: "fc_weight"})
    found = optimizer.residual(0, mx.nd.ones((1, 4)), mx.nd.full((1, 4), 0.25), 1e-9, 1.0)
    np.testing.assert_allclose(found.asnumpy(), 0.75 if group is None else 0.5, rtol=1e-6)


@pytest.mark.parametrize("kind", ["lr_mult", "fix_gamma"])
def test_what_does_not_move_does_not_count(kind):
    data, label = mx.sym.Variable("data"), mx.sym.Variable("softmax_label")
    if kind == "lr_mult":
        bias = mx.sym.Variable("fc_bias", lr_mult=0.0)
        scores = mx.sym.FullyConnected(data, num_hidden=3, name="fc", bias=bias)
    else:
        # Statistics of its own, that the batches don't change.
        data = mx.sym.BatchNorm(data, name="norm", use_global_stats=True)
        scores = mx.sym.FullyConnected(data, num_hidden=3, name="fc")
    module = SVRGModule(mx.sym.SoftmaxOutput(scores, label), update_freq=1)
    module.fit(iterator(SOFTMAX, samples(SOFTMAX, 24)[0], 4), num_epoch=150, tol=1e-4, eval_metric="acc",
               optimizer_params={"learning_rate": 0.5, "wd": 0.0625})  # fmt: skip
    assert module.converged


def test_passes_are_counted_with_the_samples_that_there_were():
    data, weights = samples(SOFTMAX, 24)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data[:8], 4))
    module.update_full_grads(iterator(SOFTMAX, data[:8], 4))
    module.update_full_grads(iterator(SOFTMAX, data, 4))
    assert [record.passes for record in module.history] == [1.0, 2.0]


def test_a_writer_that_raises_is_left_out(caplog):
    class Writer:
        def add_scalar(self, name, value, step):
            raise OSError("no space left")

    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4))
    module.add_writer(Writer())
    for _ in range(2):
        module.update_full_grads(iterator(SOFTMAX, data, 4))
    assert sum("no space left" in message for message in caplog.messages) == 1
    assert len(module.history) == 2


def test_axes_must_be_two():
    from matplotlib.figure import Figure

    with pytest.raises(ValueError, match="must be two Axes"):
        histories.plot([histories.Record(passes=1, seconds=1, gradient_norm=1, bound=None)], Figure().add_subplot())


def test_a_rescale_grad_of_zero_is_no_error_of_ours():
    data, weights = samples(SOFTMAX, 8)
    module = ready(SOFTMAX, weights, iterator(SOFTMAX, data, 4),
                   optimizer_params={"learning_rate": 1.0, "rescale_grad": 0.0, "wd": 0.5})  # fmt: skip
    module.update_full_grads(iterator(SOFTMAX, data, 4))
    assert len(module.history) == 1


# --------------------------------------------------------------------------------- the certificate, on many problems

FAMILIES = ["correlated", "independent", "heavy entries", "heavy rows", "scales", "binary", "not centred", "low rank",
            "lognormal", "two clusters"]  # fmt: skip


@pytest.fixture(scope="module")
def families():
    """The benchmark's problems, with their exact minima."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    try:
        yield importlib.import_module("benchmarks.families")
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize("dtype, tol", [("float64", 1e-7), ("float32", 1e-3)])
@pytest.mark.parametrize("loss", ["squared", "logistic", "softmax"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gap_is_within_the_bound_at_every_snapshot(family, loss, dtype, tol, families):
    """Of convex problems, when `fit` has stopped, and before."""
    problem, gaps = families.make(family, loss, 10, n=300, d=8), []
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=problem.shape[0], no_bias=True, name="fc")
    layer = {"squared": mx.sym.LinearRegressionOutput, "logistic": mx.sym.LogisticRegressionOutput,
             "softmax": mx.sym.SoftmaxOutput}[loss]  # fmt: skip
    module = SVRGModule(layer(scores, mx.sym.Variable("softmax_label")), update_freq=2)
    module._snapshot.listeners.append(
        lambda old, new: gaps.append(problem.objective(new.weights["fc_weight"].asnumpy()) - problem.minimum)
    )
    y = problem.y if loss == "softmax" else problem.y[:, None]
    train = mx.io.NDArrayIter(nd(problem.x, dtype), nd(y, dtype), 37)
    module.fit(train, num_epoch=200, tol=tol, eval_metric=mx.metric.Loss(), initializer=mx.init.Zero(),
               optimizer_params={"learning_rate": "auto", "wd": problem.decay})  # fmt: skip
    assert module.converged
    first = module.history[0].gradient_norm
    assert [record.gradient_norm <= tol * first for record in module.history] == [False] * (len(gaps) - 1) + [True]
    # A gap of roundings of the objective can't be told from 0; neither can a gradient of float32 from its roundings.
    rounding = {"float64": 1e-14, "float32": 1e-6}[dtype] * problem.minimum
    assert len(module.history) == len(gaps)
    assert all(gap <= record.bound * 1.001 + rounding for gap, record in zip(gaps, module.history))
    weights = module.get_params()[0]["fc_weight"].asnumpy()
    assert problem.objective(weights) - problem.minimum == gaps[-1]
