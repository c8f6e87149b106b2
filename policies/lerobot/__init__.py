"""Any LeRobot checkpoint that predicts chunks, as a Policy. Importing this imports neither torch nor LeRobot."""

from tactus.policies.lerobot.config import LeRobotConfig

__all__ = ["LeRobotConfig"]
