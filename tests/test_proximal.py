"""proximalsgd: each step against NumPy, and where it comes to rest against scikit-learn."""

import mxnet as mx
import numpy as np
import pytest
from models import assert_same, nd

from svrg_optimization import SVRGModule

EXACT = dict(rtol=1e-12, atol=1e-14)


def naive_prox(z, threshold, group, nonnegative):
    """One number, or group, at a time."""
    z = np.maximum(z, 0) if nonnegative else z
    result = np.zeros_like(z)
    if group is None:
        for j in np.ndindex(z.shape):
            result[j] = np.sign(z[j]) * max(abs(z[j]) - threshold, 0)
        return result
    axis = 0 if group == "rows" else 1
    for k in range(z.shape[axis]):
        part = [slice(None)] * z.ndim
        part[axis] = k
        norm = np.sqrt(np.sum(z[tuple(part)] ** 2))
        if norm > threshold:
            result[tuple(part)] = z[tuple(part)] * (1 - threshold / norm)
    return result


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2, 2)])
@pytest.mark.parametrize("group", [None, "rows", "columns"])
@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("clip", [None, 0.75])
def test_each_step(clip, momentum, nonnegative, group, shape):
    rng = np.random.default_rng(0)
    settings = dict(learning_rate=0.25, l1=0.25, wd=0.125, group=group, nonnegative=nonnegative, momentum=momentum)
    optimizer = mx.optimizer.create("proximalsgd", **settings, rescale_grad=0.5, clip_gradient=clip)
    w, before = rng.normal(size=shape), None
    weight = mx.nd.array(w, dtype="float64")
    state = optimizer.create_state(0, weight)
    zeros = 0
    for _ in range(20):
        gradient = rng.normal(size=shape)
        optimizer.update(0, weight, mx.nd.array(gradient, dtype="float64"), state)
        g = 0.5 * gradient if clip is None else np.clip(0.5 * gradient, -clip, clip)
        moved = w - 0.25 * (g + 0.125 * w)
        if before is not None:
            moved += momentum * (w - before)
        before, w = w, naive_prox(moved, 0.25 * 0.25, group, nonnegative)
        np.testing.assert_allclose(weight.asnumpy(), w, **EXACT)
        assert np.array_equal(weight.asnumpy() == 0, w == 0)
        zeros += np.sum(w == 0)
    assert zeros or group


