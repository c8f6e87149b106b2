"""Writes a verification down: report.html, a page that needs no other file; figures and tables beside it."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tactus.policies.distillation.trainer import GRID
from tactus.runtime.distillation import figures
from tactus.runtime.distillation.figures import significant
from tactus.runtime.distillation.verification import Trials, Verification
from tactus.runtime.evaluation.results import make_folder, versions
from tactus.runtime.report.page import write_csv, write_figure, write_page

REPORT = "report.html"
TEMPLATE = "verify.html.j2"
LONG = 160
"""Letters of a reason that a headline can take."""
WIDE = 80
"""Letters that a line of a figure's title can take."""
DRAWN = {
    "success": (figures.success, "Success of student and teacher"),
    "steps": (figures.steps, "Error by number of steps"),
    "where": (figures.where, "Error by dimension and by step of the chunk"),
    "times": (figures.times, "Loss in training and in deployment"),
    "noise": (figures.noise, "Noise in training and in deployment"),
    "loss": (figures.loss, "Loss of the training"),
    "time": (figures.time, "Where the time goes"),
}


def write_report(folder: Path, done: Verification) -> Path:
    """Into a folder, made if need be; returns report.html's path. Raises ResultsError if it cannot be written."""
    make_folder(folder / "figures")
    make_folder(folder / "tables")
    for name, rows in _tables(done).items():
        if rows:
            write_csv(folder / "tables" / f"{name}.csv", rows)
        else:
            (folder / "tables" / f"{name}.csv").unlink(missing_ok=True)
    about = textwrap.fill(f"{done.student} beside {done.teacher}", WIDE)
    drawn = {
        name: write_figure(folder / "figures", draw(done), name, title, f"{title}\n{about}")
        for name, (draw, title) in DRAWN.items()
    }
    page = _page(done) | {"figures": {name: text for name, text in drawn.items() if text}}
    write_page(folder / REPORT, __package__ or "", TEMPLATE, page, {"figure": significant, "percent": percent})
    return folder / REPORT


