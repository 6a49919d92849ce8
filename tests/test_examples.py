"""The examples run, end, and show what they say they show."""

import bz2
import importlib.util
import logging
import os
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import dump_svmlight_file

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("[!_]*.py"))
GALLERY = runpy.run_path(str(ROOT / "docs" / "make_gallery.py"))


def command(name, *arguments, workers=0):
    """The command that runs an example; with workers, by the launcher."""
    launcher = [sys.executable, "-m", "svrg_optimization.launch", "-n", str(workers), "--timeout", "200", "--"]
    return (launcher if workers else []) + [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def run(name, *arguments, directory, workers=0):
    """What an example prints, run from `directory` as a user does."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        command(name, *arguments, workers=workers), cwd=str(directory), env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Subgraph backend" not in ended.stderr, "mxnet's note, which _common.py silences"
    return ended.stdout


@pytest.fixture
def run_here(monkeypatch, tmp_path, capsys):
    """Run an example in this process, which has mxnet already; return its exit code and what it printed.

    With errors=False, only what it printed on stdout.
    """

    def run_here(name, *arguments, errors=True):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        root = logging.getLogger()
        level, handlers = root.level, root.handlers
        # With pytest's handlers, basicConfig would do nothing.
        root.handlers = []
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
            code = 0
        except SystemExit as ended:
            code = ended.code
        finally:
            root.handlers = handlers
            root.setLevel(level)
        printed = capsys.readouterr()
        return code, printed.out + (printed.err if errors else "")

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    # What _common.py would set for good.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MXNET_SUBGRAPH_VERBOSE", "0")
    monkeypatch.setenv("MXNET_STORAGE_FALLBACK_LOG_VERBOSE", "0")
    yield run_here
    sys.modules.pop("_common", None)


def table(printed):
    """The lines that hold nothing but numbers, of worker 0 if there are several; a dash is NaN."""
    lines = [line.replace("worker 0 | ", "") for line in printed.splitlines()]
    rows = [line.replace("%", "").split() for line in lines if re.fullmatch(r"[-+.e\d\s]*\d[-\s]*%?", line)]
    rows = [["nan" if cell == "-" else cell for cell in row] for row in rows]
    assert rows
    assert len({len(row) for row in rows}) == 1
    return np.array(rows, dtype=float)


def shape(printed):
    """The lines without their numbers, each once: how often a line comes may depend on roundings."""
    number = r"-?\b\d+(\.\d+)?(e[-+]\d+)?%?(?=\W|x|s|$)|(?<=\s)-(?=\s)"  # or a dash in a table
    lines = [" ".join(re.sub(number, "#", line).split()) for line in printed.splitlines()]
    return list(dict.fromkeys(lines))


def check_kept(name, printed):
    """What the gallery shows is what the example prints."""
    current = shape(GALLERY["without_directories"](printed))
    kept = [line for line in shape(GALLERY["kept"](name).read_text("utf-8")) if not line.startswith("launch |")]
    assert kept == current, "python docs/make_gallery.py " + name  # the launcher's own line went to stderr


def check_picture(path):
    """A PNG, of a size and of more than one colour."""
    from matplotlib.image import imread

    pixels = imread(str(path))
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 500
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 20


def test_every_example_is_tested():
    assert NAMES == ["buckets.py", "coefficient.py", "distributed.py", "factorization_machine.py",
                     "lasso_path.py", "lenet.py", "linear_regression.py", "locked_noise.py", "logistic_regression.py",
                     "mlp.py", "resume.py", "schedules.py", "sparse_logistic.py"]  # fmt: skip


@pytest.mark.parametrize("name", GALLERY["NAMES"])
def test_the_gallery_shows_every_example(name):
    page = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    section = page.split("\n({})=\n".format(name))[1].split("\n(")[0]
    assert "```sh\n{}\n```".format(GALLERY["command"](name)) in section
    assert "{{literalinclude}} gallery/{}.txt".format(name) in section
    assert "{{literalinclude}} ../examples/{}.py".format(name) in section
    assert GALLERY["kept"](name).read_text("utf-8").strip()
    if "svrg_{}.png".format(name) in (EXAMPLES / (name + ".py")).read_text("utf-8"):
        assert "](images/{}.png)".format(name) in section
        check_picture(ROOT / "docs" / "images" / (name + ".png"))


@pytest.mark.parametrize("name", NAMES)
def test_help(name, run_here, tmp_path):
    code, printed = run_here(name, "--help")
    assert code == 0
    assert "You should see" in printed
    assert "python " + name in printed
    assert not list(tmp_path.iterdir())


SLOW_TO_IMPORT = {"mxnet", "sklearn", "matplotlib", "scipy"}


@pytest.mark.parametrize("arguments, code", [(["--help"], 0), (["--nonsense"], 2)])
@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_read_before_anything_slow_is_imported(name, arguments, code, tmp_path):
    script = (
        "import runpy, sys\n"
        "sys.argv = {!r}\n"
        "sys.path.insert(0, {!r})\n"
        "try:\n"
        "    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    print('ended:', ended.code)\n"
        "print('imported:', *sys.modules)\n"
    ).format([str(EXAMPLES / name), *arguments], str(EXAMPLES))
    printed = subprocess.run([sys.executable, "-B", "-c", script], cwd=str(tmp_path), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, universal_newlines=True, check=True).stdout  # fmt: skip
    assert "ended: {}\n".format(code) in printed
    imported = printed.split("imported: ")[1].split()
    assert not SLOW_TO_IMPORT & set(imported)


@pytest.mark.parametrize("name, arguments, message", [
    ("logistic_regression.py", ["--passes", 2], "argument --passes: must be at least 3, not 2"),
    ("logistic_regression.py", ["--batch-size", 570], "argument --batch-size: must be from 1 to 569, not 570"),
    ("logistic_regression.py", ["--wd", 0], "argument --wd: must be above 0, not 0"),
    ("logistic_regression.py", ["--tol", "nan"], "argument --tol: must be above 0, not nan"),
    ("linear_regression.py", ["--passes", 2], "argument --passes: must be at least 3, not 2"),
    ("linear_regression.py", ["--passes", 2.5], "argument --passes: invalid whole number value: '2.5'"),
    ("linear_regression.py", ["--lr", "x"], "argument --lr: invalid number value: 'x'"),
    ("linear_regression.py", ["--data", "missing"], "argument --data: there is no file missing"),
    ("lasso_path.py", ["--alphas", 0], "argument --alphas: must be at least 1, not 0"),
    ("lasso_path.py", ["--output", "missing/path.png"], "argument --output: there is no directory missing"),
    ("locked_noise.py", ["--noise", -1], "argument --noise: must be above 0, not -1"),
    ("locked_noise.py", ["--batch-size", 1441], "argument --batch-size: must be from 1 to 1440, not 1441"),
    ("mlp.py", ["--output", "mlp.txt"], "argument --output: must end in .png, .svg or .pdf, not as mlp.txt does"),
    ("schedules.py", ["--passes", 4], "argument --passes: must be at least 5, not 4"),
    ("schedules.py", ["--step", "inf"], "argument --step: must be above 0, not inf"),
    ("coefficient.py", ["--epochs", 1], "argument --epochs: must be at least 2, not 1"),
    ("coefficient.py", ["--output", "x.gif"], "argument --output: must end in .png, .svg or .pdf, not as x.gif does"),
    ("sparse_logistic.py", ["--data", "missing"], "argument --data: there is no file missing"),
    ("sparse_logistic.py", ["--passes", 2], "argument --passes: must be at least 3, not 2"),
    ("factorization_machine.py", ["--wd", 0], "argument --wd: must be above 0, not 0"),
    ("factorization_machine.py", ["--rates", 1, 1], "argument --rates: expected 4 arguments"),
    ("resume.py", ["--stop", 6], "argument --stop: must be less than --epochs=6, not 6"),
    ("distributed.py", ["--resume"], "--resume needs --directory"),
])  # fmt: skip
def test_wrong_arguments(name, arguments, message, run_here):
    code, printed = run_here(name, *arguments)
    assert code == 2
    assert message in printed


def test_a_batch_size_that_the_data_do_not_fill(run_here):
    code, _ = run_here("linear_regression.py", "--batch-size", 222)
    assert code == "--batch-size must be at most 221, half of the samples, not 222"
    code, _ = run_here("linear_regression.py", "--batch-size", 221, "--passes", 3)
    assert code == 0


def test_a_file_of_another_format(run_here, tmp_path):
    (tmp_path / "table.csv").write_text("year,timbre\n2001,49.9\n")
    code, _ = run_here("linear_regression.py", "--data", "table.csv")
    assert code.startswith("table.csv isn't in libsvm's format: ")


def test_what_is_not_installed_is_said(run_here, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec",
                        lambda name, *more: None if name == "sklearn" else find_spec(name, *more))  # fmt: skip
    code, _ = run_here("mlp.py")
    assert code.startswith("sklearn isn't installed.")
    assert "pip install '.[examples]'" in code


def certificates(printed):
    """For each type: why training stopped, after how many passes, the bound and the truth."""
    line = r"SVRG auto (float\d\d): ([\w ]+) after (\d+) passes. f - f\* is at most (\d\S+), and is (\d\S+)\."
    return {dtype: (why, int(passes), float(bound), float(gap))
            for dtype, why, passes, bound, gap in re.findall(line, printed)}  # fmt: skip


def test_logistic_regression_reaches_the_minimum(tmp_path):
    printed = run("logistic_regression.py", directory=tmp_path)
    passes, sgd, slow, right, large, auto32, auto64 = table(printed).T
    assert passes.tolist() == list(range(0, 121, 5))
    assert len({column[0] for column in (sgd, slow, right, large, auto32, auto64)}) == 1, "all begin alike"
    ends = {"float32": 1e-10, "float64": 1e-17}
    for dtype, column in (("float32", auto32), ("float64", auto64)):
        (why, stopped, bound, gap) = certificates(printed)[dtype]
        assert why == "converged"
        assert gap < bound < ends[dtype]
        assert 30 < stopped < 120
        # The snapshot that stops costs a pass, or two: each epoch's last batch is filled up.
        assert np.nanmax(passes[~np.isnan(column)]) in (stopped - 1, stopped - 2)
        assert np.nanmin(column) == pytest.approx(gap, rel=0.1)
    assert sgd.min() > 1e-5
    assert slow[-1] > 1e-5
    assert large.min() > 1e-4
    assert right[-1] > 10 * np.nanmin(auto64), "nor is 1/L as good as steps that choose themselves"
    check_picture(tmp_path / "svrg_logistic_regression.png")
    check_kept("logistic_regression", printed)


def test_logistic_regression_options(run_here, tmp_path):
    code, printed = run_here("logistic_regression.py", "--dataset", "digits", "--dtype", "float32", "--passes", 10,
                             "--constant", 0.5, "--wd", 0.1, "--batch-size", 30, "--tol", 1e-3,
                             "--output", "named.png")  # fmt: skip
    assert code == 0
    assert "batches of 30, weight decay 0.1" in printed
    assert "SGD 1/L  SVRG 0.5/L   SVRG auto\n" in printed
    passes, sgd, constant, auto = table(printed).T
    assert passes.tolist() == [0, 5, 10]
    assert constant[-1] < constant[0] / 30
    assert auto[-1] < auto[0] / 30
    why, stopped, bound, gap = certificates(printed)["float32"]
    assert (why, stopped) == ("had no more passes", 6), "the certificate is of the last snapshot"
    assert gap == pytest.approx(auto[1], rel=0.1)
    assert gap < bound
    check_picture(tmp_path / "named.png")


def test_logistic_regression_without_constant_steps(run_here):
    code, printed = run_here("logistic_regression.py", "--dtype", "float64", "--tol", 0.01,
                             "--passes", 50, "--constant")  # fmt: skip
    assert code == 0
    passes, sgd, auto = table(printed).T
    why, stopped, bound, gap = certificates(printed)["float64"]
    assert why == "converged"
    assert stopped < 50
    assert gap < bound < 1e-2


def test_lasso_path_is_that_of_scikit_learn(tmp_path):
    printed = run("lasso_path.py", directory=tmp_path)
    alphas, nonzeros, passes, differences = table(printed).T
    assert len(alphas) == 25
    assert alphas[0] / alphas[-1] == pytest.approx(1e3, rel=2e-3)
    assert (nonzeros[0], passes[0], differences[0]) == (0, 1, 0)
    assert nonzeros[-1] == 10
    assert {2, 3, 4, 5, 6, 7, 8, 9} <= set(nonzeros), "one weight after the other"
    assert differences.max() < 1e-8
    assert passes.max() < 300
    check_picture(tmp_path / "svrg_lasso_path.png")
    check_kept("lasso_path", printed)


def test_lasso_path_options(run_here, tmp_path):
    code, printed = run_here("lasso_path.py", "--alphas", 4, "--batch-size", 221, "--tol", 1e-4,
                             "--output", "named.png")  # fmt: skip
    assert code == 0
    assert "batches of 221\n" in printed
    alphas, nonzeros, passes, differences = table(printed).T
    assert alphas[:-1] / alphas[1:] == pytest.approx(10, rel=2e-3)
    assert 1e-10 < differences.max() < 1e-3
    check_picture(tmp_path / "named.png")


def conclusion(printed):
    """The numbers below the table, by what they are called; the pass is None if it isn't there."""
    found = {}
    for name, pattern in [
        ("svrg", r"SVRG's is (\S+) at the end; SGD's"), ("sgd", r"SGD's is (\S+) at the end"),
        ("best sgd", r"SGD's is \S+ at the end, and (\S+) at its best"), ("times", r"SVRG came (\S+) times closer"),
        ("least", r"Least squares has (\S+);"), ("pass", r"within 1 % of least squares' from pass (\d+) on"),
        ("seconds", r"SVRG trained for (\S+) s\."), ("solver", r"normal equations in (\S+) s\."),
    ]:  # fmt: skip
        match = re.search(pattern, printed)
        found[name] = match and float(match.group(1))
    return found


def test_linear_regression_beats_sgd(tmp_path):
    printed = run("linear_regression.py", directory=tmp_path)
    passes, sgd, svrg, sgd_validation, svrg_validation = table(printed).T
    assert passes[-1] == 60
    assert svrg[-1] < 1e-8
    said = conclusion(printed)
    assert said["best sgd"] <= sgd.min() * 1.05
    assert said["best sgd"] > 1e-3
    assert said["svrg"] == pytest.approx(svrg[-1], rel=0.1)
    assert said["sgd"] == pytest.approx(sgd[-1], rel=0.1)
    assert said["times"] == pytest.approx(said["best sgd"] / svrg[-1], rel=0.2)
    # Where SVRG isn't worth its passes.
    assert svrg_validation[-1] == pytest.approx(said["least"], abs=2e-4)
    assert sgd_validation.max() < 1
    away = abs(svrg_validation / said["least"] - 1)
    (outside,) = np.nonzero(away > 0.0101)
    assert 5 < said["pass"] < 40
    assert passes[outside].max() < said["pass"]
    assert said["solver"] < said["seconds"]
    assert "a full-batch solver is the quicker way" in printed
    check_picture(tmp_path / "svrg_linear_regression.png")
    check_kept("linear_regression", printed)


def test_linear_regression_with_a_constant_step(run_here):
    code, printed = run_here("linear_regression.py", "--lr", 2**-6, "--passes", 5)
    assert code == 0
    assert "SGD's step 0.0156, SVRG's the same" in printed
    passes, sgd, svrg, _, _ = table(printed).T
    assert passes.tolist() == [3, 5]
    said = conclusion(printed)
    assert svrg[-1] > sgd[-1], "an epoch of SVRG costs more"
    assert said["times"] is None and "SVRG came no closer than SGD ever did" in printed
    assert said["pass"] is None and "more passes may help" in printed


def test_linear_regression_reads_libsvm_files(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, 5)) * [1, 10, 100, 1000, 0.1] + 3
    year = 1990 + np.round(x @ [4, 0.4, 0.04, 0.004, 40] + 4 * rng.normal(size=8000))
    plain, path = tmp_path / "plain", tmp_path / "YearPredictionMSD.bz2"
    dump_svmlight_file(x, year, str(plain), zero_based=False)
    path.write_bytes(bz2.compress(plain.read_bytes()))
    printed = run("linear_regression.py", "--data", path, "--batch-size", 32, directory=tmp_path)
    passes, sgd, svrg, _, _ = table(printed).T
    assert passes.tolist() == [3, 5, 8, 10]
    assert svrg[-1] < sgd.min() / 3
    assert "7200 samples, 5 features" in printed
    assert re.search(r"Iter\[0\] Batch \[200\]\s+Speed: ", printed), "the full gradient's Speedometer"
    assert re.search(r"Epoch\[0\] Batch \[0-200\]\s+Speed: ", printed), "the training's Speedometer"
    assert "Full gradient: samples=7200 " in printed


