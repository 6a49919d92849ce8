"""The optimizer's states, by parameter.

mxnet numbers a state by its parameter's position and its device; a KVStore knows it by its parameter's name. Here a
state belongs to a parameter, whatever the devices and the store.
"""

import copy
import pickle
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import mxnet as mx

from ..mxnet_api.internals import Updated

# What the states of mxnet's optimizers are made of. A pickle may name any function of any module, and unpickling calls
# it.
_ADMITTED = {
    "builtins": ("bytearray", "complex", "frozenset", "set", "slice"),
    "collections": ("OrderedDict",),
    "mxnet.ndarray.ndarray": ("NDArray",),
    "mxnet.ndarray.sparse": ("CSRNDArray", "RowSparseNDArray"),
    "mxnet.numpy": ("ndarray",),
    "mxnet.numpy.multiarray": ("ndarray",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
}


_OTHER = (
    "{} has the states of {}, and the optimizer is {}: give the optimizer that it was saved with, or load with "
    "load_optimizer_states=False"
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ADMITTED.get(module, ()):
            raise ValueError("it holds {}.{}, which is no state of an optimizer of mxnet".format(module, name))
        return super().find_class(module, name)


def read(path: str) -> Dict[Any, Any]:
    """The states that mxnet has pickled in a file, by its keys.

    Raises ValueError, and runs nothing, if the file holds anything else; and whatever damaged bytes may lead to.

    >>> import os, tempfile
    >>> file = tempfile.NamedTemporaryFile()
    >>> file.write(pickle.dumps(os.getcwd)) and file.flush()
    >>> read(file.name)
    Traceback (most recent call last):
        ...
    ValueError: it holds posix.getcwd, which is no state of an optimizer of mxnet
    """
    with open(path, "rb") as file:
        states = _Unpickler(file).load()
    if not isinstance(states, dict):
        raise ValueError("it holds no states by their keys")
    return states


def by_parameter(values: Mapping[Any, Any], parameters: Sequence[Updated], devices: int = 0) -> Dict[str, List[Any]]:
    """The values of each of the `parameters`, one or one for each device, of values by mxnet's keys.

    A key is a parameter's name; or its position, times the number of devices of then, plus the number of a device. If
    that number of `devices` isn't known, 0, it is found out. ValueError if the keys fit none. Values of other
    parameters are left out, and so are parameters without a value.

    >>> weight, bias = Updated('weight', 0, [0], []), Updated('bias', 2, [2], [])
    >>> by_parameter({0: 'a', 1: 'b', 4: 'c', 5: 'd'}, [weight, bias])
    {'weight': ['a', 'b'], 'bias': ['c', 'd']}
    """
    numbers = {key for key in values if isinstance(key, int)}
    if numbers and not devices:
        devices = len(numbers) // max(1, len(parameters))
        if numbers != {each.position * devices + k for each in parameters for k in range(devices)}:
            raise ValueError("it has {} states, which fit no number of devices for {} parameters".format(
                len(numbers), len(parameters)))  # fmt: skip
    found = {}
    for each in parameters:
        keys = [each.name, *(each.position * devices + k for k in range(devices))]
        of_parameter = [values[key] for key in keys if key in values]
        if of_parameter:
            found[each.name] = of_parameter
    return found


def fitting(
    states: Mapping[Any, Any], source: str, optimizer: Any, parameters: Sequence[Updated],
    saved: Optional[Mapping[str, Any]] = None,
) -> Tuple[Dict[Any, Any], List[str]]:  # fmt: skip
    """States for each key of the `parameters`, and the parameters whose states are new, since the settings differ.

    `saved` is what `Position.state` said of the optimizer whose states they are, if that is known. ValueError, naming
    the `source`, if the states are those of another optimizer.
    """
    known = (saved or {}).get("class")
    if states and known not in (None, type(optimizer).__name__):
        raise ValueError(_OTHER.format(source, known, type(optimizer).__name__))
    try:
        found = by_parameter(states, parameters, (saved or {}).get("devices", 0))
    except ValueError as error:
        raise ValueError("{}: {}".format(source, error)) from None
    by_key, begun_anew = {}, []
    for each in parameters:
        of_parameter = found.get(each.name, [])
        for k, (key, weight) in enumerate(zip(each.keys, each.weights if of_parameter else [])):
            state = of_parameter[k] if len(of_parameter) == len(each.keys) else of_parameter[0]
            by_key[key] = optimizer.create_state_multi_precision(key, weight)
            if _is_like(state, by_key[key]):
                by_key[key] = _copy(state, weight.context)
            elif known is None and state is not None:
                raise ValueError(_OTHER.format(source, "another optimizer", type(optimizer).__name__))
            elif each.name not in begun_anew:
                begun_anew.append(each.name)
    return by_key, begun_anew


def put(states: Mapping[Any, Any], updater: Any) -> None:
    """Let mxnet's updater go on with these states, by its keys."""
    updater.states.update(states)
    updater.states_synced.update(dict.fromkeys(states, True))


def _is_like(state: Any, other: Any) -> bool:
    """Whether two states are built alike, of arrays of the same shapes and types."""
    if isinstance(state, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(state) == len(other) and all(_is_like(*pair) for pair in zip(state, other))
    if isinstance(state, mx.nd.NDArray) and isinstance(other, mx.nd.NDArray):
        return bool((state.shape, state.dtype, state.stype) == (other.shape, other.dtype, other.stype))
    return type(state) is type(other)


def _copy(state: Any, context: Any) -> Any:
    """A state on a device; of its own, since several devices may go on with one state."""
    if isinstance(state, (list, tuple)):
        return type(state)(_copy(each, context) for each in state)
    return state.copyto(context) if isinstance(state, mx.nd.NDArray) else copy.deepcopy(state)
