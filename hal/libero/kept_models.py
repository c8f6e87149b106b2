"""Tasks whose model is compiled, kept so that resetting to one of them compiles nothing.

LIBERO builds and compiles a task's model anew at every reset, 0.3-0.5 s, and it comes out equal each time. What an
episode changes of it is little, and put back by `Pristine`. A kept task takes 0.2 GB, 0.6 GB with LIBERO's own assets
and cameras.
"""

# mujoco's names are made in C, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco

CHANGED = ("body_pos", "body_quat", "site_rgba")
"""What LIBERO changes in a compiled model: where fixtures stand, and which sites show."""


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


class KeptModels:
    """Environments by task: at most `most`, and fewer where memory is short.

    For one more, that which was used last is closed: tasks come in turns, so that it is needed latest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._envs: dict[int, Any] = {}
        self._last: int | None = None

    def __len__(self) -> int:
        return len(self._envs)

    def get(self, task: int, build: Callable[[], Any]) -> Any:
        """The environment of `task`, built if it is not kept."""
        if task not in self._envs:
            if self._last is not None and (len(self._envs) >= self._most or memory_is_short()):
                _close(self._envs.pop(self._last))
            self._last = None
            self._envs[task] = build()
        self._last = task
        return self._envs[task]

    def close(self) -> None:
        while self._envs:
            _close(self._envs.popitem()[1])
        self._last = None


def _close(env: Any) -> None:
    env.close()
    vars(env).clear()  # it refers to itself in many places: without this its memory waits for the garbage collector


def memory_is_short(meminfo: str = "/proc/meminfo") -> bool:
    """Whether less than a quarter of this machine's memory is available; False where nothing says so."""
    file = Path(meminfo)
    if not file.is_file():
        return False
    kilobytes = {
        key: int(rest.split()[0]) for key, _, rest in (x.partition(":") for x in file.read_text().splitlines())
    }
    return kilobytes["MemAvailable"] < kilobytes["MemTotal"] / 4
