"""What mxnet's operators do to the rows of a batch. Written against mxnet 1.9.1.

A *row* is what belongs to one sample. Full passes must know whether rows influence each other, and whether the gradient
of a batch is the sum or the mean over its rows. An operator that isn't listed here may do anything.
"""

import json
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx

# Layers that ignore the gradient of their output: they put that of a loss, summed over the rows, in its place.
LOSSES = ("SoftmaxOutput", "Softmax", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput",
          "SVMOutput")  # fmt: skip
MAKE_LOSS = ("MakeLoss", "make_loss")

# Kinds of arrays. CONSTANT: without any row. APART: along axis 0 the rows, each computed from that row of the data and
# constants alone. MEAN, SUM: of all rows, or with a gradient that is such a mean. MIXED: anything else, or not known.
CONSTANT, APART, MEAN, SUM, MIXED = "constant", "apart", "mean", "sum", "mixed"

_ROW_BY_ROW = frozenset((
    "Activation", "BlockGrad", "Cast", "clip", "_copy", "identity", "relu", "sigmoid", "tanh", "softsign", "erf", "exp",
    "log", "log1p", "expm1", "abs", "square", "sqrt", "rsqrt", "negative", "reciprocal", "sin", "cos", "arctan", "sign",
    "SoftmaxActivation", "hard_sigmoid", "smooth_l1",
    "_plus_scalar", "_minus_scalar", "_rminus_scalar", "_mul_scalar", "_div_scalar", "_rdiv_scalar", "_power_scalar",
    "_maximum_scalar", "_minimum_scalar", "add_n", "elemwise_add", "elemwise_sub", "elemwise_mul", "elemwise_div",
    "broadcast_add", "broadcast_sub", "broadcast_mul", "broadcast_div", "broadcast_maximum", "broadcast_minimum",
    "_maximum", "_minimum", "Pooling", "LRN", "UpSampling",
))  # fmt: skip
# Only the first input may have rows.
_LAYERS = frozenset(("FullyConnected", "Convolution", "Deconvolution", "Embedding", "LeakyReLU"))
# Linear: of a mean they make a mean.
_LINEAR = frozenset(("_mul_scalar", "_div_scalar", "_plus_scalar", "_minus_scalar", "_rminus_scalar", "negative",
                     "_copy", "identity", "elemwise_add", "broadcast_add", "elemwise_sub", "broadcast_sub", "add_n",
                     *MAKE_LOSS))  # fmt: skip
# The axis by default, and the name of the attribute.
_ALONG_AXIS = {"softmax": ("axis", "-1"), "log_softmax": ("axis", "-1"), "LayerNorm": ("axis", "-1"),
               "Concat": ("dim", "1"), "SliceChannel": ("axis", "1"), "slice_axis": ("axis", "0")}  # fmt: skip
_REDUCTIONS = frozenset(("sum", "mean", "max", "min"))
_RESHAPES = frozenset(("Reshape", "Flatten", "expand_dims", "squeeze"))


def is_true(text: str) -> bool:
    """Whether an attribute's text means True."""
    return text in ("True", "true", "1")


class _Node(NamedTuple):
    """An operator with what goes into it and comes out."""

    operator: str
    attributes: Dict[str, str]
    kinds: List[str]
    shapes: List[Optional[Sequence[int]]]
    out: Optional[Sequence[int]]


