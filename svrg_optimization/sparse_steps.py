"""How the steps of a module treat rows that a batch doesn't touch: what can be had, and what is taken by default."""

import math
from functools import partial
from typing import Any, Callable, List, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from .compute.row_rules import LazyRule, ReweightedRule, RowParameter, Rule
from .compute.touched_rows import Replica, TouchedRows
from .mxnet_api import internals, memory
from .proximal import ProximalSGD

MODES = ("lazy", "reweighted", "dense")
# What the log says about them.
DESCRIPTIONS = {
    "lazy": "lazy: other rows than the batch's are moved when they are needed",
    "reweighted": "reweighted: they move the batch's rows only",
    "dense": "dense, on all rows of all weights",
}
NO_ROWS = (
    "no weight of this network has a row_sparse gradient, as those have that csr data meet in dot, and those of an "
    "Embedding with sparse_grad=True"
)
# Optimizers that treat each number for itself. Of the first ones, weight decay is a part of the gradient.
_DECAY_IN_GRADIENT = (mx.optimizer.SGD, mx.optimizer.NAG, mx.optimizer.Adam, mx.optimizer.RMSProp, ProximalSGD)
_DECAY_APART = (mx.optimizer.AdaGrad, mx.optimizer.Ftrl)

# Weights of at most so many numbers: see `are_small`.
_SMALL = 1 << 16


def check_argument(sparse: Any) -> Optional[str]:
    """The constructor's argument `sparse`. ValueError if there is no such way.

    >>> check_argument('lazy')
    'lazy'
    """
    if sparse is not None and sparse not in MODES:
        raise ValueError("sparse={!r} must be 'lazy', 'reweighted', 'dense' or None, which chooses".format(sparse))
    return sparse


def obstacle_of_optimizer(mode: str, optimizer: Any, decays: bool) -> Optional[str]:
    """Why this optimizer can't take lazy or reweighted steps; None if it can. `decays`: there is weight decay.

    >>> obstacle_of_optimizer('lazy', mx.optimizer.Adam(), decays=False)
    'Adam is not SGD, whose steps are known in advance where a batch touches nothing'
    """
    kind, name = type(optimizer), type(optimizer).__name__
    clips = getattr(optimizer, "clip_gradient", None)
    if mode == "lazy":
        if kind is not mx.optimizer.SGD:
            return "{} is not SGD, whose steps are known in advance where a batch touches nothing".format(name)
        return "clip_gradient={} cuts what is added up later".format(clips) if clips else None
    if kind is ProximalSGD and optimizer.group == "columns":
        return "group='columns' of ProximalSGD joins all rows"
    if kind not in _DECAY_IN_GRADIENT + _DECAY_APART:
        return "{} may not treat each row for itself".format(name)
    if decays and kind in _DECAY_APART:
        return "the weight decay of {} is no part of the gradient, which could be multiplied".format(name)
    return "clip_gradient={} cuts the weight decay, too".format(clips) if decays and clips else None


def choose(sparse: Optional[str], obstacle: Callable[[str], Optional[str]], are_sparse: bool) -> Tuple[str, str]:
    """The way to go, and why lazy or reweighted steps, the first choices, can't be had: '' if nobody wonders.

    Parameters
    ----------
    sparse : str, optional
        What the user wants.
    obstacle : callable
        Why a mode can't be had, or None.
    are_sparse : bool
        Whether the weights are `row_sparse`: of dense ones, the user expects dense steps.

    Raises
    ------
    ValueError
        What is wanted can't be had.

    Examples
    --------
    >>> choose(None, lambda mode: 'it is Adam' if mode == 'lazy' else None, are_sparse=True)
    ('reweighted', 'it is Adam')
    """
    if sparse is not None:
        reason = None if sparse == "dense" else obstacle(sparse)
        if reason is not None:
            raise ValueError(
                "sparse={!r} can't be had: {}. Leave sparse out, or make it 'dense'".format(sparse, reason)
            )
        return sparse, ""
    if obstacle("lazy") is None:
        return "lazy", ""
    if are_sparse and obstacle("reweighted") is None:
        return "reweighted", obstacle("lazy") or ""
    reason = obstacle("reweighted") if are_sparse else obstacle("lazy")
    return "dense", reason or ""


def are_small(module: Any, groups: Sequence[Any]) -> bool:
    """Whether lazy steps of a module, which are the same as dense ones, take longer than these."""
    arrays = dict(internals.parameter_arrays(module))
    weights = [arrays[name][0] for group in groups for name in group.parameters]
    # mxnet can't copy dense float64 weights to `row_sparse` ones of another device.
    alone = internals.contexts(module) == [mx.cpu(0)] and internals.kvstore(module) is None
    small = sum(math.prod(array.shape) for array in weights) <= _SMALL
    # Dense weights of an Embedding would have another row looked up for one that there isn't.
    return alone and small and all(group.only_meet and not group.values for group in groups)


def replicas_of(mode: str, module: Any, way: TouchedRows, updater: Any) -> List[Replica]:
    """The sets of weights of a module with an optimizer: one, or one for each device that nothing adds up.

    `updater` has the optimizer and its states.
    """
    contexts, store = internals.contexts(module), internals.kvstore(module)
    if mode == "dense":
        return []
    devices = list(range(len(contexts)))
    kind = LazyRule if mode == "lazy" else ReweightedRule
    groups = devices_of_replicas(store is not None, devices)
    return [_replica(kind, module, way, of_replica, store is not None, updater) for of_replica in groups]


def devices_of_replicas(are_added_up: bool, devices: Sequence[int]) -> List[List[int]]:
    """Which devices share their weights.

    >>> devices_of_replicas(True, [0, 1]), devices_of_replicas(False, [0, 1])
    ([[0, 1]], [[0], [1]])
    """
    return [list(devices)] if are_added_up else [[device] for device in devices]


def _replica(
    kind: Any, module: Any, way: TouchedRows, devices: List[int], has_store: bool, updater: Any
) -> Replica:  # fmt: skip
    keys = {each.name: each.keys for each in internals.updated_parameters(module)}
    arrays, of_snapshot = (dict(internals.parameter_arrays(each)) for each in (module, way.aux))
    parameters = []
    for number, group in enumerate(way.groups):
        for name in group.parameters:
            key = None if name not in keys else keys[name][0 if has_store else devices[0]]
            here = [arrays[name][device] for device in devices]
            parameters.append(RowParameter(name, number, here[0], here[1:], of_snapshot[name][devices[0]], key))
    pull = None
    if has_store and internals.updates_in_store(module):
        pull = partial(_pull, internals.kvstore(module))
    rule: Rule = kind(parameters, [group.size for group in way.groups], updater, pull)
    return Replica(devices, parameters, rule)


def _pull(store: Any, parameter: RowParameter) -> None:
    internals.pull_from_store(store, parameter.name, [parameter.array])


def share_counts(full_pass: Any, way: Any, totals: Any, workers: Any) -> None:
    """Add up over the workers of a job how often batches touch rows, on the keys of the full gradients."""
    for of_group, group in zip(full_pass.counts[0], way.groups):
        name = next(name for name in group.parameters if name in totals[0])
        arrays = [{name: on_device[name].zeros_like()} for on_device in totals]
        sent = memory.view(arrays[0][name])
        sent[:] = of_group.touches.reshape((-1,) + (1,) * (sent.ndim - 1))
        workers.sum(arrays)
        summed = arrays[0][name].asnumpy()
        of_group.touches = summed.reshape(len(summed), -1)[:, 0].astype(np.float64)
        of_group.rows = workers.sum_later(of_group.rows)()
