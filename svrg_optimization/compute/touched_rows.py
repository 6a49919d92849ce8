"""Steps that live on the rows that a batch names: of weights whose gradient is `row_sparse`, nothing else is touched.

The batch's rows get numbers of their own, and both networks are bound to so many rows only. What a step does to the
rows that it leaves alone is up to a `Rule`: it is done later (`LazyRule`), or its part of the full gradient is added by
steps that touch them (`ReweightedRule`).
"""

from collections import OrderedDict
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.module import Module

from ..mxnet_api import internals, memory, shapes
from ..mxnet_api.named_rows import RowGroup, row_groups
from ..mxnet_api.prepared import operation
from ..svrg import full_gradient
from ..svrg.batches import labels
from ..svrg.estimator import Alpha, Correction, Gradients, OnDevices, coefficient_of, direction_on_rows
from ..svrg.random_draws import DrawStream
from ..svrg.reweighting import TouchCounts
from ..svrg.states import States
from .own_thread import SnapshotModule
from .renumbering import Renumbering
from .row_rules import RowParameter, Rule, counts_of
from .serial import Heads, Serial
from .small_network import CSR, SmallNetwork, UpdatedRows, room_for_rows, set_rows, with_room

# So many networks are kept, for as many shapes of batches and numbers of rows.
_MOST_NETWORKS = 8


def find_groups(module: Module) -> List[RowGroup]:
    """The parameters of a bound module whose steps can live on the rows of the batch; none if it isn't known."""
    sparse = [name for name, arrays in internals.gradients(module) if arrays[0].stype == "row_sparse"]
    csr = [
        each.name
        for each, array in zip(module.data_shapes, internals.inputs_of_first_device(module))
        if array.stype == "csr"
    ]
    described, along_axis_0 = shapes.of_inputs(module)
    types = {arrays[0].dtype for name, arrays in internals.parameter_arrays(module) if name in sparse}
    known = (
        sparse and along_axis_0 and types <= {np.float32, np.float64} and not module.inputs_need_grad
        and not internals.state_names(module) and not internals.has_groups_of_contexts(module)
        and all(context.device_type == "cpu" for context in internals.contexts(module))
    )  # fmt: skip
    if not known:
        return []
    return row_groups(
        module.symbol, {**described, **internals.parameter_shapes(module)}, sparse, csr,
        internals.parameter_names(module),
    ) or []  # fmt: skip


class Replica(NamedTuple):
    """One set of weights, on which one or several devices compute; `parameters` are those whose steps touch rows."""

    devices: List[int]
    parameters: List[RowParameter]
    rule: Rule


class _Step(NamedTuple):
    """What a step has of one replica: the rows of each group that the batch names, and the devices' networks.

    In a job, `touched` are the rows that the batches of all workers name.
    """

    rows: List[Any]
    networks: List[SmallNetwork]
    batch_rows: List[int]
    touched: Optional[List[Any]]


