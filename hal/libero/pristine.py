"""What an episode of LIBERO changes of a loaded environment, put back so that nothing is loaded or compiled anew.

LIBERO builds and compiles a task's model at every reset, and it comes out equal each time, without a random number
drawn (tests/test_libero.py).
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
from typing import Any

import mujoco

from tactus.hal.libero import looks

CHANGED = ("body_pos", "body_quat", "site_rgba", *looks.ARRAYS)
"""What LIBERO changes in a compiled model: where fixtures stand, and which sites show; and what looks change."""


class Pristine:
    """A newly compiled LIBERO environment, before its first reset: the parts that an episode changes, as they are."""

    def __init__(self, env: Any) -> None:
        self._env = env
        model, data = env.sim.model._model, env.sim.data._data
        self._arrays = {name: getattr(model, name).copy() for name in CHANGED}
        items = [*env.objects_dict.values(), *env.fixtures_dict.values()]
        self._shown = [(item.object_properties, dict(item.object_properties["vis_site_names"])) for item in items]
        self._grippers = [(robot.gripper, copy.copy(robot.gripper.current_action)) for robot in env.robots]
        self._data = mujoco.MjData(model)
        mujoco.mj_copyData(self._data, model, data)
        # LIBERO's renderer evaluates the dynamics again, and the solver starts from where it ended before.
        mujoco.mj_forward(model, self._data)

    def restore(self) -> None:
        """Make the environment what it was when this was made, with the renderer at hand."""
        model, data = self._env.sim.model._model, self._env.sim.data._data
        for name, values in self._arrays.items():
            getattr(model, name)[:] = values
        for properties, shown in self._shown:
            properties["vis_site_names"].clear()
            properties["vis_site_names"].update(shown)
        for gripper, action in self._grippers:
            gripper.current_action = copy.copy(action)
        mujoco.mj_copyData(data, model, self._data)
