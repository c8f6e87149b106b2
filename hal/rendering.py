"""How MuJoCo's simulators draw without a screen; decided before mujoco is first imported, which reads it then."""

from __future__ import annotations

import os
import sys

from tactus.hal.spec import SpecError

SCREENLESS, ON_SCREEN = ("egl", "osmesa"), ("glfw", "glx")


def prepare() -> None:
    """EGL, unless the environment says otherwise. Raises SpecError for what it says and nothing can draw with."""
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower() or "egl"
    os.environ["MUJOCO_GL"] = wanted
    platform = os.environ.setdefault("PYOPENGL_PLATFORM", wanted)
    if sys.platform != "linux":
        return
    if wanted in ON_SCREEN and not os.environ.get("DISPLAY"):
        raise SpecError(f"MUJOCO_GL: found {wanted}, which needs a screen, and DISPLAY is not set; use egl or osmesa")
    if wanted not in SCREENLESS + ON_SCREEN:
        raise SpecError(f"MUJOCO_GL: found {wanted!r}; accepted: egl (a GPU, or Mesa), osmesa, and glfw with a screen")
    if wanted in SCREENLESS and platform != wanted:
        raise SpecError(f"PYOPENGL_PLATFORM: found {platform!r}; accepted with MUJOCO_GL={wanted}: {wanted}, or unset")
    device = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if device is not None and not device.isdecimal():
        raise SpecError(f"MUJOCO_EGL_DEVICE_ID: found {device!r}; accepted: 0, 1, … as many as there are, or unset")
