"""What a step does to the rows of a weight, those that it touches and those that it leaves alone."""

import abc
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from ..mxnet_api import internals, memory
from ..svrg.reweighting import TouchCounts
from ..svrg.skipped_steps import SkippedSteps
from .small_network import UpdatedRows

# So many rows are brought up to date at once: what is computed on the way stays small.
_AT_ONCE = 1 << 15


class RowParameter:
    """A parameter whose rows are named by batches.

    Attributes
    ----------
    name : str
    group : int
        The number of the group of parameters whose rows the same inputs name.
    array : NDArray
        The weights, which the steps write.
    copies : list of NDArray
        The weights on other devices, which get what `array` has.
    of_snapshot : NDArray
        The snapshot's weights.
    key : object or None
        By which the optimizer knows it; None if it isn't trained.
    weight, snapshot, mu : array
        NumPy's views of the weights, the snapshot's, and the full gradient; None before there are any.
    states : list of array
        Views of the optimizer's states.
    rows, alpha, part : float
        Of the last step: by what the full gradient was multiplied where nothing was touched; the coefficient; and which
        part of the batch, for each row, belongs to workers that touch it.
    """

    def __init__(self, name: str, group: int, array: Any, copies: Sequence[Any], of_snapshot: Any, key: Any) -> None:
        self.name, self.group, self.array, self.copies, self.of_snapshot = name, group, array, copies, of_snapshot
        self.key = key
        self.weight: Any = None
        self.snapshot: Any = None
        self.mu: Any = None
        self.states: List[Any] = []
        self.rows, self.alpha, self.part = 0.0, 1.0, 1.0  # type: float, float, Any

    @property
    def is_trained(self) -> bool:
        """Whether the optimizer moves it."""
        return self.key is not None


