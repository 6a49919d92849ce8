"""The one place that touches what mxnet keeps private. Written against mxnet 1.9.1."""

import contextlib
import copy
import ctypes
import os
import sys
import weakref
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.base import _LIB, MXNetError, check_call
from mxnet.executor_manager import _split_input_slice
from mxnet.model import _create_kvstore
from mxnet.module import Module

from . import memory
from .prepared import copy_into

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


def grad_req(module: Any) -> Any:
    """As a module was bound with it."""
    return module._grad_req


def fixed_parameters(module: Any) -> List[str]:
    """The names of the parameters that are not trained."""
    return list(module._fixed_param_names or ())


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


def wait_for_kvstore(module: Any) -> None:
    """Wait until the module's KVStore has added up the last gradients, and so may be freed.

    mxnet 1.9.1 frees a store for several CPU devices at once. Sums that are still to be computed then read freed
    memory, and may end the process by SIGFPE.
    """
    if module.optimizer_initialized and module._kvstore is not None:
        group = module._exec_group
        for on_devices in [*group.param_arrays, *group.grad_arrays]:
            with contextlib.suppress(MXNetError):  # whoever reads this array learns that
                if on_devices[0] is not None:
                    on_devices[0].wait_to_read()


def wait_to_free(module: Any) -> None:
    """Wait as `wait_for_kvstore` does, for a module that is being freed.

    Its arrays can't be asked: the garbage collector may have freed them before.
    """
    if module.optimizer_initialized and module._kvstore is not None:
        with contextlib.suppress(MXNetError):
            mx.nd.waitall()


def optimizer(module: Any) -> Any:
    """The optimizer that init_optimizer installed."""
    return module._optimizer


def updater(module: Any) -> Any:
    """What the module updates its weights by; None if a KVStore does."""
    return module._updater


def update_by(module: Any, updater: Any) -> None:
    """Let the module, if it updates its weights itself, do so by this updater."""
    if module._updater is not None:
        module._updater = updater


class Updated(NamedTuple):
    """A parameter that the optimizer updates."""

    name: str
    position: int  # among all parameters
    keys: List[Any]  # by which an updater knows its states, one for each device or one in all
    weights: List[Any]  # to which these states belong


def updated_parameters(module: Any) -> List[Updated]:
    """The parameters that the optimizer updates, and how mxnet's updater numbers or names their states."""
    group = module._exec_group
    found = []
    for position, (name, weights, grads) in enumerate(zip(group.param_names, group.param_arrays, group.grad_arrays)):
        if grads[0] is not None and module._update_on_kvstore:
            found.append(Updated(name, position, [name], weights[:1]))
        elif grads[0] is not None:
            keys = [position * len(weights) + k for k in range(len(weights))]
            found.append(Updated(name, position, keys, weights))
    return found


def updater_of_weights(module: Any) -> Any:
    """What updates the weights in this process: the module's updater, or its KVStore's. None before there is any."""
    return updater_of_store(module._kvstore) if module._update_on_kvstore else module._updater


def updates_in_store(module: Any) -> bool:
    """Whether the weights are updated in the module's KVStore."""
    return bool(module._update_on_kvstore)


def updater_of_store(store: Any) -> Any:
    """What a KVStore updates its arrays by; None if nothing does, or there is no such store."""
    return getattr(store, "_updater", None)


def next_rates(optimizer: Any, indices: Any) -> Tuple[List[float], List[float]]:
    """The learning rates and weight decays of the next update of these weights, which is counted."""
    optimizer._update_count(indices)
    return optimizer._get_lrs(indices), optimizer._get_wds(indices)


def weight_decays(module: Any, optimizer: Any) -> Dict[str, float]:
    """By parameter, the weight decay of the user's optimizer, multipliers included."""
    parameters = updated_parameters(module)
    decays = optimizer._get_wds([each.keys[0] for each in parameters])
    return {each.name: as_taken(optimizer, decay) for each, decay in zip(parameters, decays)}


def as_taken(optimizer: Any, setting: float) -> float:
    """A setting as the optimizer's operators take it: mxnet's round it to float32, for float64 weights too.

    >>> as_taken(mx.optimizer.SGD(), 0.1)
    0.10000000149011612
    """
    return float(np.float32(setting)) if is_of_mxnet(optimizer) else float(setting)


