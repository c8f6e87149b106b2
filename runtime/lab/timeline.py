"""The timeline figure of one episode: when was asked, when each chunk came, what of it was executed; and which episode.

asked            v        v
chunk 0   ▓▓▓▓▓▓▓▓▓▓▓▓░░░░            ▓ executed   ░ superseded   / past before it came
chunk 9            ////▓▓▓▓▓▓▓
executed  ▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓×××     × starved
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from tactus.runtime.lab.sweep_folder import CellResults
from tactus.runtime.report.drawing import BAD, COLOURS, INK, PAPER, QUIET, WIDTH_IN, styled

SHOWN_TICKS = 110
BEFORE_TICKS = 25
LANES = 4


class Bar(NamedTuple):
    """A chunk asked for at `start`: here from `arrived` on, superseded from `until` on, used up at `end`."""

    start: int
    arrived: int
    until: int
    end: int


def instructive(found: Sequence[CellResults]) -> tuple[CellResults, Mapping[str, Any]] | None:
    """An episode that shows what latency does: starved and failed if there is one, at two ticks or more if possible, of
    the default setting if it was played."""

    def interest(one: CellResults, row: Mapping[str, Any]) -> tuple[float, ...]:
        late = float(np.median(row["latency_ticks"][1:] or [0]))
        default = one.cell.aggregate == "latest_only" and one.cell.chunk_size_threshold == 0.5
        starved, failed = row["starved_ticks"] > 0, not row["success"]
        return late >= 2, default, starved + failed, starved, -late, -row["episode"]

    rows = [
        (one, row)
        for one in found
        for row in one.rows
        if not one.label and not one.cell.synchronous and row["ticks"] and row["timeline"]["chunks"]
    ]
    return max(rows, key=lambda pair: interest(*pair), default=None)


def bars(timeline: Mapping[str, Any]) -> list[Bar]:
    """Every chunk, by start. A chunk gives way to the next newer one that arrives."""
    chunks = [(start, start + late, start + late + length - stale) for start, late, length, stale in timeline["chunks"]]
    found = []
    for start, arrived, end in chunks:
        newer = [other_arrived for other, other_arrived, _ in chunks if other > start]
        until = min([max(arrived, other) for other in newer], default=end)
        found.append(Bar(start, min(arrived, end), min(until, end), end))
    return sorted(found)


def depth(timeline: Mapping[str, Any], ticks: int) -> list[int]:
    """Queued ticks at the start of each tick, after merging."""
    chunks = [(start + late, start + late + length - stale) for start, late, length, stale in timeline["chunks"]]
    return [max([end - tick for arrived, end in chunks if arrived <= tick < end], default=0) for tick in range(ticks)]


def runs(ticks: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending ticks as stretches: 3 4 5 9 -> (3, 6) (9, 10)."""
    found: list[tuple[int, int]] = []
    for tick in ticks:
        begin = found.pop()[0] if found and found[-1][1] == tick else tick
        found.append((begin, tick + 1))
    return found


def unanswered(timeline: Mapping[str, Any]) -> set[int]:
    """Ticks that asked in vain: there was another question, and never an answer to this one."""
    return {*timeline["asked"][:-1]} - {start for start, *_ in timeline["chunks"]}


