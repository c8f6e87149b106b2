"""What describes a serial arm: its port, its joints, its calibration, its safety layer; and the arms we know."""

from __future__ import annotations

import os
from dataclasses import field, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Literal

from tactus.hal.arm.joints import KOCH, KOCH_LEADER, SO100, SO100_LEADER, Joint
from tactus.hal.config import Count, FilePath, Hz, Seconds, SecondsOrZero
from tactus.hal.governor.config import GovernedConfig
from tactus.hal.robot import RobotConfig, RobotError
from tactus.hal.servo.bus import Motor
from tactus.hal.servo.registers import Units

if TYPE_CHECKING:
    from tactus.hal.servo.serial_bus import SerialBus

LOOK_LATE_S = 0.3
LONGEST_WATCHDOG_S = 2.54
Bus = Literal["feetech", "dynamixel"]
BUSES: dict[Bus, str] = {
    "feetech": "tactus.hal.servo.feetech:FeetechBus",
    "dynamixel": "tactus.hal.servo.dynamixel:DynamixelBus",
}


@RobotConfig.register_subclass("arm")
class ArmConfig(GovernedConfig):
    """Any arm of position servos on one serial bus, by its joint table."""

    port: str | None = None
    """serial port, e.g. /dev/ttyACM0"""
    bus: Bus = "feetech"
    """feetech (STS3215 and relatives) or dynamixel (X series, Protocol 2.0)"""
    baudrate: Count = 1_000_000
    """bits per second, as the servos are set"""
    joints: dict[str, Joint] = field(default_factory=dict)
    """joint table: name -> {id, model, unit, velocity, low, high, registers}, in the order of the action"""
    unit: Units | None = None
    """of the joints that the table has in degrees; SO-100 policies from before LeRobot used degrees: range_m100_100"""
    calibration: FilePath | None = None
    """LeRobot's calibration file of this arm"""
    id: str | None = None
    """instead of calibration: the arm's id in LeRobot's calibration folder"""
    fps: Hz = 30.0
    """control rate in Hz"""
    task: str = ""
    """instruction for policies that read one"""
    fault_after_s: Seconds = 0.5
    """a motor that cannot be read for this long is a fault"""
    reconnect_s: SecondsOrZero = 3.0
    """a port that was unplugged may come back within this; meanwhile the servos hold"""
    bus_watchdog_s: SecondsOrZero = 1.0
    """dynamixel: the servos stop by themselves when the bus is silent for this long; 0 switches it off"""

    entry_point = "tactus.hal.arm.robot:Arm"
    name = "arm"
    lerobot_folder = ""
    """below LeRobot's folder of calibrations; not given: robots/NAME"""
    older_folders = ()
    """where LeRobot had them before, likewise"""
    kinds_2024 = ()
    """what LeRobot called this arm when it had them in .cache/calibration, in a format of its own"""

    def __post_init__(self) -> None:
        if self.unit not in (None, "degrees"):
            if bounded := [
                n for n, j in self.joints.items() if j.unit == "degrees" and (j.low, j.high) != (None, None)
            ]:
                raise ValueError(
                    f"unit: {', '.join(bounded)} has low or high in degrees; give the table in {self.unit}"
                )
            self.joints = {
                name: replace(joint, unit=self.unit) if joint.unit == "degrees" else joint
                for name, joint in self.joints.items()
            }
        if self.bus == "dynamixel" and self.bus_watchdog_s != 0:
            # motors are looked at once in health_s, and not by more than this late
            least_s = self.governor.health_s + LOOK_LATE_S
            if not least_s <= self.bus_watchdog_s <= LONGEST_WATCHDOG_S:
                raise ValueError(
                    f"bus_watchdog_s: found {self.bus_watchdog_s:g}; accepted: 0, or {least_s:g} "
                    f"(governor.health_s and {LOOK_LATE_S:g}) to {LONGEST_WATCHDOG_S:g}"
                )

    def make_bus(self) -> SerialBus:
        """The bus of the joint table, not opened. Raises RobotError for a config without a port or joints."""
        if self.port is None:
            found = ", ".join(resolve_name("tactus.hal.servo.port:list_ports")())
            raise RobotError(
                f"robot.port: not given; the serial port of the {self.name}. "
                + (f"Found: {found}" if found else "No serial port was found: is the USB cable in?")
            )
        if not self.joints:
            raise RobotError("robot.joints: empty; a joint table, name: {id, model}, or a preset: so100, koch")
        motors = {name: Motor(joint.id, joint.model) for name, joint in self.joints.items()}
        return resolve_name(BUSES[self.bus])(self.port, motors, self.baudrate)

    def calibration_file(self, new: bool = False) -> Path:
        """Where it lies; for an id also in LeRobot's older folders, unless it is to be a `new` one.

        Raises RobotError if the config does not say which, or if older folders disagree.
        """
        if self.calibration is not None:
            return Path(self.calibration)
        if self.id is None:
            raise RobotError(
                "robot.calibration: not given; the calibration file of this arm, or robot.id, its id in LeRobot's "
                "folder. `tactus calibrate` makes one"
            )
        cache = os.environ.get("HF_HOME", "~/.cache/huggingface")
        home = os.environ.get("HF_LEROBOT_HOME", f"{cache}/lerobot")
        base = Path(os.environ.get("HF_LEROBOT_CALIBRATION", f"{home}/calibration")).expanduser()
        name = f"{self.id}.json"
        today = base / (self.lerobot_folder or f"robots/{self.name}") / name
        if new or today.exists():
            return today
        of_2024 = [
            Path(top).expanduser() / ".cache/calibration" / kind for top in (".", "~") for kind in self.kinds_2024
        ]
        places = [*(base / folder for folder in self.older_folders), *of_2024]
        older = {place / name: (place / name).read_bytes() for place in places if (place / name).is_file()}
        if len({*older.values()}) > 1:
            raise RobotError(
                f"robot.id: {self.id} is in {' and in '.join(map(str, older))}, which differ; give the one that is "
                "this arm's as robot.calibration"
            )
        return next(iter(older), today)


