"""A robot that keeps what it has loaded of each task, as simulators do."""

from __future__ import annotations

import os

from tactus.hal.robot import Scene
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.hal.synthetic.robot import SyntheticRobot

MB = 10**6


class GrowingConfig(SyntheticConfig):
    """Every task is another 4 MB."""

    tasks: int = 1
    steps: int = 5
    entry_point = "growing_robot:GrowingRobot"


class GrowingRobot(SyntheticRobot):
    def __init__(self, config: GrowingConfig) -> None:
        super().__init__(config)
        self._tasks = config.tasks
        self._kept: dict[int, bytes] = {}

    def scene(self, episode: int) -> Scene:
        return Scene(group=str(episode % self._tasks))

    def reset(self, episode: int, seed: int) -> None:
        super().reset(episode, seed)
        if (task := episode % self._tasks) not in self._kept:
            self._kept[task] = os.urandom(4 * MB)
