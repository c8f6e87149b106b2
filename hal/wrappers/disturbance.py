"""What is done to a robot, or kept from a policy, to see how it copes."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field

from tactus.hal.config import Config, Count, Names
from tactus.hal.robot import Robot
from tactus.hal.wrappers.noise import NoisyRobot
from tactus.hal.wrappers.occlusion import OccludedRobot


class Disturbance(Config):
    """Disturbance."""

    action_noise: Annotated[float, Field(ge=0, le=100)] = 0.0
    """disturb the robot: standard deviation, as a share of half of each action dimension's range"""
    action_noise_ticks: Count = 1
    """the disturbance is drawn anew after so many ticks"""
    occlude: Annotated[list[str], Names] = field(default_factory=list)
    """cameras that are black and vectors that are 0, by their names, e.g. [image,image2]: what does the policy need?"""

    def applied_to(self, robot: Robot) -> Robot:
        """Raises SpecError for what the robot does not observe."""
        if self.occlude:
            robot = OccludedRobot(robot, self.occlude)
        return NoisyRobot(robot, self.action_noise, self.action_noise_ticks) if self.action_noise else robot
