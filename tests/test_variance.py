"""The variance of gradients: VarianceMonitor against NumPy at weights that stand still, and `diagnose`."""

import json

import mxnet as mx
import numpy as np
import oracle
import pytest
from models import assert_same, iterator, ready, samples, symbol, train_steps, weights_of

from svrg_optimization import SVRGModule, VarianceMonitor, diagnose
from svrg_optimization.history import to_json_lines


def expected(problem, data, w, snapshot, batch_size):
    """By parameter: the variances of the plain gradient, of the variance-reduced one, and of that at the snapshot."""
    mu, plain, at_snapshot = oracle.full_gradient(problem, snapshot, data), [], []
    for rows in oracle.padded_batches(len(data), batch_size):
        for found, weights in ((plain, w), (at_snapshot, snapshot)):
            total = oracle.sum_of(problem.gradient(weights, *data[i]) for i in rows)
            found.append({name: value / batch_size for name, value in total.items()})
    reduced = [{name: here[name] - there[name] + mu[name] for name in mu} for here, there in zip(plain, at_snapshot)]

    def variance(gradients, name):
        stacked = np.array([each[name].ravel() for each in gradients])
        return np.mean(np.sum((stacked - stacked.mean(0)) ** 2, axis=1))

    def best(name):
        p, c = (np.array([each[name].ravel() for each in of]) for of in (plain, at_snapshot))
        return np.sum((p - p.mean(0)) * (c - c.mean(0))) / np.sum((c - c.mean(0)) ** 2)

    return {
        name: (variance(plain, name), variance(reduced, name), variance(at_snapshot, name), best(name)) for name in mu
    }


def moved(problem, weights, train, **kwargs):
    """A module whose weights are some steps away from the snapshot, and stay there; and both weights."""
    module = ready(problem, weights, train, **kwargs)
    *_, w = train_steps(module, train, 1)
    module._users_optimizer().lr = 0.0
    return module, w


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("n", [24, 22], ids=["", "ragged"])
@pytest.mark.parametrize("problem", oracle.PROBLEMS, ids=repr)
def test_it_is_the_variance_over_the_batches(problem, n, devices):
    data, weights = samples(problem, n)
    train = iterator(problem, data, 4)
    module, w = moved(problem, weights, train, devices=devices, update_freq=3)
    monitor = VarianceMonitor()
    module.install_monitor(monitor)
    for _ in train_steps(module, train, 3, begin_epoch=1):
        pass
    module.update_full_grads(train)
    (found,) = monitor.epochs
    wanted = expected(problem, data, w, weights, 4)
    assert found.batches == 12
    for name, (plain, reduced, of_snapshot, best) in wanted.items():
        variance = found.by_parameter[name]
        np.testing.assert_allclose(variance, (plain, reduced, of_snapshot), rtol=1e-10)
        assert variance.best_coefficient == pytest.approx(best, rel=1e-10)
        assert variance.ratio == pytest.approx(reduced / plain, rel=1e-10)
    np.testing.assert_allclose(found.total, np.sum([each[:3] for each in wanted.values()], axis=0), rtol=1e-10)


def test_the_coefficient_that_is_best_leaves_the_least_variance():
    problem = oracle.PROBLEMS[2]
    data, weights = samples(problem, 24)
    other = {name: value + 0.5 for name, value in weights.items()}
    plain, reduced, of_snapshot, best = expected(problem, data, weights, other, 4)["fc_weight"]
    covariance = (plain + of_snapshot - reduced) / 2
    around = [plain - 2 * alpha * covariance + alpha**2 * of_snapshot for alpha in (best - 0.01, best, best + 0.01)]
    assert around[1] < min(around[0], around[2])


def test_fit_has_it_in_the_log_the_history_and_the_writers(caplog, tmp_path):
    problem = oracle.PROBLEMS[2]
    data, _ = samples(problem, 24)
    caplog.set_level("INFO")
    module, monitor, written = SVRGModule(symbol(problem), update_freq=2), VarianceMonitor(), []

    class Writer:
        def add_scalar(self, name, value, step):
            written.append((name, step))

    module.add_writer(Writer())
    module.fit(iterator(problem, data, 4), num_epoch=4, monitor=monitor, optimizer_params={"learning_rate": 0.25})
    assert [each.epoch for each in monitor.epochs] == [0, 1, 2, 3]
    assert len(module.history) == 2
    for record, found in zip(module.history, monitor.epochs[1::2]):
        assert record.plain_variance, record.variance == found.total[:2]
        assert record.variance_ratio == found.total.ratio
    assert written.count(("svrg/variance_ratio", 0)) == written.count(("svrg/variance_ratio", 12)) == 2
    assert sum(message.startswith("Epoch[3] Variances: plain=") for message in caplog.messages) == 1
    to_json_lines(module.history, tmp_path / "history")
    assert "best_coefficient" in json.loads((tmp_path / "history").read_text().splitlines()[1])
    assert "fc_weight" in str(monitor.epochs[0])


