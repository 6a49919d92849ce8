"""How much of the control variate is subtracted: alpha."""

from .clock import Clock


class Constant:
    """The same coefficient in every step; 1 is SVRG.

    >>> Constant(1.0).at(Clock())
    1.0
    """

    def __init__(self, value: float) -> None:
        self._value = float(value)

    def at(self, clock: Clock) -> float:
        """The coefficient of the step that the clock has come to."""
        return self._value
