"""What the workers of a job tell each other: integers, as float32 arrays that the servers add up."""

import hashlib
from typing import Any, Dict, List, Mapping, Sequence

# A number is three digits of 16 bits: float32, which servers keep exactly, holds each of them.
_DIGIT = 1 << 16
_DIGITS = 3
# How many numbers a worker tells at a time, and how many floats that makes.
NUMBERS = 8
WIDTH = NUMBERS * _DIGITS


def encode(numbers: Sequence[int]) -> List[float]:
    """Up to 8 integers from 0 to 2^48 - 1 as floats that float32 holds exactly.

    >>> decode(encode([3, 123456789012]))[:2]
    [3, 123456789012]
    """
    padded = list(numbers) + [0] * (NUMBERS - len(numbers))
    return [float(number // _DIGIT**k % _DIGIT) for number in padded for k in range(_DIGITS)]


def decode(values: Sequence[float]) -> List[int]:
    """The inverse of `encode`."""
    digits = [int(value) for value in values]
    return [sum(digits[i + k] * _DIGIT**k for k in range(_DIGITS)) for i in range(0, len(digits), _DIGITS)]


def as_number(value: Any) -> int:
    """A number that two workers share if they share the value: an integer itself, or a digest.

    >>> as_number(7), as_number(["weight"]) == as_number(["weight"]), as_number(["weight"]) == as_number(["bias"])
    (7, True, False)
    """
    if isinstance(value, int):
        return value
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:6], "big")


def differences(settings: Mapping[str, Any], gathered: Sequence[Sequence[int]], rank: int) -> List[str]:
    """Which settings differ between workers, and who has what.

    >>> differences({'update_freq': 2}, [[2], [3], [2]], rank=0)
    ['update_freq: 2 on workers 0, 2; 3 on worker 1']
    """
    found = []
    for k, (name, own) in enumerate(settings.items()):
        by_value: Dict[int, List[int]] = {}
        for worker, numbers in enumerate(gathered):
            by_value.setdefault(numbers[k], []).append(worker)
        if len(by_value) > 1:
            readable = isinstance(own, int)
            groups = "; ".join(
                "{} on {}".format(value if readable else "one value" if i == 0 else "another", _workers(who))
                for i, (value, who) in enumerate(by_value.items())
            )
            found.append("{}: {}{}".format(name, groups, "" if readable else "; worker {} has {}".format(rank, own)))
    return found


def _workers(ranks: Sequence[int]) -> str:
    return "worker{} {}".format("s" if len(ranks) > 1 else "", ", ".join(map(str, ranks)))


def unequal(counts: Sequence[int]) -> str:
    """Who has how many, if not all have as many; otherwise "".

    >>> unequal([10, 8]), unequal([3, 3])
    ('10 on worker 0, 8 on worker 1', '')
    """
    if len(set(counts)) == 1:
        return ""
    return ", ".join("{} on worker {}".format(count, worker) for worker, count in enumerate(counts))
