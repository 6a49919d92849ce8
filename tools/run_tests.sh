#!/bin/sh
# Usage: tools/run_tests.sh [pytest's arguments]
# Runs all tests on the installed wheel: outside the tree, where `import svrg_optimization` can't find the sources. They
# are those in tests/, in the docstrings of the package, and in the documents.
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)
outside=$(mktemp -d)
trap 'rm -rf "$outside"' EXIT
trap 'exit 130' INT TERM
cd "$outside"

package=$("$root/.venv/bin/python" -c 'import svrg_optimization; print(svrg_optimization.__path__[0])')
for document in "$root"/README.md "$root"/docs/*.md "$root"/docs/*.rst; do
    if [ -e "$document" ]; then set -- "$@" "$document"; fi
done
# As many as there are cores: jobs of several tests at once take ports and time from each other.
processes=$("$root/.venv/bin/python" -c 'import os; print(min(8, len(os.sched_getaffinity(0))))')
"$root/.venv/bin/python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -n "$processes" --dist loadgroup \
    --doctest-modules "$root/tests" "$package" "$@"
