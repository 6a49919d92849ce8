"""The workers of a job on mxnet's parameter servers, ``kvstore='dist_sync'``.

Servers know a key by its number. `keys.server_keys` says which keys there are and in which order they are made: here,
then the parameters by Module.init_optimizer, then the full gradients in `ParameterServers.start`.
"""

import atexit
import os
from typing import Any, List, Mapping, Sequence

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from .. import keys
from ..mxnet_api import internals
from ..mxnet_api.internals import GradientsOnDevices
from . import exchange_of_numbers, liveness, new_stores, watch_client
from .workers import COMPRESSED, STALE, Job, Workers, make_keys

# How long a worker that has come to the job waits for the scheduler's watch, which has listened for longer.
_SECONDS_TO_CONNECT = 5


class ParameterServers(Workers):
    """The workers and servers of a job, as one worker sees them.

    Arguments as for `join`. A store must be new, for its first keys are made here.
    """

    # The store with which a module of this process has joined the job. It is held, since a store that is freed ends the
    # job. A process can take part in one job only: mxnet waits for ever when it makes a second store.
    store_of_process: Any = None

    def __init__(self, kvstore: Any, job: Job, optimizer: Mapping[str, Any]) -> None:
        if ParameterServers.store_of_process is not None:
            raise RuntimeError(STALE)
        liveness.fail_fast()
        store = mx.kv.create(kvstore) if isinstance(kvstore, str) else kvstore
        ParameterServers.store_of_process = store
        new_stores.watch(store)
        super().__init__(store, store.rank, store.num_workers, job.batch_size, job.logger)
        self._servers = int(os.environ["DMLC_NUM_SERVER"])
        self._proofs = keys.proof_keys(self._servers)
        self._init_first_keys()
        self._check_watch()
        if self.rank == 0:
            internals.send_to_servers(self.store, liveness.BEGUN)
        atexit.register(self.leave)
        self._server_keys = keys.server_keys([name for name, _, _ in job.parameters], self._servers)
        self._servers_update = job.servers_update(store)
        self._agree_on(job, optimizer, self._servers_update)
        if self._servers_update:
            self.optimizer_settings = {"server_keys": self._server_keys}

    def _init_first_keys(self) -> None:
        exchange = mx.nd.zeros((self.number, exchange_of_numbers.WIDTH))
        try:
            self.store.init([keys.EXCHANGE, *self._proofs], [exchange] + [mx.nd.zeros(self._servers)] * self._servers)
        except MXNetError:
            raise RuntimeError(STALE) from None

    def _check_watch(self) -> None:
        """Warn if nobody notices that a process dies, or stands still."""
        client = watch_client.of_process()
        if client is None or not client.is_connected(_SECONDS_TO_CONNECT):
            self._logger.warning(
                "nobody watches this job: if one of its processes dies, the others wait for ever. No scheduler of "
                "svrg_optimization.launch or python -m svrg_optimization.server answers at %s:%d, SVRG_WATCH_PORT",
                *liveness.address_of_watch(os.environ),
            )
        elif not liveness.timeout(os.environ):
            self._logger.warning(
                "PS_HEARTBEAT_INTERVAL and PS_HEARTBEAT_TIMEOUT aren't set: if a process of this job stands still, the "
                "others wait for ever. Set them to 1 and 5 for every process"
            )

    def start(self, store: Any, parameters: GradientsOnDevices) -> None:
        """Write the first worker's weights, which the servers hold, into the `parameters`.

        Raises RuntimeError if a server doesn't answer as it should.
        """
        make_keys(self.store, parameters)
        self._prove_servers()
        if any(arrays[0].dtype == np.float64 for _, arrays in parameters):
            self._check_float64()
        for name, arrays in parameters:
            self.store.pull(name, out=arrays)

    def _prove_servers(self) -> None:
        """Raise RuntimeError, on every worker, unless each server runs our optimizer with our keys.

        mxnet swallows an exception on a server. So each worker pushes ones to the proof keys. Our optimizer answers
        with a number that depends on the names of all keys; a server without one, with the number of workers.
        """
        answers = [mx.nd.ones(self._servers) for _ in self._proofs]
        for key, answer in zip(self._proofs, answers):
            self.store.pushpull(key, answer, out=answer)
        # The proofs' keys have the numbers from 1 on: 0 is the exchange.
        for number, answer in enumerate((answer.asnumpy() for answer in answers), 1):
            expected = keys.proof(self._server_keys, number) if self._servers_update else self.number
            wrong = np.flatnonzero(answer != expected)
            if not wrong.size:
                continue
            # mxnet keeps a small array on one server, which it chooses by this rule. An array that is larger than
            # MXNET_KVSTORE_BIGARRAY_BOUND is on all servers, with one element on each.
            server = number * 9973 % self._servers if wrong.size == self._servers else int(wrong[0])
            if self._servers_update and answer[wrong[0]] == self.number:
                raise RuntimeError(
                    "server {} doesn't run the optimizer that it was sent, so weights would become sums of gradients. "
                    "Its own output says why: install svrg_optimization, and whatever module defines the optimizer or "
                    "its lr_scheduler, where servers run".format(server)
                )
            raise RuntimeError("server {}: {}".format(server, STALE))

    def _check_float64(self) -> None:
        """Warn if the servers round float64 to float32."""
        third = mx.nd.array([1 / 3], dtype=np.float64)
        kept = mx.nd.zeros(1, dtype=np.float64)
        self.store.init(keys.EXCHANGE + "64", third)
        self.store.pull(keys.EXCHANGE + "64", out=kept)
        if kept.asscalar() != 1 / 3:
            self._logger.warning(
                "the servers round float64 to float32, which mxnet 1.9.1 does by accident: start them by "
                "'python -m svrg_optimization.server', and float64 stays float64"
            )

    def _gather(self, numbers: Sequence[int]) -> List[List[int]]:
        try:
            return super()._gather(numbers)
        except MXNetError as error:
            # What mxnet says in pushpull().
            if "Compression not supported" in str(error):
                raise ValueError(COMPRESSED.format(self.store.type)) from None
            raise

    def check_states_are_here(self) -> None:
        """Raise RuntimeError if the optimizer's states are on the servers."""
        if self._servers_update:
            raise RuntimeError(
                "the optimizer runs on the parameter servers, and mxnet can't save or load its states there; set "
                "MXNET_UPDATE_ON_KVSTORE=0 for all workers, which then run the optimizer themselves, with the same "
                "result and the same traffic"
            )

    def leave(self) -> None:
        """End the job together with the other workers: the servers stop when all have left."""
        atexit.unregister(self.leave)
        watch_client.call(lambda client: client.leave())
        waiting = liveness.say_later("worker {}: done; waiting for the other workers".format(self.rank))
        # Pushes that are still queued would be lost, and the servers would wait for them.
        mx.nd.waitall()
        internals.barrier(self.store)
        waiting.cancel()
        if self.rank == 0:
            internals.send_to_servers(self.store, liveness.OVER)
        watch_client.call(lambda client: client.say_goodbye())
        liveness.end_unless_left()
        internals.free(self.store)
        liveness.has_left()
