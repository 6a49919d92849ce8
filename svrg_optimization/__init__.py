"""SVRG, stochastic variance reduced gradient, for programs written with ``mxnet.module.Module``.

The public names are loaded when first used (PEP 562). A parameter server imports this package from
inside ``import mxnet``, when ``mx.nd`` and ``mx.module`` do not exist yet; it needs the optimizers
only, and gets them without touching the module.

A worker of a distributed job is watched from here on.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any, List

from .mxnet_api import startup

if TYPE_CHECKING:
    from . import adamw, coefficients, history, proximal, schedules, step_sizes, svrg_module, svrg_optimizer, theory
    from .adamw import AdamW
    from .csr_iter import CSRIter
    from .diagnosis import diagnose
    from .locked_batches import LockedBatches
    from .proximal import ProximalSGD
    from .step_sizes import AutoStep, BarzilaiBorwein
    from .svrg_bucketing_module import SVRGBucketingModule
    from .svrg_module import SVRGModule
    from .svrg_optimizer import _AssignmentOptimizer, _SVRGOptimizer
    from .variance_monitor import VarianceMonitor

__version__ = "0.1.0"

__all__ = [
    "SVRGModule", "SVRGBucketingModule", "AdamW", "AutoStep", "BarzilaiBorwein", "CSRIter", "LockedBatches",
    "ProximalSGD", "VarianceMonitor", "adamw", "coefficients", "diagnose", "history", "proximal", "schedules",
    "step_sizes", "svrg_module", "svrg_optimizer", "theory", "_AssignmentOptimizer", "_SVRGOptimizer",
]  # fmt: skip

_HOME = {
    "SVRGModule": "svrg_module",
    "SVRGBucketingModule": "svrg_bucketing_module",
    "AdamW": "adamw",
    "AutoStep": "step_sizes",
    "BarzilaiBorwein": "step_sizes",
    "CSRIter": "csr_iter",
    "LockedBatches": "locked_batches",
    "ProximalSGD": "proximal",
    "VarianceMonitor": "variance_monitor",
    "diagnose": "diagnosis",
    "_SVRGOptimizer": "svrg_optimizer",
    "_AssignmentOptimizer": "svrg_optimizer",
}

startup.install()

if os.environ.get("DMLC_ROLE") == "worker":
    from .distributed import watch_client

    watch_client.join_as_worker()
    # Whoever makes a store next waits for the others.
    from .mxnet_api.importing import explain_errors

    with explain_errors():
        from .distributed import new_stores
    new_stores.register()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
    from .mxnet_api.importing import explain_errors

    with explain_errors():
        home = importlib.import_module("." + _HOME.get(name, name), __name__)
    return getattr(home, name) if name in _HOME else home


def __dir__() -> List[str]:
    return sorted(set(globals()) | set(__all__))
