"""Any gymnasium environment with a Box action as a Robot, with LeRobot's names for what it observes."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hal.robot import Outcome, Robot, RobotConfig, Scene
from hal.spec import ENVIRONMENT_STATE, IMAGES, STATE, Feature, Observation, RobotSpec, SpecError, image

IMAGE = "observation.image"
"""LeRobot's name for the picture of an environment that has only one."""

NAMES = {"agent_pos": STATE, "environment_state": ENVIRONMENT_STATE, "pixels": IMAGE}
"""gymnasium key -> LeRobot feature, as lerobot.envs.utils.preprocess_observation maps them."""


@RobotConfig.register_subclass("gym")
@dataclass
class GymConfig(RobotConfig):
    """Episode i resets with seed + i."""

    env_id: str = "gym_pusht/PushT-v0"
    """gymnasium id; the part before a slash is imported first, so that it can register itself"""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """passed to gymnasium.make, e.g. {obs_type: pixels_agent_pos}"""
    fps: float | None = None
    """control rate in Hz; the environment's render_fps if not given"""
    task: str = ""
    """instruction for policies that read one"""
    action_mode: Literal["absolute", "delta"] = "absolute"
    """what holding means: repeat the last command (a target), or send zero (an increment, velocity, torque)"""
    action_unit: str = "1"
    """unit of every action dimension"""
    success_key: str = "is_success"
    """key of `info` that says the task is solved; without it a terminated episode counts as a success"""

    def make(self) -> Robot:
        return GymRobot(self)


class GymRobot(Robot):
    """The environment renders whatever it observes at every step; nothing is deferred here."""

    def __init__(self, config: GymConfig) -> None:
        import gymnasium

        self._config = config
        package = config.env_id.partition("/")[0] if "/" in config.env_id else None
        try:
            if package:
                importlib.import_module(package)
            self._env: Any = gymnasium.make(config.env_id, **config.kwargs)
        except (ImportError, gymnasium.error.Error) as error:
            raise SpecError(f"robot.env_id: {config.env_id!r} cannot be made: {error}") from error
        space = self._env.action_space
        if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
            raise SpecError(f"robot.env_id: {config.env_id} takes {space}; accepted: a Box with one axis")
        fps = config.fps or self._env.metadata.get("render_fps")
        if not fps:
            raise SpecError(f"robot.fps: {config.env_id} does not state a rate; set robot.fps")
        action = Feature(
            space.shape,
            str(space.dtype),
            unit=config.action_unit,
            low=_bounds(space.low),
            high=_bounds(space.high),
            mode=(config.action_mode,) * space.shape[0],
        )
        observations = _features(self._env.observation_space)
        self._images = sum(feature.is_image for feature in observations.values())
        self._spec = RobotSpec(config.env_id, float(fps), observations, action)
        self._raw: Any = None
        self._stamp_ns = 0
        self._renders = 0
        self._outcome = Outcome(success=False, done=False, reward=0.0)

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def renders(self) -> int:
        return self._renders

    def connect(self) -> None:
        """Nothing to claim: the environment was made with the spec."""

    def scene(self, episode: int) -> Scene:
        return Scene(self._config.task, self._config.env_id)

    def reset(self, episode: int, seed: int) -> None:
        raw, _ = self._env.reset(seed=seed + episode)
        self._take(raw)
        self._outcome = Outcome(success=False, done=False, reward=0.0)

    def observe(self) -> Observation:
        arrays = _flat(self._raw)
        for name, feature in self._spec.observations.items():
            feature.check(name, arrays[name])
        return Observation(arrays, dict.fromkeys(arrays, self._stamp_ns))

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        raw, reward, terminated, truncated, info = self._env.step(action)
        self._take(raw)
        success = bool(info.get(self._config.success_key, terminated))
        self._outcome = Outcome(self._outcome.success or success, bool(terminated or truncated), float(reward))
        return action

    def _take(self, raw: Any) -> None:
        self._raw, self._stamp_ns = raw, time.monotonic_ns()
        self._renders += self._images

    def outcome(self) -> Outcome:
        return self._outcome

    def close(self) -> None:
        self._env.close()


def _features(space: Any) -> dict[str, Feature]:
    features = {}
    for name, box in _flat(getattr(space, "spaces", space)).items():
        if len(box.shape) == 3:
            features[name] = image(*box.shape[:2])
        else:
            features[name] = Feature(box.shape, str(box.dtype), low=_bounds(box.low), high=_bounds(box.high))
    return features


def _flat(tree: Any) -> dict[str, Any]:
    """Top-level keys by LeRobot's names; a mapping under "pixels" is one image per camera."""
    if not isinstance(tree, Mapping):
        return {IMAGE if len(tree.shape) == 3 else STATE: tree}
    flat = {}
    for key, value in tree.items():
        value = getattr(value, "spaces", value)
        if isinstance(value, Mapping):
            flat |= {f"{IMAGES}{camera}": picture for camera, picture in value.items()}
        else:
            flat[NAMES.get(key, f"observation.{key}")] = value
    return flat


def _bounds(limits: np.ndarray) -> tuple[float, ...]:
    return tuple(float(x) for x in limits.reshape(-1)) if np.isfinite(limits).all() else ()
