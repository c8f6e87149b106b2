"""Importing this module registers every backend's config by name, without importing any backend's packages."""

from hal import arm, camera, gym, lerobot, libero, rig, synthetic
from hal.twin import scene

__all__ = ["arm", "camera", "gym", "lerobot", "libero", "rig", "scene", "synthetic"]
