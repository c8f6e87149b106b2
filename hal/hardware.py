"""The Hardware interface: a Robot with motors, whose limits, torque and health the safety layer needs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tactus.hal.robot import Robot, Scene
from tactus.hal.spec import RobotSpec


@dataclass(frozen=True)
class Limits:
    """Per action dimension, float64[A], in the action's units: the bounds of position, and the highest speed per s."""

    low: np.ndarray
    high: np.ndarray
    velocity: np.ndarray


@dataclass(frozen=True)
class Health:
    """What one motor reports of itself; None where it does not. error: its own error flags, named."""

    temperature_c: float | None = None
    voltage_v: float | None = None
    current_a: float | None = None
    load: float | None = None
    torque_on: bool | None = None
    error: str = ""


class Hardware(Robot):
    """A robot with motors that hold a position: actions are absolute positions, one per motor, in `spec.action.names`.

    `connect` checks everything and leaves torque off; nothing moves before `set_torque(True)`. Methods may be called
    from several threads: each is one transaction on the bus. All raise RobotError, after having tried every motor.
    """

    _spec: RobotSpec
    _task: str = ""
    """The instruction for policies that read one."""

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def wall_time(self) -> bool:
        return True

    def scene(self, episode: int) -> Scene:
        return Scene(self._task, self.spec.name)

    def reset(self, episode: int, seed: int) -> None:
        """Nothing of its own; the Governor switches torque on and goes to the starting pose."""

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """From calibration and config; constant once connected."""

    @abstractmethod
    def measure(self) -> np.ndarray:
        """Where the motors are now, float64[A], action units; read afresh, never invented."""

    @abstractmethod
    def set_torque(self, on: bool) -> None:
        """On: each motor first gets its present position as its goal, so that nothing jumps."""

    @abstractmethod
    def health(self) -> Mapping[str, Health]:
        """Every motor that answers, by name; takes a few ms of bus time."""

    def guardian(self) -> Mapping[str, Any] | None:
        """What a process of its own needs to switch the torque off when this one is killed; None if nothing can.

        Keys of an order to governor/guardian.py: port, baudrate, protocol, ids, and torque_register if it is unusual.
        Where servos have a watchdog of their own (Dynamixel's Bus Watchdog, register 98, in 20 ms), `set_torque(True)`
        arms it and `set_torque(False)` clears it. Any packet feeds it; between episodes these are the Governor's looks
        at `health`, every 0.5 s unless configured otherwise.
        """
        return None
