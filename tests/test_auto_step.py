"""Steps that choose themselves, against auto_step_oracle.py."""

import auto_step_oracle
import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, nd, ready, samples, sharer_of, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule
from svrg_optimization.step_sizes import AutoStep, BarzilaiBorwein
from svrg_optimization.svrg import auto_step
from svrg_optimization.svrg.step_rule import Place, is_worse

WD = 0.125


def problem_of(name, n=24):
    """A problem, data, and start weights."""
    problem = next(each for each in oracle.PROBLEMS if each.name == name)
    return problem, *samples(problem, n)


@pytest.mark.parametrize("probe", [1e-4, 30.0], ids=["", "from far"])
@pytest.mark.parametrize("kvstore, devices", [(None, 1), ("local", 2), ("device", 2), ("not on the store", 2)])
@pytest.mark.parametrize("momentum", [None, 0.875], ids=["", "momentum"])
@pytest.mark.parametrize("name", ["linear", "logistic", "softmax", "two-layer"])
def test_every_step_is_the_oracles(name, momentum, kvstore, devices, probe, monkeypatch):
    monkeypatch.setattr(auto_step, "_PROBE", probe)
    monkeypatch.setattr(auto_step_oracle, "PROBE", probe)
    if kvstore == "not on the store":
        monkeypatch.setenv("MXNET_UPDATE_ON_KVSTORE", "0")
        kvstore = "local"
    problem, data, weights = problem_of(name)
    train = iterator(problem, data, 4)
    given = {} if momentum is None else {"momentum": momentum}
    module = ready(problem, weights, train, devices=devices, kvstore=kvstore, update_freq=2,
                   optimizer_params={"learning_rate": "auto", "wd": WD, **given})  # fmt: skip
    expected = auto_step_oracle.svrg(
        problem, weights, [data], batch_size=4, epochs=12, update_freq=2, wd=WD, momentum=momentum
    )
    went_back = False
    for actual, (wanted, rate, beta, back) in zip(train_steps(module, train, 12), expected):
        assert_same(actual, wanted, rtol=1e-9, atol=1e-12)
        optimizer = module._users_optimizer()
        np.testing.assert_allclose([optimizer.learning_rate, optimizer.momentum], [rate, beta], rtol=1e-9)
        went_back |= back
    assert went_back == (probe > 1 and momentum is not None and name != "softmax")


def fit(module, data, problem, epochs, dtype=np.float64, weights=None, **params):
    """Train from zero, or from these weights."""
    start = weights or {name: np.zeros(shape) for name, shape in problem.shapes.items()}
    module.fit(iterator(problem, data, 4, dtype), num_epoch=epochs, aux_params={},
               arg_params={name: nd(value, dtype) for name, value in start.items()}, **params)  # fmt: skip


def gradient_norm(problem, module, data, wd=0.0, l1=0.0):
    """The norm of the objective's gradient, or of its prox-gradient residual, at a module's weights."""
    weights = weights_of(module)
    mu, total = oracle.full_gradient(problem, weights, data), 0.0
    for name, w in weights.items():
        of_weight = name.endswith("_weight")
        gradient = mu[name] + wd * of_weight * w
        z = w - gradient
        total += np.sum((w - np.sign(z) * np.maximum(np.abs(z) - l1 * of_weight, 0)) ** 2)
    return np.sqrt(total)