def is_of_mxnet(optimizer: Any) -> bool:
    """Whether this is one of mxnet's own: its operators take the steps, and its states keep their form."""
    return type(optimizer).__module__.startswith("mxnet.")


def rate_multipliers(module: Any, optimizer: Any) -> Dict[str, float]:
    """By parameter, what the learning rate of an optimizer is multiplied by."""
    parameters, settings = updated_parameters(module), (optimizer.lr_scheduler, optimizer.lr)
    optimizer.lr_scheduler, optimizer.lr = None, 1.0
    try:
        rates = optimizer._get_lrs([each.keys[0] for each in parameters])
    finally:
        optimizer.lr_scheduler, optimizer.lr = settings
    return dict(zip([each.name for each in parameters], map(float, rates)))


def weights_of_both(module: Any, other: Any) -> Dict[str, Tuple[Any, Any]]:
    """For each parameter of two bound modules of one network, both weights on the first device."""
    here, there = module._exec_group, other._exec_group
    return {
        name: (arrays[0], others[0])
        for name, arrays, others in zip(here.param_names, here.param_arrays, there.param_arrays)
    }


def rest(updater: Any) -> None:
    """Set the states of an updater in this process, arrays or None, to 0."""
    for state in updater.states.values():
        if state is not None:
            state[:] = 0


def weights_are_finite(module: Any) -> bool:
    """Whether all weights on the first device are finite."""
    return all(bool(np.isfinite(arrays[0].asnumpy()).all()) for arrays in module._exec_group.param_arrays)


def epsilon(module: Any) -> float:
    """How much a rounding of the narrowest weight is at most, relatively."""
    return max(float(np.finfo(arrays[0].dtype).eps) for _, arrays in parameter_arrays(module))


def learning_rate(optimizer: Any, steps: int) -> Optional[float]:
    """The optimizer's learning rate after so many steps, without the multipliers; None if it has none."""
    if optimizer.lr_scheduler is not None:
        # A schedule may change when it is asked. Steps that servers take aren't counted here.
        return copy.deepcopy(optimizer.lr_scheduler)(max(optimizer.num_update, steps))
    return optimizer.lr


def devices_agree(module: Any) -> bool:
    """Whether it is sure that all devices hold the same weights: there is one, or they get them from a KVStore."""
    return len(module._context) == 1 or module._update_on_kvstore


def take_weights_that_all_devices_hold(module: Any) -> None:
    """Set the module's own copy of a weight to what the devices hold, if all hold the same."""
    group = module._exec_group
    for name, on_devices in zip(group.param_names, group.param_arrays):
        if _hold_the_same(on_devices):
            on_devices[0].copyto(module._arg_params[name])


def _hold_the_same(arrays: List[Any]) -> bool:
    first, *others = (array.asnumpy() for array in arrays)
    return all(_same(first, other) for other in others)


def _same(a: Any, b: Any) -> bool:
    """Whether two arrays of NumPy's are equal, with NaN equal to NaN."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


def is_own_copy(module: Any, arg_params: Any) -> bool:
    """Whether these weights are the module's own copy, which ``get_params`` gives away."""
    return arg_params is not None and arg_params is module._arg_params


def devices_have(module: Any, arg_params: Any) -> bool:
    """Whether the first device of a bound module has these weights."""
    return all(_same(arrays[0].asnumpy(), arg_params[name].asnumpy()) for name, arrays in parameter_arrays(module))


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


def preload(module: Any, arg_params: Any, aux_params: Any) -> None:
    """Give an unbound module weights, as Module.load does to the Module it makes."""
    module._arg_params = arg_params
    module._aux_params = aux_params
    module.params_initialized = True


def executors(module: Any) -> List[Any]:
    """The executor of each device, for the shape last bound or reshaped to."""
    return module._exec_group.execs


def keep_outputs(module: Any) -> None:
    """Let the executors' forward passes leave their `outputs`, which are the same arrays every time."""
    for executor in executors(module):
        keep_outputs_of(executor)


def keep_outputs_of(executor: Any) -> None:
    """Let an executor's forward pass leave its `outputs`."""
    executor._get_outputs = lambda kept=executor.outputs: kept


