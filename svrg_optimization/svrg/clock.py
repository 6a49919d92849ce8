"""How far training has come."""

from typing import Any, Dict, Optional


class Clock:
    """Counts epochs, steps, gradient evaluations and snapshots; schedules and coefficients read it.

    Attributes
    ----------
    epoch : int
        The number of the epoch that was last begun.
    steps : int
        How many inner steps have been taken.
    evaluations : int
        How many gradients of samples have been computed: in a step at the weights and at the snapshot, in a full pass
        one a sample.
    snapshots : int
        How many snapshots have been taken.
    first_step, last_step : int or None
        How many steps had been taken before the first snapshot, and before the last one; None without a snapshot.
    last_epoch : float
        When the last snapshot was taken, in epochs: 2.5 in the middle of epoch 2.
    period : float
        How many epochs a snapshot is kept.

    Examples
    --------
    >>> clock = Clock()
    >>> clock.begin_epoch(3); clock.begin_period(steps_per_epoch=4); clock.step()
    >>> clock.evaluated(100); clock.evaluated(20); clock.evaluated(20)
    >>> clock.steps, clock.evaluations, clock.last_step, clock.last_epoch
    (1, 140, 0, 3.0)
    """

    def __init__(self) -> None:
        self.epoch = self.steps = self.evaluations = self.snapshots = 0
        self.first_step: Optional[int] = None
        self.last_step: Optional[int] = None
        self.last_epoch, self.period = 0.0, 1.0
        # How many steps had been taken when the present epoch began.
        self.steps_at_epoch = 0

    @property
    def epoch_begins(self) -> bool:
        """Whether no step has been taken in this epoch."""
        return self.steps == self.steps_at_epoch

    @property
    def steps_in_period(self) -> int:
        """How many steps have been taken since the last snapshot."""
        return self.steps - (self.last_step or 0)

    def begin_epoch(self, number: int) -> None:
        """Note that an epoch begins.

        Parameters
        ----------
        number : int
            Of the epoch.
        """
        self.epoch, self.steps_at_epoch = number, self.steps

    def begin_period(self, steps_per_epoch: float, period: float = 1.0) -> None:
        """Note that a snapshot has been taken.

        Parameters
        ----------
        steps_per_epoch : float
            How many steps an epoch has.
        period : float, default 1.0
            How many epochs the snapshot is to be kept, on average.
        """
        self.snapshots, self.last_step, self.period = self.snapshots + 1, self.steps, period
        self.first_step = self.steps if self.first_step is None else self.first_step
        self.last_epoch = self.epoch + (self.steps - self.steps_at_epoch) / steps_per_epoch

    def forget_snapshots(self) -> None:
        """Note that training begins anew, without a snapshot."""
        self.first_step = self.last_step = None

    def evaluated(self, rows: int) -> None:
        """Note that gradients of samples have been computed.

        Parameters
        ----------
        rows : int
            How many.
        """
        self.evaluations += rows

    def step(self) -> None:
        """Note that the weights have been updated."""
        self.steps += 1

    def state(self) -> Dict[str, Any]:
        """Give what `restore` takes.

        Returns
        -------
        dict
            The attributes.
        """
        return dict(vars(self))

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state.

        Parameters
        ----------
        state : dict
            What `state` gave.
        """
        vars(self).update(state)
