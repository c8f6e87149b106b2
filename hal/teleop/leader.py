"""Teleoperation by a leader arm: a limp arm that a person moves, and that the robot follows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from tactus.hal.arm.config import ArmConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.rig.config import RigConfig
from tactus.hal.rig.robot import Rig
from tactus.hal.robot import Command, Robot, RobotConfig, RobotError
from tactus.hal.spec import STATE, RobotSpec
from tactus.hal.teleop.config import LeaderConfig
from tactus.hal.teleop.teleoperator import Teleoperator

PULLED_TICKS = 10
"""An arm that follows lags behind while it moves; held away from where it should be for so long, it is in a hand."""


def build(config: LeaderConfig) -> Leader:
    """Raises RobotError if the config has no arm, or one that cannot be."""
    if config.arm is None:
        raise RobotError(
            "teleop.arm: not given; the arm to move by hand, e.g. --teleop.arm.type=so100 "
            "--teleop.arm.port=/dev/ttyACM1 --teleop.arm.calibration=leader.json"
        )
    if not config.follows:
        return Leader(limp(config.arm), config.takes_over_at)
    if not isinstance(config.arm, ArmConfig):
        kind = RobotConfig.get_choice_name(type(config.arm))
        raise RobotError(f"teleop.follows: found an arm of type {kind}; accepted: an arm of servos, e.g. so100, koch")
    return FollowingLeader(_named(config.arm.make), config.takes_over_at)


def limp(config: RobotConfig) -> Robot:
    """A robot that is only read. Arms come without their Governor: nobody ever switches their torque on."""
    if isinstance(config, ArmConfig):
        return _named(config.hardware)
    if isinstance(config, RigConfig):
        return Rig({name: limp(part) for name, part in config.parts.items()})
    return config.make()


def _named[R](make: Callable[[], R]) -> R:
    try:
        return make()
    except RobotError as error:
        raise RobotError(f"teleop.arm: {error}".replace(": robot.", ".", 1)) from error


class Leader(Teleoperator):
    """A leader arm, whose state is the action. It is only ever connected and observed, so its torque stays off.

    takes_over_at: beside a policy, moved by so much from where it was left it takes over; None: it does not.
    """

    def __init__(self, robot: Robot, takes_over_at: float | None = None) -> None:
        self._robot = robot
        self._dtype = np.dtype("float32")
        self._takes_over_at = takes_over_at
        self._left: np.ndarray | None = None

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
        """The robot comes to the leader: its Governor at the velocity limit, beside a policy within meet_s."""
        self._left = None

    def decide(self) -> np.ndarray | None:
        self._left = None
        return self._read()

    def wants(self) -> bool | None:
        if self._takes_over_at is None:
            return None
        where = self._read()
        self._left = where if self._left is None else self._left
        return True if np.abs(where - self._left).max() > self._takes_over_at else None

    def _read(self) -> np.ndarray:
        try:
            return self._robot.observe().arrays[STATE].astype(self._dtype)
        except RobotError as error:
            raise RobotError(f"teleop.arm: {error}") from error

    def events(self) -> list[str]:
        return [f"leader: {line}" for line in self._robot.events()]

    def close(self) -> None:
        self._robot.close()


class FollowingLeader(Leader):
    """… with motors that follow the robot while a policy drives it, behind a Governor of their own. They go limp when a
    person takes over, by a key or by holding the arm back."""

    def __init__(self, governor: Robot, takes_over_at: float | None) -> None:
        super().__init__(governor, takes_over_at)
        assert isinstance(governor, Governor)
        self._governor = governor
        self._switching: threading.Thread | None = None
        self._trouble = ""
        self._ready = False
        self._pulled = 0
        self._goal: np.ndarray | None = None

    def reset(self, state: np.ndarray) -> None:
        """Limp, from here on."""
        self._wait()
        if self._ready:
            self._governor.release("a person has it")
        self._ready, self._pulled, self._goal = False, 0, None

    def follow(self, action: np.ndarray) -> None:
        """Torque comes on in a thread: the control loop does not wait for six motors."""
        if self._trouble:
            raise RobotError(f"teleop.arm: {self._trouble}")
        if self._ready:
            self._goal = self._governor.follow(Command(action))
        elif self._switching is None:
            self._switching = threading.Thread(target=self._switch_on, name="leader", daemon=True)
            self._switching.start()

    def wants(self) -> bool | None:
        if self._takes_over_at is None or self._goal is None:
            return None
        away = np.abs(self._read() - self._goal).max() > self._takes_over_at
        self._pulled = self._pulled + 1 if away else 0
        return True if self._pulled >= PULLED_TICKS else None

    def _switch_on(self) -> None:
        try:
            self._governor.reset(0, 0)
            self._ready = True
        except RobotError as error:
            self._trouble = str(error)
        finally:
            self._switching = None

    def _wait(self) -> None:
        if (switching := self._switching) is not None:
            switching.join()

    def close(self) -> None:
        self._wait()
        super().close()


def _units(unit: str | tuple[str, ...]) -> str:
    return ", ".join(unit) if isinstance(unit, tuple) else unit
