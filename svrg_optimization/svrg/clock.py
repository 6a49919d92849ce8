"""How far training has come."""

from typing import Any, Dict


class Clock:
    """Counts epochs, steps and gradient evaluations.

    `epoch` is the number of the epoch that was last begun; `steps` how many inner steps have been taken; `evaluations`
    how many gradients of samples have been computed: in a step at the weights and at the snapshot, in a full pass one a
    sample.

    >>> clock = Clock()
    >>> clock.evaluated(100); clock.evaluated(20); clock.evaluated(20); clock.step()
    >>> clock.steps, clock.evaluations
    (1, 140)
    """

    def __init__(self) -> None:
        self.epoch = self.steps = self.evaluations = 0

    def begin_epoch(self, number: int) -> None:
        """Epoch `number` begins."""
        self.epoch = number

    def evaluated(self, rows: int) -> None:
        """The gradients of so many rows have been computed."""
        self.evaluations += rows

    def step(self) -> None:
        """The weights have been updated."""
        self.steps += 1

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return dict(vars(self))

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
        vars(self).update(state)
