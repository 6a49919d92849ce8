"""The states and settings of an optimizer that runs on servers of ours, as a worker saves, loads and changes them."""

import contextlib
import copy
import json
import pickle
import threading
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import mxnet as mx
import numpy as np

from .. import keys
from ..mxnet_api import internals
from ..mxnet_api.internals import Updated
from ..svrg.estimator import full_gradient_dtype
from . import notes, server_desk
from .server_desk import arrays_in

PLAIN_SERVERS = (
    "the optimizer runs on parameter servers of plain mxnet, which {}. Start the servers by 'python -m "
    "svrg_optimization.server', as svrg_optimization.launch does; or set MXNET_UPDATE_ON_KVSTORE=0 for all workers, "
    "which then run the optimizer themselves, with the same result and the same traffic"
)
# Attributes of an optimizer, and of its schedule, that have changed.
Changes = Tuple[Dict[str, Any], Dict[str, Any]]
# Attributes of an optimizer that are no settings: what it has counted, and names that servers have already.
_NO_SETTINGS = (
    "lr_scheduler", "num_update", "begin_num_update", "idx2name", "sym_info", "param_dict", "_index_update_count",
    "_all_index_update_counts",
)  # fmt: skip


class StatesOnServers:
    """The states that the servers hold. `proofs` are the keys at which each server answers."""

    def __init__(self, store: Any, proofs: Sequence[str]) -> None:
        self._store, self._proofs = store, proofs
        self._requests = 0

    # ------------------------------------------------------------------------------------------------ requests

    def _ask(self, what: str, of_first: bool = False, **arguments: Any) -> List[Dict[str, Any]]:
        """The answers of all servers, or of the first. RuntimeError if one of them can't do what it is asked for."""
        self._requests += 1
        request = {"do": what, "worker": self._store.rank, "number": self._requests, "with": arguments}
        internals.send_to_servers(self._store, server_desk.REQUEST + json.dumps(request))
        servers = len(self._proofs)
        arrays = [mx.nd.zeros(notes.size(servers)) for _ in self._proofs]
        for key, array in zip(self._proofs, arrays):
            self._store.pull(key, out=array)
        # The proofs' keys have the numbers from 1 on: 0 is the exchange.
        texts = notes.of_servers([array.asnumpy() for array in arrays], 1, notes.is_whole(servers))
        answers = [_parsed(notes.decode(text)) for text in texts[: 1 if of_first else servers]]
        for rank, answer in enumerate(answers):
            if self._is_for_us(answer) and "error" in answer:
                raise RuntimeError("server {}: {}".format(rank, answer["error"]))
        return answers

    def _is_for_us(self, answer: Mapping[str, Any]) -> bool:
        return (answer.get("worker"), answer.get("number")) == (self._store.rank, self._requests)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other worker asks the servers."""
        # What this worker has begun must be done: the servers are then between two steps, since the next one needs this
        # worker.
        mx.nd.waitall()
        while not self._is_for_us(self._ask("open", of_first=True)[0]):
            threading.Event().wait(0.01)
        try:
            yield
        finally:
            self._ask("close")

    # -------------------------------------------------------------------------------------- saving and loading

    def position(self, at_start: Mapping[str, Any], parameters: Sequence[Updated]) -> Dict[str, Any]:
        """What `Position.state` says, of the servers' optimizers; `at_start` is what it says of this worker's."""
        with self._turn():
            of_servers = self._ask("describe")
        # A server without parameters has counted nothing.
        furthest = max(of_servers, key=lambda each: each["count"])
        schedule, _ = at_start["schedule"]
        return {
            **at_start, "counts": {each.name: furthest["count"] for each in parameters},
            "scalars": furthest["scalars"], "scalars at start": furthest["scalars at start"],
            # Nadam's m_schedule, for instance, goes on with each parameter that a server has.
            "scalars of servers": [each["scalars"] for each in of_servers],
            "schedule": [schedule, None if schedule is None else {**schedule, **furthest["schedule"]}],
        }  # fmt: skip

    def fetch(self, optimizer: Any, parameters: Sequence[Updated]) -> Dict[str, Any]:
        """The state of each parameter by its name; `optimizer` is of the same kind. Other workers need not call it."""
        pulled = []
        with self._turn():
            number = max(answer["arrays"] for answer in self._ask("describe"))
            if not number:
                return {}
            try:
                for index in range(number):
                    self._ask("show", array=index)
                    pulled.append(self._pull_full_gradients(parameters))
            finally:
                # A pull writes into the arrays that were pushed last, too: those of this worker's full gradient.
                self._ask("put_back")
                self._pull_full_gradients(parameters)
        states = {}
        for each in as_servers_have_them(parameters, optimizer):
            state = optimizer.create_state_multi_precision(each.position, each.weights[0])
            for array, values in zip(arrays_in(state), pulled):
                array[:] = values[each.name].astype(array.dtype)
            states[each.name] = state
        return states

    def _pull_full_gradients(self, parameters: Sequence[Updated]) -> Dict[str, Any]:
        """What the servers have where the full gradients are."""
        values = {each.name: _like_full_gradient(each) for each in parameters}
        for name, value in values.items():
            self._store.pull(keys.full_gradient_key(name), out=value)
            value.wait_to_read()
        return values

    def description(self, states: Mapping[str, Any], position: Mapping[str, Any]) -> List[Any]:
        """What all workers must share before they `give` states."""
        arrays = {name: len(arrays_in(state)) for name, state in states.items()}
        return [sorted(arrays.items()), sorted(position.get("counts", {}).items())]

    def give(self, states: Mapping[str, Any], position: Mapping[str, Any], parameters: Sequence[Updated]) -> None:
        """Let the servers go on with states. All workers call this; the states are those of the first one."""
        first = self._store.rank == 0
        arrays = {name: arrays_in(state) for name, state in states.items()}
        types = {each.name: each.weights[0].dtype.__name__ for each in parameters if each.name in states}
        with self._turn() if first else contextlib.nullcontext():
            if first:
                self._ask("begin", position=dict(position), types=types)
            for number in range(max(map(len, arrays.values()), default=0)):
                for each in parameters:
                    value = _like_full_gradient(each)
                    if first and number < len(arrays.get(each.name, ())):
                        value[:] = arrays[each.name][number].astype(value.dtype)
                    self._store.push(keys.full_gradient_key(each.name), value)
                # The servers have added up what all workers gave.
                mx.nd.waitall()
                if first:
                    self._ask("take", array=number)
        internals.barrier(self._store)

    def give_weights(self, weights: Mapping[str, Any], at_rest: bool) -> None:
        """Let the servers go on with the first worker's weights, `at_rest` with states of zero. All workers call this.

        Without weights, only the states are set.
        """
        first = self._store.rank == 0
        with self._turn() if first else contextlib.nullcontext():
            if first:
                self._ask("assign_weights", begin=True)
            for name, weight in weights.items():
                # A key is updated when all workers have pushed, so not before the first one's request is done.
                self._store.push(name, weight if first else weight.zeros_like())
            mx.nd.waitall()
            if first:
                self._ask("assign_weights", begin=False, rest=at_rest)
        internals.barrier(self._store)

    # ------------------------------------------------------------------------------------------------ settings

    def set(self, changes: Changes) -> None:
        """Change settings of the servers' optimizers. The servers are between two steps, until this worker goes on."""
        try:
            pickled = pickle.dumps(changes, 0).decode("latin-1")
        except Exception as error:
            raise RuntimeError(
                "the servers can't be told of the new {}, which can't be pickled ({}): set what can, or set "
                "MXNET_UPDATE_ON_KVSTORE=0 for all workers".format(", ".join({**changes[0], **changes[1]}), error)
            ) from error
        with self._turn():
            self._ask("set", changes=pickled)


