"""The snapshot's state: the full gradient, what it was taken from, and how it enters a step."""

from typing import Any, Dict, List, Optional, Sequence

from . import full_gradient
from .estimator import full_gradient_dtype, reduce_variance
from .mxnet_internals import GradientsOnDevices


class Snapshot:
    """Full gradient and history of the snapshots of one set of weights.

    Modules that share their weights (``bind(shared_module=...)``) share this too. The snapshot's weights are in
    `SVRGModule._mod_aux`.

    Attributes
    ----------
    full_gradients : list of dict of str to NDArray
        For each device, by parameter, what it adds to its gradient of a full batch: b_k * mu, for the b_k
        rows it held then (mu itself if the gradient is a mean), before ``rescale_grad``.
    rows : list of int
        The b_k, or 1 if the gradient is a mean.
    number : int
        How many snapshots have been taken.
    epoch : int or None
        The epoch that the last one was taken in, if it is known.
    passes : int
        How many full passes have begun.
    gradients_pending : bool
        Whether a `backward` has left gradients that an `update` is to use, in arrays that those modules share, too.
    """

    def __init__(self, devices: int) -> None:
        self.full_gradients: full_gradient.OnDevices = [{} for _ in range(devices)]
        self.rows: List[int] = []
        self.number = 0
        self.epoch: Optional[int] = None
        self.passes = 0
        self.gradients_pending = False

    @property
    def taken(self) -> bool:
        """Whether there is a snapshot."""
        return self.number > 0

    def set(self, first: Dict[str, Any], rows: Sequence[int], devices: Sequence[Any], number: int,
            epoch: Optional[int]) -> None:  # fmt: skip
        """Install a new full gradient, from that of the first device for `rows[0]` rows."""
        spread = full_gradient.spread(first, rows, devices)
        # All that takes time, and could be interrupted, is done.
        self.full_gradients, self.rows, self.number, self.epoch = spread, list(rows), number, epoch

    def convert(self, gradients: GradientsOnDevices) -> None:
        """Give the full gradients the type that these gradients, of a network bound anew, need."""
        for name, on_devices in gradients:
            dtype = full_gradient_dtype(on_devices[0].dtype)
            for full in self.full_gradients:
                if name in full:
                    full[name] = full[name].astype(dtype, copy=False)

    def correct(self, gradients: GradientsOnDevices, at_snapshot: GradientsOnDevices, rows: Sequence[int]) -> None:
        """Turn the gradients of a batch, of so many rows on each device, into variance-reduced gradients, in place."""
        shares = [now / then for now, then in zip(rows, self.rows)]
        for (name, on_devices), (_, snapshot_on_devices) in zip(gradients, at_snapshot):
            if name not in self.full_gradients[0]:
                # It had no gradient when the snapshot was taken: until the next one it takes plain steps.
                continue
            for gradient, snapshot_gradient, full, share in zip(
                on_devices, snapshot_on_devices, self.full_gradients, shares
            ):
                reduce_variance(gradient, snapshot_gradient, full[name] if share == 1 else full[name] * share)
