"""Result files: nothing finished is lost, nothing is mixed, and a rate never goes without its interval."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tactus.hal.robot import Outcome, Scene
from tactus.runtime.evaluation.results import Results, ResultsError
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


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot use"):
        Results(tmp_path / "file" / "out", {}, resume=False)
