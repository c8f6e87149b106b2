"""robosuite's cameras drawn on demand, by MuJoCo's own renderer and not robosuite's, which recomputes the live scene.

The state is copied when it is observed, and drawn from the copy when the picture is first read: reading a picture or
not changes no bit of the episode.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from collections.abc import Sequence

import mujoco
import numpy as np

COLLISION, VISUAL = 0, 1
"""robosuite's groups of geoms: the shapes that collide, and those that are seen."""


class Cameras:
    """Draws one episode's scene. model: its; image_size: height and width of every picture."""

    def __init__(self, model: mujoco.MjModel, image_size: Sequence[int]) -> None:
        self._model, self._size = model, tuple(image_size)
        self._renderer: mujoco.Renderer | None = None
        self._looks = mujoco.MjvOption()
        self._looks.geomgroup[COLLISION], self._looks.geomgroup[VISUAL] = 0, 1
        self._closed = False

    def moment(self, data: mujoco.MjData) -> mujoco.MjData:
        """A copy of the simulation as it is now."""
        copy = mujoco.MjData(self._model)
        mujoco.mj_copyData(copy, self._model, data)
        return copy

    def draw(self, moment: mujoco.MjData, camera: str) -> np.ndarray:
        """uint8[height, width, 3], RGB, right side up."""
        if self._closed:
            raise RuntimeError("this image was not read in its own episode, and the scene is gone")
        if self._renderer is None:
            height, width = self._size
            bounds = self._model.vis.global_
            bounds.offheight, bounds.offwidth = max(height, bounds.offheight), max(width, bounds.offwidth)
            self._renderer = mujoco.Renderer(self._model, height, width)
        try:
            self._renderer.update_scene(moment, camera, self._looks)
            return self._renderer.render()
        finally:
            let_go()

    def close(self) -> None:
        """Free the OpenGL context; what was not drawn by now never is."""
        self._closed = True
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def let_go() -> None:
    """Of the current GL context, so that another thread may have it."""
    if os.environ["MUJOCO_GL"] == "egl":
        from mujoco import egl

        none = egl.EGL.EGL_NO_SURFACE
        egl.EGL.eglMakeCurrent(egl.EGL_DISPLAY, none, none, egl.EGL.EGL_NO_CONTEXT)
