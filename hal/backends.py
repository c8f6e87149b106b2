"""Importing this module registers every backend's config by name, without importing any backend's packages."""

from tactus.hal import arm, camera, gym, lerobot, libero, push, rig, robosuite, synthetic
from tactus.hal.twin import config as twin

__all__ = ["arm", "camera", "gym", "lerobot", "libero", "push", "rig", "robosuite", "synthetic", "twin"]
