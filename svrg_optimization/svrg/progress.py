"""What was measured at the snapshots, and whether it is time to stop."""

import contextlib
import json
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from .. import history
from ..history import Record
from . import stopping


class Progress:
    """The records of all snapshots.

    Attributes
    ----------
    records : list of Record
        One for each snapshot.
    writers : list of object
        Each gets every number of a record by its ``add_scalar(name, value, step)``.
    rate_is_chosen : bool
        Whether the learning rate isn't the user's.
    converged : bool
        Whether `has_ended` has been true since `begin`.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.records: List[Record] = []
        self.writers: List[Any] = []
        self.rate_is_chosen = self.converged = False
        # When the first snapshot would have begun, had there been no breaks; how many gradients of samples had been
        # computed at the last one.
        self._began: Optional[float] = None
        self._evaluations = 0
        # The present objective, and the first record of it; the first record of this training.
        self._objective: Any = None
        # The numbers of the records whose full gradient was that of a part of the samples.
        self._partial: List[int] = []
        self._first = self._first_of_training = 0

    def add(self, record: Record, started: float, evaluations: int, is_whole: bool = True) -> None:
        """Add the record of a snapshot that was `started` at this time, when so many gradients had been computed.

        `is_whole`: its full gradient is that of all samples. That of a part doesn't tell whether it is time to stop.
        """
        last = self.records[-1] if self.records else Record(seconds=0.0, passes=0.0)
        if self._began is None:
            self._began = started - last.seconds
        record.seconds = time.time() - self._began
        # The number of samples may have changed.
        record.passes = last.passes + (evaluations - self._evaluations) / (record.samples or 1)
        self._evaluations = evaluations
        self.records.append(record)
        if not is_whole:
            self._partial.append(len(self.records) - 1)
        self.write(record, list(vars(record)))

    def write(self, record: Record, names: Sequence[str]) -> None:
        """Give the writers what a record has under these names."""
        for writer in list(self.writers):
            try:
                for name in names:
                    value = getattr(record, name)
                    if value is not None:
                        writer.add_scalar("svrg/" + name, value, record.num_update)
            except Exception as error:
                self._logger.warning("the writer %r raised %r, and gets nothing any more", writer, error)
                self.writers.remove(writer)

    def begin(self, tol: Optional[float]) -> None:
        """A training begins, which is to end at a gradient of `tol` times the first, or not to be ended if None."""
        if tol is not None:
            stopping.check_tol(tol)
        self.converged, self._first_of_training = False, len(self.records)

    def minimize(self, objective: Any, of_other_data: bool) -> None:
        """The training minimizes this, which JSON can hold. If that is something else than before, all begins anew."""
        objective = json.loads(json.dumps(objective))
        if of_other_data or self._objective not in (None, objective):
            self._first = len(self.records)
        self._objective = objective

    def _norms(self, first: int) -> List[float]:
        whole = (number for number in range(first, len(self.records)) if number not in self._partial)
        return [self.records[number].gradient_norm for number in whole]

    def has_ended(self, tol: float, epsilon: float) -> bool:
        """Whether the last snapshot's gradient is small enough; a log line says so. Warns if it doesn't get smaller."""
        if len(self.records) - 1 in self._partial:
            return False
        norms, last = self._norms(self._first), self.records[-1]
        self.converged = stopping.has_converged(norms, tol)
        if self.converged:
            self._logger.info(
                "Epoch[%d] Converged: the objective's gradient has the norm %.3g, which is at most tol=%g times the "
                "first, %.3g%s", last.epoch, norms[-1], tol, norms[0], "" if last.bound is None else
                ". If the loss is convex, the objective is at most %.3g above its minimum" % last.bound,
            )  # fmt: skip
        elif stopping.has_stalled(self._norms(max(self._first, self._first_of_training)), epsilon):
            remedy = (
                "The rate is chosen as training goes on, so it may get smaller yet; if it doesn't, perhaps the loss "
                "has no minimum, or isn't smooth" if self.rate_is_chosen else
                "learning_rate=%s may be too large: try a third of it, or 'auto'" % last.learning_rate
            )  # fmt: skip
            self._logger.warning(
                "Epoch[%d] The gradient hasn't become smaller for many snapshots: its norm is %.3g, and tol=%g times "
                "the first is %.3g. %s", last.epoch, norms[-1], tol, tol * norms[0], remedy,
            )  # fmt: skip
        return self.converged

    def end(self, tol: Optional[float], begin_epoch: int, num_epoch: int, epsilon: float) -> None:
        """Warn if there were epochs, and `tol` wasn't reached in them."""
        norms = self._norms(self._first)
        if tol is None or begin_epoch >= num_epoch or not norms or stopping.has_converged(norms, tol):
            return
        last = self.records[-1]
        if stopping.is_at_roundings(norms, epsilon):
            remedy = "Those are roundings of the weights' type, which more epochs don't take away: take a larger tol%s"
            remedy %= "" if epsilon < 1e-12 else ", or data and weights of float64"
        elif self.rate_is_chosen:
            remedy = "Train more epochs"
        else:
            remedy = "Train more epochs, or with another learning rate than %s: 'auto' chooses one" % last.learning_rate
        self._logger.warning(
            "num_epoch=%d came before tol=%g was reached: at the last snapshot, in epoch %s, the gradient's norm was "
            "%.3g times the first. %s",
            num_epoch, tol, last.epoch, norms[-1] / (norms[0] or 1.0), remedy,
        )  # fmt: skip

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {
            "records": [dict(history.plain(record)) for record in self.records],
            "evaluations": self._evaluations, "objective": self._objective, "first": self._first,
            "partial": list(self._partial),
        }  # fmt: skip

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from a state."""
        self.records, self._began = [Record(**each) for each in state["records"]], None
        # Older files have the records only.
        last = self.records[-1] if self.records else Record(passes=0.0, samples=0)
        self._evaluations = state.get("evaluations", round(last.passes * (last.samples or 0)))
        self._objective, self._first = state.get("objective"), state.get("first", 0)
        self._partial = list(state.get("partial", []))


class Converged(Exception):
    """Ends a training before its last epoch."""


def until_converged(train: Callable[..., None], *arguments: Any) -> None:
    """Call a function, which may end by `Converged`."""
    with contextlib.suppress(Converged):
        train(*arguments)
