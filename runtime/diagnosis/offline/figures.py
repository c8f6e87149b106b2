"""The figures of an open-loop evaluation, in the style of our reports."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tactus.runtime.diagnosis.offline.errors import truth
from tactus.runtime.diagnosis.offline.evaluation import LAST, MEAN, POLICY, Evaluation
from tactus.runtime.report.drawing import COLOURS, INK, PAPER, QUIET, WIDTH_IN, styled

LOOKS = {POLICY: (COLOURS[0], "o", "-"), LAST: (COLOURS[1], "s", "--"), MEAN: (QUIET, "^", ":")}
"""Colour, marker and line of each, the same in all figures."""
PANELS = 12
"""Dimensions that get a panel of their own; the tables have all."""
POINTS = 350
"""Of a dimension's scatter, drawn at random, always the same ones."""
CHUNKS = (COLOURS[0], COLOURS[5])
"""Colours of chunks, by turns."""


@styled
def horizon(found: Evaluation) -> Figure | None:
    """Normalised error by step of the chunk, of the policy and of the baselines."""
    figure = Figure((WIDTH_IN, 3.6), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(found.policy.horizon)
    for name, errors in found.errors.items():
        colour, marker, line = LOOKS[name]
        every = max(1, len(steps) // 12)
        axes.plot(
            steps, errors.normalised_over_horizon, line, color=colour, marker=marker, markevery=every, label=name,
            markersize=5, markeredgecolor=PAPER,
        )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_ylabel("RMS error, σ of the true actions")
    fps = found.demonstrations.fps
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}\n{1000 * value / fps:.0f} ms"))
    axes.set_xlabel(f"step of the chunk at {fps:g} Hz, 0 is the frame that was seen", loc="left")
    figure.legend(loc="outside lower left", ncols=3, fontsize=9.5)
    return figure


@styled
def dimensions(found: Evaluation) -> Figure | None:
    """Normalised error of each dimension, with those of the baselines."""
    names, ours = found.demonstrations.names, found.errors[POLICY]
    figure = Figure((WIDTH_IN, 1.3 + 0.3 * len(names)), layout="constrained")
    axes = figure.subplots()
    heights = np.arange(len(names))
    axes.barh(heights, np.nan_to_num(ours.normalised_by_dimension), 0.62, color=LOOKS[POLICY][0], label=POLICY)
    for name in (LAST, MEAN):
        colour, marker, _ = LOOKS[name]
        axes.plot(
            found.errors[name].normalised_by_dimension, heights, linestyle="none", marker=marker, color=colour,
            label=name, markersize=6, markeredgecolor=PAPER,
        )  # fmt: skip
    for height, moves in enumerate(ours.moving):
        if not moves:
            axes.annotate("never changes", (0, height), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(heights, [short(name, 24) for name in names])
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("RMS error over the whole chunk, σ of the true actions", loc="left")
    figure.legend(loc="outside lower left", ncols=3, fontsize=9.5)
    return figure


@styled
def heat(found: Evaluation) -> Figure | None:
    """Normalised error by dimension and step."""
    values = found.errors[POLICY].normalised_by_step
    if values.shape[0] < 2 or np.isnan(values).all():
        return None
    figure = Figure((WIDTH_IN, 1.4 + 0.28 * values.shape[1]), layout="constrained")
    axes = figure.subplots()
    top = float(np.nanmax(values)) or 1.0
    drawn = axes.imshow(values.T, aspect="auto", cmap="viridis", vmin=0, vmax=top, interpolation="nearest")
    axes.set_yticks(range(values.shape[1]), [short(name, 24) for name in found.demonstrations.names])
    axes.grid(False)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel("step of the chunk", loc="left")
    bar = figure.colorbar(drawn, ax=axes, pad=0.01)
    bar.set_label("RMS error, σ")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


@styled
def scatter(found: Evaluation) -> Figure | None:
    """Predicted against true, a panel a dimension, with Pearson's correlation."""
    generator, asked = np.random.default_rng(0), found.predictions
    places = np.sort(generator.permutation(len(asked.frames))[:POINTS])
    true, valid = truth(found.demonstrations.episodes, [asked.frames[i] for i in places], found.policy.horizon)
    t, p = true[valid], asked.chunks[places][valid]
    chosen = generator.permutation(len(t))[:POINTS]
    correlation = found.errors[POLICY].correlation
    figure, panels = _panels(found, 4, 2.15)
    for index, axes in panels:
        low = float(min(t[:, index].min(), p[:, index].min()))
        high = float(max(t[:, index].max(), p[:, index].max()))
        axes.plot([low, high], [low, high], "--", color=QUIET, linewidth=1)
        axes.plot(
            t[chosen, index], p[chosen, index], ".", color=COLOURS[0], alpha=0.55, markersize=4, markeredgewidth=0
        )
        r = correlation[index]
        said = "constant" if math.isnan(r) else f"r = {r:.3f}".replace("-", "−")
        axes.set_title(f"{short(found.demonstrations.names[index], 14)}  {said}", fontsize=9)
        axes.grid(True, axis="both")
        _few_ticks(axes)
    figure.supxlabel(_with_unit("true action", found), fontsize=9.5)
    figure.supylabel(_with_unit("predicted action", found), fontsize=9.5)
    return figure


@styled
def over_time(found: Evaluation, place: int) -> Figure | None:
    """Each dimension of an episode, true, and as the chunks have it, in turns of colour. place: among the chosen."""
    true, ours = found.demonstrations.episodes[place].actions, found.trajectories[place]
    seconds = np.arange(len(true)) / found.demonstrations.fps
    runs = [run for run in _runs(ours.sources) if ours.sources[run[0]] >= 0]
    figure, panels = _panels(found, 2, 1.55, share=True)
    for index, axes in panels:
        axes.plot(seconds, true[:, index], color=INK, linewidth=1.2)
        for turn, (begin, end) in enumerate(runs):
            axes.plot(
                seconds[begin:end], ours.actions[begin:end, index], color=CHUNKS[turn % 2], linewidth=1.6,
                marker="." if end - begin == 1 else "", markersize=3,
            )  # fmt: skip
        unit = found.demonstrations.units[index]
        axes.set_title(short(found.demonstrations.names[index], 30) + (f", {unit}" if unit else ""), fontsize=9)
        _few_ticks(axes)
    figure.supxlabel("time in the episode, s", fontsize=9.5)
    figure.supylabel("action" if any(found.demonstrations.units) else "action, dataset's unit", fontsize=9.5)
    lines = [_line(INK, "true"), _line(CHUNKS[0], "predicted, a chunk"), _line(CHUNKS[1], "the next chunk")]
    figure.legend(handles=lines[:2] if len(runs) < 2 else lines, loc="outside upper left", ncols=3, fontsize=9)
    return figure


@styled
def episodes(found: Evaluation) -> Figure | None:
    """Normalised error of each episode, the best first, with those of the baselines."""
    ours = found.errors[POLICY]
    if np.count_nonzero(ours.episode_count) < 2 or not ours.moving.any():
        return None
    figure = Figure((WIDTH_IN, 3.2), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(episode_errors(found, POLICY))
    for name in found.errors:
        colour, marker, _ = LOOKS[name]
        axes.plot(
            np.arange(len(order)), episode_errors(found, name)[order], linestyle="none", marker=marker, color=colour,
            label=name, markersize=6 if len(order) <= 60 else 3, markeredgecolor=PAPER, markeredgewidth=0.6,
        )  # fmt: skip
    if len(order) <= 30:
        axes.set_xticks(range(len(order)), [str(found.demonstrations.episodes[place].number) for place in order])
    else:
        axes.set_xticks([])
    axes.set_xlabel("episode's number, the best first" if len(order) <= 30 else "episodes, the best first", loc="left")
    axes.set_ylabel("RMS error, σ of the true actions")
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower left", ncols=3, fontsize=9.5)
    return figure


@styled
def latency(found: Evaluation) -> Figure | None:
    """How long calls of the policy took: how often, and one after the other."""
    rows = [("in batches", found.predictions, COLOURS[0])]
    if found.alone is not None:
        rows.append(("one by one", found.alone, COLOURS[1]))
    figure = Figure((WIDTH_IN, 0.5 + 2.3 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, width_ratios=[3, 2])
    for (name, asked, colour), (counts, order) in zip(rows, grid, strict=True):
        most = max(call.frames for call in asked.calls)
        ms = np.array([call.ms for call in asked.calls if call.frames == most])
        counts.hist(ms, bins=min(40, max(5, int(np.sqrt(len(ms))) * 2)), color=colour, alpha=0.75)
        for value, line, label in ((np.median(ms), "-", "median"), (np.percentile(ms, 95), ":", "95 %")):
            counts.axvline(float(value), linestyle=line, color=INK, linewidth=1.3, label=f"{label} {value:.3g} ms")
        counts.set_title(f"{name}: {most} frame{'s' if most > 1 else ''} a call, {len(ms)} calls")
        counts.set_xlabel("latency of a call, ms", loc="left")
        counts.set_ylabel("calls")
        counts.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        counts.set_ylim(top=1.5 * counts.get_ylim()[1])  # room for the legend
        counts.legend(fontsize=9, loc="upper right")
        order.plot(ms, ".", color=colour, markersize=4)
        order.set_ylim(bottom=0)
        order.set_xlabel("call", loc="left")
        order.set_ylabel("ms")
        order.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def episode_errors(found: Evaluation, name: str) -> np.ndarray:
    """[E], normalised; nan for an episode without a compared frame."""
    errors = found.errors[name]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(errors.episode_normalised / (errors.episode_count * max(1, errors.moving.sum())))


def short(name: str, most: int) -> str:
    """Its end, which tells names apart, with an ellipsis."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _line(colour: str, label: str) -> Line2D:
    """For a legend."""
    return Line2D([], [], color=colour, label=label)


def _panels(
    found: Evaluation, columns: int, height: float, share: bool = False
) -> tuple[Figure, Iterator[tuple[int, Axes]]]:
    """A panel for each of the first dimensions, in the order of the action."""
    count = min(PANELS, len(found.demonstrations.names))
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure((WIDTH_IN, 0.7 + height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share).flat
    drawn = [*grid]
    for spare in drawn[count:]:
        spare.set_visible(False)
    return figure, iter([*enumerate(drawn[:count])])


def _runs(sources: np.ndarray) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(sources)) + 1).tolist(), len(sources)]
    return [*pairwise(edges)]


def _few_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(labelsize=8)


def _with_unit(what: str, found: Evaluation) -> str:
    units = {unit for unit in found.demonstrations.units[:PANELS]}
    stated: Sequence[str] = sorted(unit for unit in units if unit)
    return f"{what}, {' or '.join(stated)}" if stated else f"{what}, dataset's unit"
