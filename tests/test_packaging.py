"""What is installed, what importing it takes, and what the tools say on a machine that lacks something."""

import os
import pathlib
import re
import subprocess
import sys
from importlib import metadata

import pytest

import svrg_optimization

ROOT = pathlib.Path(__file__).resolve().parent.parent
INSTALLED = metadata.distribution("svrg-optimization")
PACKAGE = pathlib.Path(svrg_optimization.__file__).parent


# ------------------------------------------------------------------------------------------------------- the wheel


def test_the_tests_run_on_the_wheel():
    assert pathlib.Path(INSTALLED.locate_file("svrg_optimization")) == PACKAGE, "run the tests by `make test`"
    assert ROOT / "svrg_optimization" != PACKAGE


def test_the_wheel_has_all_of_the_package_and_nothing_else():
    folder = ROOT / "svrg_optimization"
    sources = {path.relative_to(ROOT).as_posix() for path in folder.rglob("*") if path.suffix in (".py", ".typed")}
    files = [file for file in INSTALLED.files if file.suffix != ".pyc"]
    assert {file.as_posix() for file in files if file.parts[0] == "svrg_optimization"} == sources
    names = ["__init__.py", "svrg_module.py", "py.typed", "distributed/__init__.py", "launch/__main__.py"]
    assert {"svrg_optimization/" + name for name in names} < sources
    others = {re.sub(r"-.*dist-info", "", file.parts[0]) for file in files} - {"svrg_optimization"}
    assert others == {"_svrg_optimization_startup.py", "_svrg_optimization_startup.pth"}
    copy = pathlib.Path(INSTALLED.locate_file("_svrg_optimization_startup.py"))
    assert copy.read_bytes() == (PACKAGE / "mxnet_api" / "startup.py").read_bytes()


def test_one_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", svrg_optimization.__version__)
    assert INSTALLED.version == svrg_optimization.__version__


def test_the_metadata_bounds_what_mxnet_needs_and_does_not_ask_for():
    # Of "name<bound,>=bound ; extra == 'x'", in whatever order the building setuptools wrote it.
    needs = {re.match(r"[\w-]+", line).group(): set(re.findall(r"[<>=]+[\d.]+", line)) for line in INSTALLED.requires
             if "extra" not in line}  # fmt: skip
    assert needs == {"mxnet": {">=1.9.1", "<2"}, "numpy": {">=1.17", "<2"}, "setuptools": set()}
    assert [line for line in INSTALLED.requires if re.search(r'^setuptools *; *python_version *>= *"3.12"', line)]
    assert set(re.findall(r"[<>=]+[\d.]+", INSTALLED.metadata["Requires-Python"])) == {">=3.8", "<3.13"}
    assert set(INSTALLED.metadata.get_all("Provides-Extra")) == {"bench", "dev", "docs", "examples", "horovod", "test"}


def test_the_description_has_links_that_work_on_another_site():
    text = INSTALLED.metadata.get_payload() or INSTALLED.metadata["Description"]
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    home = INSTALLED.metadata["Home-page"]
    assert any(link.startswith(home + "/raw/main/docs/images/") for link in links)
    assert any(link.startswith(home + "/blob/main/docs/") for link in links)
    assert [link for link in links if not link.startswith("https://")] == []
    # What the links lead to is there.
    here = [re.sub(re.escape(home) + r"/(?:raw|blob)/main/|#.*", "", link) for link in links if link.startswith(home)]
    assert [path for path in here if not (ROOT / path).exists()] == []


# --------------------------------------------------------------------------------------------------- the Makefile


def test_every_target_is_made_whatever_files_there_are_and_names_scripts_that_are_there():
    text = (ROOT / "Makefile").read_text("utf-8")
    # Only those with such a comment are shown by `make help`.
    shown = re.findall(r"^([a-z-]+): *## \S", text, flags=re.MULTILINE)
    assert shown == re.findall(r"^([\w-]+):", text, flags=re.MULTILINE)
    assert sorted(shown) == sorted(re.search(r"^\.PHONY: (.+)$", text, flags=re.MULTILINE).group(1).split())
    scripts = re.findall(r"\b\w+/[\w/]+\.(?:py|sh)\b", text)
    assert {"tools/install.sh", "tests/distributed/scale_run.py", "tests/mutation_run.py"} <= set(scripts)
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


