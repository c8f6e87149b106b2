"""The planar push as a Robot: one call into MuJoCo a tick, and pictures only if they are read."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.gym.robot import package
from tactus.hal.provenance import code, mujoco_context, renderer
from tactus.hal.push.config import PushConfig
from tactus.hal.robot import Outcome, Robot, RobotError, Scene
from tactus.hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, Feature, LazyArrays, Observation, RobotSpec, image

FPS = 20.0
SPEED_M_S = 0.3
"""Of the pusher, along either axis, at an action of 1."""
TOLERANCE_M = 0.03
"""The block's centre this close to the goal is success."""
BLOCK_M, YAW_RAD = 0.02, 0.2
"""The block begins this close to the middle along both axes, and this little turned."""
GOAL_M, GOAL_RAD = (0.12, 0.15), 0.2
"""From the block to the goal: least and most, and how far off the x axis."""
PUSHER_M, PUSHER_RAD = (0.1, 0.14), 0.4
"""From the block to the pusher, on the other side: as for the goal."""
MODEL = Path(__file__).with_name("push.xml")
TOP = f"{IMAGES}top"
POSITION = Feature((2,), "float32", unit="m", names=("pusher.x", "pusher.y"))
PLACES = Feature(
    (6,),
    "float32",
    unit=("m", "m", "1", "1", "m", "m"),
    names=("block.x", "block.y", "block.sin", "block.cos", "goal.x", "goal.y"),
)
ACTION = Feature((2,), "float32", unit="1", names=("x", "y"), low=(-1.0,) * 2, high=(1.0,) * 2, mode=("delta",) * 2)


class PushRobot(Robot):
    """fps 20; action float32[2]: how far the pusher moves in the tick, 1 is 0.015 m; beyond ±1 is cut off.

    observation.state float32[2]: pusher (m). observation.environment_state float32[6]: block (m), sine and cosine of
    its yaw, goal (m). Success: the block's centre is within 0.03 m of the goal at the end of a tick, which ends it.
    """

    def __init__(self, config: PushConfig) -> None:
        self._mujoco: Any = package("mujoco", "push")
        self._model = self._mujoco.MjModel.from_xml_path(str(MODEL))
        self._data = self._mujoco.MjData(self._model)
        self._substeps = round(1 / FPS / self._model.opt.timestep)
        observations = {STATE: POSITION, ENVIRONMENT_STATE: PLACES}
        if config.camera:
            observations |= {TOP: image(*config.image_size)}
        details = {"push": code("tactus.hal.push")} | ({"renderer": renderer(mujoco_context)} if config.camera else {})
        self._spec = RobotSpec("push", FPS, observations, ACTION, details)
        self._config = config
        self._goal = np.zeros(2)
        self._steps, self._renders, self._success = 0, 0, False
        self._stamp_ns = 0
        self._renderer: Any = None
        self._drawn: Any = None

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def renders(self) -> int:
        return self._renders

    def connect(self) -> None:
        """Nothing to claim: the simulator was made with the spec."""

    def scene(self, episode: int) -> Scene:
        return Scene("push the block to the goal", self._spec.name)

    def reset(self, episode: int, seed: int) -> None:
        rng = np.random.default_rng([seed, episode])
        self._mujoco.mj_resetData(self._model, self._data)
        place, yaw = rng.uniform(-BLOCK_M, BLOCK_M, 2), rng.uniform(-YAW_RAD, YAW_RAD)
        self._goal = place + _polar(rng.uniform(*GOAL_M), rng.uniform(-GOAL_RAD, GOAL_RAD))
        pusher = place + _polar(rng.uniform(*PUSHER_M), np.pi + rng.uniform(-PUSHER_RAD, PUSHER_RAD))
        self._data.qpos[:] = [*place, yaw, *pusher]
        self._data.mocap_pos[0, :2] = self._goal
        self._steps, self._success = 0, False
        self._stamp_ns = time.monotonic_ns()

    def observe(self) -> Observation:
        x, y, yaw, *pusher = self._data.qpos.tolist()
        arrays: dict[str, np.ndarray | Callable[[], np.ndarray]] = {
            STATE: np.array(pusher, np.float32),
            ENVIRONMENT_STATE: np.array([x, y, np.sin(yaw), np.cos(yaw), *self._goal], np.float32),
        }
        if self._config.camera:
            arrays[TOP] = partial(self._render, self._data.qpos.copy(), self._goal)
        return Observation(LazyArrays(arrays), dict.fromkeys(arrays, self._stamp_ns))

    def act(self, action: np.ndarray) -> np.ndarray:
        ACTION.check("action", action)
        if not np.isfinite(action).all():
            raise RobotError(
                f"action: found {action.tolist()} at step {self._steps}; accepted: finite numbers, -1 to 1"
            )
        sent = np.clip(action, -1, 1)
        self._data.ctrl[:] = sent * SPEED_M_S
        self._mujoco.mj_step(self._model, self._data, self._substeps)
        self._steps += 1
        x, y = self._data.qpos[:2] - self._goal
        self._success = self._success or bool(x * x + y * y < TOLERANCE_M**2)
        self._stamp_ns = time.monotonic_ns()
        return sent

    def outcome(self) -> Outcome:
        done = self._success or self._steps >= self._config.max_steps
        return Outcome(self._success, done, float(self._success))

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _render(self, qpos: np.ndarray, goal: np.ndarray) -> np.ndarray:
        """The table as it was, from data of its own: drawing changes nothing of the episode."""
        if self._renderer is None:
            self._renderer = self._mujoco.Renderer(self._model, *self._config.image_size)
            self._drawn = self._mujoco.MjData(self._model)
        self._drawn.qpos[:], self._drawn.mocap_pos[0, :2] = qpos, goal
        self._mujoco.mj_kinematics(self._model, self._drawn)
        self._mujoco.mj_camlight(self._model, self._drawn)
        self._renderer.update_scene(self._drawn, "top")
        self._renders += 1
        return self._renderer.render()


def _polar(radius: float, angle: float) -> np.ndarray:
    return radius * np.array([np.cos(angle), np.sin(angle)])
