"""The watcher behind --view: notes each tick in the robot's thread, and draws it in a thread of its own."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from tactus.hal.robot import Outcome, Robot
from tactus.hal.spec import STATE
from tactus.runtime.robot_node.watcher import Beginning, Merged, TickView, Watcher
from tactus.runtime.view.rerun_recording import RerunRecording, Tick, TimePoint
from tactus.runtime.wire.link import Reply

DRAW_EVERY_S = 0.25
"""Ticks are drawn several at once, which costs hardly more than one."""
PICTURES = 32
"""Pictures that may wait to be drawn; of more the oldest are dropped."""
TICKS = 3000
"""Ticks, and lines, that may wait: 100 s at 30 Hz."""


class View(Watcher):
    """Draws on `canvas` what it watches, until `close`.

    view_hz: pictures of each camera per second of the robot's time, at most. real_time: on a virtual clock the robot's
    thread waits for the drawing one where it must; on a real clock the oldest pictures are dropped instead, and said.
    Nothing is shared but deques, whose ends are moved in one step each: the robot's thread never waits for a lock.

    The state is looked at every tick where that is free, in simulation; a robot on a bus is asked as often as there are
    pictures. Pictures are read in the robot's thread, as renderers need.
    """

    def __init__(
        self, canvas: RerunRecording, robot: Robot, view_hz: float, real_time: bool, say: Callable[[str], None] = print
    ) -> None:
        self._canvas = canvas
        self._say = say
        self._waits = not real_time
        self._cameras = canvas.entities.cameras
        self._measures = STATE in robot.spec.observations
        self._every = max(1, math.ceil(robot.spec.fps / view_hz))
        self._state_every = self._every if robot.wall_time else 1
        self._period_ns = round(1e9 / robot.spec.fps)
        self._base = self._last = self._episode = 0
        self._chunks: list[Reply] = []
        self._outcome: Outcome | None = None
        self._played = self._next_pictures = self._next_state = 0
        self._tick: Tick | None = None
        self._notes: deque[Tick | Callable[[], None]] = deque(maxlen=TICKS)
        self._pictures: deque[tuple[TimePoint, str, np.ndarray]] = deque(maxlen=PICTURES)
        self._spare: dict[str, deque[np.ndarray]] = {camera: deque() for camera in self._cameras}
        self._shown = self._taken = self._said = 0
        self._failure = ""
        self._told = False
        self._wake = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._draw_all, name="view", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Pictures that were never drawn. Exact while nothing moves."""
        return max(0, self._shown - self._taken - len(self._pictures))

    def begin(self, beginning: Beginning) -> None:
        self._base = self._last + 2 if self._last else 0
        self._last = max(self._last, self._base)
        self._chunks, self._outcome = [], None
        self._episode = beginning.episode
        self._played = self._next_pictures = self._next_state = 0
        task = f": {beginning.task}" if beginning.task else ""
        self._note(partial(self._canvas.log_line, self._when(0), f"episode {beginning.episode}{task}", "INFO"))

    def merged(self, merged: Merged) -> None:
        self._chunks.append(merged.reply)

    def before(self, view: TickView) -> None:
        when = self._when(view.tick)
        state = self._look(view, when)
        chunks, self._chunks = self._chunks, []
        view = replace(view, action=view.action.copy())
        self._tick = Tick(when, view, view.action, state, chunks)

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        self._outcome, self._played = outcome, tick + 1
        if self._tick is not None:
            self._tick.sent = sent.copy()
            self._note(self._tick)
            self._tick = None

    def said(self, tick: int, line: str) -> None:
        self._note(partial(self._canvas.log_line, self._when(tick), f"tick {tick}: {line}", "WARN"))

    def end(self, view: TickView) -> None:
        self._look(view, self._when(view.tick), last=True)
        judged = ("success" if self._outcome.success else "failure") if self._outcome else "ended"
        text = f"episode {self._episode}: {judged} after {self._played} ticks"
        self._note(partial(self._canvas.log_line, self._when(view.tick), text, "INFO"))
        self._tell()

    def _tell(self) -> None:
        """Once an episode: what a person should know of the view itself."""
        if self._failure and not self._told:
            self._told = True
            self._say(f"view: drawing failed, the run goes on without it: {self._failure}")
        elif not self._failure and (dropped := self.dropped) > self._said:
            count, self._said = dropped - self._said, dropped
            self._say(f"view: {count} pictures were dropped, drawing did not keep up; a lower --view_hz helps")

    def _when(self, tick: int) -> TimePoint:
        at = self._base + tick
        self._last = max(self._last, at)
        return TimePoint(at, at * self._period_ns if self._waits else time.time_ns())

    def _look(self, view: TickView, when: TimePoint, last: bool = False) -> np.ndarray | None:
        """The state, if it is this tick's turn; pictures are put where they are drawn from."""
        if self._failure:
            return None
        pictures = self._cameras and (last or view.tick >= self._next_pictures)
        measures = self._measures and (last or view.tick >= self._next_state)
        if not pictures and not measures:
            return None
        arrays = view.observe().arrays
        if pictures:
            self._next_pictures = view.tick + self._every
            for camera, name in self._cameras.items():
                self._wait(self._pictures)
                # a copy: a camera may reuse its buffer before it is drawn; into memory that is there already, because
                # fresh pages cost more than what is written into them
                spare = self._spare[camera]
                picture = spare.pop() if spare else np.empty_like(arrays[name])
                np.copyto(picture, arrays[name])
                self._pictures.append((when, camera, picture))
                self._shown += 1
        if not measures:
            return None
        self._next_state = view.tick + self._state_every
        return np.array(arrays[STATE])

    def _note(self, note: Tick | Callable[[], None]) -> None:
        self._wait(self._notes)
        self._notes.append(note)

    def _wait(self, waiting: deque) -> None:
        while self._waits and len(waiting) == waiting.maxlen and self._thread.is_alive():
            self._wake.set()
            time.sleep(0.001)

    def _draw_all(self) -> None:
        """The thread's: until closed and nothing is left."""
        closing = False
        while not closing:
            self._wake.wait(DRAW_EVERY_S)
            self._wake.clear()
            closing = self._closing
            try:
                self._draw()
            except Exception as error:  # noqa: BLE001 - whatever goes wrong with a picture, the robot is played on
                self._failure = f"{type(error).__name__}: {error}"
                return

    def _draw(self) -> None:
        ticks: list[Tick] = []
        for _ in range(len(self._notes)):
            note = self._notes.popleft()
            if isinstance(note, Tick):
                ticks.append(note)
            else:
                note()
        self._canvas.ticks(ticks)
        for _ in range(len(self._pictures)):
            when, camera, rgb = self._pictures.popleft()
            self._taken += 1
            self._canvas.picture(when, camera, rgb)
            self._spare[camera].append(rgb)

    def close(self) -> None:
        """Draw what is left; the canvas is closed too. May be called more than once."""
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            self._canvas.close()
            self._tell()
