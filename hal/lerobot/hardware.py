"""Any robot that LeRobot drives, as Hardware: one adapter, behind the same safety layer as our own arms."""

from __future__ import annotations

import termios
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, TypeVar

import numpy as np

from tactus.hal.hardware import Hardware, Health, Limits
from tactus.hal.lerobot.bus import Bus
from tactus.hal.lerobot.camera import frame_stored_ns
from tactus.hal.lerobot.config import JointLimits, LeRobotConfig
from tactus.hal.lerobot.registry import build
from tactus.hal.lerobot.sub_robots import find_robots, without_prompts
from tactus.hal.robot import RobotError
from tactus.hal.spec import IMAGES, STATE, Feature, LazyArrays, Mode, Observation, RobotSpec, image

T = TypeVar("T")
FAILURES = (OSError, RuntimeError, ValueError, IndexError, termios.error)
"""What a transaction raises: LeRobot and pyserial (ConnectionError, RuntimeError), the SDKs on a packet that is too
short (IndexError), a lost port (OSError, termios.error)."""


class LeRobotHardware(Hardware):
    """A robot that LeRobot drives: its floats in its order and with its names; images keep their camera's name.

    Only robots whose actions are positions: holding still is what a safety layer does, and holding a velocity is not
    standing still. `connect` never asks anything on the terminal and leaves torque off. What LeRobot or its
    SDK raises becomes a RobotError. State is stamped when it was read, an image when LeRobot's camera stored it if it
    says so.
    """

    def __init__(self, config: LeRobotConfig) -> None:
        self._config = config
        self._robot = build("robots", config.robot, config.args)
        from lerobot.motors.motors_bus import MotorsBusBase
        from lerobot.robots import Robot as LeRobots

        self._robots = list(find_robots(self._robot, LeRobots))
        self._buses = [
            Bus(part, prefix)
            for prefix, robot in self._robots
            for part in vars(robot).values()
            if isinstance(part, MotorsBusBase)
        ]
        self._names = tuple(self._robot.action_features)
        if wrong := [name for name in self._names if not name.endswith(".pos")]:
            raise RobotError(
                f"robot.robot: {config.robot} takes {', '.join(wrong)}; only positions (*.pos) can be held"
            )
        self._motors = {f"{bus.prefix}{motor}.pos": (bus, motor) for bus in self._buses for motor in bus.lerobot.motors}
        if unknown := [name for name in config.limits if self._full(name) not in self._names]:
            raise RobotError(f"robot.limits: no joint {', '.join(unknown)}; there are {', '.join(self._names)}")
        self._spec, self._task = self._describe(), config.task
        self._state_names = self._spec.observations[STATE].names
        self._limits: Limits | None = None
        self._lock = threading.RLock()
        self._failures = 0

    def _describe(self) -> RobotSpec:
        features = self._robot.observation_features
        numbers = tuple(name for name, kind in features.items() if not isinstance(kind, tuple))
        observations = {STATE: Feature((len(numbers),), "float32", self._units(numbers), numbers)}
        for name, shape in features.items():
            if isinstance(shape, tuple):
                if len(shape) != 3 or shape[2] != 3:
                    raise RobotError(f"robot.args: {name} gives {shape}; only RGB images, e.g. use_depth: false")
                observations[IMAGES + name] = image(shape[0], shape[1])
        names, bounds = self._names, {}
        with suppress(RobotError):  # no calibration yet, which `connect` says
            limits = self._find_limits()
            bounds = {"low": tuple(limits.low.tolist()), "high": tuple(limits.high.tolist())}
        modes: tuple[Mode, ...] = ("absolute",) * len(names)
        action = Feature((len(names),), "float32", self._units(names), names, mode=modes, **bounds)
        from lerobot import __version__

        details = {"lerobot": __version__, "robot": self._config.robot, "id": str(self._robot.id)}
        return RobotSpec(self._config.robot, self._config.fps, observations, action, details)

    def _units(self, names: tuple[str, ...]) -> tuple[str, ...]:
        motors = [self._motors.get(name) for name in names]
        return tuple("" if at is None else at[0].unit_of(at[1]) for at in motors)

    def _full(self, name: str) -> str:
        return name if name.endswith(".pos") else f"{name}.pos"

    @property
    def limits(self) -> Limits:
        if self._limits is None:
            self._limits = self._find_limits()
        return self._limits

    def _find_limits(self) -> Limits:
        given = {self._full(name): limits for name, limits in self._config.limits.items()}
        rows = []
        for name in self._names:
            wanted = given.get(name, JointLimits())
            bus, motor = self._motors.get(name, (None, ""))
            low, high = (None, None) if bus is None else bus.range_of(motor)
            low, high = (
                mine if theirs is None else theirs for mine, theirs in ((low, wanted.low), (high, wanted.high))
            )
            if low is None or high is None:
                raise RobotError(
                    f"robot.limits: {name} has no calibrated range; give it: {{{name}: {{low: …, high: …}}}}"
                )
            velocity = self._config.velocity if wanted.velocity is None else wanted.velocity
            if not (low < high and velocity > 0):
                raise RobotError(
                    f"robot.limits: {name}: found {low:g} to {high:g} at {velocity:g} per s, which is none"
                )
            rows.append((low, high, velocity))
        return Limits(*np.array(rows, np.float64).T)

    def connect(self) -> None:
        """Raises RobotError, with everything closed again and torque as it was or off: no port, motors missing, no
        calibration or another one than the motors hold, a camera that does not open or gives another size."""
        robots = [robot for _, robot in self._robots]
        try:
            with self._lock, ExitStack() as stack:
                stack.enter_context(without_prompts(robots))
                for bus in self._buses:
                    stack.enter_context(bus.torque_locked(off_allowed=True))
                self._guarded("connect", self._robot.connect)
            if self._buses:
                self.set_torque(False)
            self._limits = self._find_limits()
            for name, array in self.observe().arrays.items():
                self._spec.observations[name].check(name, array)
        except BaseException:
            self.close()
            raise

    def observe(self) -> Observation:
        with self._lock:
            stored = {name: self._stored_ns(name.removeprefix(IMAGES)) for name in self._spec.observations}
            seen = self._guarded("observation", self._robot.get_observation)
            now_ns = time.monotonic_ns()
        arrays = {IMAGES + name: np.ascontiguousarray(a) for name, a in seen.items() if isinstance(a, np.ndarray)}
        arrays[STATE] = np.array([seen[name] for name in self._state_names], np.float32)
        arrays = {name: arrays[name] for name in self._spec.observations}
        return Observation(LazyArrays(arrays), {name: stored[name] or now_ns for name in arrays})

    def _stored_ns(self, key: str) -> int:
        """When the camera of an image stored its newest frame, monotonic ns; 0 where it does not say."""
        for prefix, robot in self._robots:
            cameras = getattr(robot, "cameras", {})
            stored_ns = frame_stored_ns(cameras.get(key.removeprefix(prefix)) or cameras.get(key))
            if stored_ns:
                return stored_ns
        return 0

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        order = dict(zip(self._names, action.tolist(), strict=True))
        with self._lock:
            sent = self._guarded("action", lambda: self._robot.send_action(order))
        return np.array([sent[name] for name in self._names], action.dtype)

    def measure(self) -> np.ndarray:
        if any(name not in self._motors for name in self._names):
            with self._lock:
                seen = self._guarded("position", self._robot.get_observation)
            return np.array([seen[name] for name in self._names], np.float64)
        positions = {}
        for bus in self._buses:
            with self._lock:
                found = self._guarded("position", lambda bus=bus: bus.lerobot.sync_read("Present_Position"))
            positions |= {f"{bus.prefix}{motor}.pos": value for motor, value in found.items()}
        return np.array([positions[name] for name in self._names], np.float64)

    def set_torque(self, on: bool) -> None:
        if not self._buses:
            raise RobotError(
                f"{self._config.robot} has no motor bus, so its torque cannot be switched {'on' if on else 'off'}"
            )
        failed = []
        for bus in self._buses:
            with self._lock:
                try:
                    self._guarded("torque", bus.switch_on if on else bus.switch_off)
                except RobotError as error:
                    failed.append(str(error))
        if failed:
            raise RobotError("; ".join(failed))

    def health(self) -> Mapping[str, Health]:
        transaction = lambda read: self._locked("health", read)  # noqa: E731
        return {f"{bus.prefix}{motor}": h for bus in self._buses for motor, h in bus.health(transaction).items()}

    def _locked(self, what: str, read: Callable[[], T]) -> T:
        with self._lock:
            return self._guarded(what, read)

    def guardian(self) -> Mapping[str, Any] | None:
        """For one serial bus; a robot with several has none, and neither has one on another kind of bus."""
        if len(self._buses) != 1 or not self._buses[0].serial:
            return None
        bus = self._buses[0].lerobot
        return {
            "port": bus.port,
            "baudrate": bus.get_baudrate(),
            "protocol": self._buses[0].protocol,
            "ids": [motor.id for motor in bus.motors.values()],
        }

    def counters(self) -> dict[str, float]:
        return {"bus.retries": float(sum(bus.retries for bus in self._buses)), "bus.failures": float(self._failures)}

    def close(self) -> None:
        """Let go of ports and cameras; torque stays as it is, because how to end is the safety layer's to say."""
        with self._lock, ExitStack() as stack:
            for bus in self._buses:
                stack.enter_context(bus.torque_locked(off_allowed=False))
            failed = []
            for release in self._releases():
                try:
                    release()
                except FAILURES as error:
                    failed.append(str(error))
        if failed:
            raise RobotError(f"{self._config.robot} did not close: {'; '.join(failed)}")

    def _releases(self) -> list[Callable[[], Any]]:
        """What closes what is open; each camera and port by itself, so that none keeps another open."""
        if not self._buses:
            return [self._robot.disconnect] if self._robot.is_connected else []
        cameras = [camera for _, robot in self._robots for camera in getattr(robot, "cameras", {}).values()]
        buses = [bus.lerobot for bus in self._buses if bus.lerobot.is_connected]
        return [
            *(
                camera.disconnect
                for camera in {id(camera): camera for camera in cameras}.values()
                if camera.is_connected
            ),
            *(lambda bus=bus: bus.disconnect(disable_torque=False) for bus in buses),
        ]

    def _guarded(self, what: str, do: Callable[[], T]) -> T:
        """One transaction; what it raises becomes a RobotError."""
        for bus in self._buses:
            bus.free()
        try:
            return do()
        except RobotError:
            raise
        except FAILURES as error:
            self._failures += 1
            raise RobotError(f"{self._config.robot} ({what}): {' '.join(str(error).split())}") from error
