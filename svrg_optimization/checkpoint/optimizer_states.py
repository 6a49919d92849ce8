"""The optimizer's states, by parameter.

mxnet numbers a state by its parameter's position and its device; a KVStore knows it by its parameter's name. Here a
state belongs to a parameter, whatever the devices and the store.
"""

import copy
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import mxnet as mx

from ..mxnet_api import memory
from ..mxnet_api.internals import Updated, is_of_mxnet
from . import safe_pickle

_OTHER = (
    "{} has the states of {}, and the optimizer is {}: give the optimizer that it was saved with, or load with "
    "load_optimizer_states=False"
)
_UNCLEAR = (
    "it doesn't say on how many devices it was saved, and its {} states fit these numbers of devices: {}. Load it with "
    "the devices and fixed_param_names that it was saved with"
)


def read(path: str) -> Dict[Any, Any]:
    """The states that mxnet has pickled in a file, by its keys: positions, or names of parameters.

    Raises ValueError, and runs nothing, if the file holds anything else; and whatever damaged bytes may lead to.
    """
    with open(path, "rb") as file:
        states = safe_pickle.load(file)
    if not isinstance(states, dict):
        raise ValueError("it holds no states by their keys")
    wrong = [key for key in states if isinstance(key, bool) or not isinstance(key, (int, str))]
    if wrong:
        raise ValueError("it holds a state of {!r}, which is neither a number nor a name".format(wrong[0]))
    return states


def by_parameter(
    values: Mapping[Any, Any], parameters: Sequence[Updated], devices: int = 0, of_network: int = 0
) -> Dict[str, List[Any]]:
    """The values of each of the `parameters`, one or one for each device, of values by mxnet's keys.

    A key is a parameter's name; or its position, times the number of devices of then, plus the number of a device. If
    that number of `devices` isn't known, 0, it is found out; the network has `of_network` parameters. ValueError if the
    keys fit none, or several. Values of other parameters are left out, and so are parameters without a value;
    ValueError if that leaves nothing.

    >>> weight, bias = Updated('weight', 0, [0], []), Updated('bias', 2, [2], [])
    >>> by_parameter({0: 'a', 1: 'b', 4: 'c', 5: 'd'}, [weight, bias])
    {'weight': ['a', 'b'], 'bias': ['c', 'd']}
    """
    if not devices and parameters and any(isinstance(key, int) for key in values):
        devices = _devices_of(
            values, parameters, of_network or 1 + max((each.position for each in parameters), default=0)
        )
    found = {}
    for each in parameters:
        keys = [each.name, *(each.position * devices + k for k in range(devices))]
        of_parameter = [values[key] for key in keys if key in values]
        if of_parameter:
            found[each.name] = of_parameter
    if values and not found and any(value is not None for value in values.values()):
        raise ValueError("it has states, but none of this network's parameters")
    return found


def _devices_of(values: Mapping[Any, Any], parameters: Sequence[Updated], of_network: int) -> int:
    """The number of devices with which values have these numbers. ValueError if there is none, or more than one."""
    numbers, positions = {key for key in values if isinstance(key, int)}, {each.position for each in parameters}
    now = max((len(each.keys) for each in parameters), default=1)
    fit = []
    for devices in range(1, len(numbers) + 1):
        found = {number // devices for number in numbers}
        whole = numbers == {position * devices + k for position in found for k in range(devices)}
        # Of all that are updated now; or on as many devices as now, some of which were fixed then.
        known = found >= positions or devices == now
        if whole and known and max(found) < of_network and _have_the_shapes(values, parameters, devices):
            fit.append(devices)
    if len(fit) != 1:
        raise ValueError(_UNCLEAR.format(len(numbers), " and ".join(map(str, fit)) or "none"))
    return fit[0]


def _have_the_shapes(values: Mapping[Any, Any], parameters: Sequence[Updated], devices: int) -> bool:
    """Whether the first array of each state has the shape of the parameter that it would belong to."""
    for each in parameters:
        for k in range(devices):
            first = values.get(each.position * devices + k)
            while isinstance(first, (list, tuple)) and first:
                first = first[0]
            if each.weights and isinstance(first, mx.nd.NDArray) and first.shape != each.weights[0].shape:
                return False
    return True


def fitting(
    states: Mapping[Any, Any], source: str, optimizer: Any, parameters: Sequence[Updated],
    saved: Optional[Mapping[str, Any]] = None, of_network: int = 0,
) -> Tuple[Dict[Any, Any], List[str]]:  # fmt: skip
    """States for each key of the `parameters`, and the parameters whose states are new, since the settings differ.

    `saved` is what `Position.state` said of the optimizer whose states they are, if that is known; the network has
    `of_network` parameters. ValueError, naming the `source`, if the states are those of another optimizer.
    """
    known = (saved or {}).get("class")
    if states and known not in (None, type(optimizer).__name__):
        raise ValueError(_OTHER.format(source, known, type(optimizer).__name__))
    try:
        found = by_parameter(states, parameters, (saved or {}).get("devices", 0), of_network)
    except ValueError as error:
        raise ValueError("{}: {}".format(source, error)) from None
    by_key, begun_anew = {}, []
    for each in parameters:
        of_parameter = found.get(each.name, [])
        for k, (key, weight) in enumerate(zip(each.keys, each.weights if of_parameter else [])):
            state = of_parameter[k] if len(of_parameter) == len(each.keys) else of_parameter[0]
            by_key[key] = optimizer.create_state_multi_precision(key, weight)
            # What an optimizer of the user's keeps may take any form as it works.
            if not is_of_mxnet(optimizer) or _is_like(state, by_key[key]):
                by_key[key] = _copy(state, weight.context, by_key[key])
            elif known is None and state is not None:
                raise ValueError(_OTHER.format(source, "another optimizer or settings", type(optimizer).__name__))
            elif each.name not in begun_anew:
                begun_anew.append(each.name)
    return by_key, begun_anew


def put(states: Mapping[Any, Any], updater: Any) -> None:
    """Let mxnet's updater go on with these states, by its keys."""
    updater.states.update(states)
    updater.states_synced.update(dict.fromkeys(states, True))


def _is_like(state: Any, other: Any) -> bool:
    """Whether two states are built alike, of arrays of the same shapes and types; one may be `row_sparse`."""
    if isinstance(state, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(state) == len(other) and all(_is_like(*pair) for pair in zip(state, other))
    if isinstance(state, mx.nd.NDArray) and isinstance(other, mx.nd.NDArray):
        return bool((state.shape, state.dtype) == (other.shape, other.dtype))
    return type(state) is type(other)


def _copy(state: Any, context: Any, like: Any) -> Any:
    """A state on a device; of its own, since several devices may go on with one state. It is stored as another is."""
    if isinstance(state, (list, tuple)):
        known = like if isinstance(like, (list, tuple)) and len(like) == len(state) else [None] * len(state)
        return type(state)(_copy(each, context, other) for each, other in zip(state, known))
    if not isinstance(state, mx.nd.NDArray):
        return copy.deepcopy(state)
    if getattr(like, "stype", state.stype) == state.stype:
        return state.copyto(context)
    dense = state.tostype("default").as_in_context(context)
    return dense if like.stype == "default" else memory.with_all_rows(dense)
