"""Texts that a server leaves for workers in an array, a float for each byte, which float32 holds exactly.

Each server has such arrays: those of the proof keys, of which there are as many as servers. An array is whole on one
server, another one for each key, if it has fewer numbers than MXNET_KVSTORE_BIGARRAY_BOUND; otherwise each server has a
part of each.
"""

import os
from typing import Any, List, Mapping, Sequence

import numpy as np

_LEAST = 4096


def size(servers: int) -> int:
    """How many numbers an array has, so that it divides evenly; also the longest text of a server, in bytes, less 1.

    >>> size(1), size(3)
    (4096, 4098)
    """
    return -(-_LEAST // servers) * servers


def is_whole(servers: int, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an array is on one server."""
    return size(servers) < int(environment.get("MXNET_KVSTORE_BIGARRAY_BOUND") or 1000 * 1000)


def server_of(key: int, servers: int) -> int:
    """Which server has a whole array with this key number: mxnet's rule."""
    return key * 9973 % servers


def of_servers(arrays: Sequence[Any], first_key: int, whole: bool) -> List[Any]:
    """What each server has of the arrays, whose key numbers begin with `first_key`.

    >>> [part.tolist() for part in of_servers([np.arange(2), np.arange(2, 4)], 1, whole=False)]
    [[0, 2], [1, 3]]
    >>> [part.tolist() for part in of_servers([np.arange(2), np.arange(2, 4)], 1, whole=True)]
    [[2, 3], [0, 1]]
    """
    servers = len(arrays)
    if not whole:
        return list(np.stack(arrays).reshape(servers, servers, -1).swapaxes(0, 1).reshape(servers, -1))
    found: List[Any] = [None] * servers
    for number, array in enumerate(arrays):
        found[server_of(first_key + number, servers)] = array
    return found


def encode(text: str, lengths: Sequence[int]) -> List[Any]:
    """A text as arrays of these lengths. ValueError if it is too long.

    >>> [array.tolist() for array in encode('ab', [1, 2])]
    [[97.0], [98.0, 0.0]]
    """
    data = text.encode()
    if len(data) >= sum(lengths):
        raise ValueError(
            "an answer of {} bytes is too long for {}: the learning rate schedule has changed too much; set "
            "MXNET_UPDATE_ON_KVSTORE=0 for all workers".format(len(data), sum(lengths))
        )
    numbers = np.zeros(sum(lengths), np.float32)
    numbers[: len(data)] = np.frombuffer(data, np.uint8)
    return np.split(numbers, np.cumsum(lengths)[:-1])


def decode(numbers: Any) -> str:
    """The inverse of `encode`, of the arrays one behind the other.

    >>> decode(np.concatenate(encode('ab', [1, 2])))
    'ab'
    """
    return numbers.astype(np.uint8).tobytes().partition(b"\0")[0].decode()
