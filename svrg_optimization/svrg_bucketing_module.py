"""SVRGBucketingModule: what BucketingModule does, with a snapshot that all buckets share."""

import contextlib
import functools
import logging
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import mxnet as mx
from mxnet.module import BucketingModule

from . import module_state
from .bucket import Bucket
from .checkpoint import files
from .history import Record
from .mxnet_api import call_order, checks, internals
from .svrg.schedules import Growing, Schedule
from .svrg_module import SVRGModule
from .variance_monitor import VarianceMonitor

__all__ = ["SVRGBucketingModule"]

Arrays = Dict[str, mx.nd.NDArray]


def _of_training(name: str) -> Any:
    """A method of the training: the default bucket's."""

    @functools.wraps(getattr(SVRGModule, name))
    def method(self: "SVRGBucketingModule", *args: Any, **kwargs: Any) -> Any:
        with self._known_to_default():
            return getattr(self._default, name)(*args, **kwargs)

    return method


@call_order.ordered
class SVRGBucketingModule(BucketingModule):
    r"""A BucketingModule that trains by SVRG: all buckets share one snapshot and one full gradient.

    .. math:: g = \nabla_B(w) - \alpha \bigl(\nabla_B(\tilde w) - b\,\mu\bigr), \qquad
              \mu = \frac{1}{n} \sum_{k} \sum_{i \in \text{bucket } k} \nabla f_i(\tilde w)

    Each batch B of b rows goes through the network of its bucket, at the current weights and at the snapshot. The full
    gradient :math:`\mu` is the mean over the samples of all buckets.

    Until the first `update_full_grads` it is a plain BucketingModule.

    Parameters
    ----------
    sym_gen : callable
        Gets a bucket's key, and returns its symbol and the names of its data and its labels. All buckets must have the
        same parameters, in the same order.
    default_bucket_key : object
        The key of the bucket that `bind` binds: the largest one, so that the others can use its memory.
    logger : logging.Logger, optional
        Where training says what it does. By default the root logger.
    context : Context or list of Context, default mx.cpu()
        The device. Several devices share the rows of each batch.
    work_load_list : list of float, optional
        For each device, how many rows it gets in proportion to the others. By default all get as many.
    fixed_param_names : list of str, optional
        The parameters that stay as they are initialized. By default none.
    state_names : list of str, optional
        The inputs that neither data nor labels fill, but `set_states`, to the same for all batches. By default none.
    group2ctxs : dict of str to Context, optional
        For networks that are themselves spread over devices, see `SVRGModule`.
    compression_params : None
        Gradient compression can't be used; this is here because BucketingModule has it.
    update_freq : int, default 2
        Number of epochs between two snapshots, at least 1.
    overlap : bool, optional
        Whether the gradient at the snapshot is computed at the same time as that at the current weights, see
        `SVRGModule`.
    save_memory : bool, default False
        Whether the snapshot is computed in the memory that the current weights' pass has left behind.
    snapshots : Schedule, optional
        When the snapshot moves, and where, instead of `update_freq`: a schedule of `svrg_optimization.schedules`.
    coefficient : float, callable or Coefficient, default 1
        How much of the control variate is subtracted, :math:`\alpha`, see `SVRGModule`.

    Raises
    ------
    TypeError
        `sym_gen` is no such function; and what `SVRGModule` raises.
    ValueError
        There is no `default_bucket_key`, or `snapshots` draws rows; and what `SVRGModule` raises.

    Examples
    --------
    >>> import mxnet as mx
    >>> def mean_of_words(length):
    ...     words = mx.sym.mean(mx.sym.Variable('data'), axis=1, keepdims=True)
    ...     output = mx.sym.FullyConnected(words, num_hidden=1, no_bias=True, name='fc')
    ...     return mx.sym.LinearRegressionOutput(output, mx.sym.Variable('label')), ['data'], ['label']
    >>> def batch(length, label):
    ...     return mx.io.DataBatch([mx.nd.ones((1, length))], [mx.nd.array([[label]])], pad=0, bucket_key=length,
    ...                            provide_data=[('data', (1, length))], provide_label=[('label', (1, 1))])
    >>> batches = [batch(3, 1.0), batch(5, 3.0)]
    >>> module = SVRGBucketingModule(mean_of_words, default_bucket_key=5, update_freq=1)
    >>> module.bind([('data', (1, 5))], [('label', (1, 1))])
    >>> module.init_params()
    >>> module.init_optimizer(optimizer_params={'learning_rate': 0.25})
    >>> for epoch in range(30):
    ...     module.update_full_grads(batches)
    ...     for each in batches:
    ...         module.forward_backward(each)
    ...         module.update()
    >>> module.get_params()[0]['fc_weight'].asnumpy().round(4).tolist()
    [[2.0]]
    """

    def __init__(
        self, sym_gen: Callable[[Any], Tuple[Any, Any, Any]], default_bucket_key: Any = None, logger: Any = logging,
        context: Union[mx.Context, List[mx.Context]] = mx.cpu(), work_load_list: Optional[Sequence[float]] = None,
        fixed_param_names: Optional[Sequence[str]] = None, state_names: Optional[Sequence[str]] = None,
        group2ctxs: Any = None, compression_params: Optional[Mapping[str, Any]] = None, update_freq: int = 2, *,
        overlap: Optional[bool] = None, save_memory: bool = False, snapshots: Optional[Schedule] = None,
        coefficient: Any = 1.0,
    ) -> None:  # fmt: skip
        if default_bucket_key is None:
            raise ValueError("default_bucket_key=None: give the key of the largest bucket, which bind() binds")
        if isinstance(snapshots, Growing):
            raise ValueError("snapshots={!r} draws rows of an NDArrayIter, which has no buckets; take another "
                             "schedule, EveryEpochs(2) for instance".format(snapshots))  # fmt: skip
        if logger is logging:
            # Its functions install a handler, after which the user's logging.basicConfig() does nothing.
            logger = logging.getLogger()
        super().__init__(checks.sym_gen(sym_gen), default_bucket_key, logger, context, work_load_list,
                         fixed_param_names, state_names, group2ctxs, compression_params)  # fmt: skip
        self._arguments = {
            "logger": logger, "context": context, "work_load_list": work_load_list,
            "fixed_param_names": fixed_param_names, "state_names": state_names, "group2ctxs": group2ctxs,
            "compression_params": compression_params, "update_freq": update_freq, "overlap": overlap,
            "save_memory": save_memory, "snapshots": snapshots, "coefficient": coefficient,
            # Steps on the rows of a batch need the weights for themselves, and buckets share them.
            "sparse": "dense",
        }  # fmt: skip
        self._default_key = default_bucket_key
        # The bucket whose training the others join. It stays when buckets are bound anew.
        self._default = self._make_bucket(default_bucket_key, None)
        internals.buckets(self)[default_bucket_key] = self._default

    def _make_bucket(self, bucket_key: Any, default: Optional[Bucket]) -> Bucket:
        return Bucket(default, *internals.make_symbol(self, bucket_key), **self._arguments)

    @contextlib.contextmanager
    def _known_to_default(self) -> Iterator[None]:
        """Let the default bucket, which is about to do something for all buckets, know this module."""
        outer, self._default.whole = self._default.whole, self
        try:
            yield
        finally:
            self._default.whole = outer

    # ------------------------------------------------------------------------------------------------------ set-up

    def bind(
        self, data_shapes: Sequence[Any], label_shapes: Optional[Sequence[Any]] = None, for_training: bool = True,
        inputs_need_grad: bool = False, force_rebind: bool = False, shared_module: None = None, grad_req: Any = "write",
    ) -> None:  # fmt: skip
        """Allocate the default bucket and, for training, its snapshot. Another bucket follows when a batch needs it.

        Parameters
        ----------
        data_shapes : list of DataDesc, or of (name, shape)
            Of the default bucket: an iterator's ``provide_data``.
        label_shapes : list of DataDesc, or of (name, shape), optional
            The same for the labels: an iterator's ``provide_label``. By default there are none.
        for_training : bool, default True
            Whether gradients will be computed. Without, there is no snapshot, and no memory for one.
        inputs_need_grad : bool, default False
            Whether gradients with respect to the data are computed too, for `get_input_grads`.
        force_rebind : bool, default False
            Whether a module that is bound is bound anew; otherwise the call does nothing but log a warning. Weights,
            snapshot and optimizer survive.
        shared_module : None
            Buckets can't share another module's weights; this is here because BucketingModule has it.
        grad_req : str, list of str or dict of str to str, default 'write'
            'write', or 'null' for no gradient: for all, for each argument of the symbol, or by name.

        Raises
        ------
        ValueError
            `shared_module` is given; and what `SVRGModule.bind` raises.
        """
        if shared_module is not None:
            raise ValueError("shared_module={!r}: an SVRGBucketingModule can't share the weights of another module; "
                             "leave it out".format(shared_module))  # fmt: skip
        try:
            super().bind(data_shapes, label_shapes, for_training, inputs_need_grad, force_rebind, None, grad_req)
        except BaseException:
            # BucketingModule says that it is bound before it is.
            self._reset_bind()
            raise

    def _reset_bind(self) -> None:
        # BucketingModule.bind calls this to free what is bound.
        super()._reset_bind()
        self._default._reset_bind()
        internals.buckets(self)[self._default_key] = self._default
        if self.params_initialized:
            internals.preload_buckets(self, self._default)

    def switch_bucket(self, bucket_key: Any, data_shapes: Any, label_shapes: Any = None) -> None:
        """Go to another bucket, which is bound if it is new; `forward` calls this.

        Parameters
        ----------
        bucket_key : object
            The bucket's key, for `sym_gen`.
        data_shapes : list of DataDesc, or of (name, shape)
            What a new bucket is bound to: a batch's ``provide_data``.
        label_shapes : list of DataDesc, or of (name, shape), optional
            A batch's ``provide_label``.

        Raises
        ------
        RuntimeError
            The module isn't bound or has no weights.
        ValueError
            A new bucket has other parameters than the default one, or no `data_shapes`.
        """
        buckets = internals.buckets(self)
        if label_shapes and bucket_key != self._default_key and self._lacks_labels(bucket_key):
            # It was bound for predictions; training and `score` need the labels.
            del buckets[bucket_key]
        if bucket_key in buckets:
            super().switch_bucket(bucket_key, data_shapes, label_shapes)
            return
        checks.shapes_of_bucket(bucket_key, data_shapes)
        bucket = self._make_bucket(bucket_key, self._default)
        if self.for_training:
            checks.parameters_of_bucket(bucket_key, *map(internals.parameter_names, (bucket, self._default)))
        # BucketingModule makes plain Modules; but one that there is, and that isn't bound, it only binds.
        buckets[bucket_key] = bucket
        try:
            super().switch_bucket(bucket_key, data_shapes, label_shapes)
        except BaseException:
            del buckets[bucket_key]
            raise
        if bucket.averages != self._default.averages:
            bucket.notice_another_normalization()
        monitor = internals.monitor_of_buckets(self)
        if monitor is not None:
            bucket.install_monitor(monitor)

    def _lacks_labels(self, bucket_key: Any) -> bool:
        """Whether a bucket is bound without the labels that its network takes."""
        bucket = internals.buckets(self).get(bucket_key)
        return bucket is not None and bucket.binded and bool(bucket.label_names) and not bucket.label_shapes

    def _current_bucket(self) -> Bucket:
        """The module of the bucket of the last batch."""
        bucket: Bucket = internals.current_bucket(self)[1]
        return bucket

    def _bucket_of(self, batch: Any, name: str) -> Bucket:
        """The module of a batch's bucket, bound; the current bucket stays. `name` is the batch's, for errors."""
        checks.bucket(batch, name)
        current, _ = internals.current_bucket(self)
        self.switch_bucket(batch.bucket_key, batch.provide_data, batch.provide_label)
        found = self._current_bucket()
        self.switch_bucket(current, None)
        return found

    def init_params(
        self, initializer: Any = mx.init.Uniform(0.01), arg_params: Optional[Arrays] = None,
        aux_params: Optional[Arrays] = None, allow_missing: bool = False, force_init: bool = False,
        allow_extra: bool = False,
    ) -> None:  # fmt: skip
        """Initialize the weights of all buckets; a snapshot stays. Does nothing if there are weights already.

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
            Whether `arg_params` may have names that the networks don't know.

        Raises
        ------
        RuntimeError
            The module isn't bound, or `arg_params` lacks a weight.
        ValueError
            `arg_params` or `aux_params` has a name that the networks don't know.
        """
        if not self.binded and (force_init or not self.params_initialized):
            # It says what to call first.
            self._default.init_params(force_init=True)
        super().init_params(initializer, arg_params, aux_params, allow_missing, force_init, allow_extra)

    def init_optimizer(
        self, kvstore: Any = "local", optimizer: Union[str, mx.optimizer.Optimizer] = "sgd",
        optimizer_params: Any = (("learning_rate", 0.01),), force_init: bool = False,
    ) -> None:  # fmt: skip
        """Install the optimizer of all buckets.

        Parameters
        ----------
        kvstore : str, KVStore or None, default 'local'
            What adds up the gradients of several devices or workers, see `SVRGModule.init_optimizer`.
        optimizer : str or Optimizer, default 'sgd'
            The name of one that is registered with MXNet, or an instance, which keeps its own settings.
        optimizer_params : dict, default (('learning_rate', 0.01),)
            What the constructor of the optimizer gets, if it is given by name. Unless it is given, `rescale_grad` is
            1 / batch size of the default bucket.
        force_init : bool, default False
            Whether an optimizer that there is already is replaced; otherwise the call does nothing but log a warning.

        Raises
        ------
        ValueError, TypeError, RuntimeError
            As `SVRGModule.init_optimizer`.
        """
        current, _ = internals.current_bucket(self)
        # The default bucket is the one that a checkpoint is loaded into.
        self.switch_bucket(self._default_key, None)
        # Another bucket may have changed the weights, with which a KVStore begins.
        internals.take_weights_of_devices(self._default)
        try:
            super().init_optimizer(kvstore, optimizer, optimizer_params, force_init)
        finally:
            self.switch_bucket(current, None)

    # -------------------------------------------------------------------------------------------- a single step

    def forward(self, data_batch: Any, is_train: Optional[bool] = None) -> None:
        """Go to the batch's bucket, and compute the outputs; when training, at the snapshot too.

        Parameters
        ----------
        data_batch : DataBatch
            Anything with the attributes `data`, `label`, `bucket_key`, `provide_data` and `provide_label`.
        is_train : bool, optional
            Whether layers like Dropout and BatchNorm behave as in training, and `backward` may follow. Default: as
            bound. With False the snapshot costs nothing.

        Raises
        ------
        ValueError
            The batch has no `bucket_key`, or the bucket's network can't take arrays of these shapes.
        RuntimeError
            The module isn't bound or has no weights.
        """
        checks.bucket(data_batch, "the batch")
        super().forward(data_batch, is_train)

    def prepare(self, data_batch: Any, sparse_row_id_fn: Any = None) -> None:
        """Prepare for the next batch, whose bucket is bound if it is new; `fit`, `score` and `predict` call this.

        Parameters
        ----------
        data_batch : DataBatch
            The batch that is going to be given to `forward`.
        sparse_row_id_fn : callable, optional
            As for `SVRGModule.prepare`.

        Raises
        ------
        ValueError
            The batch has no `bucket_key`.
        RuntimeError
            The module isn't bound or has no weights.
        """
        checks.bucket(data_batch, "the batch")
        super().prepare(data_batch, sparse_row_id_fn)

    def install_monitor(self, mon: Any) -> None:
        """Install a monitor on the networks of all buckets at the current weights.

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
            self._default.install_monitor(mon)
        else:
            super().install_monitor(mon)

    # ------------------------------------------------------------------------------------------------ the training

    snapshot_is_due = _of_training("snapshot_is_due")
    update_full_grads = _of_training("update_full_grads")
    fit = _of_training("fit")
    add_writer = _of_training("add_writer")

    def _fit_of_module(self, *arguments: Any) -> None:
        """``BucketingModule.fit``, without snapshots."""
        super().fit(*arguments)

    @property
    def full_gradient(self) -> Optional[Arrays]:
        """The full gradient at the snapshot, by parameter; None before the first snapshot.

        The mean over the samples of all buckets, of the loss without weight decay, before ``rescale_grad``; on the
        first device. Parameters without a gradient are not there. The arrays are copies.
        """
        return self._default.full_gradient

    @property
    def history(self) -> List[Record]:
        """What was measured at each snapshot so far: a list of `history.Record`. A checkpoint keeps it."""
        return self._default.history

    @property
    def converged(self) -> bool:
        """Whether the last `fit` stopped because the objective's gradient was small enough, see its `tol`."""
        return self._default.converged

    @property
    def update_freq(self) -> int:
        """Number of epochs between two snapshots. AttributeError if `snapshots` says so in another way."""
        return self._default.update_freq

    @update_freq.setter
    def update_freq(self, value: int) -> None:
        self._default.update_freq = value

    # ------------------------------------------------------------------------------------------------- checkpoints

    save_checkpoint = _of_training("save_checkpoint")
    save_optimizer_states = _of_training("save_optimizer_states")
    load_optimizer_states = _of_training("load_optimizer_states")
    last_checkpoint = staticmethod(SVRGModule.last_checkpoint)

    @classmethod
    def load(
        cls, prefix: str, epoch: int, sym_gen: Optional[Callable[[Any], Any]] = None, default_bucket_key: Any = None,
        load_optimizer_states: bool = False, **kwargs: Any,
    ) -> "SVRGBucketingModule":  # fmt: skip
        """Make an SVRGBucketingModule from a checkpoint: one of its own, or a plain BucketingModule's.

        Parameters
        ----------
        prefix : str
            Of the files, as `save_checkpoint` got it.
        epoch : int
            The number in the files' names.
        sym_gen : callable
            As the constructor gets it, and as it was when the checkpoint was saved.
        default_bucket_key : object
            The same.
        load_optimizer_states : bool, default False
            Whether training is to go on from there, bit for bit: loads the optimizer's states, the snapshot, the
            full gradient and the place in the schedule.
        **kwargs : dict
            For the constructor: `context`, for instance. `update_freq` is the saved one by default.

        Returns
        -------
        SVRGBucketingModule
            Not bound yet: `bind` or `fit` puts in what was loaded.

        Raises
        ------
        FileNotFoundError
            There is no such checkpoint.
        ValueError
            A file is damaged, the files were not saved together, or there is no `default_bucket_key`.
        TypeError
            `sym_gen` is no function.
        """
        saved = files.load(prefix, epoch, to_go_on=load_optimizer_states, with_symbol=False)
        if saved.sections is not None:
            kwargs = {**kwargs, **module_state.arguments_of(saved.sections, {"sparse": None, **kwargs})}
        module = cls(checks.sym_gen(sym_gen), default_bucket_key, **kwargs)
        module._default._take(saved, load_optimizer_states)
        internals.preload_buckets(module, module._default)
        return module

    @classmethod
    def load_dict(
        cls, sym_dict: Optional[Mapping[Any, Any]] = None, sym_gen: Optional[Callable[[Any], Any]] = None,
        default_bucket_key: Any = None, arg_params: Optional[Arrays] = None, aux_params: Optional[Arrays] = None,
        **kwargs: Any,
    ) -> "SVRGBucketingModule":  # fmt: skip
        """Make an SVRGBucketingModule from symbols and weights.

        Parameters
        ----------
        sym_dict : dict of object to Symbol
            The symbols of buckets, by their keys.
        sym_gen : callable
            As the constructor gets it: for the names of data and labels, and for the symbols of other buckets.
        default_bucket_key : object
            The same.
        arg_params : dict of str to NDArray
            The weights.
        aux_params : dict of str to NDArray
            The auxiliary states.
        **kwargs : dict
            For the constructor: `context`, for instance.

        Returns
        -------
        SVRGBucketingModule
            Not bound yet.
        """
        make, symbols = checks.sym_gen(sym_gen), dict(sym_dict or {})

        def with_symbols(bucket_key: Any) -> Tuple[Any, Any, Any]:
            symbol, data_names, label_names = make(bucket_key)
            return symbols.get(bucket_key, symbol), data_names, label_names

        module = cls(with_symbols, default_bucket_key, **kwargs)
        # Copies: training writes into them.
        weights = [{name: array.copy() for name, array in (each or {}).items()} for each in (arg_params, aux_params)]
        internals.preload(module._default, *weights)
        internals.preload_buckets(module, module._default)
        return module