class TouchedRows(Serial):
    """Serial, until `begin` says how rows are updated that a step doesn't touch."""

    def __init__(self, aux: SnapshotModule, draws: DrawStream, states: States) -> None:
        super().__init__(aux, draws, states)
        self.groups: List[RowGroup] = []
        # Those of full passes, and those of steps.
        self._of_pass: List[Replica] = []
        self._replicas: List[Replica] = []
        self._networks: "OrderedDict[Any, SmallNetwork]" = OrderedDict()
        self._renumberings: List[Renumbering] = []
        # The steps of the replicas while gradients are there that `update` is to use.
        self._steps: List[_Step] = []
        self.has_gradients = False
        # What other workers of a job touch; and rows of all of them that are updated, by how many there are.
        self._shared: Any = None
        self._updated: Dict[Any, UpdatedRows] = {}
        self._mu: Optional[OnDevices] = None
        self._dense: Tuple[Any, Any] = (None, None)
        # With no replicas: the corrected gradients at the current weights, by name.
        self._whole: Optional[Dict[str, List[Any]]] = None
        # Whether the snapshot has moved since these gradients; and whether the networks' weights have, by an update.
        self._are_of_old_snapshot = self._have_updated = False
        # Whether somebody has been given the gradients of the step, and may be reading them.
        self._given_away = False
        # The gradients of these networks, and those of them that aren't of rows.
        self._known: Tuple[Any, List[Gradients]] = (None, [])
        self._others: Tuple[Any, List[Gradients]] = (None, [])

    def bound(self, live: Module) -> None:
        """Find the rows."""
        self.groups = find_groups(live)

    def begin(
        self, replicas: Sequence[Replica], rows_in_step: Callable[[Sequence[int]], List[int]], shared: Any = None,
        in_steps: bool = True,
    ) -> None:  # fmt: skip
        """Compute in this way from now on; with no replicas, as `Serial`.

        `rows_in_step` is `BatchGradient.rows_in_step`; `shared` tells the workers of a job what they touch. Without
        `in_steps`, only full passes go by rows.
        """
        self._of_pass, self._replicas = list(replicas), list(replicas) if in_steps else []
        self._steps, self.has_gradients = [], False
        self._rows_in_step, self._shared, self._updated = rows_in_step, shared, {}
        # The networks have states of the optimizer of before, and the parameters are others.
        self._networks.clear()
        self._mu, self._whole = None, None
        self._known = self._others = (None, [])
        self._renumberings = [Renumbering(group.size) for group in self.groups] if replicas else []

    @property
    def passes_over_rows(self) -> bool:
        """Whether full passes go by rows."""
        return bool(self._of_pass)

    @property
    def counts_touches(self) -> bool:
        """Whether full passes have to count how often batches touch rows."""
        return any(replica.rule.needs_counts for replica in self._of_pass)

    @property
    def names(self) -> List[str]:
        """The parameters whose steps touch rows only."""
        return [each.name for replica in self._replicas[:1] for each in replica.parameters if each.is_trained]

    # ---------------------------------------------------------------------------------------------------- a step

    def forward(self, live: Module, batch: Any, as_bound: bool) -> None:
        """Both forward passes, on the rows that the batch names."""
        if not as_bound:
            # mxnet can't reshape executors with csr inputs. From now on steps go by rows: they are the same.
            self._replicas = self._of_pass
        if not self._replicas:
            super().forward(live, batch, as_bound)
            return
        parts = _parts(live, batch, self.groups)
        self.has_gradients = self._have_updated = False
        self._steps = [self._prepare(live, replica, parts) for replica in self._replicas]
        for executor, network in zip(internals.executors(live), self._in_order()):
            network.live.executor.forward(is_train=True)
            internals.show_outputs(executor, network.live.executor.outputs)
        self._repeat_draw()
        # While mxnet computes at the current weights.
        for replica, step in zip(self._replicas, self._steps):
            _set_snapshot(replica, step)
        for executor, network in zip(internals.executors(self.aux), self._in_order()):
            network.snapshot.executor.forward(is_train=True)
            internals.show_outputs(executor, network.snapshot.executor.outputs)

    def _in_order(
        self, steps: Optional[List[_Step]] = None, replicas: Optional[List[Replica]] = None
    ) -> List[SmallNetwork]:
        """The networks of the devices."""
        by_device = {
            device: network
            for replica, step in zip(replicas or self._replicas, self._steps if steps is None else steps)
            for device, network in zip(replica.devices, step.networks)
        }
        return [by_device[device] for device in sorted(by_device)]

    def _prepare(
        self, live: Module, replica: Replica, parts: Sequence[Mapping[str, Any]], at_snapshot_only: bool = False
    ) -> _Step:
        """Fill the networks with a batch, and with the rows of the current weights that it names."""
        of_devices = [dict(parts[device]) for device in replica.devices]
        find = self._all_or_renumber if at_snapshot_only else self._renumber
        rows = [find(number, of_devices) for number in range(len(self.groups))]
        batch_rows = [_length(inputs) for inputs in of_devices]
        touched = None
        if not at_snapshot_only:
            if self._shared is not None:
                touched = self._shared.touched(rows, sum(self._rows_in_step(batch_rows)))
            replica.rule.fetch(rows if touched is None else [each.rows for each in touched])
            if touched is not None:
                self._fetch_touched(replica, touched)
        networks = [
            self._network(live, device, inputs, [len(each) for each in rows])
            for device, inputs in zip(replica.devices, of_devices)
        ]
        for network, inputs in zip(networks, of_devices):
            network.load(inputs)
            for parameter in [] if at_snapshot_only else replica.parameters:
                network.live.set_rows(parameter.name, parameter.weight, rows[parameter.group])
        return _Step(rows, networks, batch_rows, touched)

    def _all_or_renumber(self, number: int, of_devices: List[Dict[str, Any]]) -> Any:
        """As `_renumber`; or all rows, if these cost less."""
        group = self.groups[number]
        named = sum(len(inputs[name].columns) for inputs in of_devices for name in group.columns)
        if group.values or named < group.size:
            return self._renumber(number, of_devices)
        return np.arange(group.size)

    def _renumber(self, number: int, of_devices: List[Dict[str, Any]]) -> Any:
        """The rows of a group that the devices' parts of a batch name; in the parts, numbers of the network's own."""
        group, named = self.groups[number], []
        for inputs in of_devices:
            named += [inputs[name].columns for name in group.columns]
            for name in group.values:
                inputs[name] = _as_rows(inputs[name], name, group.size)
                named.append(inputs[name].ravel())
        rows, local = self._renumberings[number](named[0] if len(named) == 1 else np.concatenate(named))
        start = 0
        for inputs in of_devices:
            for name in group.columns:
                count = len(inputs[name].columns)
                inputs[name] = inputs[name]._replace(columns=local[start : start + count])
                start += count
            for name in group.values:
                count = inputs[name].size
                inputs[name] = local[start : start + count].reshape(inputs[name].shape)
                start += count
        return rows

    def _network(self, live: Module, device: int, inputs: Mapping[str, Any], counts: Sequence[int]) -> SmallNetwork:
        described = {
            each.name: (_shape(inputs[each.name]), each.dtype, _room_for_numbers(inputs[each.name]))
            for each in [*live.data_shapes, *(live.label_shapes or ())]
        }
        sizes = tuple(with_room(count) for count in counts)
        executors = internals.executors(live)[device], internals.executors(self.aux)[device]
        key = (device, *map(id, executors), sizes, *((name, *each) for name, each in described.items()))
        if key not in self._networks:
            self._networks[key] = SmallNetwork(
                live.symbol, executors, internals.contexts(live)[device], self.groups, sizes, described
            )
        self._networks.move_to_end(key)
        while len(self._networks) > _MOST_NETWORKS * len(internals.contexts(live)):
            self._networks.popitem(last=False)
        return self._networks[key]

    def backward_live(self, live: Module, heads: Any) -> None:
        """The backward pass at the current weights."""
        if not self._replicas:
            self._whole = None
            super().backward_live(live, heads)
            self._dense_of(live).fill(here=True)
            return
        if self._have_updated:
            self._take_updated_rows()
        for network, of_device in zip(
            self._in_order(), _split(heads, self.rows_on_devices(live), internals.contexts(live))
        ):
            with internals.needs_heads_explained(live, of_device):
                network.live.backward(of_device)

    def backward(self, live: Module, heads: Heads) -> None:
        """The backward pass at the snapshot."""
        if not self._replicas:
            super().backward(live, heads)
            self._dense_of(live).fill(here=False)
            return
        for network, of_device in zip(
            self._in_order(), _split(heads(self.aux), self.rows_on_devices(live), internals.contexts(live))
        ):
            network.snapshot.backward(of_device)

    def rows_on_devices(self, live: Module) -> List[int]:
        """How many rows of the batch each device has."""
        if not self._replicas:
            return super().rows_on_devices(live)
        by_device = [
            pair for replica, step in zip(self._replicas, self._steps)
            for pair in zip(replica.devices, step.batch_rows)
        ]  # fmt: skip
        return [rows for _, rows in sorted(by_device)]

    def gradients(self, live: Module) -> List[Gradients]:
        """All gradients; of rows, those that are in the networks."""
        self._given_away = True
        return self._all_gradients(live) if self._replicas else self._dense_of(live).gradients

    def _dense_of(self, live: Module) -> "_DenseGradients":
        """Dense gradients of all rows, for the executors of now."""
        executors = [*internals.executors(live), *internals.executors(self.aux)]
        if self._dense[0] != executors:
            self._dense = executors, _DenseGradients(super().gradients(live))
        return self._dense[1]

    def _take_updated_rows(self) -> None:
        """Let the networks of all devices have the rows that an update has made of theirs."""
        for replica, step in zip(self._replicas, self._steps):
            replica.rule.finish_update()
            for network in step.networks:
                network.live.wait()
                for parameter in replica.parameters:
                    network.live.set_rows(parameter.name, parameter.weight, step.rows[parameter.group])
        self._have_updated = False

    def whole_gradients(self, live: Module) -> Dict[str, List[Any]]:
        """The corrected gradients that are dense here, and `row_sparse` in the module; by name.

        RuntimeError if there are none: those of the last backward pass have been overwritten.
        """
        if self._whole is None:
            raise RuntimeError(
                "update() was called too early: another forward(), or a change of how steps are taken, has come since "
                "the last backward(); call forward() and backward() first"
            )
        return self._whole

    def _all_gradients(self, live: Module) -> List[Gradients]:
        networks: List[Any] = self._in_order()
        touched = self._steps[0].touched
        known = networks if touched is None else [*networks, self._room_for(touched)]
        if self._known[0] != known:
            names = self.names
            others = [each for each in super().gradients(live) if each.name not in names]
            of_rows = [
                Gradients(name, *([getattr(network, which).rows[name].gradient for network in networks]
                                  for which in ("live", "snapshot")))
                for name in names
            ]  # fmt: skip
            self._known = known, [*others, *of_rows]
        return self._known[1]

    def gradients_in_full(self, live: Module) -> List[Gradients]:
        """The gradients, of the shapes of their parameters."""
        if not self._replicas:
            return super().gradients_in_full(live)
        in_full = {}
        for replica, step in zip(self._replicas, self._steps):
            for parameter in replica.parameters:
                if parameter.is_trained:
                    touched = step.rows[parameter.group]
                    for device, network in zip(replica.devices, step.networks):
                        for which in ("live", "snapshot"):
                            rows = getattr(network, which).gradient(parameter.name)[: len(touched)]
                            whole = np.zeros(parameter.array.shape, rows.dtype)
                            whole[touched] = rows
                            in_full[parameter.name, which, device] = mx.nd.array(whole, dtype=whole.dtype)
        devices = range(len(internals.contexts(live)))
        return [
            each if each.name not in self.names else Gradients(
                each.name, *([in_full[each.name, which, k] for k in devices] for which in ("live", "snapshot"))
            )
            for each in self.gradients(live)
        ]  # fmt: skip

    def weights(self, live: Module) -> Dict[str, Tuple[Any, Any]]:
        """The weights that belong to the gradients, at the current weights and at the snapshot, on the first device."""
        found = super().weights(live)
        if self._replicas:
            network, touched = self._in_order()[0], self._steps[0].touched
            here: Mapping[str, Any] = network.live.rows
            there: Mapping[str, Any] = network.snapshot.rows
            if touched is not None:
                # All workers are to find the same.
                room = self._room_for(touched)
                here, there = room.rows, room.snapshot
            for name in self.names:
                found[name] = here[name].weight, there[name].weight
        return found

    def correct(
        self, live: Module, correction: Correction, mu: OnDevices, factors: Sequence[int], alpha: Alpha
    ) -> None:  # fmt: skip
        """Replace the gradients by variance-reduced gradients."""
        if not self._replicas:
            correction(self._dense_of(live).gradients, mu, factors, alpha)
            self._whole = self._dense_of(live).live
            return
        self._are_of_old_snapshot = False
        gradients = self._all_gradients(live)
        self._correct_others(correction, gradients, mu, factors, alpha)
        if self._mu is not mu:
            self._mu = mu
            for replica in self._replicas:
                for parameter in replica.parameters:
                    if parameter.is_trained:
                        parameter.mu = memory.view(mu[replica.devices[0]][parameter.name])
        if self._given_away:
            # Others may still be reading the gradients, which are about to be changed in place.
            for each in gradients:
                for array in [*each.live, *each.snapshot] if each.name in self.names else []:
                    memory.wait_to_write(array)
            self._given_away = False
        for replica, step in zip(self._replicas, self._steps):
            total = sum(factors[device] for device in replica.devices)
            for parameter in replica.parameters:
                if parameter.is_trained:
                    self._correct_rows(replica.rule, parameter, step, total, coefficient_of(parameter.name, alpha))
        self.has_gradients = True

    def _correct_others(
        self, correction: Correction, gradients: List[Gradients], mu: OnDevices, factors: Sequence[int], alpha: Alpha
    ) -> None:  # fmt: skip
        names = self.names
        if self._others[0] is not gradients:
            self._others = gradients, [each for each in gradients if each.name not in names]
        correction(self._others[1], mu, factors, alpha)

    def _correct_rows(self, rule: Rule, parameter: RowParameter, step: _Step, rows: float, alpha: float) -> None:
        touched, name = step.rows[parameter.group], parameter.name
        if step.touched is None:
            # While mxnet computes the gradients.
            mu, weight = rule.full_gradient(parameter, touched), rule.weight_of_rows(rows, rows)
        # What mxnet computes last first: waiting takes long.
        of_snapshot, gradient = (_added_up(step, name, which)[: len(touched)] for which in ("snapshot", "live"))
        if step.touched is None:
            direction_on_rows(gradient, of_snapshot, mu, weight, alpha)
            parameter.part = 1.0
            rule.regularize(parameter, touched, gradient)
        else:
            of_group, updated = step.touched[parameter.group], self._room_for(step.touched).rows[name]
            touched, rows = of_group.rows, of_group.batch_rows
            of_each = of_group.of_each.astype(gradient.dtype).reshape((-1,) + (1,) * (gradient.ndim - 1))
            mu, weight = rule.full_gradient(parameter, touched), rule.weight_of_rows(rows, of_each)
            add_up = partial(self._of_all_workers, name, step.rows[parameter.group], touched, len(updated.weight_view))
            of_all = updated.gradient_view[: len(touched)]
            of_all[:] = direction_on_rows(gradient, of_snapshot, mu, weight, alpha, add_up)
            updated.gradient_view[len(touched) :] = 0
            parameter.part = of_each / rows
            rule.regularize(parameter, touched, of_all)
        parameter.rows, parameter.alpha = rows, alpha

    def _of_all_workers(self, name: str, own: Any, touched: Any, room: int, difference: Any) -> Any:
        """The sum over the workers, on the rows that all of them touch, of what this one has on its own."""
        whole = np.zeros((room, *difference.shape[1:]), difference.dtype)
        whole[np.searchsorted(touched, own)] = difference
        return self._shared.add(name, whole)[: len(touched)]

    def _fetch_touched(self, replica: Replica, touched: List[Any]) -> None:
        """Get the rows that all workers touch."""
        room = self._room_for(touched)
        for parameter in replica.parameters:
            if parameter.is_trained:
                for rows, whole in (
                    (room.rows[parameter.name], parameter.weight), (room.snapshot[parameter.name], parameter.snapshot)
                ):  # fmt: skip
                    memory.wait_to_write(rows.weight)
                    set_rows(rows, whole, touched[parameter.group].rows)

    def _room_for(self, touched: List[Any]) -> UpdatedRows:
        """Arrays for the rows that all workers touch."""
        sizes = tuple(with_room(len(each.rows)) for each in touched)
        if sizes not in self._updated:
            while len(self._updated) >= _MOST_NETWORKS:
                self._updated.pop(next(iter(self._updated)))
            parameters = [each for each in self._replicas[0].parameters if each.is_trained]
            rows, snapshot = (
                {each.name: room_for_rows(each.array, sizes[each.group]) for each in parameters} for _ in range(2)
            )
            self._updated[sizes] = UpdatedRows(rows, snapshot)
        return self._updated[sizes]

    def update_rows(self) -> None:
        """Let the optimizer update the rows by the gradients that are there."""
        for replica, step in zip(self._replicas, self._steps):
            if step.touched is None:
                replica.rule.update(step.rows, step.networks[0].updated)
            else:
                replica.rule.update([each.rows for each in step.touched], self._room_for(step.touched))
            if self._are_of_old_snapshot:
                # What the step does to other rows, it does by the full gradient of before.
                replica.rule.show()
        # As in mxnet, the gradients are there until the next ones are.
        self._have_updated = True

    def arrive(self, full_pass: Any) -> None:
        """The snapshot has moved: its weights are others, and so is how often batches touch rows."""
        self._are_of_old_snapshot = self.has_gradients
        for replica, counts in zip(self._replicas, getattr(full_pass, "counts", ())):
            replica.rule.take_snapshot()
            replica.rule.set_counts(counts)

    # ------------------------------------------------------------------------------------------- others' accesses

    def show(self, live: Module) -> None:
        """Let the weights and states be what dense steps would have made them."""
        for replica in self._replicas:
            replica.rule.show()

    def leave(self, live: Module) -> None:
        """The same; the next step takes over what others have written."""
        self.show(live)
        for replica in self._replicas:
            replica.rule.leave()

    def rest(self) -> None:
        """Set the states of the optimizer to 0; all rows have been shown."""
        for replica in self._replicas:
            replica.rule.rest()

    def states(self) -> Dict[str, Any]:
        """In a job, the optimizer's states by parameter, of weights that workers update."""
        return {} if self._shared is None else self._replicas[0].rule.states_by_name()

    def set_states(self, states: Dict[str, Any]) -> None:
        """Go on with such states."""
        if states:
            self._replicas[0].rule.set_states(states)

    def state(self) -> Dict[str, Any]:
        """What `restore` takes: how often batches touch rows, by the numbers of replica and group."""
        found: Dict[str, Any] = {"touches": {}, "rows": {}}
        for number, replica in enumerate(self._replicas):
            for group, counts in enumerate(replica.rule.counts):
                key = "{}:{}".format(number, group)
                found["touches"][key] = mx.nd.array(counts.touches, dtype=np.float64)
                found["rows"][key] = counts.rows
        return found

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on with the counts of a checkpoint, if they are of as many replicas."""
        for number, replica in enumerate(self._replicas):
            keys = ["{}:{}".format(number, group) for group in range(len(self.groups))]
            if set(keys) <= set(state.get("rows", {})):
                counts = counts_of([group.size for group in self.groups])
                for of_group, key in zip(counts, keys):
                    of_group.touches, of_group.rows = state["touches"][key].asnumpy(), state["rows"][key]
                replica.rule.set_counts(counts)

    @property
    def lacks_counts(self) -> bool:
        """Whether a rule needs counts that no full pass has made."""
        return any(replica.rule.needs_counts and not replica.rule.counts for replica in self._replicas)

    def drop_gradients(self) -> None:
        """The gradients to be used are others."""
        self.has_gradients = False

    @property
    def is_newer_than_store(self) -> bool:
        """Whether a KVStore that is to update the weights lacks what steps have done."""
        return any(not replica.rule.is_in_store for replica in self._replicas)

    def store_has_weights(self) -> None:
        """A KVStore has the weights, and updates them."""
        for replica in self._replicas:
            replica.rule.is_in_store = True

    def copy_weights_to(self, arrays: Dict[str, Any]) -> None:
        """Copy the weights that all devices share to arrays of these names, unless a KVStore has newer ones."""
        if len(self._replicas) == 1:
            self._replicas[0].rule.copy_weights_to(arrays)

    # ----------------------------------------------------------------------------------------------- a full pass

    def begin_pass(self) -> List[List[TouchCounts]]:
        """Counts for `add_to`, of each replica."""
        for replica in self._of_pass:
            replica.rule.take_snapshot()
        return [counts_of([group.size for group in self.groups]) for _ in self._of_pass]

    def count(self, live: Module, batch: Any, counts: Sequence[Sequence[TouchCounts]]) -> None:
        """Count the rows that a batch touches."""
        parts = _parts(live, batch, self.groups)
        for replica, of_replica in zip(self._of_pass, counts):
            of_devices = [dict(parts[device]) for device in replica.devices]
            for number, of_group in enumerate(of_replica):
                rows = sum(self._rows_in_step([_length(inputs) for inputs in of_devices]))
                of_group.add(self._renumber(number, of_devices), rows)

    def add_to(
        self, live: Module, totals: OnDevices, batch: Any, heads: Heads, factors_of: Callable[[List[int]], List[float]]
    ) -> None:  # fmt: skip
        """Add a batch's gradients at the snapshot to the totals; `factors_of` gets the rows that each device has."""
        parts = _parts(live, batch, self.groups)
        steps = [self._prepare(live, replica, parts, at_snapshot_only=True) for replica in self._of_pass]
        for replica, step in zip(self._of_pass, steps):
            _set_snapshot(replica, step)
        networks = self._in_order(steps, self._of_pass)
        for executor, network in zip(internals.executors(self.aux), networks):
            network.snapshot.executor.forward(is_train=True)
            internals.show_outputs(executor, network.snapshot.executor.outputs)
        head_gradients = heads(self.aux)
        for network, of_device in zip(
            networks, _split(head_gradients, [_length(part) for part in parts], internals.contexts(live))
        ):
            with internals.needs_heads_explained(self.aux, of_device):
                network.snapshot.backward(of_device)
        factors = factors_of([_length(part) for part in parts])
        names = {each.name for each in self._of_pass[0].parameters}
        others = [pair for pair in internals.gradients(self.aux) if pair[0] not in names]
        full_gradient.add_batch(totals, others, factors)
        for replica, step in zip(self._of_pass, steps):
            for device, network in zip(replica.devices, step.networks):
                for parameter in replica.parameters:
                    if parameter.is_trained:
                        touched = step.rows[parameter.group]
                        total = memory.view(totals[device][parameter.name])
                        total[touched] += factors[device] * network.snapshot.gradient(parameter.name)[: len(touched)]


