"""The ``.svrg`` file: a section for each part of training that has state, and the checksums of the other files.

It is in mxnet's NDArray format. Behind that comes the checksum of what is before.
"""

import hashlib
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

import mxnet as mx
import numpy as np

from ..svrg.clock import Clock

FORMAT = 3
_SEAL = b"sha-256:"
_SEALED = len(_SEAL) + hashlib.sha256().digest_size

# For each part of training that has state, what its `state()` returned: arrays, dicts of arrays, and what JSON can
# hold.
Sections = Dict[str, Dict[str, Any]]
Checksums = Dict[str, str]


def write(path: str, sections: Sections, checksums: Mapping[str, str]) -> None:
    """Write the sections, and the checksums of the files that belong with this one."""
    mx.nd.save(path, encode(sections, checksums))
    digest = checksum(path)
    with open(path, "ab") as file:
        file.write(_SEAL + bytes.fromhex(digest))


def read(path: str) -> Tuple[Sections, Checksums]:
    """What `write` got. Raises whatever a damaged file may lead to; ValueError if its checksum isn't right."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        file.seek(max(0, size - _SEALED))
        seal = file.read()
    is_sealed = seal.startswith(_SEAL)
    if is_sealed and checksum(path, size - _SEALED) != seal[len(_SEAL) :].hex():
        raise ValueError("it is damaged: its checksum is another")
    arrays = mx.nd.load(path)
    number = int(arrays["format"].asscalar()) if isinstance(arrays, dict) and "format" in arrays else None
    # Older formats have no checksum. A file of this one whose checksum is damaged is no older file.
    if number not in ((FORMAT,) if is_sealed else (1, 2)):
        raise ValueError("not a .svrg file of format 1 to {}; load it with the version that wrote it".format(FORMAT))
    return _decode_format_1(arrays) if number == 1 else decode(arrays)


def encode(sections: Sections, checksums: Mapping[str, str]) -> Dict[str, Any]:
    """The sections and checksums as named NDArrays.

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


def decode(arrays: Dict[str, Any]) -> Tuple[Sections, Checksums]:
    """The inverse of `encode`."""
    plain = json.loads(arrays["sections"].asnumpy().tobytes().decode())
    checksums = plain.pop("checksums")
    for key, array in arrays.items():
        section, _, rest = key.partition("/")
        if rest:
            group, _, name = rest.partition("/")
            plain[section].setdefault(group, {})[name] = array
    return plain, checksums


def _decode_format_1(arrays: Dict[str, Any]) -> Tuple[Sections, Checksums]:
    """What version 0.1.0 wrote before parts had sections: full gradients for the rows of a batch, and no clock."""
    groups: Dict[str, Dict[str, Any]] = {"snapshot": {}, "aux": {}, "full": {}}
    checksums: Checksums = {}
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


def checksum(path: str, size: Optional[int] = None) -> str:
    """SHA-256 of a file, or of so many bytes at its begin."""
    digest, rest = hashlib.sha256(), os.path.getsize(path) if size is None else size
    with open(path, "rb") as file:
        while rest > 0:
            block = file.read(min(rest, 1 << 20))
            if not block:
                break
            digest.update(block)
            rest -= len(block)
    return digest.hexdigest()