def noisy(batch_size=2, rate=8.0):
    """A module for which SVRG doesn't pay: its steps are much too long."""
    problem = oracle.PROBLEMS[3]
    data, weights = samples(problem, 24)
    train = iterator(problem, data, batch_size)
    return ready(problem, weights, train, optimizer_params={"learning_rate": rate}), train


def test_it_warns_once_with_the_number(caplog):
    module, train = noisy()
    monitor = VarianceMonitor()
    module.install_monitor(monitor)
    for _ in train_steps(module, train, 8):
        pass
    warnings = [
        record.message for record in caplog.records if record.levelname == "WARNING" and "worth" in record.message
    ]
    assert len(warnings) == 1
    first = next(each for each in monitor.epochs if each.total.ratio > 0.4)
    assert "%.3g times the variance" % first.total.ratio in warnings[0]
    assert "costs 2.5 gradients, so that it would have to be below 0.4" in warnings[0]


def test_a_monitor_changes_nothing():
    problem = oracle.PROBLEMS[3]
    data, weights = samples(problem, 22)
    monitored, plain = (ready(problem, weights, iterator(problem, data, 4)) for _ in range(2))
    monitored.install_monitor(VarianceMonitor())
    for actual, wanted in zip(train_steps(monitored, iterator(problem, data, 4), 5),
                              train_steps(plain, iterator(problem, data, 4), 5)):  # fmt: skip
        assert_same(actual, wanted)


def test_a_plain_module_has_nothing_to_compare():
    problem = oracle.PROBLEMS[2]
    data, weights = samples(problem, 8)
    module = ready(problem, weights, iterator(problem, data, 4), module=mx.mod.Module)
    with pytest.raises(TypeError, match="can be installed in an SVRGModule only"):
        module.install_monitor(VarianceMonitor())


# ----------------------------------------------------------------------------------------------------------- diagnose


@pytest.mark.parametrize("kind", [SVRGModule, mx.mod.Module])
@pytest.mark.parametrize("prepared", ["fresh", "trained"])
def test_diagnose_leaves_the_module_as_it_is_and_says_what_it_found(prepared, kind):
    problem = oracle.PROBLEMS[2]
    data, weights = samples(problem, 24)
    train = iterator(problem, data, 4)
    module = kind(symbol(problem))
    module.bind(train.provide_data, train.provide_label)
    module.init_params()
    if prepared == "trained":
        module.fit(train, num_epoch=3, optimizer_params={"learning_rate": 0.25, "momentum": 0.5})
        train.reset()
    before = weights_of(module)
    found = diagnose(module, train)
    assert_same(weights_of(module), before)
    assert found.helps and found.ratio < found.break_even == 0.4
    assert [point.part for point in found.points] == [1 / 12, 4 / 12, 1.0]
    assert (found.update_freq, found.batch_size, found.steps) == (2, 4, 12)
    assert str(found).startswith("SVRG helps here: its gradients have ")
    assert len(list(train)) == 6


def test_diagnose_is_exact_at_its_points():
    problem = oracle.PROBLEMS[1]
    data, weights = samples(problem, 24)
    train = iterator(problem, data, 4)
    module = ready(problem, weights, train, optimizer_params={"learning_rate": 0.5}, update_freq=1)
    found = diagnose(module, train, update_freq=2)
    steps = list(train_steps(ready(problem, weights, train, optimizer_params={"learning_rate": 0.5}), train, 2))
    for point, step in zip(found.points, (1, 4, 12)):
        for name, (plain, reduced, of_snapshot, _) in expected(problem, data, steps[step - 1], weights, 4).items():
            variance = point.variances.by_parameter[name]
            np.testing.assert_allclose(variance, (plain, reduced, of_snapshot), rtol=1e-10)


def test_diagnose_says_when_it_does_not_help():
    module, train = noisy()
    found = diagnose(module, train)
    assert not found.helps and found.ratio > 0.4
    assert "SVRG doesn't help here" in str(found) and "BatchNorm" in str(found)


