"""Replays a flight record through the action queue: the same chunks, at the same ticks, must give the same bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tactus.hal.spec import Feature, SpecError
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import EPISODE, GAP, KEYFRAME, MERGE, RECEIVED, SAID, TICK, crc32, numbers, to_array
from tactus.runtime.flight.reader import Flight, Record, understanding
from tactus.runtime.robot_node.action_queue import ActionQueue, QueueState, hold
from tactus.runtime.robot_node.watcher import PERSON
from tactus.runtime.wire.codec import CHUNK, Message


class Difference(NamedTuple):
    """The first thing that is not as recorded. dimension: its name, empty where it is not about one."""

    episode: int
    tick: int
    what: str
    dimension: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        where = f"{self.what} {self.dimension}".strip()
        return (
            f"episode {self.episode}, tick {self.tick}: {where}: recorded {self.recorded!r}, replayed {self.replayed!r}"
        )


@dataclass
class QueueReplay:
    """ticks, starved, chunks: how many were replayed and equal. unknown: ticks that could not be, since what led to
    them is not in the record. notes: what else was found."""

    ticks: int = 0
    starved: int = 0
    chunks: int = 0
    unknown: int = 0
    episodes: int = 0
    difference: Difference | None = None
    notes: list[str] = field(default_factory=list)


class Popped(NamedTuple):
    """A recorded tick, and what the queue gave for it. known: whether the queue can be believed."""

    record: Mapping[str, Any]
    episode: int
    action: np.ndarray
    starved: bool
    remaining: int
    source: int
    known: bool


def action_of(flight: Flight) -> Feature:
    """The robot's action. Raises FlightError if the record does not say."""
    try:
        return Feature.from_dict(flight.about["robot"]["action"])
    except (KeyError, TypeError, ValueError) as error:
        raise FlightError(f"{flight.files[0]}: /about does not say what the robot's actions are: {error!r}") from error


class Playback:
    """`flight`, tick by tick, through a queue of its own.

    notes: what is odd about it. chunks: merged so far. merges: those that may be in the next action, as /merge has
    them, with their `actions`, in the order they were merged.
    """

    def __init__(self, flight: Flight) -> None:
        self.notes: list[str] = []
        self.chunks = 0
        self.merges: list[Mapping[str, Any]] = []
        self._flight = flight
        self._action = action_of(flight)
        try:
            self._queue = ActionQueue(self._action, str(flight.about["loop"]["aggregate"]))
        except (KeyError, TypeError, SpecError) as error:
            raise FlightError(f"{flight.files[0]}: /about does not say how chunks were merged: {error}") from error
        self._known = False
        self._received: dict[int, list[Message]] = {}
        self._last: np.ndarray | None = None
        self._episode = -1

    def ticks(self) -> Iterator[Popped]:
        """Every recorded tick. Raises FlightError where the record is not what a recorder writes."""
        for record in self._flight.records:
            with understanding(self._flight):
                popped = self._tick(record.data) if record.topic == TICK else self._take(record)
            if popped is not None:
                yield popped

    def _take(self, record: Record) -> None:
        data = record.data
        if record.topic == RECEIVED:
            message = record.message()
            if message is not None and message.kind == CHUNK:
                self._received.setdefault(message.seq, []).append(message)
        elif record.topic == EPISODE and data["event"] == "begin":
            self._queue.clear()
            self._known, self._last, self._episode = True, None, data["episode"]
            self._received.clear()
            self.merges = []
        elif record.topic == KEYFRAME and not self._known:
            self._restore(data)
        elif record.topic == MERGE:
            self._merge(data)
        elif record.topic == SAID and data.get("by") == GAP:
            self._known = False

    def _restore(self, data: Mapping[str, Any]) -> None:
        if data["queue"] is None:
            return
        self._queue.restore(queue_state(data["queue"]))
        self._known = True
        self._last = None if data["last"] is None else to_array(data["last"])
        self._episode = -1 if data["episode"] is None else data["episode"]["episode"]
        self.merges = [{**chunk, "actions": to_array(chunk["actions"])} for chunk in data["chunks"]]

    def _merge(self, data: Mapping[str, Any]) -> None:
        if not self._known:
            return
        candidates = [message.arrays["action"] for message in self._received.get(data["seq"], [])]
        if not candidates:
            self.notes.append(f"tick {data['tick']}: chunk {data['seq']} was merged, but is not on the wire")
            self._known = False
            return
        # a request that was sent twice may have been answered twice
        actions = next((a for a in reversed(candidates) if crc32(a) == data["crc32"]), None)
        if actions is None:
            self.notes.append(f"tick {data['tick']}: chunk {data['seq']} is on the wire with other actions than merged")
            actions = candidates[-1]
        self._queue.merge(actions, data["start"], data["at"])
        self.chunks += 1
        self.merges = [merge for merge in self.merges if merge["start"] + len(merge["actions"]) > data["at"]]
        self.merges.append({**data, "actions": actions})

    def _tick(self, data: Mapping[str, Any]) -> Popped:
        at = data["at"]
        if data.get("driver") == PERSON:
            return self._by_person(data)
        action = self._queue.pop(at)
        starved = action is None
        if action is None:
            action = hold(self._last, self._action)
        left, source = self._queue.remaining(at + 1), self._queue.source(at)
        self._last = None if data["sent"] is None else numbers(data["sent"], self._action.dtype)
        return Popped(data, self._episode, action, starved, left, source, self._known)

    def _by_person(self, data: Mapping[str, Any]) -> Popped:
        """Decided without the queue, which was cleared when the person took over, handed back, or kept it after all."""
        if not data["remaining"]:
            self._queue.clear()
            self.merges = []
        self._last = None if data["sent"] is None else numbers(data["sent"], self._action.dtype)
        action = numbers(data["requested"], self._action.dtype)
        return Popped(data, self._episode, action, data["starved"], data["remaining"], data["source"], self._known)


