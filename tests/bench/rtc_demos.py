"""Demonstrations of several minds for rtc_seams.py: the scripted expert on LIBERO, each episode in a style of its own.

The expert itself always does the same, and a policy that learnt from it has nothing to disagree with itself about.
People do not: so here, on long ways, the hand swings to the left and to the right of where it leads, and slows down
and hurries, in a rhythm that every episode has of its own. An observation shows where it is and how fast, but not
what it will do next, so that a policy must choose anew with every chunk. Close to the objects all are one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hal.libero import LiberoConfig
from hal.robot import Robot
from hal.spec import ENVIRONMENT_STATE, STATE
from policies.expert import ExpertConfig
from policies.policy import Policy, Request, Session

TASKS = [1, 6]
HELD_OUT = list(range(40, 50))
"""Init states that are kept for evaluation."""
PER_TASK = 60
SLOWEST = 0.5
"""Speeds swing between this and 1, the expert's own."""
TURN_RAD = 0.7
"""How far the hand swings to either side."""
PERIOD_TICKS = (15.0, 40.0)
"""How long a swing takes, there and back."""
LONG = 0.4
"""Sideways action from which a way is long: the expert brakes when it gets near."""
NOISE, NOISE_TICKS = 0.3, 4
"""The robot is nudged (standard deviation of the action, held for so many ticks) but what was meant is recorded, so
that the demonstrations also show how to get back on track (DART, Laskey et al. 2017)."""
SEED = 0


class Demos(NamedTuple):
    """observations: [T, 22] per episode, state and environment_state. actions: [T, 7]. success: per episode."""

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    success: list[bool]


def libero(tasks: list[int], init_states: list[int]) -> Robot:
    config = LiberoConfig("libero_object", tasks=tasks, init_states=init_states, cameras=[], assets="primitive")
    return config.make()


def record(file: Path) -> Demos:
    """The demonstrations, from `file` if they are there."""
    if not file.is_file():
        demos = _record()
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"observations_{i}": episode for i, episode in enumerate(demos.observations)}
        arrays |= {f"actions_{i}": episode for i, episode in enumerate(demos.actions)}
        np.savez_compressed(file, success=np.array(demos.success), **arrays)
    with np.load(file, allow_pickle=False) as data:
        success = data["success"].tolist()
        observations, actions = ([data[f"{name}_{i}"] for i in range(len(success))] for name in Demos._fields[:2])
    return Demos(observations, actions, success)


def _record() -> Demos:
    demos = Demos([], [], [])
    expert = ExpertConfig(horizon=1, commit=0).make()
    states = [state for state in range(50) if state not in HELD_OUT]
    for task in TASKS:
        robot = libero([task], states)
        for turn in range(PER_TASK):
            observations, actions = _episode(robot, expert, turn, np.random.default_rng([SEED, task, turn]))
            demos.observations.append(observations)
            demos.actions.append(actions)
            outcome = robot.outcome()
            demos.success.append(outcome is not None and outcome.success)
        robot.close()
    return demos


def _episode(robot: Robot, expert: Policy, turn: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    robot.reset(turn, SEED)
    task = robot.scene(turn).task
    expert.reset(Session("demo", SEED, task))
    periods, phases = rng.uniform(*PERIOD_TICKS, size=2), rng.uniform(0, 2 * np.pi, size=2)
    nudge = np.zeros(7)
    observations, actions = [], []
    while (outcome := robot.outcome()) is not None and not outcome.done:
        tick = len(actions)
        observation = replace(robot.observe(), tick=tick, task=task)
        [chunk] = expert.infer([Request("demo", observation)])
        side, hurry = np.sin(2 * np.pi * tick / periods + phases)
        action = _styled(chunk.actions[0], float(side), float(hurry))
        observations.append(np.concatenate([observation.arrays[STATE], observation.arrays[ENVIRONMENT_STATE]]))
        actions.append(action)
        if tick % NOISE_TICKS == 0:
            nudge[:3] = rng.normal(size=3) * NOISE
        robot.act(np.clip(action + nudge, -1, 1).astype(np.float32))
    return np.stack(observations).astype(np.float32), np.stack(actions)


def _far(action: np.ndarray) -> float:
    """From 0 near an object to 1 on a long way."""
    return float(np.clip((np.hypot(*action[:2]) - LONG) / LONG, 0, 1))


def _styled(action: np.ndarray, side: float, hurry: float) -> np.ndarray:
    """side, hurry: from -1 to 1."""
    far = _far(action)
    angle, gain = side * TURN_RAD * far, 1 - (1 - SLOWEST) * (1 - hurry) / 2 * far
    turned = action.copy()
    turned[0] = np.cos(angle) * action[0] - np.sin(angle) * action[1]
    turned[1] = np.sin(angle) * action[0] + np.cos(angle) * action[1]
    turned[:3] = np.clip(turned[:3] * gain, -1, 1)
    return turned