def copies_into_inputs(module: Any) -> List[Callable[[Any], None]]:
    """For each data and label array of a module on one device, a function that copies an array of its shape there."""
    return [copy_into(array) for array in inputs_of_first_device(module, labels=True)]


def is_plain(module: Any) -> bool:
    """Whether no array that a bound module computes with is sparse, and no part of it is placed by `group2ctxs`."""
    arrays = [array for executor in executors(module) for array in executor.arg_arrays]
    return module._group2ctxs is None and all(array.stype == "default" for array in arrays)


def has_gradients_of_rows(module: Any) -> bool:
    """Whether the gradient of a parameter of a bound module is `row_sparse`."""
    return any(arrays[0].stype == "row_sparse" for _, arrays in gradients(module))


def has_groups_of_contexts(module: Any) -> bool:
    """Whether parts of the network are placed by `group2ctxs`."""
    return module._group2ctxs is not None


def backward(module: Any, head_gradients: Any) -> None:
    """``Module.backward``, with an error that says what to do if the network needs head gradients."""
    try:
        # The module may be an SVRGModule, but this pass is a plain one.
        Module.backward(module, head_gradients)
    except MXNetError as error:
        _explain_if_heads_are_needed(module, head_gradients, error)
        raise


@contextlib.contextmanager
def needs_heads_explained(module: Any, head_gradients: Any) -> Iterator[None]:
    """Say what to do, if a backward pass of the module's network fails because it needs head gradients."""
    try:
        yield
    except MXNetError as error:
        _explain_if_heads_are_needed(module, head_gradients, error)
        raise


def _explain_if_heads_are_needed(module: Any, head_gradients: Any, error: MXNetError) -> None:
    reason = str(error).strip().split("\n")[-1]
    if head_gradients is None and "head_gradient" in reason:
        raise MXNetError(
            "{}. The network {} doesn't end in loss layers alone: let it, or give backward() and update_full_grads() "
            "the argument out_grads, a function of (outputs, data_batch) that returns the head gradients".format(
                reason, module.output_names
            )
        ) from None


@contextlib.contextmanager
def outputs_kept(module: Any) -> Iterator[None]:
    """Let the outputs of a bound module be afterwards what they were before."""
    arrays = [output for executor in executors(module) for output in executor.outputs]
    with _kept(arrays):
        yield


def wait_for_auxiliary_states(module: Any) -> None:
    """Wait until a network's moving statistics are those of its last batch.

    The backward pass of mxnet 1.9.1 writes them without telling its engine. Whoever reads them at once may get those of
    the batch before.
    """
    if module._exec_group.aux_names:
        mx.nd.waitall()


def arrays_that_differ(module: Any) -> Dict[str, Dict[str, Any]]:
    """For each device of a bound module, its number as text, the weights and auxiliary states that not all share.

    Weights differ without a KVStore, moving statistics with any.

    >>> import mxnet as mx
    >>> module = mx.mod.Module(mx.sym.BatchNorm(mx.sym.Variable('data'), name='norm'), label_names=None,
    ...                        context=[mx.cpu(0), mx.cpu(1)])
    >>> module.bind([('data', (2, 3))])
    >>> module.init_params()
    >>> module.forward(mx.io.DataBatch([mx.nd.array([[1, 2, 3], [1, 2, 4]])]), is_train=True)
    >>> module.backward([mx.nd.ones((2, 3))])
    >>> differing = arrays_that_differ(module)
    >>> {device: sorted(arrays) for device, arrays in differing.items()}
    {'0': ['norm_moving_mean'], '1': ['norm_moving_mean']}
    """
    if not module.binded:
        return {}
    wait_for_auxiliary_states(module)
    group = module._exec_group
    found: Dict[str, Dict[str, Any]] = {str(k): {} for k in range(len(group.contexts))}
    names, arrays = [*group.param_names, *group.aux_names], [*group.param_arrays, *group.aux_arrays]
    for name, on_devices in zip(names, arrays):
        if len(on_devices) > 1 and not _hold_the_same(on_devices):
            for of_device, array in zip(found.values(), on_devices):
                of_device[name] = array.tostype("default")
    return {device: of_device for device, of_device in found.items() if of_device}