@RobotConfig.register_subclass("so100")
@RobotConfig.register_subclass("so101")
class So100Config(ArmConfig):
    """SO-100 and SO-101 follower arms: six STS3215."""

    joints: dict[str, Joint] = field(default_factory=lambda: dict(SO100))
    """joint table: name -> {id, model, unit, velocity, low, high, registers}, in the order of the action"""

    name = "so100"
    lerobot_folder = "robots/so_follower"
    older_folders = ("robots/so100_follower", "robots/so101_follower")
    kinds_2024 = ("so100",)


@RobotConfig.register_subclass("koch")
class KochConfig(ArmConfig):
    """Koch v1.1 follower arm: two XL430 and four XL330."""

    bus: Bus = "dynamixel"
    """feetech (STS3215 and relatives) or dynamixel (X series, Protocol 2.0)"""
    joints: dict[str, Joint] = field(default_factory=lambda: dict(KOCH))
    """joint table: name -> {id, model, unit, velocity, low, high, registers}, in the order of the action"""

    name = "koch"
    lerobot_folder = "robots/koch_follower"
    kinds_2024 = ("koch",)


@RobotConfig.register_subclass("so100_leader")
@RobotConfig.register_subclass("so101_leader")
class So100LeaderConfig(So100Config):
    """SO-100 and SO-101 leader arms, for teleop.arm."""

    joints: dict[str, Joint] = field(default_factory=lambda: dict(SO100_LEADER))
    """joint table: name -> {id, model, unit, velocity, low, high, registers}, in the order of the action"""

    name = "so100_leader"
    lerobot_folder = "teleoperators/so_leader"
    older_folders = ("teleoperators/so100_leader", "teleoperators/so101_leader")


@RobotConfig.register_subclass("koch_leader")
class KochLeaderConfig(KochConfig):
    """Koch v1.1 leader arm, for teleop.arm: six XL330-M077."""

    joints: dict[str, Joint] = field(default_factory=lambda: dict(KOCH_LEADER))
    """joint table: name -> {id, model, unit, velocity, low, high, registers}, in the order of the action"""

    name = "koch_leader"
    lerobot_folder = "teleoperators/koch_leader"
