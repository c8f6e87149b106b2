"""The safety layer in front of every robot with torque."""

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.governor.health_monitor import VitalsConfig

__all__ = ["Governor", "GovernorConfig", "VitalsConfig"]
