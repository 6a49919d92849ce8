"""What a network is made of, read from its symbol."""

import ast
import json
from typing import Any, Dict, Iterator, List, Tuple


def operators(symbol: Any) -> Iterator[Tuple[str, Dict[str, str]]]:
    """The name and attributes of each operator, those in the bodies of loops and conditions included.

    Examples
    --------
    >>> import mxnet as mx
    >>> [name for name, _ in operators(mx.sym.relu(mx.sym.Variable('data') + 1))]
    ['_plus_scalar', 'relu']
    """
    return _operators(json.loads(symbol.tojson()))


def heads(symbol: Any) -> List[Tuple[str, Dict[str, str]]]:
    """The name and attributes of the operator behind each output; 'null' for a variable.

    Examples
    --------
    >>> import mxnet as mx
    >>> heads(mx.sym.relu(mx.sym.Variable('data') + 1))
    [('relu', {})]
    """
    graph = json.loads(symbol.tojson())
    nodes = [graph["nodes"][head[0]] for head in graph["heads"]]
    return [(node["op"], node.get("attrs", {})) for node in nodes]


def _operators(graph: Dict[str, Any]) -> Iterator[Tuple[str, Dict[str, str]]]:
    for node in graph["nodes"]:
        if node["op"] != "null":
            yield node["op"], node.get("attrs", {})
        for body in node.get("subgraphs", ()):
            yield from _operators(body)


def couples_rows(symbol: Any) -> bool:
    """Whether the gradient of one row depends on the other rows of the batch: by batch normalisation."""
    return any(_is_batch_normalisation(name) for name, _ in operators(symbol))


def _is_batch_normalisation(name: str) -> bool:
    return "batchnorm" in name.lower().replace("_", "")


def may_mix_rows(symbol: Any) -> bool:
    """Whether an operator might compute with several rows of the batch at once, as far as its attributes tell.

    Examples
    --------
    >>> import mxnet as mx
    >>> data = mx.sym.Variable('data')
    >>> may_mix_rows(mx.sym.mean(data, axis=1)), may_mix_rows(mx.sym.mean(data, axis=0)), may_mix_rows(mx.sym.max(data))
    (False, True, True)
    """
    return any(_may_mix_rows(name, attributes) for name, attributes in operators(symbol))


# Without an axis these reduce all of them. And those that have none to tell by.
_REDUCTIONS = ("sum", "mean", "max", "min", "prod", "nansum", "nanprod", "norm", "_square_sum")
_MIXING = ("dot", "IdentityAttachKLSparseReg", "Custom")


def _may_mix_rows(name: str, attributes: Dict[str, str]) -> bool:
    if _is_batch_normalisation(name) or name in _MIXING or attributes.get("exclude", "False") not in ("False", "0"):
        return True
    reduces = name in _REDUCTIONS or name.endswith("_axis")
    axes = ast.literal_eval(attributes.get("axis", attributes.get("dim", "()" if reduces else "1")))
    axes = axes if isinstance(axes, (tuple, list)) else (axes,)
    return not axes or any(axis is None or not (axis > 0 or axis == -1) for axis in axes)
