"""What describes the policies that follow a script: expert, picker, pusher, ticker, replay."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tactus.hal.config import Count, FilePath, NotNegative, Pixels, Share
from tactus.policies.policy import PolicyConfig


@PolicyConfig.register_subclass("expert")
class ExpertConfig(PolicyConfig):
    """Scripted pick and place for libero_object and libero_spatial; needs robot.environment_state."""

    horizon: Annotated[int, Field(ge=1, le=64)] = 16
    """actions per chunk, 1-64"""
    commit: Annotated[int, Field(ge=0, le=10**6)] = 8
    """ticks of the last plan that a new chunk repeats, as far as the robot still has actions: no less than the
    latency, so that what is executed before the chunk arrives is what it counts on"""
    images: bool = False
    """also ask for the two camera images, unread, so that renderer and wire carry what a vision policy's would"""
    image_size: tuple[Pixels, Pixels] = (256, 256)
    """height and width of those images; must be the robot's"""

    entry_point = "tactus.policies.scripted.expert:ExpertPolicy"


@PolicyConfig.register_subclass("picker")
class PickerConfig(PolicyConfig):
    """Scripted pick and place for a SO-100/SO-101 and the twin's table; needs the twin's scene in the rig or vision."""

    horizon: Annotated[int, Field(ge=1, le=300)] = 30
    """actions per chunk, 1-300"""
    commit: Annotated[int, Field(ge=0, le=10**6)] = 12
    """ticks of the last plan that a new one begins with, as far as the robot still has actions: no less than the
    latency, so that what is executed before a chunk arrives is what it counts on"""
    pace: Literal["time", "arm"] = "time"
    """what a plan goes on by: time, or where the arm is, as `tactus relabel` wants it for what another policy did"""
    vision: bool = False
    """find the cube in the picture of a camera called top, as the twin's is, instead of being told where it is"""
    image_size: tuple[Pixels, Pixels] = (240, 320)
    """height and width of that picture; must be the robot's"""

    entry_point = "tactus.policies.scripted.picker:PickerPolicy"


@PolicyConfig.register_subclass("pusher")
class PusherConfig(PolicyConfig):
    """Scripted push for robot.type=push: goes behind the block and on to the goal, or, if told so, does it badly."""

    horizon: Annotated[int, Field(ge=1, le=80)] = 8
    """actions per chunk, 1-80"""
    noise: Annotated[float, Field(ge=0, le=10)] = 0.0
    """standard deviation of what is added to each action, which is -1 to 1: for demonstrations that are not good"""
    mistakes: Share = 0.0
    """share of episodes that make one mistake all along, and mostly fail: they aim beside the block or beside the goal,
    or stall behind the block"""

    entry_point = "tactus.policies.scripted.pusher:PusherPolicy"


@PolicyConfig.register_subclass("ticker")
class TickerConfig(PolicyConfig):
    """Counts ticks; fits robot.type=synthetic of the same width, cameras and image_size."""

    width: Annotated[int, Field(ge=1, le=100_000)] = 7
    """number of action dimensions; the last one is binary"""
    horizon: Count = 50
    """actions per chunk"""
    cameras: Annotated[int, Field(ge=0, le=64)] = 0
    """how many camera images it asks for"""
    image_size: tuple[Pixels, Pixels] = (240, 320)
    """height and width of each"""
    infer_ms: NotNegative = 0.0
    """how long it pretends to think, in ms"""

    entry_point = "tactus.policies.scripted.ticker:build"


@PolicyConfig.register_subclass("replay")
class ReplayConfig(PolicyConfig):
    """Recorded actions, whatever the robot sees."""

    path: FilePath = ""
    """an .npz with `actions` [T, A] and `feature`, e.g. OUTPUT_DIR/actions/episode_00000.npz"""
    horizon: Count = 16
    """actions per chunk"""

    entry_point = "tactus.policies.scripted.replay:build"
