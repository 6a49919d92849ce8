"""The making of distributed stores. ``mx.kv.create('dist_sync')`` waits for all processes of the job, without a word.

So a worker registers itself with mxnet for stores of these names.
"""

import atexit
import functools
import os
from typing import Any

import mxnet as mx

from ..mxnet_api import internals
from ..mxnet_api.checks import DISTRIBUTED_STORES
from . import liveness, watch_client


def register() -> None:
    """In a worker, let `mx.kv.create` make distributed stores by `create`."""
    for name in DISTRIBUTED_STORES if os.environ.get("DMLC_ROLE") == "worker" else ():
        mx.kv.KVStoreBase.kv_registry[name] = functools.partial(create, name)


def create(name: str) -> Any:
    """Make the store of this process. After 10 seconds of waiting, print for what."""
    watch_client.call(lambda client: client.has_store())
    waiting = liveness.say_later(
        "waiting for the scheduler at {}:{}, and for {DMLC_NUM_WORKER} workers and {DMLC_NUM_SERVER} servers to come "
        "to it. If this program has made a distributed store itself, it waits for ever: keep that store, and pass the "
        "store itself, kvstore=store, instead of kvstore={!r}".format(
            *liveness.address_of_scheduler(os.environ), name, **os.environ
        )
    )
    ours = mx.kv.KVStoreBase.kv_registry.pop(name)
    try:
        store = mx.kv.create(name)
    finally:
        mx.kv.KVStoreBase.kv_registry[name] = ours
        waiting.cancel()
    watch(store)
    return store


def watch(store: Any) -> None:
    """Tell those who watch this process its rank, and each operation of its store that waits for all workers.

    The store is held until the process ends. mxnet would else free it when the program's last frame has gone, and the
    others would take that, in the middle of the job, for what they wait for themselves.
    """
    name = "worker {}".format(store.rank)
    liveness.fail_fast(name)
    client = watch_client.of_process()
    if client is not None and client.name != name:
        client.rename(name)
    if client is not None and internals.tell_operations(store, client.count_operation):
        client.has_store()
        atexit.register(_leave, store)


def _leave(store: Any) -> None:
    """At the end of a program that no module has joined the job for."""
    if not internals.is_free(store):
        watch_client.call(lambda client: client.leave())
        mx.nd.waitall()
        internals.free(store)
        watch_client.call(lambda client: client.say_goodbye())
