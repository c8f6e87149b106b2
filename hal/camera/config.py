"""What describes a camera: where its pictures come from, and when they are too old."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tactus.hal.config import Hz, Pixels, Positive, Seconds, SecondsOrZero
from tactus.hal.robot import RobotConfig


def _name(name: str) -> str:
    if not name or "/" in name or " " in name:
        raise ValueError(f"found {name!r}; it becomes part of observation.images.<name>")
    return name


@RobotConfig.register_subclass("camera")
class CameraConfig(RobotConfig):
    """A camera, stream or video that OpenCV opens. A frozen one is reported and reopened; it holds nobody up."""

    source: int | str = 0
    """device number or path (best /dev/v4l/by-id/…), URL (http://, rtsp://), video file, image files (*.png)"""
    name: Annotated[str, AfterValidator(_name)] = "camera"
    """the image is called observation.images.<name>"""
    width: Pixels = 640
    """of the image as it is given, after rotation, in pixels; another size is an error, never a resize"""
    height: Pixels = 480
    """of the image as it is given, after rotation, in pixels"""
    fps: Hz = 30.0
    """rate in Hz: asked of a device, expected of a stream, the pace of files"""
    rotation: Literal[0, 90, 180, 270] = 0
    """degrees clockwise from the picture as the device gives it to right side up: 0, 90, 180 or 270"""
    max_age_ms: Positive = 200.0
    """a frame older than this is reported as too old; it is still given, with the time it was taken"""
    reopen_after_s: Seconds = 1.0
    """the source is opened anew if it gives no frame for so long"""
    give_up_s: Seconds = 10.0
    """observing is an error after so long without a frame"""
    open_timeout_s: Seconds = 5.0
    """how long opening may take, up to the first frame"""
    warmup_s: SecondsOrZero = 1.0
    """time given to a device to settle its exposure before it counts as connected; streams and files get none"""
    fourcc: Annotated[str, Field(min_length=4, max_length=4)] = "MJPG"
    """pixel format asked of a device; MJPG needs a sixteenth of YUYV's USB bandwidth"""
    loop: bool = True
    """whether a file or images start again after the end"""
    backend: str = ""
    """OpenCV backend, e.g. GSTREAMER; V4L2 for devices and FFMPEG for URLs and files if not given"""

    entry_point = "tactus.hal.camera.robot:Camera"

    def __post_init__(self) -> None:
        if self.max_age_ms < 2000 / self.fps:
            raise ValueError(
                f"max_age_ms: found {self.max_age_ms:g}; at {self.fps:g} frames per s it must be "
                f"at least {2000 / self.fps:.0f}, two frames"
            )
