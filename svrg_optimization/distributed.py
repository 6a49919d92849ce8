"""Training with the workers of a job, on mxnet's parameter servers: what they agree on, and how they leave.

The full gradient itself goes through the keys that `keys.full_gradient_key` names, by `full_gradient.reduce`.
"""

import atexit
import faulthandler
import gc
import logging
import os
import sys
import traceback
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from . import exchange, keys, mxnet_internals, watch
from .server import BEGUN, OVER

_STALE = (
    "the KVStore has been used before: its servers don't give back what was sent. A job's store serves one module; "
    "start a new process for another"
)


def description(default_optimizer: Any, **params: Any) -> List[Any]:
    """What two workers share if they have the same optimizer: its name and its settings, as far as they are simple.

    >>> description('sgd', learning_rate=0.5)
    ['sgd', ('learning_rate', 0.5)]
    """
    if not isinstance(default_optimizer, str):
        default_optimizer, params = type(default_optimizer).__name__, vars(default_optimizer)
    simple = {name: value for name, value in params.items() if isinstance(value, (bool, int, float, str))}
    return [default_optimizer.lower(), *sorted(simple.items())]


class Alone:
    """A worker without others."""

    def __init__(self, store: Any = None) -> None:
        self.store = store
        # What _SVRGOptimizer must know about the job.
        self.optimizer_settings: Dict[str, Any] = {}

    def start(self) -> None:
        """Nothing to do."""

    def samples_of_all(self, samples: int) -> int:
        """The number of samples of all workers."""
        return samples

    def steps_of_all(self, train_data: Any, schedule: Mapping[str, int]) -> Optional[int]:
        """The number of steps in an epoch: as many as there are batches."""
        return None

    def check_states_are_here(self) -> None:
        """They are."""


