"""Which batches a bound module can take: asked before anything is reshaped, so that an error loses nothing."""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from mxnet.base import MXNetError

from . import mxnet_internals
from .batches import batch_axes

Shape = Tuple[int, ...]


class Inputs(NamedTuple):
    """The shapes of a batch's data and label arrays; those of a list of batches, one for each device, added up."""

    data: List[Shape]
    label: List[Shape]


def inputs(batch: Any) -> Inputs:
    """The shapes of a batch, or of a list of batches.

    Raises
    ------
    ValueError
        The batches of a list differ in shape.
    """
    if not isinstance(batch, list):
        return Inputs(_shapes(batch.data), _shapes(getattr(batch, "label", None)))
    parts = [inputs(part) for part in batch]
    if not parts or any(part.data != parts[0].data for part in parts):
        raise ValueError(
            "a list of batches, one for each device, must not be empty, and they must have the same shapes, not "
            "{}".format([part.data for part in parts])
        )
    return Inputs(*([(len(parts) * shape[0],) + shape[1:] for shape in shapes] for shapes in parts[0]))


def _shapes(arrays: Any) -> List[Shape]:
    return [array.shape for array in arrays or ()]


def check(module: Any, batch: Any, nbatch: Optional[int] = None) -> None:
    """Raise ValueError if the module can't take this batch; with `nbatch`, as a batch of a full pass."""
    given = inputs(batch)
    bound = Inputs([d.shape for d in module.data_shapes], [d.shape for d in module.label_shapes or ()])
    lacks_label = nbatch is not None and bound.label and not given.label
    if given.data == bound.data and not lacks_label and (not (given.label and bound.label) or given == bound):
        return
    devices = len(mxnet_internals.contexts(module))
    if isinstance(batch, list) and len(batch) != devices:
        reason: Optional[str] = "it is a list of {} for {} devices".format(len(batch), devices)
    elif len(given.data) != len(bound.data):
        reason = "data has {} arrays, data_names {}".format(len(given.data), module.data_names)
    elif lacks_label:
        reason = "it has no labels, which the full gradient needs"
    elif not _can_split(module, given):
        reason = "it has too few rows for {} devices".format(devices)
    else:
        reason = _conflict(module, given)
    if reason is not None:
        raise ValueError(
            "{} has data {} and label {}, but the module is bound to data {} and label {}: {}. Give an iterator that "
            "provides what the module was bound to, or bind again".format(
                "the batch" if nbatch is None else "batch %d of train_data" % nbatch, *given, *bound, reason
            )
        )


def can_reshape_to(module: Any, rows: Any) -> bool:
    """Whether the module can be reshaped to this batch."""
    return (
        # mxnet 1.9.1 can't reshape an executor with sparse inputs.
        all(array.stype == "default" for array in mxnet_internals.inputs_of_first_device(module))
        and _can_split(module, inputs(rows))
        and _conflict(module, inputs(rows)) is None
    )


def _can_split(module: Any, given: Inputs) -> bool:
    axes = batch_axes(module.data_shapes)
    rows = [shape[axis] for shape, axis in zip(given.data, axes) if axis >= 0]
    return not rows or mxnet_internals.can_split(module, rows[0])


def _conflict(module: Any, given: Inputs) -> Optional[str]:
    """What mxnet says if these shapes don't fit the parameters and states that the module has."""
    shapes: Dict[str, Shape] = {d.name: shape for d, shape in zip(module.data_shapes, given.data)}
    shapes.update((d.name, shape) for d, shape in zip(module.label_shapes or (), given.label))
    shapes.update(mxnet_internals.parameter_shapes(module))
    if mxnet_internals.state_names(module):
        if len(mxnet_internals.contexts(module)) > 1:
            # The states of several devices have the shapes of parts of a batch: there is nothing to compare.
            return None
        shapes.update(mxnet_internals.state_shapes(module))
    try:
        module.symbol.infer_shape(**shapes)
    except MXNetError as error:
        return str(error).strip().split("\n")[-1]
    return None
