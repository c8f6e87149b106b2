"""Teleoperation by a leader arm: a limp arm that a person moves, and that the robot follows."""

from __future__ import annotations

import numpy as np

from tactus.hal.arm.config import ArmConfig
from tactus.hal.rig.config import RigConfig
from tactus.hal.rig.robot import Rig
from tactus.hal.robot import Robot, RobotConfig, RobotError
from tactus.hal.spec import STATE, RobotSpec
from tactus.hal.teleop.config import LeaderConfig
from tactus.hal.teleop.teleoperator import Teleoperator


def build(config: LeaderConfig) -> Leader:
    """Raises RobotError if the config has no arm, or one that cannot be."""
    if config.arm is None:
        raise RobotError(
            "teleop.arm: not given; the arm to move by hand, e.g. --teleop.arm.type=so100 "
            "--teleop.arm.port=/dev/ttyACM1 --teleop.arm.calibration=leader.json"
        )
    return Leader(limp(config.arm))


def limp(config: RobotConfig) -> Robot:
    """A robot that is only read. Arms come without their Governor: nobody ever switches their torque on."""
    if isinstance(config, ArmConfig):
        try:
            return config.hardware()
        except RobotError as error:
            raise RobotError(f"teleop.arm: {error}".replace(": robot.", ".", 1)) from error
    if isinstance(config, RigConfig):
        return Rig({name: limp(part) for name, part in config.parts.items()})
    return config.make()


class Leader(Teleoperator):
    """A leader arm, whose state is the action. It is only ever connected and observed, so its torque stays off."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._dtype = np.dtype("float32")

    def connect(self, robot: RobotSpec) -> None:
        state = self._robot.spec.observations.get(STATE)
        wanted = robot.action
        if state is None or (state.names, state.unit) != (wanted.names, wanted.unit):
            found = "no state" if state is None else f"{', '.join(state.names)} in {_units(state.unit)}"
            raise RobotError(
                f"teleop.arm: found {found}; the follower takes {', '.join(wanted.names)} in {_units(wanted.unit)}"
            )
        self._dtype = np.dtype(wanted.dtype)
        try:
            self._robot.connect()
        except RobotError as error:
            raise RobotError(f"teleop.arm: {error}") from error

    def reset(self, state: np.ndarray) -> None:
        """Nothing: the follower's Governor brings it to the leader at its velocity limit."""

    def decide(self) -> np.ndarray | None:
        try:
            return self._robot.observe().arrays[STATE].astype(self._dtype)
        except RobotError as error:
            raise RobotError(f"teleop.arm: {error}") from error

    def events(self) -> list[str]:
        return [f"leader: {line}" for line in self._robot.events()]

    def close(self) -> None:
        self._robot.close()


def _units(unit: str | tuple[str, ...]) -> str:
    return ", ".join(unit) if isinstance(unit, tuple) else unit
