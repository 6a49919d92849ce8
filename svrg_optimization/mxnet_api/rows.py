"""What mxnet's operators do to the rows of a batch. Written against mxnet 1.9.1.

A *row* is what belongs to one sample. Full passes must know whether rows influence each other, and whether the gradient
of a batch is the sum or the mean over its rows. An operator that isn't listed here may do anything.
"""

import json
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx

Shape = Tuple[int, ...]

# Layers that ignore the gradient of their output: they put that of a loss, summed over the rows, in its place.
LOSSES = ("SoftmaxOutput", "Softmax", "LinearRegressionOutput", "LogisticRegressionOutput", "MAERegressionOutput",
          "SVMOutput")  # fmt: skip
MAKE_LOSS = ("MakeLoss", "make_loss")

# What an array has to do with rows. CONSTANT: nothing. ROWS: along axis 0 there is a part for each row. MEAN, SUM: of
# such parts. UNKNOWN: anything else.
CONSTANT, ROWS, MEAN, SUM, UNKNOWN = "constant", "rows", "mean", "sum", "unknown"


class Entry(NamedTuple):
    """What a node of a network has to do with rows; `apart` if up to there rows don't influence each other."""

    form: str
    apart: bool


class _Node(NamedTuple):
    """An operator with what goes into it and comes out; `out_of_more` is the shape of `out` with more rows."""

    operator: str
    attributes: Dict[str, str]
    inputs: List[Entry]
    shapes: List[Optional[Shape]]
    out: Optional[Shape]
    out_of_more: Optional[Shape]

    @property
    def rank(self) -> int:
        """The number of axes of the first input; 0 if it isn't known."""
        return len(self.shapes[0] or ())

    def is_set(self, attribute: str) -> bool:
        """Whether an attribute, false by default, is true."""
        return is_true(self.attributes.get(attribute, "False"))


def is_true(text: str) -> bool:
    """Whether an attribute's text means True."""
    return text in ("True", "true", "1")


