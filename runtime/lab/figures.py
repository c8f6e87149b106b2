"""A sweep's plots, as matplotlib figures: one colour and one marker per setting, the same in all of them.

Up to SETTINGS settings share one pair of axes; more are spread over one panel per aggregation, where colour and marker
stand for the rest of the setting. Colours are those of Okabe and Ito, told apart by every kind of colour vision, and
markers repeat what they say. Settings stand side by side at each delay, so that their intervals do not hide each other.
Where a sweep has several policies, colour and line stand for the policy, and there is a panel for each aggregation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tactus.runtime.lab.measures import LOOP, CellMeasures, Mode, mode_names, modes, policies
from tactus.runtime.lab.worth import worth
from tactus.runtime.report.drawing import COLOURS, INK, MARKERS, OTHERS, PAPER, QUIET, WIDTH_IN, styled

SETTINGS = 6
"""Settings of ours in one panel, at most."""
APART = 0.016
"""Of the longest delay: how far settings stand from each other."""
BANDS = 2
"""Up to so many settings have their intervals as bands, more as bars."""
SYNCHRONOUS = "synchronous"
BESIDE = ((0, 11, "center"), (0, -21, "center"), (12, -4, "left"), (-12, -4, "right"))
"""Where the numbers of those that share a delay stand: above, below, to the right, to the left."""
UP, RIGHT = "^", ">"
DASHED = (0, (5, 3))
LINES = ("-", (0, (6, 1.2, 1.2, 1.2)), (0, (1.4, 1)), (0, (3, 1)), (0, (6, 1, 1, 1, 1, 1)), (0, (9, 2)))
"""A policy's line, beside its colour; a reference's is thin and DASHED."""
PARTS_COLOURS = {"act": "#77aadd", "observe": "#ee8866", "link": "#eedd88", "queue": "#bbcc33", "reset": "#99ddff"}
PARTS_COLOURS |= {LOOP: "#bbbbbb", "inference_ms": "#7d6bb3", "queued_ms": "#c7b8e6", "wire_ms": "#a98acb"}
PARTS_SHOWN = ("act", "observe", "link", "queue", "reset", LOOP)
REQUEST_PARTS = ("inference_ms", "queued_ms", "wire_ms")
LABELS = {
    "act": "acting (physics)",
    "observe": "observing (rendering)",
    "link": "link: sending, waiting for answers",
    "queue": "queue",
    "reset": "reset, spread over the ticks",
    LOOP: "the rest",
    "inference_ms": "inference",
    "queued_ms": "waiting at the policy",
    "wire_ms": "wire and messages",
}


class Look(NamedTuple):
    """Of one setting."""

    colour: str
    marker: str
    name: str
    line: Any = "-"


class Scheme(NamedTuple):
    """Who is drawn where: panels by title, and how. omitted: how many settings there is no room for. colours: of the
    policies by name, if there are several."""

    panels: list[tuple[str, list[Mode]]]
    looks: dict[Mode, Look]
    omitted: int
    colours: Mapping[str, str] = MappingProxyType({})


class Measure(NamedTuple):
    """What to plot against the delay. of: (value, low, high) of a cell. limits: of the axis, from all that is drawn."""

    label: str
    of: Callable[[CellMeasures], tuple[float, float, float] | None]
    limits: Callable[[list[float]], tuple[float, float]]
    unit: str = ""


@styled
def success(cells: Sequence[CellMeasures], fps: float) -> Figure | None:
    """Success rates with Wilson's intervals; of several policies, with each one's own chunk time."""
    return _curves(cells, fps, [_rates()], scheme(cells), _chunk_ticks(cells, fps))


@styled
def faster(cells: Sequence[CellMeasures], fps: float) -> Figure | None:
    """What a faster policy is worth: each with its best setting, its own chunk time, and what it does there."""
    found = worth(cells, fps)
    if found is None:
        return None
    plan, names = scheme(cells), mode_names(modes(cells))
    shown = {one.cell.mode: policy for policy, one in found.standings.items()}
    looks = {
        mode: Look(plan.colours[policy], MARKERS[index], names[mode], LINES[index])
        for index, (mode, policy) in enumerate(shown.items())
    }
    one_panel = Scheme([("", [*shown])], looks, 0, plan.colours)
    figure = _curves(cells, fps, [_rates()], one_panel, _chunk_ticks(cells, fps))
    assert figure is not None
    axes = figure.axes[0]
    best_first = sorted(found.standings.items(), key=lambda item: -item[1].cell.rate)
    at: dict[float, int] = {}  # how many stand at this delay already
    for policy, one in best_first:
        dx, dy, side = BESIDE[at.setdefault(one.cell.delay, 0) % len(BESIDE)]
        at[one.cell.delay] += 1
        place = _aside([*shown].index(one.cell.mode), [*shown], cells)
        where = (one.cell.delay + place, 100 * one.cell.rate)
        axes.plot(*where, "o", markersize=15, markerfacecolor="none", markeredgecolor=plan.colours[policy], zorder=4)
        axes.annotate(
            f"{100 * one.cell.rate:.0f}\u00a0%", where, (dx, dy),
            textcoords="offset points", ha=side, fontsize=10, fontweight="bold", color=INK, zorder=5,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )  # fmt: skip
    return figure


def _rates() -> Measure:
    return Measure("success", lambda cell: (100 * cell.rate, 100 * cell.low, 100 * cell.high), _whole, "\u00a0%")


def _chunk_ticks(cells: Sequence[CellMeasures], fps: float) -> dict[str, float]:
    """Each policy's own chunk time in ticks, not rounded, if there are several."""
    found = worth(cells, fps)
    return {policy: one.ticks(fps) for policy, one in found.standings.items()} if found else {}


