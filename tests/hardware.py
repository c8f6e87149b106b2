"""A robot with torque made of arithmetic, which writes down everything it is told, and misbehaves on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tactus.hal.hardware import Hardware, Health, Limits
from tactus.hal.robot import RobotError
from tactus.hal.spec import STATE, Feature, Observation, RobotSpec

JOINTS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")
LOW, HIGH = np.array([-100.0, -90.0, 0.0]), np.array([100.0, 90.0, 100.0])
VELOCITY = np.array([180.0, 90.0, 200.0])
FPS = 30.0


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class RecordingHardware(Hardware):
    """Joints jump to where they are told, if they have torque; `log` holds (when, "act", array) and ("torque", bool).

    stuck: joints that do not move. before: called with the name of each method before it does anything.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, order: Mapping[str, Any] | None = None) -> None:
        self.clock = clock
        self.position = np.zeros(3)
        self.torque = False
        self.log: list[tuple[float, str, Any]] = []
        self.stuck: tuple[int, ...] = ()
        self.motors: dict[str, Health] = {}
        self.errors: dict[str, Exception] = {}
        self.before: Callable[[str], None] = lambda name: None
        self.order = order
        self.open = False
        self.looks = 0

    @property
    def spec(self) -> RobotSpec:
        feature = Feature((3,), "float32", "deg", JOINTS)
        action = Feature((3,), "float32", "deg", JOINTS, tuple(LOW), tuple(HIGH), ("absolute",) * 3)
        return RobotSpec("recorder", FPS, {STATE: feature}, action)

    @property
    def limits(self) -> Limits:
        return Limits(LOW, HIGH, VELOCITY)

    def _enter(self, name: str) -> None:
        self.before(name)
        if name in self.errors:
            raise self.errors[name]

    def connect(self) -> None:
        self._enter("connect")
        self.open = True

    def reset(self, episode: int, seed: int) -> None:
        self._enter("reset")

    def observe(self) -> Observation:
        self._enter("observe")
        return Observation({STATE: self.position.astype(np.float32)}, {STATE: time.monotonic_ns()})

    def measure(self) -> np.ndarray:
        self._enter("measure")
        return self.position.copy()

    def act(self, action: np.ndarray) -> np.ndarray:
        self._enter("act")
        self.log.append((self.clock(), "act", action.copy()))
        if self.torque:
            for index in set(range(3)) - set(self.stuck):
                self.position[index] = action[index]
        return action

    def set_torque(self, on: bool) -> None:
        self._enter("torque")
        self.log.append((self.clock(), "torque", on))
        self.torque = on

    def health(self) -> Mapping[str, Health]:
        self.looks += 1
        self._enter("health")
        return self.motors

    def guardian(self) -> Mapping[str, Any] | None:
        return self.order

    def close(self) -> None:
        self._enter("close")
        self.open = False

    @property
    def commands(self) -> list[tuple[float, np.ndarray]]:
        return [(at, what) for at, kind, what in self.log if kind == "act"]


def lost(part: str) -> RobotError:
    return RobotError(f"{part} does not answer")
