"""The scene as the picker sees it: where arm, cube and bin are, and whether a plan still fits that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tactus.policies.scripted.picker_motion import Plan
from tactus.policies.scripted.rotation import quaternion_matrix
from tactus.policies.scripted.so101_kinematics import forward

MOVED_M = 0.008
"""A cube this far from where it was planned to be grasped has been moved."""
HELD_M, LIFTED_M = 0.03, 0.03
"""A cube is held if it is this near to the point between the jaws and, once lifted, its middle this high."""
BIN_M = 0.058
"""Half the width of the bin, inside."""
ASTRAY_DEG = 20.0
"""A joint this far from where the plan had it two ticks ago is not following."""
LAG_TICKS = 2
AHEAD_TICKS = 10
"""An arm is looked for so far beyond where time would have it."""
TIME_DEG, JAWS_DEG, BLOCKED = 0.05, 0.3, 30.0
"""Where an arm is in a plan: what a tick from where time would have it counts, and a percent of the jaws, which
something between them may keep so far open."""


@dataclass(frozen=True)
class Scene:
    """One observation, in float64. yaw_rad: along which a side of the cube points."""

    joints: np.ndarray
    cube: np.ndarray
    yaw_rad: float
    bin: np.ndarray

    @property
    def placed(self) -> bool:
        return bool(np.abs(self.cube[:2] - self.bin[:2]).max() < BIN_M and self.cube[2] < self.bin[2] + 0.05)

    @property
    def held(self) -> bool:
        return bool(np.linalg.norm(self.cube - forward(self.joints)[0]) < HELD_M)


def see(joints: np.ndarray, poses: np.ndarray) -> Scene:
    """What `joints` [6] and `poses` [10] mean; the cube may lie on any of its faces."""
    sides = quaternion_matrix(poses[3:7]).T
    level = sides[int(np.argmin(np.abs(sides[:, 2])))]
    return Scene(joints, poses[:3], float(np.arctan2(level[1], level[0])), poses[7:10])


def fault(plan: Plan, index: int, cube: np.ndarray | None, seen: Scene) -> str:
    """Why the plan no longer fits what is seen at its action `index`; empty if it does."""
    expected = plan.actions[min(max(index - LAG_TICKS, 0), len(plan.actions) - 1)]
    if np.abs(seen.joints[:5] - expected[:5]).max() > ASTRAY_DEG:
        return "astray"
    if cube is None:
        return "" if seen.placed or index < len(plan.actions) else "again"
    if index < plan.mark("close"):
        return "moved" if np.linalg.norm(seen.cube[:2] - cube[:2]) > MOVED_M else ""
    if plan.mark("over") <= index < plan.mark("open"):
        return "" if seen.held and seen.cube[2] > LIFTED_M else "lost"
    if index >= plan.mark("home"):
        return "" if seen.placed else "missed"
    return ""


def reached(plan: Plan, last: int, index: int, joints: np.ndarray) -> int:
    """The action that is next for an arm at `joints` [6]: of those from `last`, which was given before, to a little
    after `index`, where time would have it."""
    found = np.arange(last, max(last, min(index + AHEAD_TICKS, len(plan.actions) - 1)) + 1)
    away = joints - plan.actions[np.maximum(found - LAG_TICKS, 0)]
    jaws = JAWS_DEG * np.maximum(np.maximum(-away[:, 5], away[:, 5] - BLOCKED), 0)
    return int(found[np.argmin(np.maximum(np.abs(away[:, :5]).max(axis=1), jaws) + TIME_DEG * np.abs(found - index))])
