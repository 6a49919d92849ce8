"""What a network is made of, read from its symbol."""

import json
from typing import Any, Dict, Iterator, Tuple


def operators(symbol: Any) -> Iterator[Tuple[str, Dict[str, str]]]:
    """The name and attributes of each operator, those in the bodies of loops and conditions included.

    Examples
    --------
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


def couples_rows(symbol: Any) -> bool:
    """Whether the gradient of one row depends on the other rows of the batch: by batch normalisation."""
    return any(_is_batch_normalisation(name) for name, _ in operators(symbol))


def _is_batch_normalisation(name: str) -> bool:
    return "batchnorm" in name.lower().replace("_", "")


# The layers whose gradient has a term for each row, unless they have a `normalization`.
LOSSES = ("SoftmaxOutput", "Softmax", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput",
          "SVMOutput")  # fmt: skip


def ends_in_losses(symbol: Any) -> bool:
    """Whether each output is a loss layer's, or lets no gradient through: then whatever head gradient is ignored.

    Examples
    --------
    >>> import mxnet as mx
    >>> scores = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=3)
    >>> loss = mx.sym.SoftmaxOutput(scores)
    >>> ends_in_losses(mx.sym.Group([loss, mx.sym.BlockGrad(scores)])), ends_in_losses(mx.sym.Group([loss, scores]))
    (True, False)
    """
    graph = json.loads(symbol.tojson())
    return all(_ignores_its_head_gradient(graph["nodes"][number]) for number, *_ in graph["heads"])


def _ignores_its_head_gradient(node: Dict[str, Any]) -> bool:
    asked_for = node.get("attrs", {}).get("out_grad", "False") in ("True", "true", "1")
    return node["op"] in LOSSES + ("BlockGrad",) and not asked_for


# A weight that is computed from the data would mix rows, but has the batch's size: no larger batch fits such a network.
_BY_ROW = LOSSES + (
    "FullyConnected", "Convolution", "Deconvolution", "Pooling", "Activation", "LeakyReLU", "Embedding", "Flatten",
    "LRN", "UpSampling", "SoftmaxActivation", "BlockGrad", "Cast", "clip", "_copy", "add_n", "elemwise_add",
    "elemwise_sub", "elemwise_mul", "elemwise_div", "broadcast_add", "broadcast_sub", "broadcast_mul", "broadcast_div",
    "_maximum", "_minimum", "_plus_scalar", "_minus_scalar", "_rminus_scalar", "_mul_scalar", "_div_scalar",
    "_rdiv_scalar", "_power_scalar", "relu", "sigmoid", "tanh", "softsign", "erf", "exp", "log", "log1p", "expm1",
    "abs", "square", "sqrt", "negative",
)  # fmt: skip
# Operators with an axis, and which one it is by default.
_ALONG_AXIS = {"softmax": "-1", "log_softmax": "-1", "LayerNorm": "-1", "Concat": "1", "SliceChannel": "1"}


def keeps_rows_apart(symbol: Any) -> bool:
    """Whether each operator is known to compute a row of its output, along axis 0, from that row of its inputs alone.

    Examples
    --------
    >>> import mxnet as mx
    >>> data = mx.sym.Variable('data')
    >>> keeps_rows_apart(mx.sym.tanh(data)), keeps_rows_apart(mx.sym.softmax(data, axis=0))
    (True, False)
    """
    return all(
        name in _BY_ROW or (name in _ALONG_AXIS and _is_along_another_axis(name, attributes))
        for name, attributes in operators(symbol)
    )


def _is_along_another_axis(name: str, attributes: Dict[str, str]) -> bool:
    # The last axis of an array that has one axis is axis 0.
    return int(attributes.get("dim" if name == "Concat" else "axis", _ALONG_AXIS[name])) > 0
