"""Why mxnet can't be imported, and what to do: its own errors don't say."""

import contextlib
import re
import sys
from typing import Iterator

# The libraries that the mxnet 1.9.1 wheel needs and does not carry, with Debian's and Fedora's package.
_PACKAGES = {
    "libgomp": ("libgomp1", "libgomp"),
    "libquadmath": ("libquadmath0", "libquadmath"),
}
# mxnet 1.9.1 uses numpy.bool, which this version removed.
_TOO_NEW = (1, 24)


def remedy(message: str) -> str:
    """The command that installs the library which the loader's `message` names, or "".

    >>> remedy("libgomp.so.1: cannot open shared object file: No such file or directory")
    'apt-get install libgomp1 (Debian, Ubuntu) or dnf install libgomp (Fedora, RHEL)'
    >>> remedy("some other trouble")
    ''
    """
    found = re.match(r"(lib\w+)\.so", message)
    if found is None or found.group(1) not in _PACKAGES:
        return ""
    return "apt-get install {} (Debian, Ubuntu) or dnf install {} (Fedora, RHEL)".format(*_PACKAGES[found.group(1)])


def advice_about_numpy(version: str) -> str:
    """What to do about a NumPy that mxnet 1.9.1 doesn't work with; "" if this one isn't such.

    >>> advice_about_numpy("1.26.4")
    'mxnet 1.9.1 needs NumPy below 1.24, and NumPy 1.26.4 is installed. Install another: pip install "numpy<1.24"'
    >>> advice_about_numpy("1.23.5")
    ''
    """
    if tuple(map(int, version.split(".")[:2])) < _TOO_NEW:
        return ""
    needed = 'mxnet 1.9.1 needs NumPy below 1.24, and NumPy {} is installed. Install another: pip install "numpy<1.24"'
    return needed.format(version)


@contextlib.contextmanager
def explain_errors() -> Iterator[None]:
    """Turn errors of mxnet's import into an ImportError that says what to do.

    Python itself turns an AttributeError of a package's ``__getattr__`` into "cannot import name".
    """
    try:
        yield
    except OSError as error:
        command = remedy(str(error))
        if not command:
            raise
        raise ImportError("mxnet can't be imported: {}. Install it: {}".format(error, command)) from error
    except AttributeError as error:
        numpy = sys.modules.get("numpy")
        advice = advice_about_numpy(numpy.__version__) if numpy is not None else ""
        raise ImportError("mxnet can't be imported: {}".format(advice or error)) from error
