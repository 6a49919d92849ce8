"""Reweighted proximal steps against NumPy, and full passes over csr data in larger batches."""

import mxnet as mx
import numpy as np
import pytest
import sparse_oracle as so
from scipy.sparse import csr_matrix
from sparse_models import Batches, ready, symbol

from svrg_optimization import CSRIter, SVRGModule
from svrg_optimization.compute import pass_over_rows

RATE, DECAY, L1 = 0.25, 0.125, 0.0625
N, SIZE, STEPS = 22, 8, 12


def soft(z, threshold):
    return np.sign(z) * np.maximum(np.abs(z) - threshold, 0)


def proximal_step(w, g, states, rate, decay, t):
    # The oracle gives a step D times the decay, and the regularizer is D times as large, too.
    return soft(w - rate * (g + decay * w), rate * decay * L1 / DECAY), ()


@pytest.mark.parametrize("devices, kvstore", [(1, "None"), (2, "None"), (2, "local")])
@pytest.mark.parametrize("name", ["logistic", "machine"])
def test_each_step(name, devices, kvstore):
    net = so.NETS[name]
    x, y, weights = net.samples(N)
    together = kvstore != "None" or devices == 1
    settings = so.Settings(proximal_step, RATE, DECAY)
    oracle = so.Svrg(net, weights, x, y, mode="reweighted", settings=settings, size=SIZE, devices=devices,
                     together=together)  # fmt: skip
    train = Batches(net, x, y, SIZE)
    module = ready(net, weights, train, sparse="reweighted", devices=devices, kvstore=kvstore, optimizer="proximalsgd",
                   params={"learning_rate": RATE, "wd": DECAY, "l1": L1})  # fmt: skip
    named = {parameter: net.named(parameter, x) for parameter in net.rows}
    untouched = {parameter: weights[parameter][~named[parameter]] for parameter in net.rows}
    steps = iter(oracle.run(4, update_freq=1))
    for epoch in range(4):
        module.update_full_grads(train, epoch=epoch)
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
            found, right = module.get_params()[0], next(steps)
            for parameter, value in right.items():
                actual = found[parameter].asnumpy()
                if parameter in named:
                    untouched[parameter] = soft((1 - RATE * DECAY) * untouched[parameter], RATE * L1)
                    value = value.copy()
                    value[~named[parameter]] = untouched[parameter]
                np.testing.assert_allclose(actual, value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("name", ["logistic", "machine", "softmax"])
def test_full_passes_in_larger_batches(name, dtype, rtol, monkeypatch):
    net = so.NETS[name]
    x, y, weights = net.samples(N)
    label = y.astype(dtype) if net.classes > 2 else y[:, None].astype(dtype)
    monkeypatch.setattr(pass_over_rows, "_NUMBERS_AT_ONCE", 3 * SIZE * 9)
    sizes, add_part = [], pass_over_rows.PassOverRows._add_part

    def noting_sizes(self, totals, part):
        sizes.append(part.csr[0].shape[0])
        add_part(self, totals, part)

    monkeypatch.setattr(pass_over_rows.PassOverRows, "_add_part", noting_sizes)
    train = CSRIter(csr_matrix(x["data"].astype(dtype)), label, batch_size=4, shuffle=True)
    module = SVRGModule(symbol(net, dtype))
    module.bind(train.provide_data, train.provide_label)
    module.init_params(arg_params={
        name: mx.nd.array(value, dtype=dtype).tostype("row_sparse" if name in net.rows else "default")
        for name, value in weights.items()
    }, aux_params={})  # fmt: skip
    module.init_optimizer(kvstore=None)
    module.update_full_grads(train)
    # 5 to 9 numbers a row, of which 216 are taken at once.
    assert sizes == [N]
    for parameter, value in so.full_gradient(net, weights, x, y).items():
        np.testing.assert_allclose(module.full_gradient[parameter].asnumpy(), value, rtol=rtol, atol=rtol / 100)
