"""The world `table`: a MuJoCo simulation of arms, table, cube and bin behind the emulated servos, in real time."""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from tactus.hal.robot import RobotError
from tactus.hal.twin.config import JOINTS
from tactus.hal.twin.model import DRAG_NM_S_RAD, LIMP_NM_S_RAD, STALL_NM, build
from tactus.hal.twin.pick_task import PickTask
from tactus.hal.twin.shared_poses import PoseWriter
from tactus.hal.twin.simulation import GAP_S, Joints, parse_hand

HAND_NM_RAD, HAND_NM_S_RAD = 30.0, 0.6
"""A person's hand on a limp joint: spring and damping towards where it is moved to."""


class ArmJoints(Joints):
    """One arm's six joints in the simulation. Zero is the middle of a joint's range, whatever the model's own is."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, name: str) -> None:
        self._model, self._data = model, data
        joints = [model.joint(f"{name}_{joint}") for joint in JOINTS]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._servo = np.array([model.actuator(f"{name}_{joint}").id for joint in JOINTS])
        ranges = np.array([joint.range for joint in joints])
        self._middle = ranges.mean(axis=1)
        self._high = (ranges[:, 1] - ranges[:, 0]) / 2
        self.drive(np.zeros(len(JOINTS)), np.zeros(len(JOINTS)))

    @property
    def low(self) -> np.ndarray:
        return -self._high

    @property
    def high(self) -> np.ndarray:
        return self._high.copy()

    def drive(self, goal_rad: np.ndarray, torque: np.ndarray) -> None:
        limit = STALL_NM * np.clip(torque, 0.0, 1.0)
        self._data.ctrl[self._servo] = goal_rad + self._middle
        self._model.actuator_forcerange[self._servo, 0] = -limit
        self._model.actuator_forcerange[self._servo, 1] = limit
        self._model.dof_damping[self._dof] = np.where(limit > 0, DRAG_NM_S_RAD, LIMP_NM_S_RAD)

    def positions(self) -> np.ndarray:
        return self._data.qpos[self._qpos] - self._middle

    def velocities(self) -> np.ndarray:
        return self._data.qvel[self._dof].copy()

    def loads(self) -> np.ndarray:
        return self._data.actuator_force[self._servo] / STALL_NM

    def place(self, angles_rad: np.ndarray) -> None:
        """Put the joints there at once; for setting up, not for moving."""
        self._data.qpos[self._qpos] = angles_rad + self._middle
        self._data.qvel[self._dof] = 0.0

    def push(self, angles_rad: Mapping[int, float]) -> None:
        """A hand draws joint i towards angles_rad[i]; it lets go of all others."""
        force = np.zeros(len(JOINTS))
        for i, angle in angles_rad.items():
            away = angle + self._middle[i] - self._data.qpos[self._qpos[i]]
            drawn = np.clip(HAND_NM_RAD * away, -STALL_NM, STALL_NM)
            force[i] = drawn - HAND_NM_S_RAD * self._data.qvel[self._dof[i]]
        self._data.qfrc_applied[self._dof] = force


REST_RAD = np.deg2rad([0.0, -98.0, 94.0, 70.0, 0.0, -50.0])
"""Folded, as an arm that is switched off lies: from here torque can go without anything falling."""


class TableWorld:
    """Simulation of a table with arms. One thread; `advance` does all the work.

    arms: names, in the order in which they stand; the first one has the cube and the bin in reach.
    model: an MJCF of one arm to use instead of our own. poses: file to share poses with the cameras' process.
    """

    def __init__(
        self, arms: Sequence[str] = ("arm",), model: Path | str | None = None, poses: Path | str | None = None
    ) -> None:
        self.model = build(arms, model)
        self.data = mujoco.MjData(self.model)
        self._arms = {name: ArmJoints(self.model, self.data, name) for name in arms}
        self.arms: dict[str, Joints] = dict(self._arms)
        for joints in self._arms.values():
            joints.place(np.clip(REST_RAD, joints.low, joints.high))
        mujoco.mj_forward(self.model, self.data)
        self._task = PickTask(self.model, self.data)
        self._poses = PoseWriter(Path(poses), self.model.nq) if poses else None
        self._now_s: float | None = None
        self._hands: dict[str, dict[int, float]] = {}

    def place(self, arm: str, angles_rad: np.ndarray) -> None:
        """Put an arm's joints there at once, float64[J]; for setting up, not for moving."""
        self._arms[arm].place(angles_rad)
        mujoco.mj_forward(self.model, self.data)

    def advance(self, now_s: float) -> None:
        """Simulate up to this moment of the caller's clock, to the last whole step before it."""
        step_s = float(self.model.opt.timestep)
        then_s = now_s if self._now_s is None or now_s - self._now_s > GAP_S else self._now_s
        count = int((now_s - then_s) / step_s)
        self._now_s = then_s + count * step_s
        if count > 0:
            self.step(count)
            if self._poses:
                self._poses.write(self.data.qpos, int(self._now_s * 1e9))

    def step(self, count: int) -> None:
        """So many steps of physics, whatever the time is."""
        if not self._hands:
            mujoco.mj_step(self.model, self.data, count)
            return
        for _ in range(count):
            for name, angles in self._hands.items():
                self._arms[name].push(angles)
            mujoco.mj_step(self.model, self.data)

    def handle(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """Answer a control request about the scene; None if it is none of these.

            {"do": "reset", "episode": i, "seed": s}   put the cube where this episode has it
            {"do": "outcome"}                          success, done, reward
            {"do": "scene"}                            cube, bin, held, and what "outcome" says
            {"do": "hand", "arm": name, "angles_rad": {joint: rad}}   a person moves these joints and holds them
                there until the next such request for this arm; with {} lets go

        Raises RobotError for a request that cannot be met.
        """
        match request.get("do"):
            case "reset":
                self._task.reset(_integer(request, "episode"), _integer(request, "seed"))
                return self._task.state()
            case "outcome":
                return self.outcome()
            case "scene":
                return self._task.state() | self._task.outcome()
            case "hand":
                return self._hand(*parse_hand(request, self._arms))
        return None

    def state(self) -> dict[str, Any]:
        """What a report on the whole twin says of the scene, as {"do": "scene"} does."""
        return self._task.state() | self._task.outcome()

    def outcome(self) -> dict[str, Any]:
        """success, done, reward, as {"do": "outcome"} says."""
        return self._task.outcome()

    def _hand(self, arm: str, angles: dict[int, float]) -> dict[str, Any]:
        self._hands.pop(arm, None)
        if angles:
            self._hands[arm] = angles
        else:
            self._arms[arm].push({})
        return {}


def _integer(request: Mapping[str, Any], key: str) -> int:
    value = request.get(key)
    if not isinstance(value, int) or value < 0:
        raise RobotError(f"{request.get('do')}: {key} must be an integer from 0; found {value!r}")
    return value
