"""The results folder of a run: one line per finished episode, their wall times beside them, and a summary.

OUTPUT_DIR/config.json      what was asked; --resume refuses to mix it with anything else
OUTPUT_DIR/episodes.jsonl   what happened, nothing else: repeats byte for byte in virtual time
OUTPUT_DIR/timings.jsonl    wall times of the same episodes
OUTPUT_DIR/summary.json     both, summed up
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tactus.hal.json_file import parse_json, read_json, read_text
from tactus.runtime.robot_node.episode import COUNTS
from tactus.runtime.statistics import quantiles, wilson
from tactus.runtime.wire.latency import LatencyModel

PACKAGES = (
    *("tactus", "numpy", "scipy", "numba", "pyzmq", "opencv-python", "opencv-python-headless", "torch", "lerobot"),
    *("mujoco", "robosuite", "hf-libero", "libero", "bddl", "gymnasium", "dm-control", "gym-aloha", "metaworld"),
    *("gym-pusht", "pymunk", "pygame", "shapely"),
)
MIN_FREE_BYTES = 50_000_000
BEGINS = '{"episode": '
"""As every line of an episode does."""


class ResultsError(RuntimeError):
    """The output directory cannot take this run."""


class Results:
    """An output directory. `config` is what makes two runs the same experiment.

    Raises ResultsError if the directory holds results and `resume` is off, or results of another experiment.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], resume: bool) -> None:
        self.folder = folder
        make_folder(folder)
        episodes, asked = folder / "episodes.jsonl", folder / "config.json"
        try:
            if episodes.exists() and not resume:
                raise ResultsError(f"{folder} already holds results; give another --output_dir, or --resume to go on")
            config = {**config, **_contents(config)}
            if resume and (asked.exists() or episodes.exists()):
                check_same(folder, read_config(asked), config)
            rows, timings = self._read()
            write_whole(asked, json.dumps(config, indent=2, default=str))
            for file, lines in ((episodes, rows), (folder / "timings.jsonl", timings)):
                # a run that was killed may have left half a line
                write_whole(file, "".join(json.dumps(line) + "\n" for line in lines))
            self._successes = _successes(rows)
        except OSError as error:
            raise ResultsError(f"cannot use {folder} for results: {error.strerror}") from error
        except ValueError as error:
            raise ResultsError(f"cannot use {folder} for results: {asked.name}: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> Results:
        """What a folder holds, without touching it."""
        results = cls.__new__(cls)
        results.folder = folder
        results._successes = _successes(results.rows)
        return results

    def _read(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Both files' lines of the finished episodes, in the order in which they ended. They are not kept in memory:
        a robot may run for weeks. Raises ResultsError if an episode's are not both there: none is given up unsaid."""
        # the other way round than `add`, which may be writing meanwhile
        rows = {row["episode"]: row for row in _read_lines(self.folder / "episodes.jsonl", "success", "ticks", "group")}
        timings = {row["episode"]: row for row in _read_lines(self.folder / "timings.jsonl", "wall_s")}
        if lost := sorted({*rows} - {*timings}):
            raise ResultsError(
                f"{self.folder / 'timings.jsonl'} lacks episodes of episodes.jsonl, {str(lost)[1:-1]:.60}: it was cut "
                "or replaced; put it back, or delete their lines in episodes.jsonl to have them played once more"
            )
        return [*rows.values()], [timings[episode] for episode in rows]

    @property
    def finished(self) -> set[int]:
        return set(self._successes)

    @property
    def successes(self) -> int:
        return sum(self._successes.values())

    def add(self, row: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """Write a finished episode down: what `episode_row` and `episode_timing` of robot_node/episode.py made of it.

        Raises ResultsError if the disk takes no more; what was written before is whole.
        """
        # timings first: an episode counts as finished only when its line in episodes.jsonl is whole
        for name, line in (("timings", timing), ("episodes", row)):
            try:
                with (self.folder / f"{name}.jsonl").open("a") as file:
                    file.write(json.dumps(line) + "\n")
            except OSError as error:
                raise ResultsError(
                    f"cannot write to {self.folder}: {error.strerror}; "
                    f"{len(self._successes)} finished episodes are kept: make room, then --resume"
                ) from error
        self._successes[int(row["episode"])] = bool(row["success"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The lines of episodes.jsonl."""
        return self._read()[0]

    @property
    def timings(self) -> list[dict[str, Any]]:
        """The lines of timings.jsonl, in the same order."""
        return self._read()[1]

    def summary(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """Sum up every finished episode, write summary.json and return it. extra: what the run itself knows."""
        rows, timings = self._read()
        low, high = wilson(self.successes, len(rows))
        per_task = {
            group: _rate([row for row in rows if row["group"] == group])
            for group in sorted({row["group"] for row in rows})
        }
        summary = {
            "episodes": len(rows),
            "successes": self.successes,
            "success_rate": round(self.successes / len(rows), 4) if rows else None,
            "success_ci95": [round(low, 4), round(high, 4)],
            "per_task": per_task,
            **{key: sum(row[key] for row in rows) for key in COUNTS},
            **_interventions(rows, extra),
            "overruns": sum(timing["overruns"] for timing in timings),
            "rate_hz": _rate_hz(rows, timings),
            "latency_ticks": quantiles(_flat(rows, "latency_ticks")),
            "inference_ms": quantiles(_flat(timings, "inference_ms")),
            "round_trip_ms": quantiles(_flat(timings, "round_trip_ms")),
            "wall_s": round(sum(timing["wall_s"] for timing in timings), 1),
            **extra,
            "versions": versions(),
        }
        write_whole(self.folder / "summary.json", json.dumps(summary, indent=2, default=str))
        return summary


def _successes(rows: Iterable[Mapping[str, Any]]) -> dict[int, bool]:
    return {int(row["episode"]): bool(row["success"]) for row in rows}


def make_folder(folder: Path) -> None:
    """Raises ResultsError if it cannot be made, or there is no room in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < MIN_FREE_BYTES:
            raise ResultsError(f"{folder} has under {MIN_FREE_BYTES // 1_000_000} MB free")
    except OSError as error:
        raise ResultsError(f"cannot use {folder} for results: {error.strerror}") from error


def _contents(config: Mapping[str, Any]) -> dict[str, str]:
    """What a cell names by a path only, by content."""
    latency = str(config.get("latency", ""))
    if not latency.startswith("trace:"):
        return {}
    trace_ms = LatencyModel.parse(latency).trace_ms
    return {"latency_trace": f"sha256 {hashlib.sha256(repr(trace_ms).encode()).hexdigest()[:12]}"}


def read_config(file: Path) -> dict[str, Any]:
    """What was asked for when the folder of `file` was begun. Raises ResultsError if that cannot be told any more."""
    try:
        return read_json(file, dict)
    except ValueError as error:
        raise ResultsError(
            f"{file}: {error}; it says which experiment the folder holds, and without it nothing can be added: put it "
            "back, or give another --output_dir"
        ) from error


def read_summary(folder: Path) -> dict[str, Any]:
    """What a run's folder sums up to, as it was written when the run ended. Raises ResultsError."""
    try:
        summary = read_json(folder / "summary.json", dict)
        return {**summary, "per_task": summary["per_task"]}
    except (ValueError, KeyError) as error:
        raise ResultsError(
            f"{folder / 'summary.json'} cannot be read: {error}; a run writes it when it ends, --resume goes on with it"
        ) from error


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises ResultsError naming what differs between the experiment in `folder` and the one asked for, and what of it
    was not written down there, as an older Tactus may not have."""
    there, here = _leaves("", before), _leaves("", json.loads(json.dumps(now, default=str)))
    differ = [
        f"  {key}: {value} there, {here.get(key, 'nothing')} now"
        for key, value in sorted(there.items())
        if value != here.get(key)
    ]
    unknown = sorted(key for key, value in here.items() if key not in there and value is not None)
    if not differ and not unknown:
        return
    head = "holds another experiment; these differ" if differ else "does not say enough to be added to"
    lines = [*differ, *([f"  nothing is written there of: {', '.join(unknown)}"] if unknown else [])]
    raise ResultsError(f"{folder} {head}:\n" + "\n".join(lines) + "\ngive another --output_dir")


def _leaves(path: str, value: Any) -> dict[str, Any]:
    """Every value that is no mapping, by its dotted key."""
    if not isinstance(value, Mapping):
        return {path[1:]: value}
    return {key: leaf for name, part in value.items() for key, leaf in _leaves(f"{path}.{name}", part).items()}


def _rate_hz(rows: list[dict[str, Any]], timings: list[dict[str, Any]]) -> float | None:
    """Actions per second of wall time, within episodes; None in virtual time."""
    elapsed_s = sum(timing.get("control_s", 0.0) for timing in timings)
    return round(sum(max(0, row["ticks"] - 1) for row in rows) / elapsed_s, 3) if elapsed_s else None


def _interventions(rows: list[dict[str, Any]], extra: Mapping[str, Any]) -> dict[str, Any]:
    """How often a person took over, and for how long the policy drove without; nothing where nobody could."""
    spans = [span for row in rows for span in row.get("interventions", [])]
    if not any("interventions" in row for row in rows):
        return {}
    by_person = sum(end - first for first, end in spans)
    minutes = (sum(row["ticks"] for row in rows) - by_person) / extra["robot"]["fps"] / 60
    return {
        "interventions": len(spans),
        "interventions_per_episode": round(len(spans) / len(rows), 3),
        "person_ticks": by_person,
        "policy_minutes_per_intervention": round(minutes / len(spans), 3) if spans else None,
    }


def _rate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    successes = sum(row["success"] for row in rows)
    low, high = wilson(successes, len(rows))
    return {
        "task": rows[0]["task"],
        "episodes": len(rows),
        "successes": successes,
        "success_rate": round(successes / len(rows), 4),
        "success_ci95": [round(low, 4), round(high, 4)],
    }


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what an episode does."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _flat(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [value for row in rows for value in row[key]]


def _read_lines(file: Path, *needed: str) -> list[dict[str, Any]]:
    """Raises ResultsError for a line that is no episode's, but for half a one at the end: of a run that was killed."""
    if not file.exists():
        return []
    try:
        rows, lines = [], read_text(file).split("\n")
    except ValueError as error:
        raise ResultsError(f"{file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            if line:
                row = parse_json(line)
                rows.append({**row, "episode": int(row["episode"]), **{key: row[key] for key in needed}})
        except (ValueError, TypeError, KeyError) as error:
            if number < len(lines) or not (BEGINS.startswith(line) or line.startswith(BEGINS)):
                why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
                raise ResultsError(f"{file}:{number} is not the line of an episode: {why:.80}") from error
    return rows


def write_whole(file: Path, text: str) -> None:
    """All or nothing: a reader, or a kill, never finds half a file. Raises ResultsError naming the file."""
    scratch = file.with_suffix(f".{os.getpid()}.tmp")
    with writing(file):
        try:
            scratch.write_text(text)
            scratch.replace(file)
        except OSError:
            scratch.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """What cannot be written, because the disk is full or for any other reason, is a ResultsError that names it."""
    try:
        yield
    except OSError as error:
        raise ResultsError(f"cannot write {file}: {error.strerror or error}") from error