def test_mlp_learns(tmp_path):
    printed = run("mlp.py", directory=tmp_path)
    losses = [float(loss) for loss in re.findall(r"training loss ([\d.]+)", printed)]
    correct = [float(percent) for percent in re.findall(r"([\d.]+)%$", printed, re.MULTILINE)]
    assert len(losses) == len(correct) == 25
    assert losses[-1] < losses[0] / 20
    assert correct[-1] > 97
    assert re.findall(r"Epoch\[(\d+)\] Full gradient: samples=1440 ", printed) == ["0", "5", "10", "15", "20"]
    check_picture(tmp_path / "svrg_mlp.png")
    check_kept("mlp", printed)


def test_mlp_options(run_here, tmp_path):
    code, printed = run_here("mlp.py", "--epochs", 7, "--update-freq", 3, "--verbose", "--output", "named.png",
                             errors=False)  # fmt: skip
    assert code == 0
    assert re.findall(r"Epoch\[(\d)\] Full gradient: samples=1440 ", printed) == ["0", "3", "6"]
    assert len(re.findall("Speed: ", printed)) == 2 * (7 + 3)
    check_picture(tmp_path / "named.png")


def perplexities(printed):
    """By learning rate and method: at five places, and of new sentences."""
    rows = re.findall(r"^    (\S+) +(SGD|SVRG) ((?: +[\d.]+)+)$", printed, re.MULTILINE)
    return {(float(rate), name): [float(cell) for cell in cells.split()] for rate, name, cells in rows}


