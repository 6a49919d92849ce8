"""SVRGModule: the Module API; when a snapshot is taken, and how a step is corrected."""

import contextlib
import logging
import os
import time
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import mxnet as mx
from mxnet.model import BatchEndParam
from mxnet.module import Module

from . import call_order, checkpoint, checks, distributed, full_gradient, mxnet_internals, shapes, strategies
from .batches import TrueRows, batch_axes, can_view, is_itself, regrouped, views, whole_data
from .full_gradient import BatchGradient, OnDevices
from .keys import check_parameter_names, full_gradient_key
from .networks import couples_rows
from .placement import PlacedModule
from .random_draws import DrawStream, draws_random_numbers
from .snapshot import Snapshot
from .svrg_optimizer import REGISTERED_NAME, _SVRGOptimizer
from .updater import Updater

__all__ = ["SVRGModule"]

# Head gradients: as Module.backward takes them, or a function of (outputs, batch) that computes them.
OutGrads = Union[None, mx.nd.NDArray, List[mx.nd.NDArray], Callable[[List[mx.nd.NDArray], Any], List[mx.nd.NDArray]]]
Callbacks = Union[None, Callable[[Any], Any], Sequence[Callable[[Any], Any]]]


class _AtEpochStart:
    """A data iterator that calls a function whenever its iteration starts; otherwise the iterator itself.

    The function returns how many batches are to be used; None for all. `batches` begins an iteration of `data`.
    """

    def __init__(self, data: Any, start: Callable[[], Optional[int]], batches: Callable[[Any], Iterator[Any]]) -> None:
        self._data = data
        self._start = start
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        count = self._start()
        batches = self._batches(self._data)
        return batches if count is None else distributed.exactly(batches, count)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


