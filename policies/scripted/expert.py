"""A scripted pick-and-place policy that reads object poses: the policy that always works, for tests and timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tactus.hal.spec import (
    ENVIRONMENT_STATE,
    IMAGES,
    STATE,
    Chunk,
    Feature,
    Observation,
    PolicySpec,
    image,
)
from tactus.policies.policy import Request
from tactus.policies.scripted.config import ExpertConfig
from tactus.policies.scripted.expert_grasps import find
from tactus.policies.scripted.expert_motion import Hand
from tactus.policies.scripted.expert_plan import World, plan
from tactus.policies.scripted.policy import ScriptedPolicy
from tactus.policies.scripted.rotation import quaternion_matrix, rotation_matrix

POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
STATE_FEATURE = Feature(
    (8,),
    "float32",
    unit=("m", "m", "m", "rad", "rad", "rad", "m", "m"),
    names=("eef.x", "eef.y", "eef.z", "eef.rx", "eef.ry", "eef.rz", "gripper.left", "gripper.right"),
)
ENVIRONMENT_FEATURE = Feature(
    (14,),
    "float64",
    unit=("m", "m", "m", "1", "1", "1", "1") * 2,
    names=tuple(f"{role}.{axis}" for role in ("object", "target") for axis in POSE),
)
ACTION = Feature(
    (7,),
    "float32",
    unit="1",
    names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
    low=(-1.0,) * 7,
    high=(1.0,) * 7,
    mode=("delta",) * 6 + ("binary",),
)
CAMERAS = ("image", "image2")
FPS = 20.0
ASTRAY_M = 0.03
"""A hand this far from where the last plan expected it did not follow that plan."""
STALL_TICKS, STALL_M = 4, 0.0015
"""Fingers that have closed for this long and moved no further than this are on something."""


@dataclass
class _Memory:
    """What one observation cannot tell: the last plan (for speeds and pressing) and where the object stood."""

    start: int = 0
    actions: np.ndarray = field(default_factory=lambda: np.zeros((0, 7), np.float32))
    expected: Sequence[World] = ()
    rest_m: float | None = None
    opening_m: float = 0.0


class ExpertPolicy(ScriptedPolicy[_Memory]):
    """Plans each chunk open loop from one observation; keeps per session only its last plan."""

    def __init__(self, config: ExpertConfig) -> None:
        inputs = {STATE: STATE_FEATURE, ENVIRONMENT_STATE: ENVIRONMENT_FEATURE}
        if config.images:
            inputs |= {f"{IMAGES}{camera}": image(*config.image_size) for camera in CAMERAS}
        super().__init__(PolicySpec("expert", inputs, ACTION, config.horizon, fps=FPS), _Memory)
        self._commit = config.commit

    def _chunk(self, request: Request, memory: _Memory) -> Chunk:
        observation = request.observation
        job = find(observation.task)
        world = _see(observation, memory)
        since = observation.tick - memory.start
        kept = min(self._commit, request.ticks_left) if since > 0 else 0
        memory.actions, memory.expected = plan(job, world, self._spec.horizon, memory.actions[since : since + kept])
        memory.start = observation.tick
        memory.rest_m, memory.opening_m = world.rest_m, world.hand.opening_m
        return Chunk(observation.tick, memory.actions.copy())


def _see(observation: Observation, memory: _Memory) -> World:
    """The world at the observation's tick; speeds are the last plan's, if the hand is where that plan says."""
    state = np.asarray(observation.arrays[STATE], np.float64)
    poses = np.asarray(observation.arrays[ENVIRONMENT_STATE], np.float64)
    opening_m = float(state[6] - state[7])
    hand = Hand(state[:3], rotation_matrix(state[3:6]), opening_m, np.zeros(3), np.zeros(7))
    rest_m = memory.rest_m
    if rest_m is None or opening_m > 0.07:
        rest_m = float(poses[2])
    world = World(hand, poses[:3], quaternion_matrix(poses[3:7]), poses[7:10], rest_m)
    since = observation.tick - memory.start
    if not 0 < since < len(memory.expected):
        return world
    expected = memory.expected[since]
    if np.linalg.norm(expected.hand.position - hand.position) > ASTRAY_M:
        return world
    hand = replace(hand, moved=expected.hand.moved, action=expected.hand.action, finger_m=expected.hand.finger_m)
    closing = since >= STALL_TICKS and all(action[6] > 0 for action in memory.actions[since - STALL_TICKS : since])
    stalled = closing and abs(hand.opening_m - memory.opening_m) < STALL_M
    return replace(world, hand=hand, pressed=expected.pressed, stalled=stalled)