@pytest.mark.parametrize("devices, kvstore", [(1, "local"), (2, "local"), (2, "device")])
@pytest.mark.parametrize("multiplier", [None, 0.5])
def test_biases_are_left_out_unless_they_are_not(multiplier, devices, kvstore):
    """As of weight decay."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    bias = mx.sym.Variable("fc_bias", wd_mult=multiplier) if multiplier else mx.sym.Variable("fc_bias")
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), bias=bias, num_hidden=1, name="fc")
    net = mx.sym.LinearRegressionOutput(net, mx.sym.Variable("label"))
    train = mx.io.NDArrayIter(mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64"), 4, label_name="label")
    module = SVRGModule(net, label_names=["label"], context=list(map(mx.cpu, range(devices))))
    module.bind(train.provide_data, train.provide_label)
    start = {"fc_weight": rng.normal(size=(1, 3)), "fc_bias": rng.normal(size=1)}
    module.init_params(arg_params={name: mx.nd.array(each, dtype="float64") for name, each in start.items()})
    module.init_optimizer(kvstore, "proximalsgd", {"learning_rate": 0.25, "l1": 0.5})
    batch = next(train)
    module.forward_backward(batch)
    module.update()
    error = x[:4] @ start["fc_weight"].T + start["fc_bias"] - y[:4]
    gradient = {"fc_weight": error.T @ x[:4] / 4, "fc_bias": error.mean(axis=0)}
    moved = {name: start[name] - 0.25 * gradient[name] for name in start}
    thresholds = {"fc_weight": 0.25 * 0.5, "fc_bias": 0.25 * 0.5 * (multiplier or 0)}
    expected = {name: naive_prox(each, thresholds[name], None, False) for name, each in moved.items()}
    assert_same({name: each.asnumpy() for name, each in module.get_params()[0].items()}, expected, **EXACT)


def solve(x, y, output, *, rate, epochs=400, outputs=1, tol=1e-13, **settings):
    """Weights and biases where training comes to rest."""
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=outputs, name="fc")
    net = getattr(mx.sym, output)(net, mx.sym.Variable("label"))
    train = mx.io.NDArrayIter(mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64"), 10, label_name="label")
    module = SVRGModule(net, label_names=["label"])
    start = {"fc_weight": np.zeros((outputs, x.shape[1])), "fc_bias": np.zeros(outputs)}
    module.fit(train, num_epoch=epochs, tol=tol, eval_metric="mse", optimizer="proximalsgd",
               optimizer_params={"learning_rate": rate, **settings},
               arg_params={name: mx.nd.array(each, dtype="float64") for name, each in start.items()})  # fmt: skip
    assert module.converged
    weights = {name: each.asnumpy() for name, each in module.get_params()[0].items()}
    return weights["fc_weight"], weights["fc_bias"], module


def problem(classes=0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8)) @ np.diag(np.linspace(0.5, 1.5, 8))
    z = x[:, :3] @ [1.0, -1.0, 0.5] + 0.25 + 0.3 * rng.normal(size=100)
    return x, (z > 0).astype(float)[:, None] if classes else z[:, None]


@pytest.mark.parametrize("momentum", [0.0, 0.75])
@pytest.mark.parametrize("l1, wd", [(0.1, 0.0), (0.05, 0.1)])
def test_lasso_and_elastic_net(l1, wd, momentum):
    from sklearn.linear_model import ElasticNet

    x, y = problem()
    solved = ElasticNet(alpha=l1 + wd, l1_ratio=l1 / (l1 + wd), tol=1e-14, max_iter=100000).fit(x, y[:, 0])
    weight, bias, module = solve(x, y, "LinearRegressionOutput", rate=0.05, l1=l1, wd=wd, momentum=momentum)
    np.testing.assert_allclose(weight[0], solved.coef_, atol=1e-9)
    np.testing.assert_allclose(bias[0], solved.intercept_, atol=1e-9)
    assert np.array_equal(weight[0] == 0, solved.coef_ == 0) and (weight == 0).any()
    assert module.history[-1].bound is None


def test_logistic_regression_with_l1():
    from sklearn.linear_model import LogisticRegression

    x, y = problem(classes=2)
    l1 = 0.02
    # scikit-learn 1.8 has another name for it.
    only_l1 = {"l1_ratio": 1} if LogisticRegression().penalty == "deprecated" else {"penalty": "l1"}
    # liblinear would regularize the intercept.
    solver = dict(solver="saga", tol=1e-12, max_iter=100000, C=1 / (l1 * len(x)))
    solved = LogisticRegression(**only_l1, **solver).fit(x, y[:, 0])
    weight, bias, _ = solve(x, y, "LogisticRegressionOutput", rate=0.5, l1=l1, tol=1e-9)
    np.testing.assert_allclose(weight[0], solved.coef_[0], atol=1e-6)
    np.testing.assert_allclose(bias, solved.intercept_, atol=1e-6)
    assert np.array_equal(weight[0] == 0, solved.coef_[0] == 0) and (weight == 0).any()


def test_a_group_lasso_is_at_rest():
    """Where the conditions of a minimum hold: columns are inputs, shared by three outputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8))
    y = x[:, :2] @ rng.normal(size=(2, 3)) + 0.1 * rng.normal(size=(100, 3))
    weight, bias, _ = solve(x, y, "LinearRegressionOutput", rate=0.05, outputs=3, l1=0.2, group="columns")
    # mxnet divides the loss of a sample by its number of outputs.
    gradient = (x @ weight.T + bias - y).T @ x / 100 / 3
    norms = np.linalg.norm(weight, axis=0)
    assert (norms == 0).any() and (norms > 0).any()
    for j, norm in enumerate(norms):
        if norm:
            np.testing.assert_allclose(gradient[:, j], -0.2 * weight[:, j] / norm, atol=1e-10)
        else:
            assert np.linalg.norm(gradient[:, j]) <= 0.2


