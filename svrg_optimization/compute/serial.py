"""The snapshot's pass right after that of the current weights, on the same devices. Other ways change parts of this."""

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from mxnet.module import Module

from ..mxnet_api import internals
from ..svrg.batches import labels
from ..svrg.estimator import Alpha, Correction, Gradients, OnDevices
from ..svrg.random_draws import DrawStream
from ..svrg.states import States
from .forward import Forward
from .own_thread import SnapshotModule

# Gives a module's head gradients, from its outputs if need be.
Heads = Callable[[Module], Any]


class Serial:
    """Computes the gradients of a batch at the current weights and at the snapshot, through Module.

    Each method gets the module of the current weights, `live`: nothing in here holds it, for it holds this.

    Parameters
    ----------
    aux : SnapshotModule
        The snapshot's network.
    draws : DrawStream
        Of the random operators of both networks.
    states : States
        Of both networks.
    """

    # Whether the snapshot's network is bound in a thread of its own.
    in_own_thread = False
    # Whether larger batches than a step's may take more memory, and how many are computed at the same time.
    may_take_memory = True
    passes_at_once = 1

    def __init__(self, aux: SnapshotModule, draws: DrawStream, states: States) -> None:
        self.aux, self._draws, self._states = aux, draws, states
        self._forward_live, self._forward_aux = Forward(), Forward()
        # The executors whose gradient arrays these are.
        self._gradients: Tuple[List[Any], List[Gradients]] = ([], [])

    @staticmethod
    def contexts(contexts: Sequence[Any]) -> List[Any]:
        """Where the snapshot is computed, for current weights on these devices."""
        return list(contexts)

    def bound(self, live: Module) -> None:
        """Prepare, once both networks are bound."""

    # ---------------------------------------------------------------------------------------------------- a step

    def forward(self, live: Module, batch: Any, as_bound: bool) -> None:
        """The forward pass at the current weights, and what is to be done before their backward pass.

        Parameters
        ----------
        live : Module
        batch : DataBatch, or list of DataBatch
        as_bound : bool
            Whether its arrays have the shapes that `live` is bound to.
        """
        self._forward_live(live, batch, as_bound)
        self._repeat_draw()
        self._follow_shapes(live)
        self._states.follow(self.aux, live)
        if live.label_shapes and not labels(batch[0] if isinstance(batch, list) else batch):
            # Module goes on with the labels that it has.
            internals.copy_labels(live, self.aux)
        self._forward_aux(self.aux, batch, as_bound)

    def backward_live(self, live: Module, head_gradients: Any) -> None:
        """The backward pass at the current weights."""
        internals.backward(live, head_gradients)

    def backward(self, live: Module, heads: Heads) -> None:
        """What is to be done after the backward pass at the current weights."""
        self.aux.backward(heads(self.aux))

    def rows_on_devices(self, live: Module) -> List[int]:
        """How many rows of the batch each device has."""
        return internals.rows_on_devices(live)

    def gradients(self, live: Module) -> List[Gradients]:
        """The arrays of the gradients; the same list until arrays have changed."""
        executors = [*internals.executors(live), *internals.executors(self.aux)]
        if self._gradients[0] != executors:
            pairs = zip(internals.gradients(live), internals.gradients(self.aux))
            self._gradients = executors, [Gradients(name, here, there) for (name, here), (_, there) in pairs]
        return self._gradients[1]

    def weights(self, live: Module) -> Dict[str, Tuple[Any, Any]]:
        """The weights that these are gradients with respect to, current and the snapshot's, on the first device."""
        return internals.weights_of_both(live, self.aux)

    def whole_gradients(self, live: Module) -> Dict[str, List[Any]]:
        """Gradients at the current weights that are to take the place of the module's own, by name."""
        return {}

    def gradients_in_full(self, live: Module) -> List[Gradients]:
        """The gradients, of the shapes of their parameters."""
        return self.gradients(live)

    def correct(
        self, live: Module, correction: Correction, mu: OnDevices, factors: Sequence[int], alpha: Alpha
    ) -> None:  # fmt: skip
        """Replace the gradients at the current weights by variance-reduced gradients, see `Correction`."""
        correction(self.gradients(live), mu, factors, alpha)

    # ------------------------------------------------------------------------ ways that have the weights to themselves

    @property
    def names(self) -> Sequence[str]:
        """The parameters that `update_rows` updates."""
        return ()

    # Whether there are gradients for `update_rows`.
    has_gradients = False

    @property
    def passes_over_rows(self) -> bool:
        """Whether full passes are `PassOverRows`."""
        return False

    @property
    def is_newer_than_store(self) -> bool:
        """Whether a KVStore that is to update the weights lacks what `update_rows` has done."""
        return False

    def update_rows(self) -> None:
        """Update what this way updates."""

    def rest(self) -> None:
        """Set the optimizer's states to 0, those that `update_rows` has."""

    def states(self) -> Dict[str, Any]:
        """The optimizer's states by parameter, those that nobody else has."""
        return {}

    def set_states(self, states: Dict[str, Any]) -> None:
        """Go on with such states."""

    def state(self) -> Dict[str, Any]:
        """What `restore` takes."""
        return {}

    def restore(self, state: Dict[str, Any]) -> None:
        """Go on from what was saved."""

    def drop_gradients(self) -> None:
        """A plain backward pass has left others."""

    def store_has_weights(self) -> None:
        """A KVStore has been given the weights, or has updated them."""

    def copy_weights_to(self, arrays: Dict[str, Any]) -> None:
        """Copy weights to arrays of these names, those that this way updates."""

    def arrive(self, full_pass: Any) -> None:
        """The snapshot has moved, by this full pass."""

    def show(self, live: Module) -> None:
        """Somebody will read the module's weights or the optimizer's states."""

    def leave(self, live: Module) -> None:
        """Somebody will write them."""

    def _repeat_draw(self) -> None:
        if self._draws.active:
            self.aux.call(self._draws.repeat)

    def _follow_shapes(self, live: Module) -> None:
        # The user, or a batch of another shape, may have reshaped `live`. That is followed in training only:
        # evaluation doesn't pay for it.
        wanted = live.data_shapes, live.label_shapes
        if (self.aux.data_shapes, self.aux.label_shapes) != wanted:
            self.aux.reshape(*wanted)

    # ----------------------------------------------------------------------------------------------- a full pass

    @contextlib.contextmanager
    def full_pass(self, live: Module, live_is_free: bool) -> Iterator[List[Module]]:
        """The networks that take turns in a full pass; the outputs of `live` stay what they were.

        Parameters
        ----------
        live : Module
        live_is_free : bool
            Whether `live` has the snapshot's weights, and nobody needs the gradients that it has left.
        """
        yield [self.aux]
