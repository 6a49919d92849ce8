"""Trainings that are saved and resumed."""

import mxnet as mx
import numpy as np
import oracle
from models import iterator, nd, samples, symbol

from svrg_optimization import SVRGModule
from svrg_optimization.step_sizes import BarzilaiBorwein

SOFTMAX = oracle.PROBLEMS[2]
PARAMS = {"learning_rate": 0.125, "wd": 0.125}
# Those whose state is more than an array for each weight come with what makes it so.
OPTIMIZERS = {
    "sgd": {}, "momentum": {"optimizer": "sgd", "momentum": 0.9}, "adam": {}, "nadam": {}, "nag": {"momentum": 0.9},
    "rmsprop": {}, "adagrad": {}, "adadelta": {}, "ftrl": {}, "ftml": {}, "adamax": {}, "signum": {}, "lamb": {},
    "dcasgd": {}, "lars": {"momentum": 0.9}, "sgld": {}, "adamw": {},
    "scheduled": {"optimizer": "sgd", "momentum": 0.9,
                  "lr_scheduler": lambda: mx.lr_scheduler.FactorScheduler(4, 0.7, base_lr=0.125)},
    # Both end after the second epoch, and keep the last rate.
    "poly": {"optimizer": "sgd", "lr_scheduler": lambda: mx.lr_scheduler.PolyScheduler(6, final_lr=0.01)},
    "auto": {"optimizer": "sgd", "learning_rate": "auto"},
    "auto with momentum": {"optimizer": "nag", "learning_rate": "auto", "momentum": 0.9},
    "Barzilai-Borwein": {"optimizer": "sgd", "learning_rate": None, "lr_scheduler": lambda: BarzilaiBorwein(0.125)},
    "cosine": {"optimizer": "adam", "lr_scheduler": lambda: mx.lr_scheduler.CosineScheduler(6, final_lr=0.01)},
}  # fmt: skip


def settings_of(name):
    params = {key: value() if callable(value) else value for key, value in OPTIMIZERS[name].items()}
    optimizer = params.pop("optimizer", name)
    return dict(optimizer=optimizer, optimizer_params={**PARAMS, **params})


def network(dropout):
    if not dropout:
        return symbol(SOFTMAX)
    hidden = mx.sym.Dropout(mx.sym.Variable("data"), p=0.5)
    return mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=3, name="fc"),
                                mx.sym.Variable("softmax_label"), name="out")  # fmt: skip


def new_module(devices=1, update_freq=3, dropout=False):
    return SVRGModule(network(dropout), context=[mx.cpu(i) for i in range(devices)], update_freq=update_freq)


def fit(module, begin, end, store="local", optimizer="momentum", callback=None):
    data, weights = samples(SOFTMAX, 10)
    # float32: some of mxnet's optimizers take nothing else.
    module.fit(iterator(SOFTMAX, data, 4, np.float32), begin_epoch=begin, num_epoch=end, kvstore=store,
               arg_params={name: nd(value, np.float32) for name, value in weights.items()}, aux_params={},
               epoch_end_callback=callback, **settings_of(optimizer))  # fmt: skip
