"""Which batches a bound module can take: asked before anything is reshaped, so that an error loses nothing."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from mxnet.base import MXNetError
from mxnet.io import DataDesc

from . import internals

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
        return Inputs(_shapes(_data_of(batch)), _shapes(getattr(batch, "label", None)))
    parts = [inputs(part) for part in batch]
    if not parts or any(part.data != parts[0].data for part in parts):
        raise ValueError(
            "a list of batches, one for each device, must not be empty, and they must have the same shapes, not "
            "{}".format([part.data for part in parts])
        )
    return Inputs(*([(len(parts) * shape[0],) + shape[1:] for shape in shapes] for shapes in parts[0]))


def _shapes(arrays: Any) -> List[Shape]:
    return [array.shape for array in arrays or ()]


def _are(arrays: Optional[List[Any]], bound: Optional[List[Any]]) -> bool:
    """Whether these arrays are what is bound: the usual case, which must cost little in each step."""
    arrays, bound = arrays or [], bound or []
    return len(arrays) == len(bound) and all(array.shape == each.shape for array, each in zip(arrays, bound))


def _data_of(batch: Any) -> Any:
    """The data arrays of a batch; of one that makes them when they are asked for, something of the same shapes."""
    return getattr(batch, "csr", None) or getattr(batch, "data", None)


def are_bound(module: Any, batch: Any) -> bool:
    """Whether a batch has all the arrays, in the very shapes, that the module is bound to."""
    return _are(_data_of(batch), module.data_shapes) and _are(getattr(batch, "label", None), module.label_shapes)


def check(module: Any, batch: Any, of_pass: str = "") -> bool:
    """Raise ValueError if the module can't take this batch; `of_pass` is its name if it is one of a full pass.

    Returns what `are_bound` does.
    """
    if are_bound(module, batch):
        return True
    bound = Inputs(*([each.shape for each in shapes or ()] for shapes in (module.data_shapes, module.label_shapes)))
    given = inputs(batch)
    # Module ignores data arrays that it has no names for.
    given = given._replace(data=given.data[: len(bound.data)])
    lacks_label = bool(of_pass and bound.label and not given.label)
    if given.data == bound.data and not lacks_label and (not (given.label and bound.label) or given == bound):
        return False
    devices = len(internals.contexts(module))
    if isinstance(batch, list) and len(batch) != devices:
        reason: Optional[str] = "it is a list of {} for {} devices".format(len(batch), devices)
    elif len(given.data) < len(bound.data):
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
                of_pass or "the batch", *given, *bound, reason
            )
        )
    return False


def of_inputs(module: Any) -> Tuple[Dict[str, Shape], bool]:
    """The shapes of a bound module's data and labels, by name, and whether all have their rows along axis 0."""
    described = [*module.data_shapes, *(module.label_shapes or ())]
    return {each.name: each.shape for each in described}, not any(batch_axes(described))


def fits_rows(module: Any, rows: int) -> bool:
    """Whether batches of so many rows fit the network, along axis 0 of all that it is given anew.

    It may have no other inputs, such as states or labels that it isn't bound to: they have the rows of a step's batch.
    """
    data, label = (
        [DataDesc(each.name, (rows,) + each.shape[1:], each.dtype, each.layout) for each in descriptions]
        for descriptions in (module.data_shapes, module.label_shapes or ())
    )
    given = {*internals.parameter_names(module), *(each.name for each in [*data, *label])}
    return (
        not any(batch_axes(data) + batch_axes(label))
        and given.issuperset(module.symbol.list_arguments())
        and _conflict(module, Inputs([each.shape for each in data], [each.shape for each in label])) is None
    )


def has_rows_for(module: Any, data: Any) -> bool:
    """Whether a row of this NDArrayIter has the shapes of a row that the module is bound to."""
    pairs = (data.data, module.data_shapes), (data.label, module.label_shapes or ())
    return all(
        [array.shape[1:] for _, array in arrays] == [each.shape[1:] for each in bound] for arrays, bound in pairs
    )


def lies_with(array: Any, bound: Any) -> bool:
    """Whether an array has the device and the type of one that a network is bound to: it needs no copy."""
    return array.context == bound.context and array.dtype == bound.dtype


def all_lie_with(module: Any, data: Any) -> bool:
    """Whether no array of this NDArrayIter needs a copy for a module on one device."""
    arrays = [array for _, array in [*data.data, *data.label]]
    return all(map(lies_with, arrays, internals.inputs_of_first_device(module, labels=True)))


def input_names(module: Any) -> List[str]:
    """The names of what a bound module is given, in the order of a batch's arrays."""
    return [each.name for each in [*module.data_shapes, *(module.label_shapes or ())]]


def bytes_per_row(module: Any, inputs: bool) -> int:
    """Of what the network computes of one row of a bound module, and with `inputs` of the row itself."""
    shapes = {each.name: each.shape for each in [*module.data_shapes, *(module.label_shapes or ())]}
    computed = module.symbol.get_internals()
    _, outputs, _ = computed.infer_shape(**shapes)
    others = {*module.symbol.list_arguments(), *module.symbol.list_auxiliary_states()} - set(shapes if inputs else ())
    sizes = [np.prod(shape) for name, shape in zip(computed.list_outputs(), outputs) if name not in others]
    return 8 * int(sum(sizes)) // module.data_shapes[0].shape[0]


def can_reshape_to(module: Any, rows: Any) -> bool:
    """Whether the module can be reshaped to this batch."""
    return (
        # mxnet 1.9.1 can't reshape an executor with sparse inputs.
        all(array.stype == "default" for array in internals.inputs_of_first_device(module))
        and _can_split(module, inputs(rows))
        and _conflict(module, inputs(rows)) is None
    )


def batch_axes(descriptions: Optional[Sequence[Any]]) -> List[int]:
    """The batch axis of each array, from the layouts that a module is bound to; -1 where there is none."""
    return [DataDesc.get_batch_axis(description.layout) for description in descriptions or ()]


def _can_split(module: Any, given: Inputs) -> bool:
    axes = batch_axes(module.data_shapes)
    rows = [shape[axis] for shape, axis in zip(given.data, axes) if axis >= 0]
    return not rows or internals.can_split(module, rows[0])


def _conflict(module: Any, given: Inputs) -> Optional[str]:
    """What mxnet says if these shapes don't fit the parameters and states that the module has."""
    shapes: Dict[str, Shape] = {d.name: shape for d, shape in zip(module.data_shapes, given.data)}
    shapes.update((d.name, shape) for d, shape in zip(module.label_shapes or (), given.label))
    shapes.update(internals.parameter_shapes(module))
    if internals.state_names(module):
        if len(internals.contexts(module)) > 1:
            # The states of several devices have the shapes of parts of a batch: there is nothing to compare.
            return None
        shapes.update(internals.state_shapes(module))
    try:
        module.symbol.infer_shape(**shapes)
    except MXNetError as error:
        return str(error).strip().split("\n")[-1]
    return None
