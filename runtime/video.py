"""An mp4 of what the cameras see, with the state of the queue under each frame."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np

from hal.robot import Outcome
from hal.spec import RobotSpec, SpecError
from runtime.robot_node import TickView

STRIP_PX = 24
HEIGHT_PX = 256


class Video:
    """Frames of one episode, at the robot's rate, H.264 through ffmpeg. Made before the episode, which it watches.

    Raises SpecError if the robot has no camera or ffmpeg is not installed: before anything runs.
    """

    def __init__(self, file: Path, spec: RobotSpec, horizon: int) -> None:
        self.frames = 0
        self._file = file
        self._fps = spec.fps
        self._horizon = horizon
        self._cameras = [name for name, feature in spec.observations.items() if feature.is_image]
        self._writer: subprocess.Popen[bytes] | None = None
        if not self._cameras:
            raise SpecError("--video needs a camera; this robot observes no image")
        if shutil.which("ffmpeg") is None:
            raise SpecError("--video needs ffmpeg on the PATH; on Debian or Ubuntu: apt-get install ffmpeg")

    def before(self, view: TickView) -> None:
        """Append a tick: its images side by side, and how many actions are queued."""
        arrays = view.observe().arrays
        images = [self._fit(arrays[name]) for name in self._cameras]
        frame = np.concatenate([np.concatenate(images, axis=1), self._strip(view, sum(i.shape[1] for i in images))])
        frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)])
        if self._writer is None:
            self._writer = self._open(frame.shape[1], frame.shape[0])
        assert self._writer.stdin is not None
        self._writer.stdin.write(np.ascontiguousarray(frame).tobytes())
        self.frames += 1

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        """Nothing new to see until the next tick."""

    end = before
    """The film ends with how it ended."""

    def _fit(self, image: np.ndarray) -> np.ndarray:
        """For the eye only; what a policy gets is never resized."""
        height, width = image.shape[:2]
        if height == HEIGHT_PX:
            return image
        return cv2.resize(image, (max(1, round(width * HEIGHT_PX / height)), HEIGHT_PX), interpolation=cv2.INTER_AREA)

    def _strip(self, view: TickView, width: int) -> np.ndarray:
        strip = np.full((STRIP_PX, width, 3), 24, np.uint8)
        filled = int(width * min(1.0, view.remaining / self._horizon))
        strip[:4, :filled] = (90, 170, 110)
        if view.starved:
            strip[:4] = (220, 60, 50)
        words = f"tick {view.tick}  queued {view.remaining}" + ("  STARVED: holding" if view.starved else "")
        cv2.putText(strip, words, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
        return strip

    def _open(self, width: int, height: int) -> subprocess.Popen[bytes]:
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:g}", "-i", "-"]
        coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", str(self._file)]
        return subprocess.Popen(["ffmpeg", "-y", "-loglevel", "error", *raw, *coded], stdin=subprocess.PIPE)

    def close(self) -> None:
        """Finish the file; raises RuntimeError if ffmpeg could not write it."""
        if self._writer is None:
            return
        assert self._writer.stdin is not None
        self._writer.stdin.close()
        if self._writer.wait(timeout=60):
            raise RuntimeError(f"ffmpeg could not write {self._file}")
        self._writer = None