def test_buckets_stand_a_larger_rate_by_svrg(tmp_path):
    printed = run("buckets.py", directory=tmp_path)
    found = perplexities(printed)
    assert list(found) == [(0.5, "SGD"), (0.5, "SVRG"), (1.0, "SGD"), (1.0, "SVRG")]
    assert found[0.5, "SGD"][4] < found[0.5, "SVRG"][4]
    assert all(svrg < sgd for svrg, sgd in zip(found[1.0, "SVRG"], found[1.0, "SGD"]))
    assert printed.count("SVRG isn't worth its cost here") == 2
    check_picture(tmp_path / "svrg_buckets.png")
    check_kept("buckets", printed)


def test_buckets_options(run_here, tmp_path):
    code, printed = run_here("buckets.py", "--passes", 5, "--update-freq", 2, "--hidden", 4, "--lr", 0.25,
                             "--output", "named.png")  # fmt: skip
    assert code == 0
    assert list(perplexities(printed)) == [(0.25, "SGD"), (0.25, "SVRG")]
    check_picture(tmp_path / "named.png")


def losses_at_the_end(printed):
    """By method: the loss, and the passes that it has cost."""
    line = r"^(SGD|SVRG|SVRG, locked) +(\d\S+) after (\d+) passes$"
    return {name: (float(loss), int(passes)) for name, loss, passes in re.findall(line, printed, re.MULTILINE)}


