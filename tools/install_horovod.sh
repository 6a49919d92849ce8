#!/bin/sh
# Builds Horovod for the mxnet in .venv, unless it is there: some minutes. Needs cmake and g++.
set -eu
cd "$(dirname "$0")/.."
pip() { .venv/bin/python -m pip --quiet --disable-pip-version-check "$@"; }

.venv/bin/python -W ignore -c 'import horovod.mxnet' 2>/dev/null && exit
echo "Building Horovod"
# What it is built with: it looks for mxnet, and an isolated build has none.
pip install setuptools wheel cloudpickle psutil pyyaml packaging
export HOROVOD_WITH_MXNET=1 HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1
export HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1
pip install --no-build-isolation "$(echo .venv/wheel/*.whl)[horovod]"
