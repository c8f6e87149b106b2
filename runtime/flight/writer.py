"""Writes what the flight recorder saw into its files; all formatting is done here, in the recorder's thread.

A new file begins at a keyframe, and with what is needed to read it without the ones before: what the run is, the
handshake, the episode, and the keyframe.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import zmq

from tactus.runtime.flight.channels import (
    ABOUT,
    ASKED,
    EPISODE,
    KEYFRAME,
    MERGE,
    RECEIVED,
    REPEATED,
    SAID,
    SENT,
    TICK,
    crc32,
    frame_table,
    from_array,
    to_json,
)
from tactus.runtime.flight.mcap_file import Entry, Part
from tactus.runtime.flight.ring import Destination
from tactus.runtime.robot_node.action_queue import QueueState
from tactus.runtime.robot_node.watcher import Beginning, Merged
from tactus.runtime.wire.codec import HELLO, RESET, WELCOME, Frame, WireError, decode

SMALL_BYTES = 16 * 1024
"""Frames below this are kept however full disk and queue are: headers and chunks, not pictures."""
ACTED = "acted"
"""The event by which a tick's /tick is whole."""


class Writer:
    """Makes entries of events, and files of entries. omits: large frames, since the file has grown too long.
    keyframes: how many it has taken."""

    def __init__(self, ring: Destination, about: Mapping[str, Any]) -> None:
        self._ring = ring
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._about = about
        self._entries: list[Entry] = []
        self._handshake: dict[str, list[Part | None]] = {}
        self._recent: list[dict[str, Any]] = []
        self._open_tick: dict[str, Any] | None = None
        self.omits = False
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
            tick, at, action, starved, remaining, source, age_s, lateness_s, driver = data
            self._open_tick = {"tick": tick, "at": at, "requested": action.tolist(), "sent": None, "starved": starved,
                               "remaining": remaining, "source": source, "age_s": age_s, "lateness_s": lateness_s,
                               "outcome": None, "driver": driver}  # fmt: skip
        elif kind == ACTED:
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
            "crc32": crc32(chunk.actions),
        }  # fmt: skip
        self._json(log_ns, MERGE, record)
        self._recent = [kept for kept in self._recent if kept["start"] + kept["length"] > merged.at]
        self._recent.append({**record, "actions": chunk.actions})

    def _wire(self, log_ns: int, topic: str, frames: Sequence[Frame | None]) -> None:
        parts: list[Part | None] = [frame.buffer if isinstance(frame, zmq.Frame) else frame for frame in frames]
        if self.omits and topic == SENT:
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
