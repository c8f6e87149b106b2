"""A robot with a camera of every size: its pictures say where up and left are, and which tick it is."""

from __future__ import annotations

from dataclasses import field, replace

import numpy as np

from tactus.hal.config import Count, Hz
from tactus.hal.robot import Outcome, Robot, RobotConfig
from tactus.hal.spec import IMAGES, STATE, Observation, RobotSpec, image
from tactus.hal.synthetic.config import SyntheticConfig
from tactus.hal.synthetic.robot import SyntheticRobot

SIZES = [
    *[(1, 1), (2, 2), (1, 7), (7, 1), (3, 5), (5, 3), (3, 3), (1, 3), (3, 1), (16, 16), (24, 24), (32, 16), (16, 32)],
    *[(4, 900), (900, 4), (17, 97), (32, 32), (63, 63), (63, 65), (65, 63), (64, 64), (65, 67), (64, 321), (241, 64)],
    *[(64, 8193), (8193, 64), (64, 16384), (64, 16385), (8704, 64), (8705, 64), (2, 66000), (240, 320)],
]
"""Height and width in pixels."""


def name(height: int, width: int) -> str:
    return f"{IMAGES}h{height}w{width}"


def picture(height: int, width: int, tick: int) -> np.ndarray:
    """Smooth, so that a video keeps it: red grows to the right, green downwards, blue with the tick."""
    red, green = np.meshgrid(np.linspace(40, 200, width), np.linspace(200, 40, height))
    return np.stack([red, green, np.full((height, width), 20.0 + 30 * tick)], axis=-1).astype(np.uint8)


class SizesRobot(SyntheticRobot):
    def __init__(self, config: SizesConfig) -> None:
        super().__init__(SyntheticConfig(width=3, steps=config.steps, fps=config.fps))
        self._sizes, self._fails = config.sizes, config.fails
        cameras = {name(*size): image(*size) for size in config.sizes}
        self._spec = RobotSpec("sizes", config.fps, {**self._spec.observations, **cameras}, self._spec.action)

    def observe(self) -> Observation:
        state = super().observe()
        arrays = {STATE: state.arrays[STATE]} | {name(*size): picture(*size, self._steps) for size in self._sizes}
        return Observation(arrays, dict.fromkeys(arrays, state.stamps_ns[STATE]))

    def outcome(self) -> Outcome:
        outcome = super().outcome()
        return replace(outcome, success=outcome.success and not self._fails)


class SizesConfig(RobotConfig):
    """Cameras of many sizes."""

    fps: Hz = 30.0
    """control rate"""
    steps: Count = 4
    """ticks"""
    sizes: list[tuple[int, int]] = field(default_factory=lambda: SIZES)
    """of the cameras"""
    fails: bool = False
    """every episode does"""

    def make(self) -> Robot:
        return SizesRobot(self)
