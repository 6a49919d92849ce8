"""Which inputs of a network name the rows of its parameters: the columns of csr data, or what an Embedding looks up.

A network is known if each parameter of this kind, and each csr input, meets only operators that are listed here. Of
such a network a copy can be made that has only the rows that a batch names, with numbers of their own.
Written against mxnet 1.9.1.
"""

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import mxnet as mx

from .rows import is_true

# A csr array keeps its columns, and a parameter its rows; of what isn't stored, zeros, they leave zeros.
_KEEP = ("square", "abs", "negative", "sign", "sqrt", "relu", "_mul_scalar", "_div_scalar", "_copy", "identity")
_KEEP_OF_TWO = ("elemwise_add", "elemwise_sub", "elemwise_mul", "_plus", "_minus", "_mul")
# Sums over the numbers of a row.
_SUM_ROWS = ("sum", "_square_sum")
ROWS, COLUMNS = "rows", "columns"


class RowGroup(NamedTuple):
    """Parameters whose rows are named by the same inputs.

    `columns` are csr inputs, `values` dense ones, whose numbers are those of rows. `size` is the number of rows.
    `only_meet` says that the parameters meet these inputs as they are, and nothing else: then they may be dense.
    """

    parameters: List[str]
    columns: List[str]
    values: List[str]
    size: int
    only_meet: bool = True

    @property
    def inputs(self) -> List[str]:
        """All inputs."""
        return [*self.columns, *self.values]


class _Groups:
    """Names that belong together."""

    def __init__(self) -> None:
        self._of: Dict[str, Set[str]] = {}

    def join(self, *names: str) -> str:
        """Put names into one group; one of them, by which the group is known."""
        whole: Set[str] = set().union(*(self._of.get(name, {name}) for name in names))
        for name in whole:
            self._of[name] = whole
        return names[0]

    def all(self) -> List[Set[str]]:
        """The groups."""
        found: List[Set[str]] = []
        for group in self._of.values():
            if group not in found:
                found.append(group)
        return found


def row_groups(
    symbol: Any, shapes: Mapping[str, Sequence[int]], sparse: Sequence[str], csr: Sequence[str],
    parameters: Sequence[str],
) -> Optional[List[RowGroup]]:  # fmt: skip
    """The groups of a network's parameters; None if it isn't known what names the rows of one of `sparse`.

    Parameters
    ----------
    symbol : Symbol
    shapes : mapping
        Of all inputs and parameters, by name.
    sparse : list of str
        The parameters whose gradients are `row_sparse`.
    csr : list of str
        The inputs that are csr.
    parameters : list of str
        All parameters.

    Examples
    --------
    >>> data, weight = mx.sym.Variable('data', stype='csr'), mx.sym.Variable('weight', stype='row_sparse')
    >>> network = mx.sym.MakeLoss(mx.sym.dot(data, weight))
    >>> row_groups(network, {'data': (4, 9), 'weight': (9, 1)}, ['weight'], ['data'], ['weight'])
    [RowGroup(parameters=['weight'], columns=['data'], values=[], size=9, only_meet=True)]
    """
    graph = json.loads(symbol.tojson())
    nodes, groups = graph["nodes"], _Groups()
    # Which axis of a node's output has a part for each row, and to which group that belongs.
    axes: List[Optional[Tuple[str, str]]] = []
    looked_up: Set[str] = set()
    read_otherwise: Set[str] = set()
    for node in nodes:
        name, sources = node["name"], [number for number, *_ in node["inputs"]]
        if node["op"] == "null":
            axis = ROWS if name in sparse else COLUMNS if name in csr else None
            axes.append(None if axis is None else (axis, groups.join(name)))
            continue
        if node["op"] == "dot" and axes[sources[0]] is not None and axes[sources[1]] is None:
            other = nodes[sources[1]]["name"]
            if other in read_otherwise:
                return None
            if other in parameters:
                axes[sources[1]] = ROWS, groups.join(other)
        found = _Meeting(node, [axes[number] for number in sources], [nodes[number] for number in sources])
        if found.is_lookup:
            looked_up.add(found.join(groups))
        else:
            read_otherwise.update(nodes[number]["name"] for number in sources)
        if found.is_lookup or not found.tagged:
            axes.append(None)
        elif found.contracts:
            found.join(groups)
            axes.append(None)
        elif found.keeps:
            axes.append((found.tagged[0][0], found.join(groups)))
        else:
            return None
    read_otherwise.update(nodes[number]["name"] for number, *_ in graph["heads"])
    if any(axes[number] is not None for number, *_ in graph["heads"]) or looked_up & read_otherwise:
        return None
    changed = {nodes[number]["name"] for node in nodes if node["op"] not in ("null", "dot", "Embedding")
               for number, *_ in node["inputs"]}  # fmt: skip
    return _as_groups(groups.all(), shapes, sparse, csr, parameters, changed)


