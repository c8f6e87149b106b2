"""One control step of LIBERO: 25 physics steps, each with robosuite's operational space controller.

robosuite sets the goal, the rest is one compiled function, which holds the interpreter's lock for none of it. It is
left for the observables, which are sampled where robosuite samples them:

    set goal | 24 physics steps with the controller | sample observables | 1 physics step with the controller

Its arithmetic is robosuite's to the bit. MuJoCo's functions are those of its Python package; robosuite's compiled
functions are called as they are; products that robosuite leaves to numpy go to numpy's BLAS, since numba's `dot` would
go to scipy's, which may round otherwise. What robosuite notes of a control step for whoever reads it later (recent
torques, velocities, forces) nobody here reads, and it is not kept. Where numpy's BLAS cannot be found, or numba is
switched off, every physics step is robosuite's own (`exact`): the same bits, less than half as fast.
tests/test_libero.py compares both with LIBERO's own environment.
"""

# mujoco's names are made in C, and numba's by decorators, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportIndexIssue=false, reportArgumentType=false

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import mujoco
import numba
import numpy as np
from llvmlite import binding
from numba import types
from numba.core import config as numba_config
from numpy._core import _multiarray_umath
from robosuite.utils.binding_utils import MjSim
from robosuite.utils.control_utils import nullspace_torques, opspace_matrices, orientation_error

from tactus.hal.libero.cameras import current

GEMV = ("scipy_cblas_dgemv64_", "cblas_dgemv64_")
"""What numpy's wheels call the product of a matrix and a vector; 64-bit integers."""
ROWS, COLUMNS, AS_IS = 101, 102, 111
"""BLAS: order of a matrix in memory; not transposed."""

_address, _int, _double, _enum = types.uintp, types.int64, types.float64, types.int32
_step1 = types.ExternalFunction("tactus_mj_step1", types.void(_address, _address))
_step2 = types.ExternalFunction("tactus_mj_step2", types.void(_address, _address))
_jac_site = types.ExternalFunction("tactus_mj_jacSite", types.void(_address, _address, _address, _address, _enum))
_full_m = types.ExternalFunction("tactus_mj_fullM", types.void(_address, _address, _address))
_gemv = types.ExternalFunction(
    "tactus_dgemv",
    types.void(_enum, _enum, _int, _int, _double, _address, _int, _address, _int, _double, _address, _int),
)


class SplitStepSim(MjSim):
    """A simulation whose forward passes inside a control step are not repeated.

    robosuite evaluates the dynamics three times a physics step: before the controller, inside it, in mj_step. The
    controller reads positions, velocities, the mass matrix and bias forces only, so one mj_step1 before it and one
    mj_step2 after it do the same arithmetic once.
    """

    split = False
    episodes = 0
    _half_done = False

    def reset(self) -> None:
        """Nothing: Pristine.restore has set the data."""

    def free(self) -> None:
        """As robosuite's, but without its gc.collect (0.15 s), and in the GL context that the renderer belongs to."""
        context = self._render_context_offscreen
        with current(context.gl_ctx) if context is not None else nullcontext():
            del context, self._render_context_offscreen, self.data, self.model

    def forward(self) -> None:
        if not self.split:
            super().forward()
        elif not self._half_done:
            mujoco.mj_step1(self.model._model, self.data._data)
            self._half_done = True

    def step(self, with_udd: bool = True) -> None:
        if self._half_done:
            mujoco.mj_step2(self.model._model, self.data._data)
            self._half_done = False
        else:
            super().step(with_udd)


def exact(env: Any, action: np.ndarray) -> None:
    """A control step by robosuite's own code."""
    env.sim.split = True
    try:
        for step in range(_count(env)):
            env.sim.forward()
            env._pre_action(action, policy_step=step == 0)
            env.sim.step()
            env._update_observables()
    finally:
        env.sim.split = False


def _count(env: Any) -> int:
    return int(env.control_timestep / env.model_timestep)


