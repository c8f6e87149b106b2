"""Importing this module registers every backend's config by name, without importing any backend's packages."""

from hal import gym, libero, rig, synthetic

__all__ = ["gym", "libero", "rig", "synthetic"]
