"""What a server does at the request of a worker: show and take the optimizer's states, and change its settings.

A state array of a parameter lies where the parameter lies, and so does the parameter's full gradient, see
`keys.server_keys`. So the server shows a state array to the workers in the place of the full gradient, for as long as a
worker has its turn; and takes what they have pushed there.
"""

import json
import pickle
import traceback
from typing import Any, Callable, Dict, List, Optional

import mxnet as mx

from .. import keys
from ..checkpoint.position import Position
from ..mxnet_api.internals import Updated
from . import notes

# A command of ours begins with this.
REQUEST = "svrg_optimization:request "


def arrays_in(state: Any) -> List[Any]:
    """The arrays of a state, which may be nested in tuples and lists, in order. ValueError if there is anything else.

    >>> len(arrays_in((mx.nd.ones(1), None, (mx.nd.ones(1), mx.nd.ones(2)))))
    3
    """
    if isinstance(state, mx.nd.NDArray) and state.stype == "default":
        return [state]
    if not isinstance(state, (list, tuple, type(None))):
        raise ValueError("a state holds {}, which is no dense array".format(type(state).__name__))
    return [array for each in state or () for array in arrays_in(each)]


class Desk:
    """Obeys the requests of workers, one worker at a time.

    `updater` gives the server's updater, or None while it has no optimizer; `rank` is the server's number.
    """

    def __init__(self, updater: Callable[[], Any], rank: Callable[[], int]) -> None:
        self._the_updater, self._rank = updater, rank
        self._position: Optional[Position] = None
        # What the server keeps of each array: of full gradients by parameter, and of proof keys by number.
        self._full_gradients: Dict[str, Any] = {}
        self._notes: Dict[int, Any] = {}
        # Full gradients in the place of which there are states.
        self._kept: Dict[str, Any] = {}
        self._worker: Optional[int] = None

    def look_at_optimizer(self) -> None:
        """Note the settings that an optimizer has come with. Each worker sends one, and the last one counts."""
        # A plain Module's isn't wrapped, and nobody asks for its states.
        optimizer = getattr(getattr(self._the_updater(), "optimizer", None), "default_opt", None)
        if optimizer is not None:
            self._position = Position(optimizer)

    def see(self, key: str, number: int, stored: Any) -> None:
        """An array that isn't a parameter was assigned; this is what the server keeps."""
        if key.startswith(keys.PROOF):
            self._notes[number] = stored
        elif key.endswith(keys.SUFFIX):
            self._full_gradients[key[: -len(keys.SUFFIX)]] = stored

    def obey(self, request: str) -> None:
        """Do what a worker asks for, and leave it an answer."""
        asked = json.loads(request)
        if asked["do"] == "open":
            # The first server says whose turn it is.
            if self._rank() or self._worker is not None:
                return
            self._worker = asked["worker"]
        elif asked["do"] == "close":
            self._worker = None
        try:
            answer = getattr(self, "_" + asked["do"])(**asked["with"])
            self._write({"worker": asked["worker"], "number": asked["number"], **answer})
        except Exception as error:
            traceback.print_exc()
            self._write({"worker": asked["worker"], "number": asked["number"], "error": str(error)[:1000]})

    def _write(self, answer: Dict[str, Any]) -> None:
        arrays = [self._notes[number] for number in sorted(self._notes)]
        for array, part in zip(arrays, notes.encode(json.dumps(answer), [array.size for array in arrays])):
            array[:] = part

    def _open(self) -> Dict[str, Any]:
        return {}

    _close = _open

    def _put_back(self) -> Dict[str, Any]:
        """Put the full gradients back where states were shown."""
        for name, full_gradient in self._kept.items():
            full_gradient.copyto(self._full_gradients[name])
        self._kept = {}
        return {}

    def _parameters(self) -> List[Updated]:
        """The parameters that this server has, or has a part of."""
        optimizer = self._the_updater().optimizer
        return [
            Updated(name, number, [optimizer.users_key(number)], [self._full_gradients[name]])
            for number, name in enumerate(optimizer.server_keys)
            if name in self._full_gradients
        ]

    def _states(self) -> Dict[str, List[Any]]:
        """The arrays of each parameter's state that there are."""
        states = self._the_updater().states
        found = {each.name: arrays_in(states[each.position]) for each in self._parameters() if each.position in states}
        for name, arrays in found.items():
            if any(array.size != self._full_gradients[name].size for array in arrays):
                raise ValueError("an array of the state of {} has another size than the parameter".format(name))
        return found

    def _describe(self) -> Dict[str, Any]:
        """How many arrays a state has, and how far the optimizer has come."""
        assert self._position is not None
        position = self._position.state(self._parameters())
        # An answer isn't long: so one count for all, and of the schedule what has changed. Fixed parameters have none.
        counts = set(position["counts"].values()) - {0}
        if len(counts) > 1:
            raise ValueError("some parameters were updated more often than others")
        at_start, now = position["schedule"]
        changed = {} if now is None else {name: now[name] for name in now if now[name] != (at_start or {}).get(name)}
        return {
            "arrays": max(map(len, self._states().values()), default=0), "count": max(counts, default=0),
            "scalars": position["scalars"], "scalars at start": position["scalars at start"], "schedule": changed,
        }  # fmt: skip

    def _show(self, array: int) -> Dict[str, Any]:
        """Put an array of each state where the full gradients are."""
        for name, arrays in self._states().items():
            if array < len(arrays):
                self._kept.setdefault(name, self._full_gradients[name].copy())
                self._full_gradients[name][:] = arrays[array].astype(self._full_gradients[name].dtype)
        return {}

    def _begin(self, position: Dict[str, Any], types: Dict[str, str]) -> Dict[str, Any]:
        """Make states of their own for parameters of these types, and be where another optimizer was."""
        updater, parameters = self._the_updater(), self._parameters()
        for each in parameters:
            if each.name in types:
                weight = self._full_gradients[each.name].astype(types[each.name])
                updater.states[each.position] = updater.optimizer.create_state_multi_precision(each.position, weight)
                updater.states_synced[each.position] = True
        of_servers = position.pop("scalars of servers", [])
        if self._rank() < len(of_servers):
            position["scalars"] = of_servers[self._rank()]
        if position:
            assert self._position is not None
            self._position.restore(position, parameters)
        return {}

    def _take(self, array: int) -> Dict[str, Any]:
        """Take an array of each state from where the full gradients are."""
        for name, arrays in self._states().items():
            if array < len(arrays):
                arrays[array][:] = self._full_gradients[name].astype(arrays[array].dtype)
        return {}

    def _set(self, changes: str) -> Dict[str, Any]:
        """Change attributes of the optimizer, and of its learning rate schedule."""
        optimizer = self._the_updater().optimizer.default_opt
        of_optimizer, of_schedule = pickle.loads(changes.encode("latin-1"))
        vars(optimizer).update(of_optimizer)
        if of_schedule:
            vars(optimizer.lr_scheduler).update(of_schedule)
        return {}

    def _assign_weights(self, begin: bool, rest: bool = False) -> Dict[str, Any]:
        """Take what is pushed for weights as their values, or as gradients again; with velocities of zero if asked."""
        updater = self._the_updater()
        updater.optimizer.assigns_weights = begin
        if rest:
            for state in updater.states.values():
                for array in arrays_in(state):
                    array[:] = 0
        return {}