def percent(share: float | None) -> str:
    """With a non-breaking space; a dash for none."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f}\u00a0%"


def headline(done: Verification) -> str:
    """The verdict in a sentence."""
    if done.passed:
        return "The student may take its teacher’s place"
    failed = [check for check in done.checks if check.passed is False]
    reason = done.reason if len(done.reason) <= LONG else f"{len(failed)} of {len(done.checks)} checks failed"
    return f"The student may not take its teacher’s place: {reason}"


def _page(done: Verification) -> dict[str, Any]:
    """What the template is told."""
    found, facts = done.measures, done.distillation.get("facts") or {}
    losses = done.distillation.get("losses") or []
    own = figures.own(done)
    return {
        "done": done,
        "found": found,
        "headline": headline(done),
        "failed": [check for check in done.checks if check.passed is False],
        "unknown": sum(check.passed is None for check in done.checks),
        "one_step": next((error.median for error in found.errors if error.steps == 1), None),
        "own": own,
        "faster": _ratio(found.teacher_latency.chunk_ms, found.latency.chunk_ms),
        "trials": _trials(done.trials) if done.trials else None,
        "ratios": [*_ratios(done)],
        "facts_known": bool(facts),
        "second_stage": figures.second_stage(done),
        "broken": next((step for step, loss in enumerate(losses, 1) if not _finite(loss)), None),
        "losses": len(losses),
        "provenance": [*_provenance(done)],
        "raw": json.dumps(done.to_dict(), indent=1),
    }


def _trials(trials: Trials) -> dict[str, Any]:
    pairs = [*zip(trials.teacher, trials.student, strict=True)]
    return {
        "robot": trials.robot,
        "episodes": _range(trials.episodes),
        "count": len(pairs),
        "rates": {"teacher": trials.rate(trials.teacher), "student": trials.rate(trials.student)},
        "difference": f"{100 * trials.difference:+.1f}".replace("-", "−"),
        "interval": f"{100 * trials.low:+.1f} … {100 * trials.high:+.1f}".replace("-", "−"),
        "both": pairs.count((True, True)),
        "only_teacher": pairs.count((True, False)),
        "only_student": pairs.count((False, True)),
        "neither": pairs.count((False, False)),
    }


def _ratios(done: Verification) -> Iterator[dict[str, Any]]:
    """What is one number of each, and the student's over the teacher's."""
    found, facts = done.measures, done.distillation.get("facts") or {}

    def row(name: str, about: str, student: float | None, teacher: float | None) -> dict[str, Any]:
        ratio = _ratio(student, teacher)
        return {"measure": name, "about": about, "student": student, "teacher": teacher, "ratio": ratio}

    yield row(
        "straightness",
        "mean squared distance of a velocity from its way's direction; 0 is straight, and one step is exact",
        found.straightness,
        found.teacher_straightness,
    )
    yield row("spread", "standard deviation of a number over noises", found.spread, found.teacher_spread)
    if found.padding is not None:
        yield row("padding, made", "mean |chunk| beyond the robot's dimensions", found.student_padding, found.padding)
        yield row("padding, trained on", "the same, of the chunks in training", facts.get("padding"), found.padding)
    yield row("cache", "deployed velocity against the trained one, over its size", found.cached, None)
    yield row("late", "error of the last quarter of a chunk over that of the rest", found.late, None)
    yield row("direction at t = 1", "cosine of the velocity with the way to the chunk's noise", found.forwards, None)
    yield row("direction at t = 0, turned round", "the same, were time to run backwards", found.backwards, None)


def _provenance(done: Verification) -> Iterator[tuple[str, str]]:
    found, kept = done.measures, done.distillation
    yield "teacher", f"{done.teacher}, {found.teacher_steps} steps"
    yield "student", f"{done.student}, {found.num_steps} step{'' if found.num_steps == 1 else 's'}"
    yield "held out", f"{found.observations} observations of {done.source}"
    if not kept:
        yield "training", "not known: the student has no distillation.json"
    for key, name in (("teacher", "trained from"), ("source", "trained on")):
        if kept.get(key):
            yield name, str(kept[key])
    if kept.get("settings"):
        yield "settings", _listed(kept["settings"])
    here, then = versions(), kept.get("versions")
    if then and then != here:
        yield "versions in training", _listed(then)
    yield "versions", _listed(here)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {'none' if value is None else value}" for key, value in values.items())


def _tables(done: Verification) -> dict[str, list[dict[str, Any]]]:
    """Rows by name of the table; none where nothing is known."""
    found, kept, trials = done.measures, done.distillation, done.trials
    facts = kept.get("facts") or {}
    latencies = (("teacher", found.teacher_latency, found.teacher_steps), ("student", found.latency, found.num_steps))
    by = {name: [*_by(done, name)] for name in ("by_dimension", "by_step")}
    return {
        "checks": [vars(check) for check in done.checks],
        "measures": [*_ratios(done)],
        "errors": [
            *({"policy": "student", "steps": e.steps, "median": e.median, "p90": e.p90, "absolute": e.absolute}
              for e in found.errors),
            {"policy": "teacher, not distilled", "steps": found.num_steps, "median": found.undistilled},
        ],
        "dimensions": [{"dimension": index, **row} for index, row in enumerate(by["by_dimension"])],
        "horizon": [{"step": index, **row} for index, row in enumerate(by["by_step"])],
        "times": _columns({"t": GRID, "training": facts.get("loss"), "deployment": found.losses}),
        "noise": _columns(
            {
                "dimension": range(len(found.noise_mean)),
                "training_mean": facts.get("noise_mean"),
                "training_std": facts.get("noise_std"),
                "deployment_mean": found.noise_mean,
                "deployment_std": found.noise_std,
            }
        ),
        "loss": [{"step": step, "loss": loss} for step, loss in enumerate(kept.get("losses") or [], 1)],
        "success": _columns({"episode": trials.episodes, "teacher": trials.teacher, "student": trials.student})
        if trials
        else [],
        "time": [{"policy": name, "steps": count, **vars(latency)} for name, latency, count in latencies],
    }  # fmt: skip


def _by(done: Verification, name: str) -> Iterator[dict[str, float]]:
    errors = {f"rms_error, {error.steps} steps": getattr(error, name) for error in done.measures.errors}
    for values in zip(*errors.values(), strict=True):
        yield dict(zip(errors, values, strict=True))


def _columns(columns: dict[str, Sequence[Any] | None]) -> list[dict[str, Any]]:
    """Rows of the columns that are known."""
    known = {name: values for name, values in columns.items() if values is not None}
    return [dict(zip(known, row, strict=True)) for row in zip_longest(*known.values())]


def _range(episodes: Sequence[int]) -> str:
    """As few words as tell which."""
    if len(episodes) > 1 and [*episodes] == [*range(episodes[0], episodes[-1] + 1)]:
        return f"episodes {episodes[0]} … {episodes[-1]}"
    return f"episode{'s' if len(episodes) > 1 else ''} {', '.join(map(str, episodes))}"


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