class CompiledStep:
    """Control steps of one episode, compiled; made anew when robosuite has made a new controller."""

    def __init__(self, env: Any) -> None:
        self._env = env
        [robot] = env.robots
        sim, self._controller = env.sim, robot.controller
        controller, model, data = self._controller, sim.model._model, sim.data._data
        fingers = [sim.model.actuator_name2id(name) for name in robot.gripper.actuators]
        span = model.actuator_ctrlrange[fingers]
        site = sim.model.site_name2id(controller.eef_name)
        low, high = robot.torque_limits
        self._gripper, self._simulation = robot.gripper, (model, data)
        self._ee_pos, self._ee_ori_mat = data.site_xpos[site], data.site_xmat[site].reshape(3, 3)
        self._arguments = (
            (model._address, data._address, site),
            (np.array(controller.qpos_index), np.array(controller.qvel_index)),
            (np.array(robot._ref_joint_actuator_indexes), np.array(fingers)),
            (data.qpos, data.qvel, data.qfrc_bias, data.qM, data.ctrl, data.site_xpos[site], data.site_xmat[site]),
            (controller.kp, controller.kd, controller.initial_joint, low, high),
            (0.5 * (span[:, 1] + span[:, 0]), 0.5 * (span[:, 1] - span[:, 0])),
            (np.zeros((2, 3, model.nv)), np.zeros((model.nv, model.nv))),
        )

    def fits(self, env: Any) -> bool:
        """Whether this step is of the episode that runs."""
        return env.robots[0].controller is self._controller

    def __call__(self, action: np.ndarray) -> None:
        """Needs a controller that is due for an update: after a reset, robosuite uses what it saw before."""
        env, controller, gripper = self._env, self._controller, self._gripper
        mujoco.mj_step1(*self._simulation)
        controller.ee_pos, controller.ee_ori_mat = self._ee_pos.copy(), self._ee_ori_mat.copy()
        controller.new_update = False  # all of an update that a goal depends on
        controller.set_goal(action[: controller.control_dim])
        controller.new_update = True
        goal = np.ascontiguousarray(controller.goal_pos, float), np.ascontiguousarray(controller.goal_ori, float)
        closing = np.array([-1.0, 1.0]) * gripper.speed * np.sign(np.asarray(action[controller.control_dim :], float))
        gripper.current_action = np.array(gripper.current_action, float)
        done, count = 0, _count(env)
        while done < count:
            quiet = pass_time(list(env._observables.values()), env.model_timestep, count - done)
            sampled = quiet < count - done
            steps = quiet + sampled
            _physics_steps(steps, done == 0, *goal, closing, gripper.current_action, *self._arguments)
            done += steps
            if sampled:
                env._update_observables()


def pass_time(observables: list[Any], timestep: float, most: int) -> int:
    """Let the observables' timers, which are all alike, run up to the next sample, at most `most` updates.

    Returns how many updates passed in which nothing was sampled; the arithmetic is that of Observable.update.
    """
    timer = observables[0]
    period, since, sampled = timer._sampling_timestep, timer._time_since_last_sample, timer._sampled
    passed = 0
    while passed < most:
        later = since + timestep
        if not sampled:
            break
        since, passed = later, passed + 1
        if since >= period:
            since, sampled = since % period, False
    for each in observables:
        each._time_since_last_sample, each._sampled = since, sampled
    return passed