def test_locked_noise_takes_away_the_error_and_changes_little_else(tmp_path):
    printed = run("locked_noise.py", directory=tmp_path)
    steps, unlocked, locked = table(printed).T
    assert steps.tolist() == [0, 1, 2, 4, 8, 16]
    assert locked[0] == 0
    assert (np.diff(locked) > 0).all()
    assert (locked < unlocked / 10).all()
    assert unlocked.min() > 0.1
    (sgd, cost), (svrg, *costs), (of_locked, *same_costs) = losses_at_the_end(printed).values()
    assert [cost] == costs == same_costs == [100]
    assert sgd < svrg < 1.5 * sgd
    assert of_locked == pytest.approx(svrg, rel=0.02)
    check_picture(tmp_path / "svrg_locked_noise.png")
    check_kept("locked_noise", printed)


def test_locked_noise_options(run_here, tmp_path):
    code, printed = run_here("locked_noise.py", "--noise", 0.25, "--batch-size", 720, "--passes", 7, "--update-freq", 3,
                             "--hidden", 4, "--lr", 0.5, "--output", "named.png")  # fmt: skip
    assert code == 0
    assert "noise of standard deviation 0.25, batches of 720\n" in printed
    assert table(printed)[:, 0].tolist() == [0, 1, 2, 4]
    assert {name: passes for name, (_, passes) in losses_at_the_end(printed).items()} == {
        "SGD": 7, "SVRG": 7, "SVRG, locked": 7}  # fmt: skip
    check_picture(tmp_path / "named.png")


