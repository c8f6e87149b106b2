"""Meta-World's tasks as a Robot: LeRobot's environment, rendered only when an image is read.

LeRobot draws inside every step, which takes a hundred times as long as the step. Here observe() copies the
simulation, and the picture is drawn from the copy when it is first read.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
from functools import cache, partial
from typing import Any

import mujoco
import numpy as np

from tactus.hal.gym.config import MetaWorldConfig
from tactus.hal.gym.metaworld_tasks import INSTRUCTIONS
from tactus.hal.gym.robot import IMAGE, Arrays, EnvRobot, decided_by, package
from tactus.hal.robot import Scene
from tactus.hal.spec import STATE, Feature, RobotSpec, image

CAMERA = "corner2"
STATES = Feature((4,), "float64", unit=("m", "m", "m", "1"), names=("hand.x", "hand.y", "hand.z", "gripper.opening"))
ACTION = Feature(
    (4,),
    "float32",
    unit=("cm", "cm", "cm", "1"),
    names=("dx", "dy", "dz", "gripper.effort"),
    low=(-1.0,) * 4,
    high=(1.0,) * 4,
    mode=("delta", "delta", "delta", "absolute"),
)


class Sawyer:
    """The environment of one task, made and stepped as LeRobot's MetaworldEnv does, which draws nothing unless asked.

    Meta-World's reset lets the hand settle in the scene of the episode before, and some of that remains (the goal
    of push-v3 moves by 1 µm). Here each episode starts from the scene that LeRobot has before its first.
    """

    def __init__(self, task: str, max_steps: int) -> None:
        benchmark = _benchmark(task)
        env = benchmark.train_classes[task](render_mode="rgb_array", camera_name=CAMERA)
        env.set_task(benchmark.train_tasks[0])
        env.model.cam_pos[2] = [0.75, 0.075, 0.7]
        env.reset()
        env._freeze_rand_vec = False
        env.seeded_rand_vec = True
        self._env, self._max_steps, self._steps = env, max_steps, 0
        self._scene = copy.copy(env.data), env.model.body_pos.copy(), env.model.site_pos.copy()
        self._viewer: Any = None
        self._closed = False

    def reset(self, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        env, (data, body_pos, site_pos) = self._env, self._scene
        mujoco.mj_copyData(env.data, env.model, data)
        env.model.body_pos[:] = body_pos
        env.model.site_pos[:] = site_pos
        self._steps = 0
        env.seed(seed)
        return env.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        raw, reward, done, truncated, info = self._env.step(action)
        self._steps += 1
        success = bool(info["success"])
        info["is_success"] = success
        return raw, reward, done or success, truncated or self._steps >= self._max_steps, info

    def moment(self) -> mujoco.MjData:
        """A copy of the simulation as it is now."""
        return copy.copy(self._env.data)

    def draw(self, moment: mujoco.MjData) -> np.ndarray:
        """uint8[480, 480, 3] of a moment; the camera hangs upside down, and LeRobot turns its picture."""
        if self._closed:
            raise RuntimeError("this image was not read in its own episode, and the scene is gone")
        renderer = self._env.mujoco_renderer
        if self._viewer is None:
            self._viewer = renderer._get_viewer("rgb_array")
        viewer = self._viewer
        viewer.make_context_current()  # gymnasium leaves this out, as if no other simulator were drawing
        viewer.data = moment
        try:
            pixels = viewer.render("rgb_array", renderer.camera_id)
        finally:
            viewer.data = self._env.data
        return np.flip(pixels, (0, 1)).copy()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._viewer is not None:
            # freed later, it would free objects of whichever GL context is current by then
            self._viewer.make_context_current()
            self._viewer.con.free()
        self._env.close()


@cache
def _benchmark(task: str) -> Any:
    """Meta-World's benchmark of one task; it simulates fifty goals to find them, and LeRobot begins with the first."""
    return package("metaworld", "metaworld").MT1(task, seed=42)


class MetaWorldRobot(EnvRobot):
    """fps 80; action float32[4]: hand dx dy dz in cm, effort of the gripper (1 closes, kept while holding).

    observation.state float64[4]: position of the hand in m, opening of the gripper (0-1). An episode ends with
    its first success. Only the task of the running episode is loaded, which takes a second the first time.
    """

    def __init__(self, config: MetaWorldConfig) -> None:
        package("metaworld", "metaworld")
        self._config, self._tasks = config, config.tasks()
        self._task: str | None = None
        observations = {IMAGE: image(480, 480)}
        if config.obs_type == "pixels_agent_pos":
            observations[STATE] = STATES
        name = f"metaworld/{self._tasks[0]}" if len(self._tasks) == 1 else "metaworld"
        details = decided_by("metaworld", draws=True)
        super().__init__(RobotSpec(name, 80.0, observations, ACTION, details), None, Scene())

    def connect(self) -> None:
        """Nothing to claim: a task is loaded at the first reset that needs it."""

    def scene(self, episode: int) -> Scene:
        task = self._tasks[episode % len(self._tasks)]
        instruction = self._config.instruction
        return Scene(INSTRUCTIONS[task] if instruction is None else instruction, f"metaworld/{task}", {"task": task})

    def reset(self, episode: int, seed: int) -> None:
        task = self._tasks[episode % len(self._tasks)]
        if self._task != task:
            self.close()
            self._env, self._task = Sawyer(task, self._config.max_steps), task
        super().reset(episode // len(self._tasks), seed)

    def _look(self) -> Arrays:
        return {IMAGE: partial(self._draw, self._env, self._env.moment()), STATE: self._raw[:4]}

    def _draw(self, env: Sawyer, moment: mujoco.MjData) -> np.ndarray:
        self._renders += 1
        return env.draw(moment)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
        self._env, self._task = None, None
