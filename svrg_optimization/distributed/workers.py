"""The workers of a job, as one of them sees them: the base class, a worker without others, and how to join a job."""

import abc
import contextlib
import logging
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np
from mxnet.base import MXNetError

from ..horovod_store import HorovodStore
from ..keys import EXCHANGE, full_gradient_key
from ..mxnet_api import internals
from ..mxnet_api.internals import GradientsOnDevices
from ..svrg.estimator import OnDevices
from ..svrg.full_gradient import add_up_devices, zeros_for
from . import exchange_of_numbers
from .shared_rows import SharedRows
from .states_on_servers import StatesOnServers

# Parameter name -> array on each device.
OnDevicesByName = Mapping[str, Sequence[Any]]
STALE = (
    "the KVStore has been used before: its servers don't give back what was sent. A job's store serves one module; "
    "start a new process for another"
)
COMPRESSED = (
    "kvstore={!r}: the store has gradient compression, which loses the small differences that SVRG lives on; don't "
    "call its set_gradient_compression()"
)
# Compression replaces a number by 0 or by its threshold. Nobody chooses this threshold.
_NO_THRESHOLD = 0.72360679


class Job(NamedTuple):
    """What a module says about its training when it joins the workers."""

    parameters: Sequence[Tuple[str, Tuple[int, ...], str]]  # name, shape, name of the type
    batch_size: int  # of this worker, on all devices
    plan: Mapping[str, int]  # when snapshots are taken and how gradients are corrected: what all workers must share
    servers_update: Callable[[Any], bool]  # of a store: whether init_optimizer will let its servers update the weights
    logger: Any = logging.getLogger(__name__)
    goes_on: bool = False  # whether from a checkpoint, with the optimizer's states


def description(default_optimizer: Any, **params: Any) -> List[Any]:
    """What two workers share if they have the same optimizer: its name, and its settings that are simple values.

    >>> description('sgd', learning_rate=0.5)
    ['sgd', ('learning_rate', 0.5)]
    """
    if not isinstance(default_optimizer, str):
        default_optimizer, params = type(default_optimizer).__name__, vars(default_optimizer)
    simple = {name: value for name, value in params.items() if isinstance(value, (bool, int, float, str))}
    return [default_optimizer.lower(), *sorted(simple.items())]


