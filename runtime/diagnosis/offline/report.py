"""Writes an open-loop evaluation down: report.html, a page that needs no other file; figures, tables, summary.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tactus.runtime.diagnosis.offline import figures
from tactus.runtime.diagnosis.offline.evaluation import MEAN, POLICY, Evaluation, frame_count, latency
from tactus.runtime.diagnosis.offline.verdict import percentage
from tactus.runtime.evaluation.results import make_folder, versions, write_whole
from tactus.runtime.report.page import write_csv, write_figure, write_page

REPORT = "report.html"
TEMPLATE = "offline.html.j2"
DRAWN = {
    "horizon": (figures.horizon, "Error over the horizon"),
    "dimensions": (figures.dimensions, "Error of each dimension"),
    "heat": (figures.heat, "Error by dimension and step"),
    "scatter": (figures.scatter, "Predicted against true"),
    "episodes": (figures.episodes, "Error of each episode"),
    "latency": (figures.latency, "Latency of the policy"),
}


def write_report(folder: Path, found: Evaluation) -> Path:
    """Into a folder, made if need be; returns report.html's path. Raises ResultsError if it cannot be written."""
    make_folder(folder / "figures")
    make_folder(folder / "tables")
    summary = summarise(found)
    _write_tables(folder / "tables", found)
    write_whole(folder / "summary.json", json.dumps(_without_nan(summary), indent=2, ensure_ascii=False))
    page = _page(folder / "figures", found, summary)
    write_page(folder / REPORT, __package__ or "", TEMPLATE, page, {"figure": significant, "percentage": percentage})
    return folder / REPORT


def summarise(found: Evaluation) -> dict[str, Any]:
    """Everything that came out, but for single frames; nan where something has no meaning."""
    made, asked = found.demonstrations, found.predictions
    return {
        "policy": found.policy.name,
        "policy_details": dict(found.policy.details),
        "dataset": str(made.root),
        "dataset_robot": made.robot,
        "episodes": [one.number for one in made.episodes],
        "frames": made.total_frames,
        "asked": len(asked.frames),
        "stride": found.stride,
        "horizon": found.policy.horizon,
        "fps": made.fps,
        "seed": found.seed,
        "verdict": found.lines,
        "notes": found.notes,
        "margins": [one._asdict() for one in found.margins],
        "errors": {
            name: {
                "compared": errors.compared,
                "mse": errors.mse,
                "mae": errors.mae,
                "rmse_over_std": errors.normalised,
                "mae_over_range": errors.relative,
                "rmse_over_std_by_step": errors.normalised_over_horizon.tolist(),
            }
            for name, errors in found.errors.items()
        },
        "dimensions": [*_dimensions(found)],
        "tasks": [*_tasks(found)],
        "smoothness": found.smoothness._asdict(),
        "similarity": {
            key: float(np.mean([getattr(one, key) for one in found.similarities])) if found.similarities else math.nan
            for key in ("apart", "dtw", "frechet")
        },
        "latency": {
            "batched": latency(asked.calls),
            "alone": latency(found.alone.calls) if found.alone else None,
            "reading_s": asked.reading_s,
            "predicting_s": asked.predicting_s,
            "batch_changes_actions_by_sigma": found.company,
        },
        "versions": versions(),
    }


def _dimensions(found: Evaluation) -> Iterator[dict[str, Any]]:
    ours, mean = found.errors[POLICY], found.errors[MEAN]
    for i, name in enumerate(found.demonstrations.names):
        look = found.looks[i]
        yield {
            "dimension": name,
            "unit": found.demonstrations.units[i],
            "mse": float(ours.mse_by_dimension[i]),
            "mae": float(ours.mae_by_dimension[i]),
            "bias": float(ours.bias_by_dimension[i]),
            "largest": float(ours.largest[i]),
            "rmse_over_std": float(ours.normalised_by_dimension[i]),
            "mae_over_range": float(ours.relative_by_dimension[i]),
            "correlation": float(ours.correlation[i]),
            "true_std": float(ours.std[i]),
            "true_low": look.true_low,
            "true_high": look.true_high,
            "predicted_low": look.low,
            "predicted_high": look.high,
            **{
                f"rmse_over_std, {who}": float(e.normalised_by_dimension[i])
                for who, e in found.errors.items()
                if e is not ours
            },
            "mse of the mean action": float(mean.mse_by_dimension[i]),
        }


def _tasks(found: Evaluation) -> Iterator[dict[str, Any]]:
    for number in np.flatnonzero(found.errors[POLICY].task_count):
        row: dict[str, Any] = {"task": found.demonstrations.task(int(number)), "number": int(number)}
        for name, errors in found.errors.items():
            count = errors.task_count[number]
            if name == POLICY:
                row["compared"] = int(count)
                row["mse"] = float(errors.task_squared[number].mean() / count)
                row["mae"] = float(errors.task_absolute[number].mean() / count)
            squared = errors.task_squared[number][errors.moving] / errors.std[errors.moving] ** 2
            row[f"rmse_over_std, {name}"] = float(np.sqrt(squared.mean() / count)) if len(squared) else math.nan
        ours = found.errors[POLICY]
        by_dimension = ours.task_absolute[number] / ours.task_count[number]
        row |= {f"mae, {name}": float(mae) for name, mae in zip(found.demonstrations.names, by_dimension, strict=True)}
        yield row


