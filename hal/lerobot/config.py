"""Robots that LeRobot drives, by LeRobot's own type and options. Importing this does not import LeRobot."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.robot import Robot, RobotConfig

if TYPE_CHECKING:
    from tactus.hal.lerobot.hardware import LeRobotHardware


@dataclass(frozen=True)
class JointLimits:
    """What is not given comes from the calibration, and the speed from `velocity`."""

    low: float | None = None
    """lower bound of position, in the action's unit"""
    high: float | None = None
    """upper bound of position, in the action's unit"""
    velocity: float | None = None
    """highest speed, in the action's unit per s"""


@RobotConfig.register_subclass("lerobot")
@dataclass
class LeRobotConfig(RobotConfig):
    """`robot` is LeRobot's own type, `args` are its own options; the calibration is LeRobot's too."""

    robot: str = "so101_follower"
    """LeRobot's robot type: so100_follower, so101_follower, koch_follower, bi_so_follower, …"""
    args: dict[str, Any] = field(default_factory=dict)
    """its options, e.g. {port: /dev/ttyACM0, id: blue, cameras: {top: {type: opencv, index_or_path: 0, …}}}"""
    fps: float = 30.0
    """control rate in Hz"""
    task: str = ""
    """instruction for policies that read one"""
    velocity: float = 180.0
    """highest speed of every joint, in the action's unit per s"""
    limits: dict[str, JointLimits] = field(default_factory=dict)
    """joint: {low, high, velocity}; needed for joints that have no calibrated motor bus"""
    governor: GovernorConfig = field(default_factory=GovernorConfig)
    """safety: limits, starvation, emergency stop, how it ends"""

    def make(self) -> Robot:
        from tactus.hal.governor import Governor

        return Governor(self.hardware(), self.governor)

    def hardware(self) -> LeRobotHardware:
        """The robot without its safety layer, for diagnosis. Torque stays off unless somebody switches it on."""
        from tactus.hal.lerobot.hardware import LeRobotHardware

        return LeRobotHardware(self)
