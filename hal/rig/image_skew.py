"""How far apart in time the images of one observation were taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

from tactus.hal.robot import RobotError
from tactus.hal.spec import IMAGES

KEPT = 10_000
"""Observations that the percentile is taken over."""


class ImageSkew:
    """Measures and limits the time between the oldest and the newest image of an observation.

    Cameras run free: each takes its pictures when it likes, so the newest ones lie up to a frame period apart.

        top     |       |       |       |
        wrist      |       |       |       |
                                 ^ observed: skew is the distance of the last two marks

    limit_ms: an observation with more than this is refused; None measures only. Two frame periods leave room for a
    frame that is lost; a camera that freezes exceeds any limit, and a rig with a limit then stops.
    """

    def __init__(self, limit_ms: float | None = None) -> None:
        self._limit_ms = limit_ms
        self._seen_ms: deque[float] = deque(maxlen=KEPT)
        self._most_ms = 0.0

    def check(self, stamps_ns: Mapping[str, int]) -> None:
        """Take note of an observation's stamps. Raises RobotError above the limit, naming oldest and newest."""
        images = {name: stamp for name, stamp in stamps_ns.items() if name.startswith(IMAGES) and stamp > 0}
        if len(images) < 2:
            return
        oldest, newest = min(images, key=images.__getitem__), max(images, key=images.__getitem__)
        skew_ms = (images[newest] - images[oldest]) / 1e6
        self._seen_ms.append(skew_ms)
        self._most_ms = max(self._most_ms, skew_ms)
        if self._limit_ms is not None and skew_ms > self._limit_ms:
            raise RobotError(
                f"{oldest} was taken {skew_ms:.0f} ms before {newest}; max_skew_ms is {self._limit_ms:g}. Has the "
                "camera stopped, or is it slower than the others? Without max_skew_ms the skew is only counted"
            )

    def counters(self) -> dict[str, float]:
        """p95 and maximum in ms; nothing if there never were two images."""
        if not self._seen_ms:
            return {}
        p95 = float(np.percentile(list(self._seen_ms), 95))
        return {"skew_p95_ms": round(p95, 2), "skew_max_ms": round(self._most_ms, 2)}