class _DenseGradients:
    """Dense arrays for gradients that are `row_sparse`, on each device."""

    def __init__(self, gradients: Sequence[Gradients]) -> None:
        self.live: Dict[str, List[Any]] = {}
        self.gradients: List[Gradients] = []
        self._fill: Tuple[List[Any], List[Any]] = ([], [])
        for name, live, snapshot in gradients:
            if live[0].stype == "default":
                self.gradients.append(Gradients(name, live, snapshot))
                continue
            dense = [
                [mx.nd.zeros(each.shape, each.context, each.dtype) for each in arrays] for arrays in (live, snapshot)
            ]
            for operations, arrays, targets in zip(self._fill, (live, snapshot), dense):
                operations += [
                    operation("cast_storage", [array], [target], stype="default")
                    for array, target in zip(arrays, targets)
                ]
            self.live[name] = dense[0]
            self.gradients.append(Gradients(name, *dense))

    def fill(self, here: bool) -> None:
        """Take the gradients at the current weights, or those at the snapshot."""
        for operate in self._fill[0 if here else 1]:
            operate()


def _set_snapshot(replica: Replica, step: _Step) -> None:
    """Give the networks the snapshot's rows."""
    for network in step.networks:
        for parameter in replica.parameters:
            network.snapshot.set_rows(parameter.name, parameter.snapshot, step.rows[parameter.group])