def replay_queue(flight: Flight) -> QueueReplay:
    """Up to the first difference. Raises FlightError if the record cannot be used."""
    found = QueueReplay()
    playback = Playback(flight)
    feature = action_of(flight)
    episode: int | None = None
    for popped in playback.ticks():
        if not popped.known:
            found.unknown += 1
            continue
        found.episodes += popped.episode != episode
        episode = popped.episode
        with understanding(flight):
            found.difference = difference(popped, feature)
        if found.difference is not None:
            break
        found.ticks += 1
        found.starved += popped.starved
    found.chunks, found.notes = playback.chunks, playback.notes
    return found


def difference(popped: Popped, action: Feature) -> Difference | None:
    """Between a tick as recorded and as replayed, to the bit; any not-a-number equals any other."""
    record, tick = popped.record, popped.record["tick"]
    for what in ("starved", "remaining", "source"):
        if record[what] != getattr(popped, what):
            return Difference(popped.episode, tick, what, "", record[what], getattr(popped, what))
    # as wide as JSON's numbers, so that a digit too far right for float32 counts as well
    replayed = popped.action.astype(np.float64) if popped.action.dtype.kind == "f" else popped.action
    recorded = numbers(record["requested"], replayed.dtype.name)
    if recorded.shape != replayed.shape:
        return Difference(popped.episode, tick, "dimensions", "", recorded.size, replayed.size)
    unequal = unlike(recorded, replayed)
    if not unequal.any():
        return None
    index = int(np.argmax(unequal))
    return Difference(popped.episode, tick, "requested", dimension(action, index), recorded[index].item(),
                      replayed[index].item())  # fmt: skip


def unlike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where two arrays of one shape and dtype differ in a bit, two not-a-numbers aside."""
    bits = np.dtype(f"u{a.dtype.itemsize}")
    different = np.ascontiguousarray(a).view(bits) != np.ascontiguousarray(b).view(bits)
    return different & ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else different


def dimension(action: Feature, index: int) -> str:
    """Its name, or its number if it has none."""
    return action.names[index] if action.names else f"[{index}]"


def queue_state(data: Mapping[str, Any]) -> QueueState:
    """What a keyframe has of the queue."""
    chunks = tuple((int(chunk["start"]), to_array(chunk["actions"])) for chunk in data["chunks"])
    return QueueState(int(data["base"]), int(data["end"]), to_array(data["actions"]), to_array(data["starts"]), chunks)
