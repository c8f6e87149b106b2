"""Teleoperators: a person's hand in place of a policy."""

from tactus.hal.teleop.keyboard import KeyboardConfig
from tactus.hal.teleop.leader import LeaderConfig
from tactus.hal.teleop.teleoperator import Teleoperator, TeleoperatorConfig

__all__ = ["KeyboardConfig", "LeaderConfig", "Teleoperator", "TeleoperatorConfig"]
