#!/bin/sh
# Prints the path of a Python that fits this project: $PYTHON if it is set, or else the newest on the PATH or among
# pyenv's. If there is none, says what there is and what to install, and exits 1.
#
# Each candidate is run, not only looked up: the shims of a version manager are on the PATH with or without a Python
# behind them.

# In the Python of any year: it says what is wrong, or prints the interpreter itself rather than a shim or a venv's link.
check='
import os, sys
version = "%d.%d" % sys.version_info[:2]
if not (3, 8) <= tuple(sys.version_info[:2]) <= (3, 12):
    sys.exit("Python " + version + ", which does not fit")
try:
    import ensurepip, venv
except ImportError:
    sys.exit("Python " + version + " without venv or ensurepip: apt-get install python" + version + "-venv")
print(os.path.realpath(sys.executable))
'

if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    of_pyenv=${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions
    for version in 3.12 3.11 3.10 3.9 3.8; do
        set -- "$@" "python$version"
        for python in "$of_pyenv/$version".*/bin/python; do
            if [ -x "$python" ]; then set -- "$@" "$python"; fi
        done
    done
    set -- "$@" python3 python
fi
found=
for candidate; do
    command -v "$candidate" >/dev/null 2>&1 || continue
    if answer=$("$candidate" -c "$check" 2>&1 </dev/null); then
        printf '%s\n' "$answer"
        exit 0
    fi
    found="$found
  $candidate: ${answer%%
*}"
done

printf '%s\n' >&2 \
    "No fitting Python: Python 3.8, 3.9, 3.10, 3.11 or 3.12 is needed, with its modules venv and ensurepip." \
    "(mxnet 1.9.1 needs a NumPy that was never built for a newer Python.)" \
    "Found:${found:- none of $*}" \
    "Install one, for instance by" \
    "  apt-get install python3 python3-venv   (Debian 11 or 12, Ubuntu 20.04, 22.04 or 24.04)" \
    "  dnf install python3.12                 (Fedora, RHEL)" \
    "or name the one to use: make test PYTHON=/path/to/python3.12"
exit 1
