"""What the package says to its users: the texts of errors, warnings and log lines, read from its source."""

import ast
import pathlib
import re
from typing import Dict, Iterator, List, NamedTuple

PACKAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "svrg_optimization"
# `{!r}` of str.format, `%.3g` of logging: what differs from one occurrence to the next.
PLACEHOLDER = re.compile(r"\{\d*(?:![rs])?(?::[^{}]*)?\}|%[-#0 +]*\d*(?:\.\d+)?[sdgrf]")
GAP = "…"
# Calls that say something, by the last part of their name; `say` is that of Notices, of the launcher and of the watch.
SAYING = {"warning", "warn", "error", "say", "end", "exit", "say_later"}
# A text of fewer words is a name or a format, no message.
LEAST_WORDS = 4


class Message(NamedTuple):
    path: str  # within the package
    line: int
    text: str  # with GAP for what differs


def template(text: str) -> str:
    """A text as its readers see it, with GAP for what is filled in.

    >>> template("update_freq={!r} must be {:.3g}, not %d")
    'update_freq=… must be …, not …'
    """
    return PLACEHOLDER.sub(GAP, text)


def sources() -> Iterator[pathlib.Path]:
    return iter(sorted(PACKAGE.rglob("*.py")))


def _texts(node: ast.AST, named: Dict[str, str]) -> Iterator[str]:
    """All texts of an expression, those of module-level names included."""
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            yield each.value
        elif isinstance(each, (ast.Name, ast.Attribute)):
            name = each.id if isinstance(each, ast.Name) else each.attr
            if name in named:
                yield named[name]


def _is_saying(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise):
        return node.exc is not None
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in SAYING


def of_source(path: pathlib.Path, named: Dict[str, str]) -> Iterator[Message]:
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if _is_saying(node):
            for text in _texts(node, named):
                if len(text.split()) >= LEAST_WORDS:
                    yield Message(path.relative_to(PACKAGE).as_posix(), node.lineno, template(text))


def _named(trees: List[ast.Module]) -> Dict[str, str]:
    """The texts that have a name of their own at the top of a module."""
    found = {}
    for tree in trees:
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found[target.id] = node.value.value
    return found


def all_of_package() -> List[Message]:
    """Every message; one that is raised at several places is there several times."""
    named = _named([ast.parse(path.read_text("utf-8")) for path in sources()])
    return [message for path in sources() for message in of_source(path, named)]


def all_texts() -> List[str]:
    """Every text of the source, as a template: log lines of level info are among them."""
    return [
        template(node.value)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