def how_rows_enter(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> List[Entry]:
    """What each node of the symbol's graph has to do with rows.

    `inputs` has the shape of everything that has rows, data and labels, by name; the rows lie along axis 0.

    >>> data = mx.sym.Variable('data')
    >>> centred = mx.sym.broadcast_sub(data, mx.sym.mean(data, axis=0, keepdims=True))
    >>> [(entry.form, entry.apart) for entry in how_rows_enter(centred, {'data': (4, 3)})]
    [('rows', True), ('mean', True), ('unknown', False)]
    """
    entries: List[Entry] = []
    for node in _nodes(symbol, inputs, entries):
        entries.append(node if isinstance(node, Entry) else _entry(node))
    return entries


def divides(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> Dict[int, bool]:
    """Whether each loss layer with a `normalization` divides by a number of rows, by the number of its node.

    `inputs` has the shapes that are known.
    """
    found: Dict[int, bool] = {}
    entries: List[Entry] = []
    for number, node in enumerate(_nodes(symbol, inputs, entries)):
        entries.append(Entry(UNKNOWN, False))
        if isinstance(node, _Node) and node.operator in LOSSES + MAKE_LOSS:
            found[number] = node.attributes.get("normalization", "null") != "null" and _obeys_normalization(node)
    return found


def _obeys_normalization(node: _Node) -> bool:
    if node.operator in MAKE_LOSS:
        # It doesn't divide an array with one axis by the number of its rows.
        return node.attributes["normalization"] == "valid" or node.rank != 1
    # Labels of the shape of the data are probabilities, whose gradient isn't divided.
    return node.shapes[0] is None or node.shapes[:1] != node.shapes[1:2]


def _nodes(symbol: Any, inputs: Mapping[str, Sequence[int]], entries: List[Entry]) -> Any:
    """An Entry for each variable and a _Node for each operator, with the `entries` so far for its inputs."""
    graph, shapes = json.loads(symbol.tojson()), _shapes(symbol, inputs)
    more = _shapes(symbol, {name: (2 * shape[0] + 1, *shape[1:]) for name, shape in inputs.items()})
    for node in graph["nodes"]:
        if node["op"] == "null":
            yield Entry(ROWS if node["name"] in inputs else CONSTANT, True)
            continue
        sources = [(graph["nodes"][number], number, output) for number, output, *_ in node["inputs"]]
        yield _Node(
            node["op"], node.get("attrs", {}), [entries[number] for _, number, _ in sources],
            [_shape_of(shapes, source, output) for source, _, output in sources], _shape_of(shapes, node, 0),
            _shape_of(more, node, 0),
        )  # fmt: skip


def _shape_of(shapes: Dict[str, Optional[Shape]], node: Dict[str, Any], output: int) -> Optional[Shape]:
    if node["op"] == "null":
        return shapes.get(node["name"])
    name = node["name"] + "_output"
    return shapes.get(name) if name in shapes else shapes.get(name + str(output))


def _shapes(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> Dict[str, Optional[Shape]]:
    internals = symbol.get_internals()
    known = {name: shape for name, shape in inputs.items() if name in symbol.list_arguments()}
    try:
        _, shapes, _ = internals.infer_shape_partial(**known)
    except mx.base.MXNetError:
        shapes = None
    found: Dict[str, Optional[Shape]] = {}
    for name, shape in zip(internals.list_outputs(), shapes or ()):
        # Two of one name can't be told apart.
        found[name] = shape if name not in found and shape and 0 not in shape else None
    return found


def _entry(node: _Node) -> Entry:
    forms = {each.form for each in node.inputs}
    if forms <= {CONSTANT} and node.operator != "Custom":
        return Entry(CONSTANT, True)
    if not forms <= {CONSTANT, ROWS}:
        return _of_means(node, forms - {CONSTANT})
    apart = all(each.apart for each in node.inputs)
    for listed, rule in _RULES:
        if node.operator in listed:
            entry = rule(node)
            return Entry(entry.form, entry.apart and apart)
    return _of_unknown(node)


def _of_means(node: _Node, forms: Any) -> Entry:
    # A mean and a constant are the mean of the rows with the constant added; to a sum it is added once for all rows.
    constant = any(each.form == CONSTANT for each in node.inputs)
    if node.operator not in _LINEAR or len(forms) != 1 or (constant and SUM in forms):
        return Entry(UNKNOWN, False)
    return Entry(forms.pop(), all(each.apart for each in node.inputs))


def _of_unknown(node: _Node) -> Entry:
    """Rows may influence each other; but there are as many parts as before."""
    first = next((shape for each, shape in zip(node.inputs, node.shapes) if each.form == ROWS), None)
    follows = _keeps_axis_0(first, node.out)
    if first and node.out_of_more:
        # Not by chance.
        follows = follows and node.out_of_more[0] == 2 * first[0] + 1
    return Entry(ROWS if follows else UNKNOWN, False)


def _keeps_axis_0(before: Optional[Shape], after: Optional[Shape]) -> bool:
    return bool(before and after and before[0] == after[0])


# ------------------------------------------------------------------------------------------------ what is known

APART = Entry(ROWS, True)

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
# Of a mean they make a mean.
_LINEAR = frozenset(("_mul_scalar", "_div_scalar", "_plus_scalar", "_minus_scalar", "_rminus_scalar", "negative",
                     "_copy", "identity", "elemwise_add", "broadcast_add", "elemwise_sub", "broadcast_sub", "add_n",
                     "Reshape", *MAKE_LOSS))  # fmt: skip
# The name of the attribute, and the axis by default.
_ALONG_AXIS = {"softmax": ("axis", "-1"), "log_softmax": ("axis", "-1"), "LayerNorm": ("axis", "-1"),
               "Concat": ("dim", "1"), "SliceChannel": ("axis", "1"), "slice_axis": ("axis", "0")}  # fmt: skip
_REDUCTIONS = frozenset(("sum", "mean", "max", "min"))
_RESHAPES = frozenset(("Reshape", "Flatten", "expand_dims", "squeeze"))


def _element_by_element(node: _Node) -> Entry:
    for entry, shape in zip(node.inputs, node.shapes):
        if not shape or not node.out:
            return _of_unknown(node)
        aligned = len(shape) == len(node.out)
        # Each part along axis 0 must meet its own row. A constant that has as many entries there as there are rows
        # treats each row differently; arrays with fewer axes are aligned at the last one.
        if entry.form == ROWS and not (aligned and shape[0] == node.out[0]):
            return _of_unknown(node)
        if entry.form == CONSTANT and (len(shape) > len(node.out) or (aligned and shape[0] != 1)):
            return _of_unknown(node)
    return APART


def _loss(node: _Node) -> Entry:
    # The labels may have an axis less than the data.
    return APART if _keeps_axis_0(node.shapes[0], node.out) and node.inputs[0].form == ROWS else _of_unknown(node)


def _layer(node: _Node) -> Entry:
    others = {each.form for each in node.inputs[1:]} <= {CONSTANT}
    is_random = node.attributes.get("act_type") == "rrelu"
    return APART if node.inputs[0].form == ROWS and others and not is_random else _of_unknown(node)


def _product(node: _Node) -> Entry:
    # Of an array with one axis, that axis is summed over.
    return _of_unknown(node) if node.is_set("transpose_a") or node.rank < 2 else _layer(node)


def _along_axis(node: _Node) -> Entry:
    name, default = _ALONG_AXIS[node.operator]
    axis = int(node.attributes.get(name, default))
    concatenates = node.operator == "Concat" and all(each.form == ROWS for each in node.inputs)
    known = concatenates or (node.operator != "Concat" and _layer(node) == APART)
    return APART if known and node.rank and axis % node.rank != 0 else _of_unknown(node)


def _reduction(node: _Node) -> Entry:
    axes = [int(part) for part in node.attributes.get("axis", "()").strip("()[]").split(",")
            if part.strip() not in ("", "None")]  # fmt: skip
    if not node.rank or node.is_set("exclude"):
        return _of_unknown(node)
    if axes and all(axis % node.rank for axis in axes):
        return APART
    return Entry({"mean": MEAN, "sum": SUM}.get(node.operator, UNKNOWN), node.operator in ("mean", "sum"))


def _reshape(node: _Node) -> Entry:
    return APART if _keeps_axis_0(node.shapes[0], node.out) else Entry(UNKNOWN, False)


_RULES: List[Tuple[Any, Callable[[_Node], Entry]]] = [
    (LOSSES + MAKE_LOSS, _loss), (_ROW_BY_ROW, _element_by_element), (_LAYERS, _layer), (("dot",), _product),
    (_ALONG_AXIS, _along_axis), (_REDUCTIONS, _reduction), (_RESHAPES, _reshape),
]  # fmt: skip


def unknown_operators(symbol: Any, inputs: Mapping[str, Sequence[int]]) -> List[str]:
    """The operators in which rows are first mixed, or may be.

    >>> unknown_operators(mx.sym.softmax(mx.sym.Variable('data'), axis=0), {'data': (4, 3)})
    ['softmax']
    """
    graph, entries = json.loads(symbol.tojson()), how_rows_enter(symbol, inputs)
    return sorted({
        node["op"] for node, entry in zip(graph["nodes"], entries)
        if not entry.apart and all(entries[number].apart for number, *_ in node["inputs"])
    })  # fmt: skip
