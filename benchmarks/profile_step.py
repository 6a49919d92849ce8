"""Where a step's time goes: ``python -m benchmarks.profile_step [WORKLOAD ...]``.

Each phase is timed twice. *Python*: until the call returns, the engine still working. *Done*: until the engine has
done all it was given (``mx.nd.waitall()``). A phase does not count the phases inside it. Where phases overlap in
the engine, the second column adds up to more than `fit` takes, undisturbed, in the last line.
"""

import argparse
import contextlib
import cProfile
import io
import pstats
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from unittest import mock

import mxnet as mx

from svrg_optimization import SVRGModule
from svrg_optimization.compute import data

from .contenders import UPDATE_FREQ, quiet
from .report import table
from .steps import Fit
from .workloads import WORKLOADS

PHASES = ("iterator", "forward, live", "forward, snapshot", "forward, around both", "backward, live",
          "backward, snapshot", "correction", "update", "metric", "full pass", "the rest of fit")  # fmt: skip
REST = PHASES[-1]
FULL_PASS = "full pass"


class Clock:
    """Adds up the time spent in each phase, less that of the phases inside it."""

    def __init__(self, module: Any, wait: bool) -> None:
        self._snapshot = getattr(module, "_mod_aux", None)
        self._wait = wait
        self._running: List[str] = []
        self._since = 0.0
        self.seconds: Dict[str, float] = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        # Whatever happens in a full pass is part of it.
        name = FULL_PASS if FULL_PASS in self._running else name
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def _switch(self) -> None:
        if self._wait:
            mx.nd.waitall()
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def of(self, worker: Any) -> str:
        """Whether a module or an executor works at the current weights or at the snapshot."""
        if self._snapshot is None or not self._snapshot.binded:
            return "live"
        at_snapshot = worker is self._snapshot or worker in self._snapshot._exec_group.execs
        return "snapshot" if at_snapshot else "live"

    def hooks(self) -> List[Tuple[Any, str, Callable[[Any], str]]]:
        """(class or module, method or function, phase). An executor may be called by its Module or directly."""
        hooks: List[Tuple[Any, str, Callable[[Any], str]]] = [
            (SVRGModule, "update_full_grads", lambda _: FULL_PASS),
            (SVRGModule, "forward", lambda _: "forward, around both"),
            (SVRGModule, "backward", lambda _: "correction"),
            (mx.io.NDArrayIter, "next", lambda _: "iterator"),
            (data, "_view", lambda _: "iterator"),
        ]
        for owner in (mx.mod.Module, SVRGModule):
            hooks.append((owner, "update", lambda _: "update"))
            hooks.append((owner, "update_metric", lambda _: "metric"))
        for owner in (mx.mod.Module, mx.executor.Executor):
            hooks.append((owner, "forward", lambda worker: "forward, " + self.of(worker)))
            hooks.append((owner, "backward", lambda worker: "backward, " + self.of(worker)))
        return hooks

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for owner, method, phase in self.hooks():
                stack.enter_context(mock.patch.object(owner, method, self._timed(getattr(owner, method), phase)))
            yield

    def _timed(self, function: Callable[..., Any], phase: Callable[[Any], str]) -> Callable[..., Any]:
        def timed(worker: Any, *args: Any, **kwargs: Any) -> Any:
            with self.phase(phase(worker)):
                return function(worker, *args, **kwargs)

        return timed


def phases(fitted: Fit, units: int, wait: bool) -> Dict[str, float]:
    """Milliseconds a step in each phase of `fit`."""
    clock = Clock(fitted.module, wait)
    with clock.attached(), clock.phase(REST):
        fitted.sample(units)
    return {name: 1000 * seconds / (units * fitted.steps) for name, seconds in clock.seconds.items()}


def profile(workload: str, seconds: float) -> str:
    """The table of one workload, plain Module beside ours."""
    columns: Dict[str, Dict[str, float]] = {}
    with quiet():
        for contender in ("Module", "ours"):
            fitted = Fit(contender, WORKLOADS[workload], WORKLOADS[workload].batches)
            units = max(1, round(seconds / (fitted.sample(1) * fitted.steps)))
            undisturbed = 1000 * fitted.sample(units)
            for title, wait in (("Python", False), ("done", True)):
                columns["{}, {}".format(contender, title)] = {
                    **phases(fitted, units, wait),
                    "fit, undisturbed": undisturbed,
                }
    rows = [[phase] + ["{:.3f}".format(column[phase]) for column in columns.values()] for phase in PHASES]
    total = ["sum"] + ["{:.3f}".format(sum(column[phase] for phase in PHASES)) for column in columns.values()]
    last = ["fit, undisturbed"] + ["{:.3f}".format(column["fit, undisturbed"]) for column in columns.values()]
    title = "### {}\n\nMilliseconds a step, the full pass amortised over {} epochs.\n\n"
    return title.format(WORKLOADS[workload].title, UPDATE_FREQ) + table(["phase", *columns], rows + [total, last])


def functions(workload: str, seconds: float, number: int) -> str:
    """The Python functions of ours that take the most time themselves, by cProfile."""
    with quiet():
        fitted = Fit("ours", WORKLOADS[workload], WORKLOADS[workload].batches)
        units = max(1, round(seconds / (fitted.sample(1) * fitted.steps)))
        profiler = cProfile.Profile()
        profiler.runcall(fitted.sample, units)
    text = io.StringIO()
    pstats.Stats(profiler, stream=text).strip_dirs().sort_stats("tottime").print_stats(number)
    return "{} steps\n{}".format(units * fitted.steps, text.getvalue().strip())


def main(arguments: Optional[List[str]] = None) -> None:
    """Show where the time of a step goes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", description=main.__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default all: " + ", ".join(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each measurement takes")
    parser.add_argument("--functions", type=int, metavar="N", help="list the N costliest Python functions, too")
    chosen = parser.parse_args(arguments)
    for workload in chosen.workloads or WORKLOADS:
        print(profile(workload, chosen.seconds), end="\n\n", flush=True)
        if chosen.functions:
            print(functions(workload, chosen.seconds, chosen.functions), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
