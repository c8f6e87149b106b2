"""What the page knows of a run, noted tick by tick in the robot's thread, read by the page's.

A tick costs the robot's thread copies of two short arrays. Rows lie in a ring of fixed places: each is put there whole,
so that no lock is needed, and a reader that comes too late gets a newer row, which it can tell by its number.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from tactus.hal.robot import Outcome, Robot
from tactus.hal.spec import STATE, Observation
from tactus.runtime.robot_node.watcher import Beginning, Merged, TickView, Watcher
from tactus.runtime.statistics import quantiles, wilson

ROWS = 600
"""Ticks that are kept: 20 s at 30 Hz."""
RECENT = 200
"""Chunks that the latencies are taken over."""
MESSAGES = 100

STARTING, RESETTING, RUNNING, RESTING = "starting", "getting ready", "running", "between episodes"


class Row(NamedTuple):
    """A tick. number: counts through the run. sent, state: None where not known. at_s: monotonic."""

    number: int
    tick: int
    at_s: float
    starved: bool
    remaining: int
    lateness_s: float
    driver: str
    requested: np.ndarray
    sent: np.ndarray
    state: np.ndarray | None


class RunState(Watcher):
    """Notes what it watches; `head` and `rows` are for the page's thread.

    look_s: how often the robot is observed for the page, at most, while `watched`, and if nobody else has.
    """

    def __init__(self, look_s: float) -> None:
        self._look_s = look_s
        self.watched: Callable[[], bool] = lambda: False
        self._robot: Robot | None = None
        self._names: list[str] = []
        self._measured: list[str] = []
        self.about: dict[str, Any] = {}
        self._live = False  # whether all pictures can be had at any time
        self._seen: tuple[Observation, float] | None = None  # the newest observation, and when it was made
        self.phase, self.task, self.stopped = STARTING, "", ""
        self.episode = self.tick = -1
        self.successes = self.finished = 0
        self.total: int | None = None
        self.count = self.starved = self.skipped = 0
        self._rows: list[Row | None] = [None] * ROWS
        self._view: TickView | None = None
        self._asked_ns: dict[int, int] = {}
        self._latencies: deque[tuple[float, float, float]] = deque(maxlen=RECENT)
        self._messages: deque[tuple[int, str, str, float]] = deque(maxlen=MESSAGES)
        self._said = 0

    def connect(self, robot: Robot, policy: str, joints: list[dict[str, Any]], cameras: Mapping[str, str]) -> None:
        """From now on of this robot. joints: name, unit, and place in the state. cameras: name -> observation."""
        self._robot = robot
        self._names = [*cameras.values()]
        self._measured = [STATE] if STATE in robot.spec.observations else []
        self.about = {
            "robot": robot.spec.name, "policy": policy, "fps": robot.spec.fps, "joints": joints, "cameras": [*cameras],
        }  # fmt: skip

    @property
    def _wanted(self) -> list[str]:
        return self._measured if self._live else [*self._names, *self._measured]

    # in the robot's thread

    def begin(self, beginning: Beginning) -> None:
        self.episode, self.task, self.tick = beginning.episode, beginning.task, -1
        self.phase = RESETTING
        self._asked_ns.clear()

    def asked(self, tick: int, seq: int, observation: Observation) -> None:
        self._asked_ns[seq] = max(observation.stamps_ns.values(), default=0) or time.monotonic_ns()
        if observation.arrays.keys() >= {*self._wanted}:
            self._take(observation)

    def merged(self, merged: Merged) -> None:
        reply = merged.reply
        asked_ns = self._asked_ns.pop(reply.seq, None)
        if asked_ns is not None:
            latency_ms = (time.monotonic_ns() - asked_ns) / 1e6
            self._latencies.append((latency_ms, reply.round_trip_ms, reply.inference_ms))
        for seq in [seq for seq in self._asked_ns if seq < reply.seq]:
            del self._asked_ns[seq]  # superseded: it will not be answered

    def before(self, view: TickView) -> None:
        self.phase = RUNNING
        self._view = view

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        view = self._view
        if view is None:
            return
        now_s = time.monotonic()
        state = None
        fresh = self._seen is not None and now_s - self._seen[1] < self._look_s
        if not fresh and self._wanted and self.watched():
            self._take(view.observe())
        if self._seen is not None and STATE in self._seen[0].arrays:
            state = self._seen[0].arrays[STATE]
            state = state[-1] if state.ndim == 2 else state  # a policy with a history asks for several
        row = Row(self.count, tick, now_s, view.starved, view.remaining, view.lateness_s,
                  getattr(view, "driver", "policy"), view.action.copy(), sent.copy(), state)  # fmt: skip
        self._rows[self.count % ROWS] = row
        self.skipped += max(0, tick - self.tick - 1)
        self.starved += view.starved
        self.tick = tick
        self.count += 1

    def end(self, view: TickView) -> None:
        self.phase = RESTING

    def _take(self, observation: Observation) -> None:
        """Pictures of what lives in the world's time are read in the page's thread; a renderer wants its own."""
        if self._robot is not None and not self._robot.wall_time:
            kept = {name: np.array(observation.arrays[name]) for name in self._wanted}
            observation = Observation(kept, observation.stamps_ns)
        self._seen = observation, time.monotonic()

    # from any thread

    def say(self, level: str, line: str) -> None:
        """What a person is told."""
        self._said += 1
        self._messages.append((self._said, level, line, time.time()))

    def judged(self, successes: int, finished: int, total: int | None) -> None:
        """How the run stands."""
        self.successes, self.finished, self.total = successes, finished, total

    # in the page's threads

    def look(self) -> Observation | None:
        """What the cameras show: just now, or when they were observed last."""
        if self._robot is not None and self._names:
            live = self._robot.live_pictures()
            self._live = live.arrays.keys() >= {*self._names}
            if self._live:
                return live
        return self._seen[0] if self._seen is not None else None

    def rows(self, after: int, most: int = ROWS) -> list[Row]:
        """Those that came after number `after`, oldest first."""
        count = self.count
        rows = [self._rows[number % ROWS] for number in range(max(after + 1, count - most, 0), count)]
        return [row for row in rows if row is not None]

    def head(self) -> dict[str, Any]:
        """All but the rows, in JSON's types."""
        rows = self.rows(-1, RECENT)
        last = rows[-1] if rows else None
        began = max((at for at, row in enumerate(rows) if at and row.tick <= rows[at - 1].tick), default=0)
        took_s = rows[-1].at_s - rows[began].at_s if rows else 0.0
        latencies = _copied(self._latencies)
        late_ms = [row.lateness_s * 1000 for row in rows if row.tick]
        running = self.phase == RUNNING
        return {
            **self.about,
            "phase": self.phase, "stopped": self.stopped, "episode": self.episode, "tick": self.tick,
            "task": self.task, "successes": self.successes, "finished": self.finished, "total": self.total,
            "interval": [round(bound, 4) for bound in wilson(self.successes, self.finished)],
            "driver": "starved" if last and running and last.starved else last.driver if last else "",
            "remaining": last.remaining if last and running else None,
            "ticks": self.count, "starved": self.starved, "skipped": self.skipped,
            "rate_hz": round((len(rows) - 1 - began) / took_s, 2) if took_s else None,
            "late_ms": quantiles(late_ms),
            "latency_ms": quantiles([each[0] for each in latencies]),
            "round_trip_ms": quantiles([each[1] for each in latencies if each[1]]),
            "inference_ms": quantiles([each[2] for each in latencies]),
            "messages": [list(each) for each in _copied(self._messages)][-30:],
        }  # fmt: skip


def _copied[T](waiting: deque[T]) -> list[T]:
    """A deque that another thread appends to."""
    while True:
        try:
            return list(waiting)
        except RuntimeError:  # it was appended to just now
            continue


def numbers(array: np.ndarray | None) -> list[float | None] | None:
    """For JSON, which has no word for what is not finite."""
    if array is None:
        return None
    return [round(value, 5) if math.isfinite(value) else None for value in array.reshape(-1).tolist()]


def row_json(row: Row) -> list[Any]:
    """A row as the page gets it."""
    return [
        row.number, row.tick, int(row.starved), row.remaining, round(row.lateness_s * 1000, 3), row.driver,
        numbers(row.requested), numbers(row.sent), numbers(row.state),
    ]  # fmt: skip
