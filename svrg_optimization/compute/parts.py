"""Which part of the data a full pass goes over: all, or rows that a schedule draws."""

from typing import Any, NamedTuple

from ..svrg.clock import Clock
from ..svrg.schedules import Growing
from . import data
from .full_pass import Source


class Part(NamedTuple):
    """The data of a full pass, and what of them it reads.

    Attributes
    ----------
    source : Source
        What is read.
    weight : float
        What the sums over this worker's rows are multiplied by, so that they are those of all its samples.
    rows_of_all : int
        How many rows all workers read, if that isn't all.
    is_whole : bool
        Whether all samples are read.
    """

    source: Source
    weight: float = 1.0
    rows_of_all: int = 0
    is_whole: bool = True

    def samples_of(self, rows: int) -> int:
        """How many samples this worker has, of which so many rows were read."""
        return round(rows * self.weight)


def growing_part(schedule: Growing, source: Source, clock: Clock, workers: Any) -> Part:
    """What a schedule draws. ValueError if the data aren't an NDArrayIter of dense arrays or a CSRIter."""
    if not data.can_stay(source.data):
        raise ValueError(
            "snapshots=Growing(...) draws rows, and {} is a {}; give an NDArrayIter of dense arrays or a CSRIter (to "
            "fit(), as snapshot_data)".format(source.argument, type(source.data).__name__)
        )
    own = int(source.data.num_data)
    samples = int(workers.sum_later(float(own))())
    if schedule.part(clock, samples) >= samples:
        return Part(source)
    rows = schedule.rows(clock, samples, own, workers.rank)
    read_by_all = int(workers.sum_later(float(len(rows)))())
    return Part(source._replace(rows=rows), own / len(rows), read_by_all, False)
