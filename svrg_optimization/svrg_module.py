"""SVRGModule: what Module does, with a snapshot."""

import contextlib
import logging
import math
import os
import pickle
import sys
import time
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import mxnet as mx
from mxnet.module import Module

from . import chosen_steps, module_state, notices, sparse_steps
from .checkpoint import files, position
from .compute import data, ways
from .compute.full_pass import Callbacks, FullPass, Network, Source
from .compute.larger_batches import LargerBatches
from .compute.own_thread import SnapshotModule
from .compute.parts import Part, growing_part
from .compute.pass_over_rows import PassOverRows
from .compute.serial import Serial
from .compute.sgd import PreparedSGD
from .compute.touched_rows import TouchedRows
from .compute.updater import Updater
from .distributed import workers
from .distributed.exchange_of_numbers import as_number
from .fit_run import FitRun
from .history import Record
from .keys import check_parameter_names
from .locked_batches import LockedBatches
from .mxnet_api import call_order, checks, internals, memory, shapes
from .mxnet_api.rows import unknown_operators
from .notices import Notices
from .svrg import batches, coefficients, full_gradient, iterates, networks, schedules
from .svrg.clock import Clock
from .svrg.coefficients import Coefficient, Constant
from .svrg.estimator import Alpha, Correction, Estimator, OnDevices
from .svrg.full_gradient import BatchGradient
from .svrg.progress import Progress, until_converged
from .svrg.random_draws import DrawStream, draws_by_itself, draws_random_numbers
from .svrg.schedules import EveryEpochs, Growing, Schedule
from .svrg.snapshot import Point, Snapshot
from .svrg.states import States
from .svrg.step_control import Objective, StepControl, Worse
from .svrg_optimizer import REGISTERED_NAME
from .training_objective import TrainingObjective
from .variance_monitor import VARIANCES, VarianceMonitor

__all__ = ["SVRGModule"]

Arrays = Dict[str, mx.nd.NDArray]
# Head gradients: as Module.backward takes them, or a function of (outputs, batch) that computes them.
OutGrads = Union[None, mx.nd.NDArray, List[mx.nd.NDArray], Callable[[List[mx.nd.NDArray], Any], List[mx.nd.NDArray]]]

# From so many updates without a snapshot on, training is said not to be SVRG; after an epoch of fit at once.
_MANY_UPDATES = 100


