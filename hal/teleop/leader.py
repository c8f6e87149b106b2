"""A limp arm that a person moves, and that another one follows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hal.robot import Robot, RobotConfig, RobotError
from hal.spec import STATE, RobotSpec
from hal.teleop.teleoperator import Teleoperator, TeleoperatorConfig


@TeleoperatorConfig.register_subclass("leader")
@dataclass
class LeaderConfig(TeleoperatorConfig):
    """Any robot whose state has the names and units of the follower's action: an arm, or a rig of arms."""

    arm: RobotConfig = field(default_factory=RobotConfig)
    """the arm to move by hand, e.g. {type: so100, port: /dev/ttyACM1, calibration: leader.json}"""

    def make(self) -> Teleoperator:
        return Leader(self.arm.make())


class Leader(Teleoperator):
    """The robot's state is the action. It is only ever connected and observed, so its torque stays off."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._dtype = np.dtype("float32")

    def connect(self, robot: RobotSpec) -> None:
        state = self._robot.spec.observations.get(STATE)
        wanted = robot.action
        if state is None or (state.names, state.unit) != (wanted.names, wanted.unit):
            found = "no state" if state is None else f"{', '.join(state.names)} in {state.unit}"
            raise RobotError(
                f"teleop.arm: found {found}; the follower takes {', '.join(wanted.names)} in {wanted.unit}"
            )
        self._dtype = np.dtype(wanted.dtype)
        self._robot.connect()

    def reset(self, state: np.ndarray) -> None:
        """Nothing: the follower's Governor brings it to the leader at its velocity limit."""

    def decide(self) -> np.ndarray | None:
        return self._robot.observe().arrays[STATE].astype(self._dtype)

    def close(self) -> None:
        self._robot.close()
