"""Demonstrations for rl_bases.py, of which a part are wrong: the scripted expert on LIBERO, with mistakes.

From each initial state the expert shows how it is done, and how it is not, so that what is seen does not say which of
them comes next; whoever learns from all of them draws lots. Nobody notices a mistake: what was meant is gone through
with to the end.

    right   as the expert does it
    beside  the fingers close some centimetres beside the object
    dropped the fingers open half-way
    short   the object is put down beside the target
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tactus.hal.libero import LiberoConfig
from tactus.hal.libero.config import Suite
from tactus.hal.robot import Robot
from tactus.hal.spec import ENVIRONMENT_STATE, STATE
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.scripted.expert import ExpertConfig

AHEAD = 64
"""Ticks of the plan that a mistaken demonstrator goes through with."""
AFTER = 12
"""Ticks that a wrong demonstration goes on once the fingers have opened."""
LIFTED_M = 0.03
"""Above where it stood: an object that has been picked up."""


class Demos(NamedTuple):
    """observations: float32[T, 22] per episode, state and environment_state. actions: float32[T, 7], as done. ways:
    what was shown. states: from which initial state. success: per episode."""

    observations: list[np.ndarray]
    actions: list[np.ndarray]
    ways: list[str]
    states: list[int]
    success: list[bool]


class Mistake(NamedTuple):
    """beside_m: x and y from the object to where the fingers close. short_m: from the target to where it is put down.
    dropped: share of the way over the table at which the fingers open."""

    beside_m: tuple[float, float] = (0.0, 0.0)
    short_m: tuple[float, float] = (0.0, 0.0)
    dropped: float = 1.0


def libero(suite: Suite, task: int, max_steps: int, init_states: list[int]) -> Robot:
    """Vectors only; episode i is init_states[i]."""
    config = LiberoConfig(
        suite, tasks=[task], init_states=init_states, cameras=[], assets="primitive", max_steps=max_steps
    )
    return config.make()


def vector(arrays: object) -> np.ndarray:
    """What a base sees, float32[22]."""
    return np.concatenate([arrays[STATE], arrays[ENVIRONMENT_STATE]]).astype(np.float32)  # type: ignore[index]


def record(file: Path, robot: Robot, episodes: list[tuple[int, str]], mistakes: dict[str, Mistake]) -> Demos:
    """Of each (initial state, way), from `file` if they are there."""
    if not file.is_file():
        demos = Demos([], [], [], [], [])
        expert = ExpertConfig(horizon=AHEAD, commit=0).make()
        for state, way in episodes:
            observations, actions = _episode(robot, expert, state, mistakes.get(way))
            outcome = robot.outcome()
            demos.observations.append(observations)
            demos.actions.append(actions)
            demos.ways.append(way)
            demos.states.append(state)
            demos.success.append(outcome is not None and outcome.success)
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {f"observations_{i}": episode for i, episode in enumerate(demos.observations)}
        arrays |= {f"actions_{i}": episode for i, episode in enumerate(demos.actions)}
        np.savez_compressed(file, ways=demos.ways, states=demos.states, success=demos.success, **arrays)
    return read(file)


def read(file: Path) -> Demos:
    """What `record` wrote."""
    with np.load(file, allow_pickle=False) as data:
        ways, states, success = (data[name].tolist() for name in ("ways", "states", "success"))
        observations, actions = ([data[f"{name}_{i}"] for i in range(len(ways))] for name in Demos._fields[:2])
    return Demos(observations, actions, ways, states, success)


def _episode(robot: Robot, expert: Policy, state: int, mistake: Mistake | None) -> tuple[np.ndarray, np.ndarray]:
    """Sees and does. Closed loop up to the mistake, then what was planned there, whatever comes of it."""
    robot.reset(state, 0)
    task = robot.scene(state).task
    expert.reset(Session("demo", 0, task))
    observations, actions = [], []
    meant = np.zeros((0, 7), np.float32)
    start = vector(robot.observe().arrays)[8:]
    closed, opened = False, 0
    while (outcome := robot.outcome()) is not None and not outcome.done and opened < AFTER:
        arrays = dict(robot.observe().arrays)
        observations.append(vector(arrays))
        if len(meant):
            action, meant = meant[0], meant[1:]
        else:
            poses = np.array(arrays[ENVIRONMENT_STATE], np.float64)
            over = np.linalg.norm(poses[:2] - start[:2]) / np.linalg.norm(start[7:9] - start[:2])
            if mistake is not None:
                poses[:2] += mistake.beside_m
                poses[7:9] += mistake.short_m
            seen = replace(robot.observe(), tick=len(actions), task=task, arrays={**arrays, ENVIRONMENT_STATE: poses})
            chunk = expert.infer([Request("demo", seen)])[0].actions
            action = chunk[0]
            if mistake is not None and mistake.beside_m != (0, 0) and action[6] > 0:
                meant = chunk[1:]
            if mistake is not None and over > mistake.dropped and poses[2] > start[2] + LIFTED_M:
                chunk[:, 6] = -1
                meant = chunk[1:]
        closed |= bool(action[6] > 0)
        opened += closed and action[6] < 0 and mistake is not None
        actions.append(action)
        robot.act(action)
    return np.stack(observations), np.stack(actions).astype(np.float32)
