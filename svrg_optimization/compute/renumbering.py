"""Numbers of their own, from 0, for the rows that a batch names."""

from typing import Any, Tuple

import numpy as np


class Renumbering:
    """Finds the distinct numbers in an array, all below `size`, in a time that doesn't depend on `size`.

    >>> rows, local = Renumbering(100)(np.array([7, 3, 7, 50]))
    >>> rows.tolist(), local.tolist()
    ([3, 7, 50], [1, 0, 1, 2])
    """

    def __init__(self, size: int) -> None:
        self._scratch = np.zeros(size, np.int32)
        self._positions = np.arange(0, dtype=np.int32)

    def __call__(self, named: Any) -> Tuple[Any, Any]:
        """The distinct numbers, in any order; and for each number, its place among these."""
        if len(self._positions) < len(named):
            self._positions = np.arange(2 * len(named), dtype=np.int32)
        positions, scratch = self._positions[: len(named)], self._scratch
        scratch[named] = positions
        # Of those that are equal, one has left its position.
        rows = named[scratch[named] == positions]
        scratch[rows] = positions[: len(rows)]
        return rows, scratch[named]
