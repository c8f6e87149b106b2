"""How a camera's pictures are kept in a dataset: as mp4, or one by one where the video encoder cannot take them."""

from __future__ import annotations

from typing import Literal

from tactus.hal.spec import Feature, SpecError

PictureFormat = Literal["video", "image"]
SMALLEST = 64
"""Pixels a side. Below it SVT-AV1, the encoder of LeRobot's videos, refuses some sizes and dies of others (SIGFPE,
SIGSEGV), not always of the same."""
LARGEST = (8704, 16384)
"""Height and width, in pixels, that SVT-AV1 takes at most."""
FASTEST = 240
"""Frames per second that SVT-AV1 takes at most."""


def picture_format(name: str, feature: Feature, fps: float, video: bool) -> tuple[PictureFormat, str]:
    """Of a camera's feature, and why it is not mp4 although `video` asks for that; empty if it is, or was not asked.

    Raises SpecError if LeRobot takes such pictures in neither format.
    """
    height, width, channels = feature.shape
    if channels != 3 or feature.dtype != "uint8":
        raise SpecError(f"{name}: found {feature.dtype} of {channels} channels; a LeRobotDataset takes uint8 of 3: RGB")
    if not video:
        return "image", ""
    why = []
    if min(height, width) < SMALLEST or height > LARGEST[0] or width > LARGEST[1]:
        why.append(f"{SMALLEST}x{SMALLEST} to {LARGEST[1]}x{LARGEST[0]} pixels, found {width}x{height}")
    if fps > FASTEST:
        why.append(f"up to {FASTEST} frames per second, found {fps:g}")
    if not why:
        return "video", ""
    return "image", f"{name}: kept as single pictures, not as mp4: the encoder takes {' and '.join(why)}"
