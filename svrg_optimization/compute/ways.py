"""Which way a module computes its gradients: chosen when the module is bound."""

import math
from typing import Optional, Type

from mxnet.module import Module

from ..mxnet_api import internals
from . import cores
from .following import Following, MemorySaving
from .overlapped import Overlapped
from .serial import Serial
from .touched_rows import TouchedRows

# Below so many parameters a network is small.
SMALL = 50000


def choose(live: Module, overlap: Optional[bool], save_memory: bool) -> Type[Serial]:
    """The way for a bound module.

    Raises
    ------
    ValueError
        `overlap` is asked for where it can't be had.
    """
    overlaps = cores.overlaps(overlap, internals.contexts(live))
    if internals.has_gradients_of_rows(live) and not overlap:
        return TouchedRows
    if save_memory:
        return MemorySaving if _can_follow(live) else Serial
    size = sum(map(math.prod, internals.parameter_shapes(live).values()))
    if _can_follow(live) and size < SMALL and not overlap:
        return Following
    return Overlapped if overlaps and not internals.has_groups_of_contexts(live) else Serial


def for_sharer_of(way: Serial, live: Module) -> Type[Serial]:
    """The way for a module that shares weights and memory with one that goes this way."""
    return MemorySaving if isinstance(way, MemorySaving) and _can_follow(live) else Serial


def _can_follow(live: Module) -> bool:
    """Whether the snapshot's network can do with what `live` has after its backward pass."""
    # States may be set between the forward and the backward pass.
    return internals.is_plain(live) and not internals.state_names(live)
