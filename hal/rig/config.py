"""What describes a rig: named robots of any type that are driven as one."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field

from tactus.hal.config import NotNegative
from tactus.hal.robot import RobotConfig


@RobotConfig.register_subclass("rig")
class RigConfig(RobotConfig):
    """Several robots, cameras among them, as one. Their vectors are joined in the order of `parts`."""

    parts: Annotated[dict[str, RobotConfig], Field(min_length=1)] = field(default_factory=dict)
    """name -> robot, e.g. {left: {type: synthetic}, right: {type: synthetic}}"""
    task: str = ""
    """instruction; the first part's own if not given"""
    max_skew_ms: NotNegative | None = None
    """observing is an error if images were taken further apart than this; only counted if not given"""

    entry_point = "tactus.hal.rig.robot:build"
