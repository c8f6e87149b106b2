"""The expert's plan: phases as a function of what is seen, rolled out ahead in a model of hand and object.

    above -> down -> close -> lift -> over -> lower -> open -> retreat

The phase of a tick follows from positions and finger opening alone, so a plan that was never executed, a
missed grasp or a dropped object needs no special case: the next observation says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tactus.policies.scripted.expert_grasps import GraspPose, Job, grasp_pose
from tactus.policies.scripted.expert_motion import OPEN_M, Hand

HELD_M = 0.004
"""Fingers this close to the expected opening have the object between them."""
EMPTY = 0.4
"""Fingers closed beyond this share of the expected opening have missed. Bottles taper, so it is not close to 1."""
LIFTED_M = 0.015
"""An object this far above where it stood is in the air."""
AT_GRASP_M, CLOSING_M, HOLDING_M, CARRYING_M = 0.012, 0.02, 0.025, 0.045
"""How far the hand may be from the grasp, per axis: to start closing, to go on closing, for the object to count
as held once closed, and in the air, where a bowl held at its rim swings."""
OVER_M = 0.008
"""Over the grasp: the open fingers clear the widest object by 8 mm on either side."""
ABOVE_M = 0.025
"""Height of the end effector above the object's top from which it goes straight down."""


@dataclass(frozen=True)
class World:
    """What is simulated ahead.

    position, rotation: the object's. target: position. rest_m: height of the object's origin when it last stood
    somewhere. pressed: ticks that the fingers have been on the object. stalled: they close no further.
    """

    hand: Hand
    position: np.ndarray
    rotation: np.ndarray
    target: np.ndarray
    rest_m: float
    pressed: int = 0
    stalled: bool = False


def plan(job: Job, world: World, horizon: int, committed: np.ndarray) -> tuple[np.ndarray, list[World]]:
    """Actions float32[horizon, 7], and the world expected before each of them and after the last.

    committed: float32[n, 7], actions of the last plan that the robot will execute before this one arrives;
    they come first.
    """
    actions = np.zeros((horizon, 7), np.float32)
    worlds = [world]
    for i in range(horizon):
        action, world = step(job, world, committed[i] if i < len(committed) else None)
        actions[i] = action
        worlds.append(world)
    return actions, worlds


def step(job: Job, world: World, committed: np.ndarray | None = None) -> tuple[np.ndarray, World]:
    """One tick: the action float64[7], which is `committed` if there is one, and the world after it."""
    hand = world.hand
    grasp = grasp_pose(job, world.position, world.rotation, hand.closing)
    held = is_held(world, grasp)
    action = _decide(job, world, grasp, held) if committed is None else committed.astype(np.float64)
    after = hand.after(action, grasp.width_m if _near(hand, grasp, HOLDING_M) else 0.0)
    moves = held and action[6] > 0
    position = world.position + (after.position - hand.position) if moves else world.position
    pressed = world.pressed + 1 if held else 0
    stalled = world.stalled and action[6] > 0
    return action, replace(world, hand=after, position=position, pressed=pressed, stalled=stalled)


def _decide(job: Job, world: World, grasp: GraspPose, held: bool) -> np.ndarray:
    hand = world.hand
    if is_placed(job, world):
        goal, grip = _retreat(world.hand, grasp), -1.0
    elif held:
        goal, grip = _carry(job, world, grasp), 1.0
    elif _at_grasp(hand, grasp) and not _empty(hand, grasp):
        goal, grip = grasp.position, 1.0
    else:
        goal, grip = _approach(job, world, grasp), -1.0
    return np.concatenate([hand.steer(goal), hand.turn(grasp.closing), [grip]])


def is_held(world: World, grasp: GraspPose) -> bool:
    """Whether the object is between closed fingers; in the air it can be nowhere else."""
    hand = world.hand
    if world.position[2] > world.rest_m + LIFTED_M and hand.opening_m < grasp.width_m + 3 * HELD_M:
        return _near(hand, grasp, CARRYING_M)
    closed = world.stalled or hand.opening_m <= grasp.width_m + HELD_M
    return closed and _near(hand, grasp, HOLDING_M) and not _empty(hand, grasp)


def is_placed(job: Job, world: World) -> bool:
    """Whether the object is where it should be, held or not."""
    away = float(np.linalg.norm(world.position[:2] - world.target[:2]))
    return away < job.place.radius_m and world.position[2] < world.target[2] + job.place.release_m


def _near(hand: Hand, grasp: GraspPose, within_m: float) -> bool:
    return bool(np.abs(hand.position - grasp.position).max() < within_m)


def _aligned(hand: Hand, grasp: GraspPose) -> bool:
    return abs(float(hand.closing @ grasp.closing)) > 0.97


def _at_grasp(hand: Hand, grasp: GraspPose) -> bool:
    started = hand.opening_m < OPEN_M - 0.005
    return _near(hand, grasp, CLOSING_M if started else AT_GRASP_M) and _aligned(hand, grasp)


def _empty(hand: Hand, grasp: GraspPose) -> bool:
    return hand.opening_m < EMPTY * grasp.width_m


def _approach(job: Job, world: World, grasp: GraspPose) -> np.ndarray:
    """Down a funnel: fingertips stay above the object until the hand is over the grasp, turned and open."""
    hand = world.hand
    away = float(np.linalg.norm(hand.position[:2] - grasp.position[:2]))
    goal = grasp.position.copy()
    if away > OVER_M or not _aligned(hand, grasp) or hand.opening_m < OPEN_M - 0.009:
        above = grasp.top_m + ABOVE_M
        cruise = max(above + 0.03, world.target[2] + job.place.cruise_m)
        goal[2] = min(above + 2.0 * max(0.0, away - 0.03), cruise)
    if hand.position[2] < goal[2] - 0.02 and away > OVER_M:
        goal[:2] = hand.position[:2]
    return goal


def _carry(job: Job, world: World, grasp: GraspPose) -> np.ndarray:
    """Lift, over and lower. Heights are those of the object's origin; the goal is the hand's.

    It moves sideways only while it is high enough for where it is: above what it stood among (`leave`) on the
    first part of the way, and above the target's rim by the time it gets there.
    """
    hand, place = world.hand, job.place
    if world.pressed < job.grasp.press_ticks and world.position[2] < world.rest_m + LIFTED_M:
        return hand.position
    away = float(np.linalg.norm(world.target[:2] - world.position[:2]))
    rim = world.target[2] + place.rim_m + world.position[2] - grasp.low_m
    lifted = world.rest_m + job.lift_m
    outside = away - place.rim_radius_m
    leave = lifted if away > job.descend_m else min(lifted, rim + 1.2 * outside)
    goal = np.array([*world.target[:2], max(rim, leave)])
    if away < place.radius_m * 0.7:
        goal[2] = world.target[2] + place.floor_m
    elif world.position[2] < max(leave, rim - max(0.0, outside)) - 0.01:
        goal[:2] = world.position[:2]
    return hand.position + goal - world.position


def _retreat(hand: Hand, grasp: GraspPose) -> np.ndarray:
    """Up once the fingers have let go."""
    goal = hand.position.copy()
    if hand.opening_m > min(grasp.width_m + 0.015, OPEN_M - 0.007):
        goal[2] = max(goal[2], grasp.top_m + 0.12)
    return goal
