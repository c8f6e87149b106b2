"""What describes the synthetic robot: how wide, how many cameras, how much work a tick."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tactus.hal.config import Count, Hz, NotNegative, Pixels, Positive
from tactus.hal.robot import RobotConfig


@RobotConfig.register_subclass("synthetic")
class SyntheticConfig(RobotConfig):
    """Arithmetic, for measuring the runtime itself.

    Integrates its actions; every pixel of its images is the number of actions taken, modulo 256.
    """

    fps: Hz = 30.0
    """control rate in Hz"""
    width: Annotated[int, Field(ge=1, le=100_000)] = 7
    """number of action dimensions; the last one is binary"""
    cameras: Annotated[int, Field(ge=0, le=64)] = 0
    """how many cameras"""
    image_size: tuple[Pixels, Pixels] = (240, 320)
    """height and width of each camera image"""
    steps: Count = 300
    """ticks until an episode is done"""
    work_ms: NotNegative = 0.0
    """busy time of each act(), in ms"""
    limit: Positive | None = None
    """bound of each action dimension, either way, in the spec: an action beyond it is an error; not given: unbounded"""

    entry_point = "tactus.hal.synthetic.robot:SyntheticRobot"
