"""The results as a table in Markdown, as JSON, and as a chart."""

import json
import os
import pathlib
import platform
import statistics
from typing import Any, Dict, List, Optional, Sequence

from .workloads import MEMORY_ONLY, WORKLOADS

TITLES = {name: workload.title for name, workload in {**WORKLOADS, **MEMORY_ONLY}.items()}


def environment() -> Dict[str, Any]:
    """The machine and the versions."""
    import mxnet
    import numpy

    versions = {"mxnet": mxnet.__version__, "numpy": numpy.__version__}
    for package in ("sklearn", "cyanure"):
        try:
            versions[package] = _version("scikit-learn" if package == "sklearn" else package)
        except ImportError:
            versions[package] = None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "system": platform.system(),
        **versions,
    }


def _version(distribution: str) -> str:
    from importlib.metadata import version

    return version(distribution)


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n")
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def warnings_about(machine: Dict[str, Any]) -> List[str]:
    """What makes the figures worth less."""
    found = []
    if machine["OMP_NUM_THREADS"] is not None:
        found.append(
            "OMP_NUM_THREADS={} is set; the figures to compare are without it".format(machine["OMP_NUM_THREADS"])
        )
    if machine["load"] is not None and machine["load"] > 0.5:
        found.append("the machine was not idle: load {} at the start".format(machine["load"]))
    return found


# ---------------------------------------------------------------------------------------------------------- numbers


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows a whole round down cancels."""
    return statistics.median(a / b for a, b in zip(above, below))


def ratios(times: Dict[str, List[float]]) -> Dict[str, float]:
    """The ratios that the package is judged by; the floor's are two, of executors and of plain Module's calls."""
    return {
        "upstream/ours": ratio(times["upstream"], times["ours"]),
        "ours/Module": ratio(times["ours"], times["Module"]),
        "ours/floor": ratio(times["ours"], times["floor"]),
        "ours/Module's floor": ratio(times["ours"], times["Module's floor"]),
    }


# --------------------------------------------------------------------------------------------------------- Markdown


def markdown(results: Dict[str, Any]) -> str:
    """All tables."""
    parts = ["# Benchmarks", _about(results)]
    if results["steps"]:
        parts += ["## Time per step", _STEPS, _steps(results["steps"])]
    if results["memory"]:
        parts += ["## Peak memory", _MEMORY, _memory(results["memory"])]
    if results["snapshot_pass"]:
        parts += ["## Full pass", _PASS, _snapshot_pass(results["snapshot_pass"])]
    if results["convergence"]:
        parts += ["## Convergence", _CONVERGENCE]
        parts += [_convergence(name, methods) for name, methods in results["convergence"].items()]
    return "\n\n".join(parts) + "\n"


_STEPS = (
    "Milliseconds per step of `fit`, the full pass amortised (`update_freq` 2, SGD): medians of the rounds, and "
    "medians of the ratios within a round. The floor is 2.5 (forward + backward) + 1 update, one after the other, "
    "without metric and iterator: of bare executors and updater, and (Module's floor) of `forward_backward` and "
    "`update` of plain Module."
)
_MEMORY = (
    "MB above an idle process that has imported mxnet; each contender in a process of its own. `save_memory` is ours "
    "with `save_memory=True`."
)
_PASS = "`update_full_grads` against the same two matrix products, batch by batch, in NumPy; float32, 90 features."
_CONVERGENCE = (
    "l2-regularised logistic regression, 90 features, lambda = 1/n: seconds, and passes over the data in gradient "
    "evaluations, to a relative suboptimality (f - f\\*)/f\\*. Every clock starts at the same float64 arrays; set-up "
    "and the choice of the step size are included. The passes of lbfgs are at least these; each of newton-cholesky "
    'comes with a Hessian. "Never" gives the best that was seen.'
)


def _about(results: Dict[str, Any]) -> str:
    machine, settings = results["environment"], results["settings"]
    lines = ["{}, {} cores; Python {}, mxnet {}, numpy {}, scikit-learn {}, cyanure {}. {} rounds, all contenders in "
             "each; OMP_NUM_THREADS {}.".format(
                 machine["processor"], machine["cores"], machine["python"], machine["mxnet"], machine["numpy"],
                 machine["sklearn"] or "missing", machine["cyanure"] or "missing", settings["rounds"],
                 machine["OMP_NUM_THREADS"] or "unset")]  # fmt: skip
    return "\n\n".join(lines + ["**Note:** {}.".format(warning) for warning in warnings_about(machine)])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)] + list(rows)
    return "\n".join("| {} |".format(" | ".join(line)) for line in lines)


def _number(value: float) -> str:
    return "{:.3g}".format(value) if value < 100 else "{:.0f}".format(value)


def _times(value: float) -> str:
    return "{:.2f}x".format(value)


def _steps(steps: Dict[str, Any]) -> str:
    names = ["Module", "ours", "upstream", "floor", "Module's floor"]
    rows = []
    for workload, times in steps.items():
        row = [TITLES[workload]] + [_number(statistics.median(times[name])) for name in names]
        rows.append(row + [_times(value) for value in ratios(times).values()])
    return table(["workload"] + names + list(ratios(times)), rows)


def _memory(memory: Dict[str, Dict[str, float]]) -> str:
    # The longest row has the memory modes, which only some networks are measured in.
    names = [name for name in max(memory.values(), key=len) if name != "idle"]
    compared = [("ours", "upstream"), ("ours", "Module")] + [(name, "Module") for name in names[3:]]
    rows = []
    for workload, peaks in memory.items():
        above = {name: peak - peaks["idle"] for name, peak in peaks.items()}
        row = [TITLES[workload]] + [_number(above[name]) if name in above else "" for name in names]
        for name, other in compared:
            # Of a few MB, most is chance.
            row.append(_times(above[name] / above[other]) if above.get(name, 0) > 0 and above[other] > 5 else "")
        rows.append(row)
    return table(["workload", *names, *("/".join(pair) for pair in compared)], rows)


def _snapshot_pass(passes: Dict[str, Dict[str, List[float]]]) -> str:
    rows = []
    for n, times in passes.items():
        row = ["n = {:,}".format(int(n))]
        row += [_number(statistics.median(times[name])) for name in ("ours", "NumPy")]
        rows.append([*row, _times(ratio(times["ours"], times["NumPy"]))])
    return table(["rows", "ours, ms", "NumPy, ms", "ours/NumPy"], rows)


def _convergence(name: str, methods: Dict[str, List[Dict[str, Any]]]) -> str:
    rows = []
    targets = [reached["target"] for reached in next(iter(methods.values()))]
    for method, reached in methods.items():
        row = [method]
        for each in reached:
            seconds = _median_seconds(each)
            row += (
                ["never ({:.0e})".format(each["best"]), ""]
                if seconds is None
                else [_number(seconds), _number(each["passes"])]
            )
        rows.append(row)
    header = [title for target in targets for title in ("s to {:.0e}".format(target), "passes")]
    return "### {}\n\n".format(_problem(name)) + table(["method"] + header, rows)


def _problem(name: str) -> str:
    *family, n = name.split()
    return " ".join([*family, "n = {:,}".format(int(n))])


def _median_seconds(reached: Dict[str, Any]) -> Optional[float]:
    return statistics.median(reached["seconds"]) if reached["seconds"] else None


# ------------------------------------------------------------------------------------------------------------ chart


def chart(results: Dict[str, Any], path: pathlib.Path) -> None:
    """Above, the step times as multiples of plain Module's; below, the seconds to the last target."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps, convergence = results["steps"], results["convergence"]
    if not steps and not convergence:
        return
    figure, panels = pyplot.subplots(bool(steps) + bool(convergence), squeeze=False, figsize=(10, 8), tight_layout=True)
    rest = list(panels[:, 0])
    if steps:
        _draw_steps(rest.pop(0), steps)
    if convergence:
        _draw_convergence(rest.pop(0), convergence)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _grouped_bars(axes: Any, groups: Sequence[str], series: Dict[str, Sequence[Optional[float]]]) -> None:
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        places = [group - 0.4 + width * (number + 0.5) for group in range(len(groups))]
        axes.bar(places, [float("nan") if value is None else value for value in values], width, label=name)
    axes.set_xticks(range(len(groups)))
    axes.set_xticklabels(groups)
    if any(value is not None for values in series.values() for value in values):
        axes.set_yscale("log")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=4, frameon=False, fontsize="small")


