"""The figures of a distillation, in the style of our reports; None where nothing is known to draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from tactus.policies.distillation.measures import Error
from tactus.policies.distillation.trainer import GRID
from tactus.policies.distillation.verdict import ERROR
from tactus.runtime.distillation.verification import WORSE, Verification
from tactus.runtime.report.drawing import BAD, COLOURS, INK, PAPER, QUIET, RULE, WIDTH_IN, styled

STUDENT, TEACHER = COLOURS[0], COLOURS[1]
"""The same in all figures."""
BACKED = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
"""Of text that would stand on a line."""
BINS = 400
"""Points of the loss curve at most: each is the mean of the steps around it."""


@styled
def loss(done: Verification) -> Figure | None:
    """Loss of every optimiser step: the mean over a few, and how far single ones are from it."""
    losses = _positive(done.distillation.get("losses") or [])
    if not _any(losses):
        return None
    bins = min(BINS, len(losses))
    split = zip(np.array_split(np.arange(len(losses)) + 1, bins), np.array_split(losses, bins), strict=True)
    middle, parts = zip(*((of.mean(), part[~np.isnan(part)]) for of, part in split if _any(part)), strict=True)
    figure, axes = _one(3.2)
    axes.fill_between(
        middle, [part.min() for part in parts], [part.max() for part in parts], color=STUDENT, alpha=0.25, linewidth=0,
        label="least and most of the steps around",
    )  # fmt: skip
    marker = "o" if len(parts) < 30 else ""
    mean = [part.mean() for part in parts]
    axes.plot(middle, mean, color=STUDENT, marker=marker, markersize=4, linewidth=1.4, label="mean")
    if (begin := second_stage(done)) is not None:
        axes.axvline(begin + 0.5, color=QUIET, linestyle="--", linewidth=1.2)
        axes.annotate(
            "second stage: mostly t = 1", (begin + 0.5, 1), (5, -3), xycoords=("data", "axes fraction"),
            textcoords="offset points", va="top", fontsize=9,
        )  # fmt: skip
    _log(axes)
    axes.set_xlim(0, len(losses) + 1)
    axes.set_xlabel("optimiser step", loc="left")
    axes.set_ylabel("loss")
    figure.legend(loc="outside lower left", ncols=2, fontsize=9.5)
    return figure


@styled
def steps(done: Verification) -> Figure | None:
    """The student's error by number of steps, the undistilled teacher's at the student's own beside it."""
    found = done.measures
    rows = [(error.steps, "student", error.median, error.p90, STUDENT, "") for error in found.errors]
    rows.append((found.num_steps, "teacher, not distilled", found.undistilled, math.nan, TEACHER, "///"))
    rows = sorted((row for row in rows if math.isfinite(row[2])), key=lambda row: row[:2])
    if not rows:
        return None
    figure, axes = _one(1.3 + 0.34 * len(rows))
    for height, (_, _, median, p90, colour, hatch) in enumerate(rows):
        axes.barh(height, 100 * median, 0.66, color=colour, hatch=hatch, edgecolor=PAPER, linewidth=0)
        said = f"{100 * median:.1f} %"
        if math.isfinite(p90):
            axes.plot([100 * median, 100 * p90], [height, height], color=INK, linewidth=1)
            axes.plot(100 * p90, height, "|", color=INK, markersize=9, markeredgewidth=1.4)
            said += f", nine of ten below {100 * p90:.1f} %"
        _text(axes, 100 * np.nanmax([median, p90]), height, said)
    axes.axvline(100 * ERROR, color=QUIET, linestyle="--", linewidth=1.2)
    axes.annotate(
        "accepted as deployed", (100 * ERROR, 1), (4, -2), xycoords=("data", "axes fraction"),
        textcoords="offset points", va="top", fontsize=9,
    )  # fmt: skip
    deployed = [row[0] == found.num_steps and row[1] == "student" for row in rows]
    names = [f"{row[1]}, {_counted(row[0])}" + ", as deployed" * own for row, own in zip(rows, deployed, strict=True)]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -1.2)
    axes.set_xlim(0, 1.5 * max(axes.get_xlim()[1], 100 * ERROR))
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_xlabel(f"error, % of the teacher's chunk of {_counted(found.teacher_steps)}, median", loc="left")
    return figure


