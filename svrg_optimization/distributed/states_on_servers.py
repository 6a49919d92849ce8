"""The states and settings of an optimizer that runs on servers of ours, as a worker saves, loads and changes them."""

import contextlib
import json
import pickle
import threading
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import mxnet as mx

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
_NO_SETTINGS = ("lr_scheduler", "num_update", "begin_num_update", "idx2name", "sym_info", "param_dict")


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
        answers = [json.loads(notes.decode(text)) for text in texts[: 1 if of_first else servers]]
        for rank, answer in enumerate(answers):
            if self._is_for_us(answer) and "error" in answer:
                raise RuntimeError("server {}: {}".format(rank, answer["error"]))
        return answers

    def _is_for_us(self, answer: Mapping[str, Any]) -> bool:
        return (answer["worker"], answer["number"]) == (self._store.rank, self._requests)

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

    def position(self, parameters: Sequence[Updated]) -> Dict[str, Any]:
        """What `Position.state` says, of the servers' optimizers."""
        with self._turn():
            answers = self._ask("describe")
        of_servers = [answer["position"] for answer in answers]
        # A server without parameters has counted nothing.
        position = dict(max(of_servers, key=lambda each: each["count"]))
        count = position.pop("count")
        position["counts"] = {each.name: count for each in parameters}
        # Nadam's m_schedule, for instance, goes on with each parameter that a server has.
        position["scalars of servers"] = [each["scalars"] for each in of_servers]
        return position

    def fetch(self, optimizer: Any, parameters: Sequence[Updated]) -> Dict[str, Any]:
        """The state of each parameter by its name; `optimizer` is of the same kind. Other workers need not call it."""
        with self._turn():
            number = max(answer["arrays"] for answer in self._ask("describe"))
            pulled = [self._pull(array, parameters) for array in range(number)]
        if not number:
            return {}
        states = {}
        for each in parameters:
            state = optimizer.create_state_multi_precision(each.position, each.weights[0])
            for array, values in zip(arrays_in(state), pulled):
                array[:] = values[each.name].astype(array.dtype)
            states[each.name] = state
        return states

    def _pull(self, array: int, parameters: Sequence[Updated]) -> Dict[str, Any]:
        self._ask("show", array=array)
        values = {each.name: _like_full_gradient(each) for each in parameters}
        for name, value in values.items():
            self._store.pull(keys.full_gradient_key(name), out=value)
            value.wait_to_read()
        return values

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

    # ------------------------------------------------------------------------------------------------ settings

    def set(self, changes: "Changes") -> None:
        """Change settings of the servers' optimizers. The servers are between two steps, until this worker goes on."""
        with self._turn():
            self._ask("set", changes=pickle.dumps(changes, 0).decode("latin-1"))


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
        self._settings, self._schedule, self._of_schedule = self._now()

    def _now(self) -> Tuple[Dict[str, Any], Any, Dict[str, Any]]:
        settings = {
            name: dict(value) if isinstance(value, dict) else value
            for name, value in vars(self._of_user).items() if name not in _NO_SETTINGS and not name.startswith("_")
        }  # fmt: skip
        schedule = self._of_user.lr_scheduler
        return settings, schedule, dict(getattr(schedule, "__dict__", {}))

    def changes(self) -> Changes:
        """What has been set since: attributes of the optimizer, and of its schedule unless that is another one."""
        before, schedule_before, of_schedule_before = self._settings, self._schedule, self._of_schedule
        self._settings, self._schedule, self._of_schedule = self._now()
        changed = _changed(before, self._settings)
        if self._schedule is not schedule_before:
            return {**changed, "lr_scheduler": self._schedule}, {}
        return changed, _changed(of_schedule_before, self._of_schedule)


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        name: value for name, value in now.items()
        if name not in before or not (value is before[name] or _equal(value, before[name]))
    }  # fmt: skip


def _equal(value: Any, other: Any) -> bool:
    # Of other types, an array for instance, only the same object is known to be equal.
    return isinstance(value, (int, float, str, bool, tuple, dict)) and type(value) is type(other) and value == other
