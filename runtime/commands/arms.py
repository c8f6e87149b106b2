"""The arm that a command is about: the robot itself, or a part of a rig."""

from __future__ import annotations

from tactus.hal.arm import ArmConfig
from tactus.hal.rig import RigConfig
from tactus.hal.robot import RobotConfig, RobotError


def arms(robot: RobotConfig) -> dict[str, ArmConfig]:
    """Every serial arm of a config, by its part's name; "" for a robot that is one itself."""
    if isinstance(robot, ArmConfig):
        return {"": robot}
    parts = robot.parts if isinstance(robot, RigConfig) else {}
    return {name: part for name, part in parts.items() if isinstance(part, ArmConfig)}


def the_arm(robot: RobotConfig, part: str | None) -> ArmConfig:
    """The arm called `part`, or the only one there is. Raises RobotError if that is not clear."""
    found = arms(robot)
    if part is None and len(found) == 1:
        return next(iter(found.values()))
    if part in found:
        return found[part]
    known = ", ".join(found) or "none; give --robot.type=so100, or a config file with one"
    raise RobotError(f"part: found {part or 'nothing'}; arms of this config: {known}")