class _Meeting:
    """An operator, and the arrays with rows or columns that it gets."""

    def __init__(self, node: Dict[str, Any], axes: List[Optional[Tuple[str, str]]], sources: List[Any]) -> None:
        self._operator, self._attributes = node["op"], node.get("attrs", {})
        self._axes, self._sources = axes, sources
        self.tagged = [axis for axis in axes if axis is not None]

    @property
    def _kinds(self) -> List[Optional[str]]:
        return [None if axis is None else axis[0] for axis in self._axes]

    @property
    def is_lookup(self) -> bool:
        """Whether this is an Embedding whose weight has rows of the kind."""
        return self._operator == "Embedding" and self._kinds == [None, ROWS] and self._sources[0]["op"] == "null"

    @property
    def contracts(self) -> bool:
        """Whether this is a product in which rows and columns meet."""
        turned = [is_true(self._attributes.get("transpose_" + side, "False")) for side in "ab"]
        return self._operator == "dot" and self._kinds == [COLUMNS, ROWS] and not any(turned)

    @property
    def keeps(self) -> bool:
        """Whether the output has the same rows or columns."""
        if self._operator in _SUM_ROWS:
            axis, excludes = self._attributes.get("axis", "()"), is_true(self._attributes.get("exclude", "False"))
            return self._kinds == [ROWS] and axis in ("1", "(1,)") and not excludes
        if self._operator in _KEEP_OF_TWO:
            return None not in self._kinds and len(set(self._kinds)) == 1
        return self._operator in _KEEP and len(self._axes) == 1

    def join(self, groups: _Groups) -> str:
        """Put together what meets here; the name of one of the group. Of a lookup, that of the input."""
        names = [name for _, name in self.tagged]
        return groups.join(*([self._sources[0]["name"]] if self.is_lookup else []), *names)


def _as_groups(
    found: List[Set[str]], shapes: Mapping[str, Sequence[int]], sparse: Sequence[str], csr: Sequence[str],
    parameters: Sequence[str], changed: Set[str],
) -> Optional[List[RowGroup]]:  # fmt: skip
    groups = []
    for names in found:
        of_group = [name for name in parameters if name in names]
        columns = sorted(name for name in names if name in csr)
        values = sorted(name for name in names if name not in csr and name not in parameters)
        sizes = {shapes[name][0] for name in of_group} | {shapes[name][1] for name in columns}
        if not of_group or not (columns or values) or len(sizes) != 1 or any(name not in shapes for name in names):
            return None
        groups.append(RowGroup(of_group, columns, values, sizes.pop(), changed.isdisjoint(of_group)))
    named = {name for group in groups for name in group.parameters}
    return groups if named.issuperset(sparse) else None


def with_fewer_rows(symbol: Any, groups: Sequence[RowGroup], sizes: Sequence[int]) -> Any:
    """The network with so many rows in the parameters of each group.

    >>> data, weight = mx.sym.Variable('data'), mx.sym.Variable('weight', shape=(9, 2))
    >>> network = mx.sym.Embedding(data, weight, input_dim=9, output_dim=2, sparse_grad=True)
    >>> smaller = with_fewer_rows(network, [RowGroup(['weight'], [], ['data'], 9)], [4])
    >>> smaller.infer_shape(data=(3,))[0]
    [(3,), (4, 2)]
    """
    graph = json.loads(symbol.tojson())
    of_name = {name: size for group, size in zip(groups, sizes) for name in [*group.parameters, *group.inputs]}
    for node in graph["nodes"]:
        if node["op"] == "null" and node["name"] in of_name:
            node.get("attrs", {}).pop("__shape__", None)
        elif node["op"] == "Embedding":
            weight = graph["nodes"][node["inputs"][1][0]]["name"]
            if weight in of_name:
                node["attrs"]["input_dim"] = str(of_name[weight])
    return mx.sym.load_json(json.dumps(graph))
