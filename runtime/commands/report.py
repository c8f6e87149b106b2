"""`tactus report`: a sweep's page, figures and tables, written anew from what lies in its folder; a run's figures; or
what a comparison of two policies has found so far."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from tactus.runtime.commands.config import Report
from tactus.runtime.commands.episodes import show
from tactus.runtime.commands.report_writer import SWEEP_REPORT, load_writer
from tactus.runtime.evaluation.ab_comparison import Tally, names_in, told
from tactus.runtime.evaluation.results import Results, ResultsError, read_config, read_summary
from tactus.runtime.lab.measures import measure
from tactus.runtime.lab.recommend import recommend
from tactus.runtime.lab.sweep_folder import read_sweep
from tactus.runtime.wire.latency import LatencyModel

USAGE, MISSING = 2, 1


def main(config: Report, arguments: list[str]) -> int:
    """Exit status 0 if the report was written."""
    folder = Path(config.folder)
    try:
        if (found := _comparison(folder)) is not None:
            print(*told(found), sep="\n")
            return 0
        if (folder / "episodes.jsonl").exists():
            show(Console(highlight=False), read_summary(folder), folder)
            return 0
        measured_ms = _measured_ms(config.latency) if config.latency else None
        file = load_writer(SWEEP_REPORT)(folder, measured_ms, config.latency)
        print(file)
        sweep = read_sweep(folder)
        advice = recommend(sweep, measure(sweep), measured_ms, config.latency)
    except (ResultsError, ValueError) as error:
        print(f"tactus report: {error}", file=sys.stderr)
        return USAGE
    except ModuleNotFoundError as error:
        print(f"tactus report: {error}", file=sys.stderr)
        return MISSING
    if advice is not None:
        print("", advice.headline, *advice.sentences, "", f"  {advice.flags}", sep="\n")
    return 0


def _comparison(folder: Path) -> dict[str, Any] | None:
    """Of the episodes that lie in the folder, which need not be all; None if it holds no comparison."""
    rows = Results.read(folder).rows if (folder / "episodes.jsonl").exists() else []
    if not rows or "pair" not in rows[0]:
        return None
    try:
        return Tally(float(read_config(folder / "config.json")["alpha"]), rows).summary(names_in(rows))
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(
            f"{folder} holds a comparison that cannot be read: {type(error).__name__}: {error}"
        ) from error


def _measured_ms(text: str) -> list[float]:
    model = LatencyModel.parse(text)
    if model.kind == "trace":
        return list(model.trace_ms)
    if model.kind == "fixed" and model.milliseconds and not model.drop:
        return [model.value]
    raise ValueError(f"--latency: found {text}; accepted: trace:FILE, one round trip in ms per line, or fixed:120ms")
