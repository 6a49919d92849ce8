"""What a network is made of, and where its gradients come from, read from its symbol."""

import json
from typing import Any, Dict, Iterator, List, Tuple

from ..mxnet_api.rows import LOSSES, MAKE_LOSS, is_true


def operators(symbol: Any) -> Iterator[Tuple[str, Dict[str, str]]]:
    """The name and attributes of each operator, those in the bodies of loops and conditions included.

    >>> import mxnet as mx
    >>> [name for name, _ in operators(mx.sym.relu(mx.sym.Variable('data') + 1))]
    ['_plus_scalar', 'relu']
    """
    return _operators(json.loads(symbol.tojson()))


def _operators(graph: Dict[str, Any]) -> Iterator[Tuple[str, Dict[str, str]]]:
    for node in graph["nodes"]:
        if node["op"] != "null":
            yield node["op"], node.get("attrs", {})
        for body in node.get("subgraphs", ()):
            yield from _operators(body)


def fixed_gammas(symbol: Any) -> List[str]:
    """The names of the gammas that BatchNorm holds at 1, ``fix_gamma``: an optimizer's changes don't reach the network.

    >>> import mxnet as mx
    >>> data = mx.sym.Variable('data')
    >>> fixed_gammas(mx.sym.BatchNorm(mx.sym.BatchNorm(data, fix_gamma=False, name='free'), name='fixed'))
    ['fixed_gamma']
    """
    nodes = json.loads(symbol.tojson())["nodes"]
    return [
        nodes[node["inputs"][1][0]]["name"]
        for node in nodes
        if node["op"] == "BatchNorm" and is_true(node.get("attrs", {}).get("fix_gamma", "True"))
    ]


def losses(symbol: Any) -> Dict[int, str]:
    """The `normalization` of each loss layer from which gradients come to a variable, by the number of its node.

    They don't come through a BlockGrad, nor from a layer with ``grad_scale=0``.

    >>> import mxnet as mx
    >>> scores = mx.sym.Variable('data')
    >>> losses(mx.sym.Group([mx.sym.SoftmaxOutput(scores), mx.sym.BlockGrad(mx.sym.SVMOutput(scores))]))
    {2: 'null'}
    """
    graph = json.loads(symbol.tojson())
    nodes, found, seen, waiting = graph["nodes"], {}, set(), [number for number, *_ in graph["heads"]]
    while waiting:
        number = waiting.pop()
        attributes, is_loss = nodes[number].get("attrs", {}), nodes[number]["op"] in LOSSES + MAKE_LOSS
        if number in seen or _blocks(nodes[number]) or (is_loss and float(attributes.get("grad_scale", 1)) == 0):
            continue
        seen.add(number)
        waiting += [source for source, *_ in nodes[number]["inputs"]]
        if is_loss and _reaches_a_variable(nodes, nodes[number]["inputs"][0][0]):
            found[number] = attributes.get("normalization", "null")
    return found


def _blocks(node: Dict[str, Any]) -> bool:
    return node["op"] in ("BlockGrad", "stop_gradient")


def _reaches_a_variable(nodes: List[Dict[str, Any]], number: int) -> bool:
    """Whether the gradient of a node's output reaches a variable."""
    reached: List[bool] = []
    for node in nodes[: number + 1]:
        sources = [reached[source] for source, *_ in node["inputs"]]
        reached.append(node["op"] == "null" or (any(sources) and not _blocks(node)))
    return reached[number]


def ends_in_losses(symbol: Any) -> bool:
    """Whether each output is a loss layer's, or lets no gradient through: then whatever head gradient is ignored.

    >>> import mxnet as mx
    >>> scores = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=3)
    >>> loss = mx.sym.SoftmaxOutput(scores)
    >>> ends_in_losses(mx.sym.Group([loss, mx.sym.BlockGrad(scores)])), ends_in_losses(mx.sym.Group([loss, scores]))
    (True, False)
    """
    graph = json.loads(symbol.tojson())
    heads = [graph["nodes"][number] for number, *_ in graph["heads"]]
    return all(
        head["op"] in LOSSES + ("BlockGrad",) and not is_true(head.get("attrs", {}).get("out_grad", "False"))
        for head in heads
    )
