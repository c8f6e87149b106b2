"""Teleoperation by keyboard: two keys a joint, in the terminal that the command runs in."""

from __future__ import annotations

import sys
from collections import deque

import numpy as np

from tactus.hal.robot import RobotError
from tactus.hal.spec import STATE, RobotSpec
from tactus.hal.teleop.config import KeyboardConfig
from tactus.hal.teleop.teleoperator import Teleoperator

UP, DOWN = "qwertyuiop", "asdfghjkl;"
"""UP[i] raises action dimension i by a step, DOWN[i] lowers it."""


class Keyboard(Teleoperator):
    """Two keys a joint move a target, which starts where the robot stands. `press` is given the terminal's keys."""

    def __init__(self, config: KeyboardConfig) -> None:
        self._step = config.step
        self._pressed: deque[int] = deque()
        self._width = 0

    def connect(self, robot: RobotSpec) -> None:
        if not sys.stdin.isatty():
            raise RobotError("teleop: the keyboard needs a terminal; standard input is not one")
        action, state = robot.action, robot.observations.get(STATE)
        width = action.shape[0]
        if not 0 < width <= len(UP) or set(action.mode) != {"absolute"}:
            modes = ", ".join(dict.fromkeys(action.mode)) or "unknown"
            raise RobotError(
                f"teleop: the keyboard drives 1 to {len(UP)} absolute joints; {robot.name} has {width} ({modes}): use "
                "teleop.type=leader"
            )
        if state is None or (state.names, state.unit) != (action.names, action.unit):
            raise RobotError(f"teleop: the keyboard starts where the robot stands, which {robot.name} does not tell")
        self._low = np.array(action.low or (-np.inf,) * width)
        self._high = np.array(action.high or (np.inf,) * width)
        self._dtype = np.dtype(action.dtype)
        self._width = width
        self.hint = ", ".join(f"{UP[i]}/{DOWN[i]} {name}" for i, name in enumerate(action.names))

    def press(self, key: str) -> bool:
        """A key was pressed, from any thread; False if it is none of this robot's."""
        mine = key.lower() in (UP[: self._width] + DOWN[: self._width])
        if mine:
            up = UP.find(key.lower())
            self._pressed.append(up + 1 if up >= 0 else -DOWN.find(key.lower()) - 1)
        return mine

    def reset(self, state: np.ndarray) -> None:
        self._pressed.clear()
        self._target = np.clip(state.astype(np.float64), self._low, self._high)

    def decide(self) -> np.ndarray | None:
        while self._pressed:
            joint = self._pressed.popleft()
            self._target[abs(joint) - 1] += np.copysign(self._step, joint)
            self._target = np.clip(self._target, self._low, self._high)
        return self._target.astype(self._dtype)

    def close(self) -> None:
        """There is nothing to release."""
