"""The one place that touches what mxnet keeps private. Written against mxnet 1.9.1."""

import contextlib
import ctypes
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np
from mxnet.base import _LIB, NDArrayHandle, OpHandle, c_handle_array, c_str, c_str_array, check_call
from mxnet.executor_manager import _split_input_slice
from mxnet.model import _create_kvstore

from .watch import looks

GradientsOnDevices = List[Tuple[str, List[Any]]]


def gradients(module: Any) -> GradientsOnDevices:
    """(name, gradient on each device) of every parameter of a bound module that has a gradient."""
    group = module._exec_group
    return [
        (name, on_devices)
        for name, on_devices in zip(group.param_names, group.grad_arrays)
        if on_devices[0] is not None
    ]


def rows_on_devices(module: Any) -> List[int]:
    """How many rows of the batch, of the shape last bound or reshaped to, each device holds."""
    return [part.stop - part.start for part in module._exec_group.slices]


def parameter_names(module: Any) -> List[str]:
    """The names of the module's parameters: the arguments that are no data, label or state."""
    return module._param_names


def contexts(module: Any) -> List[Any]:
    """The devices of the module."""
    return module._context


def state_names(module: Any) -> List[str]:
    """The names of the module's states."""
    return module._state_names


def inputs_of_first_device(module: Any, labels: bool = False) -> List[Any]:
    """The data arrays, and the label arrays if asked for, of a bound module on its first device."""
    group = module._exec_group
    labels_of_group = (group.label_arrays or []) if labels else []
    return [on_devices[0][1] for on_devices in [*group.data_arrays, *labels_of_group]]


def first_inputs(module: Any) -> List[Any]:
    """The first data array of a bound module on each device."""
    return [array for on_devices in module._exec_group.data_arrays[:1] for _, array in on_devices]


def parameter_arrays(module: Any) -> GradientsOnDevices:
    """(name, array on each device) of every parameter of a bound module."""
    group = module._exec_group
    return list(zip(group.param_names, group.param_arrays))


def parameter_shapes(module: Any) -> Dict[str, Tuple[int, ...]]:
    """The shape of each parameter of a bound module."""
    group = module._exec_group
    return {name: on_devices[0].shape for name, on_devices in zip(group.param_names, group.param_arrays)}


def state_shapes(module: Any) -> Dict[str, Tuple[int, ...]]:
    """The shape of each state of a bound module; with several devices, the first one's."""
    group = module._exec_group
    return {name: on_devices[0].shape for name, on_devices in zip(group.state_names, group.state_arrays)}


def kvstore(module: Any) -> Any:
    """The KVStore that init_optimizer installed, or None."""
    return module._kvstore


def optimizer(module: Any) -> Any:
    """The optimizer that init_optimizer installed."""
    return module._optimizer


def update_by(module: Any, updater: Any) -> None:
    """Let the module, if it updates its weights itself, do so by this updater."""
    if module._updater is not None:
        # Module has read the states of a checkpoint already.
        updater.states, updater.states_synced = module._updater.states, module._updater.states_synced
        module._updater = updater


def updater(module: Any) -> Any:
    """What the module updates its weights by; None if a KVStore does."""
    return module._updater


def next_rates(optimizer: Any, device: int, indices: Any) -> Tuple[List[float], List[float]]:
    """The learning rates and weight decays of the next update of these weights on this device, which is counted."""
    optimizer._set_current_context(device)
    optimizer._update_count(indices)
    return optimizer._get_lrs(indices), optimizer._get_wds(indices)


def take_weights_that_all_devices_hold(module: Any) -> None:
    """Set the module's own copy of a dense weight to what the devices hold, if all hold the same."""
    group = module._exec_group
    for name, on_devices in zip(group.param_names, group.param_arrays):
        if on_devices[0].stype == "default":
            first, *others = (array.asnumpy() for array in on_devices)
            if all(np.array_equal(first, other) for other in others):
                on_devices[0].copyto(module._arg_params[name])