@numba.njit(nogil=True, cache=True)
def _physics_steps(
    count, begun, goal_pos, goal_ori, closing, grip, at, joints, actuators, state, gains, finger, scratch
):
    model, data, site = at
    qpos_index, qvel_index = joints
    torque_index, finger_index = actuators
    qpos, qvel, bias, inertia, ctrl, ee_pos, ee_mat = state
    kp, kd, initial_joint, low, high = gains
    middle, half = finger
    jacobian, mass = scratch
    nv, n = qvel.size, qvel_index.size
    joint_pos, joint_vel = np.empty(n), np.empty(n)
    # in memory as robosuite's indexing leaves them: columns first
    j_pos, j_ori, j_full = np.empty((n, 3)).T, np.empty((n, 3)).T, np.empty((n, 6)).T
    mass_matrix = np.empty((n, n)).T
    ee_ori = np.empty((3, 3))
    velocity, force, torque, wrench, torques = np.empty(6), np.empty(3), np.empty(3), np.empty(6), np.empty(n)
    place = jacobian.ctypes.data
    for step in range(count):
        if step > 0 or not begun:
            _step1(model, data)
        _jac_site(model, data, place, place + 24 * nv, site)
        _full_m(model, mass.ctypes.data, inertia.ctypes.data)
        start = velocity.ctypes.data
        _gemv(ROWS, AS_IS, 3, nv, 1.0, place, nv, qvel.ctypes.data, 1, 0.0, start, 1)
        _gemv(ROWS, AS_IS, 3, nv, 1.0, place + 24 * nv, nv, qvel.ctypes.data, 1, 0.0, start + 24, 1)
        for i in range(n):
            joint_pos[i], joint_vel[i] = qpos[qpos_index[i]], qvel[qvel_index[i]]
            for axis in range(3):
                j_pos[axis, i] = j_full[axis, i] = jacobian[0, axis, qvel_index[i]]
                j_ori[axis, i] = j_full[axis + 3, i] = jacobian[1, axis, qvel_index[i]]
            for j in range(n):
                mass_matrix[i, j] = mass[qvel_index[i], qvel_index[j]]
        for i in range(9):
            ee_ori[i // 3, i % 3] = ee_mat[i]
        ori_error = orientation_error(goal_ori, ee_ori)
        for i in range(3):
            force[i] = (goal_pos[i] - ee_pos[i]) * kp[i] + -velocity[i] * kd[i]
            torque[i] = ori_error[i] * kp[i + 3] + -velocity[i + 3] * kd[i + 3]
        _, lambda_pos, lambda_ori, nullspace = opspace_matrices(mass_matrix, j_full, j_pos, j_ori)
        start = wrench.ctypes.data
        _gemv(COLUMNS, AS_IS, 3, 3, 1.0, lambda_pos.ctypes.data, 3, force.ctypes.data, 1, 0.0, start, 1)
        _gemv(COLUMNS, AS_IS, 3, 3, 1.0, lambda_ori.ctypes.data, 3, torque.ctypes.data, 1, 0.0, start + 24, 1)
        _gemv(ROWS, AS_IS, n, 6, 1.0, j_full.ctypes.data, 6, start, 1, 0.0, torques.ctypes.data, 1)
        null = nullspace_torques(mass_matrix, nullspace, initial_joint, joint_pos, joint_vel)
        for i in range(n):
            wanted = torques[i] + bias[qvel_index[i]] + null[i]
            ctrl[torque_index[i]] = low[i] if wanted < low[i] else high[i] if wanted > high[i] else wanted
        for i in range(finger_index.size):
            moved = grip[i] + closing[i]
            grip[i] = -1.0 if moved < -1.0 else 1.0 if moved > 1.0 else moved
            ctrl[finger_index[i]] = middle[i] + half[i] * grip[i]
        _step2(model, data)


def control_step(env: Any, action: np.ndarray, last: CompiledStep | None) -> CompiledStep | None:
    """Do a control step. last: what this returned the last time."""
    if not (can_be_compiled() and env.robots[0].controller.new_update):
        exact(env, action)
        return last
    step = last if last is not None and last.fits(env) else CompiledStep(env)
    step(action)
    return step


@functools.cache
def can_be_compiled() -> bool:
    """Whether what the compiled steps call is there; makes it known to numba."""
    gemv = next((name for name in GEMV if hasattr(_library(_multiarray_umath), name)), None)
    if gemv is None or numba_config.DISABLE_JIT:
        return False
    _announce("tactus_dgemv", getattr(_library(_multiarray_umath), gemv))
    for name in ("mj_step1", "mj_step2", "mj_jacSite", "mj_fullM"):
        _announce(f"tactus_{name}", getattr(_library(mujoco._functions), name))
    return True


def _library(module: Any) -> ctypes.CDLL:
    """A module's shared object; names are looked for in the libraries it is linked with, too."""
    return ctypes.CDLL(module.__file__)


def _announce(name: str, function: Callable[..., Any]) -> None:
    binding.add_symbol(name, ctypes.cast(function, ctypes.c_void_p).value)
