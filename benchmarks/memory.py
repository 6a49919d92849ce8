"""Peak memory of `fit`, each contender in a process of its own, beside that of a process that only imports mxnet."""

import argparse
import functools
import json
import pathlib
import statistics
import subprocess
import sys
from typing import Any, Dict, Optional

from .workloads import CONVNETS, MEMORY_ONLY, WORKLOADS, Workload

ROOT = pathlib.Path(__file__).resolve().parent.parent
IDLE = "idle"
EPOCHS = 3


def peak() -> float:
    """The most memory that this process has held, in MB."""
    try:
        # Not getrusage's ru_maxrss: that begins with what the parent held when it forked.
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used / (1024**2 if sys.platform == "darwin" else 1024)


def measure(name: str, repeats: int) -> Dict[str, float]:
    """MB, by contender, and of an idle process: medians of so many processes."""
    from .contenders import CONTENDERS, MEMORY_MODES

    names = [*CONTENDERS, *(MEMORY_MODES if name in CONVNETS else ())]
    return {IDLE: _median(IDLE, "", repeats), **{contender: _median(contender, name, repeats) for contender in names}}


@functools.lru_cache(maxsize=None)
def _median(contender: str, workload: str, repeats: int) -> float:
    return statistics.median(_in_a_process(contender, workload) for _ in range(repeats))


def _in_a_process(contender: str, workload: str) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", contender, workload]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout.decode())


def _fit(contender: str, workload: Workload) -> None:
    from .contenders import fit, make, quiet

    # The data that is timed. With one batch an epoch, upstream's loop over 100 000 rows is seconds and not minutes.
    train = workload.iterator(workload.data(1 if workload.slow_batches == 1 else workload.batches))
    with quiet():
        fit(make(contender, workload.symbol()), train, min(EPOCHS, 1 + workload.slow_batches), workload)


def main(arguments: Optional[Any] = None) -> None:
    """Print the peak of one contender, or of an idle process, in MB."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("contender")
    parser.add_argument("workload", nargs="?")
    chosen = parser.parse_args(arguments)
    from . import contenders  # noqa: F401, an idle process has everything imported, too

    if chosen.contender != IDLE:
        _fit(chosen.contender, {**WORKLOADS, **MEMORY_ONLY}[chosen.workload])
    print(json.dumps(peak()))


if __name__ == "__main__":
    main()
