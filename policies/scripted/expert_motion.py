"""A model of how LIBERO's hand follows its actions, which the expert plans with, and its inverse to steer by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tactus.policies.scripted.rotation import rotation_matrix

NOW = np.array([[4.9, 0.0, 1.0], [0.0, 5.7, 0.0], [0.2, 0.0, 6.1]]) * 1e-3
LAST = np.array([[0.0, 0.0, -4.4], [0.0, 1.45, 0.0], [-4.8, 0.0, 1.15]]) * 1e-3
DECAY = np.array([[0.625, 0.0, 0.257], [0.0, 0.45, 0.0], [0.347, 0.0, 0.452]])
"""Displacement in m over a tick = NOW·action + LAST·last action + DECAY·last displacement.

Least squares over rollouts of 16 ticks, 1500 ticks of random actions in LIBERO's simulator: 4 mm off after 8
ticks, 6 mm after 16. Full action settles at 13 mm a tick. The arm tilts the hand as it moves, which couples x
and z: a stop after a fast move along x goes on for 2 cm and up by 1.5 cm, over ten ticks.
"""
GAIN = 0.6
"""Share of the remaining way that is corrected each tick. Less than 1, so that a plan whose first actions are
dropped still goes where it should."""
AHEAD = 6
"""Ticks within which a correction is to arrive; the slowest motion takes twice that to die out."""
_SUM = sum(np.linalg.matrix_power(DECAY, i) for i in range(AHEAD))
_INVERSE = np.linalg.inv(_SUM @ NOW + (_SUM - np.linalg.matrix_power(DECAY, AHEAD - 1)) @ LAST)
TURN_RAD, TURN_LIMIT = 0.11, 0.6
"""Radians a tick at full rotation action, settled; and the action it is limited to, because a fast turn pulls the
hand aside by centimetres."""
FINGER_M = 0.0096
"""Change of the finger opening per tick while it moves freely, after one slow tick."""
OPEN_M = 0.079
"""Finger opening at rest, open."""


@dataclass(frozen=True)
class Hand:
    """The hand at the start of a tick.

    moved: displacement over the last tick; action: the last action; opening_m between the fingers;
    finger_m: change of the opening over the last tick.
    """

    position: np.ndarray
    rotation: np.ndarray
    opening_m: float
    moved: np.ndarray
    action: np.ndarray
    finger_m: float = 0.0

    @property
    def closing(self) -> np.ndarray:
        """Unit vector in the plane along which the fingers close."""
        direction = self.rotation[:2, 1]
        return direction / max(float(np.linalg.norm(direction)), 1e-9)

    def after(self, action: np.ndarray, stop_m: float) -> Hand:
        """The hand a tick later. stop_m: opening at which the fingers meet what is between them."""
        moved = NOW @ action[:3] + LAST @ self.action[:3] + DECAY @ self.moved
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
        """Action float64[3] after which, followed by none, the hand would be at `goal` in AHEAD ticks.

        Horizontally it is scaled as one, so that the path is straight.
        """
        coast = _SUM @ (LAST @ self.action[:3] + DECAY @ self.moved)
        action = _INVERSE @ (GAIN * (goal - self.position - coast))
        action[:2] /= max(1.0, float(np.abs(action[:2]).max()))
        return np.clip(action, -1.0, 1.0)

    def turn(self, closing: np.ndarray) -> np.ndarray:
        """Action float64[3] about the vertical, towards fingers closing along ±`closing`. The tilt is left alone:
        it follows from the arm's posture and comes back by itself."""
        now = self.closing
        angle = np.arctan2(now[0] * closing[1] - now[1] * closing[0], now @ closing)
        angle = (angle + np.pi / 2) % np.pi - np.pi / 2
        return np.array([0.0, 0.0, np.clip(0.5 * angle / TURN_RAD, -TURN_LIMIT, TURN_LIMIT)])
