"""The base of wrappers: a robot that passes everything on to another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tactus.hal.robot import Command, Outcome, Robot, Scene
from tactus.hal.spec import Observation, RobotSpec


class RobotWrapper(Robot):
    """Passes everything on to `robot`. A subclass that changes actions overrides `change`."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot

    @property
    def spec(self) -> RobotSpec:
        return self._robot.spec

    @property
    def wall_time(self) -> bool:
        return self._robot.wall_time

    @property
    def renders(self) -> int:
        return self._robot.renders

    def connect(self) -> None:
        self._robot.connect()

    def scene(self, episode: int) -> Scene:
        return self._robot.scene(episode)

    def reset(self, episode: int, seed: int) -> None:
        self._robot.reset(episode, seed)

    def observe(self) -> Observation:
        return self._robot.observe()

    def change(self, action: np.ndarray) -> np.ndarray:
        """What to do instead of `action`; its shape and dtype."""
        return action

    def act(self, action: np.ndarray) -> np.ndarray:
        return self.follow(Command(action))

    def follow(self, command: Command) -> np.ndarray:
        return self._robot.follow(replace(command, action=self.change(command.action)))

    def rest(self) -> None:
        self._robot.rest()

    def stop(self, reason: str) -> None:
        self._robot.stop(reason)

    def events(self) -> list[str]:
        return self._robot.events()

    def counters(self) -> Mapping[str, float]:
        return self._robot.counters()

    def live_pictures(self) -> Observation:
        return self._robot.live_pictures()

    def outcome(self) -> Outcome | None:
        return self._robot.outcome()

    def close(self) -> None:
        self._robot.close()
