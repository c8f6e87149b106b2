"""Writes a sweep's report: report.html, a page that needs no other file, and its figures and tables."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tactus.hal.json_file import read_json
from tactus.runtime.evaluation.results import ResultsError, make_folder
from tactus.runtime.lab import figures
from tactus.runtime.lab.measures import (
    CellMeasures,
    as_record,
    measure,
    missing,
    mode_names,
    modes,
    policies,
    references,
)
from tactus.runtime.lab.recommend import ENOUGH, NBSP, Recommendation, interval, percent, points, recommend, signed
from tactus.runtime.lab.sweep_folder import SWEEP, Sweep, read_sweep
from tactus.runtime.lab.timeline import instructive, timeline
from tactus.runtime.lab.worth import PolicyDifference, differences, worth
from tactus.runtime.report.drawing import THEME
from tactus.runtime.report.page import write_csv, write_figure, write_page

REPORT = "report.html"
TEMPLATE = "report.html.j2"


def write_report(folder: Path, measured_ms: Sequence[float] | None = None, measured_name: str = "") -> Path:
    """Write report.html, figures/*.png and tables/*.csv into a sweep's folder, anew; returns report.html's path.

    measured_ms: round trips to recommend a setting for, nan for a lost one; not given: those that the sweep measured.
    measured_name: where they are from. Raises ResultsError if this is no sweep's folder, or no episode is finished.
    """
    sweep = read_sweep(folder)
    policy = "policies" if "policies" in sweep.about else "policy"
    if lacks := [key for key in ("robot", policy, "fingerprint") if not isinstance(sweep.about.get(key), dict)]:
        raise ResultsError(f"{folder} cannot be read as a sweep: {SWEEP} lacks {', '.join(lacks)}")
    try:
        who = _who(sweep)
    except ResultsError as error:
        raise ResultsError(f"{folder} cannot be read as a sweep: {error}") from error
    cells = measure(sweep)
    if not cells:
        raise ResultsError(f"{folder} holds a sweep without a finished episode: there is nothing to report yet")
    advice = recommend(sweep, cells, measured_ms, measured_name)
    make_folder(folder / "figures")
    make_folder(folder / "tables")
    _write_tables(folder / "tables", sweep, cells)
    page = _page(folder, sweep, cells, advice, who)
    filters = {"percent": percent, "signed": signed, "points": points}
    write_page(folder / REPORT, "tactus.runtime.lab", TEMPLATE, page, filters)
    return folder / REPORT


def _page(
    folder: Path, sweep: Sweep, cells: Sequence[CellMeasures], advice: Recommendation | None, who: str
) -> dict[str, Any]:
    """What the template is told."""
    about = sweep.about
    fps = float(about["robot"]["fps"])
    names = mode_names(modes(cells))
    known = references(cells)
    chosen = advice.choice.mode.policy if advice else next(iter(known), "")
    reference, plan = known.get(chosen), figures.scheme(cells)
    return {
        "policy": who,
        "several": len(policies(cells)) > 1,
        "chosen": chosen,
        "references": known,
        "worth": worth(cells, fps),
        "pairs": _pairs(cells),
        "robot": about["robot"].get("name", "robot"),
        "fps": fps,
        "episodes": sum(cell.episodes for cell in cells),
        "cells": _rows(cells, names, plan),
        "reference": reference,
        "reference_interval": reference and interval(reference),
        "headline": advice.headline if advice else _bare_headline(cells, reference),
        "advice": advice,
        "span": _span_sentence(cells, names, fps),
        "omitted": plan.omitted,
        "figures": _figures(folder / "figures", cells, fps, who),
        "timeline": _timeline(folder / "figures", sweep, fps),
        "tasks": _task_table(cells, names, advice),
        "failures": _failures(folder),
        "unplain": sorted({cell.latency for cell in cells if not cell.plain}),
        "missing": missing(sweep),
        "asked": len(about["cells"]) * int(about.get("episodes") or 0),
        "ours": sum(cell.episodes for cell in cells if not cell.mode.label),
        "provenance": _provenance(about),
        "raw": json.dumps(about, indent=2, ensure_ascii=False),
    }


def _who(sweep: Sweep) -> str:
    """The policy, or the names of several."""
    names = [name for name in sweep.policies if name]
    return ", ".join(names) or sweep.about["policy"].get("name", "policy")


def _pairs(cells: Sequence[CellMeasures]) -> list[dict[str, Any]]:
    """What the table of differences between policies has: a line a setting and pair, references and low delays
    first."""
    names = mode_names([cell.mode.of_any_policy for cell in cells if not cell.mode.label and not cell.reference])
    found = sorted(
        differences(cells), key=lambda pair: (not pair.first.reference, pair.first.delay, pair.first.latency)
    )
    return [
        {
            "pair": pair,
            "setting": figures.SYNCHRONOUS if pair.first.reference else names[pair.first.mode.of_any_policy],
            "latency": "" if pair.first.reference else pair.first.latency,
        }
        for pair in found
    ]


def _pair_record(pair: PolicyDifference) -> dict[str, Any]:
    """A line of policies.csv."""
    first, second, gap = pair
    setting = {"reference": first.reference, "latency": first.latency, **first.mode.of_any_policy._asdict()}
    del setting["label"], setting["policy"]
    rates = {"first_rate": first.rate, "second_rate": second.rate}
    return {"first": first.mode.policy, "second": second.mode.policy, **setting, **rates, **gap._asdict()}


def _rows(cells: Sequence[CellMeasures], names: Mapping[Any, str], plan: figures.Scheme) -> list[dict[str, Any]]:
    """Cells by delay, the most successful first; the reference before them all."""
    ordered = sorted(cells, key=lambda cell: (not cell.reference, cell.delay, cell.latency, -cell.rate))
    rows, group = [], ""
    for cell in ordered:
        look = None if cell.reference else plan.looks.get(cell.mode)
        head = "" if cell.reference else cell.latency
        rows.append(
            {
                "cell": cell,
                "name": figures.reference_name(cell, cells) if cell.reference else names[cell.mode],
                "colour": THEME.get(look.colour if look else plan.colours.get(cell.mode.policy, ""), "quiet"),
                "first": head != group,
            }
        )
        group = head
    return rows


def _span_sentence(cells: Sequence[CellMeasures], names: Mapping[Any, str], fps: float) -> str:
    """How good and how bad it gets at the largest latency."""
    ours = [cell for cell in cells if not cell.reference and not cell.mode.label]
    most = max((cell.episodes for cell in ours), default=0)
    whole = [cell for cell in ours if cell.episodes >= ENOUGH * most]
    last = [cell for cell in whole if cell.delay == max(other.delay for other in whole)]
    if len(last) < 2:
        return ""
    best, worst = max(last, key=lambda cell: cell.rate), min(last, key=lambda cell: cell.rate)
    where = f"{best.delay:g}{NBSP}ticks ({1000 * best.delay / fps:.0f}{NBSP}ms)"
    if best.rate == worst.rate:
        return f"At {where} every setting is at {percent(best.rate)}."
    return (
        f"At {where}, the end of this grid, settings range from {percent(worst.rate)} ({names[worst.mode]}) "
        f"to {percent(best.rate)} ({names[best.mode]})."
    )


def _bare_headline(cells: Sequence[CellMeasures], reference: CellMeasures | None) -> str:
    if reference is None:
        return "Neither the synchronous reference nor any of our settings has a finished episode yet."
    return f"So far only the synchronous reference has been played: success {interval(reference)}."


def _figures(folder: Path, cells: Sequence[CellMeasures], fps: float, who: str) -> dict[str, str]:
    """Inline SVGs by name; PNGs go into the folder. A figure that has nothing to show is omitted."""
    drawn = {
        "success": (figures.success, "Success by latency"),
        "worth": (figures.faster, "What a faster policy is worth"),
        "difference": (figures.difference, "Success compared with synchronous evaluation, episode by episode"),
        "starving": (figures.starving, "Ticks without an action, and actions that came too late"),
        "seams": (figures.seams, "How much the action jumps"),
        "time": (figures.time_split, "Where the wall time goes"),
    }
    return {
        name: text
        for name, (draw, title) in drawn.items()
        if (text := write_figure(folder, draw(cells, fps), name, title, f"{title} · {who}"))
    }


def _timeline(folder: Path, sweep: Sweep, fps: float) -> dict[str, Any] | None:
    chosen = instructive(sweep.cells)
    if chosen is None:
        return None
    one, row = chosen
    policy = sweep.policies.get(one.cell.policy, {})
    horizon = int(policy.get("horizon") or max(length for _, _, length, _ in row["timeline"]["chunks"]))
    steps = one.cell.execution_horizon or policy.get("n_action_steps") or horizon
    figure = timeline(row, max(one.cell.chunk_size_threshold * horizon, horizon - steps))
    what = f"Tick by tick: episode {row['episode']} of {one.cell.name}"
    return {
        "svg": write_figure(folder, figure, "timeline", what, what),
        "cell": one.cell,
        "row": row,
        "share": row["starved_ticks"] / row["ticks"],
    }


def _task_table(
    cells: Sequence[CellMeasures], names: Mapping[Any, str], advice: Recommendation | None
) -> dict[str, Any] | None:
    """Tasks down, latencies of the recommended setting across, the reference first."""
    mode = advice.choice.mode if advice else None
    across = [cell for cell in cells if cell.reference and (mode is None or cell.mode.policy == mode.policy)]
    across += sorted((cell for cell in cells if cell.mode == mode and not cell.reference), key=lambda cell: cell.delay)
    groups = {task.group: task.task for cell in across for task in cell.tasks}
    if len(groups) < 2:
        return None
    results = [{task.group: task for task in cell.tasks} for cell in across]
    return {
        "setting": names.get(mode, "") if mode else "",
        "heads": [figures.reference_name(cell, across) if cell.reference else cell.latency for cell in across],
        "rows": [
            {"group": group, "task": task, "results": [found.get(group) for found in results]}
            for group, task in groups.items()
        ],
    }


def _failures(folder: Path) -> list[dict[str, Any]]:
    """The last pictures of failed episodes, with their captions, in the order of index.json."""
    index = folder / "failures" / "index.json"
    if not index.exists():
        return []
    try:
        entries = read_json(index, list)
        found = []
        for entry in entries:
            file = folder / "failures" / Path(entry["file"]).name
            if file.exists():
                data = base64.b64encode(file.read_bytes()).decode()
                found.append({**entry, "uri": f"data:image/jpeg;base64,{data}"})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResultsError(f"{index} cannot be read: {error!r}") from error
    return found


def _provenance(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that is one word or one line, by name; the whole of sweep.json is on the page besides."""
    lines = []
    for name, policy in about.get("policies", {}).items():
        lines.append((f"policy {name}", f"{policy.get('name')}, chunks of {policy.get('horizon')}"))
    for part in ("", "policy", "robot"):
        facts = about.get(part, {}) if part else about
        for key, value in {**facts, **(facts.get("details") or {})}.items():
            if isinstance(value, str | int | float) and value != "":
                lines.append((f"{part} {key}".strip().replace("_", " "), str(value)))
    versions = about.get("versions", {})
    if versions:
        lines.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return lines


def _write_tables(folder: Path, sweep: Sweep, cells: Sequence[CellMeasures]) -> None:
    write_csv(folder / "cells.csv", (as_record(cell) for cell in cells))
    if pairs := differences(cells):
        write_csv(folder / "policies.csv", (_pair_record(pair) for pair in pairs))
    write_csv(folder / "tasks.csv", ({"cell": cell.name, **task._asdict()} for cell in cells for task in cell.tasks))
    nested = ("timeline", "jumps", "latency_ticks")
    write_csv(
        folder / "episodes.csv",
        (
            {
                "cell": cell.name,
                **cell.mode._asdict(),
                "latency": cell.latency,
                **{key: value for key, value in row.items() if key not in nested},
                "wall_s": timing["wall_s"],
            }
            for cell, found in zip(cells, sweep.cells, strict=True)
            for row, timing in zip(found.rows, found.timings, strict=True)
        ),
    )
