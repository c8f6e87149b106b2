"""Teleoperators: a person's hand in place of a policy."""

from tactus.hal.teleop.config import KeyboardConfig, LeaderConfig
from tactus.hal.teleop.teleoperator import Teleoperator, TeleoperatorConfig

__all__ = ["KeyboardConfig", "LeaderConfig", "Teleoperator", "TeleoperatorConfig"]
