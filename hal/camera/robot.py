"""An OpenCV camera as a Robot: it gives one image and takes no action."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from tactus.hal.camera.config import CameraConfig
from tactus.hal.camera.files import ImageFiles, VideoFile
from tactus.hal.camera.frame import Frame
from tactus.hal.camera.grabber import Grabber
from tactus.hal.camera.source import Device, Open, Stream, kind_of, shown
from tactus.hal.robot import RobotError
from tactus.hal.sensor import NO_ACTION, Sensor
from tactus.hal.spec import IMAGES, LazyArrays, Observation, RobotSpec, image

AGES_KEPT = 10_000
"""Ages that the percentiles are taken over: five minutes at 30 observations per s."""


class Camera(Sensor):
    """`observe` gives the newest frame at once, with the time it was taken, and never waits for the camera.

    A frame older than max_age_ms is still given, with its true stamp, counted and reported as an event: a safety layer
    that limits the age of what actions are based on then holds the robot, while control goes on undisturbed. Meanwhile
    the source is opened anew; after give_up_s without a frame, observing raises RobotError. Pixels are converted when
    an observation's image is first read.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._config = config
        self._key = IMAGES + config.name
        self._grabber: Grabber | None = None
        self._ages_ms: deque[float] = deque(maxlen=AGES_KEPT)
        self._stale = 0
        self._is_stale = False
        self._said: list[str] = []
        self._spec = RobotSpec(
            "camera",
            config.fps,
            {self._key: image(config.height, config.width)},
            NO_ACTION,
            {"source": shown(config.source)},
        )

    def connect(self) -> None:
        """Raises RobotError: no such device, no permission, in use, not a stream, no frames, another size."""
        config = self._config
        self.close()
        kind = kind_of(config.source)
        self._ages_ms.clear()
        self._stale, self._is_stale = 0, False
        grabber = Grabber(
            config.name,
            _opener(config),
            self._check,
            config.reopen_after_s,
            config.open_timeout_s,
            finite=kind in ("file", "images"),
        )
        grabber.start()
        self._grabber = grabber
        if kind == "device":
            time.sleep(config.warmup_s)

    def observe(self) -> Observation:
        config, grabber = self._config, self._opened()
        if grabber.fault is not None:
            raise grabber.fault
        frame = grabber.newest
        assert frame is not None, "a connected camera has had a frame"
        age_s = (time.monotonic_ns() - frame.stamp_ns) / 1e9
        self._ages_ms.append(age_s * 1000)
        too_old = age_s * 1000 > config.max_age_ms
        if too_old:
            self._stale += 1
            if not self._is_stale:
                self._said.append(f"the newest frame is {age_s:.2f} s old; max_age_ms is {config.max_age_ms:g}")
        self._is_stale = too_old
        if age_s > config.give_up_s:
            raise RobotError(
                f"camera {config.name}: no new frame for {age_s:.1f} s (give_up_s: {config.give_up_s:g}): "
                f"{grabber.trouble or 'its frames arrive too old'}; source: {shown(config.source)}"
            )
        return self._pictured(frame)

    def live_pictures(self) -> Observation:
        frame = self._grabber.newest if self._grabber is not None else None
        return self._pictured(frame) if frame is not None else Observation({})

    def _pictured(self, frame: Frame) -> Observation:
        rotation = self._config.rotation
        return Observation(LazyArrays({self._key: lambda: frame.rgb(rotation)}), {self._key: frame.stamp_ns})

    def events(self) -> list[str]:
        said, self._said = self._said, []
        return said + (self._grabber.events() if self._grabber is not None else [])

    def counters(self) -> dict[str, float]:
        """fps; age of the frames observed, in ms; observations given a frame too old; what the grabber counts."""
        if self._grabber is None:
            return {}
        ages = {}
        if self._ages_ms:
            p50, p95 = np.percentile(list(self._ages_ms), [50, 95])
            ages = {"age_p50_ms": round(float(p50), 2), "age_p95_ms": round(float(p95), 2)}
        return {
            "fps": round(self._grabber.rate(), 2),
            **ages,
            "stale": self._stale,
            "frozen": self._grabber.frozen,
            "reopened": self._grabber.reopened,
            "decode_ms": round(self._grabber.decode_ms(), 3),
        }

    def close(self) -> None:
        if self._grabber is not None:
            self._grabber.close()
            self._grabber = None

    def _opened(self) -> Grabber:
        if self._grabber is None:
            raise RobotError(f"camera {self._config.name}: not connected; call connect first")
        return self._grabber

    def _check(self, bgr: np.ndarray) -> None:
        config = self._config
        height, width = bgr.shape[:2]
        if config.rotation in (90, 270):
            width, height = height, width
        if (width, height) != (config.width, config.height):
            turned = f" after turning it by {config.rotation} degrees" if config.rotation else ""
            raise RobotError(
                f"camera {config.name}: {shown(config.source)} gives {width}x{height}{turned}, configured is "
                f"{config.width}x{config.height}; set width: {width} and height: {height}, or have the camera give "
                "another size. Nothing is resized here, because a policy sees what it was trained on only unresized"
            )


def _opener(config: CameraConfig) -> Open:
    """How to open what `config.source` names, as often as needed."""
    match kind_of(config.source):
        case "device":
            return lambda _: Device(config)
        case "stream":
            return lambda _: Stream(config)
        case "images":
            return lambda stop: ImageFiles(config, stop)
        case "file":
            return lambda stop: VideoFile(config, stop)
