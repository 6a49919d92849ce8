"""The files of a checkpoint: Module's and one of ours, all of them replaced as if at once.

``prefix-symbol.json``, ``prefix-0001.params`` and ``prefix-0001.states`` are Module's own; ``prefix-0001.svrg`` is
ours, and has the checksums of the others.

A save writes every file under a name of its own (``.new``) first. Renaming the ``.svrg`` file is the commit: before
it the old checkpoint is whole; after it the new one is. A reader writes nothing: if a file isn't the committed one, the
reader takes the ``.new`` file beside it. What a save leaves that is killed, the next save of this prefix renames or
removes.
"""

import contextlib
import logging
import os
import re
import threading
from types import MappingProxyType
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Set, Tuple

import mxnet as mx

from . import optimizer_states, svrg_file
from .svrg_file import Sections, checksum

try:
    import fcntl
except ImportError:  # not a Unix: nobody waits for another writer
    fcntl = None  # type: ignore[assignment]

_NEW = ".new"
# How often a reader tries again that reads files while a save replaces them.
_ATTEMPTS = 100
_WITHOUT = "load with load_optimizer_states=False, or delete the .svrg file to begin with a new snapshot"


class Paths(NamedTuple):
    """The files of one checkpoint."""

    symbol: str
    params: str
    states: str
    svrg: str


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    paths: Paths
    symbol: Any
    arg_params: Dict[str, Any]
    aux_params: Dict[str, Any]
    # If training is to go on. A plain Module's checkpoint has no sections.
    states: Optional[Dict[Any, Any]]
    sections: Optional[Sections]
    # Why the .svrg file, which wasn't asked for, was of no use.
    problem: str = ""


class _Replaced(Exception):
    """A save has replaced a file while it was read."""


def _paths(prefix: Any, epoch: int) -> Paths:
    """The files of a checkpoint.

    >>> _paths('model', 3).svrg
    'model-0003.svrg'
    """
    prefix = _expand(prefix)
    stem = "{}-{:04d}".format(prefix, epoch)
    return Paths(prefix + "-symbol.json", stem + ".params", stem + ".states", stem + ".svrg")


def _expand(prefix: Any) -> str:
    """A prefix as text, with the home directory for ``~``."""
    return os.path.expanduser(os.fspath(prefix))


# -------------------------------------------------------------------------------------------------------- writing


def save(
    prefix: Any, epoch: int, write_symbol: Callable[[str], None], write_params: Callable[[str], None],
    write_states: Optional[Callable[[str], None]] = None, sections: Optional[Sections] = None,
    others: Mapping[str, Callable[[str], None]] = MappingProxyType({}),
) -> Paths:  # fmt: skip
    """Write a checkpoint; with `write_states` and `sections`, one that training can go on from.

    `others` writes files for others to read, by what their names have behind the prefix.
    """
    files = _paths(prefix, epoch)
    directory = os.path.dirname(os.path.abspath(files.svrg))
    if not os.path.isdir(directory):
        raise FileNotFoundError("prefix={!r}: there is no directory {}; make it first".format(str(prefix), directory))
    prefix = _expand(prefix)
    with _only_writer(prefix):
        _of_process.saves += 1
        saves = _of_process.saves
        _clear(prefix)
        try:
            _save(files, write_symbol, write_params, write_states, sections)
            for suffix, write in others.items():
                _write(prefix + suffix, write)
                os.replace(prefix + suffix + _NEW, prefix + suffix)
        except Exception:
            _clear(prefix)
            if saves == _of_process.saves:
                raise
            # A signal handler has saved meanwhile, and has taken what was written for leftovers.
            _save(files, write_symbol, write_params, write_states, sections)
    return files


def _save(
    files: Paths, write_symbol: Callable[[str], None], write_params: Callable[[str], None],
    write_states: Optional[Callable[[str], None]], sections: Optional[Sections],
) -> None:  # fmt: skip
    companions = {"symbol": files.symbol, "params": files.params}
    _write(files.symbol, write_symbol)
    _write(files.params, write_params)
    if write_states is not None and sections is not None:
        companions["states"] = files.states
        _write(files.states, write_states)
        checksums = {kind: checksum(path + _NEW) for kind, path in companions.items()}
        _write(files.svrg, lambda path: svrg_file.write(path, sections, checksums))
        _sync_directory(files.svrg)
        os.replace(files.svrg + _NEW, files.svrg)
        _sync_directory(files.svrg)
    for path in companions.values():
        os.replace(path + _NEW, path)
    _sync_directory(files.svrg)


