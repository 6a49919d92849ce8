"""What the optimizer of a module minimizes: the mean loss, weight decay, and a regularizer that isn't smooth."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import adamw, proximal
from .mxnet_api import internals
from .svrg import objective
from .svrg.step_control import Objective


class TrainingObjective:
    """Of a module whose optimizer is initialized; made when asked for, as the user may change settings at any time.

    Parameters
    ----------
    module : SVRGModule
    optimizer : Optimizer
        The user's.
    fixed : sequence of str
        Parameters whose changes don't reach the network.
    rows_of_devices : sequence of float
        By what each device's gradient of a full batch is larger than a mean per sample.
    workers : int
        How many there are.
    """

    def __init__(
        self, module: Any, optimizer: Any, fixed: Sequence[str], rows_of_devices: Sequence[float], workers: int,
    ) -> None:  # fmt: skip
        self._module, self._of_user, self._fixed = module, optimizer, fixed
        self._rows_of_devices, self._workers = rows_of_devices, workers

    def moving(self) -> Dict[str, float]:
        """The parameters that the optimizer moves, and what their learning rates are multiplied by."""
        multipliers = internals.rate_multipliers(self._module, self._of_user)
        for name in self._fixed:
            multipliers.pop(name, None)
        return {name: multiplier for name, multiplier in multipliers.items() if multiplier}

    def decays(self) -> Dict[str, float]:
        """The weight decays of the objective, by parameter; AdamW's isn't part of it."""
        found = internals.weight_decays(self._module, self._of_user)
        return dict.fromkeys(found, 0.0) if adamw.decouples(self._of_user) else objective.decays(found, self.scale())

    def scale(self) -> float:
        """By how much a step's gradient is larger than the objective's."""
        of_devices = self._rows_of_devices
        if len(of_devices) > 1 and internals.kvstore(self._module) is None:
            # Each device takes steps of its own, by its own rows.
            of_devices = of_devices[:1]
        rows = sum(of_devices) * self._workers
        return rows * internals.as_taken(self._of_user, self._of_user.rescale_grad)

    def regularizer(self) -> Tuple[Optional[Callable[..., Any]], Optional[Callable[..., Any]], Sequence[str]]:
        """The prox-gradient residual, the penalty, and the parameters of a regularizer that isn't smooth, if any."""
        keys = {each.name: each.keys[0] for each in internals.updated_parameters(self._module)}
        optimizer, scale = self._of_user, self.scale()
        residual, penalty = (make(optimizer, keys, scale) for make in (proximal.residual, proximal.penalty))
        return residual, penalty, proximal.kinks(optimizer, keys)

    def for_steps(self) -> Objective:
        """What a rule that chooses steps has to know."""
        rescale = internals.as_taken(self._of_user, self._of_user.rescale_grad)
        return Objective(
            self.decays(), self.moving(), self.scale(), rescale, internals.epsilon(self._module), *self.regularizer()
        )

    def in_words(self) -> List[Any]:
        """What tells this objective from others, but for the data."""
        regularizer = [getattr(self._of_user, name, None) for name in ("l1", "group", "nonnegative")]
        return [sorted(self.decays().items()), regularizer, self.scale()]

    def gradient(self, mu: Dict[str, Any], norms: Dict[str, float], weights: Dict[str, Any]) -> Tuple[float, Any]:
        """The norm of the objective's gradient where the full gradient is mu, and a bound of the suboptimality."""
        moving = self.moving()
        mu = {name: array for name, array in mu.items() if name in moving}
        decays = {name: decay for name, decay in self.decays().items() if name in moving}
        residual = self.regularizer()[0]
        if residual is not None:
            # Of a step that is the same at all snapshots: with a shorter one the residual is larger.
            return objective.residual_norm(mu, weights, decays, lambda *args: residual(*args, step=1.0)), None
        norm = objective.gradient_norm(mu, {name: norms[name] for name in mu}, weights, decays)
        return norm, objective.bound(norm, decays)
