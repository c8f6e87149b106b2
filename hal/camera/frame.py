"""A frame of a camera: its pixels, when it was taken, and its conversion to the image of an observation."""

from __future__ import annotations

import cv2
import numpy as np

_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Frame:
    """One frame. bgr: uint8[height, width, 3]. stamp_ns: monotonic. decode_ms: what it cost."""

    def __init__(self, bgr: np.ndarray, stamp_ns: int, decode_ms: float) -> None:
        self.bgr = bgr
        self.stamp_ns = stamp_ns
        self.decode_ms = decode_ms
        self._rgb: np.ndarray | None = None

    def rgb(self, rotation: int) -> np.ndarray:
        """uint8 RGB turned clockwise by `rotation` degrees. Converted once and shared by all observations of this
        frame, hence read-only."""
        if self._rgb is None:
            upright = cv2.rotate(self.bgr, _TURNS[rotation]) if rotation else self.bgr
            rgb = cv2.cvtColor(upright, cv2.COLOR_BGR2RGB)
            rgb.flags.writeable = False
            self._rgb = rgb
        return self._rgb