class Rule(abc.ABC):
    """Updates the rows of one set of weights.

    Parameters
    ----------
    parameters : list of RowParameter
    sizes : list of int
        The number of rows, of each group.
    updater : Updater
        Has the optimizer and its states.
    pull : callable, optional
        Sets a parameter's array to what a KVStore has.
    """

    def __init__(
        self, parameters: Sequence[RowParameter], sizes: Sequence[int], updater: Any,
        pull: Optional[Callable[[RowParameter], None]] = None,
    ) -> None:  # fmt: skip
        self.parameters, self.sizes, self._updates, self._pull = parameters, sizes, updater, pull
        self._trained = [each for each in parameters if each.is_trained]
        # Whether the steps have the weights for themselves; whether all rows and devices are up to date; and whether
        # the weights are in the KVStore, which has updated them last.
        self._has_taken_over, self._is_shown, self.is_in_store = False, True, pull is not None
        # Rows that the optimizer has updated, or is about to, where they have been put for that.
        self._updated: Optional[Tuple[Sequence[Any], UpdatedRows]] = None

    @property
    def _of_user(self) -> Any:
        """The user's optimizer."""
        return getattr(self._updates.optimizer, "default_opt", self._updates.optimizer)

    # ---------------------------------------------------------------------------------------------------- the rows

    @abc.abstractmethod
    def full_gradient(self, parameter: RowParameter, touched: Any) -> Any:
        """What takes the place of the full gradient on these rows."""

    # How often batches touch rows, of each group, once a full pass has counted; and whether steps need that.
    counts: Sequence[TouchCounts] = ()
    needs_counts = False

    def set_counts(self, counts: Sequence[TouchCounts]) -> None:
        """A full pass has counted."""
        self.counts = counts

    @abc.abstractmethod
    def weight_of_rows(self, batch_rows: float, of_each: Any) -> Any:
        """By what the full gradient is multiplied: the batch has so many rows, of workers that touch a row so many."""

    def regularize(self, parameter: RowParameter, touched: Any, gradient: Any) -> None:  # noqa: B027 - if need be
        """Add to the gradient of these rows what weight decay lacks."""

    def fetch(self, rows: Sequence[Any]) -> None:
        """Let these rows of each group be what dense steps would have made them."""
        self.finish_update()
        if not self._take_over() and self._is_shown:
            # Somebody may still be reading.
            for parameter in self._trained:
                memory.wait_to_write(parameter.array)
                for state in self._states_of(parameter):
                    memory.wait_to_write(state)

    def update(self, rows: Sequence[Any], updated: UpdatedRows) -> None:
        """Take a step: `updated` has the gradients of these rows, and room for them."""
        # Of an update by the same gradients, perhaps.
        self.finish_update()
        if self._take_over():
            # Somebody else has had the weights since the forward pass.
            for parameter in self._trained:
                touched = rows[parameter.group]
                updated.rows[parameter.name].weight_view[: len(touched)] = parameter.weight[touched]
        for parameter in self._trained:
            self._update(parameter, rows[parameter.group], updated)
        self._is_shown, self._updated = False, (rows, updated)

    def finish_update(self) -> None:
        """Put back the rows that the optimizer has updated: not sooner than need be, for mxnet computes meanwhile."""
        if self._updated is None:
            return
        (rows, updated), self._updated = self._updated, None
        for parameter in self._trained:
            touched, small = rows[parameter.group], updated.rows[parameter.name]
            state, views = updated.states[parameter.name]
            memory.wait_to_read(small.weight)
            parameter.weight[touched] = small.weight_view[: len(touched)]
            for view, whole, array in zip(views, parameter.states, _arrays_in(state)):
                memory.wait_to_read(array)
                whole[touched] = view[: len(touched)]

    def _update(self, parameter: RowParameter, touched: Any, updated: UpdatedRows) -> None:
        optimizer, small = self._updates.optimizer, updated.rows[parameter.name]
        if parameter.name not in updated.states:
            state = optimizer.create_state_multi_precision(parameter.key, small.weight)
            updated.states[parameter.name] = state, [memory.view(array) for array in _arrays_in(state)]
        state, views = updated.states[parameter.name]
        for view, whole in zip(views, parameter.states):
            view[: len(touched)] = whole[touched]
        internals.set_context(optimizer, parameter.array)
        # SGD's calls are prepared for lists.
        if optimizer.aggregate_num > 0:
            optimizer.update_multi_precision([parameter.key], [small.weight], [small.gradient], [state])
        else:
            optimizer.update_multi_precision(parameter.key, small.weight, small.gradient, state)

    # -------------------------------------------------------------------------------------------- others' accesses

    def show(self) -> None:
        """Let all rows be what dense steps would have made them, on all devices."""
        if self._is_shown:
            return
        self.finish_update()
        self._bring_up_to_date()
        for parameter in self._trained:
            for copy in parameter.copies:
                parameter.array.copyto(copy)
        self._is_shown = True

    def _bring_up_to_date(self) -> None:  # noqa: B027 - if need be
        """Bring all rows up to date."""

    def leave(self) -> None:
        """Let others write the weights; they have been shown."""
        self._has_taken_over = False

    def rest(self) -> None:
        """Set the states to 0."""
        for parameter in self._trained:
            for array in self._states_of(parameter):
                array[:] = 0

    def states_by_name(self) -> Dict[str, Any]:
        """The state of each parameter that has been updated."""
        return {each.name: self._updates.states[each.key] for each in self._trained if each.key in self._updates.states}

    def set_states(self, states: Mapping[str, Any]) -> None:
        """Go on with these states."""
        for parameter in self._trained:
            if parameter.name in states:
                self._updates.states[parameter.key] = states[parameter.name]
                self._updates.states_synced[parameter.key] = True

    def copy_weights_to(self, arrays: Mapping[str, Any]) -> None:
        """Copy the weights to arrays of these names, unless a KVStore has newer ones."""
        if not self.is_in_store:
            for parameter in self._trained:
                array = arrays[parameter.name]
                # A pull from servers may still be under way.
                array.wait_to_read()
                parameter.array.copyto(array)

    def _take_over(self) -> bool:
        """Take over weights that others have written; whether that was so."""
        if self._has_taken_over:
            return False
        for parameter in self.parameters:
            if self._pull is not None and self.is_in_store and parameter.is_trained:
                self._pull(parameter)
            parameter.weight = memory.view(memory.complete(parameter.array))
            if parameter.is_trained:
                parameter.states = [memory.view(memory.complete(array)) for array in self._states_of(parameter)]
        self.take_snapshot()
        self._has_taken_over, self.is_in_store = True, False
        return True

    def take_snapshot(self) -> None:
        """The snapshot has other weights."""
        for parameter in self.parameters:
            parameter.snapshot = memory.view(memory.complete(parameter.of_snapshot))

    def _states_of(self, parameter: RowParameter) -> List[Any]:
        updater, key = self._updates, parameter.key
        if key not in updater.states:
            updater.states[key] = updater.optimizer.create_state_multi_precision(key, parameter.array)
            updater.states_synced[key] = True
        elif not updater.states_synced.get(key, True):
            updater.states[key] = updater.sync_state_context(updater.states[key], parameter.array.context)
            updater.states_synced[key] = True
        return _arrays_in(updater.states[key])


