"""The networks of the oracle on rows as mxnet's, and their batches."""

import mxnet as mx
import numpy as np
from models import nd
from sparse_oracle import CLASSES, NETS, batches_of

from svrg_optimization import SVRGModule


def csr(dense, dtype=np.float64):
    """A csr NDArray of the numbers of an array that aren't 0."""
    rows, columns = np.nonzero(dense)
    starts = np.searchsorted(rows, np.arange(len(dense) + 1))
    return mx.nd.sparse.csr_matrix((dense[rows, columns], columns, starts), shape=dense.shape, dtype=dtype)


class Batches(mx.io.DataIter):
    """csr or dense batches of the samples; the last one is padded, or ragged. `parts`: a batch is a list of batches."""

    def __init__(self, net, x, y, size=8, last="pad", dtype=np.float64):
        super().__init__(size)
        self.net, self.x, self.y, self.dtype = net, x, y, dtype
        self.places, self.at = list(batches_of(len(y), size, last)), 0
        self.label = "softmax_label"

    @property
    def provide_data(self):
        return [mx.io.DataDesc(name, (self.batch_size, *value.shape[1:]), self.dtype) for name, value in self.x.items()]

    @property
    def provide_label(self):
        return [mx.io.DataDesc(self.label, (self.batch_size, *self.of_label([]).shape[1:]), self.dtype)]

    def of_label(self, rows):
        return self.y[rows].reshape((-1,) if self.net.classes > 2 else (-1, 1))

    def batch(self, rows, pad=0):
        data = [
            csr(value[rows], self.dtype) if self.net.inputs[name] == "csr" else nd(value[rows], self.dtype)
            for name, value in self.x.items()
        ]
        return mx.io.DataBatch(data, [nd(self.of_label(rows), self.dtype)], pad=pad)

    def reset(self):
        self.at = 0

    def next(self):
        if self.at == len(self.places):
            raise StopIteration
        self.at += 1
        return self.batch(*self.places[self.at - 1])


def _mean_embedding(data, weight, net, dtype):
    return mx.sym.Embedding(
        data, weight, input_dim=net.shapes["e_weight"][0], output_dim=net.shapes["e_weight"][1], sparse_grad=True,
        dtype=np.dtype(dtype).name,
    )  # fmt: skip


def symbol(net, dtype=np.float64, has_loss=True, stype="row_sparse", mult=None):
    """The network of an oracle problem; without a loss, what it gives the loss. `mult`: by name (rate, decay)."""
    inputs = {
        name: mx.sym.Variable(name, stype="csr" if kind == "csr" else "default") for name, kind in net.inputs.items()
    }
    stype = "default" if net.name == "dense weight" else stype
    w = {
        name: mx.sym.Variable(
            name,
            shape=shape,
            stype=stype if name in net.rows else "default",
            **dict(zip(("lr_mult", "wd_mult"), (mult or {}).get(name, ()))),
        )
        for name, shape in net.shapes.items()
    }
    if net.name == "two inputs":
        score = mx.sym.dot(inputs["left"], w["x_weight"]) + mx.sym.dot(inputs["right"], w["z_weight"])
        score = mx.sym.broadcast_add(score, w["bias"])
    elif net.name == "shared":
        left, right = (mx.sym.sum(_mean_embedding(inputs[name], w["e_weight"], net, dtype), axis=1)
                       for name in ("left", "right"))  # fmt: skip
        score = mx.sym.sum(left * right, axis=1, keepdims=True)
    elif net.name == "embedding":
        mean = mx.sym.mean(_mean_embedding(inputs["data"], w["e_weight"], net, dtype), axis=1)
        score = mx.sym.FullyConnected(mean, w["fc_weight"], w["fc_bias"], num_hidden=1)
    else:
        score = mx.sym.broadcast_add(mx.sym.dot(inputs["data"], w["x_weight"]), w["bias"])
    if net.name == "machine":
        sums = mx.sym.dot(inputs["data"], w["v_weight"])
        squares = mx.sym._internal._square_sum(data=w["v_weight"], axis=1, keepdims=True)
        pairs = mx.sym.sum(mx.sym.square(sums), axis=1, keepdims=True)
        score = score + 0.5 * pairs - 0.5 * mx.sym.dot(inputs["data"].square(), squares)
    if not has_loss:
        return score
    label = mx.sym.Variable("softmax_label")
    loss = mx.sym.SoftmaxOutput if net.classes == CLASSES else mx.sym.LogisticRegressionOutput
    return loss(score, label, name="out")


STORES = {"None": lambda: None, "local": lambda: mx.kv.create("local"), "device": lambda: mx.kv.create("device")}


def ready(net, weights, train, *, sparse="lazy", devices=1, kvstore="None", optimizer="sgd", params=None,
          dtype=np.float64, network=None, **kwargs):  # fmt: skip
    """A module, bound, with these weights and an optimizer."""
    module = SVRGModule(
        symbol(net, dtype) if network is None else network, data_names=list(net.inputs),
        context=[mx.cpu(k) for k in range(devices)], sparse=sparse, **kwargs,
    )  # fmt: skip
    module.bind(train.provide_data, train.provide_label)
    set_weights(module, weights, dtype)
    module.init_optimizer(
        kvstore=STORES[kvstore]() if isinstance(kvstore, str) else kvstore,
        optimizer=optimizer,
        optimizer_params={"learning_rate": 0.25, **(params or {})},
    )
    return module


def set_weights(module, weights, dtype=np.float64):
    stypes = {name: entry["__storage_type__"] for name, entry in module.symbol.attr_dict().items()
              if "__storage_type__" in entry}  # fmt: skip
    arrays = {
        name: nd(value, dtype).tostype("row_sparse") if stypes.get(name) == "1" else nd(value, dtype)
        for name, value in weights.items()
    }
    module.init_params(arg_params=arrays, aux_params={}, force_init=True)


def training(module, train, epochs, begin_epoch=0):
    """The intermediate-level loop; yields after each step."""
    for epoch in range(begin_epoch, epochs):
        if module.snapshot_is_due(epoch):
            module.update_full_grads(train)
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
            yield module


__all__ = ["NETS", "Batches", "csr", "ready", "set_weights", "symbol", "training"]
