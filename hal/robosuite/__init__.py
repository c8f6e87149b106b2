"""robosuite's own tasks as a Robot. Importing this does not import robosuite."""

from tactus.hal.robosuite.config import RobosuiteConfig

__all__ = ["RobosuiteConfig"]