def test_nonnegative_least_squares():
    from scipy.optimize import nnls

    x, y = problem()
    centred = x - x.mean(0)
    solution, _ = nnls(centred, (y - y.mean())[:, 0])
    weight, bias, _ = solve(x, y, "LinearRegressionOutput", rate=0.05, nonnegative=True)
    np.testing.assert_allclose(weight[0], solution, atol=1e-9)
    assert np.array_equal(weight[0] == 0, solution == 0) and bias[0] != 0


def test_a_run_goes_on_from_a_checkpoint(tmp_path):
    x, y = problem()
    train = mx.io.NDArrayIter(mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64"), 10, label_name="label")
    net = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=1, name="fc")
    net = mx.sym.LinearRegressionOutput(net, mx.sym.Variable("label"))

    def fit(module, begin, end, callback=None):
        module.fit(train, begin_epoch=begin, num_epoch=end, optimizer="proximalsgd", eval_metric="mse",
                   optimizer_params={"learning_rate": 0.05, "l1": 0.1, "momentum": 0.5}, epoch_end_callback=callback,
                   initializer=mx.init.One())  # fmt: skip
        return {name: each.asnumpy() for name, each in module.get_params()[0].items()}

    whole = SVRGModule(net, label_names=["label"])
    expected = fit(whole, 0, 6, lambda epoch, *_: epoch == 2 and whole.save_checkpoint(tmp_path / "model", 3, True))
    resumed = SVRGModule.load(tmp_path / "model", 3, load_optimizer_states=True, label_names=["label"])
    assert_same(fit(resumed, 3, 6), expected)
    assert [record.gradient_norm for record in resumed.history] == [record.gradient_norm for record in whole.history]


@pytest.mark.parametrize("settings, message", [
    (dict(l1=-1.0), "l1=-1.0 must be a number of at least 0"), (dict(momentum=float("nan")), "momentum=nan must be"),
    (dict(group="blocks"), "group='blocks' must be None, 'rows' or 'columns'"),
])  # fmt: skip
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        mx.optimizer.create("proximalsgd", **settings)


def test_a_bias_has_no_groups():
    optimizer = mx.optimizer.create("proximalsgd", l1=0.5, group="rows", param_idx2name={0: "fc_weight"})
    with pytest.raises(ValueError, match=r"the weight 'fc_weight' has the shape \(3,\), and so no rows and columns"):
        optimizer.create_state(0, mx.nd.ones(3))


# --------------------------------------------------------------------------------------- found by fresh eyes


@pytest.mark.parametrize("clip", [None, -1, 0])
def test_a_clip_that_is_not_positive_is_off(clip):
    optimizer = mx.optimizer.create("proximalsgd", learning_rate=0.5, clip_gradient=clip)
    weight = nd([1.0, -1.0])
    optimizer.update(0, weight, nd([4.0, 8.0]), None)
    assert weight.asnumpy().tolist() == [-1.0, -5.0]


@pytest.mark.parametrize(
    "params", [{"l1": "0.1"}, {"l1": None}, {"momentum": None}, {"momentum": float("nan")}], ids=str
)
def test_settings_that_are_no_numbers(params):
    with pytest.raises(ValueError, match="must be a number of at least 0"):
        mx.optimizer.create("proximalsgd", **params)


def test_groups_of_float16_and_large_ones():
    optimizer = mx.optimizer.create("proximalsgd", l1=1.0, group="rows", param_idx2name={0: "w_weight"})
    weight = mx.nd.ones((1, 4096), dtype="float16")
    np.testing.assert_allclose(optimizer.prox(0, weight, 32.0).asnumpy(), 0.5, rtol=1e-3)
    weight = mx.nd.ones((1, 1 << 22))
    np.testing.assert_allclose(optimizer.prox(0, weight, 1024.0).asnumpy(), 0.5, rtol=1e-6)
