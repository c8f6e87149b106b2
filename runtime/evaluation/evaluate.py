"""Runs the episodes of an evaluation, in an order that spares the simulator, and writes each down as it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from tactus.hal.robot import Robot
from tactus.runtime.evaluation.ab_comparison import Comparison
from tactus.runtime.evaluation.results import Results
from tactus.runtime.evaluation.video import Video
from tactus.runtime.recording.dataset import DatasetRecorder
from tactus.runtime.robot_node.control_loop import ControlLoop
from tactus.runtime.robot_node.episode import EpisodeStats, episode_row, episode_timing
from tactus.runtime.robot_node.watcher import Watcher
from tactus.runtime.wire.link import Restarted

ATTEMPTS = 3
"""How often an episode may lose its policy node."""


Progress = Callable[[dict[str, Any], EpisodeStats], None]


def order(robot: Robot, episodes: int) -> list[int]:
    """Episodes grouped as the robot groups them, since changing the task costs a simulator seconds.

    Episode i is the same whatever the order and however many there are.
    """
    first = {}
    for episode in range(episodes):
        first.setdefault(robot.scene(episode).group, episode)
    return sorted(range(episodes), key=lambda episode: (first[robot.scene(episode).group], episode))


def evaluate(
    robot: Robot,
    node: ControlLoop,
    results: Results,
    episodes: int,
    seed: int,
    video: Video | None = None,
    recorder: DatasetRecorder | None = None,
    progress: Progress = lambda row, stats: None,
    watchers: Sequence[Watcher] = (),
    comparison: Comparison | None = None,
) -> None:
    """Run every episode that `results` does not hold yet.

    video: filmed during the first one that runs. recorder: keeps them all. watchers: watch them all, also those that
    have to be begun again. comparison: of two policies, whose turns the episodes are.
    """
    for episode in order(robot, episodes) if comparison is None else comparison.order:
        if comparison is not None and comparison.is_over:
            return
        if episode in results.finished:
            continue
        scene = robot.scene(episode)
        keeping = [watcher for watcher in (video, recorder) if watcher is not None]
        try:
            stats = _play(node, episode, seed, [*keeping, *watchers], attempts=1 if keeping else ATTEMPTS)
            if recorder is not None:
                recorder.save(episode, seed, scene, stats)
            row = episode_row(episode, seed, scene, stats)
            if comparison is not None:
                row |= comparison.label(episode)
                comparison.tally.add(row)
            results.add(row, episode_timing(episode, stats))
            progress(row, stats)
        finally:
            if video is not None:
                video.close()  # last: an episode is not lost for a film that cannot be written
                video = None


def _play(node: ControlLoop, episode: int, seed: int, watchers: list[Watcher], attempts: int) -> EpisodeStats:
    """From the beginning once more if the policy node was lost meanwhile."""
    for _ in range(attempts - 1):
        with contextlib.suppress(Restarted):
            return node.run_episode(episode, seed, watchers)
    return node.run_episode(episode, seed, watchers)