def _parsed(text: str) -> Dict[str, Any]:
    # What is for another worker may change while its parts are pulled.
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def as_servers_have_them(parameters: Sequence[Updated], optimizer: Any) -> List[Updated]:
    """The parameters in the types that servers update: float32 for float16, if the optimizer has `multi_precision`.

    >>> parameter = Updated('w', 0, ['w'], [mx.nd.ones(2, dtype='float16')])
    >>> for multi_precision in (False, True):
    ...     sgd = mx.optimizer.SGD(multi_precision=multi_precision)
    ...     print(as_servers_have_them([parameter], sgd)[0].weights[0].dtype.__name__)
    float16
    float32
    """
    if not getattr(optimizer, "multi_precision", False):
        return list(parameters)
    return [
        each._replace(weights=[w.astype("float32") if w.dtype == np.float16 else w for w in each.weights])
        for each in parameters
    ]


def _like_full_gradient(parameter: Updated) -> Any:
    weight = parameter.weights[0]
    return mx.nd.zeros(weight.shape, dtype=full_gradient_dtype(weight.dtype))


class Settings:
    """The settings of an optimizer and of its schedule, as they were when somebody last asked for `changes`.

    >>> optimizer = mx.optimizer.SGD(learning_rate=0.5)
    >>> settings = Settings(optimizer)
    >>> optimizer.set_learning_rate(0.25)
    >>> settings.changes(), settings.changes()
    (({'lr': 0.25}, {}), ({}, {}))
    """

    def __init__(self, optimizer: Any) -> None:
        self._of_user = optimizer
        self._keep()

    def _now(self) -> Tuple[Dict[str, Any], Any, Dict[str, Any]]:
        settings = {name: value for name, value in vars(self._of_user).items() if name not in _NO_SETTINGS}
        schedule = self._of_user.lr_scheduler
        return settings, schedule, getattr(schedule, "__dict__", {})

    def _keep(self) -> None:
        settings, self._schedule, of_schedule = self._now()
        self._settings, self._of_schedule = _copies(settings), _copies(of_schedule)

    def changes(self) -> Changes:
        """What has been set since: attributes of the optimizer, and of its schedule unless that is another one."""
        # Each step asks: so values are compared where they are, and copied only if one has changed.
        settings, schedule, of_schedule = self._now()
        changed, of_schedule_changed = _changed(self._settings, settings), _changed(self._of_schedule, of_schedule)
        if schedule is not self._schedule:
            changed, of_schedule_changed = {**changed, "lr_scheduler": schedule}, {}
        if changed or of_schedule_changed:
            self._keep()
        return changed, of_schedule_changed


def _copies(values: Mapping[str, Any]) -> Dict[str, Any]:
    """Values as they are now, of those that can be changed in place and be compared."""
    return {
        name: copy.deepcopy(value) if isinstance(value, (dict, list, tuple, set)) else value
        for name, value in values.items()
    }


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        name: value for name, value in now.items()
        if name not in before or not (value is before[name] or _equal(value, before[name]))
    }  # fmt: skip


def _equal(value: Any, other: Any) -> bool:
    # Of other types, an array for instance, only the same object is known to be equal.
    comparable = isinstance(value, (int, float, str, bool, tuple, dict, list, set))
    try:
        return comparable and type(value) is type(other) and bool(value == other)
    except ValueError:  # arrays inside
        return False
