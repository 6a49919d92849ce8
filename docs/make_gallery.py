"""Makes what docs/gallery.md shows: what the examples print, and the pictures that they draw.

    python docs/make_gallery.py             # all of them
    python docs/make_gallery.py mlp resume  # some

Run it, on an idle machine, when an example prints or draws something new: tests/test_examples.py tells.
The examples take a minute, too long for each build of the site. So their output is kept in the repository: what they
print in docs/gallery/, their pictures in docs/images/.
"""

import argparse
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "examples").glob("[!_]*.py"))


def command(name):
    """The command that runs an example, as the page shows it."""
    program = "python examples/{}.py".format(name)
    return "python -m svrg_optimization.launch -n 2 -s 1 -- " + program if name == "distributed" else program


def kept(name):
    """The file with what an example has printed."""
    return ROOT / "docs" / "gallery" / (name + ".txt")


def without_directories(printed):
    """What was printed, with the names of files for their paths: those of temporary files are never the same."""
    return re.sub(r'"/[^"]*/', '"', printed)


def without_notes(printed):
    """What was printed, without what mxnet's library says on stderr, with the time of day and a line of its source."""
    return re.sub(r"^\[[\d:]{8}\] \S*/src/.*\n", "", printed, flags=re.MULTILINE)


def make(name):
    """Run an example in a new directory; keep what it prints, and its picture if there is one."""
    arguments = [{"python": sys.executable, "examples/{}.py".format(name): str(ROOT / "examples" / (name + ".py"))}
                 .get(word, word) for word in shlex.split(command(name))]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as directory:
        ended = subprocess.run(
            arguments, cwd=directory, env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, check=False,
        )  # fmt: skip
        if ended.returncode:
            sys.exit("{} failed:\n{}".format(command(name), ended.stdout))
        kept(name).parent.mkdir(exist_ok=True)
        kept(name).write_text(without_directories(without_notes(ended.stdout)), "utf-8")
        picture = pathlib.Path(directory, "svrg_{}.png".format(name))
        if picture.exists():
            shutil.copy(str(picture), str(ROOT / "docs" / "images" / (name + ".png")))


def main():
    """Run the examples that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="an example: {}".format(", ".join(NAMES)))
    names = parser.parse_args().names or NAMES
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error("there is no example {}; there are {}".format(", ".join(unknown), ", ".join(NAMES)))
    for name in names:
        print("{} ...".format(command(name)), flush=True)
        make(name)


if __name__ == "__main__":
    main()