class Job:
    """The workers and servers of a job, as one worker sees them.

    Parameters
    ----------
    store : KVStore
        New: its first keys are made here.
    module : SVRGModule
        Bound and with weights.
    optimizer : dict
        Its settings.

    Raises
    ------
    RuntimeError
        The store isn't new; or the workers have different settings, networks or optimizers.
    """

    def __init__(self, store: Any, module: Any, optimizer: Mapping[str, Any]) -> None:
        self.store, self._module = store, module
        self.rank, self._workers = store.rank, store.num_workers
        self._servers = int(os.environ["DMLC_NUM_SERVER"])
        self._proofs = keys.proof_keys(self._servers)
        self._steps_are_equal = False
        try:
            store.init([keys.EXCHANGE, *self._proofs], [mx.nd.zeros((self._workers, exchange.WIDTH))]
                       + [mx.nd.zeros(self._servers)] * self._servers)  # fmt: skip
        except MXNetError:
            raise RuntimeError(_STALE) from None
        self._watch = self._start_watch()
        _process["rank"] = self.rank
        _fail_fast()
        atexit.register(self._leave)
        self._servers_update = mxnet_internals.updates_on_kvstore(module, store)
        self._agree(optimizer)
        self.optimizer_settings = {"server_keys": self._server_keys} if self._servers_update else {}

    # ------------------------------------------------------------------------------------------------- the start

    def _start_watch(self) -> Optional[watch.Watch]:
        if not watch.timeout(os.environ):
            logging.warning(
                "PS_HEARTBEAT_INTERVAL and PS_HEARTBEAT_TIMEOUT aren't set: if a process of this job dies, the others "
                "wait for ever. Start the job by svrg_optimization.launch, or set them to 1 and 5 for every process"
            )
            return None
        if self.rank == 0:
            mxnet_internals.send_to_servers(self.store, BEGUN)
        return watch.Watch(
            mxnet_internals.watcher(self.store, os.environ), "worker {}".format(self.rank),
            "Start the job again from its checkpoint.",
        )  # fmt: skip

    def _agree(self, optimizer: Mapping[str, Any]) -> None:
        parameters = mxnet_internals.parameter_arrays(self._module)
        self._batch_size = sum(mxnet_internals.rows_on_devices(self._module))
        settings = {
            "update_freq": self._module.update_freq,
            "MXNET_UPDATE_ON_KVSTORE": int(self._servers_update),
            "batch size": self._batch_size,
            "optimizer": description(**optimizer),
            "parameter names": [name for name, _ in parameters],
            "parameter shapes and types": [
                (name, arrays[0].shape, np.dtype(arrays[0].dtype).name) for name, arrays in parameters
            ],
        }
        self._compare(settings, self._gather([exchange.as_number(value) for value in settings.values()]))

    def _compare(self, settings: Mapping[str, Any], gathered: Sequence[Sequence[int]]) -> None:
        found = exchange.differences(settings, gathered, self.rank)
        if found:
            raise RuntimeError("the workers of this job differ in {}. Start them all with the same program and "
                               "arguments".format("; and in ".join(found)))  # fmt: skip

    @property
    def _server_keys(self) -> List[str]:
        return keys.server_keys(mxnet_internals.parameter_names(self._module), self._servers)

    def start(self) -> None:
        """Begin at the weights of the store, which are the first worker's, on servers that work.

        Raises
        ------
        RuntimeError
            A server doesn't answer as it should.
        """
        self._prove_servers()
        parameters = mxnet_internals.parameter_arrays(self._module)
        if any(arrays[0].dtype == np.float64 for _, arrays in parameters):
            self._check_float64()
        for name, arrays in parameters:
            self.store.pull(name, out=arrays)
        mxnet_internals.take_weights_of_devices(self._module)

    def _prove_servers(self) -> None:
        """Raise RuntimeError, on every worker, unless each server answers as it should.

        A server that runs our optimizer answers by what only an optimizer can know that has the same keys; one
        without an optimizer, by the sum over the workers. mxnet swallows what is raised on a server.
        """
        answers = [mx.nd.ones(self._servers) for _ in self._proofs]
        for key, answer in zip(self._proofs, answers):
            self.store.pushpull(key, answer, out=answer)
        # The numbers of the proofs' keys: they come after that of the exchange.
        for number, answer in enumerate((answer.asnumpy() for answer in answers), 1):
            expected = keys.proof(self._server_keys, number) if self._servers_update else self._workers
            wrong = np.flatnonzero(answer != expected)
            if not wrong.size:
                continue
            # A small array is on one server, by mxnet's rule; a larger one than MXNET_KVSTORE_BIGARRAY_BOUND, on all.
            server = number * 9973 % self._servers if wrong.size == self._servers else int(wrong[0])
            if self._servers_update and answer[wrong[0]] == self._workers:
                raise RuntimeError(
                    "server {} doesn't run the optimizer that it was sent, so weights would become sums of gradients. "
                    "Its own output says why: install svrg_optimization, and whatever module defines the optimizer or "
                    "its lr_scheduler, where servers run".format(server)
                )
            raise RuntimeError("server {}: {}".format(server, _STALE))

    def _check_float64(self) -> None:
        """Warn if the servers round float64 to float32."""
        third = mx.nd.array([1 / 3], dtype=np.float64)
        kept = mx.nd.zeros(1, dtype=np.float64)
        self.store.init(keys.EXCHANGE + "64", third)
        self.store.pull(keys.EXCHANGE + "64", out=kept)
        if kept.asscalar() != 1 / 3:
            logging.warning(
                "the servers round float64 to float32, which mxnet 1.9.1 does by accident: start them by "
                "'python -m svrg_optimization.server', and float64 stays float64"
            )

    # ---------------------------------------------------------------------------------------------- on the way

    def _gather(self, numbers: Sequence[int]) -> List[List[int]]:
        """What each worker gave, on every worker. All workers call it at the same point."""
        rows = np.zeros((self._workers, exchange.WIDTH), np.float32)
        rows[self.rank] = exchange.encode(numbers)
        array = mx.nd.array(rows)
        self.store.pushpull(keys.EXCHANGE, array, out=array)
        gathered = array.asnumpy()
        if not np.array_equal(gathered[self.rank], rows[self.rank]):
            raise RuntimeError(_STALE)
        return [exchange.decode(row) for row in gathered]

    def samples_of_all(self, samples: int) -> int:
        """The number of samples of all workers; says if they have different numbers of batches."""
        of_each = [numbers[0] for numbers in self._gather([samples])]
        unequal = exchange.unequal([-(-each // self._batch_size) for each in of_each])
        if unequal and not self._steps_are_equal:
            self._module.logger.warning(
                "The workers have different numbers of batches: %s. All must take the same number of steps, as fit() "
                "does, or they wait for each other for ever", unequal,
            )  # fmt: skip
        return sum(of_each)

    def steps_of_all(self, train_data: Any, schedule: Mapping[str, int]) -> Optional[int]:
        """The number of steps in an epoch that every worker has batches for.

        Raises
        ------
        RuntimeError
            The workers differ in the `schedule`.
        """
        if not hasattr(train_data, "__len__"):
            self._module.logger.info("Counting the batches of train_data, for all workers to take as many steps")
        gathered = self._gather([count_batches(train_data), *schedule.values()])
        self._compare(schedule, [numbers[1:] for numbers in gathered])
        counts = [numbers[0] for numbers in gathered]
        if exchange.unequal(counts):
            self._module.logger.warning("Each epoch has %d steps, the smallest number of batches: %s",
                                        min(counts), exchange.unequal(counts))  # fmt: skip
        self._steps_are_equal = True
        return min(counts)

    def check_states_are_here(self) -> None:
        """Raise RuntimeError if the optimizer's states are on the servers."""
        if self._servers_update:
            raise RuntimeError(
                "the optimizer runs on the parameter servers, and mxnet can't save or load its states there; set "
                "MXNET_UPDATE_ON_KVSTORE=0 for all workers, which then run the optimizer themselves, with the same "
                "result and the same traffic"
            )

    # -------------------------------------------------------------------------------------------------- the end

    def _leave(self) -> None:
        """End with the other workers: the servers stop when all have left."""
        waiting = watch.say_later("worker {}: done; waiting for the other workers".format(self.rank))
        # Pushes that are still queued would be lost, and the servers would wait for them.
        mx.nd.waitall()
        mxnet_internals.barrier(self.store)
        waiting.cancel()
        if self._watch is not None:
            self._watch.stop()
            if self.rank == 0:
                mxnet_internals.send_to_servers(self.store, OVER)
        watch.end_unless_left()
        mxnet_internals.free(self.store)
        faulthandler.cancel_dump_traceback_later()


def _fail_fast() -> None:
    """Let an exception that nobody catches end this worker at once.

    Otherwise mxnet would wait, on the way out, for the other workers, who wait for this one's gradients.
    """
    if not (hasattr(sys, "ps1") or sys.flags.interactive or isinstance(sys.excepthook, _ReportAndEnd)):
        sys.excepthook = _ReportAndEnd(sys.excepthook)


class _ReportAndEnd:
    def __init__(self, usual: Any) -> None:
        self._usual = usual

    def __call__(self, kind: Any, value: Any, trace: Any) -> None:
        self._usual(kind, value, trace)
        rank, what = _process["rank"], "".join(traceback.format_exception_only(kind, value)).strip()
        watch.end("worker{} ends: {}".format("" if rank is None else " {}".format(rank), what), 1)


# ------------------------------------------------------------------------------------------------ joining a job

# The store of this process, its rank, and whether a module has joined the job. A process can take part in one: freeing
# a second store would stop the servers of the first.
_process: Dict[str, Any] = {"store": None, "rank": None, "joined": False}

if os.environ.get("DMLC_ROLE") == "worker":
    # A program may make its store, and fail, long before a module joins.
    _fail_fast()


def join(kvstore: Any, module: Any, **optimizer: Any) -> Union[Alone, Job]:
    """Take part in the job of a distributed store; alone with any other.

    Parameters
    ----------
    kvstore : str, KVStore or None
        As init_optimizer takes it.
    module, **optimizer
        As for `Job`.

    Raises
    ------
    RuntimeError
        Another module of this process has joined, or what `Job` raises.
    """
    if not isinstance(kvstore, str) and hasattr(kvstore, "join"):
        # A store that says how its workers work together: see horovod_store.
        return kvstore.join(module, optimizer)
    if not is_distributed(kvstore):
        return Alone(kvstore)
    if _process["joined"]:
        raise RuntimeError(_STALE)
    _process["joined"] = True
    return Job(_store_of(kvstore), module, optimizer)


def join_by(other: Any) -> Union[Alone, Job]:
    """Take part in the job by the store and keys of another module."""
    if hasattr(other, "_job"):
        return other._job
    store = mxnet_internals.kvstore(other)
    if is_distributed(store):
        raise RuntimeError(
            "the optimizer to borrow is a plain Module's with kvstore={!r}, whose servers have no keys for the full "
            "gradient; call init_optimizer() of an SVRGModule, and borrow that one's".format(store.type)
        )
    return Alone(store)


def is_distributed(kvstore: Any) -> bool:
    """Whether this is the name of a store of mxnet's parameter servers, or one."""
    kind = kvstore if isinstance(kvstore, str) else getattr(kvstore, "type", "")
    return isinstance(kind, str) and kind.startswith("dist")


def _store_of(kvstore: Any) -> Any:
    """The store itself, made if it is given by its name and the process has none: a second one would hang."""
    if isinstance(kvstore, str):
        made = [each for each in gc.get_objects() if type(each) is mx.kvstore.KVStore and is_distributed(each)]
        kvstore = made[0] if made else _create(kvstore)
    # It must not be freed before all workers leave.
    _process["store"] = kvstore
    return kvstore


def _create(name: str) -> Any:
    for variable, value in watch.DEFAULTS.items():
        os.environ.setdefault(variable, value)
    waiting = watch.say_later(
        "waiting for the scheduler at {}:{}, and for {DMLC_NUM_WORKER} workers and {DMLC_NUM_SERVER} servers to come "
        "to it. If this program has dropped a distributed store that it made before, that has ended the job: keep the "
        "store, and pass it as kvstore".format(*watch.address_of_scheduler(os.environ), **os.environ)
    )
    store = mx.kv.create(name)
    waiting.cancel()
    return store


# --------------------------------------------------------------------------------------------------- batch counts


def count_batches(data: Any) -> int:
    """How many batches an iterator gives in an epoch; goes through it once."""
    if hasattr(data, "__len__"):
        return len(data)
    _rewind(data)
    count = sum(1 for _ in data)
    _rewind(data)
    return count


def _rewind(data: Any) -> None:
    getattr(data, "hard_reset", getattr(data, "reset", lambda: None))()


def exactly(batches: Iterable[Any], count: int) -> Iterator[Any]:
    """The first `count` batches.

    Raises
    ------
    RuntimeError
        There are fewer. The other workers would wait for ever.
    """
    given = 0
    for batch in batches:
        if given == count:
            return
        given += 1
        yield batch
    if given < count:
        raise RuntimeError(
            "train_data gave {} batches, and {} when they were counted; the other workers go on. Give every epoch the "
            "same number of batches".format(given, count)
        )
