"""What a worker of a test's job does; `jobs.DEFAULTS` has the settings. Not a test."""

import contextlib
import gc
import logging
import os
import socket
import sys
import weakref
from pathlib import Path

import mxnet as mx
import numpy as np
import oracle
from bucketing import LONGEST, in_buckets, summed
from models import OPTIMIZERS, assert_same, iterator, nd, samples, symbol

from svrg_optimization import SVRGBucketingModule, SVRGModule
from svrg_optimization.mxnet_api import internals
from svrg_optimization.svrg import auto_step

PROBLEMS = {problem.name: problem for problem in oracle.PROBLEMS}
# What a worker prints after each step.
AFTER_STEP = "-- after a step"


def shards_of(data, sizes):
    """The data of each worker."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [data[start : start + size] for start, size in zip(starts, sizes)]


def network(job):
    """The network of the job's problem, with mxnet's own names for its layer if the job says so."""
    if not job["default_names"]:
        return symbol(PROBLEMS[job["problem"]])
    with mx.name.NameManager():
        layer = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=3)
    return mx.sym.SoftmaxOutput(layer, mx.sym.Variable("softmax_label"), name="out")


def start_weights(job, rank):
    """The weights that this worker begins with."""
    _, weights = samples(PROBLEMS[job["problem"]], sum(job["shards"]))
    shift = rank if job["weights_by_rank"] else 0
    return {
        "fullyconnected0" + name[2:] if job["default_names"] else name: nd(value + shift, job["dtype"])
        for name, value in weights.items()
    }


@mx.optimizer.register
class Failing(mx.optimizer.Optimizer):
    """An optimizer with a mistake."""

    def create_state(self, index, weight):
        return None

    def update(self, index, weight, grad, state):
        raise ValueError("as the test wants")


class CaughtError(Exception):
    """What a program catches before it ends."""


def hold(job, rank, place, epoch=None):
    """Tell the test if this is where it wants the first worker to stop; go on, or do what it says."""
    if job["hold"] != [place, epoch] or rank != 0:
        return
    with socket.create_connection(("127.0.0.1", job["port"])) as test:
        test.sendall(str(os.getpid()).encode())
        wish = test.recv(100).decode()
    if wish == "exception":
        raise ValueError("as the test wants")
    if wish == "caught exception":
        raise CaughtError
    if wish:
        sys.exit(int(wish.split()[1]))


class Training:
    """One worker's training."""

    def __init__(self, job, rank):
        self.job, self.rank, self.steps = job, rank, []
        self.prefix = job["directory"] + "/worker{}".format(rank)
        problem = PROBLEMS[job["problem"]]
        data, _ = samples(problem, sum(job["shards"]))
        make_train = in_buckets if job["buckets"] else iterator
        self.train = make_train(problem, shards_of(data, job["shards"])[rank], job["batch_size"], dtype=job["dtype"])
        name, params, _ = OPTIMIZERS.get(job["optimizer"], (job["optimizer"], {}, None))
        self.optimizer = dict(optimizer=name, optimizer_params=params() if callable(params) else params)
        self.optimizer["optimizer_params"] = {**self.optimizer["optimizer_params"], **job["params"]}
        if job["halves"]:
            self.optimizer = dict(optimizer="sgd", optimizer_params={"learning_rate": 0.5})
        self.rate = 0.5
        self.module = self._module([mx.cpu(k) for k in range(job["devices"])])

    def _module(self, contexts):
        if self.job["plain"]:
            return mx.mod.Module(network(self.job), context=contexts)
        if self.job["buckets"]:
            sym_gen, kwargs = summed(PROBLEMS[self.job["problem"]]), {"context": contexts}
            if self.job["resume"] is None:
                return SVRGBucketingModule(sym_gen, LONGEST, update_freq=self.job["update_freq"], **kwargs)
            return SVRGBucketingModule.load(self.prefix, self.job["resume"], sym_gen, LONGEST, True, **kwargs)
        if self.job["resume"] is None:
            return SVRGModule(network(self.job), context=contexts, update_freq=self.job["update_freq"],
                              snapshots=self.job["snapshots"], coefficient=self.job["coefficient"],
                              fixed_param_names=list(self.job["fixed"]))  # fmt: skip
        return SVRGModule.load(self.prefix, self.job["resume"], True, context=contexts,
                               fixed_param_names=list(self.job["fixed"]))  # fmt: skip

    def fit(self, store):
        """By the high-level interface."""
        start = {} if self.job["resume"] else dict(arg_params=start_weights(self.job, self.rank))
        if not self.job["plain"]:
            start["full_grads_batch_end_callback"] = lambda param: self.reach("snapshot", param.epoch)
            start["tol"] = self.job["tol"]
        self.module.fit(
            self.train, kvstore=store, num_epoch=self.job["epochs"],
            begin_epoch=self.job["begin_epoch"] or self.job["resume"] or 0,
            batch_end_callback=lambda param: self.remember(param.epoch),
            epoch_end_callback=lambda epoch, *_: self.checkpoint(epoch), initializer=mx.init.Zero(),
            **start, **self.optimizer,
        )  # fmt: skip

    def train_by_hand(self, store):
        """By the intermediate-level interface; all workers take as many steps as the one with the fewest batches."""
        self.module.bind(self.train.provide_data, self.train.provide_label)
        self.module.init_params(arg_params=start_weights(self.job, self.rank), aux_params={})
        self.module.init_optimizer(kvstore=store, **self.optimizer)
        if self.job["borrows"]:
            lender, self.module = self.module, self._module([mx.cpu(k) for k in range(self.job["devices"])])
            self.module.bind(self.train.provide_data, self.train.provide_label, shared_module=lender)
            self.module.borrow_optimizer(lender)
        for epoch in range(self.job["epochs"]):
            if epoch % self.job["update_freq"] == 0:
                self.module.update_full_grads(self.train)
            self.train.reset()
            for _ in range(-(-min(self.job["shards"]) // self.job["batch_size"])):
                self.module.forward_backward(next(self.train))
                self.module.update()
                self.remember(epoch)

    def remember(self, epoch):
        """Keep the weights after a step."""
        self.steps.append({name: value.asnumpy() for name, value in self.module.get_params()[0].items()})
        if self.job["halves"] and len(self.steps) % 3 == 0:
            self.halve(len(self.steps) // 3)
        print(AFTER_STEP)
        self.reach("step", epoch)

    def halve(self, time):
        """Halve the learning rate, each time in another way."""
        optimizer, self.rate = internals.optimizer(self.module), self.rate / 2
        if time == 1:
            optimizer.set_learning_rate(self.rate)
        elif time == 2:
            optimizer.default_opt.lr = self.rate
        elif time == 3:
            optimizer.lr_scheduler = mx.lr_scheduler.FactorScheduler(10**6, 0.5, base_lr=self.rate)
        elif time == 4:
            optimizer.lr_scheduler.base_lr = self.rate
        elif time == 5:
            optimizer.set_lr_mult(dict.fromkeys(self.module.get_params()[0], 0.5))
        else:
            optimizer.lr_scheduler = None
            optimizer.lr = 2 * self.rate

    def checkpoint(self, epoch):
        """Save a checkpoint, if the job has them."""
        if self.job["sets"] and self.rank == 0:
            self.module.set_params(
                *({name: each.copy() for name, each in of.items()} for of in self.module.get_params())
            )
        if self.job["checkpoints"]:
            # As if one had been written half.
            Path(self.prefix + "-{:04d}.params.new".format(epoch + 1)).write_bytes(b"half")
            self.reach("checkpoint", epoch)
            before = {name: value.asnumpy() for name, value in self.module.full_gradient.items()}
            self.module.save_checkpoint(self.prefix, epoch + 1, True)
            assert_same({name: value.asnumpy() for name, value in self.module.full_gradient.items()}, before)

    def reach(self, place, epoch):
        """Stop here, if the test wants this worker to."""
        hold(self.job, self.rank, place, epoch)

    def save(self):
        """Leave the weights after every step in a file."""
        weights = {"{}/{}".format(k, name): value for k, step in enumerate(self.steps) for name, value in step.items()}
        np.savez(os.path.join(self.job["directory"], "steps{}.npz".format(self.rank)), **weights)


def main(job, rank):
    """Train as the job says."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with contextlib.suppress(CaughtError):
        train(job, rank)


def train(job, rank):
    """Make the store, and train."""
    hold(job, rank, "before the store")
    if job["exits"]:
        return
    # A program that makes a store itself must pass the store: see parameter_servers.create.
    store = job["store"] if job["by_name"] else mx.kv.create(job["store"])
    hold(job, rank, "loading data")
    if job["probe"]:
        auto_step._PROBE = job["probe"]
    job = {**job, **job["of_rank"].get(rank, {})}
    if job["used"]:
        store.init("something", mx.nd.zeros(1))
    if job["compression"]:
        store.set_gradient_compression({"type": "2bit", "threshold": job["compression"]})
    training = Training(job, rank)
    way = training.train_by_hand if job["by_hand"] else training.fit
    way(store)
    trained = training.module._curr_module if job["buckets"] else training.module
    assert trained._kvstore.rank == rank
    training.save()
    hold(job, rank, "end")
    if not job["plain"]:
        # What takes part in the job until the process ends must not keep the module.
        lives, _held = weakref.ref(training.module), trained._workers
        del training, trained, way
        gc.collect()
        assert lives() is None
    else:
        # What happens when a Python ends that wasn't forked.
        internals.free(store)
