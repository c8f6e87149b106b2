"""The control loop that every robot node runs: decide an action, send it, note what happened, wait for the next tick.

Who decides is up to the subclass: a policy (node.py) or a person (teleop_node.py).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from tactus.hal.robot import Command, Robot
from tactus.runtime.robot_node.clock import Clock
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.watcher import Beginning, TickView, Watcher
from tactus.runtime.wire.link import Stopped


class ControlLoop(ABC):
    """Runs episodes of `robot` on `clock`. One thread owns robot, queue and link; there is nothing to lock.

    max_ticks: end of an episode on robots that cannot tell; None for no limit. say: one line each for errors, silences
    and what the robot reports.
    """

    def __init__(self, robot: Robot, clock: Clock, max_ticks: int | None, say: Callable[[str], None]) -> None:
        self._robot = robot
        self._clock = clock
        self._max_ticks = max_ticks
        self._say = say
        self._stop_reason = ""
        self._watchers: Sequence[Watcher] = ()
        self._stats = EpisodeStats()
        self._tick = 0

    def stop(self, reason: str) -> None:
        """Emergency stop, from any thread or a signal handler: the robot at once, the run before its next tick."""
        self._stop_reason = reason  # first: the run is over even if stopping the robot fails
        self._robot.stop(reason)

    def run_episode(self, episode: int, seed: int, watchers: Sequence[Watcher] = ()) -> EpisodeStats:
        """Until the outcome is done, max_ticks, or nothing is decided any more.

        Raises Stopped, the robot having been stopped, after `stop`.
        """
        self._watchers = watchers
        self._tick = 0
        try:
            return self._run_episode(episode, seed)
        except Stopped as stopped:
            self._robot.stop(stopped.reason)
            raise
        finally:
            self._report_events()

    def _run_episode(self, episode: int, seed: int) -> EpisodeStats:
        started_s = time.monotonic()
        self._stats = stats = EpisodeStats()
        self._start(episode, seed)
        overruns = self._clock.overruns
        last: np.ndarray | None = None
        tick = 0
        while self._max_ticks is None or tick < self._max_ticks:
            self._tick = tick
            view = self._decide(tick, last)
            if view is None:
                break
            for watcher in self._watchers:
                watcher.before(view)
            command = Command(view.action, view.age_s, view.starved)
            last = self._timed("act", lambda command=command: self._robot.follow(command))
            stats.actions.append(last)
            stats.ticks += 1
            stats.control_s = self._clock.elapsed_s
            stats.outcome = self._robot.outcome()
            self._report_events()
            for watcher in self._watchers:
                watcher.after(tick, last, stats.outcome)
            if stats.outcome is not None:
                stats.reward += stats.outcome.reward
                if stats.outcome.done:
                    break
            reached = self._wait(view)
            stats.lateness_ms.append(self._clock.lateness_s * 1000)
            stats.skipped_ticks += reached - tick - 1
            tick = reached
        self._robot.rest()
        if last is not None:
            for watcher in self._watchers:
                watcher.end(self._final_view(tick + 1, last))
        stats.overruns = self._clock.overruns - overruns
        stats.counters = dict(self._robot.counters())
        stats.wall_s = time.monotonic() - started_s
        return stats

    @abstractmethod
    def _start(self, episode: int, seed: int) -> None:
        """All that comes before tick 0: tell the watchers, reset the robot, start the clock."""

    @abstractmethod
    def _decide(self, tick: int, last: np.ndarray | None) -> TickView | None:
        """The tick's action, and what is behind it; None ends the episode. last: the action that was sent last."""

    def _wait(self, view: TickView) -> int:
        """Until the next tick begins, whose number is returned."""
        return self._clock.wait_until(view.tick + 1, time.sleep)

    def _final_view(self, tick: int, last: np.ndarray) -> TickView:
        """What watchers see when all is over."""
        return TickView(tick, last, False, 0, self._robot.observe)

    def _events(self) -> list[str]:
        """What a person should be told, since the last call."""
        return self._robot.events()

    def _begin(self, episode: int, seed: int) -> str:
        """Tell the watchers that an episode begins; returns its task."""
        beginning = Beginning(episode, seed, self._robot.scene(episode).task)
        for watcher in self._watchers:
            watcher.begin(beginning)
        return beginning.task

    def _check_stopped(self) -> None:
        if self._stop_reason:
            raise Stopped(self._stop_reason)

    def _report_events(self) -> None:
        for line in self._events():
            self._report(self._tick, line)

    def _report(self, tick: int, line: str) -> None:
        self._say(f"tick {tick}: {line}")
        for watcher in self._watchers:
            watcher.said(tick, line)

    def _timed[R](self, part: str, call: Callable[[], R]) -> R:
        """Add what a call takes to `spent_s` of the episode's statistics. part: of episode.PARTS."""
        started_s = time.perf_counter()
        try:
            return call()
        finally:
            self._stats.spent_s[part] += time.perf_counter() - started_s
