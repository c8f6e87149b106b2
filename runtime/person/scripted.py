"""A script that takes over as a person would, who watches the object: deterministic, and without hardware."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tactus.hal.robot import RobotError
from tactus.hal.spec import ENVIRONMENT_STATE, Observation, RobotSpec
from tactus.hal.teleop.teleoperator import Teleoperator
from tactus.policies.policy import Request, Session
from tactus.runtime.person.config import ScriptedPersonConfig
from tactus.runtime.wire.handshake import mismatches

SESSION = "person"
GOAL = 7
"""Where the goal's position stands in observation.environment_state: after the object's, which is a position and a
quaternion (the twin's cube and bin, LIBERO's object and target)."""


class ScriptedPerson(Teleoperator):
    """Looks at the object's and the goal's poses, and does what a scripted policy would do with what is seen.

    Raises RobotError where that policy could not drive the robot.
    """

    def __init__(self, config: ScriptedPersonConfig) -> None:
        self._config = config
        self._policy = config.policy.make()
        self._seen: Observation | None = None
        self._episode = ""

    def connect(self, robot: RobotSpec) -> None:
        if wrong := mismatches(robot, self._policy.spec):
            raise RobotError(f"teleop.policy: {self._policy.spec.name} cannot drive {robot.name}: {'; '.join(wrong)}")
        if ENVIRONMENT_STATE not in robot.observations or robot.observations[ENVIRONMENT_STATE].shape[0] < GOAL + 3:
            raise RobotError(f"teleop: a scripted person needs the poses of object and goal; {robot.name} has none")
        self._fps = robot.fps

    def look(self, observe: Callable[[], Observation]) -> None:
        seen = observe()
        if self._seen is None or seen.tick <= self._seen.tick:
            self._begin(seen)
        self._seen = seen
        poses = seen.arrays[ENVIRONMENT_STATE]
        height = float(poses[2]) - self._stood_m
        self._height_m = height
        self._at_goal = float(np.linalg.norm(poses[:2] - poses[GOAL : GOAL + 2])) < self._config.at_goal_m
        in_air = height > self._config.lifted_m
        self._in_air_ticks = self._in_air_ticks + 1 if in_air else 0
        self._idle_ticks = 0 if in_air or self._at_goal or self._drives else self._idle_ticks + 1
        self._was_in_air = self._was_in_air or in_air

    def _begin(self, seen: Observation) -> None:
        self._stood_m = float(seen.arrays[ENVIRONMENT_STATE][2])
        self._in_air_ticks = self._idle_ticks = self._since = 0
        self._was_in_air = self._drives = False

    def wants(self) -> bool | None:
        config = self._config
        if self._drives:
            if config.hand_back == "lifted" and self._in_air_ticks > config.held_s * self._fps:
                self._drives = False
                return False
            return None
        slipped = self._was_in_air and self._height_m < config.lifted_m / 2 and not self._at_goal
        bored = config.patience_s is not None and self._idle_ticks > config.patience_s * self._fps
        self._since = self._since + 1 if slipped or bored else 0
        return True if self._since > config.reaction_s * self._fps else None

    def reset(self, state: np.ndarray) -> None:
        assert self._seen is not None
        self._drives, self._was_in_air, self._since, self._idle_ticks = True, False, 0, 0
        self._policy.reset(Session(SESSION, 0, self._seen.task))

    def decide(self) -> np.ndarray | None:
        assert self._seen is not None
        [chunk] = self._policy.infer([Request(SESSION, self._seen, 0)])
        return chunk.actions[0]

    def close(self) -> None:
        self._policy.end(SESSION)
