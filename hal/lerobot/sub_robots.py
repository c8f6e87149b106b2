"""The robots that one of LeRobot's robots consists of, and their calibration prompts, which no node can answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from tactus.hal.robot import RobotError


def find_robots(robot: Any, kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The robot and the robots in it, as a bimanual one has: prefix of its joints' names, and the robot."""
    yield prefix, robot
    for name, part in vars(robot).items():
        if isinstance(part, kind):
            yield from find_robots(part, kind, prefix + name.removesuffix("arm"))


@contextmanager
def without_prompts(robots: list[Any]) -> Iterator[None]:
    """Within it, a robot that wants to be calibrated raises RobotError instead of asking on the terminal."""
    for robot in robots:
        robot.calibrate = lambda robot=robot: _refuse(robot)
    try:
        yield
    finally:
        for robot in robots:
            del robot.calibrate


def _refuse(robot: Any) -> NoReturn:
    file = robot.calibration_fpath
    new = f"{robot.id}_new" if robot.calibration else robot.id
    how = f"`lerobot-calibrate --robot.type={robot.config.type} --robot.id={new}` with its other args makes one"
    if not robot.calibration:
        raise RobotError(
            f"{robot} has no calibration: there is no {file}; set args.id and args.calibration_dir, or {how}"
        )
    held = robot.bus.read_calibration() if hasattr(robot, "bus") else {}
    fields = ("homing_offset", "range_min", "range_max")
    found = [
        f"{motor} {field} {getattr(held[motor], field)}, in the file {getattr(wanted, field)}"
        for motor, wanted in robot.calibration.items()
        for field in fields
        if motor in held and getattr(held[motor], field) != getattr(wanted, field)
    ]
    raise RobotError(
        f"{file} is not the calibration that the motors of {robot} hold: {'; '.join(found)}. Is it another arm's? "
        f"{how} for this one"
    )
