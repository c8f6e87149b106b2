"""Observations that tell nothing: the control of a policy that is said to look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import IMAGES, Feature, LazyArrays, Observation, SpecError
from tactus.hal.wrappers.wrapper import RobotWrapper

PREFIXES = ("", IMAGES, "observation.")


class OccludedRobot(RobotWrapper):
    """`robot`, some of whose observations are zeros: black pictures, which are not rendered, vectors of 0.

    names: of features, whole or without `observation.images.` or `observation.`. Raises SpecError for others.
    """

    def __init__(self, robot: Robot, names: Sequence[str]) -> None:
        super().__init__(robot)
        known = robot.spec.observations
        self._hidden: dict[str, Feature] = {}
        for name in names:
            found = next((prefix + name for prefix in PREFIXES if prefix + name in known), None)
            if found is None:
                has = ", ".join(one.removeprefix(IMAGES).removeprefix("observation.") for one in known)
                raise SpecError(f"occlude: found {name}; this robot observes {has or 'nothing'}")
            self._hidden[found] = known[found]

    def observe(self) -> Observation:
        seen = super().observe()
        arrays: dict[str, np.ndarray | Callable[[], np.ndarray]] = {
            name: np.zeros(self._hidden[name].shape, self._hidden[name].dtype)
            if name in self._hidden
            else partial(seen.arrays.__getitem__, name)
            for name in seen.arrays
        }
        return replace(seen, arrays=LazyArrays(arrays))