def _added_up(step: _Step, name: str, which: str) -> Any:
    """The sum of a gradient over the devices, in the first one's array."""
    first, *others = (getattr(network, which).gradient(name) for network in step.networks)
    for other in others:
        first += other
    return first


def _parts(live: Module, batch: Any, groups: Sequence[RowGroup]) -> List[Dict[str, Any]]:
    """What each device gets of a batch, by the names of the inputs."""
    descriptions = [*live.data_shapes, *(live.label_shapes or ())]
    contexts = internals.contexts(live)
    if isinstance(batch, list):
        return [_named(live, descriptions, part, groups) for part in batch]
    whole = _named(live, descriptions, batch, groups)
    if len(contexts) == 1:
        return [whole]
    slices = internals.parts_of_batch(live, _length(whole))
    return [{name: _part(value, rows) for name, value in whole.items()} for rows in slices]


def _named(live: Module, descriptions: Sequence[Any], batch: Any, groups: Sequence[RowGroup]) -> Dict[str, Any]:
    csr, sizes = getattr(batch, "csr", None), {name: group.size for group in groups for name in group.columns}
    found: Dict[str, Any] = {}
    for number, each in enumerate(live.data_shapes):
        given = None if csr is None else csr[number]
        if given is not None and each.name in sizes:
            found[each.name] = CSR(given.values, given.columns, given.indptr)
        else:
            array = batch.data[number]
            if each.name in sizes:
                found[each.name] = _as_csr(array, each.name, sizes[each.name])
            else:
                found[each.name] = memory.as_dense(array)
    given_labels = labels(batch)
    for number, each in enumerate(live.label_shapes or ()):
        if number >= len(given_labels):
            raise ValueError(
                "the batch has no labels for {}, and steps on the rows of a batch have none of before; give labels, or "
                "make the module with sparse='dense'".format(each.name)
            )
        found[each.name] = given_labels[number]
    return found


