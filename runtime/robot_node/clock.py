"""The clocks that pace a robot node: real, with absolute deadlines, or virtual, which takes no time at all."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

Idle = Callable[[float], None]
"""Called while there is time left: may use up to that many seconds, and should use them well."""


class Clock(ABC):
    """Tick k begins at start + k/fps. `lateness_s` is how late the last tick began, `elapsed_s` how long after `start`
    in wall time (0 where there is none)."""

    fps: float
    overruns: int = 0
    """Times that the work of a tick ran past the next one's beginning."""
    lateness_s: float = 0.0
    elapsed_s: float = 0.0

    @abstractmethod
    def start(self) -> None:
        """Tick 0 begins now."""

    @abstractmethod
    def wait_until(self, tick: int, idle: Idle) -> int:
        """Wait for `tick` to begin and return it, or the next one on the grid if it has already begun."""

    @abstractmethod
    def now_s(self) -> float:
        """Monotonic seconds in this clock's own time, for timeouts."""


class VirtualClock(Clock):
    """No wall time: a tick begins when it is waited for."""

    def __init__(self, fps: float) -> None:
        self.fps = fps
        self.tick = 0

    def start(self) -> None:
        self.tick = 0

    def wait_until(self, tick: int, idle: Idle) -> int:
        self.tick = tick
        return tick

    def now_s(self) -> float:
        return self.tick / self.fps


class RealClock(Clock):
    """Absolute deadlines, so that errors do not add up: idle, sleep, then spin for the last `spin_s`.

        relative sleep     |work|--- 1/fps ---|work|--- 1/fps ---|     every tick late by its work
        absolute deadline  |work|----------|work|----------|           the grid stays

    An overrun is counted and the loop goes on at the next grid point; there is no burst of catch-up ticks.
    """

    def __init__(self, fps: float, spin_s: float = 0.001) -> None:
        self.fps = fps
        self._spin_s = spin_s
        self._start_s = 0.0

    def start(self) -> None:
        self._start_s = time.perf_counter()
        self.overruns = 0
        self.elapsed_s = 0.0

    def wait_until(self, tick: int, idle: Idle) -> int:
        elapsed_s = time.perf_counter() - self._start_s
        if elapsed_s * self.fps > tick:
            self.overruns += 1
            tick = int(elapsed_s * self.fps) + 1
        deadline_s = self._start_s + tick / self.fps
        while (left_s := deadline_s - self._spin_s - time.perf_counter()) > 0:
            idle(left_s)
        while (now_s := time.perf_counter()) < deadline_s:
            pass
        self.lateness_s = now_s - deadline_s
        self.elapsed_s = now_s - self._start_s
        return tick

    def now_s(self) -> float:
        return time.perf_counter()

    def tick_began_s(self) -> float:
        """When the tick that it is now began, on the clock of `now_s`."""
        elapsed_s = time.perf_counter() - self._start_s
        return self._start_s + int(elapsed_s * self.fps + 1e-6) / self.fps
