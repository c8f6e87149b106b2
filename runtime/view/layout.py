"""The layout of the view (a Rerun blueprint): cameras above, joints in the middle, queue, latencies and log below."""

from __future__ import annotations

import math

import rerun as rr
import rerun.blueprint as rrb
from rerun.blueprint.components import LinkAxis

from tactus.runtime.view.entities import Entities

REQUESTED, SENT, MEASURED = (150, 160, 175), (255, 160, 40), (80, 200, 120)
DEPTH, CHUNK, STARVED = (70, 140, 240), (230, 70, 200), (240, 70, 60)
AGE, ROUND_TRIP, INFERENCE, LATENESS = (150, 160, 175), (255, 160, 40), (80, 200, 120), (200, 120, 250)
PERSON = (90, 200, 250)
PER_ROW = 4
LIVE_TICKS = 300
"""How much of the past plots show while a run goes on."""


def path(*parts: str) -> str:
    """An entity's path, whatever characters the names have."""
    return rr.new_entity_path([*parts])


def styles(entities: Entities) -> dict[str, rr.SeriesLines | rr.SeriesPoints]:
    """Colours and names of the series, by entity."""
    found: dict[str, rr.SeriesLines | rr.SeriesPoints] = {
        "queue/depth": rr.SeriesLines(colors=DEPTH, names="queued actions", widths=1.5),
        "queue/chunk": rr.SeriesPoints(colors=CHUNK, names="chunk arrives", markers="up", marker_sizes=3.5),
        "queue/starved": rr.SeriesPoints(colors=STARVED, names="starved tick", markers="square", marker_sizes=3),
        "queue/person": rr.SeriesPoints(colors=PERSON, names="a person drives", markers="diamond", marker_sizes=3),
        "latency/age": rr.SeriesLines(colors=AGE, names="age of the action", widths=1),
        "latency/round_trip": rr.SeriesPoints(colors=ROUND_TRIP, names="round trip", markers="circle", marker_sizes=3),
        "latency/inference": rr.SeriesPoints(colors=INFERENCE, names="policy", markers="diamond", marker_sizes=3),
        "latency/lateness": rr.SeriesLines(colors=LATENESS, names="lateness of the tick", widths=1),
    }
    for joint in entities.joints:
        commands = rr.SeriesLines(colors=[REQUESTED, SENT], names=["requested", "sent"], widths=[2.5, 1.2])
        found[path("joints", joint.name, "commands")] = commands
        if joint.measured is not None:
            found[path("joints", joint.name, "measured")] = rr.SeriesLines(colors=MEASURED, names="measured", widths=1)
    for name in entities.state:
        found[path("state", name)] = rr.SeriesLines(names=name, widths=1)
    return found


def blueprint(entities: Entities, live: bool) -> rrb.Blueprint:
    """live: plots follow the run instead of showing all of it."""
    ranges = None
    if live:
        past = rrb.VisibleTimeRange(
            "tick",
            start=rrb.TimeRangeBoundary.cursor_relative(seq=-LIVE_TICKS),
            end=rrb.TimeRangeBoundary.cursor_relative(seq=0),
        )
        ranges = [past]

    def plot(name: str, origin: str, legend: bool = True, range: tuple[float, float] | None = None) -> rrb.View:
        return rrb.TimeSeriesView(
            origin=origin,
            name=name,
            time_ranges=ranges,
            plot_legend=rrb.PlotLegend(rrb.Corner2D.LeftTop, visible=legend),
            axis_x=rrb.TimeAxis(link=LinkAxis.LinkToGlobal),
            axis_y=rrb.ScalarAxis(range=range) if range else None,
        )

    rows: list[rrb.Container | rrb.View] = []
    shares: list[float] = []
    if entities.cameras:
        rows.append(
            rrb.Horizontal(*(rrb.Spatial2DView(origin=path("cameras", name), name=name) for name in entities.cameras))
        )
        shares.append(3.0)
    plots = [
        plot(joint.title, path("joints", joint.name), legend=not i, range=joint.range)
        for i, joint in enumerate(entities.joints)
    ]
    if entities.state:
        plots.append(plot("state", "state", legend=False))
    columns = min(PER_ROW, len(plots))
    rows.append(rrb.Grid(*plots, grid_columns=columns))
    shares.append(1.5 * min(3, math.ceil(len(plots) / columns)))
    rows.append(rrb.Horizontal(plot("queue", "queue"), plot("latency [ms]", "latency"), _log()))
    shares.append(2.0)
    layout = rrb.Vertical(*rows, row_shares=shares)
    time = rrb.TimePanel(state="collapsed", timeline="tick", play_state="following")
    closed = (rrb.BlueprintPanel(state="collapsed"), rrb.SelectionPanel(state="collapsed"), time)
    return rrb.Blueprint(layout, *closed, auto_views=False, auto_layout=False)


def _log() -> rrb.View:
    columns = rrb.TextLogColumns(text_log_columns=["Body"])
    return rrb.TextLogView(origin="log", name="log", columns=columns)
