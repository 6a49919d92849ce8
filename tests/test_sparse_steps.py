"""Steps on rows, lazy, reweighted and dense, against a dense NumPy version."""

import itertools

import mxnet as mx
import numpy as np
import pytest
import sparse_oracle
from models import assert_same, nd, weights_of
from sparse_models import Batches, csr, ready, set_weights, symbol, training
from sparse_oracle import NETS, Settings, Svrg, adagrad, adam, ftrl, nag, rmsprop, sgd

from svrg_optimization import SVRGModule, VarianceMonitor
from svrg_optimization.coefficients import Coefficient, Linear, PerLayer
from svrg_optimization.schedules import EverySteps
from svrg_optimization.svrg import skipped_steps

EXACT = dict(rtol=1e-12, atol=1e-13)
TOLERANCE = {"float64": EXACT, "float32": dict(rtol=1e-5, atol=2e-6)}
MODES = ["lazy", "reweighted", "dense"]
DECAY = 0.0625
# name -> (mxnet's optimizer, its arguments, the oracle's). Numbers are powers of two: mxnet rounds them to float32.
OPTIMIZERS = {
    "plain": ("sgd", {}, lambda: Settings()),
    "wd": ("sgd", {"wd": DECAY}, lambda: Settings(decay=DECAY)),
    "momentum": ("sgd", {"momentum": 0.5}, lambda: Settings(sgd(0.5))),
    "both": ("sgd", {"momentum": 0.5, "wd": DECAY}, lambda: Settings(sgd(0.5), decay=DECAY)),
    # With weight decay, nag_mom_update decays weights that it has moved already.
    "nag": ("nag", {"momentum": 0.5}, lambda: Settings(nag(0.5))),
    "adam": ("adam", {"beta1": 0.5, "beta2": 0.75, "epsilon": 2.0**-10, "wd": DECAY},
             lambda: Settings(adam(), decay=DECAY)),
    "rmsprop": ("rmsprop", {"gamma1": 0.5, "epsilon": 2.0**-10, "wd": DECAY}, lambda: Settings(rmsprop(), decay=DECAY)),
    "adagrad": ("adagrad", {"eps": 2.0**-10}, lambda: Settings(adagrad())),
    "ftrl": ("ftrl", {"lamda1": 0.0625, "beta": 1.0}, lambda: Settings(ftrl())),
}  # fmt: skip
# One device without a store, two that nothing adds up, and stores that add up.
PLACES = {
    "1": (1, "None"), "1 local": (1, "local"), "2": (2, "None"), "2 local": (2, "local"), "2 device": (2, "device"),
}  # fmt: skip


def pair(net, n=22, *, mode="lazy", place="1", optimizer="plain", settings=None, size=8, last="pad",
         dtype=np.float64, **kwargs):  # fmt: skip
    """A module, its batches and the oracle, at the same weights."""
    net = NETS[net]
    x, y, weights = net.samples(n)
    devices, store = PLACES[place]
    kind, params, of_oracle = OPTIMIZERS[optimizer]
    params = {**params, **kwargs.pop("params", {})}
    train = Batches(net, x, y, size, last, dtype)
    module = ready(
        net, weights, train, sparse=mode, devices=devices, kvstore=store, optimizer=kind, params=params, dtype=dtype,
        **kwargs,
    )  # fmt: skip
    oracle = Svrg(
        net, weights, x, y, mode=mode, settings=settings or of_oracle(), size=size, last=last, devices=devices,
        together=store != "None",
    )  # fmt: skip
    return module, train, oracle


def assert_steps_agree(module, train, oracle, epochs=5, alpha=lambda epoch: 1.0):
    """The weights agree after all steps; nobody reads them sooner."""
    for _ in training(module, train, epochs):
        pass
    *_, expected = oracle.run(epochs, module.update_freq, alpha)
    assert module._sparse_mode == oracle.mode
    found = weights_of(module)
    exact = TOLERANCE[found[next(iter(found))].dtype.name]
    assert_same(found, expected, **exact)


