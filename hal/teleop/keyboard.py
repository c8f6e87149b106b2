"""Keys as the source of actions: two keys a joint, in the terminal that the command runs in."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from dataclasses import dataclass

import numpy as np

from hal.robot import RobotError
from hal.spec import RobotSpec
from hal.teleop.teleoperator import Teleoperator, TeleoperatorConfig

UP, DOWN = "qwertyuiop", "asdfghjkl;"
"""UP[i] raises action dimension i by a step, DOWN[i] lowers it."""
END = "\n\x1b"
"""Enter or Escape ends the episode."""


@TeleoperatorConfig.register_subclass("keyboard")
@dataclass
class KeyboardConfig(TeleoperatorConfig):
    """q w e r t y raise joints 1 to 6, a s d f g h lower them; Enter ends the episode."""

    step: float = 2.0
    """what one key press moves, in the joint's units"""

    def make(self) -> Teleoperator:
        if self.step <= 0:
            raise RobotError(f"teleop.step: found {self.step:g}; must be positive")
        return Keyboard(self.step)


class Keyboard(Teleoperator):
    """Moves a target that starts where the robot stands; keys are read from the terminal without waiting."""

    def __init__(self, step: float) -> None:
        self._step = step
        self._saved: list | None = None

    def connect(self, robot: RobotSpec) -> None:
        if not sys.stdin.isatty():
            raise RobotError("teleop: the keyboard needs a terminal; standard input is not one")
        width = robot.action.shape[0]
        if width > len(UP) or set(robot.action.mode) != {"absolute"}:
            raise RobotError(f"teleop: the keyboard drives up to {len(UP)} absolute joints; {robot.name} has {width}")
        self._low = np.array(robot.action.low or (-np.inf,) * width)
        self._high = np.array(robot.action.high or (np.inf,) * width)
        self._dtype = np.dtype(robot.action.dtype)
        self._saved = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        keys = ", ".join(f"{UP[i]}/{DOWN[i]} {name}" for i, name in enumerate(robot.action.names))
        print(f"keys: {keys}; Enter ends the episode", flush=True)

    def reset(self, state: np.ndarray) -> None:
        self._target = np.clip(state.astype(np.float64), self._low, self._high)

    def decide(self) -> np.ndarray | None:
        while select.select([sys.stdin], [], [], 0)[0]:
            for key in os.read(sys.stdin.fileno(), 64).decode(errors="ignore"):
                if key in END:
                    return None
                self._move(key)
        return self._target.astype(self._dtype)

    def _move(self, key: str) -> None:
        for keys, sign in ((UP, 1), (DOWN, -1)):
            index = keys.find(key)
            if 0 <= index < len(self._target):
                self._target[index] += sign * self._step
        self._target = np.clip(self._target, self._low, self._high)

    def close(self) -> None:
        if self._saved is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._saved)
            self._saved = None