def _as_csr(array: Any, name: str, size: int) -> CSR:
    """Data of so many columns, which may be dense, as Module takes them. ValueError if there is no such column."""
    found = CSR(*memory.parts_of_csr(array if array.stype == "csr" else array.tostype("csr")))
    columns = found.columns
    if columns.size and not 0 <= columns.min() <= columns.max() < size:
        raise ValueError(
            "the batch's {} has the column {}, and its columns are 0 to {}; make the matrix anew".format(
                name, columns.max() if columns.max() >= size else columns.min(), size - 1
            )
        )
    return found


def _part(value: Any, rows: slice) -> Any:
    return value.rows(rows) if isinstance(value, CSR) else value[rows]


def _length(inputs: Mapping[str, Any]) -> int:
    """The rows of a device's part of a batch."""
    first = next(iter(inputs.values()))
    return len(first.starts) - 1 if isinstance(first, CSR) else first.shape[0]


def _as_rows(array: Any, name: str, size: int) -> Any:
    """What an Embedding looks up, as numbers of rows. ValueError if there is no such row."""
    numbers = array.asnumpy().astype(np.int64)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() < size:
        raise ValueError(
            "the batch's {} has {}: an Embedding of {} rows can't look that up; give numbers from 0 to {}".format(
                name, numbers.max() if numbers.max() >= size else numbers.min(), size, size - 1
            )
        )
    return numbers


def _split(heads: Any, rows: Sequence[int], contexts: Sequence[Any]) -> List[Any]:
    """What each device, with so many rows, gets of the head gradients."""
    if heads is None:
        return [None] * len(contexts)
    arrays = list(heads) if isinstance(heads, (list, tuple)) else [heads]
    ends = np.cumsum(rows).tolist()
    return [
        [array[start:end].as_in_context(context) for array in arrays]
        for context, start, end in zip(contexts, [0, *ends], ends)
    ]


def _shape(value: Any) -> Any:
    return (len(value.starts) - 1,) if isinstance(value, CSR) else value.shape


def _room_for_numbers(value: Any) -> Optional[int]:
    return with_room(len(value.columns)) if isinstance(value, CSR) else None
