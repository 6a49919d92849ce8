"""The tutorial "Your first hour": its numbers are those that the text speaks of, and its pictures show them."""

import ast
import contextlib
import io
import logging
import pathlib
import types

import jupytext
import matplotlib
import nbformat
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Where there are several processes, one takes them all: what they share takes long to make.
pytestmark = pytest.mark.xdist_group("first hour")
PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "first_hour.md"


def read():
    return jupytext.reads(PAGE.read_text("utf-8"), fmt="md:myst")


def code_cells():
    return [cell for cell in read().cells if cell.cell_type == "code"]


def settings(cell):
    """What the cell tells myst-nb."""
    return cell.metadata.get("mystnb", {})


CELLS = code_cells()
PICTURES = [k for k, cell in enumerate(CELLS) if "figure" in settings(cell)]


def run(cell, names, errors):
    """Run the cell as a notebook does; return what it writes, the value that it ends in, and its figures."""
    tree = ast.parse(cell.source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    written, before = io.StringIO(), len(errors.getvalue())
    with contextlib.redirect_stdout(written), contextlib.redirect_stderr(errors):
        exec(compile(tree, PAGE.name, "exec"), names)
        value = last and eval(compile(ast.Expression(last.value), PAGE.name, "eval"), names)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    for figure in figures:
        figure.canvas.draw()
    # Closing takes the canvas away.
    pixels = [np.array(figure.canvas.buffer_rgba()) for figure in figures]
    shown = types.SimpleNamespace(out=written.getvalue(), err=errors.getvalue()[before:], value=value)
    shown.figures, shown.pixels, shown.boxes = figures, pixels, [label_boxes(figure) for figure in figures]
    plt.close("all")
    return shown


def label_boxes(figure):
    """Where the labels of the axes are, in pixels."""
    renderer = figure.canvas.get_renderer()
    return [axis.label.get_window_extent(renderer) for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis)]


@pytest.fixture(scope="module")
def page():
    """All cells, run once: `names` has what they have defined, `cells` what each has shown."""
    root, names = logging.getLogger(), {"__name__": "__main__"}
    handlers, level, root.handlers = root.handlers, root.level, []
    try:
        with matplotlib.rc_context():
            # One stderr for all, as in a notebook: the log goes on to write where it began to.
            errors = io.StringIO()
            cells = [run(cell, names, errors) for cell in CELLS]
    finally:
        root.handlers = handlers
        root.setLevel(level)
    return types.SimpleNamespace(names=types.SimpleNamespace(**names), cells=cells)


@pytest.fixture
def names(page):
    return page.names


# ------------------------------------------------------------------------------------------------------- a notebook


