"""Whether cores are idle, so that the snapshot's network can compute beside that of the current weights.

mxnet has one worker thread for each cpu id, and its operators accept arrays of different cpu ids: a network that is
bound to ``cpu(1)`` computes while another one computes on ``cpu(0)``.
"""

import contextlib
import math
import os
import pathlib
from typing import List, Mapping, Optional, Sequence

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
