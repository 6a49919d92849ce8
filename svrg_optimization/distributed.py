"""A job of several workers on mxnet's parameter servers: what they agree on, and how they leave.

The full gradient itself goes through the keys that `keys.full_gradient_key` names, by `full_gradient.reduce`.
"""

import atexit
import faulthandler
import gc
import hashlib
import logging
import os
import sys
import traceback
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from . import keys, mxnet_internals, watch
from .server import BEGUN, OVER

# An exchanged number is three digits of 16 bits: float32, which servers keep exactly, holds each of them.
_DIGIT = 1 << 16
_DIGITS = 3
NUMBERS = 8

_STALE = (
    "the KVStore has been used before: its servers don't give back what was sent. A job's store serves one module; "
    "start a new process for another"
)


def encode(numbers: Sequence[int]) -> List[float]:
    """Integers from 0 to 2^48 - 1 as floats that float32 holds exactly.

    >>> decode(encode([3, 123456789012]))[:2]
    [3, 123456789012]
    """
    padded = list(numbers) + [0] * (NUMBERS - len(numbers))
    return [float(number // _DIGIT**k % _DIGIT) for number in padded for k in range(_DIGITS)]


def decode(values: Sequence[float]) -> List[int]:
    """The inverse of `encode`."""
    digits = [int(value) for value in values]
    return [sum(digits[i + k] * _DIGIT**k for k in range(_DIGITS)) for i in range(0, len(digits), _DIGITS)]


def digest(value: Any) -> int:
    """A number that two workers share if they share the value.

    >>> digest(["weight"]) == digest(["weight"]), digest(["weight"]) == digest(["bias"])
    (True, False)
    """
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:6], "big")


def differences(settings: Mapping[str, Any], gathered: Sequence[Sequence[int]], rank: int) -> List[str]:
    """Which settings differ between workers, and who has what.

    >>> differences({'update_freq': 2}, [[2], [3], [2]], rank=0)
    ['update_freq: 2 on workers 0, 2; 3 on worker 1']
    """
    found = []
    for k, (name, own) in enumerate(settings.items()):
        by_value: Dict[int, List[int]] = {}
        for worker, numbers in enumerate(gathered):
            by_value.setdefault(numbers[k], []).append(worker)
        if len(by_value) > 1:
            readable = isinstance(own, int)
            groups = "; ".join(
                "{} on {}".format(value if readable else "one value" if i == 0 else "another", _workers(who))
                for i, (value, who) in enumerate(by_value.items())
            )
            found.append("{}: {}{}".format(name, groups, "" if readable else "; worker {} has {}".format(rank, own)))
    return found


def _workers(ranks: Sequence[int]) -> str:
    return "worker{} {}".format("s" if len(ranks) > 1 else "", ", ".join(map(str, ranks)))


