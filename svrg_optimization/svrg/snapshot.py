r"""The snapshot: the weights :math:`\tilde w`, and the full gradient :math:`\mu` there.

.. math:: \tilde w = w, \qquad \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_i(\tilde w)
"""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..mxnet_api import internals
from ..mxnet_api.internals import GradientsOnDevices
from .estimator import OnDevices, full_gradient_dtype

Arrays = Dict[str, Any]


class Point(NamedTuple):
    """Where a snapshot is: its weights, and the full gradient there, mean per sample, both by parameter."""

    weights: Arrays
    full_gradient: Arrays


class Snapshot:
    """The snapshot of one set of weights. Modules that share their weights share this too.

    Attributes
    ----------
    full_gradient : list of dict of str to NDArray
        For each device, by parameter: the mean per sample, before ``rescale_grad``.
    number, epoch, samples : int
        How many snapshots have been taken; the epoch of the last one, and of how many samples of all workers its full
        gradient is the mean, None if unknown.
    is_of : callable or None
        Tells whether the last snapshot was of these data, if that is known.
    listeners : list of callable
        Each is called with the old `Point`, None at first, and the new one when the snapshot has moved.
    passes : int
        How many full passes have begun.
    gradients_pending : bool
        Whether a `backward` has left gradients that an `update` is to use, in arrays that those modules share, too.
    """

    def __init__(self, devices: int) -> None:
        self.full_gradient: OnDevices = [{} for _ in range(devices)]
        self.number, self.epoch, self.samples = 0, None, None
        self.is_of: Optional[Callable[[Any], bool]] = None
        self.listeners: List[Callable[[Optional[Point], Point], None]] = []
        self.passes, self.gradients_pending = 0, False

    @property
    def taken(self) -> bool:
        """Whether there is a snapshot."""
        return self.number > 0

    def move(
        self, network: Any, weights: Tuple[Arrays, Arrays], compute: Callable[[], Tuple[OnDevices, int]],
        epoch: Optional[int] = None,
    ) -> None:  # fmt: skip
        """Move to these weights (parameters and auxiliary states) and compute the full gradient; if that raises, stay.

        `network` is the Module that holds the snapshot's weights. `compute` returns the full gradient there, on each
        device, and the number of samples.
        """
        self.passes += 1
        old = self._point(network) if self.listeners and self.taken else None
        with self._at(network, weights):
            full_gradient, samples = compute()
        self._arrive(network, weights, full_gradient, self.number + 1, epoch, samples)
        for listener in self.listeners:
            listener(old, self._point(network))

    @contextlib.contextmanager
    def _at(self, network: Any, weights: Tuple[Arrays, Arrays]) -> Iterator[None]:
        """Set the network to these weights; back to where it was, if the block raises."""
        before = [dict(params) for params in network.get_params()] if self.taken else None
        try:
            # allow_missing copies to the devices only. The network's own copy keeps the old weights meanwhile, for
            # whoever asks for them, a checkpoint in a callback for instance.
            network.set_params(*weights, allow_missing=True, allow_extra=True)
            internals.keep_own_copy(network)
            yield
        except BaseException:
            if before is not None:
                network.set_params(*before)
            raise

    def _arrive(self, network: Any, weights: Tuple[Arrays, Arrays], *where: Any) -> None:
        """Finish a move, even if it is interrupted: weights and full gradient belong together."""
        try:
            network.set_params(*weights, allow_extra=True)
            self._set(*where)
        except BaseException:
            network.set_params(*weights, allow_extra=True)
            self._set(*where)
            raise

    def _set(self, full_gradient: OnDevices, number: int, epoch: Any, samples: Any) -> None:
        self.full_gradient, self.number, self.epoch, self.samples = full_gradient, number, epoch, samples

    def _point(self, network: Any) -> Point:
        # Copies: the network's own arrays are filled anew when it moves.
        weights = {name: array.copy() for name, array in network.get_params()[0].items()}
        return Point(weights, dict(self.full_gradient[0]))

    def convert(self, gradients: GradientsOnDevices) -> None:
        """Give the full gradient the type that these gradients, of a network bound anew, need."""
        dtypes = {name: full_gradient_dtype(on_devices[0].dtype) for name, on_devices in gradients}
        self.full_gradient = [
            {name: array.astype(dtypes.get(name, array.dtype), copy=False) for name, array in mu.items()}
            for mu in self.full_gradient
        ]

    def state(self, network: Any) -> Dict[str, Any]:
        """What `restore` takes."""
        weights, auxiliary = network.get_params() if self.taken else ({}, {})
        return {"number": self.number, "epoch": self.epoch, "samples": self.samples, "weights": weights,
                "auxiliary": auxiliary, "full_gradient": self.full_gradient[0]}  # fmt: skip

    def restore(self, state: Dict[str, Any], network: Any, devices: List[Any]) -> None:
        """Go to where a saved snapshot was, on these devices."""
        if state["number"]:
            network.set_params(state["weights"], state["auxiliary"])
            mu = state["full_gradient"]
            copies = [{name: array.copyto(device) for name, array in mu.items()} for device in devices]
            self._set(copies, state["number"], state["epoch"], state["samples"])
