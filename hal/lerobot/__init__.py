"""Any robot or camera of LeRobot's as ours. LeRobot itself is imported only when one is made."""

from tactus.hal.lerobot.config import JointLimits, LeRobotCameraConfig, LeRobotConfig

__all__ = ["JointLimits", "LeRobotCameraConfig", "LeRobotConfig"]
