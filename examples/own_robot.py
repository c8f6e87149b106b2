"""A robot of your own, for every `tactus` command that runs in this file's folder:

tactus serve --policy.type=own_policy:HomingConfig &
tactus run --robot.type=own_robot:CartConfig --episodes=3          # in real time
tactus eval --robot.type=own_robot:CartConfig --latency=fixed:6    # the same robot on a virtual clock
"""

import time

import numpy as np

from tactus import Feature, Observation, Outcome, Robot, RobotConfig, RobotSpec

POSITION = Feature((1,), "float32", unit="m", names=("x",))
TARGET = Feature((1,), "float32", unit="m", names=("x",), low=(-1.0,), high=(1.0,), mode=("absolute",))
SPEC = RobotSpec("cart", 30, {"observation.state": POSITION}, TARGET)


class CartConfig(RobotConfig):
    """A cart on a rail of two metres, to be driven to its middle. Simulated here; a real one opens a device instead."""

    speed: float = 0.5
    """of its motor, in m/s: --robot.speed=0.8"""

    def make(self) -> Robot:
        return Cart(self.speed)


class Cart(Robot):
    """Goes towards the position it was sent last, as fast as its motor can. All of it stands in SPEC."""

    def __init__(self, speed: float) -> None:
        self.x, self.step = np.zeros(1, np.float32), speed / SPEC.fps

    @property
    def spec(self) -> RobotSpec:
        return SPEC

    def connect(self) -> None:
        """Here a real one opens its port, and raises RobotError with what to do if it cannot."""

    def reset(self, episode: int, seed: int) -> None:
        self.x = np.random.default_rng([seed, episode]).uniform(-1, 1, 1).astype(np.float32)

    def observe(self) -> Observation:
        return Observation({"observation.state": self.x.copy()}, {"observation.state": time.monotonic_ns()})

    def act(self, action: np.ndarray) -> np.ndarray:
        SPEC.action.check("action", action)
        self.x = self.x + np.clip(action - self.x, -self.step, self.step)
        return action  # what was really sent

    def outcome(self) -> Outcome:
        """A robot that cannot tell has none; then a person judges the episode, or --max_ticks ends it."""
        there = bool(abs(self.x[0]) < 0.01)
        return Outcome(success=there, done=there, reward=float(there))

    def close(self) -> None:
        """Called at any time, and more than once."""
