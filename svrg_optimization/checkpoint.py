"""Checkpoints: beside Module's files, one of ours, all of them replaced as if at once.

``prefix-symbol.json``, ``prefix-0001.params`` and ``prefix-0001.states`` are Module's own. ``prefix-0001.svrg``, in
mxnet's NDArray format, holds the snapshot, the full gradient, where in the schedule training is, and the
checksums of the files that belong with it.

A save writes every file under a name of its own (``.new``) first. Renaming the ``.svrg`` file is the commit: before
it the old checkpoint is whole; after it the new one is, because a loader that finds a file whose checksum isn't the
committed one takes, and finishes renaming, the ``.new`` file beside it.
"""

import glob
import hashlib
import os
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from .mxnet_internals import update_counts

FORMAT = 1
_NEW = ".new"
# Settings that the user passes again when training goes on; all other numbers of an optimizer that change as it
# works are part of where it is.
_SETTINGS = ("lr", "wd", "rescale_grad", "clip_gradient", "aggregate_num")


class Paths(NamedTuple):
    """The files of one checkpoint."""

    symbol: str
    params: str
    states: str
    svrg: str


def paths(prefix: Any, epoch: int) -> Paths:
    """The files of a checkpoint.

    >>> paths('model', 3).svrg
    'model-0003.svrg'
    """
    prefix = os.fspath(prefix)
    stem = "{}-{:04d}".format(prefix, epoch)
    return Paths(prefix + "-symbol.json", stem + ".params", stem + ".states", stem + ".svrg")


class State(NamedTuple):
    """What the ``.svrg`` file says.

    `snapshot` and `aux` are the snapshot's weights and auxiliary states, `full` the full gradient of the first
    device for `rows` rows; all empty, and `number` 0, if no snapshot had been taken. `draws` is the position of the
    random draws; `counts` and `scalars` are the position of the optimizer.
    """

    update_freq: int
    number: int
    epoch: Optional[int]
    rows: int
    snapshot: Dict[str, Any]
    aux: Dict[str, Any]
    full: Dict[str, Any]
    draws: List[int]
    counts: Dict[int, Dict[Any, int]]
    scalars: Dict[str, float]


# ------------------------------------------------------------------------------------------------------- the format


def encode(state: State, checksums: Dict[str, bytes]) -> Dict[str, Any]:
    """`state` and the checksums of the companion files, as named NDArrays."""
    epoch = -1 if state.epoch is None else state.epoch
    arrays = {
        "format": _integers([FORMAT]),
        "schedule": _integers([state.update_freq, state.number, epoch, state.rows]),
        "draws": _integers([len(state.draws)] + state.draws),
    }
    arrays.update(("checksum:" + kind, mx.nd.array(np.frombuffer(digest, np.uint8), dtype=np.uint8))
                  for kind, digest in checksums.items())  # fmt: skip
    for group, members in (("snapshot", state.snapshot), ("aux", state.aux), ("full", state.full)):
        arrays.update(("{}:{}".format(group, name), array) for name, array in members.items())
    for device, by_index in state.counts.items():
        for index, count in by_index.items():
            arrays["count:{}:{}:{}".format(device, type(index).__name__, index)] = _integers([count])
    for name, value in state.scalars.items():
        arrays["scalar:{}:{}".format(type(value).__name__, name)] = mx.nd.array([value], dtype=np.float64)
    return arrays


def decode(arrays: Dict[str, Any]) -> Tuple[State, Dict[str, bytes]]:
    """The inverse of `encode`."""
    if "format" not in arrays or int(arrays["format"].asscalar()) != FORMAT:
        raise ValueError("not a .svrg file of format {}; load it with the version that wrote it".format(FORMAT))
    groups: Dict[str, Dict[str, Any]] = {"snapshot": {}, "aux": {}, "full": {}}
    checksums: Dict[str, bytes] = {}
    counts: Dict[int, Dict[Any, int]] = {}
    scalars: Dict[str, float] = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind in groups:
            groups[kind][name] = array
        elif kind == "checksum":
            checksums[name] = array.asnumpy().tobytes()
        elif kind == "count":
            device, type_name, index = name.split(":", 2)
            counts.setdefault(int(device), {})[int(index) if type_name == "int" else index] = int(array.asscalar())
        elif kind == "scalar":
            type_name, _, attribute = name.partition(":")
            scalars[attribute] = (int if type_name == "int" else float)(array.asscalar())
    update_freq, number, epoch, rows = arrays["schedule"].asnumpy().tolist()
    draws = arrays["draws"].asnumpy().tolist()[1:]
    state = State(
        update_freq, number, None if epoch < 0 else epoch, rows, groups["snapshot"], groups["aux"], groups["full"],
        draws, counts, scalars,
    )  # fmt: skip
    return state, checksums


def _integers(values: List[int]) -> Any:
    return mx.nd.array(values, dtype=np.int64)