def snapshots_taken(printed):
    """By schedule, the number of snapshots, and the class."""
    found = re.findall(r"^([\w ]+?) +(\d+) snapshots: (\w+)\(", printed, re.MULTILINE)
    return {name: (int(count), kind) for name, count, kind in found}


def test_schedules_differ_in_what_they_cost_and_bring(tmp_path):
    printed = run("schedules.py", directory=tmp_path)
    passes, *columns = table(printed).T
    taken = snapshots_taken(printed)
    gaps = dict(zip(taken, columns))
    assert passes.tolist() == list(range(0, 61, 5))
    assert len({column[0] for column in columns}) == 1, "all begin alike"
    # Passes are 3 an epoch, 5 two epochs, 4 half an epoch twice; and the warm start's first epoch is one.
    assert {name: taken[name] for name in ("1 epoch", "2 epochs", "half", "warm start", "average")} == {
        "1 epoch": (20, "EveryEpochs"), "2 epochs": (12, "EveryEpochs"), "half": (30, "EverySteps"),
        "warm start": (20, "EveryEpochs"), "average": (20, "EveryEpochs"),
    }  # fmt: skip
    assert taken["Loopless"][1] == "Loopless" and 10 < taken["Loopless"][0] < 30
    assert taken["Growing"] == (21, "Growing"), "for parts of full gradients it has one snapshot more"
    assert min(gaps, key=lambda name: gaps[name][1]) == "warm start"
    assert min(gaps, key=lambda name: gaps[name][6]) == "warm start"
    assert max(column[-1] for column in columns) < 1e-8
    for slower in ("2 epochs", "half", "average"):
        assert gaps[slower][-1] > 10 * gaps["1 epoch"][-1]
    assert gaps["Growing"][3] > 3 * gaps["1 epoch"][3]
    check_picture(tmp_path / "svrg_schedules.png")
    check_kept("schedules", printed)