@call_order.ordered
class SVRGModule(Module):
    r"""A Module that trains by SVRG: stochastic gradients whose variance vanishes as training converges.

    .. math:: g = \nabla_B(w) - \bigl(\nabla_B(\tilde w) - b\,\mu\bigr)

    :math:`\nabla_B` is the gradient summed over the b rows of the batch B, before ``rescale_grad``;
    :math:`\tilde w` the *snapshot*, the weights as they were at the last `update_full_grads`; and :math:`\mu`
    the *full gradient* there, the mean over all samples. The user's optimizer takes g for the gradient: weight
    decay, momentum and clipping come after the correction.

    Until the first `update_full_grads` it is a plain Module (the warm start that Johnson & Zhang recommend).

    Parameters
    ----------
    symbol, data_names, label_names, logger, context, work_load_list, fixed_param_names, state_names, group2ctxs
        As for ``mxnet.module.Module``.
    compression_params : None
        Gradient compression can't be used.
    update_freq : int
        Number of epochs between two snapshots, at least 1. The default, 2, is Johnson & Zhang's choice for convex
        problems (they take 5 for nets).
    overlap : bool, optional
        Whether the gradient at the snapshot is computed at the same time as that at the current weights, on further cpu
        ids. By default, if cores are idle: twice the OpenMP threads fit on those that the process, or its container,
        may use, and the network isn't small.
    save_memory : bool
        Whether the snapshot is computed in the memory of the live network, one after the other.

    Raises
    ------
    TypeError, ValueError
        `update_freq` is no positive integer; `compression_params` is given; or the symbol has a parameter
        ``x_full`` beside ``x``.

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
        self,
        symbol: mx.symbol.Symbol,
        data_names: Optional[Sequence[str]] = ("data",),
        label_names: Optional[Sequence[str]] = ("softmax_label",),
        logger: Any = logging,
        context: Union[mx.Context, List[mx.Context]] = mx.cpu(),
        work_load_list: Optional[Sequence[float]] = None,
        fixed_param_names: Optional[Sequence[str]] = None,
        state_names: Optional[Sequence[str]] = None,
        group2ctxs: Any = None,
        compression_params: Optional[Mapping[str, Any]] = None,
        update_freq: int = 2,
        *,
        overlap: Optional[bool] = None,
        save_memory: bool = False,
    ) -> None:
        checks.compression(compression_params)
        checks.work_load(work_load_list, context)
        if overlap and save_memory:
            raise ValueError("overlap=True with save_memory=True: passes that run at the same time can't share memory; "
                             "choose one")  # fmt: skip
        self.update_freq = update_freq
        self._overlap, self._save_memory = overlap, save_memory
        arguments = (symbol, data_names, label_names, logger, context, work_load_list, fixed_param_names,
                     state_names, group2ctxs)  # fmt: skip
        super().__init__(*arguments)
        check_parameter_names(mxnet_internals.parameter_names(self))
        # The snapshot: the same network, with weights of its own.
        self._mod_aux = PlacedModule(*arguments)
        self._snapshot = Snapshot(len(mxnet_internals.contexts(self)))
        draws = draws_random_numbers(symbol)
        self._draws = DrawStream(draws)
        self._optimizer_draws = False
        # Whether a row's gradient is the same in every batch, so that rows can be filled in and taken away.
        self._rows_are_independent = not (draws or couples_rows(symbol))
        self._batch_gradient = BatchGradient(symbol)
        if self._batch_gradient.is_mixed:
            self.logger.warning(
                "some output layers have normalization='batch' or 'valid' and some have not: batches with fewer rows "
                "than the rest are weighed only approximately; give all output layers the same normalization"
            )
        # What the last forward() left for backward(): the batch, whether the snapshot has seen it, and how many full
        # passes had begun.
        self._batch: Any = None
        self._corrected = False
        self._passes = 0
        self._monitored = False
        self._said_plain = False
        self._said_round_batch = False
        # The rows of a full batch on each device: as bound, whatever batch was the last one.
        self._full_batch_rows: List[int] = []
        # The numbers of the user's optimizer when it was installed.
        self._optimizer_at_start: Dict[str, float] = {}
        self._restoring: Optional[checkpoint.State] = None
        # The other workers, if there are any.
        self._job: Union[distributed.Alone, distributed.Job] = distributed.Alone()
        # How the gradient at the snapshot is computed; chosen in bind().
        self._strategy: strategies.Serial

    @property
    def update_freq(self) -> int:
        """Number of epochs between two snapshots."""
        return self._update_freq

    @update_freq.setter
    def update_freq(self, value: int) -> None:
        self._update_freq = checks.update_freq(value)

    @property
    def _param_dict(self) -> OnDevices:
        """For each device, by parameter, the full gradient that it adds to a full batch; empty before a snapshot."""
        return self._snapshot.full_gradients

    # ------------------------------------------------------------------------------------------------- set-up

    def bind(
        self,
        data_shapes: Sequence[Any],
        label_shapes: Optional[Sequence[Any]] = None,
        for_training: bool = True,
        inputs_need_grad: bool = False,
        force_rebind: bool = False,
        shared_module: Optional[Module] = None,
        grad_req: Any = "write",
    ) -> None:
        """Allocate the network and, for training, its snapshot.

        Parameters
        ----------
        data_shapes, label_shapes, for_training, inputs_need_grad, force_rebind
            As for ``Module.bind``. A snapshot survives rebinding.
        shared_module : Module, optional
            A bound module whose weights this one shares; if it is an SVRGModule of the same parameters, its snapshot
            too.
        grad_req : str, list of str or dict of str to str
            'write' or 'null' for each parameter.

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
        checks.grad_req(grad_req, mxnet_internals.parameter_names(self), self.symbol.list_arguments())
        if inputs_need_grad and not for_training:
            raise ValueError("inputs_need_grad=True needs for_training=True: inference computes no gradients")
        if shared_module is not None:
            checks.shared_module(shared_module)
        binding = force_rebind or not self.binded
        super().bind(data_shapes, label_shapes, for_training, inputs_need_grad, force_rebind, shared_module, grad_req)
        if binding and for_training:
            self._full_batch_rows = mxnet_internals.rows_on_devices(self)
            self._bind_snapshot(shared_module, grad_req)

    def _bind_snapshot(self, shared_module: Optional[Module], grad_req: Any) -> None:
        shared_snapshot = None
        parameters = mxnet_internals.parameter_names(self)
        if (
            isinstance(shared_module, SVRGModule)
            and shared_module._mod_aux.binded
            and set(parameters) == set(mxnet_internals.parameter_names(shared_module))
        ):
            shared_snapshot, shared_strategy = shared_module._mod_aux, shared_module._strategy
            if not shared_snapshot.params_initialized:
                shared_snapshot.set_params(*shared_module.get_params())
            self._snapshot = shared_module._snapshot
            self._draws.follow(shared_module._draws)
        if not isinstance(grad_req, (str, dict)):
            grad_req = dict(zip(self.symbol.list_arguments(), grad_req))
        if isinstance(grad_req, dict):
            # The snapshot's input gradients are of no use.
            grad_req = {name: grad_req[name] if name in parameters else "null" for name in grad_req}
        if shared_snapshot is None:
            strategy = strategies.choose(self, self._overlap, self._save_memory)
            placed = strategy.contexts(mxnet_internals.contexts(self))
        else:
            strategy = strategies.for_sharer_of(shared_strategy, self)
            placed = mxnet_internals.contexts(shared_snapshot)
        mxnet_internals.place(self._mod_aux, placed)
        self._mod_aux.apart = strategy.apart
        self._mod_aux.bind(
            self.data_shapes, self.label_shapes, force_rebind=True, shared_module=shared_snapshot, grad_req=grad_req
        )
        self._strategy = strategy(self, self._mod_aux, self._draws)
        if shared_snapshot is None:
            self._strategy.bound()
        if self._restoring is not None:
            self._restore_snapshot(self._restoring)
        self._snapshot.convert(mxnet_internals.gradients(self))

    def _reset_bind(self) -> None:
        # Module.bind calls this to free what is bound.
        super()._reset_bind()
        mxnet_internals.unbind(self._mod_aux)
        # They hold on to what was bound.
        self.__dict__.pop("_strategy", None)
        updater = mxnet_internals.updater(self)
        if isinstance(updater, Updater):
            updater.forget()
        self._batch, self._corrected = None, False

    def _sync_params_from_devices(self) -> None:
        # Module calls this to update its own copy of the weights, with the mean over the devices. Usually they all
        # hold the same weights, but the mean of three or more equal numbers is rounded: a checkpoint would not be
        # what training goes on with.
        super()._sync_params_from_devices()
        if len(mxnet_internals.contexts(self)) > 2:
            mxnet_internals.take_weights_that_all_devices_hold(self)

    def init_params(
        self,
        initializer: Any = mx.init.Uniform(0.01),
        arg_params: Optional[Dict[str, mx.nd.NDArray]] = None,
        aux_params: Optional[Dict[str, mx.nd.NDArray]] = None,
        allow_missing: bool = False,
        force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:
        """Initialize the weights, as ``Module.init_params``; a snapshot stays as it is.

        Raises
        ------
        RuntimeError
            The module isn't bound.
        """
        if not self.binded and (force_init or not self.params_initialized):
            raise RuntimeError(
                "init_params() or set_params() was called too early: call bind(data_shapes, label_shapes) first"
            )
        super().init_params(initializer, arg_params, aux_params, allow_missing, force_init, allow_extra)

    def init_optimizer(
        self,
        kvstore: Any = "local",
        optimizer: Union[str, mx.optimizer.Optimizer] = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        force_init: bool = False,
    ) -> None:
        """Install the optimizer, inside an ``_SVRGOptimizer``, and the KVStore keys of the full gradients.

        Parameters
        ----------
        kvstore : str, KVStore or None
            A store for one machine; or, in a process of a distributed job, 'dist_sync' or 'dist_device_sync', with
            which all workers begin at the weights of the first one.
        optimizer, optimizer_params, force_init
            As for ``Module.init_optimizer``.

        Raises
        ------
        ValueError
            No such store or optimizer.
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
        settings = {"default_optimizer": optimizer}
        if isinstance(optimizer, str):
            settings.update(dict(optimizer_params))
        self._job = distributed.join(kvstore, self, **settings)
        settings.update(self._job.optimizer_settings)
        super().init_optimizer(self._job.store, REGISTERED_NAME, settings, force_init)
        store = mxnet_internals.kvstore(self)
        if store is not None:
            zeros = full_gradient.zeros_for(mxnet_internals.parameter_arrays(self))[0]
            store.init([full_gradient_key(name) for name in zeros], list(zeros.values()))
        self._job.start()
        users_optimizer = self._users_optimizer()
        # Only a store has keys of full gradients to tell apart.
        mxnet_internals.update_by(self, Updater(users_optimizer))
        self._optimizer_at_start = checkpoint.numbers_of(users_optimizer)
        # Its noise is drawn anew at each update: by the stream too, so that a resumed run draws the same.
        self._optimizer_draws = isinstance(users_optimizer, mx.optimizer.SGLD)
        if self._optimizer_draws:
            self._draws.activate()
        if self._restoring is not None:
            checkpoint.restore_position(users_optimizer, self._restoring)
            self._restoring = None

    def borrow_optimizer(self, shared_module: Module) -> None:
        """Use the optimizer and KVStore of another module.

        Raises
        ------
        RuntimeError
            It has none yet; or it is a plain Module with a distributed store, which has no keys for the full gradient.
        """
        if not shared_module.optimizer_initialized:
            raise RuntimeError("borrow_optimizer() was called too early: call shared_module.init_optimizer() first")
        self._job = distributed.join_by(shared_module)
        super().borrow_optimizer(shared_module)
        self._optimizer_at_start = getattr(
            shared_module, "_optimizer_at_start", checkpoint.numbers_of(self._users_optimizer())
        )

    def _users_optimizer(self) -> mx.optimizer.Optimizer:
        installed = mxnet_internals.optimizer(self)
        # One that is borrowed from a plain Module is not wrapped.
        return getattr(installed, "default_opt", installed)

    def _store_of_full_gradients(self) -> Any:
        """The KVStore, if its optimizer knows the keys of the full gradients."""
        wrapped = isinstance(mxnet_internals.optimizer(self), _SVRGOptimizer)
        return mxnet_internals.kvstore(self) if wrapped else None

    # ------------------------------------------------------------------------------------------- a single step

    def forward(self, data_batch: Any, is_train: Optional[bool] = None) -> None:
        """Compute the outputs; when training, at the snapshot too, with the same random draws.

        Parameters
        ----------
        data_batch : DataBatch, or list of DataBatch, one for each device
            Of any number of rows. A padded batch is used whole, as Module does.
        is_train : bool, optional
            Default: as bound. With False the snapshot costs nothing.

        Raises
        ------
        ValueError
            The network can't take arrays of these shapes. The module is left as it was.
        RuntimeError
            The module isn't bound or has no weights.
        """
        as_bound = shapes.check(self, data_batch)
        self._batch, self._corrected, self._passes = data_batch, False, self._snapshot.passes
        if not (self._snapshot.taken and self.for_training and (is_train is None or is_train)):
            super().forward(data_batch, is_train)
            return
        self._draws.advance()
        self._strategy.forward(data_batch, as_bound)
        self._corrected = True

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
        self._snapshot.gradients_pending = True
        super().backward(_heads(self, out_grads, self._batch))
        if not self._corrected:
            return
        self._strategy.backward(self._batch, lambda module: _heads(module, out_grads, self._batch))
        rows = self._batch_gradient.rows_in_step(mxnet_internals.rows_on_devices(self))
        self._strategy.correct(self._snapshot, rows)

    def update(self) -> None:
        """Let the user's optimizer update the weights by the gradients that `backward` left.

        Raises
        ------
        RuntimeError
            The optimizer isn't initialized.
        """
        if not self._snapshot.taken and not self._said_plain:
            self._said_plain = True
            self.logger.info("No snapshot yet: update() is that of a plain Module until update_full_grads() is called")
        if self._optimizer_draws and self._snapshot.taken:
            self._draws.advance()
        super().update()
        self._snapshot.gradients_pending = False

    # --------------------------------------------------------------------------------------- the full gradient

    def update_full_grads(
        self,
        train_data: Any,
        *,
        batch_end_callback: Callbacks = None,
        epoch: Optional[int] = None,
        out_grads: OutGrads = None,
    ) -> None:
        r"""Take a snapshot of the weights, and compute the full gradient there over all data.

        .. math:: \tilde w = w, \qquad \mu = \frac{1}{n} \sum_{i=1}^{n} \nabla f_i(\tilde w)

        Padded rows (``batch.pad``) don't count. The iterator is reset before and after (mxnet's own readers, which lose
        their place otherwise, are read to the end first). An NDArrayIter that discards the rows of its last batch, or
        keeps them for the next epoch, gives them all the same, unless they are sparse.

        Parameters
        ----------
        train_data : DataIter
            All samples, in batches of any size that the devices can split; or a list of batches.
        batch_end_callback : callable or list of callables, optional
            Called after each batch with a ``BatchEndParam``, whose `eval_metric` is None: Speedometer, ProgressBar.
        epoch : int, optional
            For the log and the callbacks.
        out_grads : callable, optional
            As for `backward`.

        Raises
        ------
        TypeError
            `train_data` can't be iterated over, or `out_grads` isn't callable.
        ValueError
            `train_data` gives no samples, or arrays that don't fit the network or lack the labels.
        FloatingPointError
            The full gradient has NaN or Inf.
        RuntimeError
            The module isn't bound for training, or has no weights or no optimizer.

        Notes
        -----
        Whatever is raised, the snapshot and full gradient of before are kept.
        """
        checks.train_data(train_data, out_grads)
        started = time.time()
        arg_params, aux_params = self.get_params()
        self._snapshot.passes += 1
        with self._snapshot_at(arg_params, aux_params):
            totals, samples = self._sum_gradients(train_data, batch_end_callback, epoch, out_grads)
            full_gradient.divide(totals, samples)
            full_gradient.reduce(totals, self._store_of_full_gradients())
            norm = self._finite_norm(totals[0], epoch)
            rows = self._batch_gradient.rows_in_step(self._full_batch_rows)
            for array in totals[0].values():
                array *= rows[0]
            self._mod_aux.set_params(arg_params, aux_params, allow_extra=True)
            self._snapshot.set(totals[0], rows, mxnet_internals.contexts(self), self._snapshot.number + 1, epoch)
        self.logger.info(
            "%s Full gradient: samples=%d time=%.3f norm=%.6g",
            "Epoch[{}]".format(epoch) if epoch is not None else "Snapshot[{}]".format(self._snapshot.number),
            samples, time.time() - started, norm,
        )  # fmt: skip

    @contextlib.contextmanager
    def _snapshot_at(self, arg_params: Dict[str, Any], aux_params: Dict[str, Any]) -> Iterator[None]:
        """Move the snapshot to these weights; back to where it was, if the block raises."""
        module = self._mod_aux
        before = [dict(params) for params in module.get_params()] if self._snapshot.taken else None
        try:
            # allow_missing copies to the devices only: the module's own copy keeps the old snapshot meanwhile, for
            # whoever asks, a checkpoint in a callback for instance.
            module.set_params(arg_params, aux_params, allow_missing=True, allow_extra=True)
            mxnet_internals.keep_own_copy(module)
            yield
        except BaseException:
            if before is not None:
                module.set_params(*before)
            raise

    def _sum_gradients(
        self, train_data: Any, callbacks: Callbacks, epoch: Optional[int], out_grads: OutGrads
    ) -> Tuple[OnDevices, int]:
        """The sum of all samples' gradients at the snapshot, on each device, and the number of samples."""
        true_rows = TrueRows(
            batch_axes(self.data_shapes),
            batch_axes(self.label_shapes),
            lambda rows: not self._rows_are_independent and shapes.can_reshape_to(self, rows),
        )
        samples = 0
        self._draws.advance()
        with contextlib.ExitStack() as stack:
            stack.enter_context(whole_data(train_data))
            plain = callbacks or out_grads is not None
            count = None if plain else self._count_of_larger_batches(train_data)
            larger = count is not None
            total = stack.enter_context(self._strategy.full_pass(self._batch_gradient, self._is_free(), larger))
            for nbatch, batch in enumerate(train_data if count is None else regrouped(train_data, count)):
                if not larger:
                    shapes.check(self, batch, nbatch)
                for part in true_rows.of(batch):
                    total.add(part, lambda module, part: _heads(module, out_grads, part))
                samples += true_rows.count(batch)
                _call(callbacks, BatchEndParam(epoch=epoch, nbatch=nbatch, eval_metric=None, locals=locals()))
        if isinstance(train_data, mx.io.MXDataIter) and not self._said_round_batch:
            self._said_round_batch = True
            self.logger.warning(
                "the full gradient is over the %d samples that the reader gave. One made with round_batch=True, the "
                "default, leaves out of a pass the rows that it filled up the last batch of the pass before with: use "
                "round_batch=False", samples,
            )  # fmt: skip
        if samples == 0:
            raise ValueError(
                "train_data={!r} gave no samples; is it an iterator that can't be reset?".format(train_data)
            )
        return total.totals, self._job.samples_of_all(samples)

    def _count_of_larger_batches(self, data: Any) -> Optional[int]:
        """In how many batches to take the same samples, if larger ones are faster; or None."""
        if self._rows_are_independent and can_view(data) and shapes.has_rows_for(self, data):
            return self._strategy.larger_batches(self._batch_gradient, data, sum(self._full_batch_rows))
        return None

    def _is_free(self) -> bool:
        """Whether the live network may take part in a full pass."""
        # It must have the snapshot's weights, and nobody may miss its gradients or watch its outputs.
        devices_agree = len(mxnet_internals.contexts(self)) == 1 or mxnet_internals.kvstore(self) is not None
        dense = mxnet_internals.is_dense(self)
        pending = self._snapshot.gradients_pending
        return devices_agree and dense and not (pending or self._monitored or self.inputs_need_grad)

    def install_monitor(self, mon: Any) -> None:
        """Install a monitor on the live network, which then takes no part in full passes."""
        super().install_monitor(mon)
        self._monitored = True

    def _finite_norm(self, mean: Dict[str, Any], epoch: Optional[int]) -> float:
        norms = full_gradient.norms(mean)
        broken = [name for name, norm in norms.items() if not norm < float("inf")]
        if broken:
            raise FloatingPointError(
                "the full gradient of {}{} has NaN or Inf; the snapshot of before is kept. Lower the learning rate, or "
                "look for NaN in the data".format(", ".join(broken), "" if epoch is None else " in epoch %d" % epoch)
            )
        return full_gradient.norm(norms)

    # -------------------------------------------------------------------------------------------- the schedule

    def fit(
        self,
        train_data: Any,
        eval_data: Any = None,
        eval_metric: Any = "acc",
        epoch_end_callback: Any = None,
        batch_end_callback: Any = None,
        kvstore: Any = "local",
        optimizer: Any = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),),
        eval_end_callback: Any = None,
        eval_batch_end_callback: Any = None,
        initializer: Any = mx.init.Uniform(0.01),
        arg_params: Any = None,
        aux_params: Any = None,
        allow_missing: bool = False,
        force_rebind: bool = False,
        force_init: bool = False,
        begin_epoch: int = 0,
        num_epoch: Optional[int] = None,
        validation_metric: Any = None,
        monitor: Any = None,
        sparse_row_id_fn: Any = None,
        *,
        full_grads_batch_end_callback: Callbacks = None,
        snapshot_data: Any = None,
    ) -> None:
        """Train, exactly as ``Module.fit``; every `update_freq` epochs an epoch starts with a snapshot.

        Parameters
        ----------
        train_data, eval_data, ..., sparse_row_id_fn
            As for ``Module.fit``.
        full_grads_batch_end_callback : callable or list of callables, optional
            `batch_end_callback` for `update_full_grads`.
        snapshot_data : DataIter, optional
            Another iterator over the same samples for the full passes, with larger batches for instance, if that is
            faster. By default `train_data`.

        Raises
        ------
        ValueError
            `num_epoch` isn't given; and what `update_full_grads` and `init_optimizer` raise.
        RuntimeError
            The workers of a job are to train other epochs, or have taken different numbers of snapshots.

        Notes
        -----
        A snapshot is taken at the start of an epoch if there is none yet or ``epoch % update_freq == 0``, so
        that training can begin at any `begin_epoch`.
        """
        if num_epoch is None:
            raise ValueError("num_epoch=None: say how many epochs to train, for instance num_epoch=10")
        epochs = iter(range(begin_epoch, num_epoch))
        steps: Optional[int] = None

        def agree_on_steps() -> Optional[int]:
            return self._job.steps_of_all(train_data, {
                "begin_epoch": begin_epoch, "num_epoch": num_epoch, "update_freq": self.update_freq,
                "snapshots": self._snapshot.number,
            })  # fmt: skip

        def take_snapshot_if_due() -> Optional[int]:
            nonlocal steps
            epoch = next(epochs)
            if epoch == begin_epoch:
                steps = agree_on_steps()
            if not self._snapshot.taken or epoch % self.update_freq == 0:
                data = train_data if snapshot_data is None else snapshot_data
                self.update_full_grads(data, batch_end_callback=full_grads_batch_end_callback, epoch=epoch)
            return steps

        batches = views if sparse_row_id_fn is None and self._only_reads(train_data) else iter
        # BaseModule.fit starts to iterate exactly once an epoch, after bind and init.
        super().fit(
            _AtEpochStart(train_data, take_snapshot_if_due, batches), eval_data, eval_metric, epoch_end_callback,
            batch_end_callback, kvstore, optimizer, optimizer_params, eval_end_callback, eval_batch_end_callback,
            initializer, arg_params, aux_params, allow_missing, force_rebind, force_init, begin_epoch, num_epoch,
            validation_metric, monitor, sparse_row_id_fn,
        )  # fmt: skip
        # A view would keep the data.
        self._batch = None
        if begin_epoch >= num_epoch:
            # Other workers may have epochs to train.
            agree_on_steps()

    def _only_reads(self, data: Any) -> bool:
        """Whether batches may be views of `data`: nothing changes them in place, or outlasts the data with them."""
        # A view of what was shuffled anew would keep it in memory beside the new arrays.
        return is_itself(self, SVRGModule) and can_view(data) and not data.shuffle

    # --------------------------------------------------------------------------------------------- checkpoints

    def save_optimizer_states(self, fname: str) -> None:
        """Save the optimizer's states, as ``Module.save_optimizer_states``.

        Raises
        ------
        RuntimeError
            There is no optimizer; or it runs on parameter servers, which don't give their states away: set
            ``MXNET_UPDATE_ON_KVSTORE=0`` for all workers.
        """
        self._job.check_states_are_here()
        super().save_optimizer_states(fname)

    def load_optimizer_states(self, fname: str) -> None:
        """Load the optimizer's states, as ``Module.load_optimizer_states``.

        Raises
        ------
        RuntimeError
            There is no optimizer; or it runs on parameter servers, which don't take any states: set
            ``MXNET_UPDATE_ON_KVSTORE=0`` for all workers.
        """
        self._job.check_states_are_here()
        super().load_optimizer_states(fname)

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
        save_optimizer_states, remove_amp_cast : bool
            As for ``Module.save_checkpoint``.

        Raises
        ------
        RuntimeError
            There are no weights yet, or, with `save_optimizer_states`, no optimizer.

        Notes
        -----
        A kill at any moment leaves the old checkpoint of this name or the new one whole, as `load` reads it.
        """
        files = checkpoint.paths(prefix, epoch)
        mx.nd.waitall()
        write_symbol = partial(self.symbol.save, remove_amp_cast=remove_amp_cast)
        if save_optimizer_states:
            call_order.check(self, "save_optimizer_states")
            checkpoint.save(files, write_symbol, self.save_params, self.save_optimizer_states, self._state())
        else:
            checkpoint.save(files, write_symbol, self.save_params)
        self.logger.info('Saved checkpoint to "%s"', files.params)

    def _state(self) -> checkpoint.State:
        taken = self._snapshot.taken
        arg_params, aux_params = self._mod_aux.get_params() if taken else ({}, {})
        counts, scalars = checkpoint.position(self._users_optimizer(), self._optimizer_at_start)
        return checkpoint.State(
            self.update_freq, self._snapshot.number, self._snapshot.epoch, self._snapshot.rows[0] if taken else 0,
            arg_params, aux_params, self._snapshot.full_gradients[0] if taken else {}, self._draws.position,
            counts, scalars,
        )  # fmt: skip

    @classmethod
    def load(cls, prefix: str, epoch: int, load_optimizer_states: bool = False, **kwargs: Any) -> "SVRGModule":
        """Make an SVRGModule from a checkpoint: one of its own, or a plain Module's.

        Parameters
        ----------
        prefix, epoch
            As they were saved.
        load_optimizer_states : bool
            Whether training is to go on from there, bit for bit: loads the optimizer's states, the snapshot, the
            full gradient and the place in the schedule. From a plain Module's checkpoint, the optimizer's states.
        **kwargs
            For the constructor. `update_freq` is the saved one by default.

        Raises
        ------
        FileNotFoundError
            There is no such checkpoint.
        ValueError
            The files were not saved together, or the ``.svrg`` file is damaged.

        Examples
        --------
        >>> SVRGModule.load('no-such-model', 1)
        Traceback (most recent call last):
            ...
        FileNotFoundError: no checkpoint of epoch 1: no-such-model-symbol.json does not exist
        """
        files = checkpoint.paths(prefix, epoch)
        checkpoint.finish_interrupted_save(files)
        state = checkpoint.load(files) if load_optimizer_states else None
        for path in (files.symbol, files.params) + ((files.states,) if load_optimizer_states else ()):
            if not os.path.exists(path):
                raise FileNotFoundError("no checkpoint of epoch {}: {} does not exist".format(epoch, path))
        symbol, arg_params, aux_params = mx.model.load_checkpoint(os.fspath(prefix), epoch)
        if state is not None:
            kwargs.setdefault("update_freq", state.update_freq)
        module = cls(symbol, **kwargs)
        mxnet_internals.preload(module, arg_params, aux_params, files.states if load_optimizer_states else None)
        module._restoring = state
        return module

    @staticmethod
    def last_checkpoint(prefix: Union[str, Sequence[str]]) -> Optional[int]:
        """The last epoch of which there is a whole checkpoint, with the optimizer's states; None if there is none.

        Parameters
        ----------
        prefix : str or list of str
            As they were saved. With several, those of a job's workers for instance, the last epoch that all have.

        Examples
        --------
        >>> SVRGModule.last_checkpoint('no-such-model') is None
        True
        """
        return checkpoint.last_epoch([prefix] if isinstance(prefix, (str, os.PathLike)) else prefix)

    def _restore_snapshot(self, state: checkpoint.State) -> None:
        self._draws.position[:] = state.draws
        if not state.number:
            return
        self._mod_aux.set_params(state.snapshot, state.aux)
        devices = mxnet_internals.contexts(self)
        rows = self._batch_gradient.rows_in_step(self._full_batch_rows)
        first = {name: array.as_in_context(devices[0]) for name, array in state.full.items()}
        if rows[0] != state.rows:
            first = {name: array * (rows[0] / state.rows) for name, array in first.items()}
        self._snapshot.set(first, rows, devices, state.number, state.epoch)


def _heads(module: Module, out_grads: OutGrads, batch: Any) -> Any:
    """The head gradients for a module: computed from its outputs, if `out_grads` is callable."""
    return out_grads(module.get_outputs(), batch) if callable(out_grads) else out_grads


def _call(callbacks: Callbacks, param: BatchEndParam) -> None:
    for callback in [callbacks] if callable(callbacks) else callbacks or ():
        callback(param)
