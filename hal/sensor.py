"""Robots that only observe: the base of cameras and of a simulated scene's report."""

from __future__ import annotations

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import Feature, RobotSpec

NO_ACTION = Feature((0,), "float32")


class Sensor(Robot):
    """Gives observations in real time and takes no action. A subclass sets `_spec`, whose action is NO_ACTION."""

    _spec: RobotSpec

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def wall_time(self) -> bool:
        return True

    def reset(self, episode: int, seed: int) -> None:
        """Nothing to set up."""

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        return action