def _draw_steps(axes: Any, steps: Dict[str, Any]) -> None:
    series = {
        name: [ratio(times[name], times["Module"]) for times in steps.values()]
        for name in ("floor", "ours", "upstream")
    }
    _grouped_bars(axes, list(steps), series)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("time per step, Module = 1")


def _draw_convergence(axes: Any, convergence: Dict[str, Any]) -> None:
    names = list(next(iter(convergence.values())))
    series = {name: [_median_seconds(methods[name][-1]) for methods in convergence.values()] for name in names}
    _grouped_bars(axes, list(map(_problem, convergence)), series)
    target = next(iter(convergence.values()))[names[0]][-1]["target"]
    axes.set_ylabel("seconds to {:.0e} (no bar: never)".format(target))


# ------------------------------------------------------------------------------------------------------------ files


def save(results: Dict[str, Any], directory: pathlib.Path) -> None:
    """Write results.json, results.md and results.png."""
    directory.mkdir(parents=True, exist_ok=True)
    derived = {workload: ratios(times) for workload, times in results["steps"].items()}
    (directory / "results.json").write_text(json.dumps({**results, "ratios": derived}, indent=1) + "\n", "utf-8")
    (directory / "results.md").write_text(markdown(results), "utf-8")
    try:
        chart(results, directory / "results.png")
    except ImportError:
        print("matplotlib is not installed: there is no chart")
