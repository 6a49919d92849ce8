"""When the snapshot moves: what an `SVRGModule` takes as `snapshots`. The algorithm is in ``svrg/schedules.py``."""

from .svrg.clock import Clock
from .svrg.schedules import EveryEpochs, EverySteps, Growing, Loopless, Schedule

__all__ = ["Clock", "EveryEpochs", "EverySteps", "Growing", "Loopless", "Schedule"]
