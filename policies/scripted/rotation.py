"""Rotation matrices of axis-angle vectors and quaternions."""

from __future__ import annotations

import numpy as np


def rotation_matrix(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of an axis-angle vector in rad."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


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