@contextlib.contextmanager
def _only_writer(prefix: str) -> Iterator[None]:
    """Wait until nobody else, of this process or another, saves under this prefix.

    A signal handler that saves, while its thread is in the middle of a save, doesn't wait for that.
    """
    with _of_process.turn:
        if prefix in _of_process.prefixes:
            yield
            return
        path = prefix + ".svrg-lock"
        while True:
            with open(path, "ab") as lock:
                _wait_for_lock(lock)
                # Whoever had the lock has removed the file, and somebody may have made another.
                if _identity(path) == _identity(lock.fileno()):
                    _of_process.prefixes.add(prefix)
                    try:
                        yield
                    finally:
                        _of_process.prefixes.discard(prefix)
                        with contextlib.suppress(OSError):
                            os.remove(path)
                    return


class _OfProcess:
    """Which prefixes this process saves under; `turn` is for its threads. A fork has none."""

    def __init__(self) -> None:
        self.turn, self.prefixes = threading.RLock(), set()  # type: Any, Set[str]
        # How many saves have begun.
        self.saves = 0


_of_process = _OfProcess()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_of_process.__init__)  # type: ignore[misc]


def _wait_for_lock(file: Any) -> None:
    if fcntl is None:
        return
    # Not flock: a fork of this process would keep it.
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        logging.getLogger(__name__).warning(
            "waiting for another process, which holds %s: it saves under the same prefix", file.name
        )
        fcntl.lockf(file, fcntl.LOCK_EX)
    except OSError:  # a file system without locks
        pass


def _clear(prefix: str) -> None:
    """Finish the saves that were killed behind their commit; remove what others have left."""
    left = list(_beside(prefix, r"-(?:symbol\.json|(\d{4,})\.(?:params|states|svrg))" + re.escape(_NEW)))
    for epoch in {match.group(1) for match in left if match.group(1)}:
        with contextlib.suppress(OSError, ValueError):
            _, where, _ = _find(_paths(prefix, int(epoch)))
            for path in where:
                if path.endswith(_NEW):
                    os.replace(path, path[: -len(_NEW)])
    for match in left:
        with contextlib.suppress(FileNotFoundError):
            os.remove(prefix + match.group())


def _beside(prefix: str, pattern: str) -> Iterator["re.Match[str]"]:
    """For each file whose name is that of the prefix and what matches the pattern: the match."""
    directory, name = os.path.split(prefix)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.listdir(directory or os.curdir):
            match = re.fullmatch(pattern, entry[len(name) :]) if entry.startswith(name) else None
            if match:
                yield match


def _write(path: str, write: Callable[[str], None]) -> None:
    write(path + _NEW)
    with open(path + _NEW, "rb+") as written:
        os.fsync(written.fileno())


def _sync_directory(path: str) -> None:
    if os.name != "posix":
        return
    directory = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# -------------------------------------------------------------------------------------------------------- reading


def last_epoch(prefixes: Iterable[Any]) -> Optional[int]:
    """The last epoch of which every prefix has a whole checkpoint to go on from; None if there is none."""
    prefixes = list(prefixes)
    if not prefixes:
        raise ValueError("prefix=[]: give the prefix of a checkpoint, or a list of several")
    epochs = set.intersection(*map(_epochs, map(_expand, prefixes)))
    whole = (epoch for epoch in sorted(epochs, reverse=True) if all(_is_whole(_paths(p, epoch)) for p in prefixes))
    return next(whole, None)


def _epochs(prefix: str) -> Set[int]:
    return {int(match.group(1)) for match in _beside(prefix, r"-(\d{4,})\.svrg")}


def _is_whole(files: Paths) -> bool:
    try:
        return _retried(lambda: _find(files))[0] is not None
    except (OSError, ValueError):
        return False


