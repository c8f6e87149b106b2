"""Smooth joint trajectories for an SO-101: motions appended one after the other, one action a tick.

Minimum-jerk along a path, s(t) = 10t³ - 15t⁴ + 6t⁵ (Flash and Hogan 1985), timed by the fastest joint.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tactus.policies.scripted.so101_kinematics import PAN_X_M, forward, inverse, reach_down

FASTEST_DEG_S, FASTEST_PERCENT_S = 80.0, 120.0
"""Speed of the fastest joint at the fastest moment."""
BRAKE_S = 0.2
PEAK = 1.875
"""Highest speed of a minimum-jerk motion, times its mean."""
SAMPLES = 24


@dataclass
class Plan:
    """actions: [N, 6], deg and %, one a tick; after the last it stands still. marks: when a phase begins, by index."""

    actions: np.ndarray
    marks: dict[str, int] = field(default_factory=dict)

    def mark(self, phase: str) -> int:
        """Index at which the phase begins; the plan's end if it has none such."""
        return self.marks.get(phase, len(self.actions))


class Unreachable(Exception):
    """The arm cannot reach there from above."""


class Builder:
    """Appends motions to a plan. Begins at `start` [6], moving by `speed` [6] a tick."""

    def __init__(self, start: np.ndarray, speed: np.ndarray, fps: float) -> None:
        self._rows: list[np.ndarray] = []
        self._now = start.astype(np.float64)
        self._speed = speed.astype(np.float64)
        self._fps = fps
        self._marks: dict[str, int] = {}

    def plan(self) -> Plan:
        return Plan(np.array(self._rows, np.float32).reshape(-1, 6), self._marks)

    def mark(self, phase: str) -> None:
        self._marks[phase] = len(self._rows)

    @property
    def grip(self) -> np.ndarray:
        """The point between the jaws where the plan stands, m."""
        return forward(self._now)[0]

    @property
    def points_down(self) -> bool:
        """Whether it stands as `line` would have it stand there, or nearly so."""
        joints = reach_down(self.grip, 0.0)
        return joints is not None and bool(np.abs(joints[:4] - self._now[:4]).max() < 20.0)

    @property
    def roll_deg(self) -> float:
        return float(self._now[4])

    def brake(self) -> None:
        """Come to rest from the speed it began with, as a quadratic: nothing jumps where a new plan takes over."""
        ticks = round(BRAKE_S * self._fps)
        for left in range(ticks - 1, -1, -1):
            self._now = self._now + self._speed * left / ticks
            self._rows.append(self._now)

    def joints(self, goal: np.ndarray) -> None:
        """Straight in joint space."""
        self._follow(np.linspace(0, 1, 2)[:, None] * (goal - self._now) + self._now)

    def line(self, goal: np.ndarray, roll_deg: float, gripper: float) -> None:
        """Along a straight line in cylinder coordinates about the pan axis, pointing down; raises Unreachable."""
        last = reach_down(goal, 0.0)
        if last is None:
            raise Unreachable
        start, end = _cylinder(self.grip), _cylinder(goal)
        end[1] = start[1] + (end[1] - start[1] + np.pi) % (2 * np.pi) - np.pi
        pitch, last_pitch = self._now[1:4].sum(), last[1:4].sum()
        path = []
        for share in np.linspace(0, 1, SAMPLES):
            at = _cartesian(start + share * (end - start))
            # the pitch changes evenly: as steep as possible everywhere would be a jerk where a joint's travel ends
            joints = inverse(at, 0.0, np.deg2rad(pitch + share * (last_pitch - pitch)))
            joints = reach_down(at, 0.0) if joints is None else joints
            if joints is None:
                raise Unreachable
            joints[4] = self._now[4] + share * (roll_deg - self._now[4])
            path.append([*joints, self._now[5] + share * (gripper - self._now[5])])
        path[0] = list(self._now)
        self._follow(np.array(path))

    def gripper(self, percent: float, seconds: float) -> None:
        self._follow(np.array([self._now, [*self._now[:5], percent]]), seconds)

    def wait(self, seconds: float) -> None:
        self._rows += [self._now] * round(seconds * self._fps)

    def _follow(self, path: np.ndarray, seconds: float = 0.0) -> None:
        limit = np.array([FASTEST_DEG_S] * 5 + [FASTEST_PERCENT_S])
        steps = np.abs(np.diff(path, axis=0)) / limit
        seconds = max(seconds, float(steps.max()) * len(steps) * PEAK)
        ticks = max(1, int(np.ceil(seconds * self._fps)))
        time = np.arange(1, ticks + 1) / ticks
        at = (10 * time**3 - 15 * time**4 + 6 * time**5) * (len(path) - 1)
        grid = np.arange(len(path))
        rows = np.stack([np.interp(at, grid, path[:, joint]) for joint in range(6)], axis=1)
        self._rows += list(rows)
        self._now = path[-1].copy()


def _cylinder(point: np.ndarray) -> np.ndarray:
    x, y, z = point
    return np.array([np.hypot(x - PAN_X_M, y), np.arctan2(y, x - PAN_X_M), z])


def _cartesian(point: np.ndarray) -> np.ndarray:
    radius, azimuth, z = point
    return np.array([PAN_X_M + radius * np.cos(azimuth), radius * np.sin(azimuth), z])
