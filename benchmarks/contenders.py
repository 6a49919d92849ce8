"""Who is compared: plain Module, this package, and the module of the mxnet wheel."""

import contextlib
import logging
import warnings
from typing import Any, Dict, Iterator

from svrg_optimization import SVRGModule

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mxnet as mx

    # After ours. Both register an optimizer called _SVRGOptimizer: whoever comes last owns the name. Upstream creates
    # its optimizer by it; ours has a name of its own.
    from mxnet.contrib.svrg_optimization import svrg_module as upstream
    from mxnet.contrib.svrg_optimization import svrg_optimizer as upstream_optimizer

assert mx.optimizer.Optimizer.opt_registry["_svrgoptimizer"] is upstream_optimizer._SVRGOptimizer

UPDATE_FREQ = 2
# Seconds before a measurement: threads of NumPy and others spin for a while after their work, and would slow down
# whoever comes next.
REST = 0.2

_QUIET = logging.getLogger("benchmarks.quiet")
_QUIET.setLevel(logging.CRITICAL)

CONTENDERS = ("Module", "ours", "upstream")
# Settings of ours that are compared by memory alone: name -> arguments of SVRGModule.
MEMORY_MODES: Dict[str, Dict[str, Any]] = {"save_memory": {"save_memory": True}}


def make(contender: str, symbol: Any, update_freq: int = UPDATE_FREQ, **settings: Any) -> Any:
    """A module that logs nothing; ours gets the further settings."""
    if contender == "Module":
        return mx.mod.Module(symbol, logger=_QUIET)
    if contender == "upstream":
        return upstream.SVRGModule(symbol, logger=_QUIET, update_freq=update_freq)
    return SVRGModule(symbol, logger=_QUIET, update_freq=update_freq, **MEMORY_MODES.get(contender, {}), **settings)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of a module that is fitted again and again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fit(module: Any, train: Any, epochs: int, workload: Any) -> None:
    """Train, and wait until it is done."""
    module.fit(train, eval_metric=workload.metric, num_epoch=epochs, initializer=mx.init.Xavier(),
               optimizer_params={"learning_rate": workload.learning_rate})  # fmt: skip
    mx.nd.waitall()
