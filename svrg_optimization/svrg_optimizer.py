"""The optimizers behind an SVRGModule: full gradients are assigned, weights are updated by the user's optimizer.

Imports nothing of mxnet but ``mxnet.optimizer``: parameter servers unpickle these classes while mxnet is half
loaded.
"""

import operator
import warnings
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from mxnet import optimizer as opt

from .keys import OURS, PROOF, is_full_gradient_key, proof

__all__ = ["_AssignmentOptimizer", "_SVRGOptimizer"]


@opt.register
class _AssignmentOptimizer(opt.Optimizer):
    """Stores what is pushed: the KVStore key of a full gradient takes the sum over devices and workers.

    Examples
    --------
    >>> import mxnet as mx
    >>> store = mx.kv.create('local')
    >>> store.set_optimizer(_AssignmentOptimizer())
    >>> store.init('fc_weight_full', mx.nd.zeros(2))
    >>> store.push('fc_weight_full', [mx.nd.ones(2), mx.nd.ones(2)])
    >>> full_gradient = mx.nd.empty(2)
    >>> store.pull('fc_weight_full', out=full_gradient)
    >>> full_gradient.asnumpy().tolist()
    [2.0, 2.0]
    """

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Set `weight` to `grad`.

        Parameters
        ----------
        index : int or str
            The key; not used.
        weight : NDArray
            The stored full gradient, replaced.
        grad : NDArray
            The full gradient, mean per sample, summed over what the devices and workers contribute.
        state : None
            There is none.
        """
        grad.copyto(weight)


def _find(name: str) -> type:
    try:
        return opt.Optimizer.opt_registry[name.lower()]
    except KeyError:
        raise ValueError(
            "optimizer={!r} is not registered; use an mxnet.optimizer.Optimizer or one of {}".format(
                name,
                sorted(
                    known for known in opt.Optimizer.opt_registry if "_svrg" not in known and not known.startswith("_")
                ),
            )
        ) from None


# What belongs to the wrapper itself; every other attribute is the wrapped optimizer's.
_OWN = ("default_opt", "aux_opt", "prepared", "server_keys", "assigns_weights", "_names", "_routes")


@opt.register
class _SVRGOptimizer(opt.Optimizer):
    """Routes each key: ``<parameter>_full`` is assigned, every parameter goes to the user's optimizer, untouched.

    Apart from the routing it *is* the wrapped optimizer: each attribute (`lr`, `lr_scheduler`, `wd_mult`,
    `rescale_grad`, `aggregate_num`, ...) is read from it and written to it, so that ``set_learning_rate``,
    ``set_lr_mult`` and the rest reach the optimizer that does the work.

    Parameters
    ----------
    default_optimizer : str or Optimizer
        The optimizer that updates the weights. A name is created with `kwargs`. An instance keeps its own
        settings: it gets `param_idx2name` if it has none, and a warning if its `rescale_grad` is another.
    server_keys : list of str, optional
        The names of all keys, if the optimizer runs on parameter servers: those know keys by their numbers only, and
        the numbers of the parameters don't begin at 0.
    **kwargs : dict
        What ``mxnet.optimizer.create`` takes, as Module passes it (`param_idx2name`, `sym`, `rescale_grad`) and as
        the user does (`learning_rate`, `momentum`, ...).

    Raises
    ------
    ValueError
        No optimizer of that name is registered.
    TypeError
        `default_optimizer` is neither a name nor an Optimizer.

    Examples
    --------
    >>> import mxnet as mx
    >>> optimizer = mx.optimizer.create('_SVRGOptimizer', default_optimizer='sgd', learning_rate=1.0,
    ...                                 param_idx2name={0: 'weight', 1: 'weight_full'})
    >>> optimizer.set_learning_rate(0.5)
    >>> optimizer.default_opt.lr
    0.5
    """

    # On servers of ours: what is told of each full gradient that is assigned: its key, the key's number, and the array.
    assigned: Optional[Callable[[str, int, Any], None]] = None

    def __init__(
        self, default_optimizer: Union[str, opt.Optimizer], server_keys: Sequence[str] = (), **kwargs: Any
    ) -> None:
        # Optimizer.__init__ is not called: its attributes are those of the wrapped optimizer.
        self.aux_opt = _AssignmentOptimizer()
        # What updates weights in the place of the wrapped optimizer, in the same way; see compute.sgd.
        self.prepared: Optional[Callable[..., None]] = None
        # Whether what is pushed for a parameter is its new value, and no gradient.
        self.assigns_weights = False
        # Routing goes by the names that Module gave. An instance may know others, of a network it trained before.
        self._names = dict(kwargs.get("param_idx2name") or {})
        self.server_keys = list(server_keys)
        # What `users_key` has found out, by key.
        self._routes: Dict[Any, Any] = {}
        if isinstance(default_optimizer, str):
            self.default_opt = _find(default_optimizer)(**kwargs)
        elif isinstance(default_optimizer, opt.Optimizer):
            self.default_opt = default_optimizer
            self._adopt(**kwargs)
            self._names = self._names or self.default_opt.idx2name
        else:
            raise TypeError(
                "default_optimizer must be the name of an optimizer or an mxnet.optimizer.Optimizer, not {!r}".format(
                    default_optimizer
                )
            )

    def _adopt(self, **settings: Any) -> None:
        """Do for an instance what Module.init_optimizer does for one."""
        expected = settings.get("rescale_grad", self.default_opt.rescale_grad)
        if self.default_opt.rescale_grad != expected:
            warnings.warn(
                "the optimizer given to init_optimizer has rescale_grad={}, but 1 / (batch size * workers) is {}; "
                "pass rescale_grad={} to its constructor unless that is intended".format(
                    self.default_opt.rescale_grad, expected, expected
                ),
                stacklevel=2,
            )
        if not self.default_opt.idx2name:
            self.default_opt.idx2name = dict(settings.get("param_idx2name") or {})

    def __getattr__(self, name: str) -> Any:
        # Called for what the wrapper itself lacks. While it is being unpickled there is nothing to ask yet.
        if name in _OWN or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.default_opt, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.default_opt, name, value)

    def __getstate__(self) -> Dict[str, Any]:
        return {**{name: self.__dict__[name] for name in _OWN}, "prepared": None, "_routes": {}}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)

    # An updater asks for these several times in each update; `__getattr__` takes longer.
    aggregate_num = property(operator.attrgetter("default_opt.aggregate_num"))
    allow_np_array = property(operator.attrgetter("default_opt.allow_np_array"))

    # Methods that Optimizer defines are found on this class before __getattr__ is asked, so those that an
    # optimizer may override are passed on by name; all others work through the attributes above.

    @property
    def learning_rate(self) -> float:
        """The wrapped optimizer's current learning rate."""
        return self.default_opt.learning_rate

    def set_learning_rate(self, lr: float) -> None:
        """Set the wrapped optimizer's learning rate.

        Parameters
        ----------
        lr : float
            The rate from the next step on.
        """
        self.default_opt.set_learning_rate(lr)

    def set_lr_mult(self, args_lr_mult: Dict[Any, float]) -> None:
        """Set the wrapped optimizer's learning rate multipliers.

        Parameters
        ----------
        args_lr_mult : dict of str or int to float
            What the rate is multiplied by, by the name or the number of a parameter.
        """
        self.default_opt.set_lr_mult(args_lr_mult)

    def set_wd_mult(self, args_wd_mult: Dict[Any, float]) -> None:
        """Set the wrapped optimizer's weight decay multipliers.

        Parameters
        ----------
        args_wd_mult : dict of str or int to float
            What the weight decay is multiplied by, by the name or the number of a parameter.
        """
        self.default_opt.set_wd_mult(args_wd_mult)

    def _set_current_context(self, device_id: int) -> None:
        # An updater calls it in each update, and through the attributes above it takes longer.
        self.default_opt._set_current_context(device_id)

    def know_keys_of(self, other: Any) -> None:
        """Recognise the full gradients of another optimizer's parameters, too, if that had the same KVStore before."""
        if isinstance(other, _SVRGOptimizer) and other is not self:
            # By name: a KVStore that updates weights knows no numbers.
            names = {name: name for name in other._names.values()}
            self._names, self._routes = {**names, **self._names}, {}

    def users_key(self, index: Union[int, str]) -> Any:
        """The wrapped optimizer's name or number of a parameter; None for a key that holds anything else."""
        # A server asks for each parameter in each step, and the workers wait for it.
        if index not in self._routes:
            self._routes[index] = self._route(index)
        return self._routes[index]

    def _route(self, index: Union[int, str]) -> Any:
        if not self.server_keys or isinstance(index, str):
            key = index if isinstance(index, str) else self._names.get(index)
            is_ours = key is not None and (key.startswith(OURS) or is_full_gradient_key(key, self._names.values()))
            return None if is_ours else index
        if index >= len(self.server_keys):
            # A sum over the workers' rows, whose key is made when it is needed.
            return None
        name = self.server_keys[index]
        if name.startswith(OURS) or is_full_gradient_key(name, self.server_keys):
            return None
        return index - sum(other.startswith(OURS) for other in self.server_keys[:index])

    def create_state(self, index: Union[int, str], weight: Any) -> Any:
        """Make the wrapped optimizer's state for a parameter; None for a full gradient.

        Parameters
        ----------
        index : int or str
            The key.
        weight : NDArray
            The parameter.

        Returns
        -------
        object
            What `update` gets as `state`.
        """
        index = self.users_key(index)
        return None if index is None else self.default_opt.create_state(index, weight)

    def create_state_multi_precision(self, index: Union[int, str], weight: Any) -> Any:
        """Make the wrapped optimizer's state for a parameter, with its float32 copy of a float16 weight.

        Parameters
        ----------
        index : int or str
            The key.
        weight : NDArray
            The parameter.

        Returns
        -------
        object
            What `update_multi_precision` gets as `state`.
        """
        index = self.users_key(index)
        return None if index is None else self.default_opt.create_state_multi_precision(index, weight)

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Assign `grad` to a full gradient; update a parameter by the wrapped optimizer.

        Parameters
        ----------
        index : int, str or list of them
            The key. Lists, with lists for the rest, are what the updater passes to an optimizer with `aggregate_num`.
        weight : NDArray or list of NDArray
            A full gradient's store, or a parameter.
        grad : NDArray or list of NDArray
            The new value of a full gradient; or the variance-reduced gradient, summed over the batch, before
            ``rescale_grad``.
        state : object or list of objects
            What `create_state` returned for `index`.
        """
        rest = self._take_ours(index, weight, grad, state)
        if rest and self.assigns_weights:
            self._assign_weights(*rest)
        elif rest:
            self.default_opt.update(*rest)

    def update_multi_precision(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        """Do what `update` does, where the wrapped optimizer may keep a float32 copy of float16 weights.

        Parameters
        ----------
        index : int, str or list of them
            The key, or keys, as for `update`.
        weight : NDArray or list of NDArray
            A full gradient's store, or a parameter.
        grad : NDArray or list of NDArray
            The new value of a full gradient, or the variance-reduced gradient.
        state : object or list of objects
            What `create_state_multi_precision` returned for `index`.
        """
        rest = self._take_ours(index, weight, grad, state)
        if rest and self.assigns_weights:
            self._assign_weights(*rest)
        elif rest and self.prepared is not None:
            self.prepared(self.default_opt, *rest)
        elif rest:
            self.default_opt.update_multi_precision(*rest)

    def _take_ours(self, index: Any, weight: Any, grad: Any, state: Any) -> Sequence[Any]:
        """Update what is no parameter; return the arguments that are left for the wrapped optimizer, () for none."""
        if not isinstance(index, (list, tuple)):
            users = self.users_key(index)
            if users is not None:
                return users, weight, grad, state
            self._assign(index, weight, grad)
            return ()
        users = [self.users_key(key) for key in index]
        if None not in users:
            return users, weight, grad, state
        rest: List[Tuple[Any, Any, Any, Any]] = []
        for key, own, *arrays in zip(index, users, weight, grad, state):
            if own is None:
                self._assign(key, *arrays[:2])
            else:
                rest.append((own, *arrays))
        return [list(column) for column in zip(*rest)]

    def _assign_weights(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        # Updaters that aggregate pass lists.
        of_one = not isinstance(index, (list, tuple))
        for stored, value in [(weight, grad)] if of_one else zip(weight, grad):
            self.aux_opt.update(None, stored, value, None)

    def _assign(self, index: Union[int, str], weight: Any, grad: Any) -> None:
        if not (self.server_keys and isinstance(index, int) and index < len(self.server_keys)):
            self.aux_opt.update(index, weight, grad, None)
            return
        key = self.server_keys[index]
        if key.startswith(PROOF):
            grad = grad * 0 + proof(self.server_keys, index, self.assigned is not None)
        self.aux_opt.update(index, weight, grad, None)
        if self.assigned is not None:
            self.assigned(key, index, weight)


# mxnet.contrib.svrg_optimization registers a class of the same name: whichever was imported last owns it. Module
# creates our optimizer by this name, which nobody else registers.
REGISTERED_NAME = "svrg_optimization._svrgoptimizer"
opt.Optimizer.opt_registry[REGISTERED_NAME] = _SVRGOptimizer
