"""How far and how fast each joint may go: from its calibration and its line of the joint table."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tactus.hal.arm.joints import Joint
from tactus.hal.hardware import Limits
from tactus.hal.robot import RobotError
from tactus.hal.servo.calibration import Scale


def joint_limits(joints: Mapping[str, Joint], scale: Scale) -> Limits:
    """The calibrated range, or less where the table says so. Raises RobotError naming the entry that cannot be."""
    low, high = scale.bounds()
    for index, (name, joint) in enumerate(joints.items()):
        for key, bound in (("low", joint.low), ("high", joint.high)):
            if bound is not None and not low[index] <= bound <= high[index]:
                raise RobotError(
                    f"robot.joints.{name}.{key}: found {bound:g}; calibrated for {low[index]:.1f} to {high[index]:.1f}"
                )
        low[index] = low[index] if joint.low is None else joint.low
        high[index] = high[index] if joint.high is None else joint.high
        if low[index] >= high[index]:
            raise RobotError(f"robot.joints.{name}: low {low[index]:g} is not below high {high[index]:g}")
        if joint.velocity <= 0:
            raise RobotError(f"robot.joints.{name}.velocity: found {joint.velocity:g}; must be positive")
    return Limits(low, high, np.array([joint.velocity for joint in joints.values()], np.float64))
