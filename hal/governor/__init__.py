"""The safety layer in front of every robot with torque."""

from hal.governor.config import GovernorConfig
from hal.governor.governor import Governor
from hal.governor.vitals import VitalsConfig

__all__ = ["Governor", "GovernorConfig", "VitalsConfig"]