# ------------------------------------------------------------------------------------------- steps are the oracle's


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", NETS)
def test_every_network_on_every_device(net, mode, place):
    assert_steps_agree(*pair(net, mode=mode, place=place, optimizer="both"), epochs=3)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["plain", "wd", "momentum"])
@pytest.mark.parametrize("mode", MODES)
def test_sgd(mode, optimizer, place):
    assert_steps_agree(*pair("logistic", mode=mode, place=place, optimizer=optimizer))


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer, dtype", [
    ("nag", np.float64), ("adam", np.float64),
    # mxnet makes float32 states for these.
    ("rmsprop", np.float32), ("adagrad", np.float32), ("ftrl", np.float32),
])  # fmt: skip
@pytest.mark.parametrize("net", ["softmax", "embedding"])
def test_reweighted_steps_of_other_optimizers(net, optimizer, dtype, place):
    assert_steps_agree(*pair(net, mode="reweighted", place=place, optimizer=optimizer, dtype=dtype))


@pytest.mark.parametrize("reads", [True, False], ids=["read after each step", "read at the end"])
@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["plain", "both"])
@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_steps(mode, optimizer, place, reads):
    module, train, oracle = pair("logistic", 64, mode=mode, place=place, optimizer=optimizer, update_freq=5)
    for _, expected in zip(training(module, train, 25), oracle.run(25, 5)):
        if reads:
            assert_same(weights_of(module), expected, **EXACT)
    assert_same(weights_of(module), expected, **EXACT)


@pytest.mark.parametrize("optimizer", ["plain", "both"])
def test_more_steps_than_factors_are_kept_of(optimizer, monkeypatch):
    monkeypatch.setattr(skipped_steps, "MOST", 3)
    # With a store: without one, so small weights take dense steps.
    assert_steps_agree(*pair("logistic", 40, optimizer=optimizer, place="1 local"), epochs=4)


@pytest.mark.parametrize("net, mode, last", [
    # mxnet can't bind csr data of another shape, for dense steps.
    *itertools.product(["logistic", "shared"], MODES, ["pad"]), *itertools.product(["shared"], MODES, ["ragged"]),
    *itertools.product(["logistic"], MODES[:2], ["ragged"]),
])  # fmt: skip
@pytest.mark.parametrize("place", ["1", "2", "2 local"])
def test_the_last_batch(net, mode, place, last):
    assert_steps_agree(*pair(net, 13, mode=mode, place=place, optimizer="both", last=last))


class Alternating(mx.lr_scheduler.LRScheduler):
    """A rate that changes with each step."""

    def __call__(self, num_update):
        return 0.25 / 2 ** (num_update % 3)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("optimizer", ["plain", "both", "adam"])
@pytest.mark.parametrize("mode", MODES)
def test_rates_that_change_and_multipliers(mode, optimizer, place):
    mode = "reweighted" if optimizer == "adam" and mode == "lazy" else mode
    mult = {"x_weight": (0.5, 2.0), "v_weight": (2.0, 0.5), "bias": (0.25, 0.0)}
    settings = OPTIMIZERS[optimizer][2]()
    settings = Settings(settings.step, lambda t: 0.25 / 2 ** (t % 3), settings.decay, mult)
    assert_steps_agree(*pair(
        "machine", mode=mode, place=place, optimizer=optimizer, settings=settings,
        params={"lr_scheduler": Alternating()}, network=symbol(NETS["machine"], mult=mult),
    ), epochs=3)  # fmt: skip


class ByParameter(Coefficient):
    """A coefficient for each parameter, 1 for those that aren't named."""

    def at(self, clock):
        return {"v_weight": 0.25, "bias": 0.5}


