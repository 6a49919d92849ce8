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
import traceback
from typing import Any, Callable, Mapping

from .distributed import liveness, watch_client
from .distributed.watch_service import WatchService

_M_PERTURB = -6
_TUNABLE = "glibc.malloc.tcache_count=0"


def allocate_zeros(yes: bool) -> None:
    """Let malloc fill what it gives with zeros, where there is glibc.

    ``M_PERTURB`` fills with the complement.

    Parameters
    ----------
    yes : bool
        Whether it is to do so, from now on.
    """
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


def _run(store: Any, commands: Mapping[str, Callable[[str], None]], then: Callable[[], None]) -> None:
    """Serve until the job is over.

    A command of the workers that begins with one of the texts of `commands` is for us: the function gets the rest. All
    others are for mxnet, and `then` is called after them.
    """
    from mxnet.kvstore.kvstore_server import KVStoreServer

    class Server(KVStoreServer):
        def _controller(self) -> Callable[..., None]:
            of_mxnet = super()._controller()

            def controller(command: int, body: bytes, _: Any) -> None:
                for ours, obey in commands.items():
                    if body.startswith(ours.encode()):
                        obey(body[len(ours) :].decode())
                        return
                try:
                    of_mxnet(command, body, _)
                    then()
                except Exception:
                    # The workers find out that this server lacks the optimizer, and say so.
                    traceback.print_exc()

            return controller

    Server(store).run()


def _run_server() -> None:
    allocate_zeros(True)
    watch_client.join()
    store = _make_store("server")
    # Only now: they need all of mxnet.
    from .distributed.server_desk import REQUEST, Desk
    from .mxnet_api import internals
    from .svrg_optimizer import _SVRGOptimizer

    desk = Desk(functools.partial(internals.updater_of_store, store), lambda: store.rank)
    _SVRGOptimizer.assigned = desk.see

    def begin(_: str) -> None:
        allocate_zeros(False)
        watch_client.call(lambda client: client.rename("server {}".format(store.rank)))

    def leave(_: str) -> None:
        watch_client.call(lambda client: client.say_goodbye())
        liveness.end_unless_left()

    _run(store, {liveness.BEGUN: begin, liveness.OVER: leave, REQUEST: desk.obey}, desk.look_at_optimizer)
    watch_client.call(lambda client: client.say_goodbye())


def _run_scheduler() -> None:
    try:
        service = WatchService(os.environ)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (")[0]
        sys.exit("the scheduler can't watch the job at {}:{}: {}; set SVRG_WATCH_PORT, for every process, to a port "
                 "that is free on its host".format(*liveness.address_of_watch(os.environ), why))  # fmt: skip
    service.start()
    store = _make_store("scheduler")
    # Only now: it needs all of mxnet.
    from .mxnet_api import internals

    service.inspect_by(liveness.Heartbeats(functools.partial(internals.is_silent, store), os.environ))
    _run(store, {}, lambda: None)
    service.stop()


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
    # mxnet swallows what the optimizer raises, and goes on with weights that were not updated.
    sys.unraisablehook = _report_and_end
    if role == "server":
        _run_server()
    else:
        _run_scheduler()
    liveness.has_left()


if __name__ == "__main__":
    main()
