"""Arguments that can't be trained with: each error names argument, value and remedy."""

import numbers
import os
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

import mxnet as mx

DISTRIBUTED_STORES = ("dist_sync", "dist_device_sync", "dist_sync_device")
LOCAL_STORES = ("local", "device", "nccl", "local_update_cpu", "local_allreduce_cpu", "local_allreduce_device")
# What every process of a distributed job is told.
_JOB = ("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT", "DMLC_NUM_WORKER", "DMLC_NUM_SERVER")


def update_freq(value: Any) -> int:
    """`value` as the number of epochs between snapshots.

    >>> update_freq(2)
    2
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            "update_freq={!r} must be an integer: the number of epochs between full gradients, for instance 2".format(
                value
            )
        )
    if value < 1:
        raise ValueError(
            "update_freq={} must be at least 1: the number of epochs between two full gradients".format(value)
        )
    return int(value)


def compression(params: Optional[Mapping[str, Any]]) -> None:
    """Gradient compression would quantise the variance-reduced gradient, and the full gradients with it."""
    if params:
        raise ValueError(
            "compression_params={!r}: SVRG can't be trained with gradient compression, which loses the small "
            "differences it lives on; leave compression_params out".format(params)
        )


def work_load(work_load_list: Optional[Sequence[Any]], context: Any) -> None:
    """One number for each device."""
    devices = 1 if isinstance(context, mx.Context) else len(context)
    if not devices:
        raise ValueError("context={!r} is empty; give at least one device, for instance mx.cpu()".format(context))
    if work_load_list is not None and len(work_load_list) != devices:
        raise ValueError(
            "work_load_list={!r} has {} entries for {} devices; give one for each context".format(
                work_load_list, len(work_load_list), devices
            )
        )


def grad_req(value: Any, parameters: Sequence[str], arguments: Sequence[str]) -> None:
    """Gradients must be written: each step corrects the gradient of its own batch."""
    if isinstance(value, str):
        wanted = dict.fromkeys(parameters, value)
    elif isinstance(value, Mapping):
        wanted = dict(value)
    elif isinstance(value, (list, tuple)) and len(value) == len(arguments):
        wanted = dict(zip(arguments, value))
    else:
        raise ValueError(
            "grad_req={!r} must be 'write' or 'null', a dict of them by name, or a list with one for each of the "
            "arguments {}".format(value, ", ".join(arguments))
        )
    unknown = sorted(set(wanted.values()) - {"write", "add", "null"})
    if unknown:
        raise ValueError("grad_req={!r}: {!r} is neither 'write' nor 'null'".format(value, unknown[0]))
    added = sorted(name for name in parameters if wanted.get(name) == "add")
    if added:
        raise ValueError(
            "grad_req={!r} adds up the gradients of {}, but each step of SVRG corrects the gradient of one batch; "
            "use grad_req='write' and larger batches".format(value, ", ".join(added))
        )


def kvstore(value: Any) -> None:
    """A store for one machine or a synchronous distributed one. Any unknown string would silently be a local store."""
    if value is None:
        return
    if isinstance(value, str):
        kind = value
        if kind.lower() in mx.kvstore.KVStoreBase.kv_registry:
            return
    elif isinstance(value, mx.kvstore.KVStoreBase):
        kind = value.type
        if not isinstance(value, mx.kvstore.KVStore):
            return
    else:
        raise TypeError("kvstore={!r} must be None, the name of a store or an mxnet KVStore".format(value))
    if kind in DISTRIBUTED_STORES:
        missing = [name for name in _JOB if name not in os.environ]
        if missing:
            raise ValueError(
                "kvstore={!r} needs a job, and {} isn't set: start the program by 'python -m svrg_optimization.launch "
                "-n 2 -- python train.py', or use 'local'".format(kind, ", ".join(missing))
            )
        return
    if "dist" in kind:
        raise ValueError(
            "kvstore={!r}: SVRG needs the gradients of all workers at the same weights; use 'dist_sync' or "
            "'dist_device_sync'".format(kind)
        )
    if kind not in LOCAL_STORES:
        raise ValueError(
            "kvstore={!r} is no store that mxnet knows (it would silently make a local one); use one of {}".format(
                kind, ", ".join(LOCAL_STORES + DISTRIBUTED_STORES)
            )
        )


def shared_module(value: Any) -> None:
    """A module to share weights with."""
    if not isinstance(value, mx.mod.Module):
        raise TypeError("shared_module={!r} must be an mxnet.module.Module".format(value))
    if not (value.binded and value.params_initialized):
        raise RuntimeError("shared_module must be bound and have its parameters initialized: call its bind() and "
                           "init_params() first")  # fmt: skip


def overlap(overlap: Optional[bool], save_memory: bool) -> None:
    """Not both at once."""
    if overlap and save_memory:
        raise ValueError("overlap=True with save_memory=True: passes that run at the same time can't share memory; "
                         "choose one")  # fmt: skip


def train_data(value: Any, out_grads: Any, argument: str = "train_data") -> None:
    """Something to go through, and head gradients that can be computed anew for each batch."""
    if not hasattr(value, "__iter__"):
        raise TypeError("{}={!r} must be a DataIter, a gluon DataLoader or a list of batches".format(argument, value))
    if out_grads is not None and not callable(out_grads):
        raise TypeError(
            "out_grads is {}, and must be a function of (outputs, data_batch): head gradients differ from batch to "
            "batch".format(type(out_grads).__name__)
        )


def head_gradients(value: Any) -> None:
    """What a function of head gradients has returned: a list of NDArrays."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, mx.nd.NDArray) for each in value):
        kind = type(value).__name__
        if isinstance(value, (list, tuple)):
            kind += " of " + ", ".join(type(each).__name__ for each in value)
        raise TypeError("out_grads returned a {}, and must return a list with an NDArray for each output: of NumPy's "
                        "arrays, mx.nd.array makes NDArrays".format(kind))  # fmt: skip


