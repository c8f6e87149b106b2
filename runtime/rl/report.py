"""Writes a practice down: report.html, a page that needs no other file; curves as PNG and a table beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tactus.runtime.evaluation.results import make_folder
from tactus.runtime.report.page import write_csv, write_figure, write_page
from tactus.runtime.rl import figures
from tactus.runtime.rl.practice_folder import METRICS, TIMINGS, read_lines

REPORT, TEMPLATE = "report.html", "rl.html.j2"
COLUMNS = (
    ("steps", "steps", "%d"),
    ("kl", "KL", "%.3g"),
    ("clipped", "clipped", "%.2f"),
    ("refused", "refused", "%d"),
    ("rate", "learning rate", "%.2g"),
    ("loss", "loss", "%.3g"),
)
"""Of the page's table: key, title, format; those that a method has."""
DRAWN = {
    "success": (figures.success, "Success by iteration"),
    "update": (figures.update, "What the learner did"),
    "time": (figures.time, "Where the time goes"),
}


def write_report(folder: Path) -> Path:
    """Of a practice's folder, finished or not; returns report.html's path. Raises ResultsError if it cannot be."""
    lines, timings = read_lines(folder / METRICS), read_lines(folder / TIMINGS)
    about = json.loads((folder / "practice.json").read_text())
    settings = about["settings"]
    robot = about["robot"]["name"]
    policy = next(iter(about["policies"].values()))["name"]
    make_folder(folder / "figures")
    title = f"{policy} practises on {robot}: {settings['method']}"
    drawn = {
        name: write_figure(folder / "figures", draw(lines, timings), name, said, f"{said}\n{title}")
        for name, (draw, said) in DRAWN.items()
    }
    write_csv(folder / "metrics.csv", [_flat(line) for line in lines])
    page = {
        "title": title,
        "evaluations": evaluations(lines),
        "figures": {name: text for name, text in drawn.items() if text},
        "lines": [line for line in lines if line.get("rollouts")],
        "columns": [column for column in COLUMNS if any(column[0] in line for line in lines)],
        "settings": settings,
        "versions": about["versions"],
        "rollouts": sum(line.get("rollouts", 0) for line in lines),
        "ticks": sum(line.get("ticks", 0) for line in lines),
        "seconds": sum(sum(row["seconds"].get(part, 0.0) for part in figures.PARTS) for row in timings),
        "control": settings["shuffle_rewards"],
    }
    write_page(
        folder / REPORT, __package__ or "", TEMPLATE, page, {"percent": lambda share: f"{100 * share:.0f}\u00a0%"}
    )
    return folder / REPORT


def evaluations(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The base, the end and the best: successes, episodes, low, high, version, rate. Empty without an evaluation."""
    found = [{**line["evaluation"], "version": line["iteration"]} for line in lines if line.get("evaluation")]
    if not found:
        return {}
    for one in found:
        one["rate"] = one["successes"] / one["episodes"]
    return {"base": found[0], "end": found[-1], "best": max(found, key=lambda one: one["successes"])}


def _flat(line: Mapping[str, Any]) -> dict[str, Any]:
    held_out = {f"held_out_{key}": value for key, value in (line.get("evaluation") or {}).items()}
    return {key: value for key, value in line.items() if key != "evaluation"} | held_out
