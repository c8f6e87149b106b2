"""Builds a LeRobotPolicy, importing of LeRobot only what its checkpoint takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.lerobot.own_modules import only_what_is_asked_for

if TYPE_CHECKING:
    from tactus.policies.lerobot.policy import LeRobotPolicy


def build(config: LeRobotConfig) -> LeRobotPolicy:
    """What `LeRobotPolicy(config)` is. Raises CheckpointError for a checkpoint that cannot be used as it is."""
    with only_what_is_asked_for():
        from tactus.policies.lerobot.policy import LeRobotPolicy

        return LeRobotPolicy(config)
