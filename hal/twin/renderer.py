"""Renders the twin's cameras in software, without shadows: 45 ms an image with them, 3 without."""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

if "MUJOCO_GL" not in os.environ:
    os.environ["MUJOCO_GL"] = "osmesa"  # draws without a screen or a GPU; read when mujoco is first imported

import mujoco
import numpy as np

from tactus.hal.robot import RobotError
from tactus.hal.twin.model import build

HIDDEN_GROUP = 4
"""Geoms and sites of this group and above are aids, not things."""


class Renderer:
    """Renders any camera of the model at one size. Belongs to one thread, as its OpenGL context does."""

    def __init__(
        self, arms: Sequence[str], model: Path | str | None, cameras: Sequence[str], height: int, width: int
    ) -> None:
        self.model = build(arms, model)
        self.model.vis.global_.offwidth, self.model.vis.global_.offheight = width, height
        self._data = mujoco.MjData(self.model)
        self._cameras = {name: find_camera(self.model, name, arms[0]) for name in cameras}
        self._renderer = mujoco.Renderer(self.model, height, width)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = False

    def draw(self, camera: str, qpos: np.ndarray) -> np.ndarray:
        """uint8[height, width, 3], RGB, right side up; overwritten by the next one."""
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(self.model, self._data)
        mujoco.mj_comPos(self.model, self._data)
        mujoco.mj_camlight(self.model, self._data)
        self._renderer.update_scene(self._data, self._cameras[camera])
        return self._renderer.render()

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()


def find_camera(model: mujoco.MjModel, name: str, first: str) -> int:
    """A camera by its name in the model; an arm's own, such as "wrist", is the first arm's."""
    known = [model.camera(i).name for i in range(model.ncam)]
    for candidate in (name, f"{first}_{name}"):
        if candidate in known:
            return known.index(candidate)
    raise RobotError(f"the twin has no camera {name!r}; there are {', '.join(known)}")