# ---------------------------------------------------------------------------------------------------- the imports


def run(*command, **environment):
    """Run a command to its end: (exit code, standard output, standard error). None unsets a variable."""
    env = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def stub(folder, **modules):
    """A stand-in for mxnet, to be found first: PYTHONPATH for a process that shall have it."""
    (folder / "mxnet").mkdir()
    for name, text in modules.items():
        (folder / "mxnet" / (name + ".py")).write_text(text, "utf-8")
    return str(folder)


# What there is of mxnet when a parameter server unpickles the optimizer: mxnet.optimizer, and no mx.nd, no mx.module.
HALF_LOADED = """
class Optimizer:
    opt_registry = {}

    def __init__(self, **settings):
        self.__dict__.update(settings)

class SGD(Optimizer):
    pass

def register(optimizer):
    Optimizer.opt_registry[optimizer.__name__.lower()] = optimizer
    return optimizer
"""


def test_importing_the_package_does_not_import_mxnet():
    code = "import sys, svrg_optimization; dir(svrg_optimization); print('mxnet' in sys.modules)"
    assert run(sys.executable, "-c", code) == (0, "False\n", "")


@pytest.mark.parametrize("how", ["from svrg_optimization import _SVRGOptimizer",
                                 "from svrg_optimization.svrg_optimizer import _SVRGOptimizer"])  # fmt: skip
def test_the_optimizer_is_unpickled_where_mxnet_is_half_loaded(tmp_path, how):
    path = stub(tmp_path, __init__="", optimizer=HALF_LOADED)
    code = how + (
        "\nimport pickle, sys, mxnet.optimizer\n"
        "optimizer = _SVRGOptimizer(mxnet.optimizer.SGD(rescale_grad=1, idx2name={0: 'w'}, lr=0.5))\n"
        "print(pickle.loads(pickle.dumps(optimizer)).lr)\n"
        "print(sorted(name for name in sys.modules if name.startswith('mxnet')))"
    )
    assert run(sys.executable, "-c", code, PYTHONPATH=path) == (0, "0.5\n['mxnet', 'mxnet.optimizer']\n", "")


@pytest.mark.parametrize("library, package", [("libgomp.so.1", "libgomp1"), ("libquadmath.so.0", "libquadmath0")])
def test_a_missing_system_library_is_named_with_its_remedy(tmp_path, library, package):
    message = library + ": cannot open shared object file: No such file or directory"
    path = stub(tmp_path, __init__="raise OSError({!r})".format(message))
    code, out, err = run(sys.executable, str(ROOT / "tools" / "check_import.py"), PYTHONPATH=path)
    assert (code, out) == (1, "")
    # The message alone, not a traceback that hides it.
    assert err.startswith("mxnet can't be imported: {}. ".format(message))
    assert "apt-get install {} ".format(package) in err
    assert err.count("\n") == 1


def test_any_other_trouble_of_the_loader_is_left_as_it_is(tmp_path):
    path = stub(tmp_path, __init__="raise OSError('libmxnet.so: file too short')")
    code, _, err = run(sys.executable, "-c", "import svrg_optimization.svrg_module", PYTHONPATH=path)
    assert code == 1
    assert err.endswith("OSError: libmxnet.so: file too short\n")


# Orders in which a program may import the two; a parameter server imports mxnet alone.
ORDERS = [
    "import mxnet",
    "import svrg_optimization, mxnet",
    "import mxnet, svrg_optimization",
    "from svrg_optimization import SVRGModule",
    "import svrg_optimization; svrg_optimization.SVRGModule",
]


@pytest.mark.parametrize("how", ORDERS)
def test_mxnet_is_imported_in_any_order(how):
    code, out, err = run(sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c",
                         how + "; import sys; print(sys.modules['mxnet'].nd.ones(1).asscalar())")  # fmt: skip
    assert (code, out) == (0, "1.0\n"), err


