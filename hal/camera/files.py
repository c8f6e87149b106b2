"""Video files and image sequences as sources of frames, played at a camera's rate."""

from __future__ import annotations

import glob
import re
import threading
import time
from itertools import count
from pathlib import Path

import cv2
import numpy as np

from tactus.hal.camera.config import CameraConfig
from tactus.hal.camera.frame import Frame
from tactus.hal.camera.source import open_capture
from tactus.hal.robot import RobotError


class Pace:
    """A grid of moments 1/fps apart. A read that is late by a whole period starts a new grid: no burst to catch up."""

    def __init__(self, fps: float, stop: threading.Event) -> None:
        self._period_ns = round(1e9 / fps)
        self._stop = stop
        self._next_ns = time.monotonic_ns()

    def wait(self) -> int:
        """Wait for the next moment and return it, monotonic ns."""
        due_ns, now_ns = self._next_ns, time.monotonic_ns()
        if now_ns - due_ns > self._period_ns:
            due_ns = now_ns
        self._next_ns = due_ns + self._period_ns
        self._stop.wait(max(due_ns - now_ns, 0) / 1e9)
        return due_ns


class VideoFile:
    """A video file."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        path = str(config.source)
        if not Path(path).is_file():
            raise RobotError(f"camera {config.name}: no such file: {path}; source is a device, URL, file or images")
        capture = open_capture(config, path, "FFMPEG", {})
        if capture is None:
            raise RobotError(
                f"camera {config.name}: {path} cannot be opened as a video; `ffprobe {path}` says what it is"
            )
        self._capture = capture
        self._loop = config.loop
        self._pace = Pace(config.fps, stop)

    def read(self) -> Frame | None:
        started = time.perf_counter()
        ok, bgr = self._capture.read()
        if not ok and self._loop:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            ok, bgr = self._capture.read()
        decode_ms = (time.perf_counter() - started) * 1000
        return Frame(bgr, self._pace.wait(), decode_ms) if ok else None

    def release(self) -> None:
        self._capture.release()


class ImageFiles:
    """Image files in order: those a glob matches, sorted, or a pattern's (%04d.png), from its lowest number on."""

    def __init__(self, config: CameraConfig, stop: threading.Event) -> None:
        self._name = config.name
        self._files = image_files(str(config.source))
        if not self._files:
            raise RobotError(f"camera {config.name}: no file matches {config.source}")
        self._loop = config.loop
        self._pace = Pace(config.fps, stop)
        self._at = 0

    def read(self) -> Frame | None:
        if self._at == len(self._files) and not self._loop:
            return None
        path = self._files[self._at % len(self._files)]
        self._at = self._at % len(self._files) + 1
        started = time.perf_counter()
        bgr: np.ndarray | None = cv2.imread(path, cv2.IMREAD_COLOR)
        if bgr is None:
            raise RobotError(f"camera {self._name}: {path} is not an image that OpenCV reads")
        decode_ms = (time.perf_counter() - started) * 1000
        return Frame(bgr, self._pace.wait(), decode_ms)

    def release(self) -> None:
        pass


def image_files(pattern: str) -> list[str]:
    """Files that a pattern names, img_%03d.png or *.png, in order."""
    number = re.search(r"%0?\d*d", pattern)
    if number is None:
        return sorted(glob.glob(pattern))
    before, after = pattern[: number.start()], pattern[number.end() :]
    found = glob.glob(f"{glob.escape(before)}*{glob.escape(after)}")
    numbers = sorted(int(n) for path in found if (n := path[len(before) : len(path) - len(after)]).isdigit())
    files = []
    for n in count(numbers[0] if numbers else 0):
        path = pattern % n
        if path not in found:
            return files
        files.append(path)
    return files