def optimizer(value: Any) -> None:
    """A name or an instance; whether the name is registered is found out when it is looked up."""
    if not isinstance(value, (str, mx.optimizer.Optimizer)):
        raise TypeError(
            "optimizer={!r} must be the name of a registered optimizer, or an mxnet.optimizer.Optimizer".format(value)
        )


# Optimizers that compute the weights from what they keep.
_KEEPS_WEIGHTS = ("Ftrl", "FTML", "DCASGD")


def weights_can_be_set(at: str, optimizer: Any) -> None:
    """Raise ValueError if the optimizer's next step would bring back the weights of before."""
    name = type(optimizer).__name__
    if name in _KEEPS_WEIGHTS or getattr(optimizer, "multi_precision", False):
        what = "{} with multi_precision".format(name) if name not in _KEEPS_WEIGHTS else name
        raise ValueError(
            "at={!r}: the optimizer {} keeps the weights, and its next step would go back to them; take at='last', or "
            "another optimizer".format(at, what)
        )


def iterates(at: str, devices: int, store: Any) -> None:
    """The devices must have the same weights, if a snapshot is to be taken at another iterate than the last one."""
    if at != "last" and devices > 1 and store is None:
        raise ValueError(
            "at={!r} with kvstore=None: each of the devices has weights of its own; use kvstore='local'".format(at)
        )


def sym_gen(value: Any) -> Callable[[Any], Tuple[Any, Any, Any]]:
    """What makes the symbols of buckets, checking what it makes."""
    if not callable(value):
        raise TypeError(
            "sym_gen={!r} must be a function that gets a bucket's key, and returns its symbol and the names of its "
            "data and its labels".format(value)
        )

    def checked(bucket_key: Any) -> Tuple[Any, Any, Any]:
        made = value(bucket_key)
        if not (isinstance(made, (tuple, list)) and len(made) == 3 and isinstance(made[0], mx.sym.Symbol)):
            raise TypeError("sym_gen({!r}) returned {!r}, and must return (symbol, data_names, label_names)".format(
                bucket_key, made))  # fmt: skip
        return made[0], made[1], made[2]

    return checked


def bucket(batch: Any, name: str) -> None:
    """A batch that says which bucket it is of."""
    if getattr(batch, "bucket_key", None) is None:
        raise ValueError(
            "{} has no bucket_key; let the iterator give mx.io.DataBatch(..., bucket_key=..., provide_data=..., "
            "provide_label=...), as mx.rnn.BucketSentenceIter does, or train an SVRGModule".format(name)
        )


def shapes_of_bucket(bucket_key: Any, data_shapes: Any) -> None:
    """The shapes that a new bucket is bound to."""
    if data_shapes is None:
        raise ValueError("bucket_key={!r} is a new bucket, and data_shapes is None: let the batches have provide_data "
                         "and provide_label".format(bucket_key))  # fmt: skip


def parameters_of_bucket(bucket_key: Any, parameters: Sequence[str], default: Sequence[str]) -> None:
    """The same as those of the default bucket, in the same order: mxnet's optimizers know weights by their number."""
    if list(parameters) != list(default):
        raise ValueError(
            "bucket_key={!r}: sym_gen gave a symbol with the parameters {}, and for default_bucket_key one with {}. A "
            "full gradient is over all buckets: let them have the same parameters, in the same order".format(
                bucket_key, ", ".join(parameters), ", ".join(default)
            )
        )