# What stands for another NumPy: it is found before the real one.
@pytest.mark.parametrize("how", ORDERS)
def test_a_numpy_that_is_too_new_is_named_with_its_remedy(tmp_path, how):
    (tmp_path / "numpy.py").write_text("__version__ = '2.1.0'\n", "utf-8")
    path = stub(tmp_path, __init__="import numpy; numpy.PZERO")
    code, out, err = run(sys.executable, "-c", how, PYTHONPATH=path)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == (
        "ImportError: mxnet 1.9.1 needs NumPy below 2, and NumPy 2.1.0 is installed. "
        'Install another: pip install "numpy<2"'
    )


@pytest.mark.parametrize("how", ORDERS)
@pytest.mark.parametrize(
    "numpy, has_bool", [("1.17.3", "False"), ("1.23.5", "False"), ("1.24.0", "True"), ("1.26.4", "True")]
)
def test_numpy_bool_is_given_back_where_numpy_removed_it(tmp_path, how, numpy, has_bool):
    (tmp_path / "numpy.py").write_text("__version__ = {!r}\n".format(numpy), "utf-8")
    path = stub(tmp_path, __init__="import numpy; print(getattr(numpy, 'bool', None) is bool)", svrg_module="")
    code, out, _ = run(sys.executable, "-c", how, PYTHONPATH=path)
    # The stand-ins are too little for the package's own import, which comes after.
    assert out == has_bool + "\n"


PYTHON_3_12_WITHOUT_DISTUTILS = """
import importlib.util, sys
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "distutils" else find_spec(name, *more)
import numpy
{}
sys.version_info = (3, 12, 0)
import mxnet
print("setuptools" in sys.modules)
"""


def test_without_distutils_the_remedy_is_setuptools(tmp_path):
    program = PYTHON_3_12_WITHOUT_DISTUTILS.format("sys.modules['setuptools'] = None")
    code, _, err = run(sys.executable, "-c", program, PYTHONPATH=stub(tmp_path, __init__=""))
    assert code == 1
    assert err.splitlines()[-1] == (
        "ImportError: mxnet 1.9.1 needs distutils, which Python 3.12 lacks and setuptools has. "
        "Install it: pip install setuptools"
    )


def test_setuptools_is_imported_where_that_brings_distutils(tmp_path):
    path = stub(tmp_path, __init__="")
    (tmp_path / "setuptools.py").write_text("", "utf-8")
    assert run(sys.executable, "-c", PYTHON_3_12_WITHOUT_DISTUTILS.format(""), PYTHONPATH=path)[:2] == (0, "True\n")


def test_a_program_without_mxnet_starts_with_no_more_than_the_hook(tmp_path):
    """The hook imports nothing that a bare Python has not imported already."""
    code = "import sys; print(sorted(sys.modules))"
    bare = run(sys.executable, "-S", "-c", code)[1]
    loaded = "import sys; before = set(sys.modules); import _svrg_optimization_startup as hook; hook.install(); " + code
    path = str(pathlib.Path(INSTALLED.locate_file("")))
    with_hook = run(sys.executable, "-S", "-c", loaded, PYTHONPATH=path)[1]
    assert set(eval(with_hook)) - set(eval(bare)) == {"_svrg_optimization_startup"}


def test_another_attribute_error_in_the_import_is_not_lost(tmp_path):
    path = stub(tmp_path, __init__="raise AttributeError('something else')")
    code, _, err = run(sys.executable, "-c", "from svrg_optimization import SVRGModule", PYTHONPATH=path)
    assert code == 1
    assert err.splitlines()[-1] == "ImportError: mxnet can't be imported: something else"


# --------------------------------------------------------------------------------------------- mxnet's notes on kernels

QUIET = """
import os, sys
import mxnet as mx
from svrg_optimization import SVRGModule

network = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc"), name="softmax")
before = dict(os.environ)
for kind in (SVRGModule, mx.mod.Module):
    kind(network).bind([("data", (4, 3))], [("softmax_label", (4,))])
assert dict(os.environ) == before
"""
NOTE = "Subgraph backend MKLDNN is activated."


