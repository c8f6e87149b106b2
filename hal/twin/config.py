"""What describes a twin: its arms, its world, its adapters, its cameras."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from tactus.hal.config import Config, Count, FilePath, Names, Number, Written
from tactus.hal.robot import Robot, RobotConfig
from tactus.hal.servo.registers import BAUDRATES, Protocol

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""Of every arm, in the order of the servos' ids, 1 to 6."""
Kind = Literal["so101", "koch"]
KINDS: dict[Kind, Protocol] = {"so101": "feetech", "koch": "dynamixel"}
"""Kinds of arm, and the protocol each speaks unless told otherwise."""
MODELS: dict[Protocol, tuple[str, ...]] = {
    "feetech": ("sts3215",) * 6,
    "dynamixel": ("xl430-w250", "xl430-w250", "xl330-m288", "xl330-m288", "xl330-m288", "xl330-m288"),
}


class ArmConfig(Config):
    """One emulated arm. Mechanics are always the SO-101's; a koch is that with Dynamixels in it."""

    kind: Kind = "so101"
    """so101 or koch"""
    protocol: Protocol | None = None
    """feetech or dynamixel; not given: what its kind has"""
    role: Literal["follower", "leader"] = "follower"
    """follower or leader; for whoever reads twin.json"""
    baudrate: Count = 1_000_000
    """what its servos are set to"""
    calibrated: bool = True
    """servos homed and limited, as calibration/ARM.json says; false: as from the factory, and no such file"""

    def __post_init__(self) -> None:
        self.protocol = self.protocol or KINDS[self.kind]
        rates = BAUDRATES[self.protocol]
        if self.baudrate not in rates:
            raise ValueError(f"baudrate: found {self.baudrate}; accepted: {', '.join(map(str, rates))}")


class CamerasConfig(Config):
    """Which cameras the twin has. Each is a stream of JPEGs on a loopback port of its own."""

    names: Annotated[list[str], Names] = field(default_factory=lambda: ["top", "side"])
    """top (straight down), side, wrist (of the first arm; ARM_wrist of another); [] for none"""
    width: Annotated[int, Field(ge=16, le=1920)] = 320
    """pixels"""
    height: Annotated[int, Field(ge=16, le=1080)] = 240
    """pixels"""
    fps: Annotated[float, Field(gt=0, le=120)] = 30.0
    """frames per second of each"""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """of the JPEGs, 1-100"""

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"names: found {', '.join(self.names)}; each may be named once")


class TwinConfig(Config):
    """An emulated rig, in a folder."""

    folder: Annotated[FilePath, Written("folder")] = "outputs/twin"
    """where ports/, control, writes.jsonl, calibration/ and twin.json appear"""
    arms: Annotated[dict[str, ArmConfig], Field(min_length=1)] = field(
        default_factory=lambda: {"follower": ArmConfig()}
    )
    """name -> arm (kind, protocol, role, baudrate, calibrated): --arms.left.kind=so101 --arms.right.kind=koch, or in a
    config file; not given: a so101 called follower"""
    world: Literal["table", "kinematic"] = "table"
    """table: MuJoCo, with cube, bin and cameras; kinematic: joints that follow their goals, nothing else"""
    model: FilePath | None = None
    """an MJCF of one arm to use instead of the built-in one (world=table)"""
    cameras: CamerasConfig = field(default_factory=CamerasConfig)
    """the rig's cameras, served as MJPEG streams (world=table)"""
    usb_latency_ms: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """latency timer of the arms' USB adapters; 16 is an FTDI as it comes"""
    parent: Count | None = None
    """end when the process with this id does"""

    def __post_init__(self) -> None:
        for name in self.arms:
            if not name.isidentifier():
                raise ValueError(f"arms: found the name {name!r}; accepted: letters, digits and _")


Side = Annotated[int, Field(ge=16, le=1920)]


@RobotConfig.register_subclass("twin")
class TwinRobotConfig(RobotConfig):
    """The arm, table and cameras of `tactus twin` without ports and streams, in virtual time: runs repeat to the bit.

    Episode i begins as the seed and i say. Needs MuJoCo: the extra gym or libero.
    """

    cameras: Annotated[list[str], Names] = field(default_factory=lambda: ["top", "wrist"])
    """top (straight down), side, wrist; [] for none"""
    image_size: tuple[Side, Side] = (240, 320)
    """height and width of their pictures"""
    quality: Annotated[int, Field(ge=1, le=100)] = 90
    """of the JPEGs that their streams would carry, 1-100"""
    max_steps: Count = 900
    """episode limit in control steps"""
    start_pose: dict[str, Number] = field(
        default_factory=lambda: {
            "shoulder_pan": 60.0,
            "shoulder_lift": -95.0,
            "elbow_flex": 88.0,
            "wrist_flex": 35.0,
            "wrist_roll": 0.0,
            "gripper": 5.0,
        }
    )
    """where an episode begins: joint -> degrees, the gripper % of its range"""

    entry_point = "tactus.hal.twin.robot:TwinRobot"

    def __post_init__(self) -> None:
        if set(self.start_pose) != set(JOINTS):
            raise ValueError(f"start_pose: found {', '.join(self.start_pose)}; accepted: each of {', '.join(JOINTS)}")

    def make(self) -> Robot:
        from tactus.hal.gym.robot import package

        package("mujoco", "twin")
        return super().make()


@RobotConfig.register_subclass("twin_scene")
class TwinSceneConfig(RobotConfig):
    """The table of `tactus twin`: lays the cube down, sees how an episode ends."""

    folder: FilePath = "outputs/twin"
    """the twin's folder"""

    entry_point = "tactus.hal.twin.scene:TwinScene"
