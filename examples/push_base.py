"""A base to practise from: a small flow policy, trained in seconds on demonstrations of which most make a mistake.

python examples/push_base.py outputs/push_base          # and a seed, if it shall not be 0
"""

import sys
from pathlib import Path

import numpy as np
import torch

from tactus import Observation, Robot
from tactus.hal.push import PushConfig
from tactus.hal.spec import ENVIRONMENT_STATE, STATE
from tactus.hal.wrappers.wrapper import RobotWrapper
from tactus.policies.flow.config import FlowConfig
from tactus.policies.flow.network import FlowNetwork, Shape, save
from tactus.policies.flow.training import train
from tactus.policies.scripted.config import PusherConfig
from tactus.runtime.distillation.rollouts import play

DEMONSTRATIONS, GOOD = 60, 9
NOISE = 0.3  # of all of them, in shares of the largest action
STEPS = 600
HELD_OUT = range(1000, 1100)  # episodes that no demonstration begins as


class Recorded(RobotWrapper):
    """Keeps what was really sent."""

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot)
        self.sent: list[np.ndarray] = []

    def act(self, action: np.ndarray) -> np.ndarray:
        self.sent.append(super().act(action))
        return self.sent[-1]


def demonstrations(robot: Robot, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Observations [T, 8] and actions [T, 2] of each: the first few are good, most of the others fail."""
    observations, actions = [], []
    for episode in range(DEMONSTRATIONS):
        pusher = PusherConfig(noise=NOISE, mistakes=float(episode >= GOOD)).make()
        recorded, seen = Recorded(robot), []
        play(recorded, pusher, episode, seed, lambda one, seen=seen: seen.append(vector(one)))
        observations.append(np.array(seen))
        actions.append(np.array(recorded.sent))
    return observations, actions


def vector(observation: Observation) -> np.ndarray:
    return np.concatenate([observation.arrays[STATE], observation.arrays[ENVIRONMENT_STATE]])


def trained(robot: Robot, seed: int) -> FlowNetwork:
    inputs = {name: robot.spec.observations[name] for name in (STATE, ENVIRONMENT_STATE)}
    shape = Shape(inputs, robot.spec.action, horizon=8, fps=robot.spec.fps, hidden=128, blocks=3, num_steps=4)
    return train(shape, *demonstrations(robot, seed), steps=STEPS, seed=seed)


def success(robot: Robot, folder: Path, scale: float) -> float:
    """Share of the held-out episodes in which the policy succeeds, with its noise scaled."""
    policy = FlowConfig(path=str(folder)).make()
    flow = policy.flow
    assert flow is not None
    drawn = flow.noise
    flow.noise = lambda generators: scale * drawn(generators)
    return float(np.mean([play(robot, policy, episode, seed=0) for episode in HELD_OUT]))


def main(folder: Path, seed: int = 0) -> None:
    torch.set_num_threads(1)  # it is small: more of them only wait for each other
    with PushConfig().make() as robot:
        save(trained(robot, seed), folder)
        for scale in (1.0, 0.0):
            print(f"noise scale {scale:g}: succeeds in {success(robot, folder, scale):.0%} of {len(HELD_OUT)} episodes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
