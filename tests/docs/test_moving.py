"""The programs of "Moving a program over": the changes are what the page says, and the log is what it shows."""

import difflib
import os
import pathlib
import re
import subprocess
import sys

import pytest

# Where there are several processes, one takes them all: what they share takes long to make.
pytestmark = pytest.mark.xdist_group("moving")
PAGE = pathlib.Path(__file__).resolve().parent.parent.parent / "docs" / "moving.md"
LEVELS = ["fit", "loop"]


def blocks(language):
    """The blocks of code in this language, in the page's order."""
    return re.findall(r"(?ms)^```{}\n(.*?)^```$".format(language), PAGE.read_text(encoding="utf-8"))


def change(level):
    """What the page has of a level: before, after, and the difference."""
    programs, differences = blocks("python"), blocks("diff")
    assert (len(programs), len(differences)) == (4, 3)
    number = LEVELS.index(level)
    return programs[2 * number], programs[2 * number + 1], differences[number]


def form(log):
    """The lines of a log, with # in the place of each number."""
    return [re.sub(r"\d+(\.\d+)?(e[-+]\d+)?", "#", line) for line in log.splitlines() if line.startswith("INFO:")]


def numbers(log, pattern):
    return [float(number) for number in re.findall(pattern, log)]


@pytest.mark.parametrize("level", LEVELS)
def test_the_difference_is_that_of_the_programs(level):
    before, after, difference = change(level)
    made = difflib.unified_diff(before.splitlines(True), after.splitlines(True), "before.py", "after.py", n=1)
    assert difference == "".join(made)


def test_the_import_of_upstream_becomes_one_of_ours():
    import mxnet

    from svrg_optimization import SVRGModule

    removed, added = blocks("diff")[2].splitlines()
    # Not imported: MXNet warns when upstream registers its optimizers.
    module = re.fullmatch(r"-from mxnet\.(\S+) import SVRGModule", removed).group(1)
    source = pathlib.Path(mxnet.__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    assert "class SVRGModule(" in source.read_text(encoding="utf-8")
    names = {}
    assert added[0] == "+"
    exec(added[1:], names)
    assert names["SVRGModule"] is SVRGModule


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """What the programs log, before and after: `fit`, a line, and the loop; and the files that they leave."""

    def run(number):
        directory = tmp_path_factory.mktemp("run")
        fit, loop = (change(level)[number] for level in LEVELS)
        (directory / "program.py").write_text(fit + '\nlogging.info("the loop")\n' + loop, encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "program.py"], cwd=str(directory), env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=200, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        by_fit, by_loop = ended.stderr.split("INFO:root:the loop\n")
        files = {path.name: path.stat().st_size for path in directory.glob("lenet-*")}
        return by_fit, by_loop, files

    return run(0), run(1)


@pytest.mark.parametrize("number, lines", [(0, 14), (1, 20)], ids=["before", "after"])
def test_the_log_is_as_shown(logs, number, lines):
    shown = form(blocks("text")[number])
    assert len(shown) == lines
    assert form(logs[number][0])[:lines] == shown


def test_only_lines_of_snapshots_are_new_in_the_log(logs):
    (before, before_loop, _), (after, after_loop, _) = logs
    gone = [line for line in form(before) if "Saved optimizer state" not in line]
    assert [line for line in form(after) if "Full gradient" not in line] == gone
    assert [line for line in form(after_loop) if "Full gradient" not in line] == form(before_loop)
    for log in (after, after_loop):
        assert re.findall(r"Epoch\[(\d)\] Full gradient: samples=(\d+) ", log) == [("0", "1500"), ("2", "1500")]
    for log in (before, before_loop):
        assert "Full gradient" not in log


def test_both_learn(logs):
    for by_fit, by_loop, _ in logs:
        for log in (by_fit, by_loop):
            accuracies = numbers(log, r"Train-accuracy=(\S+)")
            assert len(accuracies) == 3
            assert accuracies[-1] > 0.97


def test_the_checkpoints_have_one_file_more_each(logs):
    before, after = logs[0][2], logs[1][2]
    more = {"lenet-000{}.svrg".format(epoch) for epoch in (1, 2, 3)}
    assert set(after) - set(before) == more
    assert set(before) <= set(after)
    for name in more:
        assert after[name] == pytest.approx(2 * after[name.replace(".svrg", ".params")], rel=0.01)
    assert "3.5 MB beside 1.7 MB" in " ".join(PAGE.read_text(encoding="utf-8").split())
    assert round(after["lenet-0001.svrg"] / 1e6, 1) == 3.5
    assert round(after["lenet-0001.params"] / 1e6, 1) == 1.7