def _write_tables(folder: Path, found: Evaluation) -> None:
    names, alike = found.demonstrations.names, {one.episode: one for one in found.similarities}
    ours = found.errors[POLICY]
    write_csv(folder / "dimensions.csv", _dimensions(found))
    write_csv(folder / "tasks.csv", _tasks(found))
    write_csv(
        folder / "horizon.csv",
        (
            {
                "step": step,
                "compared": int(ours.count[step]),
                **{
                    f"rmse_over_std, {name}": float(e.normalised_over_horizon[step]) for name, e in found.errors.items()
                },
                **{f"mse, {name}": _ratio(ours.squared[step, i], ours.count[step]) for i, name in enumerate(names)},
                **{f"mae, {name}": _ratio(ours.absolute[step, i], ours.count[step]) for i, name in enumerate(names)},
            }
            for step in range(found.policy.horizon)
        ),
    )
    by_episode = {name: figures.episode_errors(found, name) for name in found.errors}
    write_csv(
        folder / "episodes.csv",
        (
            {
                "episode": one.number,
                "frames": len(one.actions),
                "mse": _ratio(ours.episode_squared[place].mean(), ours.episode_count[place]),
                "mae": _ratio(ours.episode_absolute[place].mean(), ours.episode_count[place]),
                **{f"rmse_over_std, {name}": float(values[place]) for name, values in by_episode.items()},
                **({} if one.number not in alike else dict(alike[one.number]._asdict())),
            }
            for place, one in enumerate(found.demonstrations.episodes)
        ),
    )
    calls = [("batched", call) for call in found.predictions.calls]
    calls += [("alone", call) for call in found.alone.calls] if found.alone else []
    write_csv(folder / "latency.csv", ({"asked": how, "frames": call.frames, "ms": call.ms} for how, call in calls))


def _page(folder: Path, found: Evaluation, summary: dict[str, Any]) -> dict[str, Any]:
    """What the template is told."""
    about = f"{found.policy.name} on {found.demonstrations.root.name}"
    drawn = {
        name: text
        for name, (draw, title) in DRAWN.items()
        if (text := write_figure(folder, draw(found), name, title, f"{title} · {about}"))
    }
    times = []
    order = np.argsort(np.nan_to_num(figures.episode_errors(found, POLICY), nan=np.inf))
    chosen = {"median": order[len(order) // 2], "worst": order[-1]} if len(order) > 1 else {"only": order[0]}
    for which, place in chosen.items():
        number = found.demonstrations.episodes[place].number
        title = f"Episode {number}, the {which} one by its error"
        times.append((title, write_figure(folder, figures.over_time(found, int(place)), f"time_{which}", title, title)))
    batched, alone = summary["latency"]["batched"], summary["latency"]["alone"]
    return {
        **summary,
        "root": found.demonstrations.root,
        "what": frame_count(found.demonstrations, found.predictions.frames),
        "units": sorted({unit for unit in found.demonstrations.units if unit}),
        "ours": summary["errors"][POLICY],
        "figures": drawn,
        "times": times,
        "panels": min(figures.PANELS, len(found.demonstrations.names)),
        "gain": batched["frames_per_s"] / alone["frames_per_s"] if alone else None,
        "rows": [(name, values, next((m for m in found.margins if m.baseline == name), None))
                 for name, values in summary["errors"].items()],
        "provenance": _provenance(summary),
        "raw": json.dumps(_without_nan(summary), indent=2, ensure_ascii=False),
    }  # fmt: skip


def _provenance(summary: dict[str, Any]) -> list[tuple[str, str]]:
    keys = ("policy", "dataset", "dataset_robot", "stride", "horizon", "fps", "seed")
    lines = [(key.replace("_", " "), str(summary[key])) for key in keys if summary[key] != ""]
    lines += [(key, str(value)) for key, value in summary["policy_details"].items()]
    return [*lines, ("versions", ", ".join(f"{name} {version}" for name, version in summary["versions"].items()))]


def significant(value: float | None, digits: int = 3) -> str:
    """Of so many significant digits, whole numbers whole; a dash for none."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:,.0f}" if 10**digits <= abs(value) < 10**7 else f"{value:.{digits}g}"
    return text.replace("-", "−")


def _ratio(total: float, count: float) -> float:
    return float(total) / float(count) if count else math.nan


def _without_nan(value: Any) -> Any:
    """JSON has no nan: null stands for it."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