@styled
def difference(cells: Sequence[CellMeasures], fps: float) -> Figure | None:
    """Paired differences of success to the synchronous reference, with Tango's intervals."""

    def gap(cell: CellMeasures) -> tuple[float, float, float] | None:
        if cell.reference:
            return 0.0, 0.0, 0.0
        found = cell.difference
        return (100 * found.value, 100 * found.low, 100 * found.high) if found else None

    if not any(cell.difference for cell in cells):
        return None
    return _curves(cells, fps, [Measure("points to synchronous", gap, _around_zero)], scheme(cells))


@styled
def starving(cells: Sequence[CellMeasures], fps: float) -> Figure | None:
    """Ticks without an action, and actions that came too late."""
    starved = Measure("starved ticks", lambda cell: _thrice(100 * cell.starved), _from_zero(5), "\u00a0%")
    stale = Measure("stale actions per request", lambda cell: _thrice(cell.stale), _from_zero(2))
    return _curves(cells, fps, [starved, stale], scheme(cells))


@styled
def seams(cells: Sequence[CellMeasures], fps: float) -> Figure | None:
    """Jumps of the action where chunks meet, and elsewhere, on one scale."""
    top = _from_zero(0.5)([value for cell in cells for value in (cell.seam, cell.inside) if value is not None])
    where = [
        Measure(f"jump {name}, σ", lambda cell, key=key: _thrice(getattr(cell, key)), lambda values: top)
        for key, name in (("seam", "where chunks meet"), ("inside", "inside a chunk"))
    ]
    if not any(cell.seam is not None for cell in cells):
        return None
    return _curves(cells, fps, where, scheme(cells))