def how_rows_enter(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> List[str]:
    """The kind of each node of the symbol's graph.

    `inputs` has the shape of everything that has rows, data and labels, by name; the rows lie along axis 0.

    >>> data = mx.sym.Variable('data')
    >>> centred = mx.sym.broadcast_sub(data, mx.sym.mean(data, axis=0, keepdims=True))
    >>> how_rows_enter(centred, {'data': (4, 3)})
    ['apart', 'mean', 'mixed']
    """
    graph = json.loads(symbol.tojson())
    shapes = _shapes(symbol, inputs)
    kinds: List[str] = []
    outputs: List[Optional[Sequence[int]]] = []
    for node in graph["nodes"]:
        variable = node["op"] == "null"
        outputs.append(shapes.get(node["name"] if variable else node["name"] + "_output"))
        if variable:
            kinds.append(APART if node["name"] in inputs else CONSTANT)
            continue
        sources = [number for number, *_ in node["inputs"]]
        kinds.append(_kind(_Node(
            node["op"], node.get("attrs", {}), [kinds[number] for number in sources],
            [outputs[number] for number in sources], outputs[-1],
        )))  # fmt: skip
    return kinds


def _shapes(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> Dict[str, Optional[Sequence[int]]]:
    internals = symbol.get_internals()
    known = {name: shape for name, shape in inputs.items() if name in symbol.list_arguments()}
    try:
        _, shapes, _ = internals.infer_shape(**known)
    except mx.base.MXNetError:
        shapes = None
    found: Dict[str, Optional[Sequence[int]]] = {}
    for name, shape in zip(internals.list_outputs(), shapes or ()):
        # Two of one name can't be told apart.
        found[name] = None if name in found else shape
    return found


def _kind(node: _Node) -> str:
    if not set(node.kinds) <= {CONSTANT, APART}:
        return _kind_of_means(node)
    if APART not in node.kinds and node.operator != "Custom":
        return CONSTANT
    for operators_of_rule, rule in _RULES:
        if node.operator in operators_of_rule:
            return rule(node)
    return MIXED


def _kind_of_means(node: _Node) -> str:
    kinds = set(node.kinds) - {CONSTANT}
    if node.operator not in _LINEAR or len(kinds) != 1:
        return MIXED
    kind = kinds.pop()
    # A mean and a constant are the mean of the rows with the constant added; to a sum it is added once for all rows.
    return MIXED if kind == SUM and CONSTANT in node.kinds else kind


def _loss(node: _Node) -> str:
    # MakeLoss doesn't divide an array with one axis by the number of its rows.
    divides = node.attributes.get("normalization") == "batch" and (node.operator in LOSSES or _rank(node) > 1)
    return MEAN if divides else _element_by_element(node)


def _element_by_element(node: _Node) -> str:
    for kind, shape in zip(node.kinds, node.shapes):
        # A constant with as many entries along axis 0 as there are rows treats each row differently.
        if kind == CONSTANT and (shape is None or node.out is None or (len(shape) == len(node.out) and shape[0] != 1)):
            return MIXED
    return APART


def _layer(node: _Node) -> str:
    is_random = node.attributes.get("act_type") == "rrelu"
    return APART if node.kinds[0] == APART and set(node.kinds[1:]) <= {CONSTANT} and not is_random else MIXED


def _product(node: _Node) -> str:
    # Of an array with one axis, that axis is summed over.
    sums_over_rows = is_true(node.attributes.get("transpose_a", "False")) or _rank(node) < 2
    return MIXED if sums_over_rows else _layer(node)


def _along_axis(node: _Node) -> str:
    name, default = _ALONG_AXIS[node.operator]
    axis, rank = int(node.attributes.get(name, default)), _rank(node)
    kinds = set(node.kinds) if node.operator == "Concat" else {_layer(node)}
    return APART if kinds == {APART} and rank and axis % rank != 0 else MIXED


def _reduction(node: _Node) -> str:
    axes, rank = _axes(node.attributes.get("axis", "()")), _rank(node)
    if not rank or is_true(node.attributes.get("exclude", "False")):
        return MIXED
    if axes and all(axis % rank for axis in axes):
        return APART
    return {"mean": MEAN, "sum": SUM}.get(node.operator, MIXED)


def _axes(text: str) -> List[int]:
    return [int(part) for part in text.strip("()[]").split(",") if part.strip() not in ("", "None")]


def _reshape(node: _Node) -> str:
    before, after = node.shapes[0], node.out
    return APART if before and after and before[0] == after[0] else MIXED


def _rank(node: _Node) -> int:
    return len(node.shapes[0] or ())


_RULES: List[Tuple[Any, Callable[[_Node], str]]] = [
    (LOSSES + MAKE_LOSS, _loss), (_ROW_BY_ROW, _element_by_element), (_LAYERS, _layer), (("dot",), _product),
    (_ALONG_AXIS, _along_axis),
    (_REDUCTIONS, _reduction), (_RESHAPES, _reshape),
]  # fmt: skip


def unknown_operators(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> List[str]:
    """The operators in which rows are first mixed, or may be.

    >>> unknown_operators(mx.sym.softmax(mx.sym.Variable('data'), axis=0), {'data': (4, 3)})
    ['softmax']
    """
    graph, kinds = json.loads(symbol.tojson()), how_rows_enter(symbol, inputs)
    return sorted({
        node["op"] for node, kind in zip(graph["nodes"], kinds)
        if kind == MIXED and all(kinds[number] != MIXED for number, *_ in node["inputs"])
    })  # fmt: skip
