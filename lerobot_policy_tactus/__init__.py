"""What LeRobot's commands import because of its name: it makes --policy.type=tactus known to them."""

from tactus.runtime.lerobot_policy.configuration_tactus import TactusConfig

__all__ = ["TactusConfig"]
