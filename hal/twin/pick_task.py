"""The pick-and-place task on the table: where an episode's cube lies, and when it counts as put into the bin."""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from tactus.hal.robot import RobotError

PAN_X_M = 0.0388
"""The first arm's pan axis, about which the cube's places lie."""
RADIUS_M, ANGLE_RAD = (0.180, 0.245), (np.deg2rad(-20.0), np.deg2rad(60.0))
"""The cube's places: distance from the pan axis, and angle about it, to the left of straight ahead."""
REST_M_S, REST_RAD_S = 0.02, 0.5
"""Slower than this is at rest."""
SETTLED_S = 0.5
"""How long the cube must lie in the bin, let go, until the episode is done."""
TRIES = 64


class PickTask:
    """The cube and the bin of one simulation."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        self._model, self._data = model, data
        cube = model.joint("cube")
        self._qpos, self._dof = int(cube.qposadr[0]), int(cube.dofadr[0])
        self._geom = model.geom("cube").id
        self._half_m = float(model.geom_size[self._geom, 0])
        self._bin = np.array(model.body("bin").pos)
        self._inner_m = float(model.geom("bin_front").pos[0])
        self._rim_m = float(model.geom("bin_front").pos[2] + model.geom("bin_front").size[2])
        scenery = {"bin", "cube", "world"}
        self._arm_bodies = [i for i in range(model.nbody) if model.body(i).name not in scenery]
        self._success_s: float | None = None

    def reset(self, episode: int, seed: int) -> None:
        """Lay the cube where episode `episode` of run `seed` has it: the same place for the same arguments, or, if
        an arm is in the way there, the next of a fixed sequence of places. Taken out of the gripper if need be."""
        generator = np.random.default_rng([seed, episode])
        for _ in range(TRIES):
            radius, angle = generator.uniform(*RADIUS_M), generator.uniform(*ANGLE_RAD)
            yaw = generator.uniform(-np.pi, np.pi)
            self._lay(PAN_X_M + radius * np.cos(angle), radius * np.sin(angle), yaw)
            if not self._touched_by_arm():
                self._success_s = None
                return
        raise RobotError("the arm is in the way of every place for the cube; park it first")

    def _lay(self, x: float, y: float, yaw: float) -> None:
        pose = [x, y, self._half_m, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        self._data.qpos[self._qpos : self._qpos + 7] = pose
        self._data.qvel[self._dof : self._dof + 6] = 0.0
        mujoco.mj_forward(self._model, self._data)

    def _touched_by_arm(self) -> bool:
        contacts = self._data.contact
        for pair in contacts.geom[: self._data.ncon]:
            if self._geom in pair:
                other = int(pair[0] if pair[1] == self._geom else pair[1])
                if int(self._model.geom_bodyid[other]) in self._arm_bodies:
                    return True
        return False

    def state(self) -> dict[str, Any]:
        """cube: x y z in m and qx qy qz qw; bin: x y z of its floor's middle in m; held: an arm touches the cube."""
        x, y, z, qw, qx, qy, qz = (float(value) for value in self._data.qpos[self._qpos : self._qpos + 7])
        cube = [x, y, z, qx, qy, qz, qw]
        return {"cube": cube, "bin": [float(value) for value in self._bin], "held": self._touched_by_arm()}

    def outcome(self) -> dict[str, Any]:
        """success: the cube lies in the bin, at rest and let go. done: for half a second, or the cube fell off."""
        position = self._data.qpos[self._qpos : self._qpos + 3]
        velocity = self._data.qvel[self._dof : self._dof + 6]
        inside = np.abs(position[:2] - self._bin[:2]).max() < self._inner_m and 0 < position[2] < self._rim_m
        slow = np.linalg.norm(velocity[:3]) < REST_M_S and np.linalg.norm(velocity[3:]) < REST_RAD_S
        success = bool(inside and slow and not self._touched_by_arm())
        now_s = float(self._data.time)
        if not success:
            self._success_s = None
        elif self._success_s is None:
            self._success_s = now_s
        settled = self._success_s is not None and now_s - self._success_s >= SETTLED_S
        return {"success": success, "done": settled or bool(position[2] < -0.05), "reward": float(success)}
