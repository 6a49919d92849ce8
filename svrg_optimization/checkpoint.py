"""Checkpoints: beside Module's files, one of ours, all of them replaced as if at once.

``prefix-symbol.json``, ``prefix-0001.params`` and ``prefix-0001.states`` are Module's own. ``prefix-0001.svrg``, in
mxnet's NDArray format, has a section for each part of training that has state, and the checksums of the files that
belong with it.

A save writes every file under a name of its own (``.new``) first. Renaming the ``.svrg`` file is the commit: before
it the old checkpoint is whole; after it the new one is, because a loader that finds a file whose checksum isn't the
committed one takes, and finishes renaming, the ``.new`` file beside it.
"""

import glob
import hashlib
import json
import os
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from .mxnet_api.internals import update_counts
from .svrg.clock import Clock

FORMAT = 2
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


# For each part of training that has state, what its `state()` returned: arrays, dicts of arrays, and what JSON can
# hold.
Sections = Dict[str, Dict[str, Any]]


# ------------------------------------------------------------------------------------------------------- the format


def encode(sections: Sections, checksums: Mapping[str, str]) -> Dict[str, Any]:
    """The sections, and the checksums of the companion files, as named NDArrays.

    >>> sections = {"clock": {"steps": 3}, "snapshot": {"weights": {"w": mx.nd.ones(1)}}}
    >>> sorted(encode(sections, {}))
    ['format', 'sections', 'snapshot/weights/w']
    """
    arrays: Dict[str, Any] = {"format": mx.nd.array([FORMAT], dtype=np.int64)}
    plain: Dict[str, Any] = {"checksums": dict(checksums)}
    for section, state in sections.items():
        plain[section] = {}
        for key, value in state.items():
            if _is_arrays(value):
                arrays.update(("{}/{}/{}".format(section, key, name), array) for name, array in value.items())
            else:
                plain[section][key] = value
    arrays["sections"] = mx.nd.array(np.frombuffer(json.dumps(plain).encode(), np.uint8), dtype=np.uint8)
    return arrays


def _is_arrays(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and isinstance(next(iter(value.values())), mx.nd.NDArray)


def decode(arrays: Dict[str, Any]) -> Tuple[Sections, Dict[str, str]]:
    """The inverse of `encode`."""
    number = int(arrays["format"].asscalar()) if "format" in arrays else None
    if number == 1:
        return _decode_format_1(arrays)
    if number != FORMAT:
        raise ValueError("not a .svrg file of format 1 or {}; load it with the version that wrote it".format(FORMAT))
    plain = json.loads(arrays["sections"].asnumpy().tobytes().decode())
    checksums = plain.pop("checksums")
    for key, array in arrays.items():
        section, _, rest = key.partition("/")
        if rest:
            group, _, name = rest.partition("/")
            plain[section].setdefault(group, {})[name] = array
    return plain, checksums


def _decode_format_1(arrays: Dict[str, Any]) -> Tuple[Sections, Dict[str, str]]:
    """What version 0.1.0 wrote before parts had sections: full gradients for the rows of a batch, and no clock."""
    groups: Dict[str, Dict[str, Any]] = {"snapshot": {}, "aux": {}, "full": {}}
    checksums: Dict[str, str] = {}
    counts: List[Any] = []
    scalars: Dict[str, float] = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(":")
        if kind in groups:
            groups[kind][name] = array
        elif kind == "checksum":
            checksums[name] = array.asnumpy().tobytes().hex()
        elif kind == "count":
            device, type_name, index = name.split(":", 2)
            counts.append([int(device), int(index) if type_name == "int" else index, int(array.asscalar())])
        elif kind == "scalar":
            type_name, _, attribute = name.partition(":")
            scalars[attribute] = (int if type_name == "int" else float)(array.asscalar())
    update_freq, number, epoch, rows = arrays["schedule"].asnumpy().tolist()
    return {
        "schedule": {"update_freq": update_freq},
        "clock": Clock().state(),
        "draws": {"position": arrays["draws"].asnumpy().tolist()[1:]},
        "snapshot": {
            "number": number, "epoch": None if epoch < 0 else epoch, "samples": None, "weights": groups["snapshot"],
            "auxiliary": groups["aux"], "full_gradient": {name: full / rows for name, full in groups["full"].items()},
        },
        "optimizer": {"counts": counts, "scalars": scalars},
    }, checksums  # fmt: skip


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


def position(optimizer: Any, at_start: Dict[str, float]) -> Dict[str, Any]:
    """How far an optimizer has come since its numbers were `at_start`: update counts, and numbers that changed."""
    counts = [
        [device, index, count]
        for device, by_index in update_counts(optimizer).items()
        for index, count in by_index.items()
    ]
    scalars = {name: value for name, value in numbers_of(optimizer).items() if value != at_start.get(name)}
    return {"counts": counts, "scalars": scalars}


def restore_position(optimizer: Any, position: Mapping[str, Any]) -> None:
    """Put a new optimizer where the saved one was."""
    counts = update_counts(optimizer)
    for device, index, count in position["counts"]:
        counts.setdefault(device, {})[index] = count
    for name, value in position["scalars"].items():
        setattr(optimizer, name, value)


# ------------------------------------------------------------------------------------------------------- the files


def save(
    files: Paths, write_symbol: Callable[[str], None], write_params: Callable[[str], None],
    write_states: Optional[Callable[[str], None]] = None, sections: Optional[Sections] = None,
) -> None:  # fmt: skip
    """Write a checkpoint; with `write_states` and `sections`, one that training can go on from."""
    # A save of this name may have been killed between its commit and its renames: what it left is the checkpoint.
    finish_interrupted_save(files)
    companions = {"symbol": files.symbol, "params": files.params}
    _write(files.symbol, write_symbol)
    _write(files.params, write_params)
    if write_states is not None and sections is not None:
        companions["states"] = files.states
        _write(files.states, write_states)
        checksums = {kind: _checksum(path + _NEW) for kind, path in companions.items()}
        arrays = encode(sections, checksums)
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


def load(files: Paths) -> Optional[Sections]:
    """The sections of a checkpoint; None if it has no ``.svrg`` file.

    Raises
    ------
    ValueError
        The ``.svrg`` file is damaged, or a companion file isn't the one that was saved with it.
    """
    try:
        sections, checksums = _read(files.svrg)
    except FileNotFoundError:
        return None
    for kind, digest in checksums.items():
        path = getattr(files, kind)
        if not _is(path, digest):
            raise ValueError(
                "{} wasn't saved together with {}; load it with load_optimizer_states=False, or delete the .svrg "
                "file to begin with a new snapshot".format(path, files.svrg)
            )
    return sections


def _read(path: str) -> Tuple[Sections, Dict[str, str]]:
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    try:
        return decode(mx.nd.load(path))
    except (MXNetError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            "{} can't be read ({}); load with load_optimizer_states=False, or delete it to begin with a new "
            "snapshot".format(path, str(error).strip().split("\n")[-1])
        ) from error


def _is(path: str, digest: str) -> bool:
    return os.path.exists(path) and _checksum(path) == digest


def _write(path: str, write: Callable[[str], None]) -> None:
    write(path + _NEW)
    with open(path + _NEW, "rb+") as written:
        os.fsync(written.fileno())


def _checksum(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _sync_directory(path: str) -> None:
    if os.name != "posix":
        return
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
