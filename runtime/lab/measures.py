"""What a sweep's episodes say about each cell: success with intervals, pairs, delays, seams, time. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from tactus.runtime.lab.sweep_folder import CellResults, Sweep
from tactus.runtime.robot_node.action_smoothness import action_std, rms_jump
from tactus.runtime.robot_node.episode import PARTS
from tactus.runtime.statistics import wilson
from tactus.runtime.wire.latency import LatencyModel

Z95 = 1.959964
LOOP = "loop"
"""What is left of an episode's wall time when every part is taken off."""


class Difference(NamedTuple):
    """Success of one cell minus success of another over the episodes both have played: value in low … high (95 %)."""

    episodes: int
    value: float
    low: float
    high: float

    @property
    def tells(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


class Mode(NamedTuple):
    """A setting without its latency. label: another lab's name, empty for ours. horizon: None for the policy's own.
    policy: its name in a sweep of several, "" in any other."""

    label: str
    aggregate: str
    threshold: float
    horizon: int | None
    policy: str = ""

    @property
    def of_any_policy(self) -> Mode:
        """The same setting, whatever the policy."""
        return self._replace(policy="")

    @property
    def flags(self) -> str:
        """As `tactus eval` and `tactus run` take it."""
        flags = f"--aggregate={self.aggregate} --chunk_size_threshold={self.threshold:g}"
        return flags if self.horizon is None else f"{flags} --execution_horizon={self.horizon}"


class TaskResult(NamedTuple):
    """Success of one cell in one group of episodes."""

    group: str
    task: str
    episodes: int
    successes: int
    low: float
    high: float


@dataclass(frozen=True)
class CellMeasures:
    """One cell in numbers; None where nothing was there to measure.

    delay: where it stands on the axis of latency, in ticks: of a fixed latency the ticks themselves, of any other
        the median that was measured. plain: a fixed latency, nothing dropped or reordered.
    low, high: Wilson's interval of `rate`. difference: to the synchronous reference of its policy.
    starved: share of ticks. stale: actions that came too late, per request. requests: per episode.
    latency_p50, latency_p95: ticks from observation to merge, without each episode's first chunk, which is waited for.
    seam, inside: root mean square of ‖Δaction / σ‖ where chunks meet and elsewhere; σ of the actions of all policies'
        references, so that policies can be compared.
    tick_ms: wall time per executed tick, by tactus.runtime.robot_node.episode.PARTS and LOOP.
    inference_ms, queued_ms: means per request. chunk_ms: what the policy took for each. wire_ms: the rest of the round
        trip, where answers were waited for; elsewhere the simulator's own time is in it. round_trips_ms: of each
        request, under the same condition.
    """

    name: str
    mode: Mode
    latency: str
    reference: bool
    delay: float
    plain: bool
    success: Mapping[int, bool]
    episodes: int
    successes: int
    rate: float
    low: float
    high: float
    difference: Difference | None
    ticks: int
    starved: float
    stale: float | None
    requests: float
    latency_p50: float | None
    latency_p95: float | None
    seam: float | None
    inside: float | None
    tick_ms: Mapping[str, float]
    inference_ms: float | None
    chunk_ms: Sequence[float]
    queued_ms: float | None
    wire_ms: float | None
    round_trips_ms: Sequence[float]
    tasks: Sequence[TaskResult]


def tango(only_first: int, only_second: int, pairs: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of p₁ - p₂ for paired proportions; z = 1.96 for 95 %. (-1, 1) without pairs.

    only_first, only_second: pairs in which one of the two succeeded alone. Tango, Statistics in Medicine 17 (1998)
    891-908: all differences δ that a score test with the others' likelihood maximised under δ does not reject, found
    by bisection. Recommended for small samples too by Fagerland, Lydersen and Laake, ibid. 33 (2014) 2850-2875.
    """
    if pairs == 0:
        return -1.0, 1.0
    gap = only_first - only_second

    def score(delta: float) -> float:
        b = -only_first - only_second + (2 * pairs - gap) * delta
        c = -only_second * delta * (1 - delta)
        share = (math.sqrt(max(0.0, b * b - 8 * pairs * c)) - b) / (4 * pairs)  # of only_second, most likely under δ
        variance = pairs * (2 * share + delta * (1 - delta))
        distance = gap - pairs * delta
        return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0

    def crossing(level: float, low: float, high: float) -> float:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > level else (low, middle)
        return (low + high) / 2

    return crossing(z, -1.0, gap / pairs), crossing(-z, gap / pairs, 1.0)


def paired(first: Mapping[int, bool], second: Mapping[int, bool]) -> Difference | None:
    """first, second: success by episode. None if they have no episode in common."""
    common = first.keys() & second.keys()
    if not common:
        return None
    only_first = sum(first[episode] and not second[episode] for episode in common)
    only_second = sum(second[episode] and not first[episode] for episode in common)
    low, high = tango(only_first, only_second, len(common))
    return Difference(len(common), (only_first - only_second) / len(common), low, high)


def measure(sweep: Sweep) -> list[CellMeasures]:
    """Every cell that has episodes, in the sweep's order. Without a reference there are no differences and no seams."""
    bases: dict[str, CellResults] = {}
    for found in sweep.cells:
        if found.cell.synchronous and not found.label:
            bases.setdefault(found.cell.policy, found)
    std = action_std(row["jumps"] for base in bases.values() for row in base.rows) if bases else None
    measured = [_measure(found, bases.get(found.cell.policy) is found, std, sweep.about) for found in sweep.cells]
    known = references(measured)
    return [
        cell
        if cell.reference or cell.mode.policy not in known
        else replace(cell, difference=paired(cell.success, known[cell.mode.policy].success))
        for cell in measured
    ]


def references(cells: Sequence[CellMeasures]) -> dict[str, CellMeasures]:
    """The synchronous reference of each policy that has one, by its name."""
    return {cell.mode.policy: cell for cell in cells if cell.reference}


def policies(cells: Sequence[CellMeasures]) -> list[str]:
    """The names of the policies that the cells are of, in order; [""] in a sweep of one policy."""
    return list(dict.fromkeys(cell.mode.policy for cell in cells if not cell.mode.label))


def modes(cells: Sequence[CellMeasures]) -> list[Mode]:
    """The settings to compare, in order, other labs' last. The reference is one only if its setting has more cells."""
    found = dict.fromkeys(cell.mode for cell in cells if not cell.reference)
    return sorted(found, key=lambda mode: mode.label != "")


def mode_names(among: Sequence[Mode]) -> dict[Mode, str]:
    """A name for each: its policy, where there are several, and its aggregation, or the other lab's label, and whatever
    else tells it from the rest."""
    several = len({mode.policy for mode in among if not mode.label}) > 1
    thresholds = len({mode.threshold for mode in among if not mode.label}) > 1
    horizons = len({mode.horizon for mode in among if not mode.label}) > 1
    names = {}
    for mode in among:
        twins = [other for other in among if other.label == mode.label]
        parts = [mode.label or (f"{mode.policy} with {mode.aggregate}" if several else mode.aggregate)]
        if mode.label and len({twin.aggregate for twin in twins}) > 1:
            parts.append(mode.aggregate)
        if len({twin.threshold for twin in twins}) > 1 if mode.label else thresholds:
            parts.append(f"threshold {mode.threshold:g}")
        if len({twin.horizon for twin in twins}) > 1 if mode.label else horizons:
            parts.append("own horizon" if mode.horizon is None else f"horizon {mode.horizon}")
        names[mode] = ", ".join(parts)
    return names


def missing(sweep: Sweep) -> list[tuple[str, int, int]]:
    """(cell, episodes found, episodes asked for) of every cell of the grid that is not finished."""
    asked = int(sweep.about.get("episodes") or max((len(found.rows) for found in sweep.cells), default=0))
    there = {found.cell.name: len(found.rows) for found in sweep.cells if not found.label}
    names = [entry["name"] for entry in sweep.about["cells"]]
    return [(name, there.get(name, 0), asked) for name in names if there.get(name, 0) < asked]


def as_record(cell: CellMeasures) -> dict[str, Any]:
    """Flat, for a line of cells.csv."""
    nested = {"mode", "success", "difference", "tick_ms", "round_trips_ms", "chunk_ms", "tasks"}
    record: dict[str, Any] = {"name": cell.name, **cell.mode._asdict()}
    record |= {field.name: getattr(cell, field.name) for field in fields(cell) if field.name not in nested}
    gap = cell.difference
    record |= {
        "difference": gap and gap.value,
        "difference_low": gap and gap.low,
        "difference_high": gap and gap.high,
        "pairs": gap and gap.episodes,
    }
    return record | {f"{part}_ms_per_tick": value for part, value in cell.tick_ms.items()}


def _measure(found: CellResults, reference: bool, std: np.ndarray | None, about: Mapping[str, Any]) -> CellMeasures:
    cell, rows, timings = found.cell, found.rows, found.timings
    model = _model(cell.latency)
    later = [ticks for row in rows for ticks in row["latency_ticks"][1:]]
    median = float(np.median(later)) if later else None
    successes = sum(row["success"] for row in rows)
    ticks, requests = sum(row["ticks"] for row in rows), sum(row["requests"] for row in rows)
    low, high = wilson(successes, len(rows))
    jumps = [row["jumps"] for row in rows]
    inference, queued = _mean(timings, "inference_ms"), _mean(timings, "queued_ms")
    waited = model is not None and not found.label and (model.needs_reply or model == LatencyModel("fixed"))
    round_trips = [value for row in timings for value in row["round_trip_ms"] if value > 0] if waited else []
    wire = None
    if round_trips and inference is not None and queued is not None:
        wire = max(0.0, float(np.mean(round_trips)) - inference - queued)
    return CellMeasures(
        name=found.label + ": " + cell.name if found.label else cell.name,
        mode=Mode(found.label, cell.aggregate, cell.chunk_size_threshold, cell.execution_horizon, cell.policy),
        latency=cell.latency,
        reference=reference,
        delay=_delay(model, median, float(about["robot"]["fps"])),
        plain=model is not None and model.kind == "fixed" and not model.drop and not model.reorder,
        success={row["episode"]: row["success"] for row in rows},
        episodes=len(rows),
        successes=successes,
        rate=successes / len(rows),
        low=low,
        high=high,
        difference=None,
        ticks=ticks,
        starved=sum(row["starved_ticks"] for row in rows) / ticks if ticks else 0.0,
        stale=sum(row["stale_actions_dropped"] for row in rows) / requests if requests else None,
        requests=requests / len(rows),
        latency_p50=median,
        latency_p95=float(np.percentile(later, 95)) if later else None,
        seam=None if std is None else rms_jump(jumps, std, "seam"),
        inside=None if std is None else rms_jump(jumps, std, "inside"),
        tick_ms=_tick_ms(timings, ticks),
        inference_ms=inference,
        chunk_ms=[value for row in timings for value in row.get("inference_ms", ())],
        queued_ms=queued,
        wire_ms=wire,
        round_trips_ms=round_trips,
        tasks=_tasks(rows),
    )


def _model(latency: str) -> LatencyModel | None:
    """None for a trace whose file is not here any more."""
    try:
        return LatencyModel.parse(latency)
    except ValueError:
        return None


def _delay(model: LatencyModel | None, median: float | None, fps: float) -> float:
    if model is not None and model.kind == "fixed":
        return float(math.ceil(model.value * fps / 1000 - 1e-9) if model.milliseconds else math.ceil(model.value))
    return median or 0.0


def _mean(timings: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [value for row in timings for value in row.get(key, ())]
    return float(np.mean(values)) if values else None


def _tick_ms(timings: Sequence[Mapping[str, Any]], ticks: int) -> dict[str, float]:
    if not ticks:
        return {}
    spent: dict[str, float] = {part: sum(row.get("spent_s", {}).get(part, 0.0) for row in timings) for part in PARTS}
    spent[LOOP] = max(0.0, sum(row["wall_s"] for row in timings) - sum(spent.values()))
    return {part: 1000 * seconds / ticks for part, seconds in spent.items()}


def _tasks(rows: Sequence[Mapping[str, Any]]) -> list[TaskResult]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(row)
    return [_task(group, groups[group]) for group in sorted(groups, key=_natural)]


def _task(group: str, rows: Sequence[Mapping[str, Any]]) -> TaskResult:
    successes = sum(row["success"] for row in rows)
    return TaskResult(group, rows[0]["task"], len(rows), successes, *wilson(successes, len(rows)))


def _natural(group: str) -> list[tuple[int, str]]:
    """libero_10/2 before libero_10/10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", group)]