def keep_own_copy(module: Any) -> None:
    """Let the module's own copy of its weights stand, whatever its devices hold."""
    module._params_dirty = False


def can_split(module: Any, rows: int) -> bool:
    """Whether every device gets at least one of so many rows."""
    try:
        _split_input_slice(rows, module._work_load_list)
    except ValueError:
        return False
    return True


def preload(module: Any, arg_params: Any, aux_params: Any, states_file: Any) -> None:
    """Give an unbound module weights, and the file of optimizer states to read once it has an optimizer.

    What Module.load does to the Module it makes.
    """
    module._arg_params = arg_params
    module._aux_params = aux_params
    module.params_initialized = True
    module._preload_opt_states = states_file


def executors(module: Any) -> List[Any]:
    """The executor of each device, for the shape last bound or reshaped to."""
    return module._exec_group.execs


def keep_outputs(module: Any) -> None:
    """Let the executors' forward passes leave their `outputs`, which are the same arrays every time."""
    for executor in executors(module):
        executor._get_outputs = lambda kept=executor.outputs: kept


def copies_into_inputs(module: Any) -> List[Callable[[Any], None]]:
    """For each data and label array of a module on one device, a function that copies an array of its shape there."""
    return [copy_into(array) for array in inputs_of_first_device(module, labels=True)]


# Calls that are made often, with all that they are given made once: that is most of their time.


def copy_into(target: Any) -> Callable[[Any], None]:
    """``source.copyto(target)``, for any `source` of the same shape."""
    sources = (NDArrayHandle * 1)()
    invoke = _prepared_operator("_copyto", sources, [target], {})

    def copy(source: Any) -> None:
        sources[0] = source.handle
        invoke()

    return copy


def operation(name: str, inputs: List[Any], outputs: List[Any], **attributes: Any) -> Callable[[], None]:
    """``mxnet.nd.<name>(*inputs, out=outputs, **attributes)``."""
    return _prepared_operator(name, c_handle_array(inputs), outputs, attributes, inputs)


def await_readers(array: Any) -> Callable[[], None]:
    """A function that changes nothing: what reads `array` from then on waits for what has been to read it before."""
    return operation("_copy", [array], [array])


def invocation(operator: Any, inputs: List[Any], outputs: List[Any]) -> Callable[[], None]:
    """``operator(*inputs, out=outputs)``, of a CachedOp."""
    return _prepared(_LIB.MXInvokeCachedOpEx, operator.handle, c_handle_array(inputs), outputs, (), operator, inputs)


def _prepared_operator(name: str, inputs: Any, outputs: List[Any], attributes: Any, *kept: Any) -> Callable[[], None]:
    operator = OpHandle()
    check_call(_LIB.NNGetOpHandle(c_str(name), ctypes.byref(operator)))
    texts = c_str_array(list(attributes)), c_str_array([str(value) for value in attributes.values()])
    return _prepared(_LIB.MXImperativeInvokeEx, operator, inputs, outputs, (len(attributes), *texts), *kept)


def _prepared(
    function: Any, operator: Any, inputs: Any, outputs: List[Any], attributes: Tuple[Any, ...], *kept: Any
) -> Callable[[], None]:
    number, results = ctypes.c_int(len(outputs)), ctypes.cast(c_handle_array(outputs), ctypes.POINTER(NDArrayHandle))
    arguments = (operator, len(inputs), inputs, ctypes.byref(number), ctypes.byref(results), *attributes,
                 ctypes.byref(ctypes.POINTER(ctypes.c_int)()))  # fmt: skip

    def invoke(kept: Any = (outputs, *kept)) -> None:
        check_call(function(*arguments))

    return invoke


def is_dense(module: Any) -> bool:
    """Whether no array that a bound module computes with is sparse."""
    return all(array.stype == "default" for executor in executors(module) for array in executor.arg_arrays)


def has_groups_of_contexts(module: Any) -> bool:
    """Whether parts of the network are placed by `group2ctxs`."""
    return module._group2ctxs is not None


