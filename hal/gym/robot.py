"""Any gymnasium environment with a Box action as a Robot, with LeRobot's names for what it observes."""

from __future__ import annotations

import importlib
import sys
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from tactus.hal import rendering
from tactus.hal.error_report import describe
from tactus.hal.provenance import code, mujoco_context, renderer
from tactus.hal.robot import Outcome, Robot, Scene
from tactus.hal.spec import (
    ENVIRONMENT_STATE,
    IMAGES,
    STATE,
    Feature,
    LazyArrays,
    Observation,
    RobotSpec,
    SpecError,
    image,
)

if TYPE_CHECKING:
    from tactus.hal.gym.config import GymConfig

IMAGE = "observation.image"
"""LeRobot's name for the picture of an environment that has only one."""

NAMES = {"agent_pos": STATE, "environment_state": ENVIRONMENT_STATE, "pixels": IMAGE}
"""gymnasium key -> LeRobot feature, as lerobot.envs.utils.preprocess_observation maps them."""

VULKAN = "ManiSkill needs a Vulkan driver, with or without cameras: a GPU's, or lavapipe of Mesa 25 or later"

Arrays = Mapping[str, np.ndarray | Callable[[], np.ndarray]]


class EnvRobot(Robot):
    """An environment with gymnasium's reset and step. A subclass makes it and says what there is to see."""

    def __init__(self, spec: RobotSpec, env: Any, scene: Scene, success_key: str = "is_success") -> None:
        self._spec, self._scene, self._success_key = spec, scene, success_key
        self._env: Any = env
        self._raw: Any = None
        self._stamp_ns = 0
        self._renders = 0
        self._observation: Observation | None = None
        self._outcome = Outcome(success=False, done=False, reward=0.0)

    @abstractmethod
    def _look(self) -> Arrays:
        """The arrays of the spec, and maybe more, as they are now; called at most once between two steps."""

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def renders(self) -> int:
        return self._renders

    def connect(self) -> None:
        """Nothing to claim: the environment was made with the spec."""

    def scene(self, episode: int) -> Scene:
        return self._scene

    def reset(self, episode: int, seed: int) -> None:
        raw, _ = self._env.reset(seed=seed + episode)
        self._take(raw)
        self._outcome = Outcome(success=False, done=False, reward=0.0)

    def observe(self) -> Observation:
        if self._observation is None:
            seen = self._look()
            arrays = {name: seen[name] for name in self._spec.observations}
            for name, array in arrays.items():
                if isinstance(array, np.ndarray):
                    self._spec.observations[name].check(name, array)
            self._observation = Observation(LazyArrays(arrays), dict.fromkeys(arrays, self._stamp_ns))
        return self._observation

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        raw, reward, terminated, truncated, info = self._env.step(action)
        self._take(raw)
        success = bool(info.get(self._success_key, terminated))
        self._outcome = Outcome(self._outcome.success or success, bool(terminated or truncated), float(reward))
        return action

    def _take(self, raw: Any) -> None:
        self._raw, self._stamp_ns = raw, time.monotonic_ns()
        self._observation = None

    def outcome(self) -> Outcome:
        return self._outcome

    def close(self) -> None:
        self._env.close()


class GymRobot(EnvRobot):
    """Any registered gymnasium environment. It renders what it observes at every step; nothing is deferred here."""

    def __init__(self, config: GymConfig) -> None:
        env = make(config.env_id, config.kwargs)
        fps = config.fps or env.metadata.get("render_fps") or getattr(env.unwrapped, "control_freq", None)
        if not fps:
            raise SpecError(f"robot.fps: {config.env_id} does not state a rate; set robot.fps")
        space = env.action_space
        action = Feature(
            space.shape,
            str(space.dtype),
            unit=config.action_unit,
            low=_bounds(space.low),
            high=_bounds(space.high),
            mode=(config.action_mode,) * space.shape[0],
        )
        observations = _features(env.observation_space)
        self._images = sum(feature.is_image for feature in observations.values())
        details = decided_by(*_packages(env), draws=bool(self._images) and "mujoco" in sys.modules)
        spec = RobotSpec(config.env_id, float(fps), observations, action, details)
        super().__init__(spec, env, Scene(config.task, config.env_id), config.success_key)

    def _take(self, raw: Any) -> None:
        super()._take(raw)
        self._renders += self._images

    def _look(self) -> Arrays:
        return flat(self._raw)


