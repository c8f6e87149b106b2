"""The flight recorder: an onlooker, and a tap on the link, that hand over what they are told; a thread writes it down.

    control thread    tap, asked, merged, before, after, said     a tuple each, into a queue; nothing waits
    writer            every WRITE_EVERY_S: all of it, as one chunk of the file

What is in the queue when the process is killed is lost: a tenth of a second and what a write takes.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zmq

from hal.robot import Outcome
from hal.spec import Observation
from runtime.flight.channels import (
    ABOUT,
    ASKED,
    EPISODE,
    GAP,
    KEYFRAME,
    MERGE,
    RECEIVED,
    REPEATED,
    SAID,
    SENT,
    TICK,
    frame_table,
    from_array,
    to_json,
)  # fmt: skip
from runtime.flight.ring import Ring
from runtime.flight.segment import Entry, Part
from runtime.queue import QueueState
from runtime.watcher import Beginning, Merged, TickView, Watcher
from runtime.wire import HELLO, RESET, WELCOME, Frame, WireError, decode

WRITE_EVERY_S = 0.1
MAX_BACKLOG_BYTES = 256_000_000
SMALL_BYTES = 16 * 1024
"""Frames below this are kept however far the writer is behind: headers and chunks, not pictures."""
EVENT_BYTES = 1024
"""What an event without frames counts in the backlog."""
CHUNK_EVENTS, CHUNK_BYTES = 64, 8_000_000
"""The writer holds the interpreter while it makes a chunk of so many, and lets go of it while it writes."""
CLOSE_S = 30.0


class Recorder(Watcher):
    """Records into `ring`, from `start` to `close`; what comes before `start` waits for it. Entered as a context, it
    also records with which error that ended.

    say: told, once, if the recorder has failed; the robot goes on without it.
    """

    def __init__(
        self,
        ring: Ring,
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
        self._put_bytes = 0  # by those who hand over
        self._taken_bytes = 0  # by the writer
        self._left_out = 0
        self._left_out_bytes = 0
        self._told_left_out = self._told_left_out_bytes = 0  # by the writer
        self._keyframe_wanted = False
        self._keyframes = 0
        self._gap = False
        self._beginning: Beginning | None = None
        self._last: np.ndarray | None = None
        self._over = False
        self._closing = threading.Event()
        self._writer: _Writer | None = None
        self._thread: threading.Thread | None = None

    def start(self, about: Mapping[str, Any], waits: bool = False) -> None:
        """about: what every file begins with, in JSON's types. waits: whether the robot may wait for the writer, as it
        may in virtual time; else what would make more than `max_backlog` bytes wait is left out, pictures first.
        """
        self._waits = waits
        self._writer = _Writer(self._ring, about)
        self._thread = threading.Thread(target=self._run, name="flight recorder", daemon=True)
        self._thread.start()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._put((SAID, -1, f"{type(error).__name__}: {error}", "run"))

    def close(self) -> None:
        """Write what is still to be written and close the file; once."""
        if self._writer is None and not self._over:
            self.start({})
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    # what the control thread is told

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
                    self._left_out += 1
                    self._left_out_bytes += sum(lengths)
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
                   view.lateness_s))  # fmt: skip

    def after(self, tick: int, sent: np.ndarray, outcome: Outcome | None) -> None:
        self._last = sent.copy()
        self._put(("sent", tick, self._last, outcome))

    def said(self, tick: int, line: str) -> None:
        self._put((SAID, tick, line, "robot node"))

    def end(self, view: TickView) -> None:
        self._put((EPISODE, self._beginning, view.tick - 1))

    def _put(self, event: tuple[Any, ...], size: int = EVENT_BYTES) -> None:
        if self._over:
            return
        if self._put_bytes - self._taken_bytes > 2 * self._max_backlog and not self._waits:
            self._left_out += 1  # the disk has stood still for so long that even small things are too many
            self._left_out_bytes += size
            self._gap = True
            return
        if self._gap:
            self._gap, self._keyframe_wanted = False, True
            self._events.put((time.monotonic_ns(), 0, (SAID, -1, "what happened here was left out", GAP)))
        self._put_bytes += size
        self._events.put((time.monotonic_ns(), size, event))

    def _wait(self, size: int) -> None:
        while not self._over and self._put_bytes > self._taken_bytes:
            if self._put_bytes - self._taken_bytes + size <= self._max_backlog:
                return
            time.sleep(0.001)

    # the writer's thread

    def _run(self) -> None:
        assert self._writer is not None
        try:
            while not self._closing.wait(self._write_every_s):
                self._drain(self._writer)
            self._drain(self._writer)
            self._tell_left_out(self._writer)
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
        if self._ring.segment is not None:
            self._ring.segment.abandon()
            self._ring.segment = None
        self._ring.close()

    def _drain(self, writer: _Writer) -> None:
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
        self._tell_left_out(writer)
        if self._keyframes == writer.keyframes and self._ring.due:
            self._keyframe_wanted = True
        writer.leaves_out = self._ring.overfull

    def _tell_left_out(self, writer: _Writer) -> None:
        count, bytes_ = self._left_out - self._told_left_out, self._left_out_bytes - self._told_left_out_bytes
        if count and self._put_bytes - self._taken_bytes < self._max_backlog / 2:
            self._told_left_out, self._told_left_out_bytes = self._left_out, self._left_out_bytes
            line = f"{count} messages, {bytes_ / 1e6:.0f} MB, were left out: the disk did not keep up"
            writer.take(time.monotonic_ns(), (SAID, -1, line, "recorder"))
            writer.flush()


class _Writer:
    """Makes entries of events, and files of entries. leaves_out: large frames, since the file has grown too long.
    keyframes: how many it has taken."""

    def __init__(self, ring: Ring, about: Mapping[str, Any]) -> None:
        self._ring = ring
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._about = about
        self._entries: list[Entry] = []
        self._handshake: dict[str, list[Part | None]] = {}
        self._recent: list[dict[str, Any]] = []
        self._open_tick: dict[str, Any] | None = None
        self.leaves_out = False
        self.keyframes = 0
        self._begin_file()

    def flush(self) -> None:
        """Write what was taken."""
        entries, self._entries = self._entries, []
        assert self._ring.segment is not None
        if entries:
            self._ring.trim(sum(entry.size for entry in entries))
            self._ring.segment.write(entries)

    def take(self, at_ns: int, event: tuple[Any, ...]) -> None:
        """An event, and the monotonic time at which it was handed over."""
        kind, *data = event
        log_ns = at_ns + self._offset_ns
        if kind in (SENT, RECEIVED):
            self._wire(log_ns, kind, data[0])
        elif kind == TICK:
            self._finish_tick(log_ns)
            tick, at, action, starved, remaining, source, age_s, lateness_s = data
            self._open_tick = {"tick": tick, "at": at, "requested": action.tolist(), "sent": None, "starved": starved,
                               "remaining": remaining, "source": source, "age_s": age_s, "lateness_s": lateness_s,
                               "outcome": None}  # fmt: skip
        elif kind == "sent":
            _, sent, outcome = data
            if self._open_tick is not None:
                self._open_tick["sent"] = sent.tolist()
                if outcome is not None:
                    self._open_tick["outcome"] = {"success": bool(outcome.success), "done": bool(outcome.done),
                                                  "reward": float(outcome.reward)}  # fmt: skip
            self._finish_tick(log_ns)
        elif kind == MERGE:
            self._merge(log_ns, data[0])
        elif kind == ASKED:
            self._json(log_ns, ASKED, {"tick": data[0], "at": data[1], "seq": data[2]})
        elif kind == SAID:
            self._json(log_ns, SAID, {"tick": data[0], "line": data[1], "by": data[2]})
        elif kind == EPISODE:
            self._finish_tick(log_ns)
            beginning, ticks = data
            self._recent = self._recent if ticks is not None else []
            record = {"event": "begin", **_episode(beginning)}
            self._json(log_ns, EPISODE, record if ticks is None else record | {"event": "end", "ticks": ticks})
        else:
            self._keyframe(log_ns, *data)

    def _json(self, log_ns: int, topic: str, record: Mapping[str, Any]) -> None:
        data = to_json(record)
        self._entries.append(Entry(topic, log_ns, (data,), len(data)))

    def _finish_tick(self, log_ns: int) -> None:
        """A tick whose `after` never came, because the robot failed, is written as well."""
        tick, self._open_tick = self._open_tick, None
        if tick is not None:
            self._json(log_ns, TICK, tick)

    def _merge(self, log_ns: int, merged: Merged) -> None:
        reply, chunk = merged.reply, merged.reply.chunk
        assert chunk is not None
        record = {
            "tick": merged.tick, "at": merged.at, "seq": reply.seq, "start": chunk.start,
            "length": len(chunk.actions), "stale": merged.stale, "asked": merged.asked,
            "latency_ticks": merged.tick - merged.asked, "round_trip_ms": reply.round_trip_ms,
            "uplink_ms": reply.uplink_ms, "downlink_ms": reply.downlink_ms, "timings_ms": dict(chunk.timings_ms),
            "crc32": zlib.crc32(np.ascontiguousarray(chunk.actions).data),
        }  # fmt: skip
        self._json(log_ns, MERGE, record)
        self._recent = [kept for kept in self._recent if kept["start"] + kept["length"] > merged.at]
        self._recent.append({**record, "actions": chunk.actions})

    def _wire(self, log_ns: int, topic: str, frames: Sequence[Frame | None]) -> None:
        parts: list[Part | None] = [frame.buffer if isinstance(frame, zmq.Frame) else frame for frame in frames]
        if self.leaves_out and topic == SENT:
            parts = [None if part is None or len(part) >= SMALL_BYTES else part for part in parts]
        kind = _kind(parts)
        if kind in (HELLO, WELCOME, RESET):
            self._handshake[kind] = parts
        self._frames(log_ns, topic, parts)

    def _frames(self, log_ns: int, topic: str, parts: Sequence[Part | None]) -> None:
        table = frame_table([None if part is None else len(part) for part in parts])
        whole = [part for part in parts if part is not None]
        self._entries.append(Entry(topic, log_ns, (table, *whole), len(table) + sum(len(part) for part in whole)))

    def _begin_file(self) -> None:
        about = {**self._about, "file": self._ring.number, "monotonic_offset_ns": self._offset_ns}
        self._json(time.monotonic_ns() + self._offset_ns, ABOUT, about)

    def _keyframe(
        self, log_ns: int, tick: int, at: int, beginning: Beginning | None, last: np.ndarray | None,
        state: QueueState | None,
    ) -> None:  # fmt: skip
        self.keyframes += 1
        self._finish_tick(log_ns)
        self.flush()
        self._ring.next()
        self._begin_file()
        for parts in self._handshake.values():
            self._frames(log_ns, REPEATED, parts)
        chunks = [{**kept, "actions": from_array(kept["actions"])} for kept in self._recent]
        record = {
            "tick": tick, "at": at, "episode": None if beginning is None else _episode(beginning),
            "last": None if last is None else from_array(last), "queue": None if state is None else _state(state),
            "chunks": chunks,
        }  # fmt: skip
        self._json(log_ns, KEYFRAME, record)


def _kind(parts: Sequence[Part | None]) -> str:
    """Of a message without arrays; the others are never needed again."""
    if len(parts) != 1 or parts[0] is None:
        return ""
    try:
        return decode([parts[0]]).kind
    except WireError:
        return ""


def _episode(beginning: Beginning) -> dict[str, Any]:
    return {"episode": beginning.episode, "seed": beginning.seed, "task": beginning.task}


def _state(state: QueueState) -> dict[str, Any]:
    chunks: Iterator[dict[str, Any]] = ({"start": start, "actions": from_array(a)} for start, a in state.chunks)
    return {"base": state.base, "end": state.end, "actions": from_array(state.actions),
            "starts": from_array(state.starts), "chunks": list(chunks)}  # fmt: skip
