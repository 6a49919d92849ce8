"""One call of `fit`: what happens at the start of its epochs and between its steps."""

from functools import partial
from typing import Any, Optional

from .compute import data
from .compute.full_pass import Callbacks, Source
from .locked_batches import LockedBatches
from .mxnet_api import internals
from .svrg.progress import Converged
from .svrg.schedules import Growing


class FitRun:
    """Takes the snapshots of a module that is trained by `fit`, and ends the training when it has converged.

    Parameters
    ----------
    module : SVRGModule
    train_data, snapshot_data
        As `fit` got them.
    epochs : range
        Those to be trained.
    tol : float, optional
    callbacks : callable or list of callables, optional
        Of the full passes.
    """

    def __init__(
        self, module: Any, train_data: Any, snapshot_data: Any, epochs: range, tol: Optional[float],
        callbacks: Callbacks,
    ) -> None:  # fmt: skip
        self._module, self._train_data, self._epochs, self._tol, self._callbacks = (
            module, train_data, epochs, tol, callbacks)  # fmt: skip
        self._argument = "train_data" if snapshot_data is None else "snapshot_data"
        self._data = train_data if snapshot_data is None else snapshot_data
        self._coming, self._steps = iter(epochs), None  # type: Any, Optional[int]
        # The data of a full pass that this asks for.
        self.source: Optional[Source] = None
        self._check_data(snapshot_data)

    def _check_data(self, snapshot_data: Any) -> None:
        schedule = self._module._schedule
        if isinstance(self._train_data, LockedBatches):
            if schedule.within_epochs or isinstance(schedule, Growing):
                raise ValueError(
                    "snapshots={}: LockedBatches draw anew with each snapshot, all of them, at the start of an epoch; "
                    "take EveryEpochs, or data that aren't locked".format(schedule)
                )
            if self._data is not self._train_data:
                raise ValueError(
                    "snapshot_data={!r} has other draws than train_data, which is LockedBatches, and these would stay "
                    "locked for ever: leave snapshot_data out".format(snapshot_data)
                )
        if schedule.within_epochs and self._data is self._train_data and not data.can_stay(self._train_data):
            raise ValueError(
                "snapshots={}: a snapshot in the middle of an epoch needs data that can be read there, and train_data "
                "is a {}; give fit() snapshot_data, another iterator over the same samples".format(
                    schedule, type(self._train_data).__name__
                )
            )

    def begin_epoch(self) -> Optional[int]:
        """An epoch begins; how many batches it has, None for all."""
        module, epoch = self._module, next(self._coming)
        module._clock.begin_epoch(epoch)
        other_data = False
        if epoch == self._epochs[0]:
            other_data = module._snapshot.taken and not module._is_of(self._data)
            module._progress.minimize(module._training_objective().in_words(), other_data)
            if other_data and module._steps is not None:
                module._steps.begin_anew()
            self._steps = self.agree_on_steps(other_data)
        other_data = other_data and not module._is_warm_start
        if self._wants_snapshots and (other_data or module._next_snapshot_is_due()):
            self._take_snapshot(Source(self._data, self._argument, at_start=True), epoch)
        elif isinstance(self._train_data, LockedBatches) and (module._is_plain or module._is_warm_start):
            # No full gradient has these draws.
            self._train_data.redraw()
        return self._steps

    @property
    def between_steps(self) -> Any:
        """What to call between two steps; None if there is nothing to do."""
        return self._between_steps if self._module._schedule.within_epochs else None

    def _between_steps(self) -> None:
        if self._wants_snapshots and self._module._next_snapshot_is_due():
            in_place = self._data is self._train_data
            source = Source(self._data, self._argument, at_start=not in_place, in_place=in_place)
            self._take_snapshot(source, self._module._clock.epoch)

    @property
    def _wants_snapshots(self) -> bool:
        # Without the control variate they are good for nothing but to see how far training has come.
        return self._tol is not None or not self._module._is_plain

    def _take_snapshot(self, source: Source, epoch: int) -> None:
        module, number, self.source = self._module, self._module._snapshot.number, source
        module.update_full_grads(source.data, batch_end_callback=self._callbacks, epoch=epoch)
        self.source = None
        is_new = module._snapshot.number > number
        if self._tol is not None and is_new and module._progress.has_ended(self._tol, internals.epsilon(module)):
            raise Converged

    def agree_on_steps(self, other_data: bool) -> Optional[int]:
        """The number of steps of an epoch, on all workers; None for all batches."""
        module = self._module
        return module._workers.steps(partial(data.count_batches, self._train_data), {
            "begin_epoch": self._epochs.start, "num_epoch": self._epochs.stop, **module._plan_in_numbers(),
            "snapshots": module._snapshot.number, "data other than the last snapshot's": int(other_data),
        })  # fmt: skip
