"""What a worker of a test's job does; not a test. Its argument says how, in JSON; see `Job` in test_distributed."""

import json
import logging
import os
import socket
import sys

import mxnet as mx
import numpy as np
import oracle
from models import OPTIMIZERS, iterator, nd, samples, symbol

from svrg_optimization import SVRGModule

PROBLEMS = {problem.name: problem for problem in oracle.PROBLEMS}


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


def counted(names):
    """Count the calls of these methods of a KVStore, with how many keys each sends."""
    counts = dict.fromkeys(names, 0)

    def count(name, usual):
        def call(self, key, *args, **kwargs):
            counts[name] += len(key) if isinstance(key, (list, tuple)) else 1
            return usual(self, key, *args, **kwargs)

        return call

    for name in names:
        setattr(mx.kvstore.KVStore, name, count(name, getattr(mx.kvstore.KVStore, name)))
    return counts


def main(job):
    """Train, and leave the weights after every step in a file for each worker."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    store = mx.kv.create(job["store"])
    rank = store.rank
    for name, value in job["of_rank"].get(str(rank), {}).items():
        job[name] = value
    problem = PROBLEMS[job["problem"]]
    data, weights = samples(problem, sum(job["shards"]))
    weights = {"fullyconnected0" + name[2:] if job["default_names"] else name: value for name, value in weights.items()}
    if job["weights_by_rank"]:
        weights = {name: value + rank for name, value in weights.items()}
    train = iterator(problem, shards_of(data, job["shards"])[rank], job["batch_size"], job["dtype"])
    name, params, _ = OPTIMIZERS[job["optimizer"]]
    contexts = [mx.cpu(k) for k in range(job["devices"])]
    if job["resume"] is None:
        module = SVRGModule(network(job), context=contexts, update_freq=job["update_freq"])
    else:
        module = SVRGModule.load(job["directory"] + "/worker{}".format(rank), job["resume"], True, context=contexts)
    steps, hold = [], job["hold"]

    def remember(param):
        steps.append({name: value.asnumpy() for name, value in module.get_params()[0].items()})
        reach("step", param.epoch)

    def raise_as_told(*_):
        raise ValueError("as the test wants")

    def reach(place, epoch):
        # The test kills a process while that has told it where it is.
        if hold == [place, epoch, rank]:
            with socket.create_connection(("127.0.0.1", job["port"])) as test:
                test.sendall(str(os.getpid()).encode())
                test.recv(1)

    def checkpoint(epoch, *_):
        if job["checkpoints"]:
            if hold == ["checkpoint", epoch, rank]:
                module.save_params(job["directory"] + "/worker{}-{:04d}.params.new".format(rank, epoch + 1))
                reach("checkpoint", epoch)
            module.save_checkpoint(job["directory"] + "/worker{}".format(rank), epoch + 1, True)

    if job.get("used"):
        store.init("something", mx.nd.zeros(1))
    if job.get("fails"):
        reach = raise_as_told
    counts = counted(["push", "pull", "pushpull", "init", "broadcast"])
    module.fit(
        train, kvstore=job["store"] if job["by_name"] else store, optimizer=name,
        optimizer_params=params() if callable(params) else params, begin_epoch=job["resume"] or 0,
        num_epoch=job["epochs"], batch_end_callback=remember, epoch_end_callback=checkpoint,
        full_grads_batch_end_callback=lambda param: reach("snapshot", param.epoch),
        initializer=None if job["resume"] else mx.init.Zero(),
        arg_params=None if job["resume"] else {name: nd(value, job["dtype"]) for name, value in weights.items()},
    )  # fmt: skip
    np.savez(
        os.path.join(job["directory"], "steps{}.npz".format(rank)),
        **{"{}/{}".format(k, name): value for k, step in enumerate(steps) for name, value in step.items()},
        **{"requests/" + name: count for name, count in counts.items()},
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