@pytest.mark.parametrize("decided, notes", [(None, False), ("0", False), ("1", True)])
def test_mxnet_does_not_say_which_kernels_it_uses_unless_it_is_asked_to(decided, notes):
    code, _, err = run(sys.executable, "-W", "ignore", "-c", QUIET, MXNET_SUBGRAPH_VERBOSE=decided)
    assert code == 0
    assert (NOTE in err) == notes


# ------------------------------------------------------------------------------------------------- the user's logging

PROGRAM = """
import logging, sys
import mxnet as mx
from svrg_optimization import SVRGModule

loss = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc"), name="softmax")
mixed = mx.sym.Group([loss, mx.sym.SoftmaxOutput(loss, normalization="batch", name="other")])
train = mx.io.NDArrayIter(mx.nd.ones((10, 3)), mx.nd.ones(10), 4)


def check(after):
    if logging.getLogger().handlers:
        sys.exit("a handler after " + after)


SVRGModule(mixed, label_names=["softmax_label", "other_label"])
check("a warning of the constructor")
module = SVRGModule(loss)
module.bind(train.provide_data, train.provide_label)
module.init_params()
module.init_optimizer()
check("init_optimizer()")
module.forward_backward(next(train))
module.update()
check("update()")
module.update_full_grads(train)
check("update_full_grads()")
module.save_checkpoint(sys.argv[1], 1, True)
check("save_checkpoint()")
SVRGModule(loss).fit(train, num_epoch=1)
check("fit()")
logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(message)s")
train.reset()
SVRGModule(loss).fit(train, num_epoch=1)
"""


def test_messages_leave_logging_to_the_user(tmp_path):
    code, out, err = run(sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "model"))
    assert code == 0, err
    for line in ("Epoch[0] Full gradient: samples=10 ", "Epoch[0] Train-accuracy=", "Epoch[0] Time cost="):
        assert line in out


# --------------------------------------------------------------------------------------------------- find_python.sh

# Each stands for an interpreter found on the PATH: the Python of these tests, made to look like another.
GOOD = ""
NO_PYTHON = None
NO_ENSUREPIP = "import sys; sys.modules['ensurepip'] = None; "
NO_VENV = "import sys; sys.modules['venv'] = None; "


def version(*numbers):
    return "import sys; sys.version_info = {}; ".format((*numbers, 0))


@pytest.fixture
def find_python(tmp_path):
    """Run find_python.sh where the PATH has these interpreters and nothing else."""

    def find(interpreters, asked_for=None):
        for name, pretence in interpreters.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if pretence is NO_PYTHON:
                text = "#!/bin/sh\necho no version of Python is chosen >&2\nexit 127\n"
            else:
                text = '#!/bin/sh\nexec "{}" -c "{}$2"\n'.format(sys.executable, pretence)
            path.write_text(text, "utf-8")
            path.chmod(0o755)
        script = str(ROOT / "tools" / "find_python.sh")
        return run("/bin/sh", script, PATH=str(tmp_path), HOME=str(tmp_path), PYENV_ROOT=None, PYTHON=asked_for)

    return find


FOUND = (0, os.path.realpath(sys.executable) + "\n", "")


@pytest.mark.parametrize(
    "interpreters",
    [
        {"python3.11": GOOD},
        {"python3.8": version(3, 8)},
        {"python3": version(3, 10)},
        {"python": GOOD},
        {"python3.11": NO_PYTHON, "python3.10": NO_PYTHON, "python3.9": GOOD},
        {"python3.11": NO_ENSUREPIP, "python3": GOOD},
        {"python3.12": GOOD},
        {"python3": version(3, 13), "python": GOOD},
        {".pyenv/versions/3.12.4/bin/python": GOOD, "python3": NO_PYTHON},
    ],
)
def test_a_fitting_python_is_found(find_python, interpreters):
    assert find_python(interpreters) == FOUND


