"""The pages of advice keep in step with the code: their messages, their picture, their figures' program."""

import os
import pathlib
import re
import runpy
import subprocess
import sys
import warnings

import messages
import mxnet as mx
import numpy as np
import pytest

from svrg_optimization import SVRGModule

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
TROUBLE = (DOCS / "troubleshooting.md").read_text("utf-8")
OF_MXNET = "Of MXNet and NumPy themselves"
# What has no row, and why. A pattern is looked for in "path: text".
WITHOUT_ROW = {
    r"^launch/": "the launcher's command line: each error names the option, and what it may be",
    r"^theory\.py: ": "each names the argument, and what it may be",
    r"^checkpoint/(safe_pickle|svrg_file|optimizer_states)\.py: (it holds|it is damaged|not a \.svrg file)":
        "the reasons in the brackets of `… can't be read (…)`",
    r"^distributed/(attendance|lines)\.py: ": "what processes say of strangers' messages: nobody reads it",
    r"^__init__\.py: module … has no attribute": "Python's own",
}  # fmt: skip


def rows_by_heading():
    """Heading -> the messages of its list."""
    found, heading, lines = {}, "", TROUBLE.split("\n## By message\n")[1].splitlines()
    for line, next_line in zip(lines, lines[1:]):
        if line.startswith("### "):
            heading = line[4:]
        row = re.fullmatch("(`+)(.+)\\1", line)
        if row and next_line.startswith(": "):
            found.setdefault(heading, []).append(row.group(2).strip())
    return found


ROWS = rows_by_heading()
OURS = [row for heading, rows in ROWS.items() if heading != OF_MXNET for row in rows]


@pytest.mark.parametrize("row", OURS)
def test_a_message_of_the_page_is_one_of_the_package(row):
    assert any(messages.fits(row, text) for text in messages.all_texts()), row


def test_each_message_of_the_package_has_a_row():
    missing = [
        "{}:{}: {}".format(message.path, message.line, message.texts[0])
        for message in messages.messages()
        if not any(messages.fits(row, text) for row in OURS for text in message.texts)
        and not any(
            re.search(pattern, "{}: {}".format(message.path, text))
            for pattern in WITHOUT_ROW
            for text in message.texts
        )
    ]  # fmt: skip
    assert not missing, "add rows to docs/troubleshooting.md:\n" + "\n".join(missing)


@pytest.mark.parametrize("pattern", WITHOUT_ROW)
def test_what_needs_no_row_is_still_there(pattern):
    assert any(
        re.search(pattern, "{}: {}".format(each.path, text)) for each in messages.messages() for text in each.texts
    )


@pytest.mark.parametrize("heading", ROWS)
def test_rows_are_in_the_order_of_the_alphabet(heading):
    keys = [re.sub("[^a-z0-9 ]", "", row.lower()).strip() for row in ROWS[heading]]
    assert keys == sorted(set(keys))


def test_what_the_log_is_said_to_show_is_what_the_package_writes():
    """Between its numbers, each line of a block of output is made of texts of the package, or of Module's."""
    known = [*messages.all_texts(), "Train-", "Time cost="]
    lines = [line.strip() for block in re.findall(r"```text\n(.*?)```", TROUBLE, re.S) for line in block.splitlines()]
    assert len(lines) > 5
    for line in lines:
        line = re.sub(r"^(Epoch|Snapshot)\[\d+\] |^FloatingPointError: ", "", line)
        for piece in re.split(r"(?:worker )?\b\d[\d.e+-]*|fc_weight, fc_bias|mse=|\. |, (?=or with)", line):
            words = piece.strip(" .,")
            assert any(words in text for text in known), (words, line)


# ------------------------------------------------------------------------------------------------- messages of MXNet

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X.sum(axis=1) > 0).astype(float)


def classifier():
    scores = mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=2, name="fc")
    return mx.sym.SoftmaxOutput(scores, name="softmax")


def batches(dtype="float32", of_label=None, **names):
    return mx.io.NDArrayIter(mx.nd.array(X, dtype=dtype), mx.nd.array(Y, dtype=of_label or dtype), 8, **names)


def fit(train=None, module=None, **settings):
    # The result is computed later, and so is an error.
    (module or mx.mod.Module(classifier())).fit(batches() if train is None else train, num_epoch=1, **settings)
    mx.nd.waitall()


def fit_twice():
    module = mx.mod.Module(classifier())
    for _ in range(2):
        fit(module=module)


def other_features():
    module = mx.mod.Module(classifier())
    fit(module=module)
    module.forward(mx.io.DataBatch([mx.nd.ones((8, 5))], [mx.nd.ones(8)]))


def optimizer_instance():
    fit(optimizer=mx.optimizer.SGD(learning_rate=0.1))


