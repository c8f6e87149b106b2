"""A synthetic robot for measuring the runtime itself: images of any size and any work per tick."""

from __future__ import annotations

import time

import numpy as np

from tactus.hal.robot import Outcome, Robot, RobotError
from tactus.hal.spec import IMAGES, STATE, Feature, Mode, Observation, RobotSpec, image
from tactus.hal.synthetic.config import SyntheticConfig


class SyntheticRobot(Robot):
    """Adds its actions up: state[t+1] = state[t] + action[t]; success when the episode ends with a finite state."""

    def __init__(self, config: SyntheticConfig) -> None:
        self._config = config
        self._state = np.zeros(config.width, np.float32)
        self._steps = 0
        names = tuple(f"joint_{i}" for i in range(config.width))
        observations = {STATE: Feature((config.width,), "float32", names=names)}
        for camera in range(config.cameras):
            observations[f"{IMAGES}camera_{camera}"] = image(*config.image_size)
        modes: tuple[Mode, ...] = ("delta",) * (config.width - 1) + ("binary",)
        high = () if config.limit is None else (config.limit,) * config.width
        low = tuple(-limit for limit in high)
        action = Feature((config.width,), "float32", names=names, low=low, high=high, mode=modes)
        self._spec = RobotSpec("synthetic", config.fps, observations, action)

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def connect(self) -> None:
        pass

    def reset(self, episode: int, seed: int) -> None:
        self._state = np.random.default_rng([seed, episode]).normal(size=self._config.width).astype(np.float32)
        self._steps = 0

    def observe(self) -> Observation:
        arrays: dict[str, np.ndarray] = {STATE: self._state.copy()}
        for camera in range(self._config.cameras):
            size = (*self._config.image_size, 3)
            arrays[f"{IMAGES}camera_{camera}"] = np.full(size, self._steps % 256, np.uint8)
        now = time.monotonic_ns()
        return Observation(arrays, dict.fromkeys(arrays, now))

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        if self._config.limit is not None and not (np.abs(action) <= self._config.limit).all():
            raise RobotError(f"action {action.tolist()} at step {self._steps} is beyond {self._config.limit:g}")
        until = time.perf_counter() + self._config.work_ms / 1000
        while time.perf_counter() < until:
            pass
        self._state = self._state + action
        self._steps += 1
        return action

    def outcome(self) -> Outcome:
        done = self._steps >= self._config.steps
        return Outcome(success=done and bool(np.isfinite(self._state).all()), done=done, reward=0.0)

    def close(self) -> None:
        pass
