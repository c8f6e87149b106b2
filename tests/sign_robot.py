"""A robot that is practised on in milliseconds: an episode succeeds if its actions are on average above a level.

An untrained flow policy succeeds in about half of the episodes, by its noise alone, and can learn to always do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tactus import Feature, Observation, Outcome, Robot, RobotConfig, RobotSpec
from tactus.hal.robot import Scene
from tactus.hal.spec import STATE
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import FlowNetwork, Shape, save
from tactus.policies.policy import PolicyConfig

FEATURES = {STATE: Feature((2,), "float32", unit="1")}
ACTION = Feature((2,), "float32", unit="1")
H = 4


class SignRobot(Robot):
    """state: where the episode began, and the tick. `starts`: how many different beginnings there are."""

    def __init__(self, config: SignConfig) -> None:
        self._config = config
        self._spec = RobotSpec("sign", 20.0, FEATURES, ACTION)
        self._start, self._actions = 0.0, [np.zeros(2)]

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    def connect(self) -> None:
        pass

    def scene(self, episode: int) -> Scene:
        return Scene("push up", "sign", {"init_state": episode % self._config.starts})

    def reset(self, episode: int, seed: int) -> None:
        self._start, self._actions = float(np.sin(episode % self._config.starts)), []

    def observe(self) -> Observation:
        return Observation({STATE: np.array([self._start, len(self._actions)], np.float32)})

    def act(self, action: np.ndarray) -> np.ndarray:
        self._actions.append(np.array(action))
        return action

    def outcome(self) -> Outcome:
        done = len(self._actions) >= self._config.ticks
        success = done and float(np.mean(self._actions)) > self._config.level
        return Outcome(success, done, float(success))

    def close(self) -> None:
        pass


class SignConfig(RobotConfig):
    """Named as sign_robot:SignConfig."""

    starts: int = 40
    ticks: int = 8
    level: float = 0.0

    entry_point = "sign_robot:SignRobot"


def untrained(folder: Path) -> PolicyConfig:
    """A flow policy for it that gives back its noise, more or less."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = FlowNetwork(Shape(FEATURES, ACTION, H, hidden=32, blocks=1, num_steps=2))
    torch.nn.init.zeros_(network.out[1].weight)  # type: ignore[arg-type]
    torch.nn.init.zeros_(network.out[1].bias)  # type: ignore[arg-type]
    save(network, folder)
    return FlowConfig(path=str(folder))
