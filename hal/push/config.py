"""What describes the planar push: how long an episode is, and whether there is a camera."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tactus.hal.config import Count
from tactus.hal.robot import RobotConfig

Side = Annotated[int, Field(ge=16, le=512)]


@RobotConfig.register_subclass("push")
class PushConfig(RobotConfig):
    """A round pusher brings a block to its goal on a table, at 20 Hz. Needs MuJoCo: the extra gym or libero.

    Episode i begins as the seed and i say.
    """

    max_steps: Count = 60
    """episode limit in control steps"""
    camera: bool = False
    """also give observation.images.top, which is rendered only when a policy or a video reads it"""
    image_size: tuple[Side, Side] = (96, 96)
    """height and width of that picture"""

    entry_point = "tactus.hal.push.robot:PushRobot"