def test_schedules_options(run_here, tmp_path):
    code, printed = run_here("schedules.py", "--passes", 12, "--step", 0.5, "--batch-size", 32, "--seed", 3,
                             "--output", "named.png")  # fmt: skip
    assert code == 0
    assert "569 samples, batches of 32, learning rate 0.15\n" in printed
    assert table(printed)[:, 0].tolist() == [0, 5, 10]
    assert "Loopless(warm_start=0, seed=3, p=0.0555" in printed
    check_picture(tmp_path / "named.png")


def losses_by_coefficient(printed):
    """For each way: epochs, passes and the loss at the end."""
    found = re.findall(r"^(S\w+, [\w. ]+?|SGD) +(\d+) +(\d+) +(\d\.\d+)$", printed, re.MULTILINE)
    return {name: (int(epochs), int(passes), float(loss)) for name, epochs, passes, loss in found}


def test_the_best_coefficient_falls_and_sgd_wins_at_equal_cost(tmp_path):
    # The medians of more seeds take as many times as long, and show the same.
    printed = run("coefficient.py", "--seeds", 1, directory=tmp_path)
    epochs, best, ratio = table(printed).T
    assert epochs.tolist() == list(range(1, 17, 2))
    assert max(best) > 0.9 and best[-1] < 0.7
    assert min(ratio) < 0.3 and ratio[-1] > 0.7
    losses = losses_by_coefficient(printed)
    assert {name: cost for name, (*cost, _) in losses.items()} == {
        "SGD": [16, 16], "SVRG, 1": [16, 48], "SVRG, 0.5": [16, 48], "SVRG, Linear": [16, 48],
        "SVRG, PerLayer": [16, 48], "SGD, longer": [48, 48],
    }  # fmt: skip
    loss = {name: loss for name, (_, _, loss) in losses.items()}
    assert loss["SGD, longer"] < 0.5 * min(value for name, value in loss.items() if name != "SGD, longer")
    assert loss["SVRG, 0.5"] < loss["SVRG, 1"]
    check_picture(tmp_path / "svrg_coefficient.png")
    check_kept("coefficient", printed)


def test_coefficient_options(run_here, tmp_path):
    code, printed = run_here("coefficient.py", "--epochs", 3, "--seeds", 2, "--lr", 0.01, "--batch-size", 144,
                             "--hidden", 8, "--output", "named.png")  # fmt: skip
    assert code == 0
    assert table(printed)[:, 0].tolist() == [1, 2, 3]
    assert "(median of 2)" in printed
    assert losses_by_coefficient(printed)["SGD, longer"][:2] == (9, 9)
    check_picture(tmp_path / "named.png")