@call_order.ordered
class SVRGModule(Module):
    r"""A Module that trains by SVRG: stochastic gradients whose variance vanishes as training converges.

    .. math:: g = \nabla_B(w) - \alpha \bigl(\nabla_B(\tilde w) - b\,\mu\bigr)

    :math:`\nabla_B` is the gradient summed over the b rows of the batch B, before ``rescale_grad``;
    :math:`\tilde w` the *snapshot*, the weights as they were at the last `update_full_grads`; :math:`\mu`
    the *full gradient* there, the mean over all samples; and :math:`\alpha` the *coefficient*, 1 by default. The
    user's optimizer takes g for the gradient: weight decay, momentum and clipping come after the correction.

    Until the first `update_full_grads` it is a plain Module (the warm start that Johnson & Zhang recommend).

    Parameters
    ----------
    symbol : Symbol
        The network. It ends in loss layers, such as ``SoftmaxOutput``; for others, see `backward`.
    data_names : list of str, default ('data',)
        The inputs of the network that get the arrays of ``batch.data``, in the order of these.
    label_names : list of str or None, default ('softmax_label',)
        The inputs that get the arrays of ``batch.label``. None, or an empty list, if the network takes no labels.
    logger : logging.Logger, optional
        Where training says what it does. By default the root logger, which shows nothing below warnings until
        ``logging.basicConfig(level=logging.INFO)``.
    context : Context or list of Context, default mx.cpu()
        The device. Several devices share the rows of each batch.
    work_load_list : list of float, optional
        For each device, how many rows it gets in proportion to the others. By default all get as many.
    fixed_param_names : list of str, optional
        The parameters that stay as they are initialized. By default none.
    state_names : list of str, optional
        The inputs that neither data nor labels fill, but `set_states`; 0 at first. By default none.
    group2ctxs : dict of str to Context, optional
        For a network that is itself spread over devices: the device of each ``ctx_group``. With several contexts a list
        of such, one for each; or lists instead of a Context.
    compression_params : None
        Gradient compression can't be used; this is here because Module has it.
    update_freq : int, default 2
        Number of epochs between two snapshots, at least 1. 2 is Johnson & Zhang's choice for convex problems (they take
        5 for nets).
    overlap : bool, optional
        Whether the gradient at the snapshot is computed at the same time as that at the current weights, on further cpu
        ids. By default, if cores are idle: twice the OpenMP threads fit on those that the process, or its container,
        may use, and the network isn't small.
    save_memory : bool, default False
        Whether the snapshot is computed in the memory that the current weights' pass has left behind.
    next_states : dict of str to str, optional
        For each of `state_names`, the output that becomes this state in the next batch, if batches hand on their
        states.
    snapshots : Schedule, optional
        When the snapshot moves, and where, instead of `update_freq`: a schedule of `svrg_optimization.schedules`, such
        as ``EverySteps(500)``.
    coefficient : float, callable or Coefficient, default 1
        How much of the control variate is subtracted, :math:`\alpha`: a number, a function of the `schedules.Clock`,
        one of MXNet's learning rate schedules, or what `svrg_optimization.coefficients` has, such as ``Linear(0.75,
        epochs=24)``. 1 is SVRG; 0 is Module, to the bit, and computes nothing at the snapshot.

    sparse : {'lazy', 'reweighted', 'dense'}, optional
        What a step does to rows of a weight that its batch doesn't touch, if the gradient is `row_sparse`. 'lazy': what
        a dense step does, later. 'reweighted': nothing; a step that touches a row adds more of the full gradient.
        'dense': all rows take part in each step. By default 'lazy' with plain SGD, otherwise 'reweighted' for
        `row_sparse` weights, and 'dense' for dense ones or where neither can be had.

    Raises
    ------
    TypeError
        `update_freq` is no integer, `snapshots` no schedule, or `coefficient` none of these.
    ValueError
        `update_freq` is below 1, or given beside `snapshots`; `coefficient` is below 0; there is no such `sparse`;
        `compression_params` is given;
        `next_states` doesn't fit the network; or the symbol has a parameter ``x_full`` beside ``x``.

    References
    ----------
    R. Johnson and T. Zhang, "Accelerating stochastic gradient descent using predictive variance reduction", NIPS
    2013, figure 1.

    Examples
    --------
    >>> import mxnet as mx
    >>> data, label = mx.nd.array([[1.0], [2.0], [3.0]]), mx.nd.array([2.0, 4.0, 6.0])
    >>> output = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=1, no_bias=True, name='fc')
    >>> output = mx.sym.LinearRegressionOutput(output, mx.sym.Variable('label'))
    >>> module = SVRGModule(output, label_names=['label'], update_freq=2)
    >>> train = mx.io.NDArrayIter(data, label, batch_size=1, label_name='label')
    >>> module.fit(train, eval_metric='mse', num_epoch=40, optimizer_params={'learning_rate': 0.1})
    >>> module.get_params()[0]['fc_weight'].asnumpy().round(5).tolist()
    [[2.0]]
    """

    def __init__(
        self, symbol: mx.symbol.Symbol, data_names: Optional[Sequence[str]] = ("data",),
        label_names: Optional[Sequence[str]] = ("softmax_label",), logger: Any = logging,
        context: Union[mx.Context, List[mx.Context]] = mx.cpu(), work_load_list: Optional[Sequence[float]] = None,
        fixed_param_names: Optional[Sequence[str]] = None, state_names: Optional[Sequence[str]] = None,
        group2ctxs: Any = None, compression_params: Optional[Mapping[str, Any]] = None, update_freq: int = 2, *,
        overlap: Optional[bool] = None, save_memory: bool = False, next_states: Optional[Mapping[str, str]] = None,
        snapshots: Optional[Schedule] = None, coefficient: Any = 1.0, sparse: Optional[str] = None,
    ) -> None:  # fmt: skip
        checks.compression(compression_params)
        checks.work_load(work_load_list, context)
        checks.overlap(overlap, save_memory)
        if logger is logging:
            # Its functions install a handler, after which the user's logging.basicConfig() does nothing.
            logger = logging.getLogger()
        checks.update_freq(update_freq)
        self._follow(schedules.of_arguments(update_freq, snapshots))
        self._coefficient: Coefficient = coefficients.of_argument(coefficient)
        arguments = (symbol, data_names, label_names, logger, context, work_load_list, fixed_param_names,
                     state_names, group2ctxs)  # fmt: skip
        super().__init__(*arguments)
        check_parameter_names(internals.parameter_names(self))
        # The snapshot: the same network, with weights of its own.
        self._mod_aux = SnapshotModule(*arguments)
        self._ways = overlap, save_memory
        # How rows are updated that a batch doesn't touch: as the user wants it, and as it is done.
        self._sparse, self._sparse_mode = sparse_steps.check_argument(sparse), "dense"
        self._make_parts(next_states)

    def _make_parts(self, next_states: Optional[Mapping[str, str]]) -> None:
        self._snapshot = Snapshot(len(internals.contexts(self)))
        self._clock = Clock()
        # The coefficient of the step that `forward` has begun.
        self._alpha: Alpha = 1.0
        self._correction = Correction(Estimator())
        self._fixed_gammas = networks.fixed_gammas(self.symbol)
        self._network_draws = draws_random_numbers(self.symbol)
        self._draws = DrawStream(self._network_draws)
        self._optimizer_draws = False
        self._next_states = next_states
        self._states = States(internals.state_names(self), self.output_names, next_states)
        self._workers: workers.Workers = workers.Alone()
        # What chooses the optimizer's steps, if that isn't the user.
        self._steps: Optional[StepControl] = None
        # Made in bind(): how gradients are computed, and what a batch's gradient is.
        self._way: Serial
        self._larger: LargerBatches
        self._gradient = BatchGradient(self.symbol)
        # The rows of a full batch on each device: as bound, whatever batch was the last one.
        self._full_batch_rows: List[int] = []
        self._has_gradients_of_rows = False
        # The `row_sparse` weights that are in dense arrays.
        self._held_dense: List[str] = []
        # What the last forward() left for backward(): the batch, whether the snapshot has seen it, and how many full
        # passes had begun.
        self._batch: Any = None
        self._corrected = False
        # Whether the gradients that the last backward() left are corrected.
        self._has_corrected = False
        self._passes = 0
        self._monitored = False
        self._variance_monitor: Optional[VarianceMonitor] = None
        # For a warning if nobody takes a snapshot.
        self._updates_without_snapshot = 0
        self._warm_start = False
        # While `fit` runs: its iterator, and what it does besides training.
        self._epochs_of_fit: Optional[data.Epochs] = None
        self._run: Optional[FitRun] = None
        self._progress = Progress(self.logger)
        # Made when the optimizer is installed: how far it has come since.
        self._position: position.Position
        # A checkpoint that is still to be restored.
        self._restoring: Optional[files.Checkpoint] = None
        self._notices = Notices(self.logger)
        if not (self._gradient.is_sum or self._gradient.is_mean):
            self._notices.say(notices.MIXED_NORMALIZATION)
        if draws_by_itself(self.symbol):
            self._notices.say(notices.CUSTOM_OPERATOR)

    @property
    def update_freq(self) -> int:
        """Number of epochs between two snapshots. AttributeError if `snapshots` says so in another way."""
        if not isinstance(self._schedule, EveryEpochs):
            raise AttributeError("update_freq: the module has snapshots={}; ask snapshot_is_due()".format(
                self._schedule))  # fmt: skip
        return self._schedule.k

    @update_freq.setter
    def update_freq(self, value: int) -> None:
        self._follow(EveryEpochs(checks.update_freq(value)))

    def _follow(self, schedule: Schedule) -> None:
        self._schedule, self._iterates = schedule, iterates.of(schedule.at, schedule.seed)

    @property
    def _is_plain(self) -> bool:
        """Whether this is a Module that never needs a snapshot."""
        return isinstance(self._coefficient, Constant) and self._coefficient.value == 0

    def snapshot_is_due(self, epoch: Optional[int] = None) -> bool:
        """Ask, in a training loop of your own, whether a snapshot is to be taken now, before the coming step.

        Ask at the start of each epoch, with its number, and after each `update`; then call `update_full_grads`.

        Parameters
        ----------
        epoch : int, optional
            The number of the epoch that begins now. None in the middle of one.

        Returns
        -------
        bool
            What the schedule says; False during its warm start, and always with ``coefficient=0``.

        Examples
        --------
        >>> import mxnet as mx
        >>> from svrg_optimization.schedules import EverySteps
        >>> scores = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=1)
        >>> network = mx.sym.LinearRegressionOutput(scores, mx.sym.Variable('label'))
        >>> module = SVRGModule(network, label_names=['label'], snapshots=EverySteps(50))
        >>> module.snapshot_is_due(epoch=0)
        True
        """
        if epoch is not None:
            self._clock.begin_epoch(int(epoch))
        elif self._snapshot.taken and self._clock.last_step == self._clock.steps:
            # It has been taken.
            return False
        return not self._is_plain and self._next_snapshot_is_due()

    def _next_snapshot_is_due(self) -> bool:
        if self._is_warm_start:
            return False
        # Plain steps of a warm start have made an older snapshot worthless.
        is_first = not self._snapshot.taken or (self._schedule.warm_start > 0 and self._clock.last_step is None)
        return is_first or self._schedule.due(self._clock)

    def _plan_in_numbers(self) -> Dict[str, int]:
        """When snapshots are taken and how gradients are corrected, for other workers to compare."""
        schedule, coefficient = self._schedule.settings(), self._coefficient.settings()
        update_freq = schedules.update_freq_of(schedule)
        of_schedule = {"snapshots=": as_number(sorted(schedule.items()))}
        return {
            **(of_schedule if update_freq is None else {"update_freq": update_freq}),
            "coefficient": 1 if coefficient == Constant(1).settings() else as_number(sorted(coefficient.items())),
        }

    @property
    def full_gradient(self) -> Optional[Arrays]:
        r"""The full gradient at the snapshot, by parameter; None before the first snapshot.

        .. math:: \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_i(\tilde w)

        The mean per sample, of the loss without weight decay, before ``rescale_grad``; on the first device. Parameters
        without a gradient are not there. The arrays are copies.
        """
        if not self._snapshot.taken:
            return None
        return {name: array.copy() for name, array in self._snapshot.full_gradient[0].items()}

    @property
    def history(self) -> List[Record]:
        """What was measured at each snapshot so far: a list of `history.Record`. A checkpoint keeps it."""
        return self._progress.records

    @property
    def converged(self) -> bool:
        """Whether the last `fit` stopped because the objective's gradient was small enough, see its `tol`."""
        return self._progress.converged

    def add_writer(self, writer: Any) -> None:
        """Write each record of the history to a TensorBoard writer, too.

        Parameters
        ----------
        writer : object with the method ``add_scalar(name, value, step)``
            The names are ``svrg/norm``, ``svrg/gradient_norm``, ...; the step is the record's `num_update`.

        Raises
        ------
        TypeError
            The object has no such method.
        """
        if not callable(getattr(writer, "add_scalar", None)):
            raise TypeError("writer={!r} must have the method add_scalar(name, value, step), as a TensorBoard "
                            "SummaryWriter has".format(writer))  # fmt: skip
        self._progress.writers.append(writer)

    @property
    def _param_dict(self) -> OnDevices:
        """For each device, by parameter, what it adds to its gradient of a full batch: b_k mu."""
        rows = self._gradient.rows_in_step(self._full_batch_rows) or [1] * len(internals.contexts(self))
        return full_gradient.times_rows(self._snapshot.full_gradient, rows)

    # ------------------------------------------------------------------------------------------------- set-up

    @internals.without_notes_on_kernels()
    def bind(
        self, data_shapes: Sequence[Any], label_shapes: Optional[Sequence[Any]] = None, for_training: bool = True,
        inputs_need_grad: bool = False, force_rebind: bool = False, shared_module: Optional[Module] = None,
        grad_req: Any = "write",
    ) -> None:  # fmt: skip
        """Allocate the network and, for training, its snapshot.

        Parameters
        ----------
        data_shapes : list of DataDesc, or of (name, shape)
            For each of `data_names`, its shape, batch size first: an iterator's ``provide_data``.
        label_shapes : list of DataDesc, or of (name, shape), optional
            For each of `label_names`: an iterator's ``provide_label``. By default there are no labels.
        for_training : bool, default True
            Whether gradients will be computed. Without, there is no snapshot, and no memory for one.
        inputs_need_grad : bool, default False
            Whether gradients with respect to the data are computed too, for `get_input_grads`.
        force_rebind : bool, default False
            Whether a module that is bound is bound anew, for other shapes for instance. Otherwise the call does nothing
            but log a warning. Weights and snapshot survive.
        shared_module : Module, optional
            A bound module whose weights this one shares; if it is an SVRGModule of the same parameters, its snapshot
            too.
        grad_req : str, list of str or dict of str to str, default 'write'
            'write', or 'null' for no gradient: for all, for each argument of the symbol, or by name.

        Raises
        ------
        TypeError
            `shared_module` is no Module.
        ValueError
            `grad_req` is 'add' for a parameter or can't be understood, or gradients of the inputs are asked for without
            training.
        RuntimeError
            `shared_module` isn't bound or has no weights yet.
        """
        checks.grad_req(grad_req, internals.parameter_names(self), self.symbol.list_arguments())
        if inputs_need_grad and not for_training:
            raise ValueError("inputs_need_grad=True needs for_training=True: inference computes no gradients")
        if shared_module is not None:
            checks.shared_module(shared_module)
            if isinstance(shared_module, SVRGModule) and shared_module._held_dense:
                shared_module._hold_small_weights(is_dense=False)
        binding = force_rebind or not self.binded
        if binding:
            internals.return_free_memory()
        super().bind(data_shapes, label_shapes, for_training, inputs_need_grad, force_rebind, shared_module, grad_req)
        if binding and for_training:
            self._full_batch_rows = internals.rows_on_devices(self)
            self._has_gradients_of_rows = internals.has_gradients_of_rows(self)
            self._gradient = BatchGradient(self.symbol, *shapes.of_inputs(self))
            try:
                self._bind_snapshot(self._sharer(shared_module), grad_req)
            except BaseException:
                self._reset_bind()
                raise

    def _sharer(self, module: Optional[Module]) -> "Optional[SVRGModule]":
        """The module that the snapshot is to be shared with, if it can be."""
        parameters = set(internals.parameter_names(self))
        if (
            isinstance(module, SVRGModule)
            and module._mod_aux.binded
            and parameters == set(internals.parameter_names(module))
        ):
            return module
        return None

    def _bind_snapshot(self, sharer: "Optional[SVRGModule]", grad_req: Any) -> None:
        if sharer is not None:
            # It doesn't have its weights to itself any more.
            sharer._take_dense_steps()
        if sharer is None:
            way = ways.choose(self, *self._ways)
            placed = way.contexts(internals.contexts(self))
        else:
            if not sharer._mod_aux.params_initialized:
                sharer._mod_aux.set_params(*sharer.get_params())
            self._share_training(sharer)
            way = ways.for_sharer_of(sharer._way, self)
            placed = internals.contexts(sharer._mod_aux)
        internals.place(self._mod_aux, placed)
        self._mod_aux.in_own_thread = way.in_own_thread
        self._mod_aux.bind(
            self.data_shapes, self.label_shapes, force_rebind=True,
            shared_module=None if sharer is None else sharer._mod_aux, grad_req=self._grad_req_of_snapshot(grad_req),
        )  # fmt: skip
        self._way = way(self._mod_aux, self._draws, self._states)
        self._larger = LargerBatches(self._way)
        if sharer is None:
            self._way.bound(self)
        if sharer is not None:
            # Its weights and snapshot are those of the other module.
            self._restoring = None
        if self._restoring is not None and self._restoring.sections is not None:
            module_state.restore_snapshot(self, self._restoring.sections)
        self._snapshot.convert(internals.gradients(self))
        if self.optimizer_initialized and sharer is None:
            self._choose_sparse_steps()
            self._count_before_reweighting()

    def _share_training(self, sharer: "SVRGModule") -> None:
        """Have one snapshot with another module, and count its steps together; settings of the same value are one."""
        self._snapshot, self._clock = sharer._snapshot, sharer._clock
        self._draws.follow(sharer._draws)
        if self._schedule.settings() == sharer._schedule.settings():
            self._schedule, self._iterates = sharer._schedule, sharer._iterates
        if self._coefficient.settings() == sharer._coefficient.settings():
            self._coefficient = sharer._coefficient

    def _grad_req_of_snapshot(self, grad_req: Any) -> Any:
        if not isinstance(grad_req, (str, dict)):
            grad_req = dict(zip(self.symbol.list_arguments(), grad_req))
        if isinstance(grad_req, dict):
            # Nobody needs the snapshot's input gradients.
            parameters = internals.parameter_names(self)
            grad_req = {name: grad_req[name] if name in parameters else "null" for name in grad_req}
        return grad_req

    def __del__(self) -> None:
        # What Python leaves to its very end, mxnet has waited for. A constructor that raised has left no attributes.
        if not sys.is_finalizing() and self.__dict__.get("binded"):
            internals.wait_to_free(self)

    def _reset_bind(self) -> None:
        # Module.bind calls this to free what is bound.
        self._hand_rows_back()
        if self.binded and self.params_initialized:
            # Module takes its own copy of the weights, which may be older than its devices'.
            super().get_params()
        super()._reset_bind()
        self._held_dense = []
        internals.unbind(self._mod_aux)
        # These hold on to what was bound.
        for name in ("_way", "_larger"):
            self.__dict__.pop(name, None)
        self._correction.forget()
        if self._steps is not None:
            self._steps.forget()
        for each in (getattr(internals.optimizer(self), "prepared", None), internals.updater(self)):
            if isinstance(each, (PreparedSGD, Updater)):
                each.forget()
        self._batch, self._corrected, self._has_corrected = None, False, False

    def _sync_params_from_devices(self) -> None:
        # Module calls this to update its own copy of the weights, with the mean over the devices. Usually they all
        # hold the same weights, but the mean of three or more equal numbers is rounded: a checkpoint would not be
        # what training goes on with.
        internals.wait_for_auxiliary_states(self)
        self._show_rows()
        super()._sync_params_from_devices()
        if "_way" in self.__dict__:
            self._way.copy_weights_to(internals.own_weights(self))
        if len(internals.contexts(self)) > 2:
            internals.take_weights_that_all_devices_hold(self)

    def init_params(
        self, initializer: Any = mx.init.Uniform(0.01), arg_params: Optional[Arrays] = None,
        aux_params: Optional[Arrays] = None, allow_missing: bool = False, force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:  # fmt: skip
        """Initialize the weights; a snapshot stays. Does nothing, but for a warning, if there are weights already.

        Parameters
        ----------
        initializer : Initializer or None, default mx.init.Uniform(0.01)
            Fills the weights that `arg_params` and `aux_params` don't have.
        arg_params : dict of str to NDArray, optional
            The weights, by name; those of a checkpoint, for instance.
        aux_params : dict of str to NDArray, optional
            The auxiliary states, by name: the moving statistics of BatchNorm, for instance.
        allow_missing : bool, default False
            Whether `arg_params`, if given, may lack weights.
        force_init : bool, default False
            Whether weights that there are already are replaced.
        allow_extra : bool, default False
            Whether `arg_params` may have names that the network doesn't know.

        Raises
        ------
        RuntimeError
            The module isn't bound, or `arg_params` lacks a weight.
        ValueError
            `arg_params` or `aux_params` has a name that the network doesn't know.
        """
        if not self.binded and (force_init or not self.params_initialized):
            raise RuntimeError(
                "init_params() or set_params() was called too early: call bind(data_shapes, label_shapes) first"
            )
        is_set = (force_init or not self.params_initialized) and not (
            internals.is_own_copy(self, arg_params)
            and (self._steps is None or internals.devices_have(self, arg_params))
        )
        self._leave_rows()
        super().init_params(initializer, arg_params, aux_params, allow_missing, force_init, allow_extra)
        if is_set:
            self._note_new_weights()

    def set_params(
        self, arg_params: Arrays, aux_params: Arrays, allow_missing: bool = False, force_init: bool = True,
        allow_extra: bool = False,
    ) -> None:  # fmt: skip
        """Set the weights; a snapshot stays.

        Parameters
        ----------
        arg_params : dict of str to NDArray
            The weights, by name.
        aux_params : dict of str to NDArray
            The auxiliary states, by name: the moving statistics of BatchNorm, for instance.
        allow_missing : bool, default False
            Whether names may be missing, whose values then stay.
        force_init : bool, default True
            Whether weights that there are already are replaced; otherwise the call does nothing but warn.
        allow_extra : bool, default False
            Whether there may be names that the network doesn't know.

        Raises
        ------
        RuntimeError
            The module isn't bound, or a weight is missing.
        ValueError
            There is a name that the network doesn't know.
        """
        self._leave_rows()
        super().set_params(arg_params, aux_params, allow_missing, force_init, allow_extra)
        if allow_missing:
            self._note_new_weights()

    def _note_new_weights(self) -> None:
        # What comes has nothing to do with the iterates of before.
        self._iterates.begin_period()
        if self._steps is not None:
            self._steps.note_move()

    def get_params(self) -> Tuple[Arrays, Arrays]:
        """Copy the weights and auxiliary states to the cpu.

        Returns
        -------
        arg_params : dict of str to NDArray
            The weights, by name; of devices that hold different ones, the mean.
        aux_params : dict of str to NDArray
            The auxiliary states, by name: the moving statistics of BatchNorm, for instance.

        Raises
        ------
        RuntimeError
            The module has no weights.
        """
        # Whoever trains this module asks for the weights after an epoch.
        self._notice_plain_training(least=1)
        return super().get_params()

    def init_optimizer(
        self, kvstore: Any = "local", optimizer: Union[str, mx.optimizer.Optimizer] = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),), force_init: bool = False,
    ) -> None:  # fmt: skip
        """Install the optimizer, inside an ``_SVRGOptimizer``, and the KVStore keys of the full gradients.

        Parameters
        ----------
        kvstore : str, KVStore or None, default 'local'
            What adds up the gradients of several devices. For one machine 'local' or 'device'; in a process of a
            distributed job, 'dist_sync' or 'dist_device_sync', with which all workers begin at the weights of the first
            one. With None nothing adds up.
        optimizer : str or Optimizer, default 'sgd'
            The name of one that is registered with MXNet, or an instance, which keeps its own settings.
        optimizer_params : dict, default (('learning_rate', 0.01),)
            What the constructor of the optimizer gets, if it is given by name: `learning_rate`, `wd` (weight decay),
            `momentum`, `lr_scheduler`, ... ``{'learning_rate': 'auto'}`` is short for ``lr_scheduler=AutoStep()``, see
            `step_sizes.AutoStep`. Unless it is given, `rescale_grad` is 1 / batch size.
        force_init : bool, default False
            Whether an optimizer that there is already is replaced; otherwise the call does nothing but log a warning.

        Raises
        ------
        ValueError
            No such store or optimizer, or the store compresses gradients; or the optimizer's step can't be chosen.
        TypeError
            `kvstore` or `optimizer` is of the wrong type.
        RuntimeError
            The module isn't bound or has no weights; the workers of a job have different settings, networks or
            optimizers; a parameter server doesn't run the optimizer that it was sent; or the store has been used
            before.
        """
        if self.optimizer_initialized and not force_init:
            super().init_optimizer()  # Module says that it ignores the call.
            return
        checks.kvstore(kvstore)
        checks.optimizer(optimizer)
        self._leave_rows()
        internals.wait_for_kvstore(self)
        chosen_steps.refuse_for_instance(optimizer, optimizer_params)
        settings = chosen_steps.with_schedule(
            {"default_optimizer": optimizer, **(dict(optimizer_params) if isinstance(optimizer, str) else {})}
        )
        chosen_steps.check_with(optimizer, settings, self._schedule, self._coefficient)
        checks.iterates(self._schedule.at, len(internals.contexts(self)), kvstore)
        for array in internals.own_weights(self).values():
            # mxnet's servers end when they get a weight without rows.
            memory.complete(array)
        self._workers = workers.join(kvstore, self._job(), settings)
        settings.update(self._workers.optimizer_settings)
        before = internals.updater_of_store(self._workers.store)
        super().init_optimizer(self._workers.store, REGISTERED_NAME, settings, force_init)
        internals.optimizer(self).know_keys_of(getattr(before, "optimizer", None))
        self._workers.start(internals.kvstore(self), internals.parameter_arrays(self), self._users_optimizer())
        if self._workers.has_others:
            internals.take_weights_of_devices(self)
        self._choose_steps_by(
            chosen_steps.control(self, self._users_optimizer(), settings, self._objective, self._workers)
        )
        if self._schedule.at != "last":
            self._workers.check_settable()
            checks.weights_can_be_set(self._schedule.at, self._users_optimizer())
        # Before states are made.
        self._workers.pass_on_settings()
        internals.optimizer(self).prepared = PreparedSGD()
        internals.update_by(self, Updater(internals.optimizer(self)))
        self._optimizer_is_installed()

    def _job(self) -> workers.Job:
        return workers.Job(
            [(name, arrays[0].shape, arrays[0].dtype.__name__) for name, arrays in internals.parameter_arrays(self)],
            sum(internals.rows_on_devices(self)), self._plan_in_numbers(), partial(internals.updates_on_kvstore, self),
            self.logger, self._restoring is not None,
        )  # fmt: skip

    def _optimizer_is_installed(self) -> None:
        users_optimizer = self._users_optimizer()
        self._position = position.Position(users_optimizer)
        # Its noise is drawn anew at each update: by the stream too, so that a resumed run draws the same.
        self._optimizer_draws = isinstance(users_optimizer, mx.optimizer.SGLD)
        if self._optimizer_draws:
            self._draws.activate()
        if "_way" in self.__dict__:
            # It has been made with them.
            self._way.store_has_weights()
        if self._held_dense:
            # Another optimizer may take other steps.
            self._hold_small_weights(is_dense=False)
        self._choose_sparse_steps()
        if self._restoring is not None:
            try:
                module_state.restore_optimizer(self, self._restoring)
            except BaseException:
                # Whoever tries again gets the optimizer that they ask for, and the checkpoint.
                self.optimizer_initialized = False
                raise
            self._restoring = None
        self._count_before_reweighting()

    def borrow_optimizer(self, shared_module: Module) -> None:
        """Use the optimizer and KVStore of another module.

        Parameters
        ----------
        shared_module : Module
            The module that has them, of the same parameters.

        Raises
        ------
        RuntimeError
            `shared_module` has no optimizer yet, or is a plain Module with a distributed store, which has no keys for
            the full gradient.
        """
        if not shared_module.optimizer_initialized:
            raise RuntimeError("borrow_optimizer() was called too early: call shared_module.init_optimizer() first")
        self._restoring = None
        self._take_dense_steps()
        self._workers = workers.join_by(shared_module)
        self._choose_steps_by(getattr(shared_module, "_steps", None))
        super().borrow_optimizer(shared_module)
        self._position = getattr(shared_module, "_position", None) or position.Position(self._users_optimizer())
        # Another module may update the same states.
        if isinstance(shared_module, SVRGModule):
            shared_module._take_dense_steps()

    # ------------------------------------------------------------------------------- weights of which rows are touched

    def _choose_sparse_steps(self) -> None:
        """Decide, for this optimizer and store, how rows are updated that a batch doesn't touch."""
        if not self._has_gradients_of_rows:
            if self._sparse is not None:
                sparse_steps.choose(self._sparse, lambda mode: sparse_steps.NO_ROWS, are_sparse=False)
            return
        self._sparse_mode, reason = sparse_steps.choose(self._sparse, self._obstacle_to, self._has_sparse_weights())
        if reason or self._sparse_mode != "dense":
            why = ": " + reason if reason else ""
            self.logger.info("Steps are %s%s", sparse_steps.DESCRIPTIONS[self._sparse_mode], why)
        self._begin_sparse_steps()

    def _begin_sparse_steps(self) -> None:
        if not isinstance(self._way, TouchedRows):
            return
        is_small = self._sparse_mode == "lazy" and sparse_steps.are_small(self, self._way.groups)
        if is_small:
            # Dense steps are the same, and take less time.
            self._hold_small_weights(is_dense=True)
        counted = self._way.state()
        replicas = sparse_steps.replicas_of(self._sparse_mode, self, self._way, self._updater_of_rows())
        self._way.begin(replicas, self._gradient.rows_in_step, self._workers.shared_rows(), in_steps=not is_small)
        self._way.restore(counted)

    def _hold_small_weights(self, is_dense: bool) -> None:
        """Hold `row_sparse` weights in dense arrays, for dense steps; or as they are declared."""
        if is_dense and not self._held_dense and isinstance(self._way, TouchedRows):
            named = {name for group in self._way.groups for name in group.parameters}
            self._held_dense = [
                name for name, arrays in internals.parameter_arrays(self)
                if name in named and arrays[0].stype != "default"
            ]  # fmt: skip
        for module in (self, self._mod_aux):
            internals.hold(module, self._held_dense, is_dense)
        if not is_dense:
            self._held_dense = []

    def _count_before_reweighting(self) -> None:
        """Let steps be dense until a full pass has counted how often batches touch rows, if they have to know."""
        if self._snapshot.taken and isinstance(self._way, TouchedRows) and self._way.lacks_counts:
            self._way.begin([], self._gradient.rows_in_step)

    def _has_sparse_weights(self) -> bool:
        trained = {name for name, arrays in internals.gradients(self) if arrays[0].stype != "default"}
        return all(arrays[0].stype != "default" for name, arrays in internals.parameter_arrays(self) if name in trained)

    def _obstacle_to(self, mode: str) -> Optional[str]:
        """Why lazy or reweighted steps can't be had; None if they can."""
        if not isinstance(self._way, TouchedRows) or not self._way.groups:
            return "it isn't known which rows of the weights a batch of this network touches"
        if self._workers.has_others and self._workers.shared_rows() is None:
            return "the workers of a Horovod job can't tell each other which rows they touch"
        if (
            not self._workers.has_others
            and internals.kvstore(self) is not None
            and not internals.updates_in_store(self)
        ):
            return "the KVStore adds up gradients, and updates nothing"
        if self._steps is not None and len(internals.contexts(self)) > 1 and internals.kvstore(self) is None:
            return "the steps are chosen from the sum of gradients, and devices without a KVStore touch different rows"
        if self._schedule.at != "last":
            return "snapshots={} looks at all weights in each step".format(self._schedule)
        if mode == "reweighted" and isinstance(self._schedule, Growing):
            return "snapshots={} doesn't see how often all batches touch a row".format(self._schedule)
        if self._coefficient.learns:
            return "coefficient={!r} looks at all gradients".format(self._coefficient)
        if internals.shares_weights(self):
            return "another module has been bound to the same weights, as its shared_module"
        if self._monitored:
            return "a Monitor looks at the whole network"
        decays = internals.weight_decays(self, self._users_optimizer())
        return sparse_steps.obstacle_of_optimizer(mode, self._users_optimizer(), any(decays.values()))

    def _take_dense_steps(self) -> None:
        self._hand_rows_back()
        if "_way" in self.__dict__ and isinstance(self._way, TouchedRows):
            self._sparse_mode = "dense"
            self._way.begin([], self._gradient.rows_in_step)

    def _updater_of_rows(self) -> Any:
        """What has the optimizer's states of weights of which steps touch rows: in a job, this worker."""
        if self._workers.has_others and internals.updates_in_store(self):
            return Updater(internals.optimizer(self))
        return internals.updater_of_weights(self)

    def _give_rows_to_store(self) -> None:
        """Let a KVStore that updates weights have those of which steps touch rows. All workers do so."""
        if self._way.is_newer_than_store and internals.updates_in_store(self):
            names = self._way.names
            self._workers.set_weights(self._as_store_takes(
                {name: arrays for name, arrays in internals.parameter_arrays(self) if name in names}
            ), at_rest=False)  # fmt: skip
        self._way.store_has_weights()

    def _store_takes_rows(self, rather: bool) -> bool:
        """Whether the store takes `row_sparse` arrays for dense weights; as is rather wanted, if it takes both yet."""
        of_one_kind = len(internals.contexts(self)) > 1 and internals.updates_in_store(self)
        if self._workers.has_others or not of_one_kind or not internals.dense_weights_with_gradients_of_rows(self):
            return rather
        if self._workers.takes_rows is None:
            self._workers.takes_rows = rather
        return self._workers.takes_rows

    def _as_store_takes(self, weights: Dict[str, List[Any]]) -> Dict[str, List[Any]]:
        """Weights for the store."""
        dense = set(internals.dense_weights_with_gradients_of_rows(self)) & set(weights)
        if not dense or not self._store_takes_rows(rather=False):
            return weights
        return {**weights, **{name: list(map(memory.with_all_rows, weights[name])) for name in dense}}

    def _hand_rows_back(self) -> None:
        """Steps don't live on rows any more: let devices, and a KVStore that updates, have all weights."""
        self._leave_rows()
        if "_way" in self.__dict__:
            self._give_rows_to_store()

    def _update_all_rows(self) -> None:
        """Update as Module does, though gradients are `row_sparse`; where they are corrected, as with dense ones."""
        self._hand_rows_back()
        if internals.kvstore(self) is not None and not internals.updates_in_store(self):
            raise RuntimeError(
                "the gradient of {} is row_sparse, and the KVStore can't add it up: mxnet has a store do so only where "
                "the store updates the weights, too. Leave MXNET_UPDATE_ON_KVSTORE=0 out".format(
                    ", ".join(name for name, arrays in internals.gradients(self) if arrays[0].stype != "default")
                )
            )
        as_usual = not (self._has_corrected or self._workers.has_others)
        whole = self._way.whole_gradients(self) if self._has_corrected else {}
        as_rows = self._store_takes_rows(rather=as_usual)
        with contextlib.nullcontext() if as_usual and as_rows else internals.with_whole_gradients(self, whole, as_rows):
            super().update()
        if self._has_corrected or (self._snapshot.taken and not self._is_plain):
            # mxnet leaves to `prepare` what a KVStore has updated; but all rows have moved. Between steps that are
            # corrected, nobody has `prepare` do so for one that isn't.
            internals.pull_sparse_weights(self)

    def _show_rows(self) -> None:
        """Somebody will read the weights or the optimizer's states."""
        if "_way" in self.__dict__:
            self._way.show(self)

    def _leave_rows(self) -> None:
        """Somebody will write them."""
        if "_way" in self.__dict__:
            self._way.leave(self)

    def _training_objective(self) -> TrainingObjective:
        rows = self._gradient.rows_in_step(self._full_batch_rows) or [1]
        return TrainingObjective(self, self._users_optimizer(), self._fixed_gammas, rows, self._workers.number)

    def _objective(self) -> Objective:
        """What the optimizer minimizes."""
        return self._training_objective().for_steps()

    def _point(self) -> Optional[Point]:
        """The snapshot, if there is one."""
        return Point(self._mod_aux.get_params()[0], self._snapshot.full_gradient[0]) if self._snapshot.taken else None

    def _choose_steps_by(self, steps: Optional[StepControl]) -> None:
        self._steps, self._progress.rate_is_chosen = steps, steps is not None

    def _begin_period(self, steps: StepControl) -> None:
        steps.begin_period()
        if steps.rests:
            self._set_weights({}, {}, at_rest=True)

    def _begin_step(self, steps: StepControl) -> None:
        """Go to where the coming step is to begin, if that is somewhere else."""
        point = None if steps.has_begun else self._point()
        if point is not None:
            # The snapshot of a checkpoint, of before steps were chosen.
            steps.leave(self._objective(), None)
            steps.arrive(point)
            steps.begin_period()
        elif steps.is_broken:
            self._go_back(steps, None)
        elif steps.shift_is_due:
            self._show_rows()
            weights = {name: array for name, (array, _) in internals.weights_of_both(self, self._mod_aux).items()}
            self._set_weights(steps.take_shift(weights), {}, at_rest=False)

    def _go_back(self, steps: StepControl, epoch: Optional[int]) -> None:
        """Go back to the snapshot, from rest, with a shorter step."""
        steps.go_back()
        weights, auxiliary = self._mod_aux.get_params()
        self._set_weights(weights, auxiliary, at_rest=True)
        self.logger.info(
            "%s Training became worse: back at the last snapshot, now with learning_rate=%.3g",
            "Snapshot[{}]".format(self._snapshot.number) if epoch is None else "Epoch[{}]".format(epoch),
            internals.learning_rate(self._users_optimizer(), self._clock.steps),
        )  # fmt: skip

    def _set_weights(self, weights: Arrays, auxiliary: Arrays, at_rest: bool) -> None:
        """Go on with these weights, on devices and in the KVStore; `at_rest` without momentum. All workers do so."""
        self._leave_rows()
        if weights:
            super().set_params(weights, auxiliary, allow_missing=True, allow_extra=True)
        trained = {name for name, _ in internals.gradients(self)} if weights else set()
        if self._workers.has_others:
            # The workers have their weights themselves.
            trained = trained - set(self._way.names)
        on_devices = {name: arrays for name, arrays in internals.parameter_arrays(self) if name in trained}
        self._workers.set_weights(self._as_store_takes(on_devices), at_rest)
        updater = internals.updater_of_weights(self)
        if at_rest:
            self._way.rest()
        if at_rest and updater is not None:
            internals.rest(updater)

    def _users_optimizer(self) -> mx.optimizer.Optimizer:
        # Another module may have given a store that both use another optimizer.
        installed = getattr(internals.updater_of_weights(self), "optimizer", internals.optimizer(self))
        # One that is borrowed from a plain Module is not wrapped.
        return getattr(installed, "default_opt", installed)

    # ------------------------------------------------------------------------------------------- a single step

    def forward(self, data_batch: Any, is_train: Optional[bool] = None) -> None:
        """Compute the outputs; when training, at the snapshot too, with the same random draws.

        Parameters
        ----------
        data_batch : DataBatch, or list of DataBatch, one for each device
            Anything with the attributes `data` and `label`, lists of arrays of any number of rows. A padded batch is
            used whole, as Module does.
        is_train : bool, optional
            Whether layers like Dropout and BatchNorm behave as in training, and `backward` may follow. Default: as
            bound. With False the snapshot costs nothing.

        Raises
        ------
        ValueError
            The network can't take arrays of these shapes. The module is left as it was.
        RuntimeError
            The module isn't bound or has no weights; or its states aren't those of the full gradient.
        """
        as_bound = shapes.check(self, data_batch)
        self._batch, self._corrected, self._passes = data_batch, False, self._snapshot.passes
        batch = data_batch if as_bound else batches.for_module(self, data_batch)
        trains = self.for_training and (is_train is None or is_train)
        if not (trains and self._corrects()):
            if trains and self._numbers_plain_draws():
                self._draws.advance()
            self._show_rows()
            super().forward(batch, is_train)
            return
        if self._steps is not None:
            self._begin_step(self._steps)
        if self._way.names and internals.shares_weights(self):
            # A plain Module, perhaps, looks at them.
            self._take_dense_steps()
        self._states.check()
        self._draws.advance()
        self._way.forward(self, batch, as_bound)
        self._corrected = True

    def _backward_live(self, head_gradients: Any) -> None:
        if self._corrected:
            self._way.backward_live(self, head_gradients)
        else:
            self._way.drop_gradients()
            internals.backward(self, head_gradients)

    def _takes_rows(self) -> bool:
        """Whether the coming steps live on the rows of their batches."""
        return self._snapshot.taken and "_way" in self.__dict__ and bool(self._way.names)

    def _corrects(self) -> bool:
        """Whether the gradients of the coming step are corrected."""
        if not self._snapshot.taken or self._is_warm_start:
            return False
        self._alpha = self._coefficient.at(self._clock)
        # States that batches hand on go on at the snapshot, too, for the steps to come.
        return self._alpha != 0 or self._states.carried

    @property
    def _is_warm_start(self) -> bool:
        return self._clock.epoch < self._schedule.warm_start

    def _numbers_plain_draws(self) -> bool:
        """Whether random operators draw by number in plain steps too, so that a resumed run has the same draws."""
        # Without a schedule that has plain steps, they are those of a Module in every bit.
        return bool(self._schedule.warm_start or self._snapshot.taken) and not self._is_plain

    def backward(self, out_grads: OutGrads = None) -> None:
        """Compute the gradients, and turn them into variance-reduced gradients if there is a snapshot.

        Parameters
        ----------
        out_grads : NDArray, list of NDArray or callable, optional
            Gradient with respect to the outputs, for networks that don't end in a loss. Arrays are used at
            both weights, which is right only if they don't depend on the outputs. A callable gets
            ``(outputs, data_batch)``, at the current weights and again at the snapshot, and returns the list of
            arrays.

        Raises
        ------
        RuntimeError
            The module isn't bound for training or has no weights, or `update_full_grads` came between `forward` and
            `backward`.
        """
        if self._batch is not None and self._passes != self._snapshot.passes:
            raise RuntimeError("backward() after update_full_grads() needs a new forward(): the snapshot has moved")
        self._snapshot.gradients_pending, self._has_corrected = True, self._corrected
        self._backward_live(_heads(self, out_grads, self._batch))
        rows = self._way.rows_on_devices(self) if self._corrected else internals.rows_on_devices(self)
        self._clock.evaluated(sum(rows))
        if self._corrected:
            self._way.backward(self, lambda module: _heads(module, out_grads, self._batch))
            self._clock.evaluated(sum(rows))
            if self._steps is not None:
                self._steps.before_correction(self._way.gradients(self), partial(self._way.weights, self))
            mu, factors = self._snapshot.full_gradient, self._gradient.rows_in_step(rows)
            if self._variance_monitor is not None:
                self._variance_monitor.look(self._way.gradients_in_full(self), sum(factors))
            if self._coefficient.learns:
                self._coefficient.look(
                    self._way.gradients(self), mu[0], sum(factors), self._clock, self._workers.of_first
                )
            self._way.correct(self, self._correction, mu, factors, self._alpha)

    def update(self) -> None:
        """Let the user's optimizer update the weights by the gradients that `backward` left.

        Raises
        ------
        RuntimeError
            The optimizer isn't initialized, or has a learning rate that is chosen from snapshots, and there is none.
        """
        if self._is_warm_start:
            self._clock.forget_snapshots()
        if not self._snapshot.taken:
            if self._steps is not None:
                raise RuntimeError(
                    "update() was called too early: the learning rate is chosen from what snapshots show; call "
                    "update_full_grads() first"
                )
            if not (self._updates_without_snapshot or self._is_plain):
                self.logger.info(
                    "No snapshot yet: update() is that of a plain Module until update_full_grads() is called"
                )
            self._updates_without_snapshot += 1
            self._notice_plain_training(least=_MANY_UPDATES)
        if self._optimizer_draws and (self._snapshot.taken or self._numbers_plain_draws()):
            self._draws.advance()
        self._workers.pass_on_settings()
        keeps_iterates = self._iterates.keeps and self._snapshot.taken and not self._is_plain
        if keeps_iterates:
            self._iterates.before_step(self._trained_weights(), self._clock)
        if self._way.has_gradients:
            with internals.left_alone(self, self._way.names):
                super().update()
            self._way.update_rows()
        elif self._has_gradients_of_rows:
            self._update_all_rows()
        else:
            super().update()
        self._clock.step()
        if keeps_iterates:
            self._iterates.after_step(self._trained_weights(), self._clock)
        self._snapshot.gradients_pending = False

    def update_metric(self, eval_metric: mx.metric.EvalMetric, labels: Any, pre_sliced: bool = False) -> None:
        """Add the outputs of the last `forward` to a metric.

        Parameters
        ----------
        eval_metric : EvalMetric
            The metric.
        labels : list of NDArray
            The labels of the batch, ``batch.label``; with `pre_sliced`, a list of such, one for each device.
        pre_sliced : bool, default False
            Whether each device has labels of its own.

        Raises
        ------
        RuntimeError
            The module isn't bound or has no weights.
        """
        if self._corrected and self._way.names:
            # The module itself may be bound to batches of another size.
            with internals.with_rows(self, self._way.rows_on_devices(self)):
                super().update_metric(eval_metric, labels, pre_sliced)
        else:
            super().update_metric(eval_metric, labels, pre_sliced)

    def _trained_weights(self) -> List[Tuple[str, mx.nd.NDArray]]:
        """The weights that the optimizer moves, on the first device."""
        trained = {name for name, _ in internals.gradients(self)}
        return [(name, arrays[0]) for name, arrays in internals.parameter_arrays(self) if name in trained]

    def set_states(self, states: Any = None, value: Any = None) -> None:
        """Set the states, the inputs named by `state_names`; see `next_states` for states that batches hand on.

        Parameters
        ----------
        states : list of list of NDArray, optional
            For each state, its arrays on the devices: what `get_states` and `get_outputs` give with
            ``merge_multi_context=False``.
        value : float, optional
            The number that all states are set to, instead of arrays.

        Raises
        ------
        RuntimeError
            The module isn't bound or has no weights.
        """
        super().set_states(states, value)
        self._states.set(states, value)

    def install_monitor(self, mon: Any) -> None:
        """Install a monitor on the network of the current weights, which then takes no part in full passes.

        Parameters
        ----------
        mon : Monitor, VarianceMonitor or None
            MXNet's looks at outputs, weights and gradients; a `VarianceMonitor` at gradients only. None removes a
            `VarianceMonitor`.

        Raises
        ------
        ValueError
            The `VarianceMonitor` is that of another module.
        RuntimeError
            The module isn't bound.
        """
        if mon is None or isinstance(mon, VarianceMonitor):
            if mon is not None:
                mon.belong_to(self)
            self._variance_monitor = mon
            return
        super().install_monitor(mon)
        self._monitored = True
        if self.optimizer_initialized:
            self._hand_rows_back()
            self._choose_sparse_steps()
            self._count_before_reweighting()

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Prepare for the next batch; `fit`, `score` and `predict` call this.

        Parameters
        ----------
        data_batch : DataBatch
            The batch that is going to be given to `forward`.
        sparse_row_id_fn : callable, optional
            Gets the batch and returns, by name, the rows of each ``row_sparse`` parameter to be pulled from the
            KVStore. Steps that live on rows (see `sparse`) don't need it, and dense steps pull all rows themselves; a
            warm start, and ``coefficient=0``, need it as Module does.

        Raises
        ------
        RuntimeError
            The module isn't bound.
        """
        # Module.fit calls this. Whoever calls a plain Module's fit for this module asks for a warm start.
        self._warm_start = self._warm_start or self._epochs_of_fit is None
        if sparse_row_id_fn is not None and self._takes_rows():
            # All devices have all rows, when somebody looks.
            sparse_row_id_fn = None
        super().prepare(data_batch, sparse_row_id_fn)

    # --------------------------------------------------------------------------------------- the full gradient

    def update_full_grads(
        self, train_data: Any, *, batch_end_callback: Callbacks = None, epoch: Optional[int] = None,
        out_grads: OutGrads = None,
    ) -> None:  # fmt: skip
        r"""Take a snapshot of the weights, and compute the full gradient there over all data.

        .. math:: \tilde w = w, \qquad \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_i(\tilde w)

        Padded rows (``batch.pad``) don't count. The iterator is left at its start; in the middle of an epoch of `fit`,
        the iterator that `fit` trains on stays where it is, which only an NDArrayIter or a `CSRIter` can. So do these
        in a loop of your own whose schedule has snapshots in the middle of an epoch; of other data, give a second
        iterator there. Others are read to their end before they are reset: many lose their place otherwise. Rows that
        an NDArrayIter or a `CSRIter` discards, or keeps for the next epoch, are read all the same, unless the arrays
        of an NDArrayIter are sparse.

        Parameters
        ----------
        train_data : DataIter
            All samples, in batches of any size that the devices can split; or a list of batches, or of pairs
            (data, label), such as a gluon DataLoader gives.
        batch_end_callback : callable or list of callables, optional
            Called after each batch with a ``BatchEndParam``, whose `eval_metric` is None: Speedometer, ProgressBar.
        epoch : int, optional
            For the log and the callbacks.
        out_grads : callable, optional
            For networks that don't end in a loss: gets ``(outputs, data_batch)`` for each batch, and returns the
            gradient with respect to the outputs, as for `backward`.

        Raises
        ------
        TypeError
            `train_data` can't be iterated over, or `out_grads` isn't callable.
        ValueError
            `train_data` gives no samples, or arrays that don't fit the network or lack the labels.
        FloatingPointError
            The full gradient has NaN or Inf.
        MXNetError
            The network doesn't end in losses, and `out_grads` isn't given.
        RuntimeError
            The module isn't bound for training, or has no weights or no optimizer.

        Notes
        -----
        Whatever is raised, the snapshot and full gradient of before are kept. So they are if the optimizer's steps are
        chosen (`step_sizes`) and training has become worse: then the weights go back to that snapshot, and nothing is
        raised.
        """
        checks.train_data(train_data, out_grads)
        source = None if self._run is None else self._run.source
        if source is None or source.data is not train_data:
            source = Source(train_data, in_place=self._is_in_use(train_data))
        if isinstance(train_data, LockedBatches):
            if source.in_place:
                raise ValueError(
                    "train_data={!r} is locked until the epoch of fit() has ended: LockedBatches draw anew with each "
                    "snapshot; take snapshots at the start of an epoch".format(train_data)
                )
            # The steps that come are to have the draws of this full pass.
            train_data.redraw()
        epoch = None if epoch is None else int(epoch)
        if epoch not in (None, self._clock.epoch) and self._run is None:
            self._clock.begin_epoch(epoch)
        started = time.time()
        self._end_monitoring(None)
        if self._sparse_mode == "reweighted" and not self._way.names:
            self._begin_sparse_steps()
        same_data = self._snapshot.is_of is not None and self._snapshot.is_of(source.data)
        before = self._snapshot.samples if same_data else None
        part = self._part_of(source)
        with self._at_chosen_iterate():
            norms = self._move_snapshot(part, batch_end_callback, epoch, out_grads)
        if norms is None:
            return
        self._snapshot.is_of = data.Identity(source.data)
        self._clock.begin_period(self._steps_per_epoch(), self._period())
        if self._steps is not None:
            self._begin_period(self._steps)
        samples = self._snapshot.samples
        if before not in (None, samples):
            self._notices.say(notices.OTHER_SAMPLES, source.argument, samples, before)
        record = self._record(epoch, norms, started, part.is_whole)
        self.logger.info(
            "%s Full gradient: samples=%d%s time=%.3f norm=%.6g%s",
            "Epoch[{}]".format(epoch) if epoch is not None else "Snapshot[{}]".format(self._snapshot.number),
            samples, "" if part.is_whole else " of-which=%d" % part.rows_of_all, time.time() - started, record.norm,
            "" if record.gradient_norm == record.norm else " with-decay=%.6g" % record.gradient_norm,
        )  # fmt: skip

    def _is_in_use(self, train_data: Any) -> bool:
        """Whether an iterator must stay where it is, as an epoch over it is, or may be, under way."""
        if self._epochs_of_fit is not None:
            return self._epochs_of_fit.need(train_data)
        # In a loop of the user's own.
        if not self._schedule.within_epochs or self._clock.epoch_begins:
            return False
        if not data.can_stay(train_data) and hasattr(train_data, "reset"):
            self._notices.say(notices.IN_THE_MIDDLE, type(train_data).__name__)
        return data.can_stay(train_data)

    def _part_of(self, source: Source) -> Part:
        """What of the data the full gradient is to be the mean of."""
        if not isinstance(self._schedule, Growing):
            return Part(source)
        return growing_part(self._schedule, source, self._clock, self._workers)

    @contextlib.contextmanager
    def _at_chosen_iterate(self) -> Iterator[None]:
        """Go to the iterate of the period that is to become the snapshot; back, if the block raises."""
        if not self._iterates.count:
            yield
            return
        weights, chosen = self._trained_weights(), self._iterates.chosen()
        before, number = {name: array.copy() for name, array in weights}, self._snapshot.number
        # Of `row_sparse` weights mxnet's SGD wants all rows, those of zeros too.
        found = {
            name: chosen[name] if array.stype == "default" else memory.with_all_rows(chosen[name])
            for name, array in weights if name in chosen
        }  # fmt: skip
        self._set_weights(found, {}, at_rest=False)
        try:
            yield
        finally:
            if self._snapshot.number > number:
                self._iterates.begin_period()
            else:
                self._set_weights(before, {}, at_rest=False)

    def _move_snapshot(
        self, part: Part, callbacks: Callbacks, epoch: Optional[int], out_grads: OutGrads
    ) -> Optional[Dict[str, float]]:
        """Move the snapshot to the current weights; the norms of the full gradient there by parameter.

        None if training has become worse: then the weights are those of the last snapshot.
        """
        if not self._way.is_newer_than_store:
            # Of plain steps, the devices have the rows that `prepare` has pulled.
            internals.pull_sparse_weights(self)
        # A module that shares the weights may have changed them.
        internals.take_weights_of_devices(self)
        weights, norms = super().get_params(), {}
        self._look_whose_steps()
        if self._steps is not None:
            self._steps.leave(self._objective(), self._point())

        full_pass = self._full_pass(out_grads)

        def compute() -> Tuple[OnDevices, int]:
            nonlocal norms
            totals, own = full_pass.run(part.source, callbacks, epoch)
            self._clock.evaluated(own)
            samples = self._workers.samples(part.samples_of(own))
            if self._steps is not None and self._snapshot.samples not in (None, samples):
                self._steps.begin_anew()
            if self._sparse_mode == "reweighted" and self._workers.has_others:
                sparse_steps.share_counts(full_pass, self._way, totals, self._workers)
            mu = full_gradient.mean(totals, samples, self._workers.sum, part.weight)
            norms = _finite_norms(mu[0], epoch)
            if self._steps is not None:
                self._steps.arrive(Point(weights[0], mu[0]))
            return mu, samples

        try:
            self._snapshot.move(self._mod_aux, weights, compute, epoch)
        except (Worse, FloatingPointError):
            if self._steps is None or not self._steps.may_go_back:
                raise
            self._go_back(self._steps, epoch)
            return None
        self._way.arrive(full_pass)
        return norms

    def _look_whose_steps(self) -> None:
        if self._steps is not None and not self._steps.is_of(self._users_optimizer()):
            # The user has given the optimizer another schedule, or none.
            self._choose_steps_by(None)
            self.logger.warning("The optimizer has another learning rate schedule: its steps aren't chosen any more")

    def _steps_per_epoch(self) -> float:
        """How many steps an epoch has, by the number of samples; 1 if that isn't known."""
        # Evaluation may have left the network with batches of another size.
        rows = sum(self._full_batch_rows) * self._workers.number
        return math.ceil((self._snapshot.samples or rows) / rows)

    def _period(self) -> float:
        return self._schedule.period(self._steps_per_epoch())

    def _record(self, epoch: Optional[int], norms: Dict[str, float], started: float, is_whole: bool) -> Record:
        """Write down what the snapshot has shown, whose full gradient has these norms."""
        optimizer, steps = self._users_optimizer(), self._clock.steps
        gradient_norm, bound = self._training_objective().gradient(
            self._snapshot.full_gradient[0], norms, self._mod_aux.get_params()[0]
        )
        rate, momentum = internals.learning_rate(optimizer, steps), getattr(optimizer, "momentum", None)
        record = Record(
            epoch=epoch, num_update=steps, passes=0.0, samples=self._snapshot.samples, norm=full_gradient.norm(norms),
            gradient_norm=gradient_norm, bound=bound if is_whole else None,
            learning_rate=None if rate is None else float(rate),
            momentum=None if momentum is None else float(momentum),
        )  # fmt: skip
        self._progress.add(record, started, self._clock.evaluations * self._workers.number, is_whole)
        return record

    def _full_pass(self, out_grads: OutGrads) -> FullPass:
        heads = None if out_grads is None else lambda module, batch: _heads(module, out_grads, batch)
        kind = PassOverRows if self._way.passes_over_rows else FullPass
        return kind(self._network_of_pass(), heads, self._is_free(), self._notice_filling)

    def _network_of_pass(self) -> Network:
        draws = self._draws if self._network_draws else None
        return Network(self, self._way, self._larger, self._gradient, draws, self._states)

    def _is_free(self) -> bool:
        """Whether the network of the current weights may take part in a full pass."""
        # It must have the snapshot's weights, and nobody may miss its gradients or watch its outputs.
        needed = self._snapshot.gradients_pending or self._monitored or self.inputs_need_grad
        return internals.devices_agree(self) and internals.is_plain(self) and not needed

    def _notice_filling(self) -> None:
        if not self._gradient.rows_are_apart:
            unknown = unknown_operators(self.symbol, shapes.of_inputs(self)[0]) or ["this network"]
            self._notices.say(notices.FILLED_UP, ", ".join(unknown))

    def _notice_plain_training(self, least: int) -> None:
        updates = self._updates_without_snapshot
        wanted = self._warm_start or self._schedule.warm_start or self._is_plain
        if updates >= least and not (self._snapshot.taken or wanted):
            self._notices.say(notices.NO_SNAPSHOT, updates)

    # -------------------------------------------------------------------------------------------- the schedule

    def fit(
        self, train_data: Any, eval_data: Any = None, eval_metric: Any = "acc", epoch_end_callback: Any = None,
        batch_end_callback: Any = None, kvstore: Any = "local", optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),), eval_end_callback: Any = None,
        eval_batch_end_callback: Any = None, initializer: Any = mx.init.Uniform(0.01), arg_params: Any = None,
        aux_params: Any = None, allow_missing: bool = False, force_rebind: bool = False, force_init: bool = False,
        begin_epoch: int = 0, num_epoch: Optional[int] = None, validation_metric: Any = None, monitor: Any = None,
        sparse_row_id_fn: Any = None, *, full_grads_batch_end_callback: Callbacks = None, snapshot_data: Any = None,
        tol: Optional[float] = None,
    ) -> None:  # fmt: skip
        """Train, exactly as ``Module.fit``; every `update_freq` epochs an epoch starts with a snapshot.

        Binds the module, initializes the weights and installs the optimizer, each if that hasn't been done.

        Parameters
        ----------
        train_data : DataIter
            Gives the batches of an epoch, from its start.
        eval_data : DataIter, optional
            Other data, for which a metric is computed and logged after each epoch.
        eval_metric : str, EvalMetric, callable or list of these, default 'acc'
            What is computed from labels and outputs while training, and logged after each epoch: 'acc' is the part of
            rows whose largest output is that of their label; 'mse' the mean squared error; 'ce' the cross-entropy; and
            so on, as for ``mx.metric.create``.
        epoch_end_callback : callable or list of callables, optional
            Called after each epoch with ``(epoch, symbol, arg_params, aux_params)``, to save a checkpoint for instance:
            ``mx.callback.module_checkpoint(module, prefix, save_optimizer_states=True)``.
        batch_end_callback : callable or list of callables, optional
            Called after each batch with a ``BatchEndParam``, which has `epoch`, `nbatch`, `eval_metric` and `locals`:
            ``mx.callback.Speedometer(batch_size)``, for instance.
        kvstore : str, KVStore or None, default 'local'
            What adds up the gradients of several devices or workers, see `init_optimizer`.
        optimizer : str or Optimizer, default 'sgd'
            The name of an optimizer or an instance, see `init_optimizer`.
        optimizer_params : dict, default (('learning_rate', 0.01),)
            The settings of an optimizer that is given by name: ``{'learning_rate': 'auto', 'wd': 0.01}``, for instance;
            see `init_optimizer`.
        eval_end_callback : callable or list of callables, optional
            Called with a ``BatchEndParam`` after the metric of `eval_data` has been computed.
        eval_batch_end_callback : callable or list of callables, optional
            Called with a ``BatchEndParam`` after each batch of `eval_data`.
        initializer : Initializer, default mx.init.Uniform(0.01)
            Fills the weights that aren't there yet.
        arg_params : dict of str to NDArray, optional
            The weights to begin with, by name; those of a checkpoint, for instance. Not used if the module has weights,
            unless `force_init`.
        aux_params : dict of str to NDArray, optional
            The same for the auxiliary states, such as the moving statistics of BatchNorm.
        allow_missing : bool, default False
            Whether `arg_params`, if given, may lack weights, which the initializer then fills.
        force_rebind : bool, default False
            Whether a module that is bound is bound anew, to data of other shapes for instance.
        force_init : bool, default False
            Whether weights that there are already are initialized anew.
        begin_epoch : int, default 0
            The number of the first epoch; that of the checkpoint, if training goes on from one.
        num_epoch : int
            The epoch that isn't trained any more: ``num_epoch - begin_epoch`` are. It must be given.
        validation_metric : str, EvalMetric, callable or list of these, optional
            The metric of `eval_data`. By default `eval_metric`.
        monitor : Monitor or VarianceMonitor, optional
            What `install_monitor` gets, for this training.
        sparse_row_id_fn : callable, optional
            For ``row_sparse`` parameters in a KVStore, see `prepare`.
        full_grads_batch_end_callback : callable or list of callables, optional
            Called after each batch of a full pass, as `batch_end_callback` after each batch of an epoch.
        snapshot_data : DataIter, optional
            Another iterator over the same samples for the full passes, with larger batches for instance, if that is
            faster. By default `train_data`.
        tol : float, optional
            The tolerance: stop when the norm of the objective's gradient, mean loss and weight decay, is at most this
            part of what it was at the first snapshot. That is seen at each snapshot, at no cost. Then `converged` is
            True; otherwise there is a warning at the end. By default training ends with `num_epoch`.

        Raises
        ------
        ValueError
            `tol` isn't between 0 and 1, or `num_epoch` isn't given; `train_data` is `LockedBatches`, and
            `snapshot_data` isn't; and what `update_full_grads` and `init_optimizer` raise.
        RuntimeError
            The workers of a job are to train other epochs, or have taken different numbers of snapshots.

        Notes
        -----
        A snapshot is taken at the start of an epoch if there is none yet or ``epoch % update_freq == 0``, so
        that training can begin at any `begin_epoch`; and at the start of the first one, if the last snapshot was of
        other data: another iterator, or one with other arrays. After `load`, which knows the number of samples only, if
        their number is another.
        """
        if num_epoch is None:
            raise ValueError("num_epoch=None: say how many epochs to train, for instance num_epoch=10")
        self._progress.begin(tol)
        if snapshot_data is not None:
            checks.train_data(snapshot_data, None, "snapshot_data")
        epochs = range(begin_epoch, num_epoch)
        run = FitRun(self, train_data, snapshot_data, epochs, tol, full_grads_batch_end_callback)
        iterate = data.views if sparse_row_id_fn is None and self._only_reads(train_data) else iter
        before = self._variance_monitor
        if before is not None:
            # What a training that was interrupted has left.
            before.forget()
        outer = self._run, self._epochs_of_fit
        self._run, self._epochs_of_fit = run, data.Epochs(
            train_data, run.begin_epoch, iterate, self._end_epoch_of_fit, run.between_steps
        )  # fmt: skip
        try:
            # BaseModule.fit begins to iterate exactly once an epoch, after bind and init.
            until_converged(
                self._fit_of_module, self._epochs_of_fit, eval_data, eval_metric, epoch_end_callback,
                batch_end_callback, kvstore, optimizer, optimizer_params, eval_end_callback, eval_batch_end_callback,
                initializer, arg_params, aux_params, allow_missing, force_rebind, force_init, begin_epoch, num_epoch,
                validation_metric, monitor, sparse_row_id_fn,
            )  # fmt: skip
            # Training that has converged in the middle of an epoch leaves the data at their start, too.
            self._epochs_of_fit.end()
        finally:
            self._run, self._epochs_of_fit = outer
            # One that `fit` got is for this training.
            self._variance_monitor = before
            # A view would keep the data.
            self._batch = None
        self._progress.end(tol, begin_epoch, num_epoch, internals.epsilon(self))
        if not epochs:
            # Other workers may have epochs to train.
            run.agree_on_steps(False)

    def _fit_of_module(self, *arguments: Any) -> None:
        super().fit(*arguments)

    def _end_epoch_of_fit(self) -> None:
        self._end_monitoring(self._clock.epoch)
        # What is saved after an epoch is to be finite, though the next snapshot is still to come.
        self._show_rows()
        if self._steps is not None and not internals.weights_are_finite(self):
            self._go_back(self._steps, self._clock.epoch)

    def _end_monitoring(self, epoch: Optional[int]) -> None:
        if self._variance_monitor is not None:
            records = self._progress.records
            record = records[-1] if records else None
            if self._variance_monitor.end(epoch, self._period(), record) is not None and record is not None:
                self._progress.write(record, VARIANCES)

    def _is_of(self, train_data: Any) -> bool:
        """Whether the last snapshot was of these data, as far as is known."""
        if self._snapshot.is_of is not None:
            return self._snapshot.is_of(train_data)
        samples, saved = data.known_samples(train_data), self._snapshot.samples
        if self._workers.has_others or None in (samples, saved):
            self.logger.info(
                "Going on with the snapshot of the checkpoint: whether it was of these data can't be known"
            )
            return True
        return samples == saved

    def _only_reads(self, train_data: Any) -> bool:
        """Whether batches may be views: nothing changes them in place, or outlasts the data with them."""
        # A view of what was shuffled anew would keep it in memory beside the new arrays.
        return data.is_itself(self, SVRGModule) and data.can_view(train_data) and not train_data.shuffle

    # --------------------------------------------------------------------------------------------- checkpoints

    def save_optimizer_states(self, fname: str) -> None:
        """Save the optimizer's states, such as momenta, to a file.

        Parameters
        ----------
        fname : str or path
            Of the file, which is replaced.

        Raises
        ------
        RuntimeError
            There is no optimizer, or it runs on plain mxnet's parameter servers, which don't give their states away.
        """
        self._show_rows()
        fname, on_servers = os.path.expanduser(os.fspath(fname)), self._workers.states_on_servers()
        if on_servers is None:
            super().save_optimizer_states(fname)
        else:
            of_servers = [each for each in internals.updated_parameters(self) if each.name not in self._way.names]
            states = {**on_servers.fetch(self._users_optimizer(), of_servers), **self._way.states()}
            with open(fname, "wb") as file:
                pickle.dump(states, file)
        if not internals.is_of_mxnet(self._users_optimizer()):
            # What can't be read again is better known now.
            files.load_states(fname)

    def load_optimizer_states(self, fname: str) -> None:
        """Load the optimizer's states, saved with any devices and store. All workers of a job call this.

        Parameters
        ----------
        fname : str or path
            Of the file that `save_optimizer_states` has written.

        Raises
        ------
        RuntimeError
            There is no optimizer, or it runs on plain mxnet's parameter servers.
        FileNotFoundError
            There is no such file.
        ValueError
            The file is damaged, or has the states of another optimizer.
        """
        self._leave_rows()
        module_state.take_over(self, files.load_states(fname), fname, {})

    def save_checkpoint(
        self, prefix: str, epoch: int, save_optimizer_states: bool = False, remove_amp_cast: bool = True
    ) -> None:
        """Save the network and its weights; with the optimizer states, all that training needs to go on.

        Parameters
        ----------
        prefix : str
            Of the files: ``prefix-symbol.json``, ``prefix-0001.params`` and, with `save_optimizer_states`,
            ``prefix-0001.states`` (the optimizer's) and ``prefix-0001.svrg`` (snapshot, full gradient, schedule).
        epoch : int
            The number in the files' names.
        save_optimizer_states : bool, default False
            Whether the optimizer's states, the snapshot, the full gradient and the schedule are saved, too. Without
            them a checkpoint is good for predictions and for a new start.
        remove_amp_cast : bool, default True
            Whether the casts of MXNet's automatic mixed precision are left out of the network that is saved.

        Raises
        ------
        RuntimeError
            There are no weights yet, or, with `save_optimizer_states`, no optimizer.
        FileNotFoundError
            There is no such directory.

        Notes
        -----
        A kill at any moment leaves the old checkpoint of this name or the new one whole, as `load` reads it. If another
        process saves under this prefix, this one waits for it.
        """
        self._show_rows()
        mx.nd.waitall()
        write_symbol = partial(self.symbol.save, remove_amp_cast=remove_amp_cast)
        if save_optimizer_states:
            call_order.check(self, "save_optimizer_states")
            self._notice_unsaved_schedule(self._users_optimizer())
            saved = files.save(
                prefix, epoch, write_symbol, self.save_params, self.save_optimizer_states,
                module_state.sections_of(self), self._other_files(remove_amp_cast),
            )  # fmt: skip
        else:
            saved = files.save(
                prefix, epoch, write_symbol, self.save_params, others=self._other_files(remove_amp_cast)
            )  # fmt: skip
        self.logger.info('Saved checkpoint to "%s"', saved.params)

    def _other_files(self, remove_amp_cast: bool) -> Dict[str, Callable[[str], None]]:
        """What writes further files of a checkpoint, by what their names have behind the prefix."""
        return {}

    def _notice_unsaved_schedule(self, optimizer: mx.optimizer.Optimizer) -> None:
        unsaved = position.unsaved(optimizer)
        if unsaved:
            self._notices.say(
                notices.UNSAVED_SCHEDULE, type(optimizer.lr_scheduler).__name__, ", ".join(unsaved)
            )  # fmt: skip

    @classmethod
    def load(cls, prefix: str, epoch: int, load_optimizer_states: bool = False, **kwargs: Any) -> "SVRGModule":
        """Make an SVRGModule from a checkpoint: one of its own, or a plain Module's.

        Parameters
        ----------
        prefix : str
            Of the files, as `save_checkpoint` got it.
        epoch : int
            The number in the files' names.
        load_optimizer_states : bool, default False
            Whether training is to go on from there, bit for bit: loads the optimizer's states, the snapshot, the
            full gradient and the place in the schedule. From a plain Module's checkpoint, the optimizer's states.
            They belong to their parameters: devices and KVStore may be others.
        **kwargs : dict
            For the constructor: `label_names` and `context`, for instance. `update_freq` is the saved one by default.

        Returns
        -------
        SVRGModule
            Not bound yet: `bind` or `fit` puts in what was loaded.

        Raises
        ------
        FileNotFoundError
            There is no such checkpoint.
        ValueError
            A file is damaged, or the files were not saved together.

        Notes
        -----
        Nothing is written, and nothing of the files is run. A save in another process doesn't disturb.

        Examples
        --------
        >>> SVRGModule.load('no-such-model', 1)
        Traceback (most recent call last):
            ...
        FileNotFoundError: no checkpoint of epoch 1: no-such-model-symbol.json does not exist
        """
        saved = files.load(prefix, epoch, to_go_on=load_optimizer_states)
        if saved.sections is not None:
            kwargs = {**kwargs, **module_state.arguments_of(saved.sections, kwargs)}
        module = cls(saved.symbol, **kwargs)
        module._take(saved, load_optimizer_states)
        return module

    def _take(self, saved: files.Checkpoint, load_optimizer_states: bool) -> None:
        """Begin with the weights of a checkpoint, or go on from it."""
        internals.preload(self, saved.arg_params, saved.aux_params)
        if load_optimizer_states:
            self._restoring = saved
        if saved.problem:
            self.logger.warning("The weights are loaded as they are, though %s", saved.problem)

    @staticmethod
    def last_checkpoint(prefix: Union[str, Sequence[str]]) -> Optional[int]:
        """Find the last epoch of which there is a whole checkpoint, with the optimizer's states.

        Parameters
        ----------
        prefix : str or list of str
            As they were saved. With several, those of a job's workers for instance, the last epoch that all have.

        Returns
        -------
        int or None
            The epoch; None if there is no such checkpoint.

        Raises
        ------
        ValueError
            The list is empty.

        Examples
        --------
        >>> SVRGModule.last_checkpoint('no-such-model') is None
        True
        """
        return files.last_epoch([prefix] if isinstance(prefix, (str, os.PathLike)) else prefix)


def _heads(module: Module, out_grads: OutGrads, batch: Any) -> Any:
    """The head gradients for a module: computed from its outputs, if `out_grads` is callable."""
    if not callable(out_grads):
        return out_grads
    heads = out_grads(module.get_outputs(), batch)
    checks.head_gradients(heads)
    return heads


def _finite_norms(mu: Dict[str, Any], epoch: Optional[int]) -> Dict[str, float]:
    norms = full_gradient.norms(mu)
    broken = [name for name, norm in norms.items() if not norm < float("inf")]
    if broken:
        raise FloatingPointError(
            "the full gradient of {}{} has NaN or Inf; the snapshot of before is kept. Lower the learning rate, or "
            "look for NaN in the data".format(", ".join(broken), "" if epoch is None else " in epoch %d" % epoch)
        )
    return norms
