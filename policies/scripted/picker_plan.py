"""The picker's plans: smooth joint trajectories, one action a tick, from where the arm is to where a phase ends.

pick:   rise  above  down  close  lift  over  lower  open  up  home
carry:                            lift  over  lower  open  up  home
home:                                                     up  home
"""

from __future__ import annotations

import numpy as np

from tactus.policies.scripted.picker_motion import Builder, Plan, Unreachable
from tactus.policies.scripted.so101_kinematics import reach_down

HOME = np.array([60.0, -95.0, 88.0, 35.0, 0.0, 5.0])
"""Folded, turned away from where cubes lie, so that a camera above sees them: degrees, and % for the gripper."""
OPEN, CLOSED, RELEASE = 50.0, 3.0, 42.0
"""Gripper in %: around a cube, squeezing it, letting go of it inside the bin."""
GRASP_Z_M, ABOVE_Z_M, CARRY_Z_M, RELEASE_Z_M = 0.0140, 0.075, 0.115, 0.070
"""Heights of the point between the jaws."""
CLEAR_M = 0.006
"""Between the fixed jaw and the cube before the jaws close; the moving jaw pushes the cube over."""
TURNS_DEG = (-90.0, 0.0, 90.0)
"""A cube is the same after these: the roll that closes on its sides and is nearest to the hand's is taken."""
CLOSE_S, SETTLE_S, OPEN_S = 0.45, 0.25, 0.35


def pick(build: Builder, cube: np.ndarray, yaw_rad: float, target: np.ndarray) -> Plan:
    """Take the cube at `cube` [3], one side of which faces `yaw_rad`, into the bin at `target` [3]; or Unreachable."""
    grasp = reach_down(cube, yaw_rad)
    if grasp is None:
        raise Unreachable
    grasp[4] = min(grasp[4] + np.array(TURNS_DEG), key=lambda roll: abs(roll - build.roll_deg))
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
    return home(build)


def home(build: Builder) -> Plan:
    """Go and rest."""
    build.mark("home")
    _rise(build, RELEASE)
    build.joints(HOME)
    return build.plan()


def _rise(build: Builder, gripper: float) -> None:
    """Straight up first, where the jaws are low and point down."""
    x, y, z = build.grip
    if z < ABOVE_Z_M and build.points_down:
        build.line(np.array([x, y, ABOVE_Z_M]), build.roll_deg, gripper)