@pytest.mark.parametrize("kind", ["number", "Linear", "by parameter"])
@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_coefficients(mode, place, kind):
    coefficient, alpha = {
        "number": (0.5, lambda epoch: 0.5),
        "Linear": (Linear(0.75, epochs=6), lambda epoch: 0.75 * (1 - epoch // 2 * 2 / 4)),
        "by parameter": (ByParameter(), lambda epoch: {"v_weight": 0.25, "bias": 0.5}),
    }[kind]
    assert_steps_agree(
        *pair("machine", mode=mode, place=place, optimizer="both", coefficient=coefficient), epochs=6, alpha=alpha
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("net", ["logistic", "shared"])
def test_batches_that_are_lists(net, mode):
    module, train, oracle = pair(net, mode=mode, place="2 local", optimizer="both")
    *_, expected = oracle.run(2)
    module.update_full_grads(train)
    for rows, _ in itertools.chain(oracle.batches, oracle.batches):
        # Parts that mxnet itself would not make, but all of one size.
        module.forward_backward([train.batch(rows[1::2]), train.batch(rows[::2])])
        module.update()
    assert_same(weights_of(module), expected, **EXACT)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_a_loss_outside_the_network(mode, place):
    net = NETS["logistic"]

    def heads(outputs, batch):
        parts = batch if isinstance(batch, list) else [batch]
        return [mx.nd.sigmoid(outputs[0]) - mx.nd.concat(*(part.label[0] for part in parts), dim=0)]

    _, train, oracle = pair("logistic", mode=mode, place=place, optimizer="both")
    module = SVRGModule(
        symbol(net, has_loss=False), context=[mx.cpu(k) for k in range(PLACES[place][0])], sparse=mode,
        label_names=None,
    )  # fmt: skip
    module.bind(train.provide_data)
    set_weights(module, oracle.weights)
    module.init_optimizer(
        kvstore=None if PLACES[place][1] == "None" else mx.kv.create("local"), optimizer="sgd",
        optimizer_params={"learning_rate": 0.25, **OPTIMIZERS["both"][1]},
    )  # fmt: skip
    for epoch, expected in enumerate(oracle.run(2)):
        if epoch == 0:
            module.update_full_grads(train, out_grads=heads)
        rows, pad = oracle.batches[epoch % len(oracle.batches)]
        module.forward(train.batch(rows, pad))
        module.backward(out_grads=heads)
        module.update()
    assert_same(weights_of(module), expected, **EXACT)


@pytest.mark.parametrize("mode", MODES)
def test_zeros_that_are_stored_and_columns_out_of_order(mode):
    module, train, oracle = pair("logistic", 8, mode=mode, optimizer="both")
    stored, order = csr(oracle.x["data"]), []
    starts, columns, values = (each.asnumpy() for each in (stored.indptr, stored.indices, stored.data))
    for start, end in zip(starts, starts[1:]):
        order += list(range(start, end))[::-1]
    turned = mx.nd.sparse.csr_matrix((values[order], columns[order], starts), shape=stored.shape, dtype=np.float64)
    plain = train.batch
    train.batch = lambda rows, pad=0: mx.io.DataBatch([turned], plain(rows).label, pad=pad)
    assert_steps_agree(module, train, oracle)


@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_float32(mode, place):
    assert_steps_agree(*pair("machine", mode=mode, place=place, optimizer="both", dtype=np.float32))


# -------------------------------------------------------------------------------------------------- reweighted steps


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("net", ["logistic", "machine", "embedding", "shared", "two inputs"])
def test_reweighted_steps_are_unbiased(net, alpha):
    # From weights that stand still, the steps of an epoch add up to those along the gradient, with its weight decay.
    module, train, oracle = pair(net, 24, mode="reweighted", optimizer="wd", coefficient=alpha)
    module.update_full_grads(train)
    rng = np.random.default_rng(3)
    w = {name: value + rng.normal(size=value.shape) / 4 for name, value in oracle.weights.items()}
    moved = dict.fromkeys(w, 0.0)
    for batch in train:
        set_weights(module, w)
        module.forward_backward(batch)
        module.update()
        for name, value in weights_of(module).items():
            moved[name] = moved[name] + (value - w[name]) / len(oracle.batches)
    gradient = sparse_oracle.full_gradient(oracle.net, w, oracle.x, oracle.y)
    for name in w:
        decay = DECAY * w[name] * name.endswith("_weight")
        np.testing.assert_allclose(moved[name], -0.25 * (gradient[name] + decay), rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("mode", ["lazy", "reweighted"])
@pytest.mark.parametrize("net", ["logistic", "softmax", "two inputs"])
def test_the_optimum_is_that_of_dense_steps(net, mode):
    module, train, oracle = pair(net, 24, mode=mode, params={"learning_rate": 1.0, "wd": 0.25})
    for _ in training(module, train, 40):
        pass
    w = weights_of(module)
    gradient = sparse_oracle.full_gradient(oracle.net, w, oracle.x, oracle.y)
    for name, value in gradient.items():
        value = value + 0.25 * w[name] * name.endswith("_weight")
        np.testing.assert_allclose(value, 0, atol=1e-10)


def test_reweighted_steps_leave_rows_alone_that_nothing_touches():
    module, train, oracle = pair("logistic", mode="reweighted", optimizer="momentum")
    for _ in training(module, train, 3):
        pass
    np.testing.assert_array_equal(weights_of(module)["x_weight"][-1], oracle.weights["x_weight"][-1])


# ------------------------------------------------------------------------------- what others see, and what they change

# Between the snapshots at the steps 0 and 8 of `eight_steps`; in the middle of a period.
MIDDLE = [1, 2, 5]


def eight_steps(module, train, oracle, between=lambda step: None):
    """The weights after eight steps of one period, and the oracle's; `between` is called after some steps."""
    module.update_full_grads(train)
    oracle.snapshot()
    batches = list(train)
    for step, (rows, _) in enumerate(itertools.islice(itertools.cycle(oracle.batches), 8)):
        module.forward_backward(batches[step % len(batches)])
        module.update()
        oracle.step(rows)
        if step in MIDDLE:
            between(step)
    assert_same(weights_of(module), oracle.weights, **EXACT)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_outputs_of_steps_and_evaluation_in_the_middle(mode, place):
    module, train, oracle = pair("logistic", mode=mode, place=place, optimizer="both")

    def evaluate(step):
        w = [oracle.weights] if place != "2" else oracle.copies
        parts = sparse_oracle.parts_of(oracle.batches[0][0], len(w))
        expected = np.concatenate([
            sparse_oracle.sigmoid(oracle.x["data"][rows] @ each["x_weight"] + each["bias"])
            for each, rows in zip(w, parts)
        ])  # fmt: skip
        module.forward(train.batch(*oracle.batches[0]), is_train=False)
        np.testing.assert_allclose(module.get_outputs()[0].asnumpy(), expected, **EXACT)
        if place != "2":
            error = np.mean((sparse_oracle.sigmoid(oracle.x["data"] @ oracle.weights["x_weight"]
                                                   + oracle.weights["bias"])[:, 0] - oracle.y) ** 2)  # fmt: skip
            predicted = module.predict(train).asnumpy()
            assert np.mean((predicted[:, 0] - oracle.y) ** 2) == pytest.approx(error, rel=1e-10)

    eight_steps(module, train, oracle, evaluate)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["set_params", "init_params", "in place"])
def test_weights_that_are_set_in_the_middle(way, mode):
    module, train, oracle = pair("logistic", mode=mode, optimizer="both")

    def change(step):
        w = {name: value + step for name, value in oracle.weights.items()}
        oracle.copies[0] = w
        if way == "init_params":
            set_weights(module, w)
        elif way == "set_params":
            module.set_params({name: nd(value).tostype("row_sparse" if name == "x_weight" else "default")
                               for name, value in w.items()}, {})  # fmt: skip
        else:
            module.get_params()
            set_weights(module, w)

    eight_steps(module, train, oracle, change)


@pytest.mark.parametrize("changes", [False, True], ids=["read", "set"])
@pytest.mark.parametrize("mode", MODES)
def test_weights_between_the_gradient_and_the_update(mode, changes):
    # Reweighted, most of the weight decay is in the gradient.
    module, train, oracle = pair("logistic", mode=mode, optimizer="momentum" if mode == "reweighted" else "both")
    add = 0.25 if changes else 0.0
    module.update_full_grads(train)
    oracle.snapshot()
    for rows, _ in oracle.batches * 3:
        module.forward_backward(train.batch(rows))
        w = weights_of(module)
        assert_same(w, oracle.weights, **EXACT)
        if changes:
            set_weights(module, {name: value + add for name, value in w.items()})
        module.update()
        oracle.step(rows, add=add)
    assert_same(weights_of(module), oracle.weights, **EXACT)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("mode", ["lazy", "reweighted"])
@pytest.mark.parametrize("net", ["logistic", "machine"])
def test_batches_that_name_nothing(net, mode, place):
    # In dense steps, mxnet's dot of csr data without any number may leave what was in its output.
    module, train, oracle = pair(net, 24, mode=mode, place=place, optimizer="both")
    oracle.x["data"][8:16] = 0
    assert_steps_agree(module, train, oracle, 3)


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
@pytest.mark.parametrize("mode", ["lazy", "reweighted"])
def test_weights_without_stored_rows(mode, place):
    # Zeros aren't stored in row_sparse weights. mxnet's optimizers want them stored, for dense steps.
    net = NETS["softmax"]
    x, y, weights = net.samples(22)
    weights["x_weight"][::2] = 0
    train, (devices, store) = Batches(net, x, y), PLACES[place]
    module = SVRGModule(symbol(net), context=[mx.cpu(k) for k in range(devices)], sparse=mode)
    module.bind(train.provide_data, train.provide_label)
    rows = np.arange(9)[1::2]
    module.init_params(arg_params={
        "x_weight": mx.nd.sparse.row_sparse_array((nd(weights["x_weight"][rows]), rows), shape=(9, 3), dtype="float64"),
        "bias": nd(weights["bias"]),
    })  # fmt: skip
    module.init_optimizer(
        kvstore=None if store == "None" else mx.kv.create("local"), optimizer="sgd",
        optimizer_params={"learning_rate": 0.25, **OPTIMIZERS["both"][1]},
    )  # fmt: skip
    oracle = Svrg(net, weights, x, y, mode=mode, settings=OPTIMIZERS["both"][2](), devices=devices,
                  together=store != "None")  # fmt: skip
    assert_steps_agree(module, train, oracle, 3)


@pytest.mark.parametrize("when", ["in the pass", "after it"])
@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("mode", MODES)
def test_a_snapshot_that_fails_leaves_the_old_one(mode, place, when):
    module, train, oracle = pair("machine", mode=mode, place=place, optimizer="both")

    def fail(_):
        raise KeyError("an own callback")

    def interrupted(step):
        if when == "in the pass":
            with pytest.raises(KeyError, match="an own callback"):
                module.update_full_grads(train, batch_end_callback=fail)
        else:
            plain = train.batch
            train.batch = lambda rows, pad=0: mx.io.DataBatch(
                [each * float("nan") for each in plain(rows).data], plain(rows).label, pad=pad
            )
            with pytest.raises(FloatingPointError, match="the snapshot of before is kept"):
                module.update_full_grads(train)
            train.batch = plain

    eight_steps(module, train, oracle, interrupted)


@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("optimizer, mode", [*itertools.product(["both"], MODES), ("adam", "reweighted")])
def test_a_checkpoint_in_the_middle_of_a_period_goes_on_bit_for_bit(optimizer, mode, place, tmp_path):
    def steps(module, train, first, last):
        batches = list(train)
        for step in range(first, last):
            if step % 6 == 0:
                module.update_full_grads(train)
            module.forward_backward(batches[step % 3])
            module.update()

    module, train, oracle = pair("machine", mode=mode, place=place, optimizer=optimizer)
    steps(module, train, 0, 8)
    module.save_checkpoint(str(tmp_path / "saved"), 1, save_optimizer_states=True)
    train.reset()
    steps(module, train, 8, 16)
    devices, store = PLACES[place]
    again = SVRGModule.load(
        str(tmp_path / "saved"), 1, load_optimizer_states=True, context=[mx.cpu(k) for k in range(devices)],
        sparse=mode,
    )  # fmt: skip
    again.bind(train.provide_data, train.provide_label)
    kind, params, _ = OPTIMIZERS[optimizer]
    again.init_params()
    again.init_optimizer(
        kvstore=None if store == "None" else mx.kv.create("local"), optimizer=kind,
        optimizer_params={"learning_rate": 0.25, **params},
    )  # fmt: skip
    train.reset()
    steps(again, train, 8, 16)
    assert again._sparse_mode == mode
    assert_same(weights_of(again), weights_of(module))


class Recorder(mx.metric.EvalMetric):
    """Keeps all predictions that it gets."""

    def __init__(self):
        super().__init__("recorder")
        self.seen = []

    def update(self, labels, preds):
        self.seen.append(preds[0].asnumpy().copy())
        self.sum_metric, self.num_inst = float(self.seen[-1].sum()), 1


def fitted(mode, place="1", net="machine", epochs=4, **kwargs):
    """A module after `fit`, and what everybody has seen."""
    net = NETS[net]
    x, y, weights = net.samples(22)
    train, evaluated = Batches(net, x, y), Batches(net, x, y)
    devices, store = PLACES[place]
    params = {"learning_rate": 0.25, **OPTIMIZERS["both"][1], **kwargs.pop("params", {})}
    of_fit = {name: kwargs.pop(name) for name in ("monitor", "sparse_row_id_fn", "tol") if name in kwargs}
    module = SVRGModule(symbol(net), context=[mx.cpu(k) for k in range(devices)], sparse=mode, **kwargs)
    module.bind(train.provide_data, train.provide_label)
    set_weights(module, weights)
    in_steps, in_epochs, scores, at_ends = Recorder(), Recorder(), [], []
    module.fit(
        train, evaluated, in_steps, validation_metric=in_epochs, num_epoch=epochs,
        kvstore=None if store == "None" else mx.kv.create("local"), optimizer="sgd", optimizer_params=params,
        eval_end_callback=lambda param: scores.append(dict(param.eval_metric.get_name_value())["recorder"]),
        epoch_end_callback=lambda epoch, symbol, arg, aux: at_ends.append(
            {name: value.asnumpy().copy() for name, value in arg.items()}), **of_fit,
    )  # fmt: skip
    return module, in_steps.seen, in_epochs.seen, at_ends


@pytest.mark.parametrize("place", ["1", "2", "2 local"])
def test_fit_shows_everybody_what_dense_steps_show(place):
    lazy, dense = fitted("lazy", place), fitted("dense", place)
    for ours, theirs in zip(lazy[1:3], dense[1:3]):
        assert len(ours) == len(theirs) == 12 * PLACES[place][0]
        np.testing.assert_allclose(ours, theirs, **EXACT)
    for ours, theirs in zip(lazy[3], dense[3]):
        assert_same(ours, theirs, **EXACT)
    assert len(lazy[0].history) == len(dense[0].history) == 2
    for ours, theirs in zip(lazy[0].history, dense[0].history):
        for name in ("norm", "gradient_norm", "num_update", "samples"):
            if hasattr(ours, name):
                np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-12)
    assert_same(*({name: value.asnumpy() for name, value in each[0].full_gradient.items()} for each in (lazy, dense)),
                **EXACT)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_rows_to_pull_change_nothing(mode):
    rows = lambda batch: {name: mx.nd.arange(9, dtype="int64") for name in ("x_weight", "v_weight")}  # noqa: E731
    plain, pulls = (fitted(mode, "2 local", **kwargs) for kwargs in ({}, {"sparse_row_id_fn": rows}))
    assert_same(pulls[3][-1], plain[3][-1], **EXACT)


@pytest.mark.parametrize("place", ["1", "2 local"])
def test_the_variances_are_those_of_dense_steps(place):
    monitors = [VarianceMonitor(), VarianceMonitor()]
    for mode, monitor in zip(("lazy", "dense"), monitors):
        fitted(mode, place, monitor=monitor)
    for ours, theirs in zip(*(monitor.epochs for monitor in monitors)):
        assert set(ours.by_parameter) == set(theirs.by_parameter)
        for name, variance in theirs.by_parameter.items():
            np.testing.assert_allclose(ours.by_parameter[name], variance, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("place", ["1", "2 local"])
@pytest.mark.parametrize("net", ["logistic", "dense weight"])
@pytest.mark.parametrize("mode", MODES)
def test_a_step_size_that_is_chosen(mode, net, place):
    module, *_ = fitted(mode, place, net, epochs=60, params={"learning_rate": "auto", "momentum": 0.0},
                        tol=1e-6)  # fmt: skip
    assert module.converged and module._sparse_mode == mode


# ------------------------------------------------------------------------------------------- what is taken, and errors


@pytest.mark.parametrize(
    "net, optimizer, params, mode",
    [
        ("logistic", "plain", {}, "lazy"), ("logistic", "both", {}, "lazy"), ("logistic", "adam", {}, "reweighted"),
        ("logistic", "both", {"clip_gradient": 1.0}, "dense"),
        ("logistic", "momentum", {"clip_gradient": 1.0}, "reweighted"),
        ("dense weight", "plain", {}, "lazy"), ("dense weight", "adam", {}, "dense"),
        ("logistic", "adagrad", {}, "reweighted"), ("logistic", "adagrad", {"wd": 0.5}, "dense"),
    ],
)  # fmt: skip
def test_what_is_taken_by_default(net, optimizer, params, mode):
    module, *_ = pair(net, mode=None, optimizer=optimizer, params=params)
    assert module._sparse_mode == mode


@pytest.mark.parametrize(
    "mode, optimizer, kwargs, reason",
    [
        ("lazy", "adam", {}, "Adam is not SGD"),
        ("lazy", "plain", {"params": {"clip_gradient": 1.0}}, "clip_gradient=1.0"),
        ("reweighted", "adagrad", {"params": {"wd": 0.5}}, "weight decay of AdaGrad"),
        ("reweighted", "wd", {"params": {"clip_gradient": 1.0}}, "clip_gradient=1.0"),
        ("lazy", "plain", {"snapshots": EverySteps(3, at="average")}, "looks at all weights in each step"),
        ("lazy", "plain", {"coefficient": PerLayer()}, "looks at all gradients"),
    ],
)  # fmt: skip
def test_what_cannot_be_had(mode, optimizer, kwargs, reason):
    with pytest.raises(ValueError, match="sparse='{}' can't be had: .*{}".format(mode, reason)):
        pair("logistic", mode=mode, optimizer=optimizer, **kwargs)


@pytest.mark.parametrize("sparse", ["eager", True, 1, ""])
def test_there_is_no_such_way(sparse):
    with pytest.raises(ValueError, match="must be 'lazy', 'reweighted', 'dense' or None"):
        SVRGModule(symbol(NETS["logistic"]), sparse=sparse)


@pytest.mark.parametrize("row", [-1, 9])
def test_an_embedding_without_such_a_row(row):
    module, train, oracle = pair("embedding")
    module.update_full_grads(train)
    oracle.x["data"][3, 1] = row
    with pytest.raises(ValueError, match="the batch's data has {}: .* give numbers from 0 to 8".format(row)):
        module.forward(train.batch(list(range(8))))


def test_a_batch_without_labels():
    module, train, _ = pair("logistic")
    module.update_full_grads(train)
    batch = train.batch(list(range(8)))
    batch.label = None
    with pytest.raises(ValueError, match="the batch has no labels for softmax_label"):
        module.forward(batch, is_train=True)
