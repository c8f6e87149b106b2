"""What a twin is made of: its arms, its world, its adapters."""

from __future__ import annotations

from dataclasses import dataclass, field

from tactus.hal.servo.registers import BAUDRATES
from tactus.hal.twin.cameras import CamerasConfig

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
"""Of every arm, in the order of the servos' ids, 1 to 6."""
KINDS = {"so101": "feetech", "koch": "dynamixel"}
"""Kinds of arm, and the protocol each speaks unless told otherwise."""
MODELS = {
    "feetech": ("sts3215",) * 6,
    "dynamixel": ("xl430-w250", "xl430-w250", "xl330-m288", "xl330-m288", "xl330-m288", "xl330-m288"),
}
ROLES = ("follower", "leader")
WORLDS = ("table", "kinematic")


@dataclass
class ArmConfig:
    """One emulated arm. Mechanics are always the SO-101's; a koch is that with Dynamixels in it."""

    kind: str = "so101"
    """so101 or koch"""
    protocol: str | None = None
    """feetech or dynamixel; not given: what its kind has"""
    role: str = "follower"
    """follower or leader; for whoever reads twin.json"""
    baudrate: int = 1_000_000
    """what its servos are set to"""
    calibrated: bool = True
    """servos homed and limited, as calibration/ARM.json says; false: as from the factory, and no such file"""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"arms.*.kind: found {self.kind!r}; accepted: {', '.join(KINDS)}")
        self.protocol = self.protocol or KINDS[self.kind]
        if self.protocol not in MODELS:
            raise ValueError(f"arms.*.protocol: found {self.protocol!r}; accepted: {', '.join(MODELS)}")
        rates = BAUDRATES["feetech" if self.protocol == "feetech" else "dynamixel"]
        if self.baudrate not in rates:
            raise ValueError(f"arms.*.baudrate: found {self.baudrate}; accepted: {', '.join(map(str, rates))}")
        if self.role not in ROLES:
            raise ValueError(f"arms.*.role: found {self.role!r}; accepted: {', '.join(ROLES)}")


@dataclass
class TwinConfig:
    """An emulated rig, in a folder."""

    folder: str = "outputs/twin"
    """where ports/, control, writes.jsonl, calibration/ and twin.json appear"""
    arms: dict[str, ArmConfig] = field(default_factory=lambda: {"follower": ArmConfig()})
    """name -> arm (kind, protocol, role, baudrate, calibrated): --arms.left.kind=so101 --arms.right.kind=koch, or in a
    config file; not given: a so101 called follower"""
    world: str = "table"
    """table: MuJoCo, with cube, bin and cameras; kinematic: joints that follow their goals, nothing else"""
    model: str | None = None
    """an MJCF of one arm to use instead of the built-in one (world=table)"""
    cameras: CamerasConfig = field(default_factory=CamerasConfig)
    """the rig's cameras, served as MJPEG streams (world=table)"""
    usb_latency_ms: float = 1.0
    """latency timer of the arms' USB adapters; 16 is an FTDI as it comes"""
    parent: int | None = None
    """end when the process with this id does"""

    def __post_init__(self) -> None:
        if self.world not in WORLDS:
            raise ValueError(f"world: found {self.world!r}; accepted: {', '.join(WORLDS)}")
        if not self.arms:
            raise ValueError("arms: found none; name at least one")
        if not self.usb_latency_ms >= 0:
            raise ValueError(f"usb_latency_ms: found {self.usb_latency_ms}; must not be negative")
        for name in self.arms:
            if not name.isidentifier():
                raise ValueError(f"arms: found the name {name!r}; accepted: letters, digits and _")
