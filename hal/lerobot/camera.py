"""Any camera that LeRobot drives, as a Robot: RealSense, ZeroMQ and third-party ones, for which OpenCV is no way in."""

from __future__ import annotations

import time

import numpy as np

from tactus.hal.lerobot.config import LeRobotCameraConfig
from tactus.hal.lerobot.library import build
from tactus.hal.robot import Robot, RobotError
from tactus.hal.spec import IMAGES, Feature, Observation, RobotSpec, image


class LeRobotCamera(Robot):
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
        self._spec = RobotSpec("camera", config.fps, spec, Feature((0,), "float32"), details)

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def wall_time(self) -> bool:
        return True

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

    def reset(self, episode: int, seed: int) -> None:
        pass

    def observe(self) -> Observation:
        at_s = getattr(self._camera, "latest_timestamp", None)
        try:
            array = self._camera.read_latest(max_age_ms=int(self._config.give_up_s * 1000))
        except (OSError, RuntimeError) as error:
            raise RobotError(f"camera {self._config.name}: {error}") from error
        now_ns = time.monotonic_ns()
        stamp_ns = now_ns if at_s is None else now_ns - int((time.perf_counter() - at_s) * 1e9)
        return Observation({self._key: np.ascontiguousarray(array)}, {self._key: stamp_ns})

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        return action

    def close(self) -> None:
        if self._camera.is_connected:
            self._camera.disconnect()
