"""The control loop with a person in it: a teleoperator's actions on the beat, watched and recorded like a policy's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from hal.robot import Command, Robot
from hal.spec import STATE
from hal.teleop import Teleoperator
from runtime.clock import Clock
from runtime.episode import EpisodeStats
from runtime.link import Stopped
from runtime.robot_node import TickView, Watcher


class TeleopNode:
    """Runs episodes of `robot` as `teleoperator` decides, on `clock`; the counterpart of RobotNode.

    max_ticks: end of an episode on robots that cannot tell; None until the person ends it.
    """

    def __init__(
        self,
        robot: Robot,
        teleoperator: Teleoperator,
        clock: Clock,
        max_ticks: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._robot = robot
        self._teleoperator = teleoperator
        self._clock = clock
        self._max_ticks = max_ticks
        self._say = say
        self._stopped = ""
        self._tick = 0

    def stop(self, reason: str) -> None:
        """Emergency stop, from any thread or a signal handler: the robot at once, the run before its next tick."""
        self._robot.stop(reason)
        self._stopped = reason

    def run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher] = ()) -> EpisodeStats:
        """Until the person ends it, the outcome is done, or max_ticks. Raises Stopped after `stop`."""
        try:
            return self._run_episode(episode, seed, watchers)
        finally:
            self._tell()

    def _tell(self) -> None:
        for line in self._robot.events():
            self._say(f"tick {self._tick}: {line}")

    def _run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher]) -> EpisodeStats:
        started_s = time.monotonic()
        stats = EpisodeStats()
        self._robot.reset(episode, seed)
        self._teleoperator.reset(self._robot.observe().arrays[STATE])
        overruns = self._clock.overruns
        self._clock.start()
        tick = 0
        last: np.ndarray | None = None
        while self._max_ticks is None or tick < self._max_ticks:
            self._tick = tick
            if self._stopped:
                raise Stopped(self._stopped)
            action = self._teleoperator.decide()
            if action is None:
                break
            for watcher in watchers:
                watcher.before(TickView(tick, action, False, 0, self._robot.observe))
            last = self._robot.follow(Command(action))
            stats.actions.append(last)
            stats.sources.append(tick)
            stats.ticks += 1
            stats.control_s = self._clock.elapsed_s
            stats.outcome = self._robot.outcome()
            self._tell()
            for watcher in watchers:
                watcher.after(tick, last, stats.outcome)
            if stats.outcome is not None and stats.outcome.done:
                break
            reached = self._clock.wait_until(tick + 1, time.sleep)
            stats.lateness_ms.append(self._clock.lateness_s * 1000)
            stats.skipped_ticks += reached - tick - 1
            tick = reached
        self._robot.rest()
        if last is not None:
            for watcher in watchers:
                watcher.end(TickView(tick + 1, last, False, 0, self._robot.observe))
        stats.counters = dict(self._robot.counters())
        stats.overruns = self._clock.overruns - overruns
        stats.wall_s = time.monotonic() - started_s
        return stats
