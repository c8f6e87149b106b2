"""A sweep's plots, as matplotlib figures: one colour and one marker per setting, the same in all of them.

Up to SETTINGS settings share one pair of axes; more are spread over one panel per aggregation. Colours are those of
Okabe and Ito, told apart by every kind of colour vision; markers repeat what colours say.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from runtime.lab.measures import LOOP, CellMeasures, Mode, mode_names, modes
from runtime.robot_node import PARTS

SETTINGS = 6
"""Settings in one panel, at most."""
INK, QUIET, RULE, PAPER = "#1c2128", "#626b76", "#dde1e6", "#ffffff"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5ab5", "#8c6d31")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
OTHERS = ("#444b54", "*")
"""Colour and marker of another lab."""
BAD = "#c8102e"
THEME = {INK: "var(--ink)", QUIET: "var(--quiet)", RULE: "var(--rule)", PAPER: "var(--paper)", BAD: "var(--bad)"}
THEME |= {colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)} | {OTHERS[0]: "var(--other)"}
"""What an inlined SVG's colours become, so that it follows the page into the dark."""
STYLE = {
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
    "hatch.color": PAPER,
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.image_inline": True,
}
WIDTH = 8.2
TIME_COLOURS = {"act": 0, "observe": 1, "link": 2, "queue": 3, "reset": 4, LOOP: 5}
TIME_WORDS = {
    "reset": "reset, spread over the ticks",
    "observe": "observing (rendering)",
    "act": "acting (physics)",
    "link": "link: sending, waiting",
    "queue": "queue",
    LOOP: "the loop's own",
}


class Look(NamedTuple):
    colour: str
    marker: str


class Measure(NamedTuple):
    """One thing to plot against the delay. value, low, high: None where a cell has none."""

    label: str
    value: Callable[[CellMeasures], float | None]
    limits: Callable[[Iterable_], tuple[float | None, float | None]] | None = None
    low: Callable[[CellMeasures], float | None] | None = None
    high: Callable[[CellMeasures], float | None] | None = None
    unit: str = ""


Iterable_ = Sequence[float]