# --------------------------------------------------------------------------------------------------- the optimizer


def numbers_of(optimizer: Any) -> Dict[str, float]:
    """The numbers that an optimizer keeps among its attributes.

    >>> numbers_of(mx.optimizer.Nadam())['m_schedule']
    1.0
    """
    return {
        name: value for name, value in vars(optimizer).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and name not in _SETTINGS
    }  # fmt: skip


def position(optimizer: Any, at_start: Dict[str, float]) -> Tuple[Dict[int, Dict[Any, int]], Dict[str, float]]:
    """How far an optimizer has come since its numbers were `at_start`: update counts, and numbers that changed."""
    counts = {device: dict(by_index) for device, by_index in update_counts(optimizer).items()}
    scalars = {name: value for name, value in numbers_of(optimizer).items() if value != at_start.get(name)}
    return counts, scalars


def restore_position(optimizer: Any, state: State) -> None:
    """Put a new optimizer where the saved one was."""
    counts = update_counts(optimizer)
    for device, by_index in state.counts.items():
        counts.setdefault(device, {}).update(by_index)
    for name, value in state.scalars.items():
        setattr(optimizer, name, value)


# ------------------------------------------------------------------------------------------------------- the files


def save(
    files: Paths, write_symbol: Callable[[str], None], write_params: Callable[[str], None],
    write_states: Optional[Callable[[str], None]] = None, state: Optional[State] = None,
) -> None:  # fmt: skip
    """Write a checkpoint; with `write_states` and `state`, one that training can go on from."""
    # A save of this name may have been killed between its commit and its renames: what it left is the checkpoint.
    finish_interrupted_save(files)
    companions = {"symbol": files.symbol, "params": files.params}
    _write(files.symbol, write_symbol)
    _write(files.params, write_params)
    if write_states is not None and state is not None:
        companions["states"] = files.states
        _write(files.states, write_states)
        checksums = {kind: _checksum(path + _NEW) for kind, path in companions.items()}
        arrays = encode(state, checksums)
        _write(files.svrg, lambda path: mx.nd.save(path, arrays))
        _sync_directory(files.svrg)
        os.replace(files.svrg + _NEW, files.svrg)
        _sync_directory(files.svrg)
    for path in companions.values():
        os.replace(path + _NEW, path)
    _sync_directory(files.svrg)


def finish_interrupted_save(files: Paths) -> None:
    """Do the renames that a save was killed before, once it had committed."""
    try:
        _, checksums = _read(files.svrg)
    except (FileNotFoundError, ValueError):
        return
    for kind, digest in checksums.items():
        path = getattr(files, kind)
        if not _is(path, digest) and _is(path + _NEW, digest):
            os.replace(path + _NEW, path)


def last_epoch(prefixes: Sequence[Any]) -> Optional[int]:
    """The last epoch of which every prefix has a whole checkpoint to go on from; None if there is none."""
    epochs = set.intersection(*({int(path[-9:-5]) for path in _states(prefix)} for prefix in prefixes))
    for epoch in sorted(epochs, reverse=True):
        if all(_is_whole(paths(prefix, epoch)) for prefix in prefixes):
            return epoch
    return None


def _states(prefix: Any) -> List[str]:
    return glob.glob(glob.escape(os.fspath(prefix)) + "-[0-9][0-9][0-9][0-9].svrg")


def _is_whole(files: Paths) -> bool:
    finish_interrupted_save(files)
    try:
        return load(files) is not None
    except ValueError:
        return False


def load(files: Paths) -> Optional[State]:
    """The state of a checkpoint; None if it has no ``.svrg`` file.

    Raises
    ------
    ValueError
        The ``.svrg`` file is damaged, or a companion file isn't the one that was saved with it.
    """
    try:
        state, checksums = _read(files.svrg)
    except FileNotFoundError:
        return None
    for kind, digest in checksums.items():
        path = getattr(files, kind)
        if not _is(path, digest):
            raise ValueError(
                "{} wasn't saved together with {}; load it with load_optimizer_states=False, or delete the .svrg "
                "file to begin with a new snapshot".format(path, files.svrg)
            )
    return state


def _read(path: str) -> Tuple[State, Dict[str, bytes]]:
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    try:
        return decode(mx.nd.load(path))
    except (MXNetError, ValueError, AttributeError) as error:
        raise ValueError(
            "{} can't be read ({}); load with load_optimizer_states=False, or delete it to begin with a new "
            "snapshot".format(path, str(error).strip().split("\n")[-1])
        ) from error


def _is(path: str, digest: bytes) -> bool:
    return os.path.exists(path) and _checksum(path) == digest


def _write(path: str, write: Callable[[str], None]) -> None:
    write(path + _NEW)
    with open(path + _NEW, "rb+") as written:
        os.fsync(written.fileno())


def _checksum(path: str) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.digest()


def _sync_directory(path: str) -> None:
    if os.name != "posix":
        return
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
