"""The cameras' newest pictures as JPEG, made when somebody wants them, once for all who look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from tactus.hal.spec import Observation

QUALITY = 75
MAX_WIDTH = 640


class Picture(NamedTuple):
    """number: counts those of this camera. stamp_ns: monotonic, when it was taken; 0 if nobody knows."""

    number: int
    stamp_ns: int
    jpeg: bytes


class Pictures:
    """newest: what the cameras show, or None before there is anything. hz: new ones of each camera a second, at most.

    Used by one thread at a time. Nothing waits anywhere but the last picture of each camera.
    """

    def __init__(self, newest: Callable[[], Observation | None], cameras: dict[str, str], hz: float) -> None:
        self._newest = newest
        self._cameras = cameras
        self._every_s = 1 / hz
        self._kept: dict[str, Picture] = {}
        self._of: dict[str, np.ndarray] = {}
        self._made_s: dict[str, float] = {}

    def has(self, camera: str) -> bool:
        return camera in self._cameras

    def after(self, camera: str, number: int) -> Picture | None:
        """The newest picture, if it is not `number`. Raises whatever reading it raises."""
        name = self._cameras[camera]
        now_s = time.monotonic()
        if now_s - self._made_s.get(camera, 0.0) >= self._every_s and (seen := self._newest()) is not None:
            self._made_s[camera] = now_s
            rgb = seen.arrays[name]
            if self._of.get(camera) is not rgb:
                self._of[camera] = rgb
                last = self._kept.get(camera)
                jpeg = encoded(rgb[-1] if rgb.ndim == 4 else rgb)
                self._kept[camera] = Picture(last.number + 1 if last else 1, seen.stamps_ns.get(name, 0), jpeg)
        picture = self._kept.get(camera)
        return picture if picture is not None and picture.number != number else None


def encoded(rgb: np.ndarray) -> bytes:
    """uint8[H, W, 3] RGB as JPEG, no wider than MAX_WIDTH."""
    height, width = rgb.shape[:2]
    if width > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(height * MAX_WIDTH / width)))
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
