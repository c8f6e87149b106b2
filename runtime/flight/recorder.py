"""The flight recorder: watches episodes and taps the link; what it sees is written by a thread of its own.

    control thread    tap, asked, merged, before, after, said     a tuple each, into a queue; nothing waits
    writer            every WRITE_EVERY_S, or at PROMPT_BYTES: all of it, as one chunk of the file

The writer is woken when a tick's work is done, so that it is ready again before the next one begins:

    tick k    observe ask act | writer · · · · · ·  | tick k+1

What is in the queue when the process is killed is lost: a tenth of a second and what a write takes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import zmq

from tactus.hal.robot import Outcome
from tactus.hal.spec import Observation
from tactus.runtime.flight.channels import ASKED, EPISODE, GAP, KEYFRAME, MERGE, RECEIVED, SAID, SENT, TICK
from tactus.runtime.flight.ring import Destination
from tactus.runtime.flight.writer import ACTED, SMALL_BYTES, Writer
from tactus.runtime.robot_node.watcher import Beginning, Merged, TickView, Watcher
from tactus.runtime.wire.codec import Frame

WRITE_EVERY_S = 0.1
PROMPT_BYTES = 1_000_000
"""So much is written after the tick that made it, while it is still in the processor's cache."""
IDLE_S = 0.25
"""How often the writer looks by itself, where no ticks are."""
MAX_BACKLOG_BYTES = 256_000_000
EVENT_BYTES = 1024
"""What an event without frames counts in the backlog."""
CHUNK_EVENTS, CHUNK_BYTES = 64, 8_000_000
"""The writer holds the interpreter while it makes a chunk of so many, and lets go of it while it writes."""
CLOSE_S = 30.0


