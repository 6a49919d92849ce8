"""What a network is made of, read from its symbol."""

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
    return any("batchnorm" in name.lower().replace("_", "") for name, _ in operators(symbol))
