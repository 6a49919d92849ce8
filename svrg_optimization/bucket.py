"""One bucket: a network of a training that several networks share."""

import numbers
from functools import partial
from typing import Any, Callable, Dict, Optional, Tuple

from mxnet.module import Module

from . import notices
from .compute import data
from .compute.bucketed_pass import BucketedPass
from .compute.full_pass import FullPass
from .mxnet_api import internals
from .svrg_module import OutGrads, SVRGModule

# What an SVRGModule has of its training. All else is of its network, and each bucket has its own.
OF_TRAINING = (
    "_snapshot", "_clock", "_schedule", "_iterates", "_coefficient", "_draws", "_optimizer_draws", "_states",
    "_workers", "_steps", "_position", "_progress", "_notices", "_variance_monitor", "_updates_without_snapshot",
    "_warm_start", "_epochs_of_fit", "_run",
)  # fmt: skip


class _OfTraining:
    """An attribute that all buckets of a training share, whichever of them sets it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, bucket: Any, _: Any = None) -> Any:
        if bucket is None:
            return self
        if self._name not in bucket.training:
            raise AttributeError(self._name)
        return bucket.training[self._name]

    def __set__(self, bucket: Any, value: Any) -> None:
        if not bucket.joins:
            bucket.training[self._name] = value


class Bucket(SVRGModule):
    """An SVRGModule that shares its training with other buckets.

    Parameters
    ----------
    default : Bucket or None
        That of the default bucket, whose training this one joins. None to make that one.
    *args, **kwargs
        Of an SVRGModule.

    Attributes
    ----------
    training : dict
        What all buckets share: the attributes `OF_TRAINING`.
    joins : bool
        Whether the constructor is at work on a bucket that joins a training. Nothing of the training changes then.
    whole : SVRGBucketingModule or None
        The module of all buckets, while that has a method of the default bucket at work. Not longer: the two would keep
        each other in memory.
    """

    def __init__(self, default: "Optional[Bucket]", *args: Any, **kwargs: Any) -> None:
        self.training: Dict[str, Any] = {} if default is None else default.training
        self.joins, self.whole = default is not None, None  # type: bool, Any
        super().__init__(*args, **kwargs)
        self.joins = False
        if self._network_draws:
            self._draws.activate()

    @property
    def averages(self) -> bool:
        """Whether a batch's gradient is the mean over its rows."""
        return self._gradient.is_mean

    def notice_another_normalization(self) -> None:
        """Say that some buckets average and some don't."""
        self._notices.say(notices.MIXED_BUCKETS)

    def get_params(self) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """Copy the weights and auxiliary states, which are those of all buckets, to the cpu."""
        if self.binded:
            # Another bucket may have set them.
            internals.take_weights_of_devices(self)
        return super().get_params()

    def update_full_grads(self, train_data: Any, **settings: Any) -> None:
        """Take a snapshot, and compute the full gradient over the batches of all buckets."""
        sentences, left_out = data.left_out(train_data)
        if left_out:
            self._notices.say(notices.LEFT_OUT, sentences, left_out)
        super().update_full_grads(train_data, **settings)

    def _full_pass(self, out_grads: OutGrads) -> FullPass:
        def pass_of(bucket: Module) -> FullPass:
            return SVRGModule._full_pass(bucket, out_grads)

        return BucketedPass(self._network_of_pass(), self.whole._bucket_of, pass_of, self.whole._current_bucket())

    def _fit_of_module(self, *arguments: Any) -> None:
        self.whole._fit_of_module(*arguments)

    def _other_files(self, remove_amp_cast: bool) -> Dict[str, Callable[[str], None]]:
        # What BucketingModule.load reads. It knows keys that are integers only.
        buckets = internals.buckets(self.whole)
        if not all(isinstance(key, numbers.Integral) and not isinstance(key, bool) for key in buckets):
            return {}
        found: Dict[str, Callable[[str], None]] = {
            "-{}-symbol.json".format(key): partial(bucket.symbol.save, remove_amp_cast=remove_amp_cast)
            for key, bucket in buckets.items()
        }
        return {**found, ".buckets": partial(internals.save_bucket_keys, list(buckets))}


for _name in OF_TRAINING:
    setattr(Bucket, _name, _OfTraining(_name))