def set_arrays(module: Any, arrays: Dict[str, Dict[str, Any]], auxiliary_only: bool = False) -> None:
    """Put back what `arrays_that_differ` has found, or what isn't a weight, if the bound module has as many devices."""
    found = executors(module)
    if len(arrays) == len(found):
        for executor, of_device in zip(found, arrays.values()):
            for name, array in of_device.items():
                if name in executor.aux_dict:
                    array.copyto(executor.aux_dict[name])
                elif not auxiliary_only:
                    target = executor.arg_dict[name]
                    (array if target.stype == "default" else memory.with_all_rows(array)).copyto(target)


@contextlib.contextmanager
def auxiliary_states_kept(module: Any) -> Iterator[None]:
    """Let the auxiliary states (running statistics) on all devices be afterwards what they were before."""
    wait_for_auxiliary_states(module)
    with _kept([array for on_devices in module._exec_group.aux_arrays for array in on_devices]):
        try:
            yield
        finally:
            wait_for_auxiliary_states(module)


@contextlib.contextmanager
def _kept(arrays: List[Any]) -> Iterator[None]:
    values = [array.copy() for array in arrays]
    try:
        yield
    finally:
        for array, value in zip(arrays, values):
            value.copyto(array)


@contextlib.contextmanager
def without_notes_on_kernels() -> Iterator[None]:
    """Let mxnet not say, for every network that is bound, that it uses MKLDNN.

    mxnet reads the variable twice in a process: at the first ``simple_bind`` and at the first ``bind`` of a network.
    Whoever has set it has decided.
    """
    variable = "MXNET_SUBGRAPH_VERBOSE"
    if variable in os.environ:
        yield
        return
    os.environ[variable] = "0"
    try:
        yield
    finally:
        del os.environ[variable]


@without_notes_on_kernels()
def replace_executors(module: Any, inputs_of: Any, memory_of: Optional[Any] = None) -> None:
    """Bind a module's executors anew, on its own weights, gradients and auxiliary states.

    Parameters
    ----------
    module : Module
        Bound, and in the shape that it was bound to.
    inputs_of : Module
        Whose data and label arrays to use, instead of the module's own.
    memory_of : Module, optional
        Whose executors' memory to use for what is computed on the way.
    """
    group = module._exec_group
    for k, old in enumerate(group.execs):
        inputs = inputs_of._exec_group.execs[k].arg_dict
        arguments = {name: array if name in group.param_names else inputs[name] for name, array in old.arg_dict.items()}
        grads = {name: array for name, array in old.grad_dict.items() if array is not None}
        requests = {**dict.fromkeys(arguments, "null"), **dict.fromkeys(grads, "write")}
        group.execs[k] = group.symbol.bind(
            group.contexts[k], arguments, grads, requests, old.aux_dict or None,
            shared_exec=memory_of._exec_group.execs[k] if memory_of is not None else None,
        )  # fmt: skip
    group._default_execs = None
    group._collect_arrays()


def place(module: Any, contexts: List[Any]) -> None:
    """Choose the devices of a module that isn't bound yet, as many as it was made for."""
    module._context = contexts


def copy_labels(source: Any, target: Any) -> None:
    """Copy the label arrays of a bound module to another one that is bound to the same shapes."""
    pairs = zip(source._exec_group.label_arrays or (), target._exec_group.label_arrays or ())
    for on_devices, others in pairs:
        for (_, array), (_, other) in zip(on_devices, others):
            array.copyto(other)


def return_free_memory() -> None:
    """Let the C library return the memory that it has free to the system, where that is glibc: some milliseconds.

    mxnet allocates its arrays aligned. Before version 2.38, glibc can't use a piece for such an array again unless the
    piece is larger than the array, so each network that is freed and bound anew would take memory of its own.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def unbind(module: Any) -> None:
    """Free what is bound, to bind anew; weights that were never set go with it, for Module.bind makes those itself."""
    module._reset_bind()
    if not module.params_initialized:
        module._arg_params = module._aux_params = None


def update_counts(wrapped_optimizer: Any) -> Dict[int, Dict[Any, int]]:
    """The optimizer's number of updates, by device id and by index or key. Its own dict: change it to restore."""
    return wrapped_optimizer._all_index_update_counts