SMALL_MACHINE = ["--samples", 1200, "--columns", 200, "--nonzeros", 10, "--passes", 6]


def sparse_certificates(printed):
    """For each way of stepping: why training stopped, after how many passes, the bound and the truth."""
    line = r"^(\w+): ([\w ]+) after (\d+) passes and \S+ s\. f - f\* is at most (\d\S+), and is (\d\S+)\.$"
    return {name: (why, int(passes), float(bound), float(gap))
            for name, why, passes, bound, gap in re.findall(line, printed, re.MULTILINE)}  # fmt: skip


def test_sparse_steps_reach_the_minimum(run_here, tmp_path):
    code, printed = run_here("sparse_logistic.py", "--samples", 3000, "--columns", 4000, "--nonzeros", 20,
                             "--passes", 90)  # fmt: skip
    assert code == 0
    assert re.search(r"^3000 samples, 4000 columns, \d{5} non-zeros; weight decay 0.00024$", printed, re.MULTILINE)
    passes, sgd, lazy, reweighted, dense = table(printed).T
    assert passes.tolist() == list(range(0, 91, 3))
    assert len({column[0] for column in (sgd, lazy, reweighted, dense)}) == 1, "all begin alike"
    for name, column in {"lazy": lazy, "reweighted": reweighted, "dense": dense}.items():
        why, stopped, bound, gap = sparse_certificates(printed)[name]
        assert why == "converged"
        # Suboptimality is a difference of losses, of which 16 digits are known.
        assert gap < bound + 1e-15
        assert np.nanmin(column) < 1e-11
        assert 12 < stopped < 90
    assert sgd.min() > 1e-5
    check_picture(tmp_path / "svrg_sparse_logistic.png")
    check_kept("sparse_logistic", printed)


def test_sparse_steps_of_a_file(run_here, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 30)) * (rng.random((200, 30)) < 0.2)
    y = np.where(x.sum(axis=1) > 0, 7, -7)
    for name, labels in {"two.svm": y, "three.svm": np.where(np.arange(200) == 5, 1, y)}.items():
        dump_svmlight_file(x, labels, str(tmp_path / name), zero_based=False)
    (tmp_path / "table.csv").write_text("year,timbre\n2001,49.9\n")
    options = ["--batch-size", 20, "--wd", 0.125, "--lr", 0.5, "--tol", 1e-3, "--passes", 30, "--output", "named.png"]
    code, printed = run_here("sparse_logistic.py", "--data", "two.svm", *options)
    assert code == 0
    assert "200 samples, 30 columns, {} non-zeros; weight decay 0.12\n".format(np.count_nonzero(x)) in printed
    passes, _, lazy, _, dense = table(printed).T
    np.testing.assert_array_equal(lazy, dense)
    assert {why for why, *_ in sparse_certificates(printed).values()} == {"converged"}
    check_picture(tmp_path / "named.png")
    for name in ("sparse_logistic.py", "factorization_machine.py"):
        code, _ = run_here(name, "--data", "three.svm")
        assert code == "three.svm has 3 values of labels, not 2"
        code, _ = run_here(name, "--data", "table.csv")
        assert code.startswith("table.csv isn't in libsvm's format: ")
        code, _ = run_here(name, "--data", "two.svm", "--batch-size", 201)
        assert code.startswith("--batch-size must be at most ")
    code, printed = run_here("factorization_machine.py", "--data", "two.svm", "--batch-size", 20, "--passes", 3,
                             "--wd", 0.125, "--rates", 0.5, 0.01, 0.5, 0.01)  # fmt: skip
    assert code == 0
    assert "166 samples, and 34 others; 30 columns with 5 numbers each; batches of 20\n" in printed


