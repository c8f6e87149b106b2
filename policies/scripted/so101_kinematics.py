"""Kinematics of an SO-101: where the jaws are for given joint angles (forward), and the angles for a place (inverse).

All in the arm's own frame: x forward, y left, z up, the origin under its base on the table. Lengths are the
published ones of the SO-ARM101. Seen from the side at zero, every joint in the middle of its travel:

           elbow ______ wrist _ _ _ jaws       pitch  0 forward, 90 down
             /                                 azimuth 0 forward, 90 left: -shoulder_pan
            /  shoulder_lift                   closing yaw: along which the jaws close, azimuth of the moving jaw
           |   shoulder_pan
        ___|___ table
"""

from __future__ import annotations

import numpy as np

PAN_X_M, LIFT_X_M, LIFT_Z_M = 0.0388, 0.0304, 0.1166
"""The pan axis from the base's origin; the lift axis from the pan axis, and above the table."""
UPPER_ARM_M, FOREARM_M = (0.0280, 0.1126), (0.1349, 0.0052)
"""Next joint from the last one at zero: forward, up."""
HAND_M = 0.0611 + 0.0880
"""From the wrist's flex axis to the middle between the jaws' pads."""
RANGE_DEG = np.array([110.0, 100.0, 97.0, 95.0, 160.0])
"""Each joint's travel to either side of zero; the gripper's, from closed to open, is 0 to 100 %."""
MARGIN_DEG = 1.5
"""Solutions keep this far from the ends of the travel."""
STRETCH = 0.98
"""Share of the two links' length that is used: near all of it the elbow would have to move infinitely fast."""

_UPPER, _FORE = float(np.hypot(*UPPER_ARM_M)), float(np.hypot(*FOREARM_M))
_UPPER_RAD, _FORE_RAD = np.arctan2(UPPER_ARM_M[1], UPPER_ARM_M[0]), np.arctan2(FOREARM_M[1], FOREARM_M[0])
"""Elevation of the two links at zero."""


def forward(joints_deg: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Of the first five joints, float64[5] or more: the point between the jaws, float64[3] m; its pitch in rad; its
    closing yaw in rad, exact where the hand points down."""
    pan, lift, elbow, wrist, roll = np.deg2rad(joints_deg[:5])
    upper, fore, pitch = _UPPER_RAD - lift, _FORE_RAD - lift - elbow, lift + elbow + wrist
    reach = LIFT_X_M + _UPPER * np.cos(upper) + _FORE * np.cos(fore) + HAND_M * np.cos(pitch)
    height = LIFT_Z_M + _UPPER * np.sin(upper) + _FORE * np.sin(fore) - HAND_M * np.sin(pitch)
    position = np.array([PAN_X_M + reach * np.cos(pan), -reach * np.sin(pan), height])
    return position, float(pitch), float(roll - pan)


def inverse(position: np.ndarray, yaw_rad: float, pitch_rad: float) -> np.ndarray | None:
    """Joint angles, float64[5] in degrees, elbow up; None if out of reach. The roll is the one of the four that close
    on the same square, 90 degrees apart, that is nearest to the middle."""
    pan = -np.arctan2(position[1], position[0] - PAN_X_M)
    reach = np.hypot(position[0] - PAN_X_M, position[1]) - LIFT_X_M - HAND_M * np.cos(pitch_rad)
    height = position[2] - LIFT_Z_M + HAND_M * np.sin(pitch_rad)
    away = np.hypot(reach, height)
    if not 0 < away < STRETCH * (_UPPER + _FORE):
        return None
    at_shoulder = (_UPPER**2 + away**2 - _FORE**2) / (2 * _UPPER * away)
    at_elbow = (_UPPER**2 + _FORE**2 - away**2) / (2 * _UPPER * _FORE)
    if abs(at_shoulder) > 1 or abs(at_elbow) > 1:
        return None
    upper = np.arctan2(height, reach) + np.arccos(at_shoulder)
    fore = upper - (np.pi - np.arccos(at_elbow))
    lift = _UPPER_RAD - upper
    elbow = _FORE_RAD - fore - lift
    wrist = pitch_rad - lift - elbow
    quarter = np.pi / 2
    roll = (yaw_rad + pan + quarter / 2) % quarter - quarter / 2
    joints = np.rad2deg([pan, lift, elbow, wrist, roll])
    return joints if (np.abs(joints) <= RANGE_DEG - MARGIN_DEG).all() else None


def reach_down(position: np.ndarray, yaw_rad: float, least_rad: float = 0.6) -> np.ndarray | None:
    """`inverse`, pointing down as steeply as is possible there; None if not even at a pitch of `least_rad`."""
    steep, flat = np.pi / 2, least_rad
    joints = inverse(position, yaw_rad, steep)
    if joints is not None:
        return joints
    pitches = np.linspace(steep, flat, 25)
    first = next((i for i, pitch in enumerate(pitches) if inverse(position, yaw_rad, pitch) is not None), None)
    if first is None:
        return None
    # where exactly it becomes possible, so that neighbouring positions get neighbouring pitches
    above, pitch = pitches[first - 1], pitches[first]
    for _ in range(12):
        middle = (above + pitch) / 2
        above, pitch = (above, middle) if inverse(position, yaw_rad, middle) is not None else (middle, pitch)
    return inverse(position, yaw_rad, pitch)