# ----------------------------------------------------------------------------------------------------------- buckets


def buckets(module: Any) -> Dict[Any, Any]:
    """The modules of a BucketingModule by their keys. It binds one that isn't bound, when it is switched to."""
    return module._buckets


def current_bucket(module: Any) -> Tuple[Any, Any]:
    """The key of a BucketingModule's current bucket, and the bucket; None and None if it isn't bound."""
    return module._curr_bucket_key, module._curr_module


def preload_buckets(module: Any, default: Any) -> None:
    """Let an unbound BucketingModule have the weights of its default bucket, as BucketingModule.load does."""
    module._curr_module = default
    module.params_initialized = True


def make_symbol(module: Any, bucket_key: Any) -> Tuple[Any, Any, Any]:
    """What the `sym_gen` of a BucketingModule gives for a bucket: a symbol, and the names of its data and labels."""
    return module._call_sym_gen(bucket_key)


def save_bucket_keys(bucket_keys: List[int], path: str) -> None:
    """Write keys to a file as BucketingModule.save_checkpoint does."""
    mx.nd.save(path, mx.nd.array(bucket_keys, dtype=np.int32))


def monitor_of_buckets(module: Any) -> Any:
    """The monitor that is installed in all buckets, or None."""
    return module._monitor


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


def is_silent(store: Any, node: int, seconds: int) -> bool:
    """Whether a process, by ps-lite's number, has sent no heartbeat for so many seconds.

    ps-lite crashes if it is asked before it has been started.
    """
    number = ctypes.c_int()
    failed = _LIB.MXKVStoreGetNumDeadNode(store.handle, node, ctypes.byref(number), seconds)
    # It fails when the job is over: ps-lite has ended in this process, and knows no other process any more.
    return not failed and bool(number.value)


def tell_operations(store: Any, begins: Callable[[], None]) -> bool:
    """Call `begins` at the begin of each of the store's operations that wait for all workers; False if it is so."""
    if "pushpull" in vars(store):
        return False
    for name in ("init", "push", "pushpull", "broadcast", "_barrier"):
        setattr(store, name, _told(getattr(type(store), name), weakref.ref(store), begins))
    return True


def _told(method: Callable[..., Any], store: Any, begins: Callable[[], None]) -> Callable[..., Any]:
    def operation(*args: Any, **kwargs: Any) -> Any:
        begins()
        return method(store(), *args, **kwargs)

    return operation


def barrier(store: Any) -> None:
    """Wait for the other workers."""
    store._barrier()


def is_free(store: Any) -> bool:
    """Whether the store has been freed, by `free`."""
    return store.handle is None


def free(store: Any) -> None:
    """Leave the job, now: when Python itself frees the store, or whether, is uncertain."""
    handle, store.handle = store.handle, None
    check_call(_LIB.MXKVStoreFree(handle))


# ------------------------------------------------------------------------------------------------- rows of a network


@without_notes_on_kernels()
def bound(symbol: Any, context: Any, arguments: Dict[str, Any], gradients: Dict[str, Any], auxiliary: Any) -> Any:
    """An executor of a network on these arrays; arguments without a gradient get none."""
    names = symbol.list_arguments()
    wanted = {name: gradients[name] for name in names if gradients.get(name) is not None}
    requests = {name: "write" if name in wanted else "null" for name in names}
    return symbol.bind(context, {name: arguments[name] for name in names}, wanted, requests, auxiliary or None)


def show_outputs(executor: Any, outputs: List[Any]) -> None:
    """Let a bound module's executor show the outputs of another one, until its next forward pass."""
    executor.outputs = outputs


def parts_of_batch(module: Any, rows: int) -> List[slice]:
    """Which rows of a batch each device gets."""
    return _split_input_slice(rows, module._work_load_list)


@contextlib.contextmanager
def with_rows(module: Any, rows: Sequence[int]) -> Iterator[None]:
    """Let a bound module take its devices' outputs for those of so many rows each."""
    group = module._exec_group
    slices, ends = group.slices, np.cumsum(rows).tolist()
    group.slices = [slice(start, end) for start, end in zip([0, *ends], ends)]
    try:
        yield
    finally:
        group.slices = slices


