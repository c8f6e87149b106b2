"""The twin's table as a part of a rig: where the cube is, and whether the task is done, which hardware cannot tell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.robot import Outcome, RobotError, Scene
from tactus.hal.sensor import NO_ACTION, Sensor
from tactus.hal.spec import ENVIRONMENT_STATE, Feature, Observation, RobotSpec
from tactus.hal.twin.config import TwinSceneConfig
from tactus.hal.twin.control import TwinControl

TASK = "pick up the red cube and put it into the bin"
FEATURE = Feature(
    (10,),
    "float32",
    unit=("m", "m", "m", "1", "1", "1", "1", "m", "m", "m"),
    names=(*(f"cube.{axis}" for axis in ("x", "y", "z", "qx", "qy", "qz", "qw")), "bin.x", "bin.y", "bin.z"),
)
OUTCOME_S = 0.05
"""An outcome is asked for when the last answer is older than this."""


class TwinScene(Sensor):
    """No action; the observation is the poses of cube and bin, in the first arm's frame: x forward, y left, z up."""

    def __init__(self, config: TwinSceneConfig) -> None:
        self._folder = Path(config.folder)
        self._control: TwinControl | None = None
        self._answer: dict[str, Any] = {}
        self._asked_s = 0.0
        self._spec = RobotSpec("twin_scene", 30.0, {ENVIRONMENT_STATE: FEATURE}, NO_ACTION)

    def connect(self) -> None:
        """Raises RobotError if no twin runs in the folder, or one without a table."""
        self.close()
        self._control = TwinControl(self._folder)
        self._ask()

    def scene(self, episode: int) -> Scene:
        return Scene(TASK, "twin_pick")

    def reset(self, episode: int, seed: int) -> None:
        """Lay the cube down; the arm stays where it is. Raises RobotError if it is in the way everywhere."""
        self._connected().ask(do="reset", episode=episode, seed=seed)
        self._asked_s = 0.0

    def observe(self) -> Observation:
        answer = self._ask()
        poses = np.array([*answer["cube"], *answer["bin"]], np.float32)
        return Observation({ENVIRONMENT_STATE: poses}, {ENVIRONMENT_STATE: int(self._asked_s * 1e9)})

    def outcome(self) -> Outcome:
        if self._control is None:
            return Outcome(success=False, done=False, reward=0.0)
        answer = self._answer if time.monotonic() - self._asked_s < OUTCOME_S else self._ask()
        return Outcome(answer["success"], answer["done"], answer["reward"])

    def close(self) -> None:
        control, self._control = self._control, None
        if control:
            control.close()

    def _ask(self) -> dict[str, Any]:
        self._answer = self._connected().ask(do="scene")
        self._asked_s = time.monotonic()
        return self._answer

    def _connected(self) -> TwinControl:
        if self._control is None:
            raise RobotError("twin_scene: connect comes first")
        return self._control
