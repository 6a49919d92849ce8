"""The benchmark runs and writes what it says. It is no test of speed: nothing here looks at a time."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def run(module, *arguments):
    """What a command of the benchmark prints. In a process of its own: it imports upstream's module, too."""
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=str(ROOT), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, timeout=300, check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


# Where there are several processes, one takes all of a group: what they share takes long to make.
@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The directory that a small run has written, and what it printed."""
    directory = tmp_path_factory.mktemp("out") / "new"
    printed = run("benchmarks", "--only", "steps", "linear", "snapshot-pass", "convergence", "--rounds", 1,
                  "--seconds", 0, "--sizes", 500, "--families", "heavy rows 400", "--patience", 0.05,
                  "--rest", 0, "--output", directory)  # fmt: skip
    return directory, printed


@pytest.mark.xdist_group("report")
def test_the_json_has_every_contender_and_the_ratios(report):
    results = json.loads((report[0] / "results.json").read_text("utf-8"))
    times = results["steps"]["linear"]
    assert set(times) == {"floor", "Module's floor", "Module", "ours", "upstream"}
    assert all(len(samples) == 1 and samples[0] > 0 for samples in times.values())
    assert results["ratios"]["linear"] == {
        "upstream/ours": times["upstream"][0] / times["ours"][0],
        "ours/Module": times["ours"][0] / times["Module"][0],
        "ours/floor": times["ours"][0] / times["floor"][0],
        "ours/Module's floor": times["ours"][0] / times["Module's floor"][0],
    }
    assert set(results["snapshot_pass"]["500"]) == {"ours", "NumPy"}
    assert results["environment"]["mxnet"] == "1.9.1"


@pytest.mark.xdist_group("report")
def test_the_convergence_comparison_has_scikit_learn_and_both_targets(report):
    methods = json.loads((report[0] / "results.json").read_text("utf-8"))["convergence"]["500"]
    solvers = {"scikit-learn " + solver for solver in ("sag", "saga", "lbfgs", "newton-cholesky")}
    assert {"ours", "upstream"} | solvers <= set(methods)
    for reached in methods.values():
        assert [each["target"] for each in reached] == [1e-6, 1e-10]
        # Whether a target is reached depends on the patience, which is a time: nothing to test.
        assert all((each["iterations"] is None) == (not each["seconds"]) for each in reached)


@pytest.mark.xdist_group("report")
def test_the_tables_are_printed_and_written(report):
    directory, printed = report
    written = (directory / "results.md").read_text("utf-8")
    assert written in printed
    assert "| linear 90 features, batch 100, 5k rows |" in written
    assert "| upstream/ours | ours/Module | ours/floor | ours/Module's floor |" in written
    assert "| scikit-learn sag |" in written
    assert "### n = 500\n" in written and "### heavy rows n = 400\n" in written
    assert (directory / "results.png").stat().st_size > 10_000


def test_memory_is_measured_in_a_process():
    idle, fitted = (float(run("benchmarks.memory", contender, "softmax")) for contender in ("idle", "ours"))
    assert fitted > idle > 10


def test_the_profile_names_the_phases():
    printed = run("benchmarks.profile_step", "linear", "--seconds", 0, "--functions", 3)
    for phase in ("forward, snapshot", "correction", "update", "metric", "full pass", "fit, undisturbed"):
        assert "| {} |".format(phase) in printed
    assert "3 due to restriction" in printed


def test_nobody_converges_without_patience(tmp_path):
    printed = run("benchmarks", "--only", "convergence", "--sizes", 100, "--families", "--patience", 0, "--rounds", 1,
                  "--rest", 0, "--output", tmp_path)  # fmt: skip
    assert "| ours | never (" in printed
    assert (tmp_path / "results.png").exists()


def test_chosen_steps_are_compared_with_constant_ones():
    lines = run("benchmarks.auto_step", "independent", "--losses", "squared", "--n", 200).splitlines()
    assert sum(line.startswith("independent, ") for line in lines) == 2
    for way in ("auto", "momentum 0.9"):
        (line,) = (line for line in lines if line.startswith(way + ": geometric mean"))
        assert line.endswith(", of 2")


def test_the_picture_of_chosen_steps(tmp_path):
    run("benchmarks.auto_step", "--picture", tmp_path / "steps.png", "--n", 200)
    assert (tmp_path / "steps.png").stat().st_size > 20_000


def test_the_distributed_jobs_of_the_contenders_take_turns():
    printed = run("benchmarks.distributed", "--contenders", "Module", "ours", "--rounds", 1, "--epochs", 2)
    assert "| Module | " in printed and "| ours | " in printed


def test_nets_after_as_many_updates_and_as_many_gradient_evaluations(tmp_path):
    printed = run("benchmarks.nets", "--epochs", 2, "--seeds", 1, "--picture", tmp_path / "nets.png")
    rows = [line.split(" | ")[:3] for line in printed.splitlines() if line.count(" | ") == 5 and "---" not in line]
    header, *found = rows[: len(rows) // 2]
    assert header == ["| gradient", "updates", "passes"] and printed.count("| the best coefficient | ") == 2
    # An epoch has 45 batches of 32. The last period of the linear coefficient needs no gradients at the snapshot.
    assert found == [
        ["| AdamW", "90", "2"], ["| AdamW", "270", "6"], ["| AdamW, 3 times the batch", "90", "6"],
        ["| SVRG", "90", "6"], ["| alpha-SVRG, Linear", "90", "5"], ["| SVRG, PerLayer", "90", "6"],
    ]  # fmt: skip
    assert rows[len(rows) // 2 :] == [header, *found]
    assert (tmp_path / "nets.png").stat().st_size > 20_000
    # The page has the tables of a longer run.
    (page,) = (text for path in (ROOT / "docs").glob("*.md")
               if "<!-- figures: python -m benchmarks.nets -->" in (text := path.read_text("utf-8")))  # fmt: skip
    of_page = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    assert [name for name in of_page if name in {row[0] for row in rows}] == [row[0] for row in rows]


def rows_of(text):
    """The cells of the tables in a text, without their headers."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    return [line for line in lines if line[0] not in ("schedule", "snapshot")]