class LazyRule(Rule):
    """Dense steps of SGD, later: a row that isn't touched is brought up to date when it is needed."""

    def __init__(self, parameters: Sequence[RowParameter], sizes: Sequence[int], *others: Any) -> None:
        super().__init__(parameters, sizes, *others)
        self._skipped: Dict[str, SkippedSteps] = {}
        # Of each row of a group, how many steps had been added when it was touched last.
        self._last = [np.zeros(size, np.int32) for size in sizes]

    def full_gradient(self, parameter: RowParameter, touched: Any) -> Any:
        """The full gradient."""
        return parameter.mu[touched]

    def weight_of_rows(self, batch_rows: float, of_each: Any) -> Any:
        """The rows of the batch: other workers add none for theirs."""
        return batch_rows

    def _take_over(self) -> bool:
        is_new = super()._take_over()
        if is_new:
            self._skipped = {each.name: SkippedSteps(bool(each.states)) for each in self._trained}
            self._all_are_up_to_date()
        return is_new

    def fetch(self, rows: Sequence[Any]) -> None:
        """Bring these rows up to date."""
        super().fetch(rows)
        if self._are_too_many:
            self._bring_up_to_date()
        for parameter in self._trained:
            skipped, touched = self._skipped[parameter.name], rows[parameter.group]
            if skipped.count:
                self._catch_up(parameter, skipped, touched)
        for last, touched in zip(self._last, rows):
            last[touched] = self._count

    @property
    def _are_too_many(self) -> bool:
        return any(skipped.are_too_many for skipped in self._skipped.values())

    @property
    def _count(self) -> int:
        return next(iter(self._skipped.values())).count

    def _catch_up(self, parameter: RowParameter, skipped: SkippedSteps, touched: Any) -> None:
        weights, moves = parameter.weight[touched], None
        if parameter.states:
            moves = parameter.states[0][touched]
        skipped.catch_up(weights, moves, parameter.mu[touched], self._last[parameter.group][touched])
        parameter.weight[touched] = weights
        if moves is not None:
            parameter.states[0][touched] = moves

    def update(self, rows: Sequence[Any], updated: UpdatedRows) -> None:
        """Take a step, and remember what it would have done to the other rows."""
        if self._are_too_many:
            # Updates by the same gradients, without a forward pass in between.
            self.finish_update()
            self._bring_up_to_date()
        super().update(rows, updated)
        optimizer = self._of_user
        rescale, momentum = (internals.as_taken(optimizer, x) for x in (optimizer.rescale_grad, optimizer.momentum))
        for parameter in self._trained:
            rate, decay = internals.rates(optimizer, parameter.key)
            pull = rescale * parameter.alpha * parameter.rows
            self._skipped[parameter.name].add(rate, decay, momentum, pull)
        for last, touched in zip(self._last, rows):
            last[touched] = self._count

    def _bring_up_to_date(self) -> None:
        for parameter in self._trained:
            skipped = self._skipped[parameter.name]
            memory.wait_to_write(parameter.array)
            for start in range(0, self.sizes[parameter.group], _AT_ONCE):
                self._catch_up(parameter, skipped, slice(start, start + _AT_ONCE))
        self._all_are_up_to_date()

    def _all_are_up_to_date(self) -> None:
        for skipped in self._skipped.values():
            skipped.clear()
        for last in self._last:
            last[:] = 0


