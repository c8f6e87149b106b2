"""One LIBERO task suite as a Robot: reset, step and state as LeRobot evaluates it, rendering only on demand."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tactus.hal import rendering
from tactus.hal.libero.assets import resolve, use
from tactus.hal.libero.config import CAMERAS, FPS, MAX_STEPS, LiberoConfig
from tactus.hal.libero.kept_models import KeptModels
from tactus.hal.libero.looks import vary
from tactus.hal.libero.package import PACKAGED, robosuite_code, set_aside, task_files
from tactus.hal.libero.suite import LiberoSuite
from tactus.hal.provenance import code, renderer
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

NO_OP = [0.0] * 6 + [-1.0]
POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
POSE_UNITS = ("m", "m", "m", "1", "1", "1", "1")


class LiberoRobot(Robot):
    """fps 20; action float32[7]: end effector dx dy dz, rotation, gripper (-1 opens, 1 closes).

    observation.state float32[8]: end-effector position (m), axis-angle (rad), gripper fingers (m), as LeRobot
    has it. observation.environment_state float64[7·n]: position and quaternion of each object of interest in
    the order of the task's BDDL file (the first is moved, the second is where it goes); unused slots are 0.
    """

    def __init__(self, config: LiberoConfig) -> None:
        self._config = config
        rendering.prepare()
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        self.assets = resolve(config.assets, config.suite)
        use(self.assets)
        self.suite = LiberoSuite(config.suite, task_files(config.task_files))
        self._tasks = _selected("robot.tasks", config.tasks, len(self.suite))
        states = min(len(self.suite.init_states(task)) for task in self._tasks)
        self._init_states = _selected("robot.init_states", config.init_states, states)
        self._slots = max(len(self.suite.interest(task)) for task in range(len(self.suite)))
        self._spec = self._make_spec()
        self._kept = KeptModels(config.kept_tasks)
        self._env: Any = None
        self._env_task: int | None = None
        self._raw: dict[str, np.ndarray] = {}
        self._observation: Observation | None = None
        self._outcome = Outcome(success=False, done=False, reward=0.0)
        self._steps = 0
        self._renders = 0

    def _make_spec(self) -> RobotSpec:
        state = Feature(
            (8,),
            "float32",
            unit=("m", "m", "m", "rad", "rad", "rad", "m", "m"),
            names=("eef.x", "eef.y", "eef.z", "eef.rx", "eef.ry", "eef.rz", "gripper.left", "gripper.right"),
        )
        observations = {f"{IMAGES}{CAMERAS[name]}": image(*self._config.image_size) for name in self._config.cameras}
        observations[STATE] = state
        if self._config.environment_state:
            roles = ("object", "target", "third", "fourth")[: self._slots]
            observations[ENVIRONMENT_STATE] = Feature(
                (7 * self._slots,),
                "float64",
                unit=POSE_UNITS * self._slots,
                names=tuple(f"{role}.{axis}" for role in roles for axis in POSE),
            )
        relative = self._config.control == "relative"
        move: Mode = "delta" if relative else "absolute"
        action = Feature(
            (7,),
            "float32",
            unit="1" if relative else ("m", "m", "m", "rad", "rad", "rad", "1"),
            names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
            low=(-1.0,) * 7 if relative else (),
            high=(1.0,) * 7 if relative else (),
            mode=(move,) * 6 + ("binary",),
        )
        return RobotSpec(f"libero/{self._config.suite}", FPS, observations, action, self._details())

    def _details(self) -> dict[str, str]:
        """What decides an episode, by content, and under `.source`, which no fingerprint holds, where it is from."""
        details = {
            "assets": f"{self.assets.kind}, {self.assets.content}",
            "assets.source": f"{self.assets.path} ({self.assets.why})",
            "task_files": self.suite.digest(self._tasks),
            "task_files.source": f"{self.suite.files.source}{self._config_file()}",
            "libero": code("libero"),
            "robosuite": robosuite_code(),
        }
        if self._config.cameras:
            details["renderer"] = renderer(_context)
        if self._config.looks == "varied":
            details["looks"] = "varied"
        return details

    def _config_file(self) -> str:
        """What to say of the config file that LIBERO itself would read: nothing, where it would change nothing."""
        found = set_aside() if self._config.task_files == PACKAGED else None
        if found is None:
            return ""
        file, theirs = found
        if not isinstance(theirs, str):
            try:
                if self.suite.digest(self._tasks, theirs) == self.suite.digest(self._tasks):
                    return ""
                theirs = f"names other task files ({theirs.bddl_files}, {theirs.init_states})"
            except (OSError, ValueError):  # the second if it is no path at all
                theirs = f"names task files that are not all there ({theirs.bddl_files}, {theirs.init_states})"
        return f"; {file} {theirs} and is not used; for other tasks: --robot.task_files=FOLDER"

    @property
    def spec(self) -> RobotSpec:
        return self._spec

    @property
    def renders(self) -> int:
        return self._renders

    @property
    def sim_state(self) -> np.ndarray:
        """MuJoCo's time, positions and velocities, float64: what two equal runs must share to the last bit."""
        return self._env.sim.get_state().flatten()

    def connect(self) -> None:
        """Nothing to claim: a task's simulator is built at the first reset that needs it."""

    def scene(self, episode: int) -> Scene:
        task = self._tasks[episode % len(self._tasks)]
        init_state = self._init_states[episode // len(self._tasks) % len(self._init_states)]
        language = self.suite.language(task)
        return Scene(language, f"{self._config.suite}/{task}", {"task_id": task, "init_state": init_state})

    def reset(self, episode: int, seed: int) -> None:
        labels = self.scene(episode).labels
        task, init_state = int(labels["task_id"]), int(labels["init_state"])
        from tactus.hal.libero.env import build, reset

        self._observation = None
        build_task = partial(build, self.suite.bddl_file(task), self._config, self.suite.interest(task))
        self._env = env = self._kept.get(task, build_task)
        self._env_task = task
        # As episode `turn` of lerobot-eval on this task: its seed is start + turn, and LIBERO's model was loaded
        # by the constructor, by LeRobot's extra reset, and by every reset since.
        turn = episode // len(self._tasks)
        env.seed(seed + turn)
        reset(env, loads=turn + 3)
        if self._config.looks == "varied":
            vary(env.sim.model._model, np.random.default_rng([seed, episode]))
        env.sim.set_state_from_flattened(self.suite.init_states(task)[init_state])
        env.sim.forward()
        env._check_success()
        env._post_process()
        env._update_observables(force=True)
        for _ in range(self._config.settle_steps):
            self._raw, _, _, _ = env.step(NO_OP)
        for arm in env.robots:
            arm.controller.use_delta = self._config.control == "relative"
        self._steps = 0
        self._observation = None
        self._outcome = Outcome(success=False, done=False, reward=0.0)

    def observe(self) -> Observation:
        if self._observation is None:
            snapshot = self._env.take_snapshot() if self._config.cameras else None
            arrays: dict[str, np.ndarray | Callable[[], np.ndarray]] = {STATE: lerobot_state(self._raw)}
            for name in self._config.cameras:
                arrays[f"{IMAGES}{CAMERAS[name]}"] = partial(self._render, snapshot, name)
            if self._config.environment_state:
                arrays[ENVIRONMENT_STATE] = self._poses()
            now = time.monotonic_ns()
            self._observation = Observation(LazyArrays(arrays), dict.fromkeys(arrays, now))
        return self._observation

    def _render(self, snapshot: Any, camera: str) -> np.ndarray:
        self._renders += 1
        return snapshot.render(camera, *self._config.image_size)

    def _poses(self) -> np.ndarray:
        poses = np.zeros((self._slots, 7))
        sim = self._env.sim
        for slot, name in enumerate(self.suite.interest(int(self._env_task or 0))):
            if f"{name}_pos" in self._raw:
                poses[slot] = np.concatenate([self._raw[f"{name}_pos"], self._raw[f"{name}_quat"]])
            elif name in self._env.obj_body_id:  # a fixture
                body = self._env.obj_body_id[name]
                poses[slot, :3] = sim.data.body_xpos[body]
                poses[slot, 3:] = sim.data.body_xquat[body][[1, 2, 3, 0]]
            else:  # a region, which LIBERO marks by a site
                site = sim.model.site_name2id(name)
                poses[slot, :3], poses[slot, 6] = sim.data.site_xpos[site], 1.0
        return poses.reshape(-1)

    def act(self, action: np.ndarray) -> np.ndarray:
        self._spec.action.check("action", action)
        self._raw, reward, success, _ = self._env.step(action)
        self._steps += 1
        self._observation = None
        limit = self._config.max_steps or MAX_STEPS[self._config.suite]
        self._outcome = Outcome(bool(success), bool(success) or self._steps >= limit, float(reward))
        return action

    def outcome(self) -> Outcome:
        return self._outcome

    def close(self) -> None:
        self._kept.close()
        self._env, self._env_task, self._observation = None, None, None


def _context() -> Any:
    """An OpenGL context of the kind that robosuite draws in."""
    from robosuite.utils.binding_utils import GLContext

    return GLContext(max_width=16, max_height=16, device_id=-1)


def lerobot_state(raw: dict[str, np.ndarray]) -> np.ndarray:
    """float32[8] from LIBERO's observation, by the arithmetic of LeRobot's LiberoProcessorStep.

    The quaternion goes to float32 before its angle is taken, the rest only at the end; and the arc cosine is
    torch's, which differs from numpy's in the last bit.
    """
    import torch

    quaternion = torch.from_numpy(raw["robot0_eef_quat"]).to(torch.float32)
    w = quaternion[3].clamp(-1.0, 1.0)
    sine = torch.sqrt(torch.clamp(1.0 - w * w, min=0.0))
    rotation = torch.zeros(3)
    if sine > 1e-10:
        rotation = quaternion[:3] / sine * (2.0 * torch.acos(w))
    return np.concatenate([raw["robot0_eef_pos"], rotation.numpy(), raw["robot0_gripper_qpos"]]).astype(np.float32)


def _selected(key: str, wanted: list[int] | None, count: int) -> list[int]:
    if wanted is None:
        return list(range(count))
    if not wanted or any(not 0 <= index < count for index in wanted):
        raise SpecError(f"{key}: found {wanted}; accepted: a list of indices from 0 to {count - 1}")
    return list(wanted)
