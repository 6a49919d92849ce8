"""Makes mxnet 1.9.1 importable where NumPy is 1.24 to 1.26 or Python is 3.12, when mxnet is about to be imported.

The wheel carries a copy of this file beside the package, ``_svrg_optimization_startup.py``, and a ``.pth`` file by
which every Python of the environment imports the copy when it starts. So ``import mxnet`` works without this package,
too: in a parameter server, ``python -c 'import mxnet'``. Until mxnet is imported nothing is, so that programs without
mxnet start as fast as before.
"""

import sys


def advice_about_numpy(version: str) -> str:
    """What to do about a NumPy that mxnet 1.9.1 doesn't work with; "" if this one isn't such.

    >>> advice_about_numpy("2.1.0")
    'mxnet 1.9.1 needs NumPy below 2, and NumPy 2.1.0 is installed. Install another: pip install "numpy<2"'
    >>> advice_about_numpy("1.26.4")
    ''
    """
    if int(version.split(".")[0]) < 2:
        return ""
    needed = 'mxnet 1.9.1 needs NumPy below 2, and NumPy {} is installed. Install another: pip install "numpy<2"'
    return needed.format(version)


def prepare() -> None:
    """Give NumPy and Python what mxnet 1.9.1 needs of them.

    Raises
    ------
    ImportError
        Something else must be installed; the message has the command.
    """
    import importlib.util

    import numpy

    advice = advice_about_numpy(numpy.__version__)
    if advice:
        raise ImportError(advice)
    # NumPy 1.24 removed this name of Python's bool. Before, the name was there, and its use gave a warning.
    if tuple(map(int, numpy.__version__.split(".")[:2])) >= (1, 24):
        vars(numpy)["bool"] = bool
    # Python 3.12 removed distutils. Where setuptools is installed, Python finds setuptools' own: mostly from its start
    # on, or else from the import of setuptools on.
    if sys.version_info >= (3, 12) and importlib.util.find_spec("distutils") is None:
        try:
            import setuptools  # noqa: F401
        except ImportError as error:
            needed = "mxnet 1.9.1 needs distutils, which Python {}.{} lacks and setuptools has. Install it: "
            raise ImportError(needed.format(*sys.version_info[:2]) + "pip install setuptools") from error


class BeforeMXNet:
    """A finder of modules that finds none, but prepares for mxnet when mxnet is looked for."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> None:
        """Leave the module to the other finders."""
        if name == "mxnet":
            prepare()


def install() -> None:
    """Prepare the next import of mxnet."""
    if BeforeMXNet not in sys.meta_path:
        sys.meta_path.insert(0, BeforeMXNet)
