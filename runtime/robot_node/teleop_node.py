"""The control loop with a person in it: a teleoperator's actions on the beat, watched and recorded like a policy's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from tactus.hal.robot import Command, Robot
from tactus.hal.spec import STATE
from tactus.hal.teleop import Teleoperator
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.watcher import Beginning, TickView, Watcher
from tactus.runtime.wire.link import Stopped

LOOK_S = 0.1
"""While it waits for a person, it looks so often whether it was stopped."""


class TeleopNode:
    """Runs episodes of `robot` as `teleoperator` decides, on `clock`; the counterpart of RobotNode.

    max_ticks: end of an episode on robots that cannot tell; None until the person ends it.
    """

    asks: bool = False
    """Whether each episode begins only when `enter` is called."""

    def __init__(
        self,
        robot: Robot,
        teleoperator: Teleoperator,
        clock: RealClock,
        max_ticks: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._robot = robot
        self._teleoperator = teleoperator
        self._clock = clock
        self._max_ticks = max_ticks
        self._say = say
        self._stopped = ""
        self._entered = threading.Event()
        self._watchers: Sequence[Watcher] = ()
        self._tick = 0

    def stop(self, reason: str) -> None:
        """Emergency stop, from any thread or a signal handler: the robot at once, the run before its next tick."""
        self._stopped = reason  # first: the run is over even if stopping the robot fails
        self._robot.stop(reason)

    def enter(self) -> None:
        """The person begins the episode, or ends it; from any thread."""
        self._entered.set()

    def run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher] = ()) -> EpisodeStats:
        """Until the person ends it, the outcome is done, or max_ticks. Raises Stopped after `stop`."""
        self._tick = 0
        self._watchers = watchers
        try:
            return self._run_episode(episode, seed)
        finally:
            self._tell()

    def _tell(self) -> None:
        for line in [*self._robot.events(), *self._teleoperator.events()]:
            self._say(f"tick {self._tick}: {line}")
            for watcher in self._watchers:
                watcher.said(self._tick, line)

    def _wait_for_person(self, episode: int) -> None:
        self._entered.clear()
        if self.asks:
            self._say(f"episode {episode}: Enter when the scene is ready")
            while not self._entered.wait(LOOK_S):
                self._check()
            self._entered.clear()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped(self._stopped)

    def _run_episode(self, episode: int, seed: int) -> EpisodeStats:
        started_s = time.monotonic()
        stats = EpisodeStats()
        self._wait_for_person(episode)
        for watcher in self._watchers:
            watcher.begin(Beginning(episode, seed, self._robot.scene(episode).task))
        self._robot.reset(episode, seed)
        seen = self._robot.observe().arrays
        self._teleoperator.reset(seen[STATE] if STATE in seen else np.empty(0, np.float32))
        self._clock.start()
        tick = 0
        last: np.ndarray | None = None
        while self._max_ticks is None or tick < self._max_ticks:
            self._tick = tick
            self._check()
            action = None if self._entered.is_set() else self._teleoperator.decide()
            if action is None:
                break
            for watcher in self._watchers:
                late_s = self._clock.lateness_s
                watcher.before(TickView(tick, action, False, 0, self._robot.observe, at=tick, lateness_s=late_s))
            last = self._robot.follow(Command(action))
            stats.actions.append(last)
            stats.sources.append(tick)
            stats.ticks += 1
            stats.control_s = self._clock.elapsed_s
            stats.outcome = self._robot.outcome()
            self._tell()
            for watcher in self._watchers:
                watcher.after(tick, last, stats.outcome)
            if stats.outcome is not None:
                stats.reward += stats.outcome.reward
                if stats.outcome.done:
                    break
            reached = self._clock.wait_until(tick + 1, time.sleep)
            stats.lateness_ms.append(self._clock.lateness_s * 1000)
            stats.skipped_ticks += reached - tick - 1
            tick = reached
        self._robot.rest()
        if last is not None:
            for watcher in self._watchers:
                watcher.end(TickView(tick + 1, last, False, 0, self._robot.observe))
        stats.counters = dict(self._robot.counters())
        stats.overruns = self._clock.overruns
        stats.wall_s = time.monotonic() - started_s
        return stats
