"""A Robot made of named Robots: arms, cameras, a whole cell."""

from tactus.hal.rig.config import RigConfig

__all__ = ["RigConfig"]