@contextlib.contextmanager
def left_alone(module: Any, names: Any) -> Iterator[None]:
    """Let ``Module.update`` leave parameters alone."""
    with _other_gradients(module, lambda name, _, gradients: [None] * len(gradients) if name in names else gradients):
        yield


@contextlib.contextmanager
def with_whole_gradients(module: Any, whole: Dict[str, List[Any]], as_rows: bool = False) -> Iterator[None]:
    """Let ``Module.update`` see these dense gradients; of a weight that is `row_sparse`, with all rows stored.

    Other gradients of dense weights are made dense, too: servers end when they get others. With `as_rows`, these are
    `row_sparse` instead.
    """

    def replaced(name: str, weights: List[Any], gradients: List[Any]) -> List[Any]:
        if name in whole and (as_rows or weights[0].stype != "default"):
            return [memory.with_all_rows(gradient) for gradient in whole[name]]
        if as_rows or gradients[0] is None or gradients[0].stype == "default" or weights[0].stype != "default":
            return gradients
        return whole.get(name) or [gradient.tostype("default") for gradient in gradients]

    with _other_gradients(module, replaced):
        yield


@contextlib.contextmanager
def _other_gradients(module: Any, change: Callable[[str, List[Any], List[Any]], List[Any]]) -> Iterator[None]:
    group = module._exec_group
    gradients = group.grad_arrays
    group.grad_arrays = [change(*each) for each in zip(group.param_names, group.param_arrays, gradients)]
    try:
        yield
    finally:
        group.grad_arrays = gradients


def rates(optimizer: Any, key: Any) -> Tuple[float, float]:
    """The learning rate and weight decay of the last update of a weight, as the optimizer's operators took them."""
    (rate,), (decay,) = optimizer._get_lrs([key]), optimizer._get_wds([key])
    return as_taken(optimizer, rate), as_taken(optimizer, decay)


def pull_from_store(store: Any, name: str, arrays: Sequence[Any]) -> None:
    """Set the arrays of a parameter on all devices to what a KVStore has."""
    if arrays[0].stype == "default":
        store.pull(name, out=arrays)
    else:
        rows = mx.nd.arange(arrays[0].shape[0], dtype="int64")
        store.row_sparse_pull(name, arrays, row_ids=rows)


def pull_sparse_weights(module: Any) -> None:
    """Set the `row_sparse` weights on all devices to those of the KVStore that updates them, if one does."""
    if module._update_on_kvstore:
        for name, arrays in parameter_arrays(module):
            if arrays[0].stype == "row_sparse":
                pull_from_store(module._kvstore, name, arrays)


def dense_weights_with_gradients_of_rows(module: Any) -> List[str]:
    """The names of the dense parameters whose gradients are `row_sparse`."""
    weights = dict(parameter_arrays(module))
    return [name for name, (gradient, *_) in gradients(module)
            if gradient.stype != "default" and weights[name][0].stype == "default"]  # fmt: skip


def own_weights(module: Any) -> Dict[str, Any]:
    """The module's own copy of its weights, by name."""
    return module._arg_params


def set_context(optimizer: Any, array: Any) -> None:
    """Let an optimizer count the updates of the device that an array is on."""
    optimizer._set_current_context(array.context.device_id)


def shares_weights(module: Any) -> bool:
    """Whether another module, of any kind, has been bound with this one as its `shared_module`, and is still there.

    Such modules have one list of arrays together. What counts its references is the group and the call.
    """
    return sys.getrefcount(module._exec_group.shared_data_arrays) > 2


@without_notes_on_kernels()
def hold(module: Any, names: Any, is_dense: bool) -> None:
    """Let a bound module hold `row_sparse` weights in dense arrays, or as `row_sparse` ones again.

    For whoever asks for them, they are `row_sparse` all the time.
    """
    group = module._exec_group
    for k, old in enumerate(group.execs):
        arguments = dict(old.arg_dict)
        for name in names:
            dense = arguments[name].tostype("default")
            arguments[name] = dense if is_dense else memory.with_all_rows(dense)
        group.execs[k] = bound(group.symbol, group.contexts[k], arguments, old.grad_dict, old.aux_dict)
    group._default_execs = None
    group._collect_arrays()