def test_it_becomes_a_notebook_and_a_page_again():
    notebook = read()
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"
    written = jupytext.writes(notebook, fmt="ipynb")
    again = jupytext.reads(jupytext.writes(jupytext.reads(written, fmt="ipynb"), fmt="md:myst"), fmt="md:myst")
    assert [(cell.cell_type, cell.source, cell.metadata) for cell in again.cells] == [
        (cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells
    ]
    # A cell that jupytext doesn't take for one would be text.
    assert PAGE.read_text("utf-8").count("```{") == len(CELLS) > 15
    assert not any("```{" in cell.source for cell in notebook.cells)


def test_the_cells_are_python_3_8():
    for cell in CELLS:
        ast.parse(cell.source, feature_version=(3, 8))


def test_the_cells_show_what_they_are_meant_to_and_nothing_else(page):
    for cell, shown in zip(CELLS, page.cells):
        assert shown.value is None, cell.source
        assert bool(shown.err) == (settings(cell).get("output_stderr") == "show"), shown.err
        assert len(shown.figures) == ("figure" in settings(cell))


def test_only_the_solution_is_folded():
    folded = [k for k, cell in enumerate(CELLS) if cell.metadata.get("tags")]
    assert folded == [len(CELLS) - 1]
    assert CELLS[-1].metadata.tags == ["hide-cell"]
    assert settings(CELLS[-1])["code_prompt_show"] == "Show a solution"


# --------------------------------------------------------------------------------------------------------- numbers


def test_the_problem(names):
    assert names.x.shape == (569, 30) and names.pixels.shape == (1797, 64)
    assert set(names.y) == {0, 1} and set(names.digit) == set(range(10))
    assert names.pixels.min() >= 0 and names.pixels.max() == 1
    # f* is the minimum: the gradient is zero there.
    best = names.exact.coef_[0]
    probabilities = 1 / (1 + np.exp(-names.rows @ best))
    assert abs(names.rows.T @ (probabilities - names.y) / 569 + 0.01 * best).max() < 1e-10
    assert names.minimum == names.objective(best)


def test_sgd_stalls_and_svrg_does_not(names):
    for gaps, lowest, highest in ((names.sgd, 1e-3, 1e-2), (names.small_sgd, 2e-5, 2e-4)):
        assert len(gaps) == 82 and lowest < gaps[-20:].min() and gaps[-20:].max() < highest
        assert gaps[-1] == pytest.approx(gaps[-10], rel=0.05)
    # The smaller rate is lower in the end, and slower.
    assert names.small_sgd[-1] < names.sgd[-1] / 10 and names.small_sgd[3] > 2 * names.sgd[3]
    assert len(names.svrg) == 28 and names.svrg[-1] < 1e-10
    assert np.all(names.svrg[1:] < names.svrg[:-1])


def test_the_log_has_three_lines_an_epoch(page):
    (shown,) = (shown for cell, shown in zip(CELLS, page.cells) if "basicConfig" in cell.source)
    lines = shown.err.splitlines()
    for epoch in range(2):
        first, metric, cost = lines[3 * epoch : 3 * epoch + 3]
        assert first.startswith("INFO:root:Epoch[{}] Full gradient: samples=569 ".format(epoch)) and "norm=" in first
        assert metric.startswith("INFO:root:Epoch[{}] Train-mse=".format(epoch))
        assert cost.startswith("INFO:root:Epoch[{}] Time cost=".format(epoch))
    assert len(lines) == 6 and "with-decay=" in lines[3]


def test_three_rates_and_auto(names):
    runs = names.runs
    assert list(runs) == ["rate 1.6", "rate 0.02", "rate 0.4", "auto"]
    assert [len(gaps) for gaps in runs.values()] == [28, 28, 28, 21]
    assert runs["rate 1.6"][4:].min() > 1e-3
    assert 1e-4 < runs["rate 0.02"][-1] < 1e-2 and np.all(np.diff(runs["rate 0.02"]) < 0)
    assert runs["rate 0.4"][-1] < 1e-10
    assert runs["auto"][-1] < 1e-13 and runs["auto"][15] < 1e-2 * runs["rate 0.4"][15]


def test_how_often_a_snapshot(names):
    passes = {name: dict(zip([1, 2, 3, 5], each)) for name, each in names.by_frequency.items()}
    assert names.frequencies == [1, 2, 3, 5] and list(passes) == ["rate 0.2", "rate 0.4", "auto"]
    assert 0.75 < passes["rate 0.2"][2] / passes["rate 0.2"][1] < 0.9
    assert passes["rate 0.4"][2] / passes["rate 0.4"][1] > 1.2 and passes["rate 0.4"][5] / passes["rate 0.4"][1] > 3
    for frequency, auto in passes["auto"].items():
        assert auto >= passes["auto"][1] and auto < min(passes["rate 0.2"][frequency], passes["rate 0.4"][frequency])
    # A constant rate of 0.2 is best with the default or near it, the others with 1.
    assert min(passes["rate 0.2"].values()) > 0.9 * passes["rate 0.2"][2]
    assert passes["rate 0.4"][1] == min(passes["rate 0.4"].values())


def test_how_large_a_batch(names):
    constant, scaled, auto = (names.by_size[name] for name in ("rate 0.4", "rate 0.05 x size", "auto"))
    assert names.sizes == [8, 16, 32, 64, 128] and (len(constant), len(scaled), len(auto)) == (3, 5, 5)
    assert np.array(constant[1:]) / constant[:-1] == pytest.approx([2, 2], rel=0.1)
    assert scaled[1:4] == pytest.approx([scaled[0]] * 3, rel=0.1) and 1.1 < scaled[4] / scaled[0] < 1.3
    assert auto[0] < 0.75 * scaled[0] and auto[4] > 1.5 * auto[0]
    assert auto[4] == pytest.approx(scaled[4], rel=0.2)


def test_the_certificate(names):
    history, gaps = names.history, names.gaps
    assert names.certified.converged and len(gaps) == len(history) > 10
    assert history[-1].gradient_norm <= 1e-7 * history[0].gradient_norm < history[-2].gradient_norm
    for record, gap in zip(history, gaps):
        assert 0 < gap <= record.bound == pytest.approx(record.gradient_norm**2 / (2 * 0.01), rel=1e-6)
        assert vars(record).keys() >= {"epoch", "passes", "norm", "gradient_norm", "bound", "learning_rate", "momentum"}
    # An epoch costs three passes, with the 7 rows by which the last batch is filled up.
    assert np.diff([record.passes for record in history]) == pytest.approx(1 + 2 * 576 / 569, rel=1e-12)
    # A tenth of the gradient is a hundredth of the gap.
    norms = np.log10([record.gradient_norm for record in history])
    assert np.polyfit(norms[1:], np.log10(gaps[1:]), 1)[0] == pytest.approx(2, abs=0.2)


def test_too_few_epochs_give_a_warning(page):
    (shown,) = (shown for cell, shown in zip(CELLS, page.cells) if "too_short" in cell.source)
    assert not page.names.too_short.converged and shown.out == "converged: False\n"
    assert shown.err.startswith("WARNING:root:num_epoch=5 came before tol=1e-07 was reached")
    assert len(shown.err.splitlines()) == 1


def test_l1_has_the_weights_of_scikit_learn(names):
    assert names.lasso.converged and names.features.shape == (442, 10)
    assert abs(names.weights - names.theirs).max() < 5e-10
    np.testing.assert_array_equal(names.weights == 0, names.theirs == 0)
    assert 2 < np.sum(names.weights == 0) < 8
    assert names.lasso.history[-1].bound is None
    largest = np.argsort(abs(names.weights))[-2:]
    assert {names.diabetes.feature_names[k] for k in largest} == {"bmi", "s5"}


def test_diagnose_says_that_batchnorm_does_not_pay(page):
    of_softmax, of_net = page.names.of_softmax, page.names.of_net
    assert of_softmax.break_even == of_net.break_even == 0.4
    assert of_softmax.helps and of_softmax.ratio < 0.2
    assert not of_net.helps and of_net.ratio > 0.8
    ratios = [point.ratio for point in of_net.points]
    assert min(ratios) > 0.4 and sum(ratio > 1 for ratio in ratios) > len(ratios) / 2
    (shown,) = (shown for cell, shown in zip(CELLS, page.cells) if "import diagnose" in cell.source)
    helps, does_not = shown.out.splitlines()
    assert helps.startswith("Softmax regression: SVRG helps here: ")
    assert does_not.startswith("Net with BatchNorm: SVRG doesn't help here: ")


def test_sgd_trains_the_net_further(names):
    for rate in (0.5, 0.1):
        assert names.loss_of_sgd[rate] < 0.7 * names.loss_of_svrg[rate]
    assert names.ratios[0.5] > 0.4 > names.ratios[0.1]


def test_the_reader_can_solve_it(names):
    """With nothing but what the page defines before its last cell, and settings of parts 2 to 5."""
    assert abs(names.relative_error(names.reference.coef_, names.reference.intercept_)) < 1e-15
    assert names.solution.converged and names.solution.history[-1].bound is None
    assert -1e-13 < names.error < 1e-8
    params = names.solution.get_params()[0]
    assert all(value.dtype == np.float64 for value in params.values())
    np.testing.assert_allclose(params["fc_weight"].asnumpy(), names.reference.coef_, atol=1e-3)


@pytest.mark.parametrize("of_iterator, of_module, error, message", [
    ({}, {"label_names": ["label"]}, KeyError, "'softmax_label'"),
    ({"label_name": "label"}, {}, ValueError, "Unknown initialization pattern for label"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*label:UserWarning")
def test_forgotten_names_of_the_label(names, of_iterator, of_module, error, message):
    train = names.mx.io.NDArrayIter(names.double(names.pixels), names.double(names.digit), batch_size=32, **of_iterator)
    with pytest.raises(error, match=message):
        names.SVRGModule(names.softmax, **of_module).fit(train, num_epoch=1)
    assert message in PAGE.read_text("utf-8")


def test_sorted_rows_cost_more_passes(names):
    order = np.argsort(names.y, kind="stable")
    passes = []
    for rows in (np.arange(569), order):
        column = names.double(names.y[rows].reshape(-1, 1))
        module = names.variance_reduced()
        module.fit(
            names.mx.io.NDArrayIter(names.double(names.x[rows]), column, batch_size=8, label_name="label"),
            num_epoch=200,
            tol=1e-5,
            optimizer_params={"learning_rate": 0.4, "wd": names.wd},
            initializer=names.mx.init.Zero(),
            eval_metric="mse",
        )
        assert module.converged
        passes.append(round(module.history[-1].passes))
    text = " ".join(PAGE.read_text("utf-8").split())
    assert "takes {1} passes in part 4, where it takes {0} with the shuffled ones".format(*passes) in text


@pytest.mark.parametrize("kind", ["wd", "l1"])
def test_wine_is_solved_by_the_same_program(names, kind):
    from sklearn.datasets import load_wine

    x, y = names.shuffle(*load_wine(return_X_y=True), random_state=0)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    # scikit-learn 1.8 has another name for it.
    only_l1 = {"l1_ratio": 1} if names.LogisticRegression().penalty == "deprecated" else {"penalty": "l1"}
    # With a smaller tol, old versions of newton-cg warn of their line search.
    how = {"solver": "newton-cg", "tol": 1e-7} if kind == "wd" else {"solver": "saga", "tol": 1e-11, **only_l1}
    reference = names.LogisticRegression(C=1.0, max_iter=100000, **how).fit(x, y)

    def objective(weight, bias):
        scores = x @ weight.T + bias
        loss = np.mean(np.logaddexp.reduce(scores, axis=1) - scores[np.arange(178), y])
        return loss + (np.sum(weight**2) / 2 if kind == "wd" else abs(weight).sum()) / 178

    scores = names.mx.sym.FullyConnected(names.data, num_hidden=3, name="fc")
    module = names.SVRGModule(names.mx.sym.SoftmaxOutput(scores, names.label), label_names=["label"], update_freq=1)
    module.fit(
        names.mx.io.NDArrayIter(names.double(x), names.double(y), batch_size=32, label_name="label"),
        num_epoch=500,
        tol=1e-6,
        optimizer="sgd" if kind == "wd" else "proximalsgd",
        optimizer_params={"learning_rate": "auto", kind: 1 / 178},
        initializer=names.mx.init.Zero(),
    )
    found = [module.get_params()[0][name].asnumpy() for name in ("fc_weight", "fc_bias")]
    assert module.converged
    assert abs(objective(*found) / objective(reference.coef_, reference.intercept_) - 1) < 1e-9


@pytest.mark.parametrize("labels, message", [
    (lambda names: names.double(names.digit.reshape(-1, 1)), "Shape inconsistent"),
    (lambda names: names.digit, "uniform type"),
])  # fmt: skip
def test_errors_say_what_the_page_says(names, labels, message):
    train = names.mx.io.NDArrayIter(names.double(names.pixels), labels(names), batch_size=32, label_name="label")
    with pytest.raises(RuntimeError, match=message):
        names.SVRGModule(names.softmax, label_names=["label"]).fit(train, num_epoch=1)


def test_the_exact_solution_of_the_digits_is_one(names):
    scores = names.pixels @ names.reference.coef_.T + names.reference.intercept_
    residuals = np.exp(scores - np.logaddexp.reduce(scores, axis=1)[:, None])
    residuals[np.arange(1797), names.digit] -= 1
    gradient = residuals.T @ names.pixels / 1797 + names.reference.coef_ / 1797
    # By the certificate, as if the bias were at rest: f - f* is far below 1e-8 of f, which is 0.2.
    assert np.sum(gradient**2) / (2 / 1797) < 1e-13 and abs(residuals.mean(axis=0)).max() < 1e-9


# -------------------------------------------------------------------------------------------------------- pictures


def test_there_are_seven_pictures():
    assert len(PICTURES) == 7


@pytest.mark.parametrize("k", PICTURES)
def test_the_picture_has_a_text_and_a_caption(k):
    assert settings(CELLS[k])["image"]["alt"].endswith(".") and len(settings(CELLS[k])["image"]["alt"]) > 60
    assert settings(CELLS[k])["figure"]["caption"].endswith(".")


@pytest.mark.parametrize("k", PICTURES)
def test_the_picture_shows_its_data(page, k):
    (figure,) = page.cells[k].figures
    (axes,) = figure.axes
    labels = [axes.get_xlabel(), axes.get_ylabel()]
    assert all(labels)
    assert {"f - f*", "passes over the data", "ratio of variances", "feature"} & set(labels)
    drawn = [line for line in axes.lines if len(line.get_xdata()) > 2]
    assert drawn
    for line in drawn:
        x, y = (np.asarray(axes.convert_xunits(line.get_xdata()), float), np.asarray(line.get_ydata(), float))
        assert np.all(np.isfinite(x)) and np.all(np.isfinite(y))
        # Nothing is cut off, and lines aren't level at the edge because they would go on below.
        for values, limits in ((x, axes.get_xlim()), (y, axes.get_ylim())):
            assert min(limits) <= values.min() and values.max() <= max(limits)
    names_in_legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert 2 <= len(names_in_legend) == len(set(names_in_legend)) <= 4
    colours = {line.get_color() for line in drawn} | {bar.get_facecolor() for bar in axes.patches}
    assert len(colours) >= 2


@pytest.mark.parametrize("k", PICTURES)
def test_the_picture_can_be_read(page, k):
    """On a telephone, 358 pixels wide, and on a dark page."""
    (figure,) = page.cells[k].figures
    assert figure.get_facecolor()[:3] == (1, 1, 1)
    (pixels,), ((width, height),) = page.cells[k].pixels, [figure.bbox.size]
    assert (width, height) == (720, pytest.approx(518.4)) and pixels.shape[:2] == (518, 720)
    assert 0.02 < np.mean(np.any(pixels[..., :3] != 255, axis=2)) < 0.6
    for box in page.cells[k].boxes[0]:
        assert min(box.x0, box.y0) >= 0 and box.x1 <= width and box.y1 <= height
    (axes,) = figure.axes
    texts = [*axes.get_xticklabels(), *axes.get_yticklabels(), axes.xaxis.label, axes.yaxis.label]
    texts += axes.get_legend().get_texts()
    # In CSS pixels: points / 72 inches, of 358 pixels for 5 inches.
    assert min(text.get_size() for text in texts) / 72 * 358 / 5 > 10


def test_the_pictures_show_the_numbers(page):
    """One line for each run, with the values that the text speaks of."""
    names, figures = page.names, [page.cells[k].figures[0].axes[0] for k in PICTURES]
    of_runs = [
        {"SGD, rate 0.4": names.sgd, "SGD, rate 0.05": names.small_sgd, "SVRG, rate 0.4": names.svrg},
        names.runs, names.by_frequency, names.by_size,
        {"bound": [record.bound for record in names.history], "true f - f*": names.gaps},
    ]  # fmt: skip
    for axes, lines in zip(figures, of_runs):
        assert [line.get_label() for line in axes.lines] == list(lines)
        for line, values in zip(axes.lines, lines.values()):
            np.testing.assert_allclose(line.get_ydata(), np.maximum(values, 1e-16), rtol=1e-15)
    bars, ratios = figures[5:]
    np.testing.assert_array_equal([bar.get_width() for bar in bars.patches], names.weights)
    np.testing.assert_array_equal(bars.lines[0].get_xdata(), names.theirs)
    for line, found in zip(ratios.lines, (names.of_softmax, names.of_net)):
        np.testing.assert_array_equal(line.get_ydata(), [point.ratio for point in found.points])
    assert ratios.lines[2].get_ydata()[0] == 0.4
