r"""Reweighted sparse steps (Leblond, Pedregosa, Lacoste-Julien 2017): a step adds the full gradient where it is anyway.

A batch touches the row v of a weight in some steps only. There it adds :math:`D_v\,b\,\mu_v`, with

.. math:: D_v = \frac{n}{\sum_{B \ni v} b_B},

the rows of all batches divided by those of the batches that touch v: where all have as many rows, batches divided by
batches that touch v. Over the batches of an epoch this adds up to what dense steps add.
"""

from typing import Any

import numpy as np


class TouchCounts:
    """How often batches touch each row of a parameter.

    >>> counts = TouchCounts(3)
    >>> counts.add(np.array([0, 2]), rows=4)
    >>> counts.add(np.array([2]), rows=4)
    >>> counts.reweighting().tolist()
    [2.0, 1.0, 1.0]
    """

    def __init__(self, size: int) -> None:
        self.touches, self.rows = np.zeros(size), 0.0

    def add(self, touched: Any, rows: int) -> None:
        """A batch of so many rows touches these rows of the parameter, each of which is named once."""
        self.touches[touched] += rows
        self.rows += rows

    def reweighting(self) -> Any:
        """D, for each row of the parameter; 1 where no batch touches it."""
        touched = self.touches > 0
        return np.where(touched, self.rows / np.where(touched, self.touches, 1.0), 1.0)
