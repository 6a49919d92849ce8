"""When the snapshot moves to the current weights."""

from .clock import Clock


class EveryEpochs:
    """At the start of epochs 0, k, 2k, ...

    >>> clock = Clock()
    >>> clock.begin_epoch(4)
    >>> EveryEpochs(2).due(clock), EveryEpochs(3).due(clock)
    (True, False)
    """

    def __init__(self, k: int) -> None:
        self.k = k

    def due(self, clock: Clock) -> bool:
        """Whether the epoch that begins now begins with a snapshot."""
        return clock.epoch % self.k == 0
