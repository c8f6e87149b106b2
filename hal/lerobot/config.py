"""What describes a robot or camera that LeRobot drives: LeRobot's own type and its own options."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from tactus.hal.config import Config, Hz, Number, Positive, Seconds
from tactus.hal.governor.config import GovernedConfig
from tactus.hal.robot import RobotConfig


class JointLimits(Config):
    """What is not given comes from the calibration, and the speed from `velocity`."""

    low: Number | None = None
    """lower bound of position, in the action's unit"""
    high: Number | None = None
    """upper bound of position, in the action's unit"""
    velocity: Positive | None = None
    """highest speed, in the action's unit per s"""


@RobotConfig.register_subclass("lerobot")
class LeRobotConfig(GovernedConfig):
    """Any robot of LeRobot's, by its own type and options. The calibration is LeRobot's too."""

    robot: str = "so101_follower"
    """LeRobot's robot type: so100_follower, so101_follower, koch_follower, bi_so_follower, …"""
    args: dict[str, Any] = field(default_factory=dict)
    """its options, e.g. {port: /dev/ttyACM0, id: blue, cameras: {top: {type: opencv, index_or_path: 0, …}}}"""
    fps: Hz = 30.0
    """control rate in Hz"""
    task: str = ""
    """instruction for policies that read one"""
    velocity: Positive = 180.0
    """highest speed of every joint, in the action's unit per s"""
    limits: dict[str, JointLimits] = field(default_factory=dict)
    """joint: {low, high, velocity}; needed for joints that have no calibrated motor bus"""

    entry_point = "tactus.hal.lerobot.hardware:LeRobotHardware"


@RobotConfig.register_subclass("lerobot_camera")
class LeRobotCameraConfig(RobotConfig):
    """Any camera of LeRobot's, by its own type and options. Unlike type `camera`, it is not reopened."""

    camera: str = "opencv"
    """LeRobot's camera type: opencv, intelrealsense, zmq, …"""
    args: dict[str, Any] = field(default_factory=dict)
    """its options, width and height among them: {serial_number_or_name: "0123", width: 640, height: 480, fps: 30}"""
    name: str = "camera"
    """the image is called observation.images.<name>"""
    fps: Hz = 30.0
    """rate in Hz"""
    give_up_s: Seconds = 2.0
    """observing is an error after so long without a frame"""

    entry_point = "tactus.hal.lerobot.camera:LeRobotCamera"
