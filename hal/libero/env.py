"""LIBERO's environments made faster: the same states, samples and pixels, without work whose result is not read.

What is omitted, and why nothing changes:
- cameras copy the state when they are due and render only when read (hal/libero/cameras.py);
- observables nobody asked for are not computed (each has a timer of its own, so the others do not notice);
- an arm's limits do not change while it lives, and are looked up once;
- a task's model is compiled once, and put back as it was before an episode (hal/libero/pristine.py);
- physics steps are compiled, and none of their arithmetic is done twice (hal/libero/control_step.py).
tests/test_libero.py compares all of it with LIBERO's own environment, bit for bit.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import cached_property
from typing import Any

import mujoco
import numpy as np
import robosuite
from libero.libero.envs import TASK_MAPPING, bddl_utils
from robosuite.utils.errors import RandomizationError
from robosuite.utils.observables import Observable, sensor

from tactus.hal.libero.cameras import Snapshot, let_go
from tactus.hal.libero.config import FPS, LiberoConfig
from tactus.hal.libero.control_step import CompiledStep, SplitStepSim, control_step
from tactus.hal.libero.pristine import Pristine


def with_cached_limits(arm: type) -> type:
    """A robosuite arm that looks its limits up once; they are asked for four times a physics step."""

    class ArmWithCachedLimits(arm):
        @cached_property
        def action_limits(self) -> tuple[np.ndarray, np.ndarray]:
            return super().action_limits

        @cached_property
        def torque_limits(self) -> tuple[np.ndarray, np.ndarray]:
            return super().torque_limits

    return ArmWithCachedLimits


class Lean:
    """Laid over one of LIBERO's problem classes: computes only `wanted` and pictures, on demand, and loads once.

    property_draws: how often the next reset draws joint openings; n for the n-th load of a LIBERO env's life.
    """

    wanted: frozenset[str]
    property_draws = 1
    _spares: list[mujoco.MjData]
    _snapshot: Snapshot | None
    _handed_out: bool
    _pristine: Pristine
    _openings: list[Any]
    _compiled: CompiledStep | None = None

    def _load_robots(self) -> None:
        super()._load_robots()
        for robot in self.robots:
            robot.__class__ = with_cached_limits(type(robot))

    def _initialize_sim(self, xml_string: str | None = None) -> None:
        self._snapshot, self._spares, self._handed_out = None, [], False
        super()._initialize_sim(xml_string)
        self.sim.__class__ = SplitStepSim
        self._pristine = Pristine(self)

    def _reset_internal(self) -> None:
        super()._reset_internal()
        if self.has_offscreen_renderer:  # the first time it makes one
            let_go(self.sim._render_context_offscreen.gl_ctx)

    def _add_placement_initializer(self) -> None:
        # LIBERO never clears this list: a drawer's opening is drawn once more at every reset of an env's
        # life, which shifts every later random number. Here the count is the caller's choice.
        self.object_property_initializers = []
        super()._add_placement_initializer()
        self._openings = self.object_property_initializers

    def reset(self) -> dict[str, np.ndarray]:
        self._pristine.restore()
        self.sim.episodes += 1
        self._snapshot = None
        self.object_property_initializers = self._openings * self.property_draws
        return super().reset()

    def _setup_observables(self) -> dict[str, Observable]:
        every = super()._setup_observables()
        wanted = self.wanted | {f"{camera}_image" for camera in self.camera_names}
        return {name: observable for name, observable in every.items() if name in wanted}

    def _create_camera_sensors(
        self, cam_name: str, cam_w: int, cam_h: int, cam_d: bool, cam_segs: Any, modality: str = "image"
    ) -> tuple[list[Any], list[str]]:
        # All cameras share one rate and so one timer: the first copies the state for all.
        copies = cam_name == self.camera_names[0]

        @sensor(modality=modality)
        def camera_rgb(obs_cache: dict[str, Any]) -> np.ndarray:
            if copies:
                self._sample()
            return np.zeros((1, 1, 3), np.uint8)

        return [camera_rgb], [f"{cam_name}_image"]

    def _sample(self) -> None:
        if self._snapshot is None or self._handed_out:
            self._snapshot, self._handed_out = Snapshot(self.sim, self._spares), False
        else:
            self._snapshot.copy()

    def take_snapshot(self) -> Snapshot:
        """What the cameras last sampled; it stays as it is while the simulation goes on."""
        assert self._snapshot is not None
        self._handed_out = True
        return self._snapshot

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, dict[str, Any]]:
        """As MujocoEnv.step and BDDLBaseDomain.step, which look three times whether the task is done."""
        self.timestep += 1
        self._compiled = control_step(self, action, self._compiled)
        self.cur_time += self.control_timestep
        success = self._check_success()
        self._post_process()
        return self._get_observations(), float(success), success, {}

    def _get_observations(self, force_update: bool = False) -> dict[str, np.ndarray]:
        if force_update:
            self._update_observables(force=True)
        return {name: each.obs for name, each in self._observables.items()}


def lean(problem: type, wanted: frozenset[str]) -> type:
    """A subclass of `problem`, by the same name, which LIBERO compares with the task's."""
    return type(problem)(problem.__name__, (Lean, problem), {"wanted": wanted})


def build(bddl_file: str, config: LiberoConfig, interest: list[str]) -> Any:
    """The env that LIBERO's OffScreenRenderEnv wraps, with the same arguments, made lean."""
    problem = TASK_MAPPING[bddl_utils.get_problem_info(bddl_file)["problem_name"]]
    observables = {"robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"}
    if config.environment_state:
        observables |= {f"{name}_{part}" for name in interest for part in ("pos", "quat")}
    return lean(problem, frozenset(observables))(
        bddl_file,
        robots=["Panda"],
        controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
        gripper_types="default",
        initialization_noise=None,
        use_camera_obs=bool(config.cameras),
        has_renderer=False,
        has_offscreen_renderer=bool(config.cameras),
        render_camera="frontview",
        render_collision_mesh=False,
        render_visual_mesh=True,
        render_gpu_device_id=-1,
        control_freq=int(FPS),
        horizon=1000,
        ignore_done=True,
        hard_reset=False,
        camera_names=list(config.cameras),
        camera_heights=config.image_size[0],
        camera_widths=config.image_size[1],
        camera_depths=False,
        camera_segmentations=None,
        renderer="mujoco",
        renderer_config=None,
    )


def reset(env: Any, loads: int) -> None:
    """Reset until LIBERO finds a placement, as its own wrapper does.

    loads: how often LIBERO would have loaded the model by now, this reset included; each one draws once more.
    """
    while True:
        env.property_draws = loads
        try:
            env.reset()
            return
        except RandomizationError:
            loads += 1