def make(env_id: str, kwargs: Mapping[str, Any]) -> Any:
    """gymnasium.make, after importing the package that an id such as package/Env-v0 names; module:Env-v0 works too."""
    import gymnasium

    package = env_id.partition("/")[0] if "/" in env_id and ":" not in env_id else None
    try:
        if package:
            importlib.import_module(package)
        env = gymnasium.make(env_id, **kwargs)
    except (ImportError, gymnasium.error.Error) as error:
        unknown = isinstance(error, gymnasium.error.NameNotFound) and not package and ":" not in env_id
        hint = f" What a package registers is MODULE:{env_id}, as in mani_skill.envs:PickCube-v1." if unknown else ""
        raise SpecError(f"robot.env_id: {env_id!r} cannot be made: {error}{hint}") from error
    except RuntimeError as error:
        if "sapien" not in sys.modules:
            raise
        raise SpecError(f"robot.env_id: {env_id} cannot be made: {error}; {VULKAN}") from error
    except TypeError as error:
        given = ", ".join(kwargs) or "none"
        raise SpecError(f"robot.kwargs: {env_id} does not take what is given ({given}): {describe(error)}") from error
    env = _one_at_a_time(env)
    space = env.action_space
    if not isinstance(space, gymnasium.spaces.Box) or len(space.shape) != 1:
        raise SpecError(f"robot.env_id: {env_id} takes {space}; accepted: a Box with one axis")
    return env


def _one_at_a_time(env: Any) -> Any:
    """ManiSkill's environments play a batch, of one here, in torch's tensors: its own wrapper makes numpy of it."""
    base = getattr(sys.modules.get("mani_skill.envs.sapien_env"), "BaseEnv", None)
    if base is None or not isinstance(env.unwrapped, base):
        return env
    from mani_skill.utils.wrappers.gymnasium import CPUGymWrapper  # pyright: ignore[reportMissingImports]

    return CPUGymWrapper(env)


def package(name: str, robot: str) -> ModuleType:
    """Import what a kind of robot needs, ready to render without a screen."""
    rendering.prepare()
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SpecError(
            f"robot.type: {robot} needs the package {name}, which cannot be imported ({error}); "
            "run: pip install 'tactus[gym]'"
        ) from error


def decided_by(*packages: str, draws: bool) -> dict[str, str]:
    """A spec's details: the content of what simulates, and which OpenGL draws if MuJoCo does."""
    found = {name: code(name) for name in packages}
    return found | ({"renderer": renderer(mujoco_context)} if draws else {})


def _packages(env: Any) -> list[str]:
    """Packages of an environment and of what is wrapped around it."""
    found = {type(env).__module__.partition(".")[0]}
    while env is not env.unwrapped:
        env = env.env
        found.add(type(env).__module__.partition(".")[0])
    return sorted(found)


def flat(tree: Any) -> dict[str, Any]:
    """Top-level keys by LeRobot's names; a mapping under "pixels" is one image per camera."""
    if not isinstance(tree, Mapping):
        return {IMAGE if len(tree.shape) == 3 else STATE: tree}
    found = {}
    for key, value in tree.items():
        value = getattr(value, "spaces", value)
        if isinstance(value, Mapping):
            found |= {f"{IMAGES}{camera}": picture for camera, picture in value.items()}
        else:
            found[NAMES.get(key, f"observation.{key}")] = value
    return found


def _features(space: Any) -> dict[str, Feature]:
    from gymnasium.spaces import Box, Dict

    features = {}
    known = space.spaces if isinstance(space, Dict) else space
    boxes = flat(known) if isinstance(space, Box | Dict) else {STATE: space}
    for name, box in boxes.items():
        flat_camera = name.startswith(IMAGES) and len(getattr(box, "shape", None) or ()) != 3
        if not isinstance(box, Box) or flat_camera:
            raise SpecError(
                f"robot.env_id: {name} is observed as {box!s:.80}; accepted: Box, or a Dict of them, as "
                "gymnasium.wrappers.FlattenObservation makes of most others"
            )
        if len(box.shape) != 3:
            features[name] = Feature(box.shape, str(box.dtype), low=_bounds(box.low), high=_bounds(box.high))
        elif box.shape[2] == 3 and box.dtype == np.uint8:
            features[name] = image(*box.shape[:2])
        else:
            raise SpecError(f"robot.env_id: {name} is {box.dtype}{list(box.shape)}; accepted: uint8[height, width, 3]")
    return features


def _bounds(limits: np.ndarray) -> tuple[float, ...]:
    return tuple(float(x) for x in limits.reshape(-1)) if np.isfinite(limits).all() else ()