@pytest.fixture(scope="module")
def schedules(tmp_path_factory):
    """What a small comparison of schedules prints, and its picture."""
    picture = tmp_path_factory.mktemp("schedules") / "schedules.png"
    small = ["--n", 400, "--passes", 8, "--seeds", 2, "--rounds", 1]
    return run("benchmarks.schedules", "--problems", "generated", *small, "--picture", picture), picture


@pytest.mark.xdist_group("schedules")
def test_schedules_are_compared_by_passes(schedules):
    printed, picture = schedules
    of_passes, of_costs = printed.split("Full gradients of")
    methods = {name: cells for name, *cells in rows_of(of_passes)}
    assert {"SGD", "EveryEpochs(1)", "EveryEpochs(1), 'auto'", "Growing(n / 64)", "EveryEpochs(1, at='random')"} < set(
        methods
    )
    assert methods["EveryEpochs(1), 'auto'"][0] == "auto"
    for step, *reached in methods.values():
        assert step == "auto" or all(float(each) > 0 for each in step.split(", "))
        for each in reached:
            assert each.startswith("never (") or 0 < float(each) <= 9
    # 400 // 64 = 6 samples, and twice as many each time.
    costs = rows_of(of_costs)
    assert [int(row[1]) for row in costs] == [6, 12, 24, 48, 96, 192, 384, 400, 400]
    assert [float(row[2]) for row in costs[-3:]] == [0.96, 1, 1] and float(costs[-1][4]) == 1
    assert picture.stat().st_size > 20_000


def test_passes_of_schedules_are_the_same_each_time():
    arguments = ["--only", "passes", "--problems", "digits", "--passes", 4, "--seeds", 1,
                 "--methods", "SGD", "Loopless, 1 an epoch", "Growing(n / 4)"]  # fmt: skip
    first, second = (rows_of(run("benchmarks.schedules", *arguments)) for _ in range(2))
    assert first == second
    assert [row[0] for row in first] == arguments[-3:]


@pytest.mark.xdist_group("schedules")
def test_the_page_has_the_tables_of_schedules(schedules):
    page = (ROOT / "docs" / "schedules.md").read_text("utf-8")
    of_passes, of_costs = schedules[0].split("Full gradients of")
    (tables,) = re.findall("<!-- figures: python -m benchmarks.schedules -->(.*?)<!-- end", page, re.DOTALL)
    (costs,) = re.findall("<!-- costs: python -m benchmarks.schedules -->(.*?)<!-- end", page, re.DOTALL)
    assert [row[0] for row in rows_of(tables)] == 3 * [row[0] for row in rows_of(of_passes)]
    # Parts of 100,000 samples.
    assert [row[1] for row in rows_of(costs)] == [
        "{:,}".format(min(100_000, 1562 * 2**k)) for k in range(len(rows_of(of_costs)))
    ]


def test_sparse_steps_are_compared_with_plain_modules():
    printed = run(
        "benchmarks.sparse", "--columns", 300, 600, "--networks", "logistic", "--rounds", 1, "--seconds", 0,
        "--samples", 300, "--features", 400, "--patience", 0.1, "--rest", 0, "--only", "steps", "convergence",
    )  # fmt: skip
    steps, convergence, judged = re.split("Steps, |Convergence, |Judged, ", printed)[1:]
    contenders = ["lazy", "lazy, decay", "reweighted"]
    names = [row[0] for row in rows_of(steps)]
    assert names[:2] == ["ms a step", "Module"]
    assert names[2:8] == [name + kind for name in contenders for kind in ("", ", CSRIter")]
    # The rows that batches touch are counted, whatever the machine.
    assert [float(cell) for cell in rows_of(steps)[8][1:3]] == [300, 598]
    methods = {name: cells for name, *cells in rows_of(convergence)}
    ours = {"SVRGModule " + sparse for sparse in ("lazy", "reweighted", "dense")}
    assert ours | {"scikit-learn saga", "scikit-learn sag"} < set(methods)
    assert judged.count("- logistic regression, ") == 6
    assert re.search(
        r"^- logistic regression, lazy: [\d.]+ \(at most 2.5\), [\d.]+ \(at most 1\)", judged, re.MULTILINE
    )


def test_the_memory_of_sparse_steps_is_measured_in_a_process():
    numpy, process = json.loads(run("benchmarks.sparse", "--child", "logistic", "reweighted", 1000).splitlines()[-1])
    assert 20 < numpy < 2000
    assert 0 <= process < 50_000
