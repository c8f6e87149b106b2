"""Interfaces of the simulations behind the emulated servos: an arm's joints, and the world that they are in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np

from tactus.hal.robot import RobotError
from tactus.hal.twin.config import JOINTS

GAP_S = 0.1
"""Time that has passed by more than this is skipped: the process was stopped, and the arm is not to jump."""


class Joints(Protocol):
    """The joints of one emulated arm, J of them, in the order of its servo ids. Angles in rad, 0 in mid-range."""

    @property
    def low(self) -> np.ndarray:
        """Mechanical lower stops, float64[J]."""
        ...

    @property
    def high(self) -> np.ndarray:
        """Mechanical upper stops, float64[J]."""
        ...

    def drive(self, goal_rad: np.ndarray, torque: np.ndarray) -> None:
        """Drive joints towards goals from now on. torque: share of full torque each may use, float64[J], 0 is limp."""

    def positions(self) -> np.ndarray:
        """float64[J], rad."""
        ...

    def velocities(self) -> np.ndarray:
        """float64[J], rad/s."""
        ...

    def loads(self) -> np.ndarray:
        """Share of full torque in use, signed, float64[J]."""
        ...


class Simulation(Protocol):
    """A world with one or more arms in it, advanced by the loop that owns the buses; one thread.

    It may also have handle(request: dict) -> dict | None, which answers control requests about its scene, and
    state() -> dict, its part of a report on the twin.
    """

    arms: dict[str, Joints]

    def advance(self, now_s: float) -> None:
        """Simulate up to this moment of the caller's monotonic clock; a gap of more than GAP_S is skipped, not
        caught up with."""


def parse_hand(request: Mapping[str, Any], arms: Collection[str]) -> tuple[str, dict[int, float]]:
    """The request {"do": "hand", "arm": name, "angles_rad": {joint: rad}}, a person who moves joints: the arm, and
    angles by joint index; none: the hand lets go. Raises RobotError for another arm or joint."""
    arm, angles = request.get("arm"), request.get("angles_rad")
    if not isinstance(arm, str) or arm not in arms:
        raise RobotError(f"hand: no arm {arm!r}; there are {', '.join(arms)}")
    if not isinstance(angles, Mapping) or not set(angles) <= set(JOINTS):
        raise RobotError(f"hand: angles_rad must map joints to rad; found {angles!r}; joints {', '.join(JOINTS)}")
    return arm, {JOINTS.index(name): float(angle) for name, angle in angles.items()}
