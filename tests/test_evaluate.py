"""Evaluation: an episode that loses its policy node is played from the beginning again, a few times."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from doubles import synthetic

from tactus.runtime.evaluation.evaluate import ATTEMPTS, evaluate
from tactus.runtime.evaluation.results import Results
from tactus.runtime.evaluation.video import Video
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.link import Restarted


class Interrupted:
    """Stands in for a RobotNode; loses its policy node in the first `losses` attempts."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.attempts = 0

    def run_episode(self, *arguments: Any) -> EpisodeStats:
        self.attempts += 1
        if self.attempts <= self.losses:
            raise Restarted("gone")
        return EpisodeStats(ticks=self.attempts)


def run(node: Interrupted, folder: Path, video: Video | None = None) -> Results:
    results = Results(folder, {}, resume=False)
    evaluate(synthetic().make(), cast(RobotNode, node), results, 1, 7, video)
    return results


@pytest.mark.parametrize("losses", range(ATTEMPTS))
def test_a_lost_episode_is_played_again(losses: int, tmp_path: Path) -> None:
    assert [row["ticks"] for row in run(Interrupted(losses), tmp_path).rows] == [losses + 1]


def test_an_episode_that_is_lost_each_time_is_an_error(tmp_path: Path) -> None:
    node = Interrupted(ATTEMPTS)
    with pytest.raises(Restarted):
        run(node, tmp_path)
    assert node.attempts == ATTEMPTS


def test_an_episode_that_was_watched_is_not_played_again(tmp_path: Path) -> None:
    """Its film would show both attempts."""
    robot, node = synthetic(cameras=1).make(), Interrupted(1)
    with pytest.raises(Restarted):
        run(node, tmp_path, Video(tmp_path / "video.mp4", robot.spec, 8))
    assert node.attempts == 1