def load(prefix: Any, epoch: int, to_go_on: bool, with_symbol: bool = True) -> Checkpoint:
    """Read a checkpoint; with what it takes to go on training, if asked for.

    Raises
    ------
    FileNotFoundError
        There is no such checkpoint.
    ValueError
        A file is damaged, or isn't the one that was saved with the ``.svrg`` file.
    """
    try:
        return _retried(lambda: _load(_paths(prefix, epoch), to_go_on, with_symbol))
    except FileNotFoundError as error:
        raise FileNotFoundError("no checkpoint of epoch {}: {} does not exist".format(epoch, error)) from None


def load_states(path: Any) -> Dict[Any, Any]:
    """Read a file of optimizer states, by mxnet's keys. FileNotFoundError, or ValueError if it is damaged."""
    return _decoded(_expand(path), optimizer_states.read)


def _retried(read: Callable[[], Any]) -> Any:
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(_Replaced):
            return read()
    raise ValueError("the checkpoint can't be read: another process saves it again and again")


def _load(files: Paths, to_go_on: bool, with_symbol: bool) -> Checkpoint:
    problem = ""
    try:
        sections, where, seen = _find(files)
    except (FileNotFoundError, ValueError) as error:
        if to_go_on:
            raise
        sections, where, seen, problem = None, files, {}, str(error)
    with _unchanged(seen):
        symbol = _decoded(where.symbol, _symbol) if with_symbol else None
        arg_params, aux_params = _decoded(where.params, _params)
        states = _decoded(where.states, optimizer_states.read) if to_go_on else None
    return Checkpoint(files, symbol, arg_params, aux_params, states, sections if to_go_on else None, problem)


def _find(files: Paths) -> Tuple[Optional[Sections], Paths, Dict[str, Any]]:
    """The sections of a whole checkpoint, where its files are, and which those are; no sections without ``.svrg``."""
    where, seen = files, {files.svrg: _identity(files.svrg)}
    if seen[files.svrg] is None:
        # A save may come, of which no file must be taken.
        return None, where, {**{path: _identity(path) for path in files}, files.svrg: None}
    with _unchanged(seen):
        sections, checksums = _decoded(files.svrg, svrg_file.read, _WITHOUT)
        for kind, digest in checksums.items():
            path = getattr(files, kind)
            # In this order: a save may rename the first to the second between the two looks.
            for each in (path + _NEW, path):
                identity = _identity(each)
                if _has_checksum(each, digest):
                    where, seen[each] = where._replace(**{kind: each}), identity
                    break
            else:
                _decoded(path, os.stat)
                raise ValueError("{} is damaged, or wasn't saved with {}; {}".format(path, files.svrg, _WITHOUT))
    return sections, where, seen


def _has_checksum(path: str, digest: str) -> bool:
    try:
        return checksum(path) == digest
    except FileNotFoundError:  # a save may rename it at any moment
        return False


def _identity(file: Any) -> Any:
    """What two files, or two versions of one, differ in; None if there is no such file."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _unchanged(seen: Dict[str, Any]) -> Iterator[None]:
    """Raise `_Replaced`, whatever the block raises, if at its end the files aren't those that were seen."""
    error = None
    try:
        yield
    except Exception as caught:
        error = caught
    if {path: _identity(path) for path in seen} != seen:
        raise _Replaced from None
    if error is not None:
        raise error


def _symbol(path: str) -> Any:
    symbol = mx.sym.load(path)
    # mxnet reads some of it only when it is asked.
    symbol.tojson()
    symbol.list_auxiliary_states()
    return symbol


def _params(path: str) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    params: Dict[str, Dict[str, Any]] = {"arg": {}, "aux": {}}
    for key, array in mx.nd.load(path).items():
        kind, _, name = key.partition(":")
        params[kind][name] = array
    return params["arg"], params["aux"]


def _decoded(path: str, read: Callable[[str], Any], remedy: str = "take a copy of it, or another epoch") -> Any:
    if not os.path.exists(path):
        raise FileNotFoundError(path)
    try:
        return read(path)
    except OSError:
        raise
    except Exception as error:  # damaged bytes may lead to any
        reason = str(error).strip().split("\n")[-1] or type(error).__name__
        raise ValueError("{} can't be read ({}); {}".format(path, reason, remedy)) from error
