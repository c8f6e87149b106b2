"""The video of an episode: an mp4 of what the cameras see, with the state of the queue under each frame."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path

import cv2
import numpy as np

from tactus.hal.spec import RobotSpec, SpecError
from tactus.runtime.bounded_queue import BoundedQueue
from tactus.runtime.robot_node.watcher import TickView, Watcher

STRIP_PX = 24
HEIGHT_PX = 256
WAITING_FRAMES = 60
"""Frames that may wait for ffmpeg before the robot waits too: two seconds at 30 Hz."""


class Video(Watcher):
    """Frames of one episode, at the robot's rate, H.264 through ffmpeg, which a thread of its own feeds. Made before
    the episode, which it watches.

    Raises SpecError if the robot has no camera or ffmpeg is not installed: before anything runs.
    """

    def __init__(self, file: Path, spec: RobotSpec, horizon: int) -> None:
        self.frames = 0
        self._file = file
        self._fps = spec.fps
        self._horizon = horizon
        self._cameras = [name for name, feature in spec.observations.items() if feature.is_image]
        self._waiting: BoundedQueue[np.ndarray | None] = BoundedQueue(WAITING_FRAMES)
        self._thread: threading.Thread | None = None
        self._failed = False
        if not self._cameras:
            raise SpecError("--video needs a camera; this robot observes no image")
        if shutil.which("ffmpeg") is None:
            raise SpecError("--video needs ffmpeg on the PATH; on Debian or Ubuntu: apt-get install ffmpeg")

    def before(self, view: TickView) -> None:
        """Append a tick: its images side by side, and how many actions are queued."""
        arrays = view.observe().arrays
        images = [fit_height(arrays[name], HEIGHT_PX) for name in self._cameras]
        frame = np.concatenate([np.concatenate(images, axis=1), self._strip(view, sum(i.shape[1] for i in images))])
        frame = np.pad(frame, [(0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)])
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, args=frame.shape[:2], name="video", daemon=True)
            self._thread.start()
        self._waiting.put(frame)
        self.frames += 1

    end = before
    """The film ends with how it ended."""

    def _strip(self, view: TickView, width: int) -> np.ndarray:
        strip = np.full((STRIP_PX, width, 3), 24, np.uint8)
        filled = int(width * min(1.0, view.remaining / self._horizon))
        strip[:4, :filled] = (90, 170, 110)
        if view.starved:
            strip[:4] = (220, 60, 50)
        text = f"tick {view.tick}  queued {view.remaining}" + ("  STARVED: holding" if view.starved else "")
        cv2.putText(strip, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
        return strip

    def _write(self, height: int, width: int) -> None:
        """The thread's: frames to ffmpeg until None. After a failure frames are taken all the same, and lost."""
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:g}", "-i", "-"]
        coded = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-crf", "20", str(self._file)]
        command = ["ffmpeg", "-y", "-loglevel", "error", "-threads", "1", *raw, *coded]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as ffmpeg:
            assert ffmpeg.stdin is not None
            while (frame := self._waiting.get()) is not None:
                try:
                    ffmpeg.stdin.write(np.ascontiguousarray(frame).tobytes())
                except BrokenPipeError:
                    self._failed = True
        self._failed = self._failed or ffmpeg.returncode != 0

    def close(self) -> None:
        """Finish the file; raises RuntimeError if ffmpeg could not write it."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._waiting.put(None)
        thread.join()
        if self._failed:
            raise RuntimeError(f"ffmpeg could not write {self._file}")


def fit_height(image: np.ndarray, height_px: int) -> np.ndarray:
    """For the eye only; what a policy gets is never resized."""
    height, width = image.shape[:2]
    if height == height_px:
        return image
    return cv2.resize(image, (max(1, round(width * height_px / height)), height_px), interpolation=cv2.INTER_AREA)
