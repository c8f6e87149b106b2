"""Importing this module registers every backend's config by name, without importing any backend's packages."""

from hal import camera, gym, libero, rig, synthetic

__all__ = ["camera", "gym", "libero", "rig", "synthetic"]