@styled
def timeline(row: Mapping[str, Any], ask_at: float) -> Figure | None:
    """ask_at: a new chunk is asked for when the queue holds at most so many ticks."""
    ticks, chunks, starved = row["ticks"], bars(row["timeline"]), row["timeline"]["starved"]
    first = max(0, min(starved[0] - BEFORE_TICKS if starved else 0, ticks - SHOWN_TICKS))
    last = min(ticks, first + SHOWN_TICKS)
    shown = [(index, bar) for index, bar in enumerate(chunks) if bar.end > first and bar.start < last]
    figure = Figure((WIDTH_IN, 4.5), layout="constrained")
    lanes, done, queue = figure.subplots(3, 1, sharex=True, height_ratios=[LANES, 0.75, 1.7])
    for index, bar in shown:
        _bar(lanes, bar, index, (index % LANES) + 0.5)
    asked = [tick for tick in row["timeline"]["asked"] if first <= tick < last]
    lost = unanswered(row["timeline"])
    for tick in asked:
        marker, colour = ("x", BAD) if tick in lost else ("v", INK)
        lanes.plot(tick, -0.35, marker, color=colour, markersize=5, clip_on=False)
    lanes.set_ylim(LANES, -0.75)
    lanes.set_yticks([-0.35, LANES / 2], ["asked", "chunks"])
    _executed(done, chunks, starved, ticks)
    steps = depth(row["timeline"], ticks)
    queue.fill_between(range(ticks), steps, step="post", color=COLOURS[0], alpha=0.25, linewidth=0)
    queue.step(range(ticks), steps, where="post", color=COLOURS[0], linewidth=1.3)
    queue.axhline(ask_at, color=QUIET, linestyle=(0, (4, 3)), linewidth=1)
    queue.annotate(
        "asks\nat this", (1.0, ask_at), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
        va="center", fontsize=8, color=QUIET,
    )  # fmt: skip
    for begin, end in runs(starved):
        for axes in (queue, lanes):
            axes.axvspan(begin, end, color=BAD, alpha=0.10, linewidth=0)
    queue.set_ylim(0, max([*steps, 1]) * 1.12)
    queue.set_ylabel("queued", rotation=0, ha="right", va="center")
    queue.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in (lanes, done):
        axes.grid(False)
        axes.tick_params(axis="x", length=0)
        for side in ("left", "bottom"):
            axes.spines[side].set_visible(False)
    queue.set_xlim(first - 1, last)
    queue.set_xlabel("tick", loc="left", color=QUIET, fontsize=9)
    keys: list[Patch | Line2D] = [
        Patch(facecolor=COLOURS[0], label="executed"),
        Patch(facecolor=COLOURS[0], alpha=0.25, label="superseded by a newer chunk"),
        Patch(facecolor=PAPER, edgecolor=QUIET, hatch="////", label="stale: past before it came"),
        Patch(facecolor=BAD, label="starved"),
    ]
    if lost & {*asked}:
        keys.append(Line2D([], [], color=BAD, marker="x", linestyle="none", label="never answered"))
    figure.legend(handles=keys, loc="outside lower left", ncols=len(keys), fontsize=9, handlelength=1.4)
    return figure


def _bar(axes: Axes, bar: Bar, index: int, height: float) -> None:
    colour = _colour(index)
    past = {"facecolor": PAPER, "edgecolor": QUIET, "hatch": "////", "linewidth": 0.7}
    styles: list[tuple[int, int, dict[str, Any]]] = [
        (bar.start, bar.arrived, past),
        (bar.arrived, bar.until, {"facecolor": colour}),
        (bar.until, bar.end, {"facecolor": colour, "alpha": 0.25}),
    ]
    for begin, end, style in styles:
        if end > begin:
            axes.add_patch(Rectangle((begin, height - 0.36), end - begin, 0.72, **style))


def _executed(axes: Axes, chunks: Sequence[Bar], starved: Sequence[int], ticks: int) -> None:
    """Which chunk each tick's action came from, the newest where several were blended."""
    for index, bar in enumerate(chunks):
        if min(bar.until, ticks) > bar.arrived:
            axes.barh(0, min(bar.until, ticks) - bar.arrived, 0.8, bar.arrived, facecolor=_colour(index))
    for begin, end in runs(starved):
        axes.barh(0, end - begin, 0.8, begin, facecolor=BAD)
    axes.set_ylim(-0.5, 0.5)
    axes.set_yticks([0], ["executed"])


def _colour(index: int) -> str:
    return (COLOURS[0], COLOURS[5])[index % 2]
