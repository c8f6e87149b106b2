"""How our reports' figures look: colours, matplotlib's settings, and a figure as inline SVG or as PNG.

Colours are those of Okabe and Ito, told apart by every kind of colour vision.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

WIDTH_IN = 8.4
INK, QUIET, RULE, PAPER, BAD = "#1c2128", "#626b76", "#dde1e6", "#fefefe", "#c8102e"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
OTHERS = (("#3d4450", "*"), ("#8a6414", "X"), ("#8a93a0", "p"))
"""Colours and markers of what others measured."""
THEME = {INK: "ink", QUIET: "quiet", RULE: "rule", PAPER: "paper", BAD: "bad"}
THEME |= {colour: f"c{index}" for index, colour in enumerate(COLOURS)}
THEME |= {colour: f"other{index}" for index, (colour, _) in enumerate(OTHERS)}
"""CSS variables that stand for the colours in an inlined SVG, so that it follows the page into the dark."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.facecolor": "none",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "hatch.linewidth": 0.8,
    "figure.facecolor": PAPER,
    "svg.fonttype": "none",
}


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """Decorates a function that draws a figure: it does so in this style."""

    @functools.wraps(draw)
    def styled_draw(*args: Any, **kwargs: Any) -> Figure | None:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return styled_draw


def svg(figure: Figure, name: str, description: str) -> str:
    """For inlining: no prolog, ids that begin with `name`, colours as CSS variables; equal figures give equal text."""
    scratch = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(scratch, format="svg", metadata={"Date": None}, transparent=True)
    text = scratch.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for colour, variable in THEME.items():
        text = text.replace(colour, f"var(--{variable})")
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", text.replace("\n", " ", 1), count=1)
    width, height = (round(96 * float(inches)) for inches in figure.get_size_inches())
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" width="{width}" height="{height}" ', 1)


def png(figure: Figure, file: Path, title: str) -> None:
    """Write it with a title and on white, to stand alone."""
    with matplotlib.rc_context(STYLE):
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        figure.savefig(file, dpi=160, facecolor="white", metadata={"Software": None})
