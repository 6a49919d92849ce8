"""``python -m svrg_optimization.server``: a parameter server, or the scheduler, of a distributed job.

The same as ``python -c 'import mxnet'`` with the environment variable DMLC_ROLE set, and besides:

- the process ends, non-zero and with a message, when another process of the job dies;
- float64 stays float64. mxnet 1.9.1 never initialises the flag that makes a server keep float32 copies; what happens to
  be in that memory mostly means yes.
"""

import ctypes
import functools
import os
import sys
import threading
import traceback
from typing import Any, Callable, List

from .distributed import liveness

_M_PERTURB = -6
_TUNABLE = "glibc.malloc.tcache_count=0"


def allocate_zeros(yes: bool) -> None:
    """Let malloc fill what it gives with zeros (``M_PERTURB`` fills with the complement), where there is glibc."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    if yes and _TUNABLE not in os.environ.get("GLIBC_TUNABLES", ""):
        # Memory from a thread's cache isn't filled. Whether there is such a cache is decided when a process starts.
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [os.environ.get("GLIBC_TUNABLES"), _TUNABLE]))
        os.execv(sys.executable, [sys.executable, "-m", __spec__.name])
    libc.mallopt(_M_PERTURB, 0xFF if yes else 0)


def _make_store(role: str) -> Any:
    # Were the role set, mxnet would run its own server inside of its import, before all of mxnet is there.
    del os.environ["DMLC_ROLE"]
    import mxnet as mx

    os.environ["DMLC_ROLE"] = role
    return mx.kv.create("dist_sync")


class _JobWatch:
    """Watches the other processes from the begin of the job to its end."""

    def __init__(self, store: Any, role: str) -> None:
        # Only now: it needs all of mxnet.
        from .mxnet_api import internals

        self._store, self._role = store, role
        self._is_silent = functools.partial(internals.is_silent, store)
        self._watches: List[liveness.Watch] = []

    def begin(self) -> None:
        """The job has begun."""
        allocate_zeros(False)
        if not liveness.timeout(os.environ):
            return
        inspection = liveness.Inspection(self._is_silent, self._role, os.environ)
        advice = "The job is over: start it again from its checkpoint."
        if self._role == "scheduler":
            # All processes but this one and the dead one.
            others = int(os.environ["DMLC_NUM_WORKER"]) + int(os.environ["DMLC_NUM_SERVER"]) - 1
            tell = functools.partial(liveness.say_at_port, liveness.address_of_scheduler(os.environ)[1], others)
            self._watches.append(liveness.Watch(inspection, self._role, advice, tell))
        else:
            self._watches.append(liveness.Watch(inspection, "server {}".format(self._store.rank), advice))

    def begin_when_ps_lite_has_started(self) -> None:
        """For the scheduler, which no worker tells that the job has begun."""
        while liveness.ask_scheduler(liveness.address_of_scheduler(os.environ)) is None:
            threading.Event().wait(0.2)
        self.begin()

    def leave(self) -> None:
        """The job is over."""
        for watch in self._watches:
            watch.stop()
        liveness.end_unless_left()


def _run(store: Any, watch: _JobWatch) -> None:
    """Serve until the job is over."""
    from mxnet.kvstore.kvstore_server import KVStoreServer

    # Only now: they need all of mxnet.
    from .distributed.server_desk import REQUEST, Desk
    from .mxnet_api import internals
    from .svrg_optimizer import _SVRGOptimizer

    desk = Desk(functools.partial(internals.updater_of_store, store), lambda: store.rank)
    _SVRGOptimizer.assigned = staticmethod(desk.see)

    class Server(KVStoreServer):
        def _controller(self) -> Callable[..., None]:
            of_mxnet = super()._controller()
            of_ours = {liveness.BEGUN.encode(): watch.begin, liveness.OVER.encode(): watch.leave}

            def controller(command: int, body: bytes, _: Any) -> None:
                if body in of_ours:
                    of_ours[body]()
                    return
                if body.startswith(REQUEST.encode()):
                    desk.obey(body[len(REQUEST) :].decode())
                    return
                try:
                    of_mxnet(command, body, _)
                    desk.look_at_optimizer()
                except Exception:
                    # The workers find out that this server lacks the optimizer, and say so.
                    traceback.print_exc()

            return controller

    Server(store).run()


def _report_and_end(raised: Any) -> None:
    traceback.print_exception(raised.exc_type, raised.exc_value, raised.exc_traceback)
    liveness.end("{} ends: its optimizer raised {!r}".format(os.environ["DMLC_ROLE"], raised.exc_value), 1)


def main() -> None:
    """Run until the job is over."""
    role = os.environ.get("DMLC_ROLE")
    if role not in ("server", "scheduler"):
        sys.exit("DMLC_ROLE={!r} must be 'server' or 'scheduler'; workers run the training program".format(role))
    for name, value in liveness.DEFAULTS.items():
        os.environ.setdefault(name, value)
    if role == "server":
        allocate_zeros(True)
    store = _make_store(role)
    watch = _JobWatch(store, role)
    # mxnet swallows what the optimizer raises, and goes on with weights that were not updated.
    sys.unraisablehook = _report_and_end
    if role == "scheduler":
        threading.Thread(target=watch.begin_when_ps_lite_has_started, daemon=True).start()
    _run(store, watch)
    liveness.has_left()


if __name__ == "__main__":
    main()
