"""On which devices the snapshot is computed: beside the live weights if a core is idle, else on the same ones.

mxnet has one worker thread for each cpu id, and its operators accept arrays of different cpu ids: a snapshot that is
bound to ``cpu(1)`` runs while the live weights run on ``cpu(0)``. They must not share temporary memory either, which
mxnet lends to the operators of all cpu ids from four places in turn, to one operator at a time: see `call_apart`.
"""

import contextlib
import functools
import math
import os
import pathlib
import queue
import threading
from typing import Any, Callable, List, Mapping, Optional, Sequence

import mxnet as mx


def available_cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def operator_threads(cores: int, environment: Mapping[str, str]) -> int:
    """How many threads an mxnet operator uses: what OpenMP is told, or half the cores.

    >>> operator_threads(8, {}), operator_threads(8, {'OMP_NUM_THREADS': '2'})
    (4, 2)
    """
    for variable in ("MXNET_OMP_MAX_THREADS", "OMP_NUM_THREADS"):
        value = environment.get(variable, "").split(",")[0]
        if value.isdigit() and int(value) > 0:
            return int(value)
    return max(1, cores // 2)


def quota(cgroup: str = "/sys/fs/cgroup") -> float:
    """The time of how many cores a container may use, by what Linux keeps in this directory.

    >>> quota('no-such-directory')
    inf
    """
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        with contextlib.suppress(OSError, ValueError):
            most, period = (int(word) for file in files for word in pathlib.Path(cgroup, file).read_text().split())
            if most > 0:
                return most / period
    return math.inf


def has_idle_cores(
    cores: int, environment: Mapping[str, str], devices: int = 1, at_most: float = math.inf
) -> bool:  # fmt: skip
    """Whether a second computation of as many devices fits beside the first, in the time of `at_most` so many cores.

    >>> has_idle_cores(2, {}), has_idle_cores(2, {'OMP_NUM_THREADS': '2'}), has_idle_cores(1, {})
    (True, False, False)
    >>> has_idle_cores(2, {}, at_most=1.5)
    False
    """
    return 2 * devices * operator_threads(cores, environment) <= min(cores, at_most)


def can_overlap(contexts: Sequence[mx.Context]) -> bool:
    """Whether there are other devices of the same kind to use: only a cpu has as many as one likes."""
    return all(context.device_type == "cpu" for context in contexts)


def beside(contexts: Sequence[mx.Context]) -> List[mx.Context]:
    """As many further cpu ids.

    >>> beside([mx.cpu(0), mx.cpu(1)])
    [cpu(2), cpu(3)]
    """
    first = 1 + max(context.device_id for context in contexts)
    return [mx.cpu(first + k) for k in range(len(contexts))]


def overlaps(wanted: Optional[bool], contexts: Sequence[mx.Context]) -> bool:
    """Whether to compute the snapshot beside the live weights.

    Raises
    ------
    ValueError
        It is asked for where it can't be had.
    """
    if wanted and not can_overlap(contexts):
        raise ValueError("overlap=True needs cpu contexts, not {}; leave overlap out".format(list(contexts)))
    if wanted is not None:
        return wanted
    return can_overlap(contexts) and has_idle_cores(available_cores(), os.environ, len(contexts), quota())


def call_apart(function: Callable[[], Any]) -> None:
    """Call a function in a thread of ours: executors that it binds share no temporary memory with any bound elsewhere.

    mxnet 1.9.1 has a store of temporary memory and of random generators for each thread that binds; ``mx.random.seed``
    seeds those of the thread that calls it. They go when the thread ends, so this one doesn't.
    """
    if not (_threads and _threads[0].is_alive()):
        # Not yet, or not in this process, which was forked.
        _threads[:] = [_Apart()]
    _threads[0].call(function)


def call(function: Callable[[], Any], apart: bool) -> None:
    """Call a function here, or apart."""
    if apart:
        call_apart(function)
    else:
        function()


class _Apart(threading.Thread):
    """A thread that calls functions, one after the other."""

    def __init__(self) -> None:
        super().__init__(name="svrg_optimization.apart", daemon=True)
        self._functions: "queue.SimpleQueue[Callable[[], Any]]" = queue.SimpleQueue()
        self._errors: "queue.SimpleQueue[Optional[BaseException]]" = queue.SimpleQueue()
        self._one_caller = threading.Lock()
        self.start()

    def run(self) -> None:
        while True:
            self._errors.put(_error_of(self._functions.get()))

    def call(self, function: Callable[[], Any]) -> None:
        with self._one_caller:
            self._functions.put(function)
            error = self._errors.get()
        if error is not None:
            raise error


def _error_of(function: Callable[[], Any]) -> Optional[BaseException]:
    try:
        function()
    except BaseException as error:
        return error
    return None


_threads: List[_Apart] = []


class PlacedModule(mx.mod.Module):
    """A Module that may be bound apart; so may what it is bound to later, for a batch of another shape."""

    apart = False

    def bind(self, *args: Any, **kwargs: Any) -> None:
        """``Module.bind``, apart if this module is to be."""
        self._call(super().bind, *args, **kwargs)

    def reshape(self, *args: Any, **kwargs: Any) -> None:
        """``Module.reshape``, apart if this module is to be."""
        self._call(super().reshape, *args, **kwargs)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        call(functools.partial(function, *args, **kwargs), self.apart)