class FlightRecorder(Watcher):
    """Records into `ring`, from `start` to `close`; what comes before `start` waits for it. Entered as a context, it
    also records with which error that ended.

    say: is told once if the recorder has failed; the robot goes on without it.
    """

    def __init__(
        self,
        ring: Destination,
        say: Callable[[str], None] = print,
        max_backlog: int = MAX_BACKLOG_BYTES,
        write_every_s: float = WRITE_EVERY_S,
    ) -> None:
        self._ring = ring
        self.say = say
        self._waits = False
        self._max_backlog = max_backlog
        self._write_every_s = write_every_s
        self._events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()
        self._put_bytes = 0  # by the control thread
        self._taken_bytes = 0  # by the writer
        self._omitted = 0
        self._omitted_bytes = 0
        self._reported = self._reported_bytes = 0  # by the writer
        self._keyframe_wanted = False
        self._keyframes = 0
        self._gap = False
        self._beginning: Beginning | None = None
        self._last: np.ndarray | None = None
        self._over = False
        self._closing = False
        self._wake = threading.Event()
        self._woken_ns = 0
        self._writer: Writer | None = None
        self._thread: threading.Thread | None = None

    def start(self, about: Mapping[str, Any], waits: bool = False) -> None:
        """about: what every file begins with, in JSON's types. waits: whether the robot may wait for the writer, as it
        may in virtual time; else what would make more than `max_backlog` bytes wait is omitted, pictures first.
        """
        self._waits = waits
        self._writer = Writer(self._ring, about)
        self._thread = threading.Thread(target=self._run, name="flight recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> FlightRecorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._put((SAID, -1, f"{type(error).__name__}: {error}", "run"))

    def close(self) -> None:
        """Write what is still to be written and close the file; once."""
        if self._writer is None and not self._over:
            self.start({"run": uuid.uuid4().hex})
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    # called in the control thread

    def tap(self, outgoing: bool, frames: Sequence[Frame]) -> None:
        """A Link's `tap`."""
        if self._over:
            return
        kept: list[Frame | None] = []
        size = EVENT_BYTES
        for frame in frames:
            length = len(frame)
            size += length
            # a copy of little is quicker than to keep the socket's memory
            kept.append(bytes(frame.buffer) if isinstance(frame, zmq.Frame) and length < SMALL_BYTES else frame)
        behind = self._put_bytes - self._taken_bytes + size - self._max_backlog
        if behind > 0:
            if self._waits:
                self._wait(size)
            else:
                lengths = [len(frame) for frame in frames if len(frame) >= SMALL_BYTES]
                if lengths and outgoing:
                    kept = [None if frame is None or len(frame) >= SMALL_BYTES else frame for frame in kept]
                    size -= sum(lengths)
                    self._omitted += 1
                    self._omitted_bytes += sum(lengths)
        self._put((SENT if outgoing else RECEIVED, kept), size)

    def begin(self, beginning: Beginning) -> None:
        self._beginning, self._last = beginning, None
        self._put((EPISODE, beginning, None))

    def asked(self, tick: int, seq: int, observation: Observation) -> None:
        self._put((ASKED, tick, observation.tick, seq))

    def merged(self, merged: Merged) -> None:
        self._put((MERGE, merged))

    def before(self, view: TickView) -> None:
        if self._keyframe_wanted:
            self._keyframe_wanted = False
            self._keyframes += 1
            state = view.queue.state() if view.queue is not None else None
            self._put((KEYFRAME, view.tick, view.at, self._beginning, self._last, state))
        action = view.action.copy()
        self._put((TICK, view.tick, view.at, action, view.starved, view.remaining, view.source, view.age_s,
                   view.lateness_s, view.driver))  # fmt: skip

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        self._last = sent.copy()
        self._put((ACTED, tick, self._last, outcome))
        now_ns = time.monotonic_ns()
        due = now_ns - self._woken_ns >= self._write_every_s * 1e9
        if due or self._put_bytes - self._taken_bytes >= PROMPT_BYTES:
            self._woken_ns = now_ns
            self._wake.set()

    def said(self, tick: int, line: str) -> None:
        self._put((SAID, tick, line, "robot node"))

    def end(self, view: TickView) -> None:
        self._put((EPISODE, self._beginning, view.tick - 1))

    def _put(self, event: tuple[Any, ...], size: int = EVENT_BYTES) -> None:
        if self._over:
            return
        if self._put_bytes - self._taken_bytes > 2 * self._max_backlog and not self._waits:
            self._omitted += 1  # the disk has stood still for so long that even small things are too many
            self._omitted_bytes += size
            self._gap = True
            return
        if self._gap:
            self._gap, self._keyframe_wanted = False, True
            self._events.put((time.monotonic_ns(), 0, (SAID, -1, "what happened here was left out", GAP)))
        self._put_bytes += size
        self._events.put((time.monotonic_ns(), size, event))

    def _wait(self, size: int) -> None:
        self._wake.set()
        while not self._over and self._put_bytes > self._taken_bytes:
            if self._put_bytes - self._taken_bytes + size <= self._max_backlog:
                return
            time.sleep(0.001)

    # the writer's thread

    def _run(self) -> None:
        assert self._writer is not None
        try:
            while not self._closing:
                self._wake.wait(IDLE_S)
                self._wake.clear()
                self._drain(self._writer)
            self._drain(self._writer)
            self._report_omitted(self._writer)
            self._over = True
            self._ring.close()
        except OSError as error:
            self._fail(error.strerror or str(error))
        except BaseException as error:
            self._fail(f"{type(error).__name__}: {error}")
            raise
        finally:
            self._over = True

    def _fail(self, reason: str) -> None:
        self._over = True
        self.say(f"the flight recorder has stopped: {reason}; the robot goes on without it")
        with contextlib.suppress(queue.Empty):
            while True:
                self._events.get_nowait()
        self._ring.abandon()
        self._ring.close()

    def _drain(self, writer: Writer) -> None:
        waiting = self._events.qsize()
        while waiting > 0:
            size = 0
            for _ in range(min(waiting, CHUNK_EVENTS)):
                at_ns, bytes_, event = self._events.get_nowait()
                writer.take(at_ns, event)
                waiting -= 1
                size += bytes_
                if size > CHUNK_BYTES:
                    break
            writer.flush()
            self._taken_bytes += size
        self._report_omitted(writer)
        if self._keyframes == writer.keyframes and self._ring.due:
            self._keyframe_wanted = True
        writer.omits = self._ring.overfull

    def _report_omitted(self, writer: Writer) -> None:
        count, bytes_ = self._omitted - self._reported, self._omitted_bytes - self._reported_bytes
        if count and self._put_bytes - self._taken_bytes < self._max_backlog / 2:
            self._reported, self._reported_bytes = self._omitted, self._omitted_bytes
            line = f"{count} messages, {bytes_ / 1e6:.0f} MB, were left out: the disk did not keep up"
            writer.take(time.monotonic_ns(), (SAID, -1, line, "recorder"))
            writer.flush()
