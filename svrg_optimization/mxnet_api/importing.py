"""Why mxnet can't be imported, and what to do: its own errors don't say."""

import contextlib
import re
from typing import Iterator

# The libraries that the mxnet 1.9.1 wheel needs and does not carry, with Debian's and Fedora's package.
_PACKAGES = {
    "libgomp": ("libgomp1", "libgomp"),
    "libquadmath": ("libquadmath0", "libquadmath"),
}


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
        raise ImportError("mxnet can't be imported: {}".format(error)) from error
