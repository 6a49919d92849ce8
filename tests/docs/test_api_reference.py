"""The API reference has every public name, and every docstring says what the parameters mean."""

import importlib
import inspect
import pathlib
import re

import pytest
from numpydoc import validate
from numpydoc.docscrape import NumpyDocString

import svrg_optimization

ROOT = pathlib.Path(__file__).resolve().parents[2]
API = (ROOT / "docs" / "api.md").read_text("utf-8")
MODULES = [
    "schedules", "coefficients", "history", "theory", "proximal", "adamw", "step_sizes", "variance_monitor",
    "diagnosis", "csr_iter", "locked_batches", "horovod_store", "launch", "server", "svrg_bucketing_module",
    "svrg_module", "svrg_optimizer",
]  # fmt: skip
# Where users import from what the algorithm's package has.
IMPORTED_FROM = {
    "svrg_optimization.svrg.clock": "svrg_optimization.schedules",
    "svrg_optimization.svrg.schedules": "svrg_optimization.schedules",
    "svrg_optimization.svrg.coefficients": "svrg_optimization.coefficients",
}
# What numpydoc finds wrong: no docstring; a summary without a full stop; parameters that aren't there, that aren't
# described, in another order, without a type, without a meaning; what is returned isn't described; unknown sections.
CHECKS = {"GL06", "GL07", "GL08", "SS03", "PR01", "PR02", "PR03", "PR04", "PR07", "PR10", "RT01", "RT03"}


def public_names(module):
    """What a module offers: its ``__all__``, or what it defines itself."""
    listed = getattr(module, "__all__", None)
    own = [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip
    return own if listed is None else list(listed)


def is_of_mxnet(member):
    """Whether a class has this member from mxnet, be it that our check of the order of calls is around it."""
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    return getattr(inspect.unwrap(function), "__module__", "").startswith("mxnet")


def members(cls):
    """The public methods and properties of a class, by name, those of other packages than mxnet's and ours left out."""
    found = {}
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        home = next(base for base in cls.__mro__ if name in vars(base)).__module__
        is_function = isinstance(member, (property, staticmethod, classmethod)) or inspect.isfunction(member)
        if not name.startswith("_") and is_function and home.partition(".")[0] in ("svrg_optimization", "mxnet"):
            found[name] = member
    return found


def classes_and_functions():
    for name in MODULES:
        module = importlib.import_module("svrg_optimization." + name)
        for public in public_names(module):
            yield getattr(module, public)


def documented():
    """The full names in docs/api.md: what its directives show, and what its table of Module's methods lists."""
    found, scope = set(), ""
    for line in API.splitlines():
        directive = re.match(r"\.\. (auto\w+|py:\w+|currentmodule):: ([\w.]+)", line)
        if directive:
            kind, name = directive.groups()
            name = name if name.startswith("svrg_optimization") else "{}.{}".format(scope, name)
            scope = name if kind in ("automodule", "currentmodule") else scope
            found.add(name)
        members = re.match(r"   :members: (.+)", line)
        if members:
            found.update("{}.{}".format(name, member) for member in members.group(1).split(", "))
        row = re.match(r"\| `(\w+)` \|", line)
        if row:
            found.add("svrg_optimization.SVRGModule." + row.group(1))
    return found


def is_of_public_base(cls, member):
    """Whether a class that users may derive from, in the same module, has this member: then it is described there."""
    return any(member in vars(base) for base in cls.__mro__[1:] if base.__module__ in IMPORTED_FROM)


def full_names(thing):
    """A public name and those of its members, as docs/api.md has them."""
    home = "svrg_optimization" if thing is svrg_optimization.SVRGModule else thing.__module__
    name = "{}.{}".format(IMPORTED_FROM.get(home, home), thing.__name__)
    # Of what an optimizer or a schedule inherits from mxnet, nothing is different. Classes that aren't for direct use
    # show what they like.
    shown = [
        "{}.{}".format(name, member) for member, value in members(thing).items()
        if thing is svrg_optimization.SVRGModule or not (is_of_mxnet(value) or is_of_public_base(thing, member))
    ] if inspect.isclass(thing) and not thing.__name__.startswith("_") else []  # fmt: skip
    return [name, *shown]


def public():
    modules = {"svrg_optimization." + name for name in MODULES}
    return sorted(modules.union(*map(full_names, classes_and_functions())))


@pytest.mark.parametrize("name", public())
def test_reference_has(name):
    assert name in documented()


def test_every_public_name_of_the_package_is_looked_at():
    modules = {importlib.import_module("svrg_optimization." + name) for name in MODULES}
    offered = {getattr(svrg_optimization, name) for name in svrg_optimization.__all__}
    assert offered <= modules | set(classes_and_functions())


def find(name):
    """The thing with this full name, which may be a member of a class."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            thing = inspect.getattr_static(thing, part) if inspect.isclass(thing) else getattr(thing, part)
        return thing
    raise AssertionError(name)


def is_ours(name):
    thing = find(name)
    is_member = isinstance(thing, (property, staticmethod, classmethod)) or inspect.isfunction(thing)
    return not (is_member and is_of_mxnet(thing))


def takes_its_own_parameters(thing):
    """Whether a docstring has to describe parameters: not those of fields, nor of a constructor that is mxnet's."""
    return not inspect.isclass(thing) or (not hasattr(thing, "_fields") and not is_of_mxnet(thing.__init__))


@pytest.mark.parametrize("name", sorted(filter(is_ours, documented())))
def test_docstring(name):
    thing = find(name)
    if inspect.ismodule(thing):
        assert thing.__doc__.partition("\n\n")[0].strip().endswith(".")
        return
    checks = CHECKS if takes_its_own_parameters(thing) else CHECKS - {"PR01"}
    assert [(code, text) for code, text in validate.validate(name)["errors"] if code in checks] == []


@pytest.mark.parametrize("thing", [each for each in classes_and_functions() if hasattr(each, "_fields")])
def test_fields_are_described(thing):
    described = NumpyDocString(inspect.getdoc(thing))["Attributes"]
    assert [name for entry in described for name in entry.name.split(", ")] == list(thing._fields)
    assert all(entry.type and entry.desc for entry in described)


@pytest.mark.parametrize("name", re.findall(r"^\.\. py:method:: SVRGModule\.(\w+)", API, re.MULTILINE))
def test_signatures_of_inherited_methods(name):
    (written,) = re.findall(r"^\.\. py:method:: SVRGModule\.{}(\(.*\))$".format(name), API, re.MULTILINE)
    signature = inspect.signature(getattr(svrg_optimization.SVRGModule, name))
    parameters = list(signature.parameters.values())[1:]
    assert written == str(signature.replace(parameters=parameters))
