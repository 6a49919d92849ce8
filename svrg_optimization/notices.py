"""What a module says once: training goes on, but perhaps not as the user believes."""

from typing import Any, Set

MIXED_NORMALIZATION = (
    "some output layers have normalization='batch' or 'valid' and some have not: batches with fewer rows than the rest "
    "are weighed only approximately; give all output layers the same normalization"
)
CUSTOM_OPERATOR = (
    "the network has a Custom operator: random numbers that it draws by itself can't be repeated at the snapshot, and "
    "then the control variate adds to the noise instead of taking it away"
)
NO_SNAPSHOT = (
    "%d updates without a snapshot: so far this is plain training, not SVRG. In a loop of your own, begin an epoch by: "
    "if epoch %% module.update_freq == 0: module.update_full_grads(train_data)"
)
OTHER_SAMPLES = (
    "%s gave %d samples in this full pass, and %d in the one before. The full gradient is the mean over the samples "
    "that its pass was given: an iterator that skips or repeats rows makes it wrong. Of mxnet's readers, CSVIter and "
    "ImageDetRecordIter need round_batch=False; LibSVMIter, MNISTIter and ImageRecordIter need a batch size that "
    "divides the number of rows. Or give fit() other data over the same samples, an NDArrayIter say, as snapshot_data"
)
IN_THE_MIDDLE = (
    "a full pass in the middle of an epoch has read %s to its end, and reset it: a loop over the same iterator begins "
    "anew. Give update_full_grads() another iterator over the same samples, an NDArrayIter or a CSRIter"
)
FILLED_UP = (
    "a batch with padded rows was filled up with copies of a row, since the network can't take the true rows alone. "
    "The full gradient is exact only if rows don't influence each other, which isn't known of %s; let the batch size "
    "divide the number of samples"
)
MIXED_BUCKETS = (
    "the losses of some buckets average over the rows of a batch, normalization='batch' or 'valid', and those of "
    "others add up: a full gradient over both is right for neither; give all buckets the same normalization"
)
LEFT_OUT = (
    "BucketSentenceIter gives full batches only: of %d sentences it leaves out %d, others in each pass. The full "
    "gradient is that of the sentences that its pass was given, and the steps take others. Let the batch size divide "
    "the number of sentences of each bucket, or give LockedBatches(data)"
)

UNSAVED_SCHEDULE = (
    "the learning rate schedule %s keeps %s, which a checkpoint can't hold: a resumed run begins the schedule anew, at "
    "the number of updates that it has come to. Let a schedule keep numbers and text only"
)


class Notices:
    """Says each warning once."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._said: Set[str] = set()

    def say(self, message: str, *args: Any) -> None:
        """Log a warning, unless it has been said."""
        if message not in self._said:
            self._said.add(message)
            self._logger.warning(message, *args)