@styled
def where(done: Verification) -> Figure | None:
    """The student's error by dimension of the action and by step of the chunk."""
    error = own(done)
    if not np.isfinite([*error.by_dimension, *error.by_step]).any():
        return None
    figure = Figure((WIDTH_IN, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    left.bar(range(len(error.by_dimension)), np.nan_to_num(error.by_dimension), 0.66, color=STUDENT)
    left.set_xlabel("dimension of the action", loc="left")
    left.set_ylabel("root mean square error,\nunits of the model")
    horizon = len(error.by_step)
    if horizon > (last := max(1, horizon // 4)):
        right.axvspan(horizon - last - 0.5, horizon - 0.5, color=RULE, alpha=0.6, linewidth=0)
        right.annotate(
            "last quarter", (horizon - 0.5, 1), (-4, -3), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="right", va="top", fontsize=9,
        )  # fmt: skip
    marker = "o" if horizon < 30 else ""
    right.plot(range(horizon), error.by_step, color=STUDENT, marker=marker, markersize=4)
    right.set_xlim(-0.5, max(horizon - 0.5, 0.5))
    right.set_xlabel("step of the chunk", loc="left")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    left.set_ylim(0, 1.15 * left.get_ylim()[1])
    return figure


@styled
def times(done: Verification) -> Figure | None:
    """Loss by time on the way, of the pairs that were trained on and of those deployment asks for."""
    rows = [
        ("in training", (done.distillation.get("facts") or {}).get("loss"), TEACHER, "s", "--"),
        ("in deployment, held out", done.measures.losses, STUDENT, "o", "-"),
    ]
    known = [(row, _positive(row[1])) for row in rows if row[1] and len(row[1]) == len(GRID)]
    known = [(row, values) for row, values in known if _any(values)]
    if not known:
        return None
    figure, axes = _one(3.2)
    for (name, _, colour, marker, line), values in known:
        axes.plot(
            GRID, values, line, color=colour, marker=marker, markersize=6, markeredgecolor=PAPER, label=name
        )  # fmt: skip
    _log(axes)
    axes.set_xticks(GRID, [f"{t:g}" for t in GRID])
    axes.set_xlabel("time t: near 0 is the chunk, 1 is noise, where a student of one step is asked", loc="left")
    axes.set_ylabel("loss")
    figure.legend(loc="outside lower left", ncols=2, fontsize=9.5)
    return figure


@styled
def noise(done: Verification) -> Figure | None:
    """Mean and standard deviation of the noise, by dimension, in training and as deployment draws it."""
    facts, found = done.distillation.get("facts") or {}, done.measures
    rows = [
        ("in deployment", found.noise_mean, found.noise_std, STUDENT, "o", 0.16),
        ("in training", facts.get("noise_mean"), facts.get("noise_std"), TEACHER, "s", -0.16),
    ]
    figure, axes = _one(3.2)
    for name, mean, std, colour, marker, shift in rows:
        if mean and std and len(mean) == len(std):
            axes.errorbar(
                np.arange(len(mean)) + shift, mean, std, linestyle="none", marker=marker, color=colour, markersize=5,
                elinewidth=2.4, markeredgecolor=PAPER, markeredgewidth=0.6, label=name,
            )  # fmt: skip
    width, actions = len(found.noise_mean), len(own(done).by_dimension)
    if 0 < actions < width:
        axes.axvspan(actions - 0.5, width - 0.5, color=RULE, alpha=0.6, linewidth=0)
        axes.annotate(
            "padding", (actions - 0.5, 1), (4, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
            va="top", fontsize=9,
        )  # fmt: skip
    axes.set_xlim(-0.5, width - 0.5)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -1.2), max(high, 1.2) + 0.35)
    axes.xaxis.set_major_locator(MaxNLocator(16, integer=True, min_n_ticks=1))
    axes.set_xlabel("dimension", loc="left")
    axes.set_ylabel("noise, mean ± σ")
    figure.legend(loc="outside lower left", ncols=2, fontsize=9.5)
    return figure


@styled
def success(done: Verification) -> Figure | None:
    """Success of both with Wilson's intervals, and their difference."""
    trials = done.trials
    if trials is None:
        return None
    figure = Figure((WIDTH_IN, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1])
    rows = (("teacher", trials.teacher, TEACHER, "s"), ("student", trials.student, STUDENT, "o"))
    for height, (_, who, colour, marker) in enumerate(rows):
        _interval(left, height, *trials.rate(who), colour, marker, f"{sum(who)} of {len(who)}")
    left.set_yticks([0, 1], [name for name, *_ in rows])
    left.set_xlim(-3, 103)
    left.set_xlabel("success, % with Wilson's 95 % interval", loc="left")
    right.axvline(0, color=QUIET, linewidth=1.2)
    right.axvline(100 * WORSE, color=BAD, linestyle="--", linewidth=1.2)
    right.annotate(
        "must stay right of this", (100 * WORSE, 1), (-4, -2), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="right", va="top", fontsize=9,
    )  # fmt: skip
    _interval(
        right, 0.5, trials.difference, trials.low, trials.high, INK, "D", f"{100 * trials.difference:+.1f} points"
    )
    right.set_yticks([])
    reach = 1.15 * max(45.0, 100 * max(abs(trials.low), abs(trials.high)))
    right.set_xlim(-reach, reach)
    right.set_xlabel("student − teacher, points, same episodes, 95 %", loc="left")
    for axes in (left, right):
        axes.set_ylim(1.7, -0.8)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
    return figure


@styled
def time(done: Verification) -> Figure | None:
    """Where the time of a chunk goes: what is made once, the denoising steps, and what is left."""
    found = done.measures
    rows = (
        ("teacher", found.teacher_latency, found.teacher_steps),
        ("student", found.latency, found.num_steps),
    )
    figure, axes = _one(2.4)
    parts = ("condition: made once a chunk", "denoising steps", "the rest")
    colours = (COLOURS[5], COLOURS[2], QUIET)
    for height, (_, latency, count) in enumerate(rows):
        steps_ms = count * latency.step_ms
        rest = max(0.0, latency.chunk_ms - latency.condition_ms - steps_ms)
        begin = 0.0
        for part, colour, ms in zip(parts, colours, (latency.condition_ms, steps_ms, rest), strict=True):
            axes.barh(height, ms, 0.56, left=begin, color=colour, label=part if height == 0 else None)
            begin += ms
        _text(axes, begin, height, f"{significant(latency.chunk_ms)} ms")
    axes.set_yticks([0, 1], [f"{name}, {_counted(count)}" for name, _, count in rows])
    axes.set_ylim(1.5, -0.5)
    axes.set_xlim(0, 1.16 * axes.get_xlim()[1])
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_xlabel("ms a chunk, one observation", loc="left")
    figure.legend(loc="outside lower left", ncols=3, fontsize=9.5)
    return figure


def own(done: Verification) -> Error:
    """The error that the verdict is about: at the student's own number of steps, where it was measured."""
    errors = done.measures.errors
    return next(error for error in errors if error.steps == done.measures.num_steps)


def second_stage(done: Verification) -> int | None:
    """Steps before the second stage; None where there are not two stages, or where it is not known."""
    settings = done.distillation.get("settings") or {}
    count, share = len(done.distillation.get("losses") or []), settings.get("one_step_stage")
    if share is None:
        return None
    begin = math.ceil(count * (1 - share))
    return begin if 0 < begin < count else None


def significant(value: float | None, digits: int = 3) -> str:
    """Of so many significant digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if 10**digits <= abs(value) < 10**7 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def _one(height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH_IN, height), layout="constrained")
    return figure, figure.subplots()


def _positive(values: Sequence[float]) -> np.ndarray:
    """What a logarithmic axis can show; nan for the rest."""
    array = np.array(values, float)
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)


def _any(values: np.ndarray) -> bool:
    return not np.isnan(values).all()


def _log(axes: Axes) -> None:
    """A few plain numbers beside it, also where the axis is shorter than a power of ten."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    wide = math.log10(high / low) > 2.5
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _interval(
    axes: Axes, height: float, value: float, low: float, high: float, colour: str, marker: str, said: str
) -> None:
    axes.plot([100 * low, 100 * high], [height, height], color=colour, linewidth=2.4, solid_capstyle="butt")
    axes.plot(100 * value, height, marker, color=colour, markersize=8, markeredgecolor=PAPER)
    axes.annotate(
        said.replace("-", "−"), (100 * value, height), (0, 9), textcoords="offset points", ha="center", fontsize=9.5,
        bbox=BACKED,
    )  # fmt: skip


def _text(axes: Axes, x: float, y: float, said: str) -> None:
    axes.annotate(said, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=9.5, bbox=BACKED)


def _counted(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"
