"""The safety layer in front of every robot with torque."""

from tactus.hal.governor.config import GovernorConfig
from tactus.hal.governor.governor import Governor
from tactus.hal.governor.vitals import VitalsConfig

__all__ = ["Governor", "GovernorConfig", "VitalsConfig"]
