"""The picker's plans: smooth joint trajectories, one action a tick, from where the arm is to where a phase ends.

    pick:   rise  above  down  close  lift  over  lower  open  up  home
    carry:                            lift  over  lower  open  up  home
    home:                                                     up  home

Motions are minimum-jerk along a path, s(t) = 10t³ - 15t⁴ + 6t⁵ (Flash and Hogan 1985), timed by the fastest joint.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from policies.so101_kinematics import PAN_X_M, forward, inverse, reach_down

HOME = np.array([60.0, -95.0, 88.0, 35.0, 0.0, 5.0])
"""Folded, turned away from where cubes lie, so that a camera above sees them: degrees, and % for the gripper."""
OPEN, CLOSED, RELEASE = 50.0, 3.0, 42.0
"""Gripper in %: around a cube, squeezing it, letting go of it inside the bin."""
GRASP_Z_M, ABOVE_Z_M, CARRY_Z_M, RELEASE_Z_M = 0.0140, 0.075, 0.115, 0.070
"""Heights of the point between the jaws."""
CLEAR_M = 0.006
"""Between the fixed jaw and the cube before the jaws close; the moving jaw pushes the cube over."""
FASTEST_DEG_S, FASTEST_PERCENT_S = 80.0, 120.0
"""Speed of the fastest joint at the fastest moment."""
BRAKE_S, CLOSE_S, SETTLE_S, OPEN_S = 0.2, 0.45, 0.25, 0.35
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


def pick(build: Builder, cube: np.ndarray, yaw_rad: float, target: np.ndarray) -> Plan:
    """Take the cube at `cube` [3], one side of which faces `yaw_rad`, into the bin at `target` [3]; or Unreachable."""
    grasp = reach_down(cube, yaw_rad)
    if grasp is None:
        raise Unreachable
    closing = np.deg2rad(grasp[4] - grasp[0])
    at = np.array([*cube[:2] - CLEAR_M * np.array([np.cos(closing), np.sin(closing)]), GRASP_Z_M])
    above = np.array([*at[:2], ABOVE_Z_M])
    _rise(build, OPEN)
    build.mark("above")
    first = reach_down(above, 0.0)
    if first is None:
        raise Unreachable
    build.joints(np.array([*first[:4], grasp[4], OPEN]))
    build.mark("down")
    build.line(at, float(grasp[4]), OPEN)
    build.wait(0.1)
    build.mark("close")
    build.gripper(CLOSED, CLOSE_S)
    build.wait(SETTLE_S)
    return _carry(build, target)


def carry(build: Builder, target: np.ndarray) -> Plan:
    """Take what is between the jaws to above `target` [3]; raises Unreachable."""
    build.mark("close")
    return _carry(build, target)


def home(build: Builder) -> Plan:
    """Go and rest."""
    return _home(build)


def _carry(build: Builder, target: np.ndarray) -> Plan:
    build.mark("lift")
    here = build.grip
    build.line(np.array([*here[:2], CARRY_Z_M]), build.roll_deg, CLOSED)
    build.mark("over")
    over = np.array([*target[:2], CARRY_Z_M])
    build.line(over, 0.0, CLOSED)
    build.line(np.array([*target[:2], RELEASE_Z_M]), 0.0, CLOSED)
    build.wait(0.1)
    build.mark("open")
    build.gripper(RELEASE, OPEN_S)
    build.wait(0.15)
    build.mark("up")
    build.line(over, 0.0, RELEASE)
    return _home(build)


def _home(build: Builder) -> Plan:
    build.mark("home")
    _rise(build, RELEASE)
    build.joints(HOME)
    return build.plan()


def _rise(build: Builder, gripper: float) -> None:
    """Straight up first, where the jaws are low and point down."""
    x, y, z = build.grip
    if z < ABOVE_Z_M and build.points_down:
        build.line(np.array([x, y, ABOVE_Z_M]), build.roll_deg, gripper)


def _cylinder(point: np.ndarray) -> np.ndarray:
    x, y, z = point
    return np.array([np.hypot(x - PAN_X_M, y), np.arctan2(y, x - PAN_X_M), z])


def _cartesian(point: np.ndarray) -> np.ndarray:
    radius, azimuth, z = point
    return np.array([PAN_X_M + radius * np.cos(azimuth), radius * np.sin(azimuth), z])