@pytest.mark.parametrize(
    "interpreters, reason",
    [
        ({}, "none of python3.12 "),
        ({"python3": version(3, 13)}, "python3: Python 3.13, which does not fit"),
        ({"python3": version(3, 7)}, "python3: Python 3.7, which does not fit"),
        ({"python": version(2, 7)}, "python: Python 2.7, which does not fit"),
        ({"python3": version(3, 11) + NO_ENSUREPIP}, "apt-get install python3.11-venv"),
        ({"python3": version(3, 9) + NO_VENV}, "apt-get install python3.9-venv"),
        ({"python3.10": NO_PYTHON}, "python3.10: no version of Python is chosen"),
    ],
)
def test_no_fitting_python_is_said_with_what_was_found(find_python, interpreters, reason):
    code, out, err = find_python(interpreters)
    assert (code, out) == (1, "")
    assert err.startswith("No fitting Python: Python 3.8, 3.9, 3.10, 3.11 or 3.12 is needed")
    assert reason in err
    assert "apt-get install python3 python3-venv" in err


def test_the_newest_python_is_taken(find_python):
    names = {"python3.11": GOOD, "python3.8": GOOD, "python3": GOOD}
    newest = ".pyenv/versions/3.12.4/bin/python"
    code, out, _ = find_python({newest: "print('newest'); ", ".pyenv/versions/3.11.9/bin/python": GOOD, **names})
    assert (code, out.splitlines()[0]) == (0, "newest")


def test_python_asked_for_is_taken_or_refused_but_never_replaced(find_python):
    interpreters = {"python3.11": NO_PYTHON, "python3": GOOD, "mine": GOOD, "new": version(3, 13)}
    assert find_python(interpreters, asked_for="mine") == FOUND
    code, _, err = find_python(interpreters, asked_for="new")
    assert code == 1
    assert "new: Python 3.13, which does not fit" in err
    code, _, err = find_python(interpreters, asked_for="/no/such/python")
    assert code == 1
    assert "none of /no/such/python" in err


GROWTH = """
import logging, sys, mxnet as mx
from svrg_optimization import SVRGModule

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6

logging.getLogger().setLevel(logging.ERROR)
hidden = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2000)
network = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(hidden, num_hidden=10), name="softmax")
train = mx.io.NDArrayIter(mx.nd.ones((64, 400)), mx.nd.zeros(64), 32)
module, sizes = None, []
for _ in range(31):
    module = None
    module = SVRGModule(network)
    module.fit(train, num_epoch=1)
    mx.nd.waitall()
    sizes.append(resident())
print(sizes[-1] - sizes[5])
"""


def test_modules_that_are_gone_leave_their_memory():
    """25 modules, of 20 MB each, take no more memory than one."""
    code, out, err = run(sys.executable, "-W", "ignore", "-c", GROWTH)
    assert code == 0, err
    assert float(out) < 60


FREED_STORES = """
import ctypes
import mxnet as mx
from svrg_optimization import SVRGModule

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
output = mx.sym.FullyConnected(mx.sym.Variable('data'), num_hidden=3, name='fc')
train = mx.io.NDArrayIter(mx.nd.ones((4, 3)), mx.nd.zeros(4), 4)
large = mx.nd.ones((1500, 1500))
for _ in range(6):
    module = SVRGModule(mx.sym.SoftmaxOutput(output, name='softmax'), context=[mx.cpu(0), mx.cpu(1)])
    module.bind(train.provide_data, train.provide_label)
    module.init_params()
    module.init_optimizer()
    mx.nd.waitall()
    # The thread of cpu(0) is busy, so that the module is gone before its gradients are there to be added up.
    busy = mx.nd.dot(large, large)
    train.reset()
    module.forward_backward(next(train))
    module.update()
    del module
    # What others might write where the store was: 0 where the store had the size of large arrays, and then more than 1.
    for size in range(24, 520, 16):
        for _ in range(300):
            ctypes.memmove(libc.malloc(size), 33 * (8 * bytes([0]) + 8 * bytes([1])), size)
    mx.nd.waitall()
"""


def test_stores_that_are_gone_have_added_up_the_gradients():
    """In one process of six modules, which mxnet would end by SIGFPE."""
    code, _, err = run(sys.executable, "-W", "ignore", "-c", FREED_STORES)
    assert code == 0, err
