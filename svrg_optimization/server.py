"""``python -m svrg_optimization.server``: a parameter server, or the scheduler, of a distributed job.

The same as ``python -c 'import mxnet'`` with the environment variable DMLC_ROLE set, and besides:

- it ends, non-zero and with a message, when another process of the job dies;
- float64 stays float64. mxnet 1.9.1 never initialises the flag that makes a server keep float32 copies, and what it
  finds in memory there usually means yes.
"""

import ctypes
import faulthandler
import functools
import os
import sys
import threading
import traceback
from typing import Any, Callable, List

from . import watch

# By these commands a worker says that the job has begun, and that it is over. mxnet passes only command 0 on to Python,
# and its own servers unpickle what comes with it: there they are a message, and an optimizer that is no longer used.
BEGUN = "csys\nexit\n(S'start this server by python -m svrg_optimization.server, and it ends with its job'\ntR."
OVER = "cmxnet.optimizer\nSGD\n(tR."
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


def _wait_until_listening() -> None:
    # ps-lite crashes when it is asked about heartbeats before it has been started.
    while watch.ask(watch.address_of_scheduler(os.environ)) is None:
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
    look = watch.looks(mx.base._LIB, store.handle, role, os.environ)
    watching: List[watch.Watch] = []

    def begin() -> None:
        allocate_zeros(False)
        if watch.timeout(os.environ):
            again = "The job is over: start it again from its checkpoint."
            if role == "scheduler":
                tell = functools.partial(watch.say_at, watch.address_of_scheduler(os.environ)[1])
                watching.append(watch.Watch(look, role, again, tell))
            else:
                watching.append(watch.Watch(look, "server {}".format(store.rank), again))

    def begin_when_listening() -> None:
        _wait_until_listening()
        begin()

    def leave() -> None:
        for each in watching:
            each.stop()
        watch.end_unless_left()

    class Server(KVStoreServer):
        def _controller(self) -> Callable[..., None]:
            usual = super()._controller()
            ours = {BEGUN.encode(): begin, OVER.encode(): leave}

            def controller(command: int, body: bytes, _: Any) -> None:
                if body in ours:
                    ours[body]()
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
        threading.Thread(target=begin_when_listening, daemon=True).start()
    Server(store).run()
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
