"""Run the episodes of an evaluation, in an order that spares the simulator, and write each down as it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hal.robot import Robot
from runtime.dataset import Recorder
from runtime.episode import EpisodeStats, episode_row, episode_timing
from runtime.link import Restarted
from runtime.results import Results
from runtime.robot_node import Watcher
from runtime.video import Video

ATTEMPTS = 3
"""How often an episode may lose its policy node."""


class Node(Protocol):
    """A loop that plays episodes."""

    def run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher] = ()) -> EpisodeStats: ...
    def stop(self, reason: str) -> None: ...


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
    node: Node,
    results: Results,
    episodes: int,
    seed: int,
    video: Video | None = None,
    recorder: Recorder | None = None,
    progress: Progress = lambda row, stats: None,
) -> None:
    """Run every episode that `results` does not hold yet.

    video: filmed during the first one that runs. recorder: keeps them all.
    """
    for episode in order(robot, episodes):
        if episode in results.finished:
            continue
        scene = robot.scene(episode)
        if recorder is not None:
            recorder.begin(scene.task)
        try:
            stats = _play(node, episode, seed, [w for w in (video, recorder) if w is not None])
        finally:
            if video is not None:
                video.close()
                video = None
        if recorder is not None:
            recorder.save(episode, seed, scene, stats)
        row = episode_row(episode, seed, scene, stats)
        results.add(row, episode_timing(episode, stats))
        progress(row, stats)


def _play(node: Node, episode: int, seed: int, watchers: list[Watcher]) -> EpisodeStats:
    """From the beginning once more if the policy node was lost meanwhile, unless somebody has been watching."""
    for _ in range(0 if watchers else ATTEMPTS - 1):
        with contextlib.suppress(Restarted):
            return node.run_episode(episode, seed, watchers)
    return node.run_episode(episode, seed, watchers)
