"""What describes a teleoperator: keys, or an arm that is moved by hand."""

from __future__ import annotations

from tactus.hal.config import Positive
from tactus.hal.robot import RobotConfig
from tactus.hal.teleop.teleoperator import TeleoperatorConfig


@TeleoperatorConfig.register_subclass("keyboard")
class KeyboardConfig(TeleoperatorConfig):
    """q w e r t y raise joints 1 to 6, a s d f g h lower them."""

    step: Positive = 2.0
    """what one key press moves, in the joint's units"""

    entry_point = "tactus.hal.teleop.keyboard:Keyboard"


@TeleoperatorConfig.register_subclass("leader")
class LeaderConfig(TeleoperatorConfig):
    """Any robot whose state has the names and units of the follower's action: an arm, or a rig of arms."""

    arm: RobotConfig | None = None
    """the arm to move by hand, e.g. {type: so100, port: /dev/ttyACM1, calibration: leader.json}"""
    takes_over_at: Positive | None = 8.0
    """beside a policy: moved by so much, in a joint's units, it takes over; null: only a key does"""
    follows: bool = False
    """beside a policy: its motors follow the robot, so that it takes over where that is; they go limp when it does"""

    entry_point = "tactus.hal.teleop.leader:build"
