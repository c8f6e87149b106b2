"""Result files: nothing finished is lost, nothing is mixed, and a rate never goes without its interval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tactus.hal.robot import Outcome, Scene
from tactus.runtime.evaluation.results import PACKAGES, Results, ResultsError, versions
from tactus.runtime.robot_node.episode import EpisodeStats, episode_row, episode_timing
from tactus.runtime.statistics import quantiles, wilson


def stats(success: bool) -> EpisodeStats:
    return EpisodeStats(
        ticks=10, requests=2, outcome=Outcome(success, True, 1.0), latency_ticks=[2, 3], round_trip_ms=[1.0, 2.0],
        actions=[np.zeros(2)], sources=[0], starts=[0, 2], lengths=[8, 8], stale=[2, 3],
    )  # fmt: skip


def write(results: Results, episode: int, scene: Scene, stats: EpisodeStats) -> None:
    results.add(episode_row(episode, 1, scene, stats), episode_timing(episode, stats))


def test_wilson_against_known_intervals() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(15, 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)


def test_quantiles_of_nothing_are_none() -> None:
    assert quantiles([]) == {"p50": None, "p95": None}
    assert quantiles([1.0, 2.0, 3.0])["p50"] == 2.0


def test_summary_adds_up(tmp_path: Path) -> None:
    results = Results(tmp_path, {"seed": 1}, resume=False)
    for episode, success in enumerate([True, False, True]):
        write(results, episode, Scene("pick", f"suite/{episode % 2}", {"task_id": episode % 2}), stats(success))
    summary = results.summary({"assets": "primitive"})
    assert (summary["episodes"], summary["successes"], summary["ticks"], summary["requests"]) == (3, 2, 30, 6)
    assert summary["success_ci95"] == [round(x, 4) for x in wilson(2, 3)]
    assert summary["per_task"]["suite/0"]["episodes"] == 2 and summary["per_task"]["suite/1"]["successes"] == 0
    assert summary["latency_ticks"] == {"p50": 2.5, "p95": 3.0}
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert len((tmp_path / "episodes.jsonl").read_text().splitlines()) == 3


def test_resume_keeps_whole_lines_and_drops_half_a_line(tmp_path: Path) -> None:
    results = Results(tmp_path, {"seed": 1}, resume=False)
    for episode in range(3):
        write(results, episode, Scene(), stats(True))
    lines = (tmp_path / "episodes.jsonl").read_text()
    (tmp_path / "episodes.jsonl").write_text(lines[:-20])  # killed while writing
    again = Results(tmp_path, {"seed": 1}, resume=True)
    assert again.finished == {0, 1}
    write(again, 2, Scene(), stats(True))
    assert (tmp_path / "episodes.jsonl").read_text() == lines
    assert again.summary({})["episodes"] == 3


def test_results_are_not_mixed(tmp_path: Path) -> None:
    write(Results(tmp_path, {"seed": 1, "latency": "fixed:0"}, resume=False), 0, Scene(), stats(True))
    with pytest.raises(ResultsError, match="already holds results"):
        write(Results(tmp_path, {"seed": 1, "latency": "fixed:0"}, resume=False), 0, Scene(), stats(True))
    with pytest.raises(ResultsError, match="latency: fixed:0 there, fixed:2 now"):
        Results(tmp_path, {"seed": 1, "latency": "fixed:2"}, resume=True)
    assert Results(tmp_path, {"seed": 1, "latency": "fixed:0"}, resume=True).finished == {0}


WHOLE = {"robot": {"kwargs": {}, "details": {"task_files": "sha256 1", "renderer": "egl"}}, "versions": {"mujoco": "3"}}


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (WHOLE | {"versions": {"mujoco": "2"}}, ":\n  versions.mujoco: 2 there, 3 now\ngive another --output_dir$"),
        (WHOLE | {"versions": {}}, "does not say enough .*:\n  nothing is written there of: versions.mujoco\ngive"),
        (WHOLE | {"versions": None}, "does not say enough .*:\n  nothing is written there of: versions.mujoco"),
        ({"versions": {"mujoco": "3"}}, "of: robot.details.renderer, robot.details.task_files\ngive"),
        (
            WHOLE | {"robot": {"kwargs": {"a": 1}, "details": WHOLE["robot"]["details"]}},
            "kwargs.a: 1 there, nothing now",
        ),
        ({}, "of: robot.details.renderer, robot.details.task_files, versions.mujoco\n"),
        ([], "config.json: found a list, .*, expected keys and values, .*; it says which experiment"),
        ("", "config.json: found one value, expected keys and values"),
        (b"{", "config.json: no JSON: .*; it says which experiment"),
        (b"\xff\x00", "config.json: it is no text"),
        (None, "config.json: No such file or directory; it says which experiment"),
    ],
)
def test_what_a_folder_does_not_say_is_told(tmp_path: Path, before: Any, words: str) -> None:
    """Of an older Tactus, of another machine, or damaged: a sentence, and the finished episodes stay as they are."""
    write(Results(tmp_path, WHOLE, resume=False), 0, Scene(), stats(True))
    lines = (tmp_path / "episodes.jsonl").read_bytes()
    assert Results(tmp_path, WHOLE, resume=True).finished == {0}
    if before is None:
        (tmp_path / "config.json").unlink()
    else:
        (tmp_path / "config.json").write_bytes(before if isinstance(before, bytes) else json.dumps(before).encode())
    with pytest.raises(ResultsError, match=words):
        Results(tmp_path, WHOLE, resume=True)
    assert (tmp_path / "episodes.jsonl").read_bytes() == lines


@pytest.mark.parametrize("package", PACKAGES)
def test_another_version_of_what_decides_an_episode_is_another_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    folder = tmp_path / "results"
    write(Results(folder, {"versions": versions()}, resume=False), 0, Scene(), stats(True))
    metadata = tmp_path / "site" / f"{package.replace('-', '_')}-99.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 99\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(ResultsError, match=f"versions.{package}"):
        Results(folder, {"versions": versions()}, resume=True)


def test_a_latency_trace_is_known_by_its_content(tmp_path: Path) -> None:
    trace, folder = tmp_path / "wifi.trace", tmp_path / "results"
    trace.write_text("40\n50\n")
    config = {"latency": f"trace:{trace},drop=0.1"}
    write(Results(folder, config, resume=False), 0, Scene(), stats(True))
    assert Results(folder, config, resume=True).finished == {0}
    trace.write_text("40\n60\n")
    with pytest.raises(ResultsError, match=r"latency_trace: sha256 \w+ there, sha256 \w+ now"):
        Results(folder, config, resume=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot use"):
        Results(tmp_path / "file" / "out", {}, resume=False)
