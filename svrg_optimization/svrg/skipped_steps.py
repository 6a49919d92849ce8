r"""Lazy steps: what steps that don't touch a row do to it, done when the row is needed next. The iterates are the same.

Where a batch doesn't touch a row v, its variance-reduced gradient is :math:`\alpha\,b\,\mu_v`, known in advance. So is
SGD's step: with the rate :math:`\eta`, the weight decay :math:`\lambda`, the momentum :math:`\beta`, the last move u
and ``rescale_grad`` :math:`\rho`,

.. math:: u \leftarrow \beta u - \eta\,(\rho\,\alpha\,b\,\mu_v + \lambda w), \qquad w \leftarrow w + u.

That is linear in w, u and :math:`\mu_v`, with factors that all rows share. So are any number of such steps, one after
the other: their factors are kept for each step at which a row may have been touched last.
"""

from typing import Any, Optional

import numpy as np

# Of so many steps the factors are kept; each new step changes them all.
MOST = 1024


class SkippedSteps:
    """The steps since all rows were up to date, and what they do to a row that they don't touch.

    >>> steps = SkippedSteps()
    >>> steps.add(rate=0.5, decay=0.0, momentum=0.0, pull=4.0)
    >>> steps.add(rate=0.5, decay=1.0, momentum=0.0, pull=4.0)
    >>> weights = np.array([[1.0], [1.0]])
    >>> steps.catch_up(weights, None, np.array([[0.25], [0.25]]), since=np.array([0, 1]))
    >>> weights.tolist()
    [[-0.25], [0.0]]
    """

    def __init__(self, has_moves: bool = False) -> None:
        # Of w after the steps: the factors of w, of the last move, and of mu before them. The same of the last move.
        self._of_weight = np.zeros((3, MOST + 1))
        self._of_move = np.zeros((3, MOST + 1)) if has_moves else None
        self.clear()

    def clear(self) -> None:
        """All rows are up to date."""
        self.count, self._decays = 0, False
        self._of_weight[:] = [[1.0], [0.0], [0.0]]
        if self._of_move is not None:
            self._of_move[:] = [[0.0], [1.0], [0.0]]

    @property
    def are_too_many(self) -> bool:
        """Whether all rows have to be brought up to date before the next step."""
        return self.count == MOST

    def add(self, rate: float, decay: float, momentum: float, pull: float) -> None:
        r"""A step has been taken whose gradient is mu times `pull`, :math:`\rho\,\alpha\,b`, on other rows."""
        # What is touched by this step or a later one has the factors of no step.
        self.count += 1
        weight = self._of_weight[:, : self.count]
        if self._of_move is not None:
            move = self._of_move[:, : self.count]
            move *= momentum
            move -= (rate * decay) * weight
            move[2] -= rate * pull
            weight += move
            return
        if decay:
            self._decays = True
            weight *= 1 - rate * decay
        weight[2] -= rate * pull

    def catch_up(self, weights: Any, moves: Optional[Any], mu: Any, since: Any) -> None:
        """Bring rows up to date, in place.

        Parameters
        ----------
        weights, moves, mu : array of shape (rows, ...)
            Of these rows: the weights, the last moves, None without momentum, and the full gradient.
        since : array of int
            Of each row, how many steps had been added when it was touched last.
        """

        def factor(table: Any, of: int) -> Any:
            return table[of].take(since).astype(weights.dtype).reshape((-1,) + (1,) * (weights.ndim - 1))

        if moves is None:
            if self._decays:
                weights *= factor(self._of_weight, 0)
            weights += factor(self._of_weight, 2) * mu
            return
        before = weights.copy()
        weights *= factor(self._of_weight, 0)
        weights += factor(self._of_weight, 1) * moves + factor(self._of_weight, 2) * mu
        moves *= factor(self._of_move, 1)
        moves += factor(self._of_move, 0) * before + factor(self._of_move, 2) * mu
