"""Several simulated robots of one process behind gymnasium's vector interface, for scripts that train.

    vector = RobotVector([LiberoConfig(tasks=[t], cameras=[]) for t in range(4)], max_ticks=280)
    observations, infos = vector.reset(seed=1000)
    while training:
        observations, rewards, terminated, truncated, infos = vector.step(actions)        # [n, …] each
        over = terminated | truncated
        if over.any():
            observations, _ = vector.reset(options={"reset_mask": over})

Episodes are those of `tactus eval` with that seed, to the bit: robot i of n plays the episodes i, i + n, i + 2n …, or
the ones that `options={"episodes": [...]}` names, whatever the others do and in whichever order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tactus.hal.robot import Outcome, RobotConfig, RobotError
from tactus.hal.spec import Feature, SpecError
from tactus.hal.wrappers.checked import make

Arrays = dict[str, np.ndarray]


class RobotVector(VectorEnv[Arrays, np.ndarray, np.ndarray]):
    """n robots, connected; episodes end only by `reset` (AutoresetMode.DISABLED).

    observations: names of the arrays to give, all if None; what is not named is not rendered. max_ticks: an episode
    is truncated then. threads: robots stepped at once; of use where the step leaves the GIL. Observations are
    {name: [n, *shape]} of the spec's dtypes, actions [n, A], rewards float64[n]. infos: episode, task, success, each
    [n] with a mask `_name`, for the robots that were reset or stepped.

    Raises SpecError for robots that differ, or that cannot tell how an episode stands; RobotError as they do.
    """

    def __init__(
        self,
        configs: Sequence[RobotConfig],
        seed: int = 1000,
        observations: Sequence[str] | None = None,
        max_ticks: int | None = None,
        threads: int = 1,
    ) -> None:
        self.num_envs = len(configs)
        self.metadata = {"autoreset_mode": AutoresetMode.DISABLED}
        self._robots = [make(config, f"robot {i}") for i, config in enumerate(configs)]
        self._seed, self._max_ticks = seed, max_ticks
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._episodes = np.arange(self.num_envs) - self.num_envs
        self._ticks = np.zeros(self.num_envs, np.int64)
        self._playing = np.zeros(self.num_envs, bool)
        first = self._robots[0].spec
        for robot in self._robots:
            if (robot.spec.observations, robot.spec.action) != (first.observations, first.action):
                raise SpecError(f"robots of one vector observe and take the same; {robot.spec.name} does not")
            if robot.outcome() is None:
                raise SpecError(f"{robot.spec.name} cannot tell how an episode stands: it is no simulator")
        self._names = list(first.observations if observations is None else observations)
        if unknown := [name for name in self._names if name not in first.observations]:
            raise SpecError(f"observations: found {', '.join(unknown)}; there are {', '.join(first.observations)}")
        self.single_observation_space = Dict({name: _box(first.observations[name]) for name in self._names})
        self.single_action_space = _box(first.action)
        batched: Any = batch_space(self.single_observation_space, self.num_envs)
        self.observation_space = batched
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._seen: Arrays = {name: np.zeros(box.shape, box.dtype) for name, box in batched.items()}
        try:
            for robot in self._robots:
                robot.connect()
        except BaseException:
            self.close()
            raise

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Arrays, dict[str, Any]]:
        """seed: of the run, from here on. options: `reset_mask`, bool[n], and `episodes`, one per robot that is reset;
        without them all are reset, each to its next episode."""
        if isinstance(seed, list):
            raise SpecError("seed: found a list; accepted: one seed, from which each episode's own is derived")
        self._seed = self._seed if seed is None else seed
        options = options or {}
        mask = np.asarray(options.get("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise SpecError(f"reset_mask: found {mask.dtype}{list(mask.shape)}, expected bool[{self.num_envs}]")
        rows = np.flatnonzero(mask)
        episodes = np.asarray(options.get("episodes", self._episodes[rows] + self.num_envs))
        if episodes.shape != rows.shape or episodes.dtype.kind not in "iu" or (episodes < 0).any():
            raise SpecError(f"episodes: found {episodes.tolist()}, expected {len(rows)} numbers from 0")
        self._episodes[rows], self._ticks[rows], self._playing[rows] = episodes, 0, True
        self._each(lambda i: self._robots[i].reset(int(self._episodes[i]), self._seed), rows)
        return self._observed(rows), self._infos(rows)

    def step(self, actions: np.ndarray) -> tuple[Arrays, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Raises SpecError for actions of another shape, and for a robot whose episode is over."""
        if np.shape(actions) != self.action_space.shape:
            raise SpecError(f"actions: found {list(np.shape(actions))}, expected {list(self.action_space.shape or ())}")
        if not self._playing.all():
            over = np.flatnonzero(~self._playing).tolist()
            raise SpecError(f"the episodes of robots {over} are over, or were not begun: reset them first")
        actions = np.asarray(actions, self.action_space.dtype)
        rows = np.arange(self.num_envs)
        self._each(lambda i: self._robots[i].act(actions[i]), rows)
        self._ticks += 1
        outcomes = self._outcomes(rows)
        terminated = np.array([outcome.done for outcome in outcomes])
        truncated = ~terminated & (self._ticks >= (self._max_ticks or np.inf))
        self._playing = ~(terminated | truncated)
        rewards = np.array([outcome.reward for outcome in outcomes], np.float64)
        return self._observed(rows), rewards, terminated, truncated, self._infos(rows)

    def _each(self, call: Callable[[int], Any], rows: np.ndarray) -> None:
        """For every row, at once where there are threads; the first error in order is raised once all have ended."""
        for ended in list((map if self._pool is None else self._pool.map)(call, rows.tolist())):
            del ended

    def _observed(self, rows: np.ndarray) -> Arrays:
        for i in rows:
            arrays = self._robots[i].observe().arrays
            for name in self._names:
                self._seen[name][i] = arrays[name]
        return {name: array.copy() for name, array in self._seen.items()}

    def _outcomes(self, rows: np.ndarray) -> list[Outcome]:
        return [outcome for i in rows if (outcome := self._robots[i].outcome()) is not None]

    def _infos(self, rows: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for i, outcome in zip(rows.tolist(), self._outcomes(rows), strict=True):
            episode = int(self._episodes[i])
            about = {"episode": episode, "task": self._robots[i].scene(episode).task, "success": outcome.success}
            infos = self._add_info(infos, about, i)
        return infos

    def close_extras(self, **keys: Any) -> None:
        """Close every robot, whatever the others do."""
        errors: list[Exception] = []
        for robot in self._robots:
            try:
                robot.close()
            except RobotError as error:
                errors.append(error)
        if self._pool is not None:
            self._pool.shutdown()
        if errors:
            raise ExceptionGroup("some robots did not close", errors)


def _box(feature: Feature) -> Box:
    dtype = np.dtype(feature.dtype).type
    if feature.is_image:
        return Box(0, 255, feature.shape, dtype)
    low = np.array(feature.low, dtype).reshape(feature.shape) if feature.low else -np.inf
    high = np.array(feature.high, dtype).reshape(feature.shape) if feature.high else np.inf
    return Box(low, high, feature.shape, dtype)