def auxiliary_states(module: Any) -> List[Any]:
    """The auxiliary states (running statistics) on all devices."""
    return [array for on_devices in module._exec_group.aux_arrays for array in on_devices]


def replace_executors(
    module: Any,
    inputs_of: Optional[Any] = None,
    gradients_into: Optional[List[Dict[str, Any]]] = None,
    memory_of: Optional[Any] = None,
) -> None:
    """Bind a module's executors anew, on its own weights and auxiliary states.

    Parameters
    ----------
    module : Module
        Bound, and in the shape that it was bound to.
    inputs_of : Module, optional
        Whose data and label arrays to use, instead of the module's own.
    gradients_into : list of dict of str to NDArray, optional
        For each device, by parameter, arrays that every backward adds its gradient to. Without it, the module's own
        gradient arrays, written as before.
    memory_of : Module, optional
        Whose executors' memory to use for what is computed on the way.
    """
    group = module._exec_group
    for k, old in enumerate(group.execs):
        inputs = inputs_of._exec_group.execs[k].arg_dict if inputs_of is not None else old.arg_dict
        arguments = {name: array if name in group.param_names else inputs[name] for name, array in old.arg_dict.items()}
        grads = {name: array for name, array in old.grad_dict.items() if array is not None}
        requests = dict.fromkeys(grads, "write")
        if gradients_into is not None:
            grads = gradients_into[k]
            requests = dict.fromkeys(grads, "add")
        group.execs[k] = group.symbol.bind(
            group.contexts[k], arguments, grads, {**dict.fromkeys(arguments, "null"), **requests}, old.aux_dict or None,
            shared_exec=memory_of._exec_group.execs[k] if memory_of is not None else None,
        )  # fmt: skip
    group._default_execs = None
    group._collect_arrays()


@contextlib.contextmanager
def borrowed_executors(module: Any) -> Iterator[None]:
    """Give a module its executors back at the end of the block."""
    group = module._exec_group
    kept = list(group.execs), group._default_execs, group.data_shapes, group.label_shapes
    try:
        yield
    finally:
        group.execs[:], group._default_execs, group.data_shapes, group.label_shapes = kept
        module._data_shapes, module._label_shapes = kept[2:]
        group.batch_size = None
        group.data_layouts = group.decide_slices(group.data_shapes)
        group._collect_arrays()


def place(module: Any, contexts: List[Any]) -> None:
    """Choose the devices of a module that isn't bound yet, as many as it was made for."""
    module._context = contexts


def unbind(module: Any) -> None:
    """Free what is bound, to bind anew; weights that were never set go with it, for Module.bind makes those itself."""
    module._reset_bind()
    if not module.params_initialized:
        module._arg_params = module._aux_params = None


def update_counts(wrapped_optimizer: Any) -> Dict[int, Dict[Any, int]]:
    """The optimizer's number of updates, by device id and by index or key. Its own dict: change it to restore."""
    return wrapped_optimizer._all_index_update_counts


# ----------------------------------------------------------------------------------------------- distributed stores


def updates_on_kvstore(module: Any, store: Any) -> bool:
    """Whether Module.init_optimizer will let the servers of this store update the weights."""
    return _create_kvstore(store, len(module._context), module._arg_params)[1]


def take_weights_of_devices(module: Any) -> None:
    """Let the module's own copy of its weights be that of its devices, when it is next asked for."""
    module._params_dirty = True


def send_to_servers(store: Any, body: str) -> None:
    """Send a command to Python on all servers, and wait until they have executed it."""
    store._send_command_to_servers(0, body)


def watcher(store: Any, environment: Mapping[str, str]) -> Callable[[], str]:
    """A function that says what a worker sees wrong with its job."""
    return looks(_LIB, store.handle, "worker", environment)


def barrier(store: Any) -> None:
    """Wait for the other workers."""
    store._barrier()


def free(store: Any) -> None:
    """Leave the job, now: when Python itself frees the store, or whether, is uncertain."""
    handle, store.handle = store.handle, None
    check_call(_LIB.MXKVStoreFree(handle))
