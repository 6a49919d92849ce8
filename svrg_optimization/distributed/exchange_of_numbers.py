"""How workers tell each other integers: as rows of float32 numbers, which a KVStore adds up.

Each worker gives an array that is zero but for the worker's own row. The sum has the rows of all.
"""

import hashlib
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

# How many numbers a worker can tell at a time, and how many floats they take: one for each byte, which float32 holds
# exactly.
NUMBERS = 8
WIDTH = NUMBERS * 8


def encode(numbers: Sequence[int]) -> Any:
    """Up to 8 integers of 64 bits as an array of float32.

    >>> decode(encode([3, -123456789012]))[:2]
    [3, -123456789012]
    """
    padded = np.zeros(NUMBERS, "<i8")
    padded[: len(numbers)] = numbers
    return padded.view(np.uint8).astype(np.float32)


def decode(row: Any) -> List[int]:
    """The inverse of `encode`."""
    return row.astype(np.uint8).view("<i8").tolist()


def bits(numbers: Sequence[float]) -> List[int]:
    """The bits of floats, as integers.

    >>> from_bits(bits([0.1, float("inf")]))
    [0.1, inf]
    """
    return np.array(numbers, "<f8").view("<i8").tolist()


def from_bits(integers: Sequence[int]) -> List[float]:
    """The inverse of `bits`."""
    return np.array(integers, "<i8").view("<f8").tolist()


def as_number(value: Any) -> int:
    """A number that is equal on two workers if the value is equal: an integer itself, or a digest.

    >>> as_number(7), as_number(["weight"]) == as_number(["weight"]), as_number(["weight"]) == as_number(["bias"])
    (7, True, False)
    """
    if isinstance(value, int):
        return value
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:6], "big")


def differences(settings: Mapping[str, Any], gathered: Sequence[Sequence[int]], rank: int) -> List[str]:
    """Which settings differ between workers, and which worker has what.

    `settings` are those of worker `rank`; `gathered` has `as_number` of them for each worker.

    >>> differences({'update_freq': 2}, [[2], [3], [2]], rank=0)
    ['update_freq: 2 on workers 0, 2; 3 on worker 1']
    """
    found = []
    for k, (name, own) in enumerate(settings.items()):
        by_value: Dict[int, List[int]] = {}
        for worker, numbers in enumerate(gathered):
            by_value.setdefault(numbers[k], []).append(worker)
        if len(by_value) > 1:
            is_integer = isinstance(own, int)
            groups = "; ".join(
                "{} on {}".format(value if is_integer else "one value" if i == 0 else "another", _workers(who))
                for i, (value, who) in enumerate(by_value.items())
            )
            found.append("{}: {}{}".format(name, groups, "" if is_integer else "; worker {} has {}".format(rank, own)))
    return found


def _workers(ranks: Sequence[int]) -> str:
    return "worker{} {}".format("s" if len(ranks) > 1 else "", ", ".join(map(str, ranks)))


def unequal(counts: Sequence[int]) -> str:
    """The number of each worker, if they aren't all equal; otherwise "".

    >>> unequal([10, 8]), unequal([3, 3])
    ('10 on worker 0, 8 on worker 1', '')
    """
    if len(set(counts)) == 1:
        return ""
    return ", ".join("{} on worker {}".format(count, worker) for worker, count in enumerate(counts))