class Job:
    """The workers and servers of a job, as one worker sees them.

    Parameters
    ----------
    store : KVStore
        New: its first keys are made here.

    Raises
    ------
    RuntimeError
        The store isn't new.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.rank, self.workers = store.rank, store.num_workers
        self.servers = int(os.environ["DMLC_NUM_SERVER"])
        self._proofs = keys.proof_keys(self.servers)
        try:
            store.init([keys.EXCHANGE] + self._proofs, [mx.nd.zeros((self.workers, NUMBERS * _DIGITS))]
                       + [mx.nd.zeros(self.servers)] * self.servers)  # fmt: skip
        except MXNetError:
            raise RuntimeError(_STALE) from None
        self._watch = self._start_watch()
        _fail_fast()
        atexit.register(self.leave)

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
            "It has died, or has ended because another process died: its output says which. Start the job again from "
            "its checkpoint.",
        )  # fmt: skip

    def gather(self, numbers: Sequence[int]) -> List[List[int]]:
        """What each worker gave, on every worker. All workers call it at the same point."""
        rows = np.zeros((self.workers, NUMBERS * _DIGITS), np.float32)
        rows[self.rank] = encode(numbers)
        array = mx.nd.array(rows)
        self.store.pushpull(keys.EXCHANGE, array, out=array)
        gathered = array.asnumpy()
        if not np.array_equal(gathered[self.rank], rows[self.rank]):
            raise RuntimeError(_STALE)
        return [decode(row) for row in gathered]

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Raise RuntimeError, on every worker, unless all workers have these settings."""
        own = [value if isinstance(value, int) else digest(value) for value in settings.values()]
        found = differences(settings, self.gather(own), self.rank)
        if found:
            raise RuntimeError("the workers of this job differ in {}. Start them all with the same program and "
                               "arguments".format("; and in ".join(found)))  # fmt: skip

    def prove_servers(self, server_keys: Sequence[str]) -> None:
        """Raise RuntimeError, on every worker, unless each server answers as it should.

        A server that runs our optimizer answers by what only an optimizer can know that has the same `server_keys`;
        one without an optimizer, by the sum over the workers. mxnet swallows what is raised on a server.
        """
        answers = [mx.nd.ones(self.servers) for _ in self._proofs]
        for key, answer in zip(self._proofs, answers):
            self.store.pushpull(key, answer, out=answer)
        for k, answer in enumerate(answers):
            number = 1 + k
            expected = keys.proof(server_keys, number) if server_keys else self.workers
            wrong = np.flatnonzero(answer.asnumpy() != expected)
            if not wrong.size:
                continue
            # A small array is on one server, by mxnet's rule; a larger one than MXNET_KVSTORE_BIGARRAY_BOUND, on all.
            server = number * 9973 % self.servers if wrong.size == self.servers else int(wrong[0])
            if server_keys and answer.asnumpy()[wrong[0]] == self.workers:
                raise RuntimeError(
                    "server {} doesn't run the optimizer that it was sent, so weights would become sums of gradients. "
                    "Its own output says why: install svrg_optimization, and whatever module defines the optimizer or "
                    "its lr_scheduler, where servers run".format(server)
                )
            raise RuntimeError("server {}: {}".format(server, _STALE))

    def check_float64(self) -> None:
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

    def leave(self) -> None:
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
    """Let an exception that nobody catches end the process at once.

    Otherwise mxnet would wait, on the way out, for the other workers, who wait for this one's gradients.
    """
    if hasattr(sys, "ps1") or sys.flags.interactive:
        return
    usual = sys.excepthook

    def report_and_end(kind: Any, value: Any, trace: Any) -> None:
        usual(kind, value, trace)
        rank = "" if _job is None else " {}".format(_job.rank)
        watch.end("worker{} ends: {}".format(rank, "".join(traceback.format_exception_only(kind, value)).strip()), 1)

    sys.excepthook = report_and_end


# A process can take part in one job: freeing a second store would stop the servers of the first.
_store: Any = None
_job: Optional[Job] = None


def is_distributed(kvstore: Any) -> bool:
    """Whether this is the name of a store of mxnet's parameter servers, or one."""
    kind = kvstore if isinstance(kvstore, str) else getattr(kvstore, "type", "")
    return isinstance(kind, str) and kind.startswith("dist")


def store_of(kvstore: Any) -> Any:
    """The store itself, made if it is given by its name and the process has none: a second one would hang."""
    global _store
    if not isinstance(kvstore, str):
        _store = kvstore
    elif _store is None:
        made = [each for each in gc.get_objects() if type(each) is mx.kvstore.KVStore and is_distributed(each)]
        _store = made[0] if made else _create(kvstore)
    return _store


def _create(name: str) -> Any:
    for variable, value in watch.DEFAULTS.items():
        os.environ.setdefault(variable, value)
    waiting = watch.say_later("waiting for the scheduler at {}:{}, and for {DMLC_NUM_WORKER} workers and "
                              "{DMLC_NUM_SERVER} servers to come to it".format(
                                  *watch.address_of_scheduler(os.environ), **os.environ))  # fmt: skip
    store = mx.kv.create(name)
    waiting.cancel()
    return store


def join(store: Any) -> Job:
    """Take part in the job of this store, in which no module of this process has had a part."""
    global _job
    if _job is not None:
        raise RuntimeError(_STALE)
    _job = Job(store)
    return _job


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


def unequal(counts: Sequence[int]) -> str:
    """Who has how many batches, if not all have as many; otherwise "".

    >>> unequal([10, 8]), unequal([3, 3])
    ('10 on worker 0, 8 on worker 1', '')
    """
    if len(set(counts)) == 1:
        return ""
    return ", ".join("{} on worker {}".format(count, worker) for worker, count in enumerate(counts))


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


def total(gathered: Sequence[Sequence[int]]) -> Tuple[int, List[int]]:
    """The number of samples of all workers, and each worker's number of batches."""
    return sum(numbers[0] for numbers in gathered), [numbers[1] for numbers in gathered]
