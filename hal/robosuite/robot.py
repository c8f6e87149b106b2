"""One of robosuite's own tasks as a Robot: its reset, step and state, rendering only on demand."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tactus.hal import rendering
from tactus.hal.libero.package import forgiving_logs, robosuite_code
from tactus.hal.provenance import mujoco_context, renderer
from tactus.hal.robosuite.config import FPS, INSTRUCTIONS, RobosuiteConfig
from tactus.hal.robot import Outcome, Robot, Scene
from tactus.hal.spec import (
    ENVIRONMENT_STATE,
    IMAGES,
    STATE,
    Feature,
    LazyArrays,
    Mode,
    Observation,
    RobotSpec,
    SpecError,
    image,
)

OBJECT = "object"
"""robosuite's name for the observables of the task's objects."""
MOVES = ("x", "y", "z", "rx", "ry", "rz")


class RobosuiteRobot(Robot):
    """fps 20; action float32[7] an arm: end effector dx dy dz, rotation, gripper (-1 opens, 1 closes).

    observation.state float64: robosuite's proprio-state, arm by arm (joints as cosine and sine, their velocities, end
    effector's position and quaternion, gripper). observation.environment_state float64: its object-state. An episode
    ends with its first success. robosuite loads the scene anew for every episode: sizes and places are drawn.
    """

    def __init__(self, config: RobosuiteConfig) -> None:
        self._config = config
        rendering.prepare()
        with _drawing_from(0):
            self._env: Any = _build(config)
        self._arms = [f"robot{index}" for index in range(len(self._env.robots))]
        self._spec = self._make_spec()
        self._raw: dict[str, np.ndarray] = {}
        self._cameras: Any = None
        self._observation: Observation | None = None
        self._outcome = Outcome(success=False, done=False, reward=0.0)
        self._steps = 0
        self._renders = 0

    def _make_spec(self) -> RobotSpec:
        observations = {f"{IMAGES}{name}": image(*self._config.image_size) for name in self._config.cameras}
        observations[STATE] = self._vector(*(f"{arm}_proprio" for arm in self._arms))
        if self._config.environment_state:
            observations[ENVIRONMENT_STATE] = self._vector(OBJECT)
        names: list[str] = []
        modes: list[Mode] = []
        for arm, robot in zip(self._arms, self._env.robots, strict=True):
            prefix = f"{arm}." if len(self._arms) > 1 else ""
            fingers = robot.gripper.dof
            names += [f"{prefix}{name}" for name in (*MOVES, "gripper")[: len(MOVES) + fingers]]
            modes += ["delta"] * len(MOVES) + ["binary"] * fingers
        low, high = self._env.action_spec
        action = Feature(
            (len(names),),
            "float32",
            names=tuple(names),
            low=tuple(map(float, low)),
            high=tuple(map(float, high)),
            mode=tuple(modes),
        )
        details = {"robosuite": robosuite_code()}
        if self._config.cameras:
            details["renderer"] = renderer(mujoco_context)
        arm = "" if self._config.arm == "Panda" else f"/{self._config.arm}"
        return RobotSpec(f"robosuite/{self._config.env_name}{arm}", FPS, observations, action, details)

    def _vector(self, *modalities: str) -> Feature:
        """What robosuite joins under these names, number by number."""
        drawn = getattr(self._env, "obj_to_use", None)  # of the tasks whose object is another one each time
        names, units = [], []
        for modality in modalities:
            for name, sensor in self._env._observables.items():
                if sensor.modality == modality and sensor.is_enabled() and sensor.is_active():
                    name = name.replace(drawn, OBJECT) if drawn and self._config.env_name.endswith("Single") else name
                    width = int(np.prod(np.shape(sensor.obs)))
                    names += [f"{name}.{index}" for index in range(width)] if width > 1 else [name] * width
                    units += [self._unit(name)] * width
        return Feature((len(names),), "float64", unit=tuple(units), names=tuple(names))

    def _unit(self, sensor: str) -> str:
        if "gripper_q" in sensor:
            length = "m" if self._config.arm == "Panda" else "rad"  # whose fingers slide; the others' turn
            return f"{length}/s" if sensor.endswith("qvel") else length
        if sensor.endswith("joint_vel"):
            return "rad/s"
        if sensor.endswith("qpos"):  # of a hinge
            return "rad"
        dimensionless = ("cos", "sin", "quat", "contact", "wiped", "angle", "_id")  # angle: its cosine
        return "1" if sensor.endswith(dimensionless) else "m"

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def renders(self) -> int:
        return self._renders

    def connect(self) -> None:
        """Nothing to claim: the simulator was built with the spec."""

    def scene(self, episode: int) -> Scene:
        given = self._config.instruction
        return Scene(INSTRUCTIONS[self._config.env_name] if given is None else given, self._spec.name)

    def reset(self, episode: int, seed: int) -> None:
        self._let_cameras_go()
        with _drawing_from(seed + episode):
            self._raw = self._env.reset()
        if self._config.cameras:
            from tactus.hal.robosuite.cameras import Cameras

            self._cameras = Cameras(self._env.sim.model._model, self._config.image_size)
        self._steps, self._observation = 0, None
        self._outcome = Outcome(success=False, done=False, reward=0.0)

    def observe(self) -> Observation:
        if self._observation is None:
            arrays: dict[str, np.ndarray | Callable[[], np.ndarray]] = {
                STATE: np.concatenate([self._raw[f"{arm}_proprio-state"] for arm in self._arms]).astype(np.float64)
            }
            if self._config.environment_state:
                arrays[ENVIRONMENT_STATE] = np.array(self._raw[f"{OBJECT}-state"], np.float64)
            if self._cameras is not None:
                moment = self._cameras.moment(self._env.sim.data._data)
                for name in self._config.cameras:
                    arrays[f"{IMAGES}{name}"] = partial(self._draw, self._cameras, moment, name)
            self._observation = Observation(LazyArrays(arrays), dict.fromkeys(arrays, time.monotonic_ns()))
        return self._observation

    def _draw(self, cameras: Any, moment: Any, name: str) -> np.ndarray:
        self._renders += 1
        return cameras.draw(moment, name)

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        self._raw, reward, _, _ = self._env.step(action)
        self._steps += 1
        self._observation = None
        success = bool(self._env._check_success())
        self._outcome = Outcome(success, success or self._steps >= self._config.max_steps, float(reward))
        return action

    def outcome(self) -> Outcome:
        return self._outcome

    def _let_cameras_go(self) -> None:
        if self._cameras is not None:
            self._cameras.close()
        self._cameras, self._observation = None, None

    def close(self) -> None:
        self._let_cameras_go()
        if self._env is not None:
            self._env.close()
        self._env = None


def _build(config: RobosuiteConfig) -> Any:
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)  # it warns of macros that nobody has to set
    try:
        with forgiving_logs():
            import robosuite
    except ImportError as error:
        raise SpecError(
            f"robot.type: robosuite needs the package robosuite, which cannot be imported ({error}); "
            "run: pip install 'tactus[libero]'"
        ) from error
    return robosuite.make(
        config.env_name,
        robots=[config.arm] * (2 if config.env_name.startswith("TwoArm") else 1),
        controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        use_object_obs=True,
        control_freq=int(FPS),
        horizon=config.max_steps,
        ignore_done=True,
    )


_DRAWING = threading.Lock()


@contextlib.contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """robosuite draws from Python's and numpy's global generators: they are lent to it, and put back as they were."""
    with _DRAWING:
        before = random.getstate(), np.random.get_state()
        random.seed(seed % 2**32)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