def test_diagnose_needs_weights():
    problem = oracle.PROBLEMS[2]
    data, _ = samples(problem, 8)
    with pytest.raises(RuntimeError, match="call its bind"):
        diagnose(SVRGModule(symbol(problem)), iterator(problem, data, 4))


# --------------------------------------------------------------------------------------- found by fresh eyes


def test_without_noise_there_is_nothing_to_help_with():
    problem = oracle.PROBLEMS[1]
    data, weights = samples(problem, 8)
    train = iterator(problem, data, 8)
    found = diagnose(ready(problem, weights, train), train)
    assert not found.helps and np.isnan(found.ratio)
    assert "there is no noise" in str(found)


def test_diagnose_reads_an_iterator_to_its_end_each_time(tmp_path):
    """CSVIter loses rows when it is reset before its end."""
    problem = oracle.PROBLEMS[0]
    data, weights = samples(problem, 24)
    np.savetxt(tmp_path / "x", [x for x, _ in data], delimiter=",")
    np.savetxt(tmp_path / "y", [y for _, y in data])
    by_csv = mx.io.CSVIter(data_csv=str(tmp_path / "x"), data_shape=(3,), label_csv=str(tmp_path / "y"), batch_size=4,
                           round_batch=False, label_name="softmax_label")  # fmt: skip
    by_array = iterator(problem, data, 4, np.float32)
    found = [
        diagnose(ready(problem, weights, train, dtype=np.float32, optimizer_params={"learning_rate": 0.125}), train)
        for train in (by_csv, by_array)
    ]
    assert found[0].ratio == pytest.approx(found[1].ratio, rel=1e-5)
    assert sum(batch.data[0].shape[0] - batch.pad for batch in by_csv) == 24


def test_diagnose_trains_what_is_trained():
    problem = oracle.PROBLEMS[2]
    data, _ = samples(problem, 24)
    train = iterator(problem, data, 4)
    module = SVRGModule(symbol(problem))
    requests = {"fc_weight": "write", "fc_bias": "null", "data": "null", "softmax_label": "null"}
    module.bind(train.provide_data, train.provide_label, grad_req=requests)
    module.init_params()
    assert list(diagnose(module, train).points[0].variances.by_parameter) == ["fc_weight"]


@pytest.mark.parametrize("wrong, message", [
    (lambda module, train: diagnose(3, train), "module=3 must be an mxnet.module.Module"),
    (lambda module, train: diagnose(module, [1]), r"train_data=\[1\] must be a DataIter"),
    (lambda module, train: diagnose(module, train, update_freq=0), "update_freq=0 must be at least 1"),
])  # fmt: skip
def test_wrong_arguments(wrong, message):
    problem = oracle.PROBLEMS[2]
    data, weights = samples(problem, 8)
    train = iterator(problem, data, 4)
    with pytest.raises((TypeError, ValueError), match=message):
        wrong(ready(problem, weights, train), train)


def test_networks_without_a_loss_are_refused():
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2)
    train = mx.io.NDArrayIter(mx.nd.ones((4, 2)), None, 2)
    module = SVRGModule(scores, label_names=None)
    module.bind(train.provide_data)
    module.init_params()
    with pytest.raises(ValueError, match="doesn't end in loss layers alone"):
        diagnose(module, train)


def test_a_monitor_is_of_one_module():
    module, train = noisy()
    monitor = VarianceMonitor()
    module.install_monitor(monitor)
    module.install_monitor(monitor)
    with pytest.raises(ValueError, match="is installed in another module"):
        noisy()[0].install_monitor(monitor)


def test_a_monitor_is_for_its_fit_and_an_interrupted_one_leaves_nothing():
    problem = oracle.PROBLEMS[2]
    data, _ = samples(problem, 24)
    module, monitor = SVRGModule(symbol(problem), update_freq=1), VarianceMonitor()
    settings = dict(num_epoch=2, optimizer_params={"learning_rate": 0.25})

    def interrupt(param):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.fit(iterator(problem, data, 4), monitor=monitor, batch_end_callback=interrupt, **settings)
    module.install_monitor(monitor)
    module.fit(iterator(problem, data, 4), **settings)
    assert [each.batches for each in monitor.epochs] == [6, 6]
    module.install_monitor(None)
    module.fit(iterator(problem, data, 4), **settings)
    module.fit(iterator(problem, data, 4), monitor=monitor, **settings)
    module.fit(iterator(problem, data, 4), **settings)
    assert len(monitor.epochs) == 4
