"""Noise on a robot's actions: for demonstrations that also show how to get back on track."""

from __future__ import annotations

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import SpecError
from tactus.hal.wrappers.wrapper import RobotWrapper


class NoisyRobot(RobotWrapper):
    """`robot`, with a Gaussian offset on every action dimension that is not a switch.

    std: of the offset, as a share of half a dimension's range; in the dimension's own unit where it has no bounds.
    hold_ticks: each offset is drawn anew after so many ticks. Equal episode and seed give equal offsets. `act`
    returns what was really sent, so that a recording holds both what was meant and what was done (DART, Laskey
    et al. 2017: noise in the demonstrator's actions shows the states a learner's own errors lead to).
    """

    def __init__(self, robot: Robot, std: float, hold_ticks: int = 1) -> None:
        if std < 0 or hold_ticks < 1:
            raise SpecError(f"noise: found std {std:g}, hold_ticks {hold_ticks}; accepted: from 0, from 1")
        super().__init__(robot)
        self._hold_ticks = hold_ticks
        action = robot.spec.action
        scale = (np.array(action.high) - np.array(action.low)) / 2 if action.high else np.ones(action.shape)
        switches = np.array([mode == "binary" for mode in action.mode] or [False] * len(scale))
        self._std = np.where(switches, 0.0, std * scale)
        self._generator = np.random.default_rng(0)
        self._offset = np.zeros(action.shape)
        self._steps = 0

    def reset(self, episode: int, seed: int) -> None:
        super().reset(episode, seed)
        self._generator = np.random.default_rng([seed, episode])
        self._steps = 0

    def change(self, action: np.ndarray) -> np.ndarray:
        if self._steps % self._hold_ticks == 0:
            self._offset = self._generator.normal(size=self._std.shape) * self._std
        self._steps += 1
        feature = self.spec.action
        moved = action + self._offset
        if feature.high:
            # an action that is out of bounds already is the robot's own to limit
            moved = np.clip(moved, np.minimum(feature.low, action), np.maximum(feature.high, action))
        return moved.astype(feature.dtype)