@pytest.mark.parametrize("momentum, dtype, wanted", [
    ({}, np.float64, 1e-9), ({}, np.float32, 1e-5), ({"momentum": 0.9}, np.float64, 1e-8),
    ({"momentum": 0.0}, np.float64, 1e-5),
])  # fmt: skip
@pytest.mark.parametrize("name, optimizer, l1", [
    *((name, *each) for name in ("linear", "logistic", "softmax") for each in (("sgd", 0.0), ("proximalsgd", 0.0625))),
    # These are treated alike whatever the loss is.
    ("softmax", "nag", 0.0), ("softmax", "proximalsgd", 0.0),
])  # fmt: skip
def test_it_finds_the_minimum(name, optimizer, l1, momentum, dtype, wanted):
    problem, data, _ = problem_of(name)
    module = SVRGModule(symbol(problem), update_freq=1)
    penalty = {"l1": l1} if l1 else {}
    fit(module, data, problem, 120 if momentum else 50, dtype, optimizer=optimizer, eval_metric="mse",
        optimizer_params={"learning_rate": "auto", "wd": 2.0**-6, **penalty, **momentum})  # fmt: skip
    outputs = module.output_shapes[0][1][1] if name == "linear" else 1
    assert gradient_norm(problem, module, data, 2.0**-6, l1) < wanted * outputs
    if l1:
        assert (weights_of(module)["fc_weight"] == 0).any()


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("params", [{}, {"momentum": 0.875}, {"l1": 0.0625}], ids=str)
@pytest.mark.parametrize("where", ["step", "snapshot"])
@pytest.mark.parametrize("cut", [1, 8, 12, 17, 24, 30, 33])
def test_training_goes_on_from_the_middle_of_an_epoch_bit_for_bit(cut, where, params, devices, tmp_path):
    """Saved after so many steps, or after the snapshot that comes then."""
    problem, data, weights = problem_of("two-layer")
    given = dict(optimizer="proximalsgd" if "l1" in params else "sgd",
                 optimizer_params={"learning_rate": "auto", "wd": WD, **params})  # fmt: skip
    if where == "snapshot":
        cut -= cut % 12
    prefix = str(tmp_path / "model")

    def steps(module, begin, save):
        train = iterator(problem, data, 2)
        batches = list(train)
        for step in range(begin, 40):
            if step % 12 == 0 and (step > begin or where == "step" or save):
                module.update_full_grads(train)
                if save and where == "snapshot" and step == cut:
                    module.save_checkpoint(prefix, 1, True)
            module.forward_backward(batches[step % 12])
            module.update()
            if save and where == "step" and step + 1 == cut:
                module.save_checkpoint(prefix, 1, True)
            yield step, weights_of(module)

    train = iterator(problem, data, 2)
    whole = ready(problem, weights, train, devices=devices, **given)
    expected = [after for _, after in steps(whole, 0, save=True)]
    resumed = SVRGModule.load(prefix, 1, True, context=[mx.cpu(k) for k in range(devices)])
    resumed.bind(train.provide_data, train.provide_label)
    resumed.init_optimizer(**given)
    for step, after in steps(resumed, cut, save=False):
        assert_same(after, expected[step])


def test_what_is_being_measured_is_saved(tmp_path):
    """A secant that is known only after the checkpoint: here the largest of its period."""
    problem, data, weights = problem_of("softmax", 40)
    train = iterator(problem, data, 2)
    whole = ready(problem, weights, train, optimizer_params={"learning_rate": "auto"})
    for _ in train_steps(whole, train, 3):
        pass
    train.reset()
    for batch in list(train)[:5]:
        whole.forward_backward(batch)
        whole.update()
    # So that it counts.
    whole._steps._rule._smoothness, whole._steps._rule._seen = whole._steps._rule._smoothness / 100, 0.0
    whole.save_checkpoint(str(tmp_path / "model"), 1, True)
    resumed = SVRGModule.load(str(tmp_path / "model"), 1, True)
    resumed.bind(train.provide_data, train.provide_label)
    resumed.init_optimizer(optimizer_params={"learning_rate": "auto"})
    rates = []
    for module in (whole, resumed):
        train.reset()
        for batch in list(train)[5:14]:
            module.forward_backward(batch)
            module.update()
        rates.append(module._users_optimizer().learning_rate)
    assert rates[0] == rates[1]


