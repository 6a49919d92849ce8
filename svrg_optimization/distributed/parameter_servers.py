"""The workers of a job on mxnet's parameter servers, ``kvstore='dist_sync'``.

Servers know a key by its number. `keys.server_keys` says which keys there are and in which order they are made: here,
then the parameters by Module.init_optimizer, then the full gradients in `ParameterServers.start`.
"""

import atexit
import os
from typing import Any, List, Mapping, Optional, Sequence

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from .. import keys
from ..mxnet_api import internals
from ..mxnet_api.internals import GradientsOnDevices
from ..svrg.estimator import OnDevices
from ..svrg.full_gradient import zeros_for
from . import exchange_of_numbers, liveness, new_stores, notes, watch_client
from .shared_rows import SharedRows
from .states_on_servers import PLAIN_SERVERS, Settings, StatesOnServers
from .workers import COMPRESSED, STALE, Job, OnDevicesByName, Workers, make_keys


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
        self._servers, self._process = int(os.environ["DMLC_NUM_SERVER"]), os.getpid()
        self._proofs = keys.proof_keys(self._servers)
        self._shared_rows: Optional[SharedRows] = None
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
        proof = mx.nd.zeros(notes.size(self._servers))
        try:
            self.store.init([keys.EXCHANGE, *self._proofs], [exchange] + [proof] * self._servers)
        except MXNetError:
            raise RuntimeError(STALE) from None

    def _check_watch(self) -> None:
        """Warn if nobody notices that a process dies, or stands still."""
        client = watch_client.of_process()
        if client is None or not client.is_connected(watch_client.SECONDS_TO_CONNECT):
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

    def start(self, store: Any, parameters: GradientsOnDevices, optimizer: Any) -> None:
        """Write the first worker's weights, which the servers hold, into the `parameters`.

        Raises RuntimeError if a server doesn't answer as it should.
        """
        for key in keys.padding_keys(len(parameters), self._servers):
            self.store.init(key, mx.nd.zeros(1))
        make_keys(self.store, parameters)
        self._prove_servers()
        self._settings, self._states = Settings(optimizer), StatesOnServers(self.store, self._proofs)
        if self._servers_are_ours:
            self._let_servers_see(parameters)
        if any(arrays[0].dtype == np.float64 for _, arrays in parameters):
            self._check_float64()
        for name, arrays in parameters:
            internals.pull_from_store(self.store, name, arrays)
        # From here on, servers may write other things where they have answered.
        mx.nd.waitall()
        internals.barrier(self.store)

    def _prove_servers(self) -> None:
        """Raise RuntimeError, on every worker, unless each server runs our optimizer with our keys.

        mxnet swallows an exception on a server. So each worker pushes ones to the proof keys. Our optimizer answers
        with a number that depends on the names of all keys; a server without one, with the number of workers.
        """
        answers = [mx.nd.ones(notes.size(self._servers)) for _ in self._proofs]
        for key, answer in zip(self._proofs, answers):
            self.store.pushpull(key, answer, out=answer)
        whole = notes.is_whole(self._servers)
        answered = notes.of_servers([answer.asnumpy() for answer in answers], 1, whole)
        of_plain, of_ours = (self._expected(servers_are_ours, whole) for servers_are_ours in (False, True))
        for server, answer in enumerate(answered):
            if np.array_equal(answer, of_plain[server]) or np.array_equal(answer, of_ours[server]):
                continue
            if self._servers_update and (answer == self.number).all():
                raise RuntimeError(
                    "server {} doesn't run the optimizer that it was sent, so weights would become sums of gradients. "
                    "Its own output says why: install svrg_optimization, and whatever module defines the optimizer or "
                    "its lr_scheduler, where servers run".format(server)
                )
            raise RuntimeError("server {}: {}".format(server, STALE))
        self._servers_are_ours = self._servers_update and all(map(np.array_equal, answered, of_ours))

    def _expected(self, servers_are_ours: bool, whole: bool) -> List[Any]:
        """What each server should answer."""
        # The proofs' keys have the numbers from 1 on: 0 is the exchange.
        numbers = range(1, 1 + self._servers)
        if self._servers_update:
            of_keys = [keys.proof(self._server_keys, number, servers_are_ours) for number in numbers]
        else:
            of_keys = [self.number] * self._servers
        return notes.of_servers([np.full(notes.size(self._servers), each) for each in of_keys], 1, whole)

    def _let_servers_see(self, parameters: GradientsOnDevices) -> None:
        """Let servers of ours see the full gradients, in the place of which they show and take states."""
        zeros = zeros_for(parameters)[0]
        self.store.push([keys.full_gradient_key(name) for name in zeros], list(zeros.values()))
        mx.nd.waitall()

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

    def sum(self, totals: OnDevices) -> None:
        """Replace each device's array by the sum over devices and workers, in place."""
        super().sum(totals)
        if self._servers_are_ours:
            # When all workers have their sums, the servers may show states in their place.
            for on_device in totals:
                for array in on_device.values():
                    array.wait_to_read()
            internals.barrier(self.store)

    def pass_on_settings(self) -> None:
        """Pass on what was set of the optimizer since the last step.

        RuntimeError if the servers are plain mxnet's, which can't be told.
        """
        if not self._servers_update:
            return
        changes = self._settings.changes()
        if any(changes):
            self.check_settable()
            if self.rank == 0:
                self._states.set(changes)

    def check_settable(self) -> None:
        """Raise RuntimeError if servers update the weights and don't take other settings."""
        if self._servers_update and not self._servers_are_ours:
            raise RuntimeError(PLAIN_SERVERS.format("don't take other settings while they run"))

    def set_weights(self, weights: OnDevicesByName, at_rest: bool) -> None:
        """Let the servers go on with the first worker's weights, as `Workers.set_weights`."""
        if not self._servers_update:
            super().set_weights(weights, at_rest)
            return
        self._states.give_weights({name: arrays[0] for name, arrays in weights.items()}, at_rest)
        for name, arrays in weights.items():
            internals.pull_from_store(self.store, name, arrays)

    def shared_rows(self) -> SharedRows:
        """What tells the workers which rows of weights each of them touches."""
        if self._shared_rows is None:
            self._shared_rows = SharedRows(self.store, self.rank, self.number)
        return self._shared_rows

    def states_on_servers(self) -> Optional[StatesOnServers]:
        """The optimizer's states, if servers hold them. RuntimeError if those are plain mxnet's."""
        if not self._servers_update:
            return None
        if not self._servers_are_ours:
            raise RuntimeError(PLAIN_SERVERS.format("don't give its states away, or take others"))
        return self._states

    def leave(self) -> None:
        """End the job together with the other workers: the servers stop when all have left. A fork has none to end."""
        atexit.unregister(self.leave)
        if os.getpid() != self._process:
            return
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
