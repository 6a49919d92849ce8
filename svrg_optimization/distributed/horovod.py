"""The workers of a Horovod job, who add up among themselves. Their store is `svrg_optimization.horovod_store`."""

from typing import Any, Mapping

from ..horovod_store import HorovodStore
from ..mxnet_api.internals import GradientsOnDevices
from .workers import Job, Workers


class Horovod(Workers):
    """The workers of a Horovod job, as one of them sees them. Each runs the optimizer. Arguments as for `join`."""

    def __init__(self, store: HorovodStore, job: Job, optimizer: Mapping[str, Any]) -> None:
        super().__init__(store, store.rank, store.num_workers, job.batch_size, job.logger)
        self._agree_on(job, optimizer, servers_update=False)

    def start(self, store: Any, parameters: GradientsOnDevices, optimizer: Any) -> None:
        """Write the first worker's weights into the `parameters`."""
        for name, arrays in parameters:
            self.store.broadcast(name, arrays[0], arrays)
