"""LIBERO's cameras rendered on demand: the state is copied when an image is due, and drawn when it is read.

robosuite samples each camera on a timer of its own, usually one physics step before the end of a control
step, and renders there. Here the camera copies the simulation state at that very moment (about 0.07 ms) and
the picture is drawn from the copy when it is first read, so the pixels equal LIBERO's bit for bit:

    physics steps   0 ........ 23  24   | 0 ........ 23  24   |
    robosuite                  render   |            render   |   2 x 47 ms every control step
    here                       copy     |            copy     |   renders only if read

Drawing goes through robosuite 1.4's MjRenderContext.render, as its own cameras do. robosuite draws into whichever GL
context is current, and one thread can have it at a time: here it is a scene's own while it draws, and nobody's after.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np


@contextmanager
def current(context: Any) -> Iterator[None]:
    """A GL context of robosuite's, for this thread and this block."""
    context.make_current()
    try:
        yield
    finally:
        let_go(context)


def let_go(context: Any) -> None:
    """Of a GL context that was made or used in this thread, so that another thread may have it."""
    if type(context).__name__ == "EGLGLContext":
        from robosuite.renderers.context import egl_context as egl

        none = egl.EGL.EGL_NO_SURFACE
        egl.EGL.eglMakeCurrent(egl.EGL_DISPLAY, none, none, egl.EGL.EGL_NO_CONTEXT)


class Snapshot:
    """The state of a simulation at one moment: MjData, and what LIBERO changes in the model while it runs."""

    def __init__(self, sim: Any, spares: list[mujoco.MjData]) -> None:
        self._sim = sim
        self._episode = sim.episodes
        self._model = sim.model._model
        self._spares = spares
        self._data = spares.pop() if spares else mujoco.MjData(self._model)
        self.copy()

    def copy(self) -> None:
        """Overwrite this snapshot with the simulation's present state."""
        mujoco.mj_copyData(self._data, self._model, self._sim.data._data)
        self._site_rgba = self._model.site_rgba.copy()

    def render(self, camera: str, height: int, width: int) -> np.ndarray:
        """uint8[height, width, 3], RGB, right side up: rotated by 180 degrees as policies are trained on it."""
        context = getattr(self._sim, "_render_context_offscreen", None)  # gone once the sim is freed
        if context is None or self._episode != self._sim.episodes:
            raise RuntimeError("this image was never read in its own episode, and the episode's scene is gone")
        live, site_rgba = context.data, self._model.site_rgba.copy()
        with current(context.gl_ctx):
            try:
                context.data = SimpleNamespace(_data=self._data)
                self._model.site_rgba[:] = self._site_rgba
                pixels = self._sim.render(camera_name=camera, height=height, width=width)
            finally:
                context.data = live
                self._model.site_rgba[:] = site_rgba
        return np.ascontiguousarray(pixels[::-1, ::-1])

    def __del__(self) -> None:
        self._spares.append(self._data)