# In the order of the page. Not here: what another NumPy, or a system without its libraries, would be needed for; and
# what MXNet writes to stderr past Python.
REPRODUCED = {
    "Data provided by data_shapes don't match": lambda: fit(batches(data_name="x")),
    "Data provided by label_shapes don't match": lambda: fit(batches(label_name="label")),
    "You created Module with Module(..., label_names=": lambda: fit(
        module=mx.mod.Module(classifier(), label_names=["label"])),
    "Unknown initialization pattern for softmax_label": lambda: fit(
        module=mx.mod.Module(classifier(), label_names=["label"])),
    "KeyError: 'label'": lambda: fit(batches(label_name="label")),
    "Optimizer created manually outside Module but rescale_grad is not normalized": optimizer_instance,
    "float16 fully connected layer is currentlyonly supported by CuDNN": lambda: fit(batches("float16")),
    "simple_bind error. Arguments:": lambda: mx.mod.Module(classifier()).bind(
        [("data", (8, 3))], [("softmax_label", (8, 3, 7))]),
    "Compile with USE_CUDA=1 to enable GPU usage": lambda: fit(module=mx.mod.Module(classifier(), context=mx.gpu())),
    "This layer requires uniform type. Expected 'float64'": lambda: fit(batches("float64", "float32")),
    "Incompatible attr in node  at 1-th input": lambda: fit(batches("float64"), optimizer="adagrad"),
    "Parameters already initialized and force_init=False": fit_twice,
    "Already bound, ignoring bind()": fit_twice,
    "optimizer already initialized, ignoring": fit_twice,
    "Shape of unspecifie arg: fc_weight changed": other_features,
    "fc_bias is not presented": lambda: fit(arg_params={"fc_weight": mx.nd.zeros((2, 3))}),
    "'DataLoader' object has no attribute 'provide_data'": lambda: fit(
        mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(X, Y), 8)),
}  # fmt: skip
NOT_REPRODUCED = ["numpy.bool", "NumPy 2", "libquadmath", "MKLDNN"]


@pytest.mark.parametrize("beginning", REPRODUCED)
def test_mxnet_says_so(beginning, caplog):
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            REPRODUCED[beginning]()
            raised = ""
        except Exception as error:
            raised = "{}: {}".format(type(error).__name__, error)
    said = [raised, *(str(each.message) for each in warned), *(each.getMessage() for each in caplog.records)]
    assert any(beginning in text for text in said), said


def test_each_row_of_mxnet_is_reproduced():
    rows = [row for row in ROWS[OF_MXNET] if not any(row.startswith(each.split("…")[0]) for each in REPRODUCED)]
    assert len(rows) == len(NOT_REPRODUCED), rows


def test_a_second_fit_keeps_the_rate_unless_the_optimizer_is_made_anew():
    """As the row of `optimizer already initialized` has it."""
    module, train = SVRGModule(classifier()), batches()
    for rate in (0.25, 0.5):
        module.fit(train, num_epoch=1, force_init=True, optimizer_params={"learning_rate": rate})
    assert module._optimizer.learning_rate == 0.25
    module.init_optimizer(optimizer_params={"learning_rate": 0.5}, force_init=True)
    assert module._optimizer.learning_rate == 0.5


# ----------------------------------------------------------------------------------------------------- words, figures


@pytest.mark.parametrize("word", ["diverges", "stalls", "NaN", "inf", "tolerance", "slow", "hangs", "prints nothing"])
def test_what_people_search_for_is_there(word):
    assert re.search(r"\b{}\b".format(word), TROUBLE)


@pytest.mark.parametrize(
    "subject",
    ["BatchNorm", "Dropout", "augmentation", "Padded", "Momentum", "Schedules", "float64", "Memory", "Shuffl",
     "buckets", "Gluon", "epochs", "passes", "logging", "GPU", "Sparse", "NumPy 2", "Python 3.13", "devices",
     "licence", "cite"],
)  # fmt: skip
def test_the_faq_has_each_subject(subject):
    headings = re.findall("^## (.*)$", (DOCS / "faq.md").read_text("utf-8"), re.M)
    assert any(subject.lower() in heading.lower() for heading in headings)


def test_the_chart_is_the_one_that_its_program_draws():
    drawn = runpy.run_path(str(DOCS / "draw_decision_chart.py"))
    assert (DOCS / "images" / "decision_chart.svg").read_text("utf-8") == drawn["picture"]()
    # Such letters are about 0.46 times as wide as high, on average: nothing reaches over the edge of its box.
    widest = {"question": drawn["QUESTION"], "other": drawn["ANSWER"]}
    for question in drawn["QUESTIONS"]:
        for kind, lines in ("question", question.lines), ("other", question.other):
            assert all(0.5 * drawn["SIZE"] * len(line) < widest[kind] - 4 for line in lines)


def test_the_page_has_the_tables_of_the_benchmark():
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.alternatives", "--sizes", "200", "--rounds", "1", "--patience", "0.02",
         "--rest", "0", "--seeds", "1", "--passes", "2.2"],
        cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300,
        check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    page = (DOCS / "is_svrg_for_me.md").read_text("utf-8")
    figures = "".join(re.findall("<!-- figures: python -m benchmarks.alternatives -->(.*?)<!-- end", page, re.S))

    def names(text):
        return [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ") and "---" not in line]

    of_logistic, of_net = ended.stdout.split("A net")
    # The page has two sizes, the run one.
    assert names(figures) == 2 * names(of_logistic) + names(of_net)
    assert len(names(of_net)) == 2 * 6
