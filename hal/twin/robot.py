"""The twin's arm, table and cameras as one Robot without a wire: in virtual time, so that runs repeat to the bit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np

from tactus.hal.arm.joints import SO100, SYMBOLS
from tactus.hal.arm.robot import joint_limits
from tactus.hal.governor.limiter import limited, placed
from tactus.hal.hardware import Limits
from tactus.hal.provenance import code, mujoco_context, renderer
from tactus.hal.robot import Outcome, Robot, RobotError, Scene
from tactus.hal.servo.bus import Motor
from tactus.hal.servo.calibration import Scale
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, Feature, LazyArrays, Observation, RobotSpec, image
from tactus.hal.twin.arm import EmulatedArm
from tactus.hal.twin.config import JOINTS, ArmConfig, TwinRobotConfig
from tactus.hal.twin.faults import Faults
from tactus.hal.twin.mjpeg import jpeg
from tactus.hal.twin.renderer import Renderer, find_camera
from tactus.hal.twin.scene import FEATURE, TASK
from tactus.hal.twin.servo import COUNTS_PER_RAD, MIDDLE, no_log
from tactus.hal.twin.table_world import TableWorld

ARM = "arm"
FPS = 30.0
SUBSTEPS = 7
"""Servos and physics move on so often in a tick, every 4.8 ms; the twin does it every 5."""
SETTLE_TICKS = 15
"""From the start pose's command to an episode's first observation."""
NAMES = tuple(f"{joint}.pos" for joint in JOINTS)
UNITS = tuple(SYMBOLS[SO100[joint].unit] for joint in JOINTS)


class TwinRobot(Robot):
    """fps 30; action float32[6]: goals of the SO-101's joints (deg; the gripper %), within the range and the speed that
    its Governor would keep them to. What `bash launch/so100.sh --emulated` drives, with the same names.

    observation.state float32[6]: what the servos report (deg, %). observation.environment_state float32[10]: poses of
    cube and bin (m, quaternion). observation.images.<camera>: as the twin's streams give them, JPEG and all, each at a
    moment of its own in the tick before, which the episode decides. Success: the cube lies in the bin, let go.
    """

    def __init__(self, config: TwinRobotConfig) -> None:
        self._config = config
        self._build()
        for camera in config.cameras:
            find_camera(self._world.model, camera, ARM)
        motors = {name: Motor(SO100[name].id, SO100[name].model) for name in JOINTS}
        self._scale = Scale.of(self._arm.calibration(), motors, {name: SO100[name].unit for name in JOINTS})
        self._limits: Limits = joint_limits(SO100, self._scale)
        self._start = np.array([config.start_pose[name] for name in JOINTS])
        bounds = tuple(tuple(float(x) for x in bound) for bound in (self._limits.low, self._limits.high))
        self._action = Feature((6,), "float32", UNITS, NAMES, *bounds, mode=("absolute",) * 6)
        images = {f"{IMAGES}{name}": image(*config.image_size) for name in config.cameras}
        observations = {STATE: Feature((6,), "float32", UNITS, NAMES), **images, ENVIRONMENT_STATE: FEATURE}
        details = {"twin": code("tactus.hal.twin")} | ({"renderer": renderer(mujoco_context)} if images else {})
        self._spec = RobotSpec("twin", FPS, observations, self._action, details)
        self._renderer: Renderer | None = None
        self._renders = 0

    def _build(self) -> None:
        self._world = TableWorld([ARM])
        self._arm = EmulatedArm(ARM, ArmConfig(), self._world.arms[ARM], Faults(), no_log)
        self._ticks, self._poses = 0, deque[np.ndarray]([], SUBSTEPS + 1)
        self._ages = dict.fromkeys(self._config.cameras, 0)
        self._steps = self._stamp_ns = 0

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def renders(self) -> int:
        return self._renders

    def connect(self) -> None:
        """Nothing to claim: the simulation was made with the spec."""

    def scene(self, episode: int) -> Scene:
        return Scene(TASK, "twin_pick")

    def reset(self, episode: int, seed: int) -> None:
        """The cube where the twin has it for this episode and seed; the arm at `start_pose`."""
        self._build()
        for servo in self._arm.servos:
            for register, value in {"Lock": 0, **SO100[servo.name].registers, "Torque_Enable": 1}.items():
                servo.accept(register, value)
        counts = self._scale.to_raw(self._start, clip=True)
        self._world.place(ARM, (counts - MIDDLE) / COUNTS_PER_RAD)
        self._arm.sense()
        self._last = placed(self._start, self._limits, np.dtype(np.float32))
        self._write(self._last)
        for _ in range(SETTLE_TICKS):
            self._tick()
        self._world.handle({"do": "reset", "episode": episode, "seed": seed})
        self._tick()
        ages = np.random.default_rng([seed, episode, 1]).integers(0, SUBSTEPS, len(self._ages))
        self._ages = dict(zip(self._ages, ages.tolist(), strict=True))
        self._steps = 0
        self._stamp_ns = time.monotonic_ns()

    def observe(self) -> Observation:
        for servo in self._arm.servos:
            servo.refresh()
        counts = np.array([servo.values["Present_Position"] for servo in self._arm.servos], np.float64)
        scene = self._world.state()
        arrays: dict[str, np.ndarray | Callable[[], np.ndarray]] = {
            STATE: self._scale.to_units(counts).astype(np.float32),
            ENVIRONMENT_STATE: np.array([*scene["cube"], *scene["bin"]], np.float32),
        }
        for camera, age in self._ages.items():
            arrays[f"{IMAGES}{camera}"] = partial(self._render, camera, self._poses[-1 - age])
        return Observation(LazyArrays(arrays), dict.fromkeys(arrays, self._stamp_ns))

    def act(self, action: np.ndarray) -> np.ndarray:
        self._action.check("action", action)
        if not np.isfinite(action).all():
            raise RobotError(f"action: found {action.tolist()} at tick {self._ticks}; accepted: finite numbers")
        self._last = limited(action, self._last, self._limits, 1 / FPS).sent
        self._write(self._last)
        self._tick()
        self._steps += 1
        self._stamp_ns = time.monotonic_ns()
        return self._last.copy()

    def _write(self, goals: np.ndarray) -> None:
        counts = self._scale.to_raw(goals, clip=True)
        for servo, count in zip(self._arm.servos, counts, strict=True):
            servo.accept("Goal_Position", int(count))

    def _tick(self) -> None:
        self._ticks += 1
        for step in range(1, SUBSTEPS + 1):
            now_s = (self._ticks - 1 + step / SUBSTEPS) / FPS
            self._world.advance(now_s)
            self._arm.sense()
            self._arm.control(now_s)
            self._poses.append(self._world.data.qpos.copy())

    def outcome(self) -> Outcome:
        found = Outcome(**self._world.outcome())
        return replace(found, done=found.done or self._steps >= self._config.max_steps)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _render(self, camera: str, qpos: np.ndarray) -> np.ndarray:
        """As the streams: drawn, compressed, and read."""
        if self._renderer is None:
            self._renderer = Renderer([ARM], None, self._config.cameras, *self._config.image_size)
        self._renders += 1
        data = jpeg(self._renderer.draw(camera, qpos), self._config.quality)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
