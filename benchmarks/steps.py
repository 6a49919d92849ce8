"""Time per step of `fit`, the full pass amortised, of all contenders in turn; and the floors, in the same run.

A floor is what a serial implementation cannot go below with `update_freq` 2: 2.5 forward and backward passes (at the
weights, at the snapshot, and half a full pass) and one update, without metric and iterator.
"""

import math
import time
from typing import Any, Callable, Dict, List

import mxnet as mx

from .contenders import CONTENDERS, UPDATE_FREQ, fit, make, quiet
from .workloads import Workload

# Of calls of the executor and the updater with nothing around them, and of plain Module's own calls, which look at the
# batch and copy it. Between them are implementations that do the former's work within the latter's methods.
FLOOR, MODULE_FLOOR = "floor", "Module's floor"


class Fit:
    """Trains epochs of one workload by one contender; bound and warm once it is made."""

    def __init__(self, contender: str, workload: Workload, batches: int) -> None:
        self.workload = workload
        self.train = workload.iterator(workload.data(batches))
        self.module = make(contender, workload.symbol())
        # A sample is a whole number of snapshot periods.
        self.steps = UPDATE_FREQ * batches
        self.warm_up = self.sample(1)

    def sample(self, units: int) -> float:
        """Seconds a step."""
        self.train.reset()
        start = time.perf_counter()
        fit(self.module, self.train, units * UPDATE_FREQ, self.workload)
        return (time.perf_counter() - start) / (units * self.steps)


class Floor:
    """Repeats a forward and backward pass, and an update, each for itself."""

    def __init__(self, forward_backward: Callable[[], Any], update: Callable[[], Any]) -> None:
        self._forward_backward, self._update = forward_backward, update
        self.steps = 10
        self.warm_up = self.sample(1)

    def sample(self, units: int) -> float:
        """Seconds a step."""
        return 2.5 * _mean(self._forward_backward, units * self.steps) + _mean(self._update, units * self.steps)


def _floors(workload: Workload) -> Dict[str, Floor]:
    """Both, of one bound Module."""
    module = make("Module", workload.symbol())
    train = workload.iterator(workload.data(1))
    # Updates that change the weights would move them far away, the gradient being always the same: the classifier's
    # probabilities then become denormal numbers, with which its passes take four times as long.
    fit(module, train, 1, workload._replace(learning_rate=0.0))
    train.reset()
    batch = next(train)
    module.forward_backward(batch)
    group = module._exec_group
    executor = group.execs[0]
    gradients = [gradient[0] for gradient in group.grad_arrays]
    weights = [weight[0] for weight in group.param_arrays]
    indices = list(range(len(weights)))

    def run_executor() -> None:
        executor.forward(is_train=True)
        executor.backward()

    return {
        FLOOR: Floor(run_executor, lambda: module._updater(indices, gradients, weights)),
        MODULE_FLOOR: Floor(lambda: module.forward_backward(batch), module.update),
    }


def _mean(function: Any, times: int) -> float:
    mx.nd.waitall()
    start = time.perf_counter()
    for _ in range(times):
        function()
    mx.nd.waitall()
    return (time.perf_counter() - start) / times


def _units(runner: Any, seconds: float) -> int:
    """How often the smallest sample must be repeated to take so many seconds."""
    if runner.warm_up * runner.steps > 2 * seconds:
        return 1
    return max(1, math.ceil(seconds / (runner.sample(1) * runner.steps)))


def measure(workload: Workload, rounds: int, seconds: float) -> Dict[str, List[float]]:
    """Milliseconds a step, of every round, by contender; a sample takes at least about `seconds`."""
    with quiet():
        runners: Dict[str, Any] = dict(_floors(workload))
        for contender in CONTENDERS:
            batches = workload.slow_batches if contender == "upstream" else workload.batches
            runners[contender] = Fit(contender, workload, batches)
        units = {name: _units(runner, seconds) for name, runner in runners.items()}
        times: Dict[str, List[float]] = {name: [] for name in runners}
        names = list(runners)
        for number in range(rounds):
            # Another one begins each round: nobody always runs after the same neighbour's work.
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                times[name].append(1000 * runners[name].sample(units[name]))
    return times
