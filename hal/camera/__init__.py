"""Cameras as Robots. Importing this registers the config and does not import OpenCV."""

from __future__ import annotations

from dataclasses import dataclass

from tactus.hal.robot import Robot, RobotConfig
from tactus.hal.spec import SpecError

ROTATIONS = (0, 90, 180, 270)


@RobotConfig.register_subclass("camera")
@dataclass
class CameraConfig(RobotConfig):
    """Any camera that OpenCV opens. A frozen one is reported and reopened, and never holds up whoever observes."""

    source: int | str = 0
    """device number or path (best /dev/v4l/by-id/…), URL (http://, rtsp://), video file, image files (*.png)"""
    name: str = "camera"
    """the image is called observation.images.<name>"""
    width: int = 640
    """of the image as it is given, after rotation, in pixels; another size is an error, never a resize"""
    height: int = 480
    """of the image as it is given, after rotation, in pixels"""
    fps: float = 30.0
    """rate in Hz: asked of a device, expected of a stream, the pace of files"""
    rotation: int = 0
    """degrees clockwise from the picture as the device gives it to right side up: 0, 90, 180 or 270"""
    max_age_ms: float = 200.0
    """a frame older than this is reported as too old; it is still given, with the time it was taken"""
    reopen_after_s: float = 1.0
    """the source is opened anew if it gives no frame for so long"""
    give_up_s: float = 10.0
    """observing is an error after so long without a frame"""
    open_timeout_s: float = 5.0
    """how long opening may take, up to the first frame"""
    warmup_s: float = 1.0
    """time given to a device to settle its exposure before it counts as connected; streams and files get none"""
    fourcc: str = "MJPG"
    """pixel format asked of a device; MJPG needs a sixteenth of YUYV's USB bandwidth"""
    loop: bool = True
    """whether a file or images start again after the end"""
    backend: str = ""
    """OpenCV backend, e.g. GSTREAMER; V4L2 for devices and FFMPEG for URLs and files if not given"""

    def __post_init__(self) -> None:
        for key in ("width", "height", "fps", "max_age_ms", "reopen_after_s", "give_up_s", "open_timeout_s"):
            if not getattr(self, key) > 0:
                raise SpecError(f"camera {self.name}: {key}: found {getattr(self, key)}; it must be more than 0")
        if self.rotation not in ROTATIONS:
            raise SpecError(f"camera {self.name}: rotation: found {self.rotation}; accepted: 0, 90, 180, 270")
        if self.max_age_ms < 2000 / self.fps:
            raise SpecError(
                f"camera {self.name}: max_age_ms: found {self.max_age_ms:g}; at {self.fps:g} frames per s it must be "
                f"at least {2000 / self.fps:.0f}, two frames"
            )
        if len(self.fourcc) != 4:
            raise SpecError(f"camera {self.name}: fourcc: found {self.fourcc!r}; it has four letters, e.g. MJPG")
        if not self.name or "/" in self.name or " " in self.name:
            raise SpecError(f"camera name: found {self.name!r}; it becomes part of observation.images.<name>")

    def make(self) -> Robot:
        from tactus.hal.camera.robot import Camera

        return Camera(self)
