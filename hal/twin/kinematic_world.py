"""The world `kinematic`, without physics: joints that follow their goals, for tests of protocols and buses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tactus.hal.twin.config import JOINTS
from tactus.hal.twin.simulation import GAP_S, Joints, parse_hand

HIGH_RAD = np.array([1.92, 1.745, 1.69, 1.658, 2.79, 0.96])
"""Half of the SO-101's travel, joint by joint; 0 is its middle."""
REST_RAD = np.array([0.0, -1.7, 1.64, 1.22, 0.0, -0.87])
SPEED_RAD_S, ACCELERATION_RAD_S2 = 8.0, 120.0
STIFFNESS_PER_RAD = 10.0
"""Load, as a share of full torque, per rad that a joint is held away from its goal."""


class KinematicJoints(Joints):
    """One arm's joints: bounded speed and acceleration, stops, no gravity; without torque a joint stays where it is."""

    def __init__(self) -> None:
        self._position, self._velocity = REST_RAD.copy(), np.zeros(len(JOINTS))
        self._goal, self._torque = REST_RAD.copy(), np.zeros(len(JOINTS))
        self._hand: dict[int, float] = {}

    @property
    def low(self) -> np.ndarray:
        return -HIGH_RAD

    @property
    def high(self) -> np.ndarray:
        return HIGH_RAD.copy()

    def drive(self, goal_rad: np.ndarray, torque: np.ndarray) -> None:
        self._goal, self._torque = goal_rad.copy(), torque.copy()

    def positions(self) -> np.ndarray:
        return self._position.copy()

    def velocities(self) -> np.ndarray:
        return self._velocity.copy()

    def loads(self) -> np.ndarray:
        return np.clip(STIFFNESS_PER_RAD * (self._goal - self._position), -self._torque, self._torque)

    def push(self, angles_rad: Mapping[int, float]) -> None:
        """A hand moves joint i to angles_rad[i], if it is limp; it lets go of all others."""
        self._hand = dict(angles_rad)

    def step(self, dt_s: float) -> None:
        """Move on by dt_s seconds."""
        goal, driven = self._goal.copy(), self._torque > 0
        for i, angle in self._hand.items():
            if not driven[i]:
                goal[i], driven[i] = angle, True
        distance = goal - self._position
        wanted = np.copysign(np.minimum(SPEED_RAD_S, np.sqrt(2 * ACCELERATION_RAD_S2 * np.abs(distance))), distance)
        change = ACCELERATION_RAD_S2 * dt_s
        self._velocity = np.where(driven, self._velocity + np.clip(wanted - self._velocity, -change, change), 0.0)
        step = self._velocity * dt_s
        arrived = driven & (np.abs(distance) <= np.maximum(np.abs(step), 1e-5))
        moved = np.where(arrived, goal, self._position + step)
        self._position = np.clip(moved, -HIGH_RAD, HIGH_RAD)
        self._velocity[arrived | (self._position != moved)] = 0.0


class KinematicWorld:
    """Arms side by side that cannot meet."""

    def __init__(self, arms: Sequence[str]) -> None:
        self._arms = {name: KinematicJoints() for name in arms}
        self.arms: dict[str, Joints] = dict(self._arms)
        self._now_s: float | None = None

    def advance(self, now_s: float) -> None:
        """As Simulation has it."""
        dt_s = 0.0 if self._now_s is None or now_s - self._now_s > GAP_S else now_s - self._now_s
        self._now_s = now_s
        if dt_s > 0:
            for joints in self._arms.values():
                joints.step(dt_s)

    def handle(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """{"do": "hand", "arm": name, "angles_rad": {joint: rad}}: move limp joints by hand; {} lets go."""
        if request.get("do") != "hand":
            return None
        arm, angles = parse_hand(request, self._arms)
        self._arms[arm].push(angles)
        return {}