def test_a_factorization_machine_by_four_methods(run_here, tmp_path):
    code, printed = run_here("factorization_machine.py", *SMALL_MACHINE)
    assert code == 0
    passes, *losses = table(printed).T
    assert passes.tolist() == [3, 6]
    of_training, of_others = losses[0::2], losses[1::2]
    assert all(each[-1] < 0.7 and each[-1] < each[0] for each in of_training), "less than chance, and falling"
    best = re.findall(r"^([\w, ]+?) +best on other samples: (\S+), after (\d+) passes$", printed, re.MULTILINE)
    assert [name for name, *_ in best] == ["SGD", "Adam", "SVRG", "SVRG, Adam"]
    for (_, loss, _), column in zip(best, of_others):
        assert float(loss) <= column.min()
    check_picture(tmp_path / "svrg_factorization_machine.png")
    check_kept("factorization_machine", printed)


@pytest.mark.parametrize("name, arguments, samples", [
    ("sparse_logistic.py", ["--samples", 500, "--columns", 800, "--passes", 3], 500),
    ("factorization_machine.py", SMALL_MACHINE, 1000),
    ("buckets.py", ["--passes", 3, "--lr", 0.5], 384),
    ("distributed.py", ["--epochs", 1], 1792),
    ("lasso_path.py", ["--alphas", 1], 442),
    ("linear_regression.py", ["--passes", 3], 402),
    ("coefficient.py", ["--epochs", 2, "--seeds", 1, "--hidden", 8], 1440),
    ("schedules.py", ["--passes", 5], 569),
    ("logistic_regression.py", ["--passes", 3, "--dtype", "float32", "--constant"], 569),
])  # fmt: skip
def test_verbose_shows_the_log(name, arguments, samples, run_here):
    code, printed = run_here(name, "--verbose", *arguments, errors=False)
    assert code == 0
    assert re.search(r"^    Epoch\[0\] Full gradient: samples={} time=".format(samples), printed, re.MULTILINE)


def test_resumed_weights_are_those_of_the_uninterrupted_run(tmp_path):
    printed = run("resume.py", directory=tmp_path)
    assert re.search("with the optimizer's states: +identical, bit for bit", printed)
    assert re.search("from the weights alone: +different", printed)
    # With the states the snapshot is that of the checkpoint, without them training begins with one.
    assert re.findall(r"Epoch\[(\d)\] Full gradient: samples=960 ", printed) == ["0", "4", "0", "4", "3", "4"]
    assert not list(tmp_path.iterdir())
    check_kept("resume", printed)


def test_resume_leaves_the_checkpoints_when_asked(run_here, tmp_path):
    code, printed = run_here("resume.py", "--epochs", 3, "--stop", 1, "--update-freq", 2, "--directory", "kept")
    assert code == 0
    assert re.search("with the optimizer's states: +identical, bit for bit", printed)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "digits-0001.params", "digits-0001.states", "digits-0001.svrg", "digits-symbol.json",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What two workers print, and the directory with their checkpoints."""
    directory = tmp_path_factory.mktemp("undisturbed")
    return run("distributed.py", "--directory", "whole", directory=directory, workers=2), directory / "whole"


@pytest.mark.xdist_group("distributed")
def test_workers_train_as_a_single_machine_does(undisturbed, tmp_path):
    printed, _ = undisturbed
    check_kept("distributed", printed)
    together = table(printed)
    epochs, losses, above, correct = together.T
    assert epochs.tolist() == list(range(1, 41))
    assert above[-1] < 1e-12 < above[0]
    assert correct[-1] > 95
    alone = table(run("distributed.py", directory=tmp_path))
    np.testing.assert_array_equal(together[:, :2], alone[:, :2])
    # Two digits are printed. Below 1e-12 it is rounding that differs.
    np.testing.assert_allclose(together[:, 2], alone[:, 2], rtol=0.1, atol=1e-12)


@pytest.mark.xdist_group("distributed")
def test_a_killed_job_goes_on_from_its_checkpoint(undisturbed, tmp_path):
    arguments = command("distributed.py", "--epochs", 7, "--directory", "killed", workers=2)
    with subprocess.Popen(arguments, cwd=str(tmp_path), stdout=subprocess.PIPE, text=True) as job:
        while " 5 " not in job.stdout.readline():
            assert job.poll() is None
        job.kill()
    printed = run("distributed.py", "--epochs", 7, "--directory", "killed", "--resume", directory=tmp_path, workers=2)
    begin = int(re.search("going on after epoch ([45])", printed).group(1))
    assert table(printed)[:, 0].tolist() == list(range(begin + 1, 8))
    whole, resumed = ((path / "digits-0007.params").read_bytes() for path in (undisturbed[1], tmp_path / "killed"))
    assert whole == resumed
