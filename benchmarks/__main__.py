"""The benchmark: ``python -m benchmarks``, or ``--quick`` for a first look."""

import argparse
import pathlib
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from . import convergence, memory, report, snapshot_pass, steps
from .contenders import REST
from .workloads import MEMORY_ONLY, WORKLOADS

# Data that the step rule wasn't made on.
FAMILIES = ["{} {}".format(family, n) for n in (5_000, 50_000) for family in ("heavy rows", "binary", "not centred")]
PARTS = ("steps", "memory", "snapshot-pass", "convergence")


class Settings(NamedTuple):
    """What is measured. The command line has an option for each number."""

    workloads: Sequence[str]
    memory: Sequence[str]
    sizes: Sequence[int]
    families: Sequence[str]
    rounds: int
    seconds: float
    patience: float
    processes: int
    rest: float


FULL = Settings(list(WORKLOADS), [*WORKLOADS, *MEMORY_ONLY], (5_000, 50_000, 463_000), FAMILIES, 5, 0.5, 20.0, 3, REST)
QUICK = Settings(["linear", "softmax", "mlp", "lenet"], ["lenet"], (5_000,), (), 3, 0.1, 2.0, 1, REST)


def run(settings: Settings, parts: Sequence[str], output: pathlib.Path) -> Dict[str, Any]:
    """All results, as they are written to JSON; saved after each measurement, for one may be interrupted."""
    results: Dict[str, Any] = {
        "environment": report.environment(),
        "settings": settings._asdict(),
        "steps": {}, "memory": {}, "snapshot_pass": {}, "convergence": {},
    }  # fmt: skip
    for warning in report.warnings_about(results["environment"]):
        print("Note: {}.".format(warning), flush=True)

    def each(part: str, names: Sequence[Any], measure: Callable[[Any], Any]) -> None:
        for name in names if part in parts else ():
            started = time.perf_counter()
            results[part.replace("-", "_")][str(name)] = measure(name)
            report.save(results, output)
            print("{} {}: {:.0f} s".format(part, name, time.perf_counter() - started), flush=True)

    each("steps", settings.workloads, lambda name: steps.measure(WORKLOADS[name], settings.rounds, settings.seconds))
    each("memory", settings.memory, lambda name: memory.measure(name, settings.processes))
    each("snapshot-pass", [max(settings.sizes)], lambda n: snapshot_pass.measure(n, settings.rounds, settings.rest))
    problems = [*map(str, settings.sizes), *settings.families]
    each("convergence", problems, lambda name: convergence.measure(
        name, settings.rounds, settings.patience, rest=settings.rest))  # fmt: skip
    return results


def main(arguments: Optional[List[str]] = None) -> None:
    """Measure, print the tables, and write results.md, results.json and results.png."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="under two minutes, on a part of it")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*PARTS, *WORKLOADS, *MEMORY_ONLY],
        metavar="WHAT",
        default=[],
        help="parts ({}) or workloads ({}); default all".format(", ".join(PARTS), ", ".join(WORKLOADS)),
    )
    parser.add_argument("--rounds", type=int, help="how often each contender is timed")
    parser.add_argument("--seconds", type=float, help="how long a sample of step times takes at least")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="rows of the convergence comparison")
    parser.add_argument("--families", nargs="*", metavar="'NAME N'", help="further data of the convergence comparison")
    parser.add_argument("--patience", type=float, help="seconds after which a method is said not to converge")
    parser.add_argument("--processes", type=int, help="how often the peak memory of each contender is measured")
    parser.add_argument("--rest", type=float, help="seconds before each run, for other threads to fall idle")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("out", "benchmarks"), metavar="DIRECTORY")
    chosen = parser.parse_args(arguments)

    settings = QUICK if chosen.quick else FULL
    options = ("rounds", "seconds", "sizes", "families", "patience", "processes", "rest")
    given = {name: getattr(chosen, name) for name in options}
    settings = settings._replace(**{name: value for name, value in given.items() if value is not None})
    parts = [part for part in PARTS if part in chosen.only]
    names = [name for name in chosen.only if name not in PARTS]
    if names:
        settings = settings._replace(workloads=[name for name in names if name in WORKLOADS], memory=names)
        # A workload alone asks for its times and memory; a part alone, for all its workloads.
        if not {"steps", "memory"} & set(parts):
            parts += ["steps", "memory"]
    results = run(settings, parts or PARTS, chosen.output)
    print("\n" + report.markdown(results))


if __name__ == "__main__":
    main()
