"""The video of an episode: an mp4 of what the cameras see, with the state of the queue under each frame."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tactus.hal.spec import RobotSpec, SpecError
from tactus.runtime.bounded_queue import BoundedQueue
from tactus.runtime.evaluation.results import ResultsError
from tactus.runtime.robot_node.watcher import POLICY, TickView, Watcher

STRIP_PX = 24
HEIGHT_PX = 256
WIDTH_PX = 3840
"""A film is no wider, however many cameras: players, and at 16384 the encoder, have an end."""
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
        images = side_by_side([arrays[name] for name in self._cameras], HEIGHT_PX, WIDTH_PX)
        frame = np.concatenate([images, self._strip(view, images.shape[1])])
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
        who = f"queued {view.remaining}" if view.driver == POLICY else "PERSON"
        text = f"tick {view.tick}  {who}" + ("  STARVED: holding" if view.starved else "")
        cv2.putText(strip, text, (6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA)
        return strip

    def _write(self, height: int, width: int) -> None:
        """The thread's: frames to ffmpeg until None. After a failure frames are taken all the same, and lost."""
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:g}", "-i", "-"]
        coded = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-crf", "20", str(self._file)]
        command = ["ffmpeg", "-y", "-loglevel", "error", "-threads", "1", *raw, *coded]
        # in a session of its own: Ctrl-C is for us, and ends the film with its last frame
        with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as ffmpeg:
            assert ffmpeg.stdin is not None
            while (frame := self._waiting.get()) is not None:
                try:
                    ffmpeg.stdin.write(np.ascontiguousarray(frame).tobytes())
                except OSError:
                    self._failed = True
        self._failed = self._failed or ffmpeg.returncode != 0

    def close(self) -> None:
        """Finish the file; raises ResultsError if ffmpeg could not write it."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._waiting.put(None)
        thread.join()
        if self._failed:
            raise ResultsError(f"cannot write {self._file}: ffmpeg says why above")


def side_by_side(images: Sequence[np.ndarray], height_px: int, width_px: int) -> np.ndarray:
    """Scaled to one height, lower than asked for if they would be wider than width_px together. For the eye only; what
    a policy gets is never resized."""
    widths = [image.shape[1] * height_px / image.shape[0] for image in images]
    share = min(1.0, width_px / sum(widths))
    height = max(1, int(height_px * share))
    sizes = [(max(1, round(width * share)), height) for width in widths]
    return np.concatenate(
        [
            cv2.resize(image, size, interpolation=cv2.INTER_AREA) if image.shape[1::-1] != size else image
            for image, size in zip(images, sizes, strict=True)
        ],
        axis=1,
    )