class Workers(abc.ABC):
    """What the workers of a job share, as one of them sees it.

    All workers call the same methods in the same order: each method that asks the others waits for all of them.
    """

    # Whether `start` may write weights of another worker.
    has_others = True

    def __init__(self, store: Any, rank: int, number: int, batch_size: int, logger: Any) -> None:
        # What Module.init_optimizer gets as its `kvstore`; the number of this worker, from 0; the number of workers.
        self.store, self.rank, self.number = store, rank, number
        # Further arguments of _SVRGOptimizer.
        self.optimizer_settings: Dict[str, Any] = {}
        self._batch_size, self._logger = batch_size, logger
        self._fit_counts_steps = False

    @abc.abstractmethod
    def start(self, store: Any, parameters: GradientsOnDevices, optimizer: Any) -> None:
        """Prepare to `sum`, and write the first worker's weights into the `parameters`, which are on each device.

        `store` is the KVStore that Module.init_optimizer has installed, if any, and `optimizer` the user's. Raises
        RuntimeError or ValueError if that can't be trained with.
        """

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Raise RuntimeError, on every worker, if the workers have different `settings`; at most 8."""
        self._compare(settings, self._gather([exchange_of_numbers.as_number(value) for value in settings.values()]))

    def _agree_on(self, job: Job, optimizer: Mapping[str, Any], servers_update: bool) -> None:
        self.agree({
            **job.plan, "MXNET_UPDATE_ON_KVSTORE": int(servers_update),
            "batch size": job.batch_size, "optimizer": description(**optimizer),
            "load_optimizer_states": int(job.goes_on),
            "parameter names": [name for name, _, _ in job.parameters],
            "parameter shapes and types": list(map(tuple, job.parameters)),
        })  # fmt: skip

    def _compare(self, settings: Mapping[str, Any], gathered: Sequence[Sequence[int]]) -> None:
        found = exchange_of_numbers.differences(settings, gathered, self.rank)
        if found:
            raise RuntimeError("the workers of this job differ in {}. Start them all with the same program and "
                               "arguments".format("; and in ".join(found)))  # fmt: skip

    def _gather(self, numbers: Sequence[int]) -> List[List[int]]:
        """What each worker gave, on every worker."""
        return self._gather_later(numbers)()

    def _gather_later(self, numbers: Sequence[int]) -> Callable[[], List[List[int]]]:
        """A function that waits for what each worker gives."""
        rows = np.zeros((self.number, exchange_of_numbers.WIDTH), np.float32)
        rows[self.rank] = exchange_of_numbers.encode(numbers)
        array = mx.nd.array(rows)
        self.store.pushpull(EXCHANGE, array, out=array)

        def wait() -> List[List[int]]:
            gathered = array.asnumpy()
            if not np.array_equal(gathered[self.rank], rows[self.rank]):
                raise RuntimeError(STALE)
            return [exchange_of_numbers.decode(row) for row in gathered]

        return wait

    def sum_later(self, number: float) -> Callable[[], float]:
        """A function that waits for the sum of the numbers that the workers give."""
        wait = self._gather_later(exchange_of_numbers.bits([number]))
        return lambda: sum(exchange_of_numbers.from_bits([row[0] for row in wait()]))

    def of_first(self, numbers: Sequence[float]) -> List[float]:
        """The numbers that the first worker gives, on every worker."""
        (count, *_), *_ = self._gather([len(numbers)])
        own = [*exchange_of_numbers.bits(numbers), *[0] * count]
        found: List[float] = []
        for k in range(0, count, exchange_of_numbers.NUMBERS):
            of_first, *_ = self._gather(own[k : k + exchange_of_numbers.NUMBERS])
            found += exchange_of_numbers.from_bits(of_first)
        return found[:count]

    def sum(self, totals: OnDevices) -> None:
        """Replace each device's array by the sum over devices and workers, in place."""
        for name in totals[0] if totals else ():
            arrays = [on_device[name] for on_device in totals]
            self.store.pushpull(full_gradient_key(name), arrays, out=arrays)

    def samples(self, own: int) -> int:
        """The number of samples of all workers. Warns if the workers have different numbers of batches."""
        of_each = [numbers[0] for numbers in self._gather([own])]
        unequal = exchange_of_numbers.unequal([-(-each // self._batch_size) for each in of_each])
        if unequal and not self._fit_counts_steps:
            self._logger.warning(
                "The workers have different numbers of batches: %s. All must take the same number of steps, as fit() "
                "does, or they wait for each other for ever", unequal,
            )  # fmt: skip
        return sum(of_each)

    def steps(self, own: Callable[[], int], schedule: Mapping[str, int]) -> Optional[int]:
        """The number of steps in an epoch: the smallest number of batches of a worker; None for all batches.

        `own` counts this worker's batches. Raises RuntimeError if the workers have different schedules; at most 7
        numbers.
        """
        gathered = self._gather([own(), *schedule.values()])
        self._compare(schedule, [numbers[1:] for numbers in gathered])
        counts = [numbers[0] for numbers in gathered]
        if exchange_of_numbers.unequal(counts):
            self._logger.warning("Each epoch has %d steps, the smallest number of batches: %s",
                                 min(counts), exchange_of_numbers.unequal(counts))  # fmt: skip
        self._fit_counts_steps = True
        return min(counts)

    def pass_on_settings(self) -> None:  # noqa: B027 - mostly there is nothing to do
        """Tell what updates the weights which settings of the optimizer have changed; before each update."""

    def check_settable(self) -> None:  # noqa: B027 - mostly they do
        """Raise RuntimeError if what updates the weights doesn't take other settings."""

    # Whether the KVStore has been given `row_sparse` arrays for dense weights, or dense ones; None before the first.
    # For several devices, mxnet's stores take the same kind ever after.
    takes_rows: Optional[bool] = None

    def set_weights(self, weights: OnDevicesByName, at_rest: bool) -> None:
        """Let the KVStore, if it updates the weights, go on with these, which the devices have. All workers call this.

        `at_rest`: states that aren't in this process become zero.
        """
        optimizer: Any = getattr(internals.updater_of_store(self.store), "optimizer", None)
        if not hasattr(optimizer, "assigns_weights"):
            return
        optimizer.assigns_weights = True
        try:
            for name, (first, *others) in weights.items():
                # From all devices, as gradients are: mxnet adds up where the first push of a key came from.
                self.store.push(name, [first, *(array.zeros_like() for array in others)])
        finally:
            optimizer.assigns_weights = False

    def shared_rows(self) -> Optional[SharedRows]:
        """What tells the workers which rows of weights each of them touches; None if there is no such thing."""
        return None

    def states_on_servers(self) -> Optional[StatesOnServers]:
        """The optimizer's states, if they aren't in this process. RuntimeError if they can't be had."""
        return None

    def leave(self) -> None:  # noqa: B027 - mostly there is nothing to do
        """End the job together with the other workers."""


class Alone(Workers):
    """A worker without others, with one or several devices."""

    has_others = False

    def __init__(self, store: Any = None) -> None:
        super().__init__(store, 0, 1, 1, logging.getLogger(__name__))
        self._store_sums = False

    def start(self, store: Any, parameters: GradientsOnDevices, optimizer: Any) -> None:
        """Make the keys of the full gradients in the store, if any. Raise ValueError if it compresses gradients."""
        if store is None:
            return
        make_keys(store, parameters)
        if parameters and "device" in store.type:
            _check_compression(store, [array.context for array in parameters[0][1]])
        self.store, self._store_sums = store, True

    def sum(self, totals: OnDevices) -> None:
        """Replace each device's array by the sum over the devices, in place."""
        if self._store_sums:
            super().sum(totals)
            return
        # There is no store, or a plain Module's, which has no keys for full gradients.
        add_up_devices(totals)

    def steps(self, own: Callable[[], int], schedule: Mapping[str, int]) -> Optional[int]:
        """None: as many steps as there are batches. `own` isn't called."""
        return None

    def _gather(self, numbers: Sequence[int]) -> List[List[int]]:
        return [list(numbers)]

    def sum_later(self, number: float) -> Callable[[], float]:
        """A function that gives the number."""
        return lambda: number

    def of_first(self, numbers: Sequence[float]) -> List[float]:
        """The numbers."""
        return list(numbers)


def make_keys(store: Any, parameters: GradientsOnDevices) -> None:
    """Make the keys of the full gradients in a store."""
    zeros = zeros_for(parameters)[0]
    store.init([full_gradient_key(name) for name in zeros], list(zeros.values()))


def _check_compression(store: Any, devices: Sequence[Any]) -> None:
    """Raise ValueError if the store compresses gradients. Nothing says so; but compression changes a number."""
    with contextlib.suppress(MXNetError):  # another module may have made the key
        store.init(EXCHANGE, mx.nd.zeros(1))
    # On all devices: mxnet adds up all keys on the devices that the first push comes from.
    sent = [mx.nd.full(1, _NO_THRESHOLD, ctx=device) for device in devices]
    store.pushpull(EXCHANGE, sent, out=sent)
    if not np.isclose(sent[0].asscalar(), _NO_THRESHOLD * len(devices), rtol=1e-5):
        raise ValueError(COMPRESSED.format(store.type))


def join(kvstore: Any, job: Job, optimizer: Mapping[str, Any]) -> Workers:
    """The workers of the job that this process belongs to; `Alone` if the store isn't distributed.

    Parameters
    ----------
    kvstore, job
        What init_optimizer got, and what the module says about its training.
    optimizer : mapping
        The arguments of `_SVRGOptimizer`, which all workers must share.

    Raises
    ------
    RuntimeError
        The workers have different settings, networks or optimizers; or the store has been used before.
    ValueError
        The store compresses gradients.
    """
    if isinstance(kvstore, HorovodStore):
        from .horovod import Horovod

        return Horovod(kvstore, job, optimizer)
    if is_distributed(kvstore):
        from .parameter_servers import ParameterServers

        return ParameterServers(kvstore, job, optimizer)
    return Alone(kvstore)


def join_by(other: Any) -> Workers:
    """The workers of another module, to borrow its optimizer and KVStore.

    Raises RuntimeError if that is a plain Module with a distributed store.
    """
    workers = getattr(other, "_workers", None)
    if workers is not None:
        return workers
    store = internals.kvstore(other)
    if is_distributed(store):
        raise RuntimeError(
            "the optimizer to borrow is a plain Module's with kvstore={!r}, whose servers have no keys for the full "
            "gradient; call init_optimizer() of an SVRGModule, and borrow that one's".format(store.type)
        )
    return Alone(store)


def is_distributed(kvstore: Any) -> bool:
    """Whether this is the name of a store for several workers, or such a store."""
    kind = kvstore if isinstance(kvstore, str) else getattr(kvstore, "type", "")
    return isinstance(kind, str) and kind.startswith("dist")
