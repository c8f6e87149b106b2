"""Importing this module registers every backend's config by name, without importing any backend's packages."""

from hal import camera, gym, lerobot_camera, lerobot_robot, libero, rig, synthetic

__all__ = ["camera", "gym", "lerobot_camera", "lerobot_robot", "libero", "rig", "synthetic"]