class ReweightedRule(Rule):
    """Steps leave a row alone that they don't touch, and do more to one that is touched rarely.

    The optimizer's weight decay is multiplied, too: it is part of the gradient. So is its regularizer. Rows that no
    batch touches decay as with SGD, when they are shown.
    """

    needs_counts = True

    def __init__(self, parameters: Sequence[RowParameter], sizes: Sequence[int], *others: Any) -> None:
        super().__init__(parameters, sizes, *others)
        # What weight decay has made since of 1, and the sum of the steps, each with the decay of those that followed.
        self._decayed = {each.name: (1.0, 0.0) for each in self._trained}

    def set_counts(self, counts: Sequence[TouchCounts]) -> None:
        """A full pass has counted; all rows have been shown."""
        super().set_counts(counts)
        self._reweighting = [each.reweighting() for each in counts]

    def _update(self, parameter: RowParameter, touched: Any, updated: UpdatedRows) -> None:
        optimizer, small = self._of_user, updated.rows[parameter.name].weight
        if not hasattr(optimizer, "row_factors"):
            super()._update(parameter, touched, updated)
        else:
            factors = np.ones((small.shape[0],) + (1,) * (len(small.shape) - 1), small.dtype)
            factors[: len(touched)] = self._factors(parameter, touched, factors) * parameter.part
            optimizer.row_factors = mx.nd.array(factors, small.context, small.dtype)
            try:
                super()._update(parameter, touched, updated)
            finally:
                optimizer.row_factors = None
        rate, decay = internals.rates(optimizer, parameter.key)
        left, steps = self._decayed[parameter.name]
        self._decayed[parameter.name] = left * (1 - rate * decay), steps * (1 - rate * decay) + rate

    def _bring_up_to_date(self) -> None:
        for parameter in self._trained:
            left, steps = self._decayed[parameter.name]
            prox = self._of_user.prox if hasattr(self._of_user, "row_factors") else None
            if left != 1 or prox is not None:
                memory.wait_to_write(parameter.array)
                untouched = self.counts[parameter.group].touches == 0
                weights = parameter.weight[untouched] * parameter.weight.dtype.type(left)
                if prox is not None and weights.size:
                    weights = prox(parameter.key, mx.nd.array(weights, dtype=weights.dtype), steps).asnumpy()
                parameter.weight[untouched] = weights
            self._decayed[parameter.name] = 1.0, 0.0

    def full_gradient(self, parameter: RowParameter, touched: Any) -> Any:
        """D times the full gradient."""
        mu = parameter.mu[touched]
        return mu * self._factors(parameter, touched, mu)

    def _factors(self, parameter: RowParameter, touched: Any, like: Any) -> Any:
        factors = self._reweighting[parameter.group][touched].astype(like.dtype)
        return factors.reshape((-1,) + (1,) * (like.ndim - 1))

    def weight_of_rows(self, batch_rows: float, of_each: Any) -> Any:
        """The rows of the workers that touch a row."""
        return of_each

    def regularize(self, parameter: RowParameter, touched: Any, gradient: Any) -> None:
        """Let weight decay be D times as large: the optimizer adds it once."""
        optimizer = self._of_user
        _, decay = internals.rates(optimizer, parameter.key)
        if decay:
            weights = parameter.weight[touched]
            factors = self._factors(parameter, touched, weights) * parameter.part - 1
            gradient += factors * weights * (decay / internals.as_taken(optimizer, optimizer.rescale_grad))


def _arrays_in(state: Any) -> List[Any]:
    """The arrays of an optimizer's state, which may be nested."""
    if state is None:
        return []
    if isinstance(state, (list, tuple)):
        return [array for each in state for array in _arrays_in(each)]
    return [state]


def counts_of(sizes: Sequence[int]) -> List[TouchCounts]:
    """Counts of no batches."""
    return [TouchCounts(size) for size in sizes]
