"""Teleoperators: a person's hand in place of a policy."""

from hal.teleop.keyboard import KeyboardConfig
from hal.teleop.leader import LeaderConfig
from hal.teleop.teleoperator import Teleoperator, TeleoperatorConfig

__all__ = ["KeyboardConfig", "LeaderConfig", "Teleoperator", "TeleoperatorConfig"]