@styled
def time_split(cells: Sequence[CellMeasures], fps: float) -> Figure | None:
    """Wall time per executed tick, and per request, by setting."""
    rows = {reference_name(cell, cells): [cell] for cell in cells if cell.reference}
    names = mode_names(modes(cells))
    rows |= {names[mode]: [cell for cell in cells if cell.mode == mode] for mode in names}
    rows = {name: found for name, found in rows.items() if sum(cell.ticks for cell in found)}
    figure = Figure((WIDTH_IN, 1.5 + 0.32 * len(rows)), layout="constrained")
    ticks, requests = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    for position, found in enumerate(rows.values()):
        weights = [cell.ticks for cell in found]
        parts = {part: np.average([cell.tick_ms[part] for cell in found], weights=weights) for part in found[0].tick_ms}
        _stack(ticks, position, {part: float(parts[part]) for part in PARTS_SHOWN})
        waited = [cell for cell in found if cell.wire_ms is not None] or found
        means = {key: [getattr(cell, key) for cell in waited] for key in REQUEST_PARTS}
        _stack(requests, position, {key: float(np.mean(of)) for key, of in means.items() if None not in of})
    ticks.set_yticks(range(len(rows)), list(rows))
    ticks.invert_yaxis()
    for axes, title in ((ticks, "ms per executed tick"), (requests, "ms per request")):
        axes.set_title(title)
        axes.grid(False)
        axes.margins(x=0.16)
        axes.set_xlim(left=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    handles = [Patch(facecolor=PARTS_COLOURS[part], label=LABELS[part]) for part in LABELS]
    figure.legend(handles=handles, loc="outside lower left", ncols=3, fontsize=9, handlelength=1, handleheight=1)
    return figure


def reference_name(reference: CellMeasures, cells: Sequence[CellMeasures]) -> str:
    """synchronous; of several policies, whose."""
    return f"{reference.mode.policy}, {SYNCHRONOUS}" if len(policies(cells)) > 1 else SYNCHRONOUS


def scheme(cells: Sequence[CellMeasures]) -> Scheme:
    """Who is drawn where. Of an aggregation's settings, if they are too many for a panel, the most successful ones."""
    known = modes(cells)
    names = mode_names(known)
    ours = [mode for mode in known if not mode.label]
    others = [mode for mode in known if mode.label]
    theirs = {mode: Look(*OTHERS[i % len(OTHERS)], names[mode]) for i, mode in enumerate(others)}
    if len(policies(cells)) > 1:
        return _by_policy(cells, ours, theirs)
    if len(ours) <= SETTINGS and len(others) <= len(OTHERS):
        looks = {mode: Look(COLOURS[i], MARKERS[i], names[mode]) for i, mode in enumerate(ours)}
        return Scheme([("", known)], looks | theirs, 0)
    best = _best_variants(cells, ours, SETTINGS)
    panels: list[tuple[str, list[Mode]]] = []
    looks = dict(theirs)
    for aggregate in dict.fromkeys(mode.aggregate for mode in ours):
        among = [mode for mode in ours if mode.aggregate == aggregate and _variant(mode) in best]
        panels.append((aggregate, among))
        for mode in among:
            index = best.index(_variant(mode))
            rest = names[mode].removeprefix(aggregate).removeprefix(", ")
            looks[mode] = Look(COLOURS[index], MARKERS[index], rest or names[mode])
    panels += [(label, [m for m in theirs if m.label == label]) for label in dict.fromkeys(m.label for m in theirs)]
    return Scheme(panels, looks, len(ours) - sum(len(among) for _, among in panels if not among[0].label))


def _by_policy(cells: Sequence[CellMeasures], ours: list[Mode], theirs: dict[Mode, Look]) -> Scheme:
    """Colour and line for the policy, a panel for each aggregation; markers for the rest of a setting, if it varies."""
    names, known = mode_names(modes(cells)), policies(cells)
    best = _best_variants(cells, ours, max(1, SETTINGS // len(known)))
    panels: list[tuple[str, list[Mode]]] = []
    looks = dict(theirs)
    for aggregate in dict.fromkeys(mode.aggregate for mode in ours):
        among = [mode for mode in ours if mode.aggregate == aggregate and _variant(mode) in best]
        panels += [(aggregate, among)] if among else []
        for mode in among:
            index, variant = known.index(mode.policy), best.index(_variant(mode))
            rest = names[mode].removeprefix(f"{mode.policy} with {aggregate}") if len(best) > 1 else ""
            marker = MARKERS[variant if len(best) > 1 else index]
            looks[mode] = Look(COLOURS[index], marker, mode.policy + rest, LINES[index])
    drawn = sum(len(among) for _, among in panels)
    panels += [(label, [m for m in theirs if m.label == label]) for label in dict.fromkeys(m.label for m in theirs)]
    colours = dict(zip(known, COLOURS, strict=False))
    if len(panels) == 1:
        panels = [("", panels[0][1])]
    return Scheme(panels, looks, len(ours) - drawn, colours)


def _variant(mode: Mode) -> tuple[float, int | None]:
    return mode.threshold, mode.horizon


def _best_variants(cells: Sequence[CellMeasures], ours: list[Mode], room: int) -> list[tuple[float, int | None]]:
    """Thresholds and horizons, if they are too many the most successful ones."""
    rates = {mode: float(np.mean([cell.rate for cell in cells if cell.mode == mode])) for mode in ours}
    variants = dict.fromkeys(_variant(mode) for mode in ours)
    best = sorted(variants, key=lambda v: -float(np.mean([rates[m] for m in ours if _variant(m) == v])))[:room]
    return [variant for variant in variants if variant in best]


def _curves(
    cells: Sequence[CellMeasures],
    fps: float,
    measures: Sequence[Measure],
    plan: Scheme,
    marks: Mapping[str, float] = MappingProxyType({}),
) -> Figure | None:
    """marks: by policy, a time in ticks to be marked on the axis of delays."""
    if not plan.looks:
        return None
    many = len(plan.panels) > 1
    alone = not many and len(measures) == 1
    columns = len(measures) if not many else len(plan.panels) if len(plan.panels) <= 4 else 3
    rows = len(measures) * math.ceil(len(plan.panels) / columns) if many else 1
    height = 4.4 if alone else 3.6 if not many else 0.7 + 2.4 * rows
    if plan.colours:  # whose legend has more lines
        height += 0.22 * math.ceil((len({look.name for look in plan.looks.values()}) + len(marks)) / 2)
    figure = Figure((WIDTH_IN, height), layout="constrained")
    spots = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for measure in measures:
        values = [bound for cell in cells for bound in measure.of(cell) or ()]
        for index in range(math.ceil(len(plan.panels) / columns) * columns if many else 1):
            axes = next(spots)
            if index >= len(plan.panels):
                axes.set_visible(False)
                continue
            title, among = plan.panels[index]
            _panel(axes, cells, among, plan, measure)
            axes.set_ylim(*measure.limits(values))
            axes.set_title(title if many else measure.label if len(measures) > 1 else "")
            if alone or (many and index % columns == 0):
                axes.set_ylabel(measure.label)
            _delay_axis(axes, cells, fps, wide=not many, named=not many or index % columns == 0)
            axes.yaxis.set_major_formatter(_in(measure.unit))
            _mark(axes, marks, plan)
            if many and index % columns:
                axes.tick_params(labelleft=False)
            if alone and not plan.colours:
                _label_ends(axes, cells, plan, measure)
    if not alone or plan.colours:
        each = any(len(_standards(cells, plan, measure)) > 1 for measure in measures)
        _legend(figure, plan, marks, each if any(cell.reference for cell in cells) else None)
    return figure


def _mark(axes: Axes, marks: Mapping[str, float], plan: Scheme) -> None:
    """A dotted line at each policy's time, with a triangle at its foot; beyond the axis, one that points there."""
    right = axes.get_xlim()[1]
    for policy, at in marks.items():
        inside = at <= right
        style: dict[str, Any] = {"color": plan.colours[policy], "clip_on": False, "zorder": 2.5}
        if inside:
            axes.axvline(at, linestyle=(0, (1, 2)), linewidth=1.3, alpha=0.8, color=plan.colours[policy], zorder=1.4)
        place, marker = (at, UP) if inside else (right, RIGHT)
        axes.plot(place, 0.0, marker=marker, markersize=7, transform=axes.get_xaxis_transform(), **style)


def _panel(axes: Axes, cells: Sequence[CellMeasures], among: Sequence[Mode], plan: Scheme, measure: Measure) -> None:
    for standard, colour in _standards(cells, plan, measure):
        axes.axhline(standard[0], color=colour, linestyle=DASHED, linewidth=1.3, zorder=1.5)
        if standard[1] < standard[2] and not plan.colours:
            axes.axhspan(standard[1], standard[2], color=colour, alpha=0.12, linewidth=0, zorder=0.5)
    for mode in among:
        look = plan.looks[mode]
        for plain in (True, False):
            points = _points(cells, mode, among, measure, plain)
            if not points:
                continue
            x, y, low, high = np.array(points).T
            axes.plot(
                x, y, color=look.colour, linestyle=look.line if plain else "none", marker=look.marker, zorder=3,
                markersize=_size(look), markeredgecolor=PAPER if plain else look.colour,
                markerfacecolor=look.colour if plain else PAPER, markeredgewidth=0.8 if plain else 1.6,
            )  # fmt: skip
            if not np.any(high > low):
                continue
            if plain and len(among) <= BANDS and len(points) > 1:
                axes.fill_between(x, low, high, color=look.colour, alpha=0.14, linewidth=0, zorder=1)
            else:
                axes.vlines(x, low, high, color=look.colour, alpha=0.55, linewidth=1.4, zorder=2)


def _standards(
    cells: Sequence[CellMeasures], plan: Scheme, measure: Measure
) -> list[tuple[tuple[float, float, float], str]]:
    """Of each synchronous reference the value, and its colour; one for all where they are at one place."""
    found = [(cell.mode.policy, value) for cell in cells if cell.reference and (value := measure.of(cell))]
    if len({value for _, value in found}) == 1:
        return [(found[0][1], QUIET)]
    return [(value, plan.colours.get(policy, QUIET)) for policy, value in found]


def _points(
    cells: Sequence[CellMeasures], mode: Mode, among: Sequence[Mode], measure: Measure, plain: bool
) -> list[tuple[float, float, float, float]]:
    """(x, value, low, high) by delay, moved aside by the mode's place among those it shares axes with."""
    aside = _aside(among.index(mode) + (0 if plain else len(among)), among, cells)
    found = [cell for cell in cells if cell.mode == mode and cell.plain == plain]
    return sorted((cell.delay + aside, *value) for cell in found if (value := measure.of(cell)) is not None)


def _aside(place: int, among: Sequence[Mode], cells: Sequence[CellMeasures]) -> float:
    """How far from its delay, in ticks, the one at this place among those that share axes is drawn."""
    return (place - (len(among) - 1) / 2) * _apart(cells, among)


def _apart(cells: Sequence[CellMeasures], among: Sequence[Mode]) -> float:
    """Ticks between two settings that share axes: more in a panel of several, which is narrower."""
    return (APART if len(among) == len(modes(cells)) else 2 * APART) * _span(cells)


def _span(cells: Sequence[CellMeasures]) -> float:
    return max((cell.delay for cell in cells), default=0.0) or 1.0


def _delay_axis(axes: Axes, cells: Sequence[CellMeasures], fps: float, wide: bool, named: bool) -> None:
    delays = {cell.delay for cell in cells if cell.plain} or {round(cell.delay) for cell in cells}
    axes.set_xticks(sorted(delays))
    if wide:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}\n{1000 * value / fps:.0f} ms"))
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    rate = f"at {fps:g} Hz" if wide else f"of {1000 / fps:.3g} ms"
    if named:
        axes.set_xlabel(f"latency in ticks {rate}", loc="left", color=QUIET, fontsize=9)
    low, high = axes.dataLim.intervalx
    edge = (0.03 if wide else 0.05) * _span(cells)
    axes.set_xlim(min(0.0, low) - edge, max(_span(cells), high) + edge)


def _label_ends(axes: Axes, cells: Sequence[CellMeasures], plan: Scheme, measure: Measure) -> None:
    """Each line's name to the right of it, outside of the data, none on top of another."""
    low, high = axes.get_ylim()
    among = plan.panels[0][1]
    ends: list[tuple[float, float, str, str]] = []
    for mode, look in plan.looks.items():
        points = _points(cells, mode, among, measure, True) or _points(cells, mode, among, measure, False)
        if points:
            ends.append((points[-1][1], points[-1][0], look.name, look.colour))
    reference = next((cell for cell in cells if cell.reference), None)
    if reference is not None and (value := measure.of(reference)):
        ends.append((value[0], axes.get_xlim()[1], SYNCHRONOUS, QUIET))
    ends.sort(reverse=True)
    heights = _spread([(y - low) / (high - low) for y, *_ in ends], 0.062)
    line = {"arrowstyle": "-", "lw": 1.1, "linestyle": ":", "relpos": (0, 0.5), "shrinkA": 2, "shrinkB": 5}
    for (y, x, name, colour), height in zip(ends, heights, strict=True):
        axes.annotate(
            name, (x, y), (1.045, height), textcoords="axes fraction", va="center", fontsize=9.5,
            color=QUIET if name == SYNCHRONOUS else INK, annotation_clip=False, arrowprops={**line, "color": colour},
        )  # fmt: skip


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Descending heights, moved as little as needed to be `gap` apart and inside of 0 … 1."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - gap) if placed else min(height, 1.0))
    if placed and placed[-1] < 0:
        placed[-1] = 0.0
        for index in range(len(placed) - 2, -1, -1):
            placed[index] = max(placed[index], placed[index + 1] + gap)
    return placed


def _legend(figure: Figure, plan: Scheme, marks: Mapping[str, float], each: bool | None) -> None:
    """each: whether every policy has a synchronous reference of its own; None without any."""
    handles = {
        look.name: Line2D(
            [], [], color=look.colour, marker=look.marker, markeredgecolor=PAPER, markersize=_size(look),
            linestyle=look.line,
        )
        for look in plan.looks.values()
    }  # fmt: skip
    if each is not None:
        name = f"{SYNCHRONOUS}, in the policy's colour" if each else SYNCHRONOUS
        handles[name] = Line2D([], [], color=QUIET, linestyle=DASHED, linewidth=1.3)
    for policy, at in marks.items():
        name = f"{policy}: {at:.2g} ticks a chunk"
        handles[name] = Line2D([], [], color=plan.colours[policy], marker=UP, linestyle=(0, (1, 2)))
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower left", ncols=2 if plan.colours else 3, columnspacing=2,
        fontsize=9.5, handlelength=3.2 if plan.colours else None,
    )  # fmt: skip


def _in(unit: str) -> FuncFormatter:
    return FuncFormatter(lambda value, _: f"{value:g}{unit}".replace("-", "−"))


def _size(look: Look) -> float:
    return 10 if look.marker == "*" else 6


def _stack(axes: Axes, position: int, parts: dict[str, float]) -> None:
    left = 0.0
    for part, value in parts.items():
        axes.barh(position, value, 0.62, left, color=PARTS_COLOURS[part], label=LABELS[part], linewidth=0)
        left += value
    axes.annotate(f"{left:.1f}", (left, position), (4, 0), textcoords="offset points", va="center", fontsize=9)


def _thrice(value: float | None) -> tuple[float, float, float] | None:
    return None if value is None else (value, value, value)


def _whole(values: list[float]) -> tuple[float, float]:
    return -2.0, 103.0


def _around_zero(values: list[float]) -> tuple[float, float]:
    low = min(-10.0, 10 * math.floor(min(values, default=0.0) / 10))
    return max(-102.0, low), min(102.0, max(10.0, 10 * math.ceil(max(values, default=0.0) / 10)))


def _from_zero(least: float) -> Callable[[list[float]], tuple[float, float]]:
    def limits(values: list[float]) -> tuple[float, float]:
        top = max(least, 1.08 * max(values, default=0.0))
        return -0.02 * top, top

    return limits