def test_a_checkpoint_of_a_constant_step_goes_on_with_auto(tmp_path):
    problem, data, weights = problem_of("softmax")
    module = SVRGModule(symbol(problem), update_freq=2)
    fit(module, data, problem, 3, optimizer_params={"learning_rate": 0.25, "momentum": 0.5, "wd": WD})
    module.save_checkpoint(str(tmp_path / "model"), 3, True)
    resumed = SVRGModule.load(str(tmp_path / "model"), 3, True)
    resumed.fit(iterator(problem, data, 4), begin_epoch=3, num_epoch=60,
                optimizer_params={"learning_rate": "auto", "wd": WD})  # fmt: skip
    assert gradient_norm(problem, resumed, data, WD) < 1e-9


def test_a_rate_of_its_own_is_another_coordinate_system():
    """Features times 4 with a rate of a sixteenth are the same problem; a rate of 0 leaves a parameter out."""
    problem, data, weights = problem_of("logistic")
    params, found = {"learning_rate": "auto"}, []
    for factor in (1.0, 4.0):
        scaled = [(x * factor, y) for x, y in data]
        start = {"fc_weight": weights["fc_weight"] / factor, "fc_bias": weights["fc_bias"]}
        train = iterator(problem, scaled, 4)
        module = ready(problem, start, train, optimizer_params=params)
        module._users_optimizer().set_lr_mult({"fc_weight": factor**-2, "fc_bias": 0.0})
        *_, last = train_steps(module, train, 8)
        found.append(last["fc_weight"] * factor)
        np.testing.assert_array_equal(last["fc_bias"], weights["fc_bias"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)


@pytest.mark.parametrize("rescale", [1.0, 1 / 256])
def test_it_does_not_depend_on_rescale_grad(rescale):
    problem, data, weights = problem_of("softmax")
    train = iterator(problem, data, 4)
    one, other = (
        list(train_steps(ready(problem, weights, train, optimizer_params={"learning_rate": "auto", **given}), train, 6))
        for given in ({"wd": WD}, {"wd": WD * 4 * rescale, "rescale_grad": rescale})
    )
    for actual, wanted in zip(other, one):
        assert_same(actual, wanted, rtol=1e-6, atol=1e-9)


# --------------------------------------------------------------------------------------------------- NaN and the like


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("when", ["step", "epoch", "snapshot"])
def test_weights_that_are_not_finite_go_back_to_the_snapshot(when, devices, caplog):
    problem, data, _ = problem_of("softmax")
    module, seen = SVRGModule(symbol(problem), update_freq=1, context=[mx.cpu(k) for k in range(devices)]), []
    caplog.set_level("INFO")

    def spoil(param):
        last = {"step": 0, "epoch": 4, "snapshot": 4}[when]
        if param.epoch == 3 and param.nbatch == last and when != "snapshot":
            module._set_weights({name: array * np.nan for name, array in module.get_params()[0].items()}, {}, False)

    def spoil_data(param):
        if when == "snapshot" and param.epoch == 3 and param.nbatch == 2 and not seen.count("spoiled"):
            seen.append("spoiled")
            for on_devices in module._way.aux._exec_group.grad_arrays:
                on_devices[0][:] = np.nan

    fit(module, data, problem, 60, batch_end_callback=spoil, full_grads_batch_end_callback=spoil_data,
        optimizer_params={"learning_rate": "auto", "wd": WD},
        epoch_end_callback=lambda epoch, _, params, aux: seen.append(
            all(np.isfinite(array.asnumpy()).all() for array in params.values())))  # fmt: skip
    assert all(seen)
    assert gradient_norm(problem, module, data, WD) < 1e-9
    if when != "snapshot":
        assert any("Training became worse: back at the last snapshot" in message for message in caplog.messages)


def test_a_snapshot_that_is_worse_is_not_taken(monkeypatch, caplog):
    problem, data, weights = problem_of("linear")
    caplog.set_level("INFO")
    monkeypatch.setattr(auto_step, "_PROBE", 1e6)
    train = iterator(problem, data, 4)
    module = ready(problem, weights, train, optimizer_params={"learning_rate": "auto", "wd": WD})
    module.update_full_grads(train, epoch=0)
    mu = {name: array.asnumpy() for name, array in module.full_gradient.items()}
    for batch in list(train)[:1]:
        module.forward_backward(batch)
        module.update()
    module.update_full_grads(train, epoch=1)
    assert_same(weights_of(module), weights)
    assert_same({name: array.asnumpy() for name, array in module.full_gradient.items()}, mu)
    assert [record.epoch for record in module.history] == [0]
    assert any(message.startswith("Epoch[1] Training became worse: back at the last") for message in caplog.messages)


# ---------------------------------------------------------------------------------------------------- Barzilai-Borwein


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_barzilai_borwein_is_the_papers_formula(momentum):
    problem, data, weights = problem_of("logistic")
    train = iterator(problem, data, 4)
    module = ready(problem, weights, train, optimizer_params={
        "momentum": momentum, "wd": WD, "lr_scheduler": BarzilaiBorwein(0.25)})  # fmt: skip
    rates, places = [], []

    def note(old, new):
        if not places:
            places.append({name: array.asnumpy() for name, array in new.weights.items()})
            return
        places.append({name: array.asnumpy() for name, array in new.weights.items()})

    module._snapshot.listeners.append(note)
    for step, _ in enumerate(train_steps(module, train, 8)):
        if step % 12 == 0:
            rates.append(module._users_optimizer().learning_rate)

    def gradient(w):
        mu = oracle.full_gradient(problem, w, data)
        return np.append(mu["fc_weight"] + WD * w["fc_weight"], mu["fc_bias"])

    assert rates[0] == 0.25
    for k, rate in enumerate(rates[1:]):
        s = np.append(places[k + 1]["fc_weight"], places[k + 1]["fc_bias"]) - np.append(
            places[k]["fc_weight"], places[k]["fc_bias"])  # fmt: skip
        y = gradient(places[k + 1]) - gradient(places[k])
        assert rate == pytest.approx((1 - momentum) / 12 * (s @ s) / (s @ y), rel=1e-9)


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("make, message", [
    (lambda: dict(optimizer="adam"), "learning_rate='auto': the optimizer adam has no step of the form .* 'sgd'"),
    (lambda: dict(optimizer="adam", optimizer_params={"lr_scheduler": AutoStep()}), r"lr_scheduler=AutoStep\(\): "),
    (lambda: dict(optimizer=mx.optimizer.Adam(lr_scheduler=AutoStep()), optimizer_params={}), "optimizer Adam has no"),
    (lambda: dict(optimizer_params={"learning_rate": "fast"}), "learning_rate='fast' must be a number, or 'auto'"),
    (lambda: dict(optimizer_params={"learning_rate": "auto", "lr_scheduler": AutoStep()}), "leave one of them out"),
    (lambda: dict(optimizer=mx.optimizer.SGD(), optimizer_params={"learning_rate": "auto"}), "make it with lr_sch"),
    (lambda: dict(kvstore=None), r"AutoStep\(\) with kvstore=None: each device has weights of its own"),
])  # fmt: skip
def test_what_cannot_be_chosen_for(make, message):
    problem, data, weights = problem_of("softmax")
    given = {"optimizer_params": {"learning_rate": "auto"}, "kvstore": "local", "optimizer": "sgd", **make()}
    with pytest.raises(ValueError, match=message):
        ready(problem, weights, iterator(problem, data, 4), devices=2, **given)


def test_float16_is_refused():
    problem, data, weights = problem_of("softmax")
    with pytest.raises(ValueError, match="the parameter 'fc_weight' is float16, .* float32 and float64 only"):
        ready(problem, weights, iterator(problem, data, 4, np.float16), dtype=np.float16,
              optimizer_params={"learning_rate": "auto"})  # fmt: skip


@pytest.mark.parametrize("make, message", [
    (lambda: AutoStep(pairs=True), "pairs=True must be an integer of at least 0"),
    (lambda: AutoStep(pairs=2.5), "pairs=2.5 must be an integer"),
    (lambda: BarzilaiBorwein(base_lr=0), "base_lr=0 must be a positive number"),
    (lambda: BarzilaiBorwein(base_lr="auto"), "base_lr='auto' must be a positive number"),
])  # fmt: skip
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_update_before_a_snapshot_says_what_is_missing():
    problem, data, weights = problem_of("softmax")
    train = iterator(problem, data, 4)
    module = ready(problem, weights, train, optimizer_params={"learning_rate": "auto"})
    module.forward_backward(next(train))
    with pytest.raises(RuntimeError, match="update_full_grads"):
        module.update()


def test_it_is_one_schedule_for_those_who_borrow():
    problem, data, weights = problem_of("softmax")
    train = iterator(problem, data, 4)
    owner = ready(problem, weights, train, optimizer_params={"learning_rate": "auto", "wd": WD})
    sharer = sharer_of(owner, problem, train)
    sharer.borrow_optimizer(owner)
    alone = ready(problem, weights, train, optimizer_params={"learning_rate": "auto", "wd": WD})
    for actual, wanted in zip(train_steps(sharer, train, 6), train_steps(alone, iterator(problem, data, 4), 6)):
        assert_same(actual, wanted)


# ------------------------------------------------------------------------------------------------ found by fresh eyes


def least_squares(n=80, d=4, seed=0, scale=1.0):
    """Data, and a function of the weights: the norm of the objective's gradient, with the decay given."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, scale * (x @ rng.normal(size=(d, 1)) + 0.3 * rng.normal(size=(n, 1)))


def linear(loss=None):
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, no_bias=True, name="fc")
    return mx.sym.LinearRegressionOutput(scores, mx.sym.Variable("softmax_label")) if loss is None else loss(scores)


def fit_least_squares(
    module, x, y, epochs, batch_size=8, dtype=np.float64, start=0.0, optimizer="sgd", params=(), **kw
):
    weights = {"fc_weight": nd(np.full((1, x.shape[1]), start), dtype)}
    module.fit(mx.io.NDArrayIter(nd(x, dtype), nd(y, dtype), batch_size), num_epoch=epochs, eval_metric="mse",
               arg_params=weights, aux_params={}, optimizer=optimizer,
               optimizer_params={"learning_rate": "auto", **dict(params)}, **kw)  # fmt: skip
    return module.get_params()[0]["fc_weight"].asnumpy().ravel().astype(float)


def gap(w, x, y, wd=0.0):
    """The norm of the gradient of least squares with decay."""
    return np.linalg.norm(x.T @ (x @ w - y.ravel()) / len(x) + wd * w)


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_other_data_are_learned_anew(seed, scale):
    """In the middle of a training, whose last snapshot says nothing about other data."""
    module, (x, y) = SVRGModule(linear(), update_freq=1), least_squares(seed=seed)
    fit_least_squares(module, x, y, 5, params={"wd": 0.01})
    x, y = least_squares(seed=seed + 10, scale=scale)
    w = fit_least_squares(module, x, y, 20, params={"wd": 0.01})
    assert gap(w, x, y, 0.01) < 1e-9 * scale


def test_weights_that_the_user_sets_are_kept():
    x, y = least_squares()
    module, far = SVRGModule(linear(), update_freq=1), np.array([[50.0, -30.0, 20.0, 10.0]])
    train = mx.io.NDArrayIter(nd(x), nd(y), 8)
    fit_least_squares(module, x, y, 15)
    module.set_params({"fc_weight": nd(far)}, {})
    module.update_full_grads(train)
    np.testing.assert_array_equal(module.get_params()[0]["fc_weight"].asnumpy(), far)
    module.set_params({"fc_weight": nd(far + 1)}, {})
    module.forward_backward(next(train))
    np.testing.assert_array_equal(module.get_params()[0]["fc_weight"].asnumpy(), far + 1)
    seen = []
    fit_least_squares(module, x, y, 1, start=7.0, force_init=True, batch_end_callback=lambda param: seen.append(
        module.get_params()[0]["fc_weight"].asnumpy()))  # fmt: skip
    np.testing.assert_allclose(seen[0], 7.0, atol=1)
    assert gap(fit_least_squares(module, x, y, 25), x, y) < 1e-9


@pytest.mark.parametrize("batch_size", [60, 20])
@pytest.mark.parametrize("params", [
    {"l1": 0.1}, {"l1": 0.1, "momentum": 0.9}, {"l1": 0.05, "nonnegative": True, "momentum": 0.5},
    {"l1": 0.1, "group": "columns", "momentum": 0.9},
], ids=str)  # fmt: skip
def test_a_regularizer_that_is_not_smooth(params, batch_size):
    """In the middle of the path of the Lasso, where the Newton step must leave zeros alone."""
    rng = np.random.default_rng(9019)
    x = rng.normal(size=(60, 20)) @ (np.eye(20) + 0.3 * rng.normal(size=(20, 20)))
    y = x[:, :3].sum(1, keepdims=True) + 0.2 * rng.normal(size=(60, 1))
    module = SVRGModule(linear(), update_freq=1)
    w = fit_least_squares(module, x, y, 150, batch_size, optimizer="proximalsgd", params=params)
    z = w - x.T @ (x @ w - y.ravel()) / len(x)
    wanted = np.sign(z) * np.maximum(np.abs(z) - params["l1"], 0)
    wanted = np.maximum(wanted, 0) if params.get("nonnegative") else wanted
    np.testing.assert_allclose(w, wanted, atol=1e-7)
    assert (w == 0).any()


def test_a_regularizer_counts_in_what_is_worse():
    old, new = (Place(w, np.array([0.0]), np.array([r]), penalty=p) for w, r, p in (
        (np.array([1.0]), 1.0, 0.0), (np.array([2.0]), 3.0, 0.5)))  # fmt: skip
    assert is_worse(old, new, -9.0)
    assert not is_worse(old, new._replace(penalty=-0.5), -9.0)


def test_a_snapshot_without_steps_changes_nothing():
    problem, data, weights = problem_of("softmax")

    def steps(times):
        train = iterator(problem, data, 4)
        module = ready(problem, weights, train, optimizer_params={"learning_rate": "auto", "wd": WD})
        for _ in range(6):
            for _ in range(times):
                module.update_full_grads(train)
            for batch in train:
                module.forward_backward(batch)
                module.update()
                yield weights_of(module)
            train.reset()

    for actual, wanted in zip(steps(3), steps(1)):
        assert_same(actual, wanted)


def test_what_was_seen_far_out_does_not_stop_training():
    """The gradients of an exponential loss grow to 1e85 where the first steps go."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 3)) * 2
    counts = rng.poisson(np.exp(np.clip(x @ [0.5, -0.3, 0.8], None, 4)))[:, None].astype(float)

    def loss(scores):
        label = mx.sym.Variable("softmax_label")
        return mx.sym.MakeLoss(mx.sym.exp(scores) - label * scores)

    def objective(w):
        z = x @ w
        return np.mean(np.exp(z) - counts.ravel() * z)

    module = SVRGModule(linear(loss), update_freq=1)
    start = {"fc_weight": nd([[2.0, -2.0, 2.0]])}
    module.fit(mx.io.NDArrayIter(nd(x), nd(counts), 8), num_epoch=200, eval_metric=mx.metric.Loss(),
               arg_params=start, aux_params={}, optimizer_params={"learning_rate": "auto"})  # fmt: skip
    w = module.get_params()[0]["fc_weight"].asnumpy().ravel()
    # A smoothness of 1e12, which is true at the start, is forgotten by a tenth a snapshot.
    assert objective(w) < 1e-4 * objective(np.array([2.0, -2.0, 2.0]))


def test_nan_in_other_data_is_an_error_and_no_divergence():
    x, y = least_squares()
    module = SVRGModule(linear(), update_freq=1)
    fit_least_squares(module, x, y, 10)
    x[11, 2] = np.nan
    with pytest.raises(FloatingPointError, match="look for NaN in the data"):
        fit_least_squares(module, x, y, 10)


def test_parameters_may_be_frozen_and_set_free():
    problem, data, weights = problem_of("linear")
    module = SVRGModule(symbol(problem), update_freq=1)
    for multiplier, epochs in ((1.0, 5), (0.0, 5), (0.01, 5), (1.0, 60)):
        if module.optimizer_initialized:
            module._users_optimizer().set_lr_mult({"fc_bias": multiplier})
        fit(module, data, problem, epochs, optimizer_params={"learning_rate": "auto", "wd": WD}, eval_metric="mse")
    assert gradient_norm(problem, module, data, WD) < 1e-9


@pytest.mark.parametrize("dtype, far", [(np.float32, 1e5), (np.float64, 1e12)])
def test_the_first_step_is_no_rounding(dtype, far):
    x, y = least_squares()
    w = fit_least_squares(SVRGModule(linear(), update_freq=1), x, y, 60, dtype=dtype, start=far)
    assert gap(w, x, y) < 1e-4


def test_one_schedule_or_optimizer_for_several_modules():
    x, y = least_squares()
    schedule = AutoStep()
    optimizer = mx.optimizer.SGD(lr_scheduler=schedule, rescale_grad=1 / 8)
    alone = fit_least_squares(SVRGModule(linear(), update_freq=1), x, y, 6)
    for _ in range(2):
        module = SVRGModule(linear(), update_freq=1)
        assert np.array_equal(
            fit_least_squares(module, x, y, 6, optimizer=optimizer, params={"learning_rate": 0.1}), alone
        )
    by_name = {"lr_scheduler": schedule, "learning_rate": None}
    modules = [SVRGModule(linear(), update_freq=1) for _ in range(2)]
    for scale, module in zip((1.0, 30.0), modules):
        fit_least_squares(module, x * scale, y, 6, params=by_name)
    assert modules[0]._users_optimizer().learning_rate > 100 * modules[1]._users_optimizer().learning_rate
    first = BarzilaiBorwein(0.01)
    for _ in range(2):
        module = SVRGModule(linear(), update_freq=1)
        fit_least_squares(module, x, y, 3, params={"lr_scheduler": first, "learning_rate": None})
        assert module.history[0].learning_rate == 0.01


def test_a_schedule_that_the_user_takes_away_is_gone():
    problem, data, weights = problem_of("softmax")
    train = iterator(problem, data, 4)
    module = ready(problem, weights, train, optimizer_params={"learning_rate": "auto"})
    for _ in train_steps(module, train, 3):
        pass
    optimizer = module._users_optimizer()
    optimizer.lr_scheduler, optimizer.lr, optimizer.momentum = None, 0.25, 0.5
    for _ in train_steps(module, train, 6, begin_epoch=4):
        pass
    assert (optimizer.learning_rate, optimizer.momentum) == (0.25, 0.5)


def test_at_rest_it_is_silent(caplog):
    caplog.set_level("INFO")
    x, y = least_squares()
    module = SVRGModule(linear(), update_freq=1)
    fit_least_squares(module, x, y, 150, params={"wd": 0.01})
    assert not any("Training became worse" in message for message in caplog.messages)
    assert len(module.history) == 150


@pytest.mark.parametrize("make, message", [
    (lambda: dict(optimizer_params={"lr_scheduler": AutoStep}), r"lr_scheduler=AutoStep is the class; make one"),
    (lambda: dict(optimizer=mx.optimizer.SGD(learning_rate="auto"), optimizer_params={}), "that is an instance"),
    (lambda: dict(optimizer_params={"learning_rate": "auto", "momentum": 1.0}), "momentum=1.0 must be at least 0"),
    (lambda: dict(optimizer_params={"learning_rate": "auto", "momentum": "auto"}), "momentum='auto' must be at least"),
    (lambda: dict(optimizer_params={"learning_rate": 0.1, "lr_scheduler": AutoStep()}), "learning_rate=0.1 with lr_"),
])  # fmt: skip
def test_what_cannot_be_meant(make, message):
    problem, data, weights = problem_of("softmax")
    with pytest.raises(ValueError, match=message):
        ready(problem, weights, iterator(problem, data, 4), **make())


def test_a_plain_module_cannot_use_it():
    problem, data, weights = problem_of("softmax")
    train = iterator(problem, data, 4)
    module = ready(problem, weights, train, module=mx.mod.Module, optimizer_params={"lr_scheduler": AutoStep()})
    module.forward_backward(next(train))
    with pytest.raises(RuntimeError, match="A plain Module can't use it"):
        module.update()


@pytest.mark.parametrize("scale", [5.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_saturated_loss_does_not_run_away(seed, scale):
    """Its gradient is bounded, and so nearly linear far out that its secants are tiny."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(110, 20))
    y = (x @ rng.normal(size=(20, 3)) + 2 * rng.normal(size=(110, 3))).argmax(1).astype(float)
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3, no_bias=True, name="fc")
    module = SVRGModule(mx.sym.SoftmaxOutput(scores, mx.sym.Variable("softmax_label")), update_freq=1)
    start = scale * np.random.default_rng(0).normal(size=(3, 20))

    def objective(w):
        z = x @ w.T
        return np.mean(np.logaddexp.reduce(z, axis=1) - z[np.arange(110), y.astype(int)])

    module.fit(mx.io.NDArrayIter(nd(x), nd(y), 4), num_epoch=120, eval_metric="acc", aux_params={},
               arg_params={"fc_weight": nd(start)}, optimizer_params={"learning_rate": "auto"})  # fmt: skip
    assert objective(module.get_params()[0]["fc_weight"].asnumpy()) < min(objective(start), np.log(3))


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_barzilai_borwein_does_not_run_away(scale):
    rng = np.random.default_rng(0)
    x = scale * rng.normal(size=(160, 6)) * [1, 2, 0.5, 1, 1, 0.2]
    y = x @ rng.normal(size=(6, 1)) + 0.3 * rng.normal(size=(160, 1))
    module = SVRGModule(linear(), update_freq=1)
    w = fit_least_squares(module, x, y, 150, params={"learning_rate": None, "lr_scheduler": BarzilaiBorwein(0.1)})
    assert 0.5 * np.mean((x @ w - y.ravel()) ** 2) < 0.5 * np.mean(y**2)


def test_weights_that_are_changed_in_place_are_kept():
    x, y = least_squares()
    module = SVRGModule(linear(), update_freq=1)
    fit_least_squares(module, x, y, 15)
    weights, auxiliary = module.get_params()
    weights["fc_weight"][:] = 50
    module.set_params(weights, auxiliary)
    module.update_full_grads(mx.io.NDArrayIter(nd(x), nd(y), 8))
    assert (module.get_params()[0]["fc_weight"].asnumpy() == 50).all()


def test_a_start_that_is_not_allowed_is_no_measure_for_tol():
    """Negative weights with `nonnegative`: divided by a short first step they are as large as one likes."""
    from scipy.optimize import nnls

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 10))
    y = x @ abs(rng.normal(size=(10, 1))) + 0.5 * rng.normal(size=(80, 1))
    module = SVRGModule(linear(), update_freq=1)
    w = fit_least_squares(module, x, y, 200, start=-30.0, optimizer="proximalsgd", tol=1e-9,
                          params={"nonnegative": True})  # fmt: skip
    assert module.converged
    np.testing.assert_allclose(w, nnls(x, y.ravel())[0], atol=1e-6)
