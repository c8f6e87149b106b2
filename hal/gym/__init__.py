"""Gymnasium environments as Robots. Importing this imports none of their packages."""

from tactus.hal.gym.config import AlohaConfig, GymConfig, MetaWorldConfig, PushTConfig

__all__ = ["AlohaConfig", "GymConfig", "MetaWorldConfig", "PushTConfig"]
