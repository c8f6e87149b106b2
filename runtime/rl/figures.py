"""The curves of a practice, in the style of our reports; None where there is nothing to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tactus.runtime.report.drawing import COLOURS, QUIET, WIDTH_IN, styled

Lines = Sequence[Mapping[str, Any]]
PARTS = ("rollouts", "learning", "publishing", "evaluation")


@styled
def success(lines: Lines, timings: Lines) -> Figure | None:
    """Held out with 95 % intervals, and the rollouts' own, by iteration."""
    held_out = [(line["iteration"], line["evaluation"]) for line in lines if line.get("evaluation")]
    if not held_out:
        return None
    figure, axes = _axes(3.4)
    own = [(line["iteration"] + 0.5, line["successes"] / line["rollouts"]) for line in lines if line.get("rollouts")]
    if own:
        axes.plot(*_percent(own), color=COLOURS[1], linewidth=1.2, marker=".", label="rollouts, exploring")
    at = [iteration for iteration, _ in held_out]
    rates = np.array([one["successes"] / one["episodes"] for _, one in held_out])
    low, high = (np.array([one[end] for _, one in held_out]) for end in ("low", "high"))
    errors = 100 * np.stack([rates - low, high - rates]).clip(0)
    axes.errorbar(at, 100 * rates, errors, color=COLOURS[0], marker="o", capsize=3, label="held out, 95 %")
    axes.axhline(100 * rates[0], color=QUIET, linestyle="--", linewidth=1)
    axes.set_ylim(-3, 103)
    axes.set_ylabel("success, %")
    figure.legend(loc="outside lower left", ncols=2, fontsize=9.5)
    return figure


@styled
def update(lines: Lines, timings: Lines) -> Figure | None:
    """What the learner did: the loss of imitation, or how far it went and its learning rate."""
    shown = [(key, title) for key, title in (("loss", "loss"), ("kl", "KL, nats a chunk"), ("rate", "learning rate"))
             if any(line.get(key) for line in lines)]  # fmt: skip
    if not shown:
        return None
    figure = Figure((WIDTH_IN, 1.0 + 1.5 * len(shown)), layout="constrained")
    for place, (key, title) in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, place + 1)
        found = [(line["iteration"], line[key]) for line in lines if line.get(key) is not None]
        axes.plot(*zip(*found, strict=True), color=COLOURS[place], marker=".")
        if key == "rate":
            axes.set_yscale("log")
        axes.set_ylabel(title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.axes[-1].set_xlabel("iteration", loc="left")
    return figure


@styled
def time(lines: Lines, timings: Lines) -> Figure | None:
    """Where each iteration's seconds went."""
    rows = [line for line in timings if line.get("seconds")]
    if not rows:
        return None
    figure, axes = _axes(2.8)
    at, below = [row["iteration"] for row in rows], np.zeros(len(rows))
    for part, colour in zip(PARTS, COLOURS, strict=False):
        seconds = np.array([row["seconds"].get(part, 0.0) for row in rows])
        axes.bar(at, seconds, 0.8, below, color=colour, label=part)
        below += seconds
    axes.set_ylabel("seconds")
    figure.legend(loc="outside lower left", ncols=4, fontsize=9.5)
    return figure


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH_IN, height), layout="constrained")
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("iteration", loc="left")
    return figure, axes


def _percent(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [100 * y for _, y in points]
