"""Any robot or camera of LeRobot's as ours. LeRobot itself is imported only when one is made."""

from hal.lerobot.camera import LeRobotCameraConfig
from hal.lerobot.config import JointLimits, LeRobotConfig

__all__ = ["JointLimits", "LeRobotCameraConfig", "LeRobotConfig"]
