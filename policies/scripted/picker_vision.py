"""Finds the red cube in a picture taken straight from above, for a picker that is not told poses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tactus.policies.scripted.so101_kinematics import forward

CAMERA_M, FOVY_DEG = np.array([0.205, 0.0, 0.80]), 36.0
"""The twin's top camera: where it is, looking straight down with the arm's forward direction up in its picture."""
BIN_M = np.array([0.165, -0.195, 0.0])
BIN_FLOOR_M, BIN_INSIDE_M = 0.004, 0.058
SIDE_M = 0.027
"""The cube's edge."""
AREA = (0.75, 1.45)
"""A patch of this share of the cube's expected area is the cube; less, and something hides a part of it."""
GRIPPED = (11.0, 26.0)
"""Jaws that stand at this many % when told to close have the cube between them; without it they would meet."""
UNKNOWN = np.array([-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
"""Pose of a cube that has not been seen yet: out of reach."""


@dataclass(frozen=True)
class Patch:
    """What was found. yaw_rad: along one of its sides."""

    x_m: float
    y_m: float
    yaw_rad: float


def find(image: np.ndarray) -> Patch | None:
    """The cube's top in a picture uint8[H, W, 3] RGB; None if it is hidden, wholly or in part."""
    import cv2  # takes a tenth of a second, which listing the policies should not cost

    height, width = image.shape[:2]
    metres = 2 * (CAMERA_M[2] - SIDE_M) * np.tan(np.deg2rad(FOVY_DEG / 2)) / height  # per pixel, at its top
    red, green, blue = (image[:, :, i].astype(np.int16) for i in range(3))
    mask = (red > 100) & (red > 2 * np.maximum(green, blue))
    if not mask.any():
        return None
    mask &= red > 0.8 * np.percentile(red[mask], 90)  # its sides, where they are seen, are darker than its top
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=lambda contour: len(contour))
    inside = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(inside, [largest], -1, 1, cv2.FILLED)
    rows, columns = np.nonzero(inside)
    if not AREA[0] < len(rows) * (metres / SIDE_M) ** 2 < AREA[1]:
        return None
    x = CAMERA_M[0] + ((height - 1) / 2 - rows.mean()) * metres
    y = CAMERA_M[1] + ((width - 1) / 2 - columns.mean()) * metres
    # columns run to -y and rows to -x: the angle from the column axis to a side is that from -y, turned the same way
    angle = np.deg2rad(cv2.minAreaRect(largest)[2])
    return Patch(float(x), float(y), float(-angle - np.pi / 2))


def estimate(image: np.ndarray, joints: np.ndarray, closing: bool, last: np.ndarray) -> np.ndarray:
    """The cube's pose and the bin's place, float64[10], as the twin's scene would tell them.

    joints: measured, deg and %. closing: the jaws have been told to hold. last: what this said before, or UNKNOWN.
    """
    patch = find(image)
    if closing and GRIPPED[0] < joints[5] < GRIPPED[1]:
        pose = np.array([*forward(joints)[0], *last[3:7]])
    elif patch is None:
        pose = np.array([*last[:2], _rest_m(*last[:2]), *last[3:7]])  # what the jaws let go of falls
    else:
        half = patch.yaw_rad / 2
        pose = np.array([patch.x_m, patch.y_m, _rest_m(patch.x_m, patch.y_m), 0, 0, np.sin(half), np.cos(half)])
    return np.concatenate([pose, BIN_M])


def _rest_m(x_m: float, y_m: float) -> float:
    """Height of the middle of a cube that lies there."""
    in_bin = max(abs(x_m - BIN_M[0]), abs(y_m - BIN_M[1])) < BIN_INSIDE_M
    return SIDE_M / 2 + BIN_FLOOR_M * in_bin
