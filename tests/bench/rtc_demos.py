"""Demonstrations of several minds for rtc_seams.py: the scripted expert on LIBERO, each episode in a style of its own.

The expert itself always does the same, and a policy that learnt from it has nothing to disagree with itself about.
People do not: so here, on long ways, the hand swings to the left and to the right of where it leads, and slows down
and hurries, in a rhythm that every episode has of its own. An observation shows where it is and how fast, but not
what it will do next, so that a policy must choose anew with every chunk. Close to the objects all are one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from tactus.hal.libero import LiberoConfig
from tactus.hal.robot import Robot
from tactus.hal.spec import ENVIRONMENT_STATE, STATE
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.scripted.expert import ExpertConfig
from tactus.policies.scripted.expert_grasps import Job
from tactus.policies.scripted.expert_plan import World, step

TASKS = [1, 6]
HELD_OUT = list(range(40, 50))
"""Init states that are kept for evaluation."""
PER_TASK = 50
SLOWEST = 0.5
"""Speeds swing between this and 1, the expert's own."""
TURN_RAD = 0.7
"""How far the hand swings to either side."""
PERIOD_TICKS = (15.0, 40.0)
"""How long a swing takes, there and back."""
LONG = 0.4
"""Sideways action from which a way is long: the expert brakes when it gets near."""
NOISE, NOISE_TICKS = 0.3, 4
"""The robot is nudged (standard deviation of the action, held for so many ticks) but what was meant is recorded: at
every tick, the plan for the next HORIZON ticks without any more nudges. So the demonstrations show how to get back on
track (DART, Laskey et al. 2017), and not how to answer nudges that nobody can foresee."""
HORIZON = 20
SEED = 0


class Demos(NamedTuple):
    """observations: [T, 22] per episode, state and environment_state. actions: [T, HORIZON, 7], from each tick on as
    they were meant. success: per episode."""

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
    expert = ExpertConfig(horizon=HORIZON, commit=0).make()
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
    mood = Mood(rng.uniform(*PERIOD_TICKS, size=2), rng.uniform(0, 2 * np.pi, size=2))
    nudge = np.zeros(7)
    observations, actions = [], []
    with mock.patch("tactus.policies.scripted.expert.plan", mood.plan):
        while (outcome := robot.outcome()) is not None and not outcome.done:
            mood.tick = len(actions)
            observation = replace(robot.observe(), tick=mood.tick, task=task)
            [chunk] = expert.infer([Request("demo", observation)])
            observations.append(np.concatenate([observation.arrays[STATE], observation.arrays[ENVIRONMENT_STATE]]))
            actions.append(chunk.actions)
            if mood.tick % NOISE_TICKS == 0:
                nudge[:3] = rng.normal(size=3) * NOISE
            robot.act(np.clip(chunk.actions[0] + nudge, -1, 1).astype(np.float32))
    return np.stack(observations).astype(np.float32), np.stack(actions)


@dataclass
class Mood:
    """An episode's swings. periods, phases: [2], sideways and of speed, in ticks and rad. tick: the plan's first."""

    periods: np.ndarray
    phases: np.ndarray
    tick: int = 0

    def plan(self, job: Job, world: World, horizon: int, committed: np.ndarray) -> tuple[np.ndarray, list[World]]:
        """In place of the expert's own: the same steps, each of them swung before it is taken."""
        actions, worlds = np.zeros((horizon, 7), np.float32), [world]
        for i in range(horizon):
            meant, _ = step(job, world)
            actions[i], world = step(job, world, self._swung(meant, self.tick + i))
            worlds.append(world)
        return actions, worlds

    def _swung(self, action: np.ndarray, tick: int) -> np.ndarray:
        far = float(np.clip((np.hypot(*action[:2]) - LONG) / LONG, 0, 1))
        side, hurry = np.sin(2 * np.pi * tick / self.periods + self.phases)
        angle, gain = side * TURN_RAD * far, 1 - (1 - SLOWEST) * (1 - hurry) / 2 * far
        swung = action.copy()
        swung[0] = np.cos(angle) * action[0] - np.sin(angle) * action[1]
        swung[1] = np.sin(angle) * action[0] + np.cos(angle) * action[1]
        swung[:3] = np.clip(swung[:3] * gain, -1, 1)
        return swung
