"""How much of the control variate is subtracted: what an `SVRGModule` takes as `coefficient`.

The algorithm is in ``svrg/coefficients.py``.
"""

from .svrg.coefficients import Coefficient, Constant, Linear, OfClock, PerLayer

__all__ = ["Coefficient", "Constant", "Linear", "OfClock", "PerLayer"]
