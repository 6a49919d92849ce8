"""Links of the files that are read in the repository and on the site: they lead somewhere in both."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "benchmarks/benchopt/README.md"]


def relative_links(text):
    """The paths and anchors of links, but for those with a scheme; code isn't looked at."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "code", text))
    return [link.partition("#")[::2] for link in links if not re.match(r"[a-z]+:", link)]


def anchors(text):
    """The anchors of the headings, as they are made from their words."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", FILES)
def test_in_the_repository(name):
    file = ROOT / name
    for path, anchor in relative_links(file.read_text("utf-8")):
        target = file.parent / path if path else file
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text("utf-8")), (path, anchor)


CONVERT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import conf
print(json.dumps([conf.links_from(*each) for each in json.load(sys.stdin)]))
"""


def test_on_the_site():
    # The settings change the environment, so they run in a process of their own.
    cases = {
        ("[a](docs/cluster.md#how-it-scales)", "."): "[a](cluster.md#how-it-scales)",
        ("[a](../docs/using.md)", "benchmarks"): "[a](using.md)",
        ("[a](benchopt/README.md)", "benchmarks"): "[a](path:../benchmarks/benchopt/README.md)",
        ("[a](../README.md#speed)", "benchmarks"): "[a](path:../README.md)",
        ("[a](#here) [b](https://example.org/x)", "."): "[a](#here) [b](https://example.org/x)",
    }
    command = [sys.executable, "-W", "ignore", "-c", CONVERT, str(ROOT / "docs")]
    found = subprocess.run(command, input=json.dumps(list(cases)), capture_output=True, text=True, check=True).stdout
    assert json.loads(found.splitlines()[-1]) == list(cases.values())
