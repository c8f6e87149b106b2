"""gym_aloha as a Robot: the states that LeRobot sees, and images that are rendered only when they are read.

gym_aloha draws three cameras inside every step and hands out one of them. Here a step draws nothing: observe()
copies the simulation, and the picture is drawn from the copy when it is first read.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np

from tactus.hal.gym.config import ALOHA_TASKS, AlohaConfig
from tactus.hal.gym.robot import Arrays, EnvRobot, decided_by, make, package
from tactus.hal.robot import Scene
from tactus.hal.spec import IMAGES, STATE, Feature, RobotSpec, image

TOP = f"{IMAGES}top"
HEIGHT, WIDTH = 480, 640
UNITS = (("rad",) * 6 + ("1",)) * 2


class AlohaRobot(EnvRobot):
    """fps 50; action float32[14] and observation.state float64[14]: per arm six joint angles and the gripper.

    Joints are absolute, in rad; a gripper is 0 closed and 1 open. gym_aloha says that actions lie in [-1, 1], where
    it could not even hold its arms up (an elbow starts at 1.16 rad); the bounds here are those of its actuators,
    and MuJoCo holds to them. Success: reward 4, the peg in the socket or the cube in the other gripper.

    LeRobot 0.6.1 has two names for the picture of obs_type pixels and neither fits its own features; here it is
    called as in pixels_agent_pos.
    """

    def __init__(self, config: AlohaConfig) -> None:
        package("gym_aloha", "aloha")
        from gym_aloha.constants import ACTIONS, JOINTS

        kwargs = {
            "obs_type": "pixels_agent_pos",
            "max_episode_steps": config.max_steps,
            "disable_env_checker": True,
        }
        env = make(f"gym_aloha/{config.task}", kwargs)
        inner = env.unwrapped._env
        self._physics, self._task = inner.physics, inner.task
        self._task.get_observation = self._observe_without_images
        self._canvas: Any = None
        self._closed = False
        observations = {TOP: image(HEIGHT, WIDTH)}
        if config.obs_type == "pixels_agent_pos":
            observations[STATE] = Feature((14,), "float64", unit=UNITS, names=tuple(JOINTS))
        low, high = _limits(self._physics)
        action = Feature(
            (14,), "float32", unit=UNITS, names=tuple(ACTIONS), low=low, high=high, mode=("absolute",) * 14
        )
        details = decided_by("gym_aloha", "dm_control", draws=True)
        spec = RobotSpec(f"aloha/{config.task}", 50.0, observations, action, details)
        instruction = ALOHA_TASKS[config.task] if config.instruction is None else config.instruction
        super().__init__(spec, env, Scene(instruction, spec.name))

    def _observe_without_images(self, physics: Any) -> dict[str, Any]:
        return {"qpos": self._task.get_qpos(physics), "images": {"top": np.zeros((1, 1, 3), np.uint8)}}

    def _look(self) -> Arrays:
        moment = copy.copy(self._physics.data.ptr)
        return {TOP: partial(self._draw, moment), STATE: self._raw["agent_pos"]}

    def _draw(self, moment: Any) -> np.ndarray:
        import mujoco

        if self._closed:
            raise RuntimeError("this image was not read while its robot was open, and the scene is gone")
        if self._canvas is None:
            self._canvas = self._physics.copy(share_model=True)
        canvas = self._canvas
        mujoco.mj_copyData(canvas.data.ptr, canvas.model.ptr, moment)
        # dm_control believes that nobody else makes a GL context current
        context = canvas.contexts.gl
        with context.make_current() as thread:
            thread.call(context._platform_make_current)
        self._renders += 1
        return np.ascontiguousarray(canvas.render(HEIGHT, WIDTH, camera_id="top"))

    def close(self) -> None:
        if self._canvas is not None:
            self._canvas.free()
        self._canvas, self._closed = None, True
        super().close()


def _limits(physics: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest action, from the control range of the 2 x 8 actuators (a gripper has two fingers)."""
    from gym_aloha.constants import normalize_puppet_gripper_position

    ranges = np.delete(physics.model.actuator_ctrlrange, (7, 15), axis=0)
    ranges[[6, 13]] = normalize_puppet_gripper_position(ranges[[6, 13]])
    low, high = ranges.T
    return tuple(low.tolist()), tuple(high.tolist())
