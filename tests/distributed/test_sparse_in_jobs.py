"""Jobs of two workers whose steps live on rows: every step equals the oracle, on both workers in every bit."""

import logging
import os

import mxnet as mx
import numpy as np
import pytest
import sparse_oracle as so
from jobs import Running, _tell_watched, run_all, server
from sparse_models import Batches, ready

from svrg_optimization import SVRGModule
from svrg_optimization.distributed import new_stores, watch_client

WORKERS_UPDATE = {"MXNET_UPDATE_ON_KVSTORE": "0"}
N, SIZE, EPOCHS = 24, 8, 3
PARAMS = {
    "plain": ({}, so.sgd(), 0.0),
    "decay, momentum": ({"wd": 0.125, "momentum": 0.5}, so.sgd(0.5), 0.125),
}
# Network, mode, optimizer, devices.
JOBS = [
    ("machine", "lazy", "decay, momentum", 1), ("machine", "reweighted", "decay, momentum", 2),
    ("dense weight", "lazy", "plain", 2), ("dense weight", "dense", "decay, momentum", 1),
    ("embedding", "reweighted", "plain", 1), ("two inputs", "lazy", "decay, momentum", 2),
    ("logistic", "dense", "decay, momentum", 2), ("softmax", "reweighted", "decay, momentum", 1),
]  # fmt: skip


