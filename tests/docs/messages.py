"""What the package says to its users: the texts of errors, warnings and log lines, read from its source."""

import ast
import functools
import pathlib
import re
from typing import Dict, Iterator, List, NamedTuple, Sequence

PACKAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "svrg_optimization"
# `{!r}` of str.format, `%.3g` of logging: what differs from one occurrence to the next.
PLACEHOLDER = re.compile(r"\{\w*(?:![rs])?(?::[^{}]*)?\}|%[-#0 +]*\d*(?:\.\d+)?[sdgrf]")
GAP = "…"
# Calls that say something, by the last part of their name: of loggers and warnings, of Notices, of a job's processes.
SAYING = {"warning", "warn", "error", "say", "say_later", "end", "_end", "_end_all", "exit"}
# A text of fewer words is a name or a format, no message.
LEAST_WORDS = 4


class Message(NamedTuple):
    """A place that says something, by one of these texts or by some of them together."""

    path: str  # within the package
    line: int
    texts: Sequence[str]  # with GAP for what differs


def template(text: str) -> str:
    """A text as its readers see it, with GAP for what is filled in.

    >>> template("update_freq={!r} must be {:.3g}{}, not 5 %%")
    'update_freq=… must be …, not 5 %'
    """
    return re.sub(GAP + "+", GAP, PLACEHOLDER.sub(GAP, text).replace("%%", "%"))


def fits(fragment: str, text: str) -> bool:
    """Whether a fragment, with GAP for anything, occurs in a text.

    >>> fits("tol=… must be a number", "tol=… must be a number between 0 and 1"), fits("tol=… may", "tol=… must")
    (True, False)
    """
    return re.search(".*?".join(map(re.escape, fragment.split(GAP))), text) is not None


@functools.lru_cache(maxsize=None)
def _trees() -> Dict[str, ast.Module]:
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


@functools.lru_cache(maxsize=None)
def all_texts() -> List[str]:
    """Every text of the source but docstrings, as a template."""
    found = []
    for tree in _trees().values():
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [template(node.value) for node in ast.walk(tree) if _is_text(node) and id(node) not in docstrings]
    return found


def _names(trees: Sequence[ast.Module]) -> Dict[str, str]:
    """The texts that have a name at the top of a module."""
    found = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and _is_text(node.value):
                found.update((target.id, node.value.value) for target in node.targets if isinstance(target, ast.Name))
    return found


def _texts(node: ast.AST, names: Dict[str, str]) -> Iterator[str]:
    """The texts of an expression, those that have a name included."""
    for each in ast.walk(node):
        if _is_text(each):
            yield each.value
        elif isinstance(each, ast.Name):
            yield names.get(each.id, "")
        elif isinstance(each, ast.Attribute):
            yield names.get(each.attr, "")


def _says(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return node.exc is not None
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in SAYING


@functools.lru_cache(maxsize=None)
def messages() -> List[Message]:
    """Every place that raises an error, or warns, in words."""
    trees = _trees()
    names, found = _names(list(trees.values())), []
    for path, tree in trees.items():
        for node in filter(_says, ast.walk(tree)):
            texts = [template(text) for text in _texts(node, names) if len(text.split()) >= LEAST_WORDS]
            if texts:
                found.append(Message(path, node.lineno, texts))
    return found
