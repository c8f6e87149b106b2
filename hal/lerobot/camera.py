"""Any camera that LeRobot drives, as a Robot: RealSense, ZeroMQ and third-party ones, which OpenCV cannot open."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tactus.hal.lerobot.config import LeRobotCameraConfig
from tactus.hal.lerobot.registry import build
from tactus.hal.robot import RobotError
from tactus.hal.sensor import NO_ACTION, Sensor
from tactus.hal.spec import IMAGES, Observation, RobotSpec, image


class LeRobotCamera(Sensor):
    """`observe` gives what LeRobot's `read_latest` does: the newest frame, stamped when LeRobot stored it."""

    def __init__(self, config: LeRobotCameraConfig) -> None:
        self._config = config
        self._camera = build("cameras", config.camera, config.args)
        width, height = self._camera.width, self._camera.height
        if width is None or height is None:
            raise RobotError(f"camera {config.name}: args: width and height are needed, in pixels after rotation")
        if getattr(getattr(self._camera, "color_mode", None), "value", "rgb") != "rgb":
            raise RobotError(f"camera {config.name}: args: color_mode: found bgr; images are rgb here")
        self._key = IMAGES + config.name
        details = {"lerobot_camera": config.camera}
        spec = {self._key: image(height, width)}
        self._spec = RobotSpec("camera", config.fps, spec, NO_ACTION, details)

    def connect(self) -> None:
        """Raises RobotError: it does not open, or gives another size."""
        self.close()
        try:
            self._camera.connect()
            found = self.observe().arrays[self._key]
        except (OSError, RuntimeError) as error:
            self.close()
            raise RobotError(f"camera {self._config.name}: {error}") from error
        wanted = self._spec.observations[self._key]
        if found.shape != wanted.shape:
            self.close()
            raise RobotError(
                f"camera {self._config.name}: gives {found.shape[1]}x{found.shape[0]}, configured is "
                f"{wanted.shape[1]}x{wanted.shape[0]}; nothing is resized here"
            )

    def observe(self) -> Observation:
        stored_ns = frame_stored_ns(self._camera)
        try:
            array = self._camera.read_latest(max_age_ms=int(self._config.give_up_s * 1000))
        except (OSError, RuntimeError) as error:
            raise RobotError(f"camera {self._config.name}: {error}") from error
        return Observation({self._key: np.ascontiguousarray(array)}, {self._key: stored_ns or time.monotonic_ns()})

    def close(self) -> None:
        if self._camera.is_connected:
            self._camera.disconnect()


def frame_stored_ns(camera: Any) -> int:
    """When LeRobot's camera stored its newest frame, monotonic ns; 0 where it does not say."""
    at_s = getattr(camera, "latest_timestamp", None)
    return 0 if at_s is None else time.monotonic_ns() - int((time.perf_counter() - at_s) * 1e9)