def shard(x, y, rank):
    """Half of each batch."""
    rows = [row for row in range(len(y)) if row % SIZE // (SIZE // 2) == rank]
    return so.taken(x, rows), y[rows]


def sparse_worker(job, rank):
    """What a worker does; forked with the package imported, as `jobs.worker`."""
    watch_client.join_as_worker()
    _tell_watched()
    new_stores.register()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    net, store = so.NETS[job["net"]], mx.kv.create("dist_sync")
    x, y, weights = net.samples(N)
    train = Batches(net, *shard(x, y, store.rank), size=SIZE // 2)
    params = {"rescale_grad": 1 / SIZE, **PARAMS[job["params"]][0]}
    prefix = os.path.join(job["directory"], "..", "checkpoint of {}".format(rank))
    if job["goes_on"]:
        module = SVRGModule.load(prefix, 1, load_optimizer_states=True, data_names=list(net.inputs))
        module.bind(train.provide_data, train.provide_label)
        module.init_optimizer(store, job["optimizer"], {"learning_rate": 0.25, **params})
    else:
        module = ready(net, weights, train, sparse=job["mode"], devices=job["devices"], kvstore=store, params=params,
                       optimizer=job["optimizer"], coefficient=job["coefficient"])  # fmt: skip
    assert module._sparse_mode == job["mode"]
    steps = {}
    for epoch in range(int(job["goes_on"]), EPOCHS):
        module.update_full_grads(train, epoch=epoch)
        train.reset()
        for batch in train:
            module.forward_backward(batch)
            module.update()
            now = module.get_params()[0]
            steps.update({"{}/{}".format(len(steps) // len(now), name): now[name].asnumpy() for name in now})
        if job["saves"]:
            module.save_checkpoint(prefix, epoch + 1, save_optimizer_states=True)
    np.savez(os.path.join(job["directory"], "steps{}.npz".format(store.rank)), **steps)


class OfTwoWorkers(so.Svrg):
    """Each worker adds the reweighted full gradient on the rows that its part of the batch names."""

    def _of_workers(self, rows):
        return [rows[: SIZE // 2], rows[SIZE // 2 :]]

    def snapshot(self):
        super().snapshot()
        parts = [part for rows, _ in self.batches for part in self._of_workers(rows)]
        self.of_workers = so.reweighting(self.net, self.x, parts)

    def direction(self, k, rows, alpha=1.0):
        for name, value in self.of_workers.items():
            named = [self.net.named(name, so.taken(self.x, part)) for part in self._of_workers(rows)]
            share = np.where(sum(named) > 0, sum(named) / 2, 1.0)
            self.factors[k][name] = value * share.reshape((-1,) + (1,) * (value.ndim - 1))
        return super().direction(k, rows, alpha)


def half_at_first(clock):
    """A coefficient."""
    return 0.5 if clock.epoch == 0 else 0.0


def settings(directory, net, mode, params, devices, coefficient=1.0, optimizer="sgd", saves=False, goes_on=False):
    directory.mkdir()
    return {"directory": str(directory), "net": net, "mode": mode, "params": params, "devices": devices,
            "coefficient": coefficient, "optimizer": optimizer, "saves": saves, "goes_on": goes_on,
            "shards": [N // 2, N // 2]}  # fmt: skip


def expected(job, alpha=lambda epoch: 1.0):
    net = so.NETS[job["net"]]
    x, y, weights = net.samples(N)
    _, step, decay = PARAMS[job["params"]]
    oracle = OfTwoWorkers(net, weights, x, y, mode=job["mode"], settings=so.Settings(step, 0.25, decay), size=SIZE)
    return list(oracle.run(EPOCHS, update_freq=1, alpha=alpha))


def assert_equal_steps(steps, wanted):
    for of_worker in steps:
        assert len(of_worker) == len(wanted) == EPOCHS * N // SIZE
        for actual, right, of_first in zip(of_worker, wanted, steps[0]):
            for name in right:
                np.testing.assert_array_equal(actual[name], of_first[name])
                np.testing.assert_allclose(actual[name], right[name], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("servers_update", [True, False])
def test_every_step_of_both_workers_equals_the_oracle(servers_update, tmp_path):
    # Where workers update, mxnet can't add up whole gradients that are row_sparse.
    known = [each for each in JOBS if servers_update or each[1] != "dense"]
    jobs = [settings(tmp_path / str(number), *each) for number, each in enumerate(known)]
    for start in range(0, len(jobs), 4):
        part = jobs[start : start + 4]
        environment = {} if servers_update else WORKERS_UPDATE
        for job, (steps, _) in zip(
            part, run_all(part, servers=[server], environment=environment, worker=sparse_worker)
        ):
            assert_equal_steps(steps, expected(job))


def test_whole_gradients_that_mxnet_cannot_add_up(tmp_path):
    job = settings(tmp_path / "job", "logistic", "dense", "plain", 1)
    with Running(job, environment=WORKERS_UPDATE, worker=sparse_worker) as running:
        running.wait_for_end("worker 0")
        assert "x_weight is row_sparse, and the KVStore can't add it up" in running.output("worker 0")


def test_plain_steps_after_steps_on_rows(tmp_path):
    # With servers, those go on with the weights that the workers have had.
    job = settings(tmp_path / "job", "logistic", "lazy", "plain", 1, half_at_first)
    ((steps, _),) = run_all([job], servers=[server], worker=sparse_worker)
    assert_equal_steps(steps, expected(job, alpha=lambda epoch: 0.5 if epoch == 0 else 0.0))


@pytest.mark.parametrize("servers_update", [True, False])
def test_a_job_goes_on_bit_for_bit(servers_update, tmp_path):
    # The workers have the states of weights in rows, and servers those of the others.
    kinds = [("machine", "lazy", "decay, momentum", 1), ("machine", "reweighted", "plain", 1, 1.0, "adam")]
    environment = {} if servers_update else WORKERS_UPDATE
    for number, kind in enumerate(kinds):
        (tmp_path / str(number)).mkdir()
    first, then = (
        run_all(
            [settings(tmp_path / str(number) / name, *kind, saves=True, goes_on=name == "then")
             for number, kind in enumerate(kinds)],
            servers=[server], environment=environment, worker=sparse_worker,
        )
        for name in ("first", "then")
    )  # fmt: skip
    for (whole, _), (resumed, _) in zip(first, then):
        for of_first, of_then in zip(whole, resumed):
            assert len(of_then) == len(of_first) * (EPOCHS - 1) // EPOCHS
            for ours, theirs in zip(of_then, of_first[-len(of_then) :]):
                for name in theirs:
                    np.testing.assert_array_equal(ours[name], theirs[name])
