#!/bin/sh
# Usage: tools/install.sh EXTRA
# Makes .venv, builds this tree's wheel, and installs it there with one of setup.py's extras. If that was done before and
# nothing has changed since, does nothing.
set -eu
cd "$(dirname "$0")/.."
extra=$1
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }

# Without PYTHON, a .venv that works is kept, whatever Python it has.
made_with=$(cat .venv/made-with 2>/dev/null || :)
.venv/bin/python -c 'import pip' 2>/dev/null || made_with=
if [ -z "$made_with" ] || [ -n "${PYTHON:-}" ]; then
    python=$(sh tools/find_python.sh)
    if [ "$python" != "$made_with" ]; then
        echo "Making .venv with $python"
        rm -rf .venv
        "$python" -m venv .venv
        # Older ones know neither mxnet's kind of wheel nor how to build ours without copying .venv first.
        pip install 'pip>=21.3'
        echo "$python" >.venv/made-with
    fi
fi

# By content, not by date: what a checkout or an editor touches without a change is no reason to install again.
contents=$(find setup.py pyproject.toml README.md svrg_optimization -name '*.pyc' -prune -o -type f -print 2>/dev/null |
    LC_ALL=C sort | while read -r file; do cksum "$file"; done | cksum)
if [ "$contents" != "$(cat .venv/wheel/contents 2>/dev/null)" ]; then
    echo "Building the wheel"
    # setuptools ships whatever an earlier build left behind.
    rm -rf build svrg_optimization.egg-info .venv/wheel .venv/installed-*
    pip wheel --no-deps --wheel-dir .venv/wheel .
    rm -rf build svrg_optimization.egg-info
    # pip keeps an installed package of the same version.
    pip --quiet uninstall --yes svrg-optimization
    echo "$contents" >.venv/wheel/contents
fi

if [ ! -e ".venv/installed-$extra" ]; then
    echo "Installing the wheel into .venv, with what '$extra' needs"
    # One command for all: pip holds NumPy below 2 only for what it installs together with our wheel.
    pip install "$(echo .venv/wheel/*.whl)[$extra]"
    .venv/bin/python tools/check_import.py
    # The first import of matplotlib makes a cache of all fonts, and complains on stderr if that takes long.
    .venv/bin/python -c 'import matplotlib.font_manager' >/dev/null 2>&1 || :
    touch ".venv/installed-$extra"
fi
