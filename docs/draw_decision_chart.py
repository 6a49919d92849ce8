"""Draws images/decision_chart.svg, the picture of the page "Is SVRG for me?":

    python docs/draw_decision_chart.py

Narrow, so that its words can be read on a phone; on a ground of its own, so that they can in the dark.
"""

import pathlib
from typing import List, NamedTuple, Sequence
from xml.sax.saxutils import escape

PATH = pathlib.Path(__file__).resolve().parent / "images" / "decision_chart.svg"
WIDTH, MARGIN, GAP = 360, 10, 26
QUESTION, ANSWER = 188, 124  # the widths of the boxes
LINE, PADDING, SIZE = 17, 9, 13
INK, GROUND = "#1d2733", "#ffffff"
COLOURS = {"question": ("#e8f0fa", "#1f5fa8"), "other": ("#f3efe6", "#8a6d2f"), "ours": ("#e3f3e6", "#2e7d3c")}


class Question(NamedTuple):
    """Lines of a question, the answer that leads out of the chart, and where to; the other answer leads on, down."""

    lines: Sequence[str]
    out: str
    other: Sequence[str]
    down: str


QUESTIONS = [
    Question(["Is the loss convex, or", "nearly? (linear, logistic,", "softmax regression)"], "no",
             ["AdamW or SGD;", "ask diagnose()", "if SVRG helps"], "yes"),
    Question(["Do you want the minimum", "itself: more than two or", "three digits of the loss?"], "no",
             ["SGD or Adam,", "stopped early"], "yes"),
    Question(["Do you have some", "10,000 samples or more?"], "no",
             ["Newton-Cholesky,", "or L-BFGS if there", "are thousands", "of features"], "yes"),
    Question(["Is it a Module program,", "or may it become one?"], "no",
             ["scikit-learn's", "Newton-Cholesky", "or SAGA; cyanure"], "yes"),
]  # fmt: skip
END = ["SVRGModule with", "learning_rate='auto' and tol"]
DESCRIPTION = "; ".join(
    "{} If {}: {}".format(" ".join(each.lines), each.out, " ".join(each.other)) for each in QUESTIONS
) + "; otherwise: " + " ".join(END)  # fmt: skip


def _height(lines: Sequence[str]) -> int:
    return LINE * len(lines) + 2 * PADDING


def _box(kind: str, lines: Sequence[str], x: float, y: float, width: float) -> List[str]:
    fill, edge = COLOURS[kind]
    found = ['<rect x="{}" y="{}" width="{}" height="{}" rx="7" fill="{}" stroke="{}" stroke-width="1.5"/>'.format(
        x, y, width, _height(lines), fill, edge)]  # fmt: skip
    for k, line in enumerate(lines):
        found.append('<text x="{}" y="{}" text-anchor="middle">{}</text>'.format(
            x + width / 2, y + PADDING + LINE * k + SIZE, escape(line)))  # fmt: skip
    return found


def _arrow(x: float, y: float, to_x: float, to_y: float, word: str, word_x: float, word_y: float) -> List[str]:
    line = '<path d="M{} {} L{} {}" stroke="{}" stroke-width="1.5" marker-end="url(#tip)"/>'
    text = '<text x="{}" y="{}" text-anchor="middle" font-weight="bold">{}</text>'
    return [line.format(x, y, to_x, to_y, INK), text.format(word_x, word_y, escape(word))]


def picture() -> str:
    """The picture, as SVG."""
    parts, y, left = [], MARGIN, MARGIN
    for each in QUESTIONS:
        row = max(_height(each.lines), _height(each.other))
        middle = y + row / 2
        parts += _box("question", each.lines, left, middle - _height(each.lines) / 2, QUESTION)
        right = WIDTH - MARGIN - ANSWER
        parts += _box("other", each.other, right, middle - _height(each.other) / 2, ANSWER)
        parts += _arrow(
            left + QUESTION, middle, right - 3, middle, each.out, (left + QUESTION + right) / 2 - 1, middle - 7
        )
        below = middle + _height(each.lines) / 2
        centre = left + QUESTION / 2
        y += row + GAP
        # The next question may be lower than its answer begins.
        rest = QUESTIONS[QUESTIONS.index(each) + 1 :]
        top = y + (max(_height(rest[0].other) - _height(rest[0].lines), 0) / 2 if rest else 0)
        parts += _arrow(centre, below, centre, top - 3, each.down, centre + 18, (below + top) / 2 + 3)
    parts += _box("ours", END, left, y, QUESTION + 20)
    height = y + _height(END) + MARGIN
    return "\n".join([
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img">'.format(
            WIDTH, height),
        "<title>Is SVRG for me?</title>",
        "<desc>{}</desc>".format(escape(DESCRIPTION)),
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="{}"/></marker></defs>'.format(INK),
        '<rect width="{}" height="{}" rx="10" fill="{}"/>'.format(WIDTH, height, GROUND),
        '<g font-family="Helvetica, Arial, DejaVu Sans, sans-serif" font-size="{}" fill="{}">'.format(SIZE, INK),
        *parts, "</g>", "</svg>", "",
    ])  # fmt: skip


if __name__ == "__main__":
    PATH.write_text(picture(), "utf-8")
