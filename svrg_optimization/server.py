"""``python -m svrg_optimization.server``: a parameter server, or the scheduler, of a distributed job.

The same as ``python -c 'import mxnet'`` with the environment variable DMLC_ROLE set, and besides:

- it ends, non-zero and with a message, when another process of the job dies;
- float64 stays float64. mxnet 1.9.1 never initialises the flag that makes a server keep float32 copies, and what it
  finds in memory there usually means yes.
"""

import ctypes
import os
import socket
import sys
import threading
import traceback
from typing import Any, Callable

from . import watch

# The command by which a worker says that the job has begun.
BEGUN = 77
_M_PERTURB = -6
_TUNABLE = "glibc.malloc.tcache_count=0"


def allocate_zeros(yes: bool) -> None:
    """Let malloc fill what it gives with zeros (``M_PERTURB`` fills with the complement), where there is glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    if yes and _TUNABLE not in os.environ.get("GLIBC_TUNABLES", ""):
        # What threads keep for themselves is given again unfilled. That is decided when a process starts.
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [os.environ.get("GLIBC_TUNABLES"), _TUNABLE]))
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name])
    libc.mallopt(_M_PERTURB, 0xFF if yes else 0)


def _look(library: Any, handle: Any, role: str, limit: int) -> Callable[[], Any]:
    nodes = {watch.SCHEDULER: "the scheduler"}
    if role == "scheduler":
        nodes = watch.names_of_nodes(int(os.environ["DMLC_NUM_WORKER"]), int(os.environ["DMLC_NUM_SERVER"]))
    return lambda: watch.dead(library, handle, nodes, limit)


def _wait_until_listening() -> None:
    # ps-lite crashes when it is asked about heartbeats before it has been started.
    address = os.environ["DMLC_PS_ROOT_URI"], int(os.environ["DMLC_PS_ROOT_PORT"])
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(address) == 0:
                return
        threading.Event().wait(0.2)


def _report_and_end(raised: Any) -> None:
    traceback.print_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)
    watch.end("{} ends: its optimizer raised {!r}".format(os.environ["DMLC_ROLE"], raised.exc_value), 1)


def main() -> None:
    """Run until the job is over."""
    role = os.environ.get("DMLC_ROLE")
    if role not in ("server", "scheduler"):
        sys.exit("DMLC_ROLE={!r} must be 'server' or 'scheduler'; workers run the training program".format(role))
    for name, value in watch.DEFAULTS.items():
        os.environ.setdefault(name, value)
    if role == "server":
        allocate_zeros(True)
    # Without a role mxnet is imported whole, and not in the middle of a server's loop.
    del os.environ["DMLC_ROLE"]
    import mxnet as mx
    from mxnet.kvstore.kvstore_server import KVStoreServer

    os.environ["DMLC_ROLE"] = role
    store = mx.kv.create("dist_sync")
    look = _look(mx.base._LIB, store.handle, role, watch.timeout(os.environ))

    def begin() -> None:
        allocate_zeros(False)
        if watch.timeout(os.environ):
            watch.Watch(look, role, "The job is over: start it again from its checkpoint.")

    class Server(KVStoreServer):  # type: ignore[misc]
        def _controller(self) -> Callable[..., None]:
            usual = super()._controller()

            def controller(command: int, body: bytes, _: Any) -> None:
                if command == BEGUN:
                    begin()
                    return
                try:
                    usual(command, body, _)
                except Exception:
                    # The workers find out that this server lacks the optimizer, and say so.
                    traceback.print_exc()

            return controller

    # mxnet swallows what the optimizer raises, and goes on with weights that were not updated.
    sys.unraisablehook = _report_and_end
    if role == "scheduler":
        threading.Thread(target=lambda: (_wait_until_listening(), begin()), daemon=True).start()
    Server(store).run()


if __name__ == "__main__":
    main()
