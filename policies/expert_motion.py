"""How LIBERO's hand follows its actions: the model the expert plans with, and the inverse it steers by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

NOW, LAST, DECAY = 0.0052, 0.0016, 0.47
"""Displacement in m per tick = NOW·action + LAST·last action + DECAY·last displacement.

Least squares over 200 ticks of random actions in LIBERO's simulator; full action settles at 12.8 mm a tick.
"""
GAIN = 0.5
"""Share of the remaining way that is corrected each tick. Less than 1, so that a plan whose first actions are
dropped still goes where it should."""
TURN_RAD = 0.11
"""Radians a tick at full rotation action, settled."""
FINGER_M = 0.0096
"""Change of the finger opening per tick while it moves freely, after one slow tick."""
OPEN_M = 0.079
"""Finger opening at rest, open."""


@dataclass(frozen=True)
class Hand:
    """The hand at the start of a tick.

    moved: displacement over the last tick; action: the last action; opening_m between the fingers;
    finger_m: change of the opening over the last tick. drift: displacement a tick that no action asked for (the
    arm's posture pulls at the hand, and LIBERO's controller does not resist a steady pull).
    """

    position: np.ndarray
    rotation: np.ndarray
    opening_m: float
    moved: np.ndarray
    action: np.ndarray
    finger_m: float = 0.0
    drift: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def closing(self) -> np.ndarray:
        """Unit vector in the plane along which the fingers close."""
        direction = self.rotation[:2, 1]
        return direction / max(float(np.linalg.norm(direction)), 1e-9)

    def after(self, action: np.ndarray, stop_m: float) -> Hand:
        """The hand a tick later. stop_m: opening at which the fingers meet what is between them."""
        moved = NOW * action[:3] + LAST * self.action[:3] + DECAY * self.moved + (1 - DECAY) * self.drift
        finger = 0.5 * self.finger_m - np.sign(action[6]) * 0.5 * FINGER_M
        low = min(stop_m, self.opening_m)
        opening = float(np.clip(self.opening_m + finger, low if action[6] > 0 else 0.0, OPEN_M))
        turned = rotation_matrix(action[3:6] * TURN_RAD) @ self.rotation
        return replace(
            self,
            position=self.position + moved,
            rotation=turned,
            opening_m=opening,
            moved=moved,
            action=action,
            finger_m=opening - self.opening_m,
        )

    def steer(self, goal: np.ndarray) -> np.ndarray:
        """Action float64[3] after which, followed by none, the hand would come to rest at `goal`, if it can.

        Horizontally it is scaled as one, so that the path is straight.
        """
        coast = (LAST * self.action[:3] + DECAY * self.moved) / (1 - DECAY)
        action = GAIN * (goal - self.position - coast) * (1 - DECAY) / (NOW + LAST)
        action -= self.drift * (1 - DECAY) / (NOW + LAST)
        action[:2] /= max(1.0, float(np.abs(action[:2]).max()))
        return np.clip(action, -1.0, 1.0)

    def turn(self, closing: np.ndarray) -> np.ndarray:
        """Action float64[3] towards fingers pointing straight down and closing along ±`closing`."""
        y = closing if closing @ self.closing >= 0 else -closing
        goal = np.array([[-y[1], y[0], 0.0], [y[0], y[1], 0.0], [0.0, 0.0, -1.0]])
        return np.clip(0.6 * rotation_vector(goal @ self.rotation.T) / TURN_RAD, -1.0, 1.0)


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of an axis-angle vector in rad."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """Axis-angle vector in rad of a rotation matrix, for angles below pi."""
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine = float(np.linalg.norm(axis)) / 2
    angle = float(np.arctan2(sine, (np.trace(matrix) - 1) / 2))
    return axis / 2 if sine < 1e-9 else axis / (2 * sine) * angle


def quaternion_matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrix of a quaternion xyzw."""
    x, y, z, w = quaternion / max(float(np.linalg.norm(quaternion)), 1e-9)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
