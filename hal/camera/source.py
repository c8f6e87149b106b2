"""Sources of frames: what a camera's `source` key means, and V4L2 devices and network streams opened by OpenCV."""

from __future__ import annotations

import glob
import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np

from tactus.hal.camera.config import CameraConfig
from tactus.hal.camera.frame import Frame
from tactus.hal.robot import RobotError

Kind = Literal["device", "stream", "images", "file"]

DRIVER_LAG_NS = 1_000_000_000
"""A driver's stamp further back than this is on another clock."""


class Source(Protocol):
    """An opened source of frames. Used by one thread: OpenCV does not survive a release during a read."""

    def read(self) -> Frame | None:
        """The next frame, waiting for it; None when there is none, because of the end, a failure or a timeout."""
        ...

    def release(self) -> None: ...


Open = Callable[[threading.Event], Source]
"""Opens a source, raising RobotError; the event, once set, ends its waits."""


def kind_of(source: int | str) -> Kind:
    """What a source is, by how it is written."""
    text = str(source)
    if text.isdigit() or text.startswith("/dev/"):
        return "device"
    if "://" in text:
        return "stream"
    return "images" if re.search(r"[*?\[]|%0?\d*d", text) else "file"


def shown(source: int | str) -> str:
    """For people and records: without the password that a URL may carry."""
    return re.sub(r"://[^/@]*@", "://…@", str(source))


def video_devices() -> dict[str, str]:
    """/dev/videoN of this machine, with the names their drivers give them. One camera may have several nodes."""
    paths = sorted(glob.glob("/dev/video*"), key=lambda path: (len(path), path))
    names = {path: Path("/sys/class/video4linux", Path(path).name, "name") for path in paths}
    return {path: name.read_text().strip() if name.is_file() else "" for path, name in names.items()}


def capture_stamp_ns(reported_ms: float, now_ns: int) -> int:
    """When a frame was taken, monotonic ns: the V4L2 driver's own stamp, or now if that is on another clock or absent.

    reported_ms: CAP_PROP_POS_MSEC. UVC drivers stamp buffers with CLOCK_MONOTONIC, some others with wall time or 0.
    """
    reported_ns = int(reported_ms * 1_000_000)
    return reported_ns if 0 <= now_ns - reported_ns <= DRIVER_LAG_NS else now_ns


def open_capture(
    config: CameraConfig, target: int | str, backend: str, parameters: dict[int, int]
) -> cv2.VideoCapture | None:
    """None if it cannot be opened.

    The caller reports failures, so OpenCV and FFmpeg are set to print less of their own, in the whole process, unless
    the environment (OPENCV_LOG_LEVEL, OPENCV_FFMPEG_LOGLEVEL) says otherwise.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    name = config.backend or backend
    number = getattr(cv2, f"CAP_{name.upper()}", None)
    if number is None:
        known = sorted({cv2.videoio_registry.getBackendName(known) for known in cv2.videoio_registry.getBackends()})
        raise RobotError(f"camera {config.name}: backend: found {config.backend!r}; this OpenCV has {', '.join(known)}")
    capture = cv2.VideoCapture(target, number, [n for pair in parameters.items() for n in pair])
    return capture if capture.isOpened() else None


class Capture:
    """Frames of an opened cv2.VideoCapture, stamped on arrival."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture

    def _stamp_ns(self) -> int:
        return time.monotonic_ns()

    def read(self) -> Frame | None:
        if not self._capture.grab():
            return None
        stamp_ns = self._stamp_ns()
        started = time.perf_counter()
        bgr = self._retrieve()
        return None if bgr is None else Frame(bgr, stamp_ns, (time.perf_counter() - started) * 1000)

    def _retrieve(self) -> np.ndarray | None:
        """The pixels of what was grabbed, uint8[height, width, 3]; None if there are none."""
        ok, bgr = self._capture.retrieve()
        return bgr if ok else None

    def release(self) -> None:
        self._capture.release()


class Device(Capture):
    """A V4L2 camera, asked for compressed frames of the configured size and rate, stamped by its driver."""

    def __init__(self, config: CameraConfig) -> None:
        path = str(config.source)
        path = f"/dev/video{path}" if path.isdigit() else path
        self._check(config.name, path)
        capture = open_capture(config, path, "V4L2", {})
        if capture is None:
            raise RobotError(
                f"camera {config.name}: {path} cannot be opened as a camera; another program may be using it "
                f"(`fuser {path}`), or it is a node without pictures; found {_devices()}"
            )
        turned = config.rotation in (90, 270)
        width, height = (config.height, config.width) if turned else (config.width, config.height)
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*config.fourcc))
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        capture.set(cv2.CAP_PROP_FPS, config.fps)
        super().__init__(capture)

    @property
    def format(self) -> str:
        """What it gives, which need not be what was asked for: `MJPG 640x480 at 30`."""
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        letters = "".join(chr(code >> 8 * i & 0xFF) for i in range(4))
        width, height = self._capture.get(cv2.CAP_PROP_FRAME_WIDTH), self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
        return f"{letters} {width:.0f}x{height:.0f} at {self._capture.get(cv2.CAP_PROP_FPS):g}"

    @staticmethod
    def _check(name: str, path: str) -> None:
        if not os.path.exists(path):
            raise RobotError(f"camera {name}: {path} does not exist; found {_devices()}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise RobotError(
                f"camera {name}: no permission for {path}; `sudo usermod -aG video $USER`, then log in anew"
            )

    def _stamp_ns(self) -> int:
        return capture_stamp_ns(self._capture.get(cv2.CAP_PROP_POS_MSEC), time.monotonic_ns())


class Stream(Capture):
    """An http:// or rtsp:// stream, of its own size and rate. Decoded by one thread: each more would hold a frame back.

    Motion JPEG is decoded here, as OpenCV does for USB cameras: FFmpeg would scale a picture of another size to that of
    the first one, and nobody would know.

    Options of FFmpeg's own (e.g. rtsp_transport) come from the environment: OPENCV_FFMPEG_CAPTURE_OPTIONS.
    """

    def __init__(self, config: CameraConfig) -> None:
        timeouts = {
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: int(config.open_timeout_s * 1000),
            # Longer than the grabber waits, which then says what happened; an abandoned read still ends.
            cv2.CAP_PROP_READ_TIMEOUT_MSEC: int(config.reopen_after_s * 1000) + 1000,
            cv2.CAP_PROP_N_THREADS: 1,
        }
        capture = open_capture(config, str(config.source), "FFMPEG", timeouts)
        if capture is None:
            raise RobotError(
                f"camera {config.name}: {shown(config.source)} cannot be opened as a stream of pictures; is its server "
                f"running, and does a player show it (`ffplay {shown(config.source)}`)?"
            )
        super().__init__(capture)
        is_jpeg = int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"MJPG")
        self._is_jpeg = is_jpeg and capture.set(cv2.CAP_PROP_FORMAT, -1)

    def _retrieve(self) -> np.ndarray | None:
        data = super()._retrieve()
        return cv2.imdecode(data, cv2.IMREAD_COLOR) if self._is_jpeg and data is not None else data


def _devices() -> str:
    found = [f"{path} ({name})" if name else path for path, name in video_devices().items()]
    return ", ".join(found) or "no /dev/video* at all: is the camera plugged in?"
