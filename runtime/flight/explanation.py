"""Explains a tick of a flight record: the observation, the chunks, the blend and the limits behind its action."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tactus.hal.spec import Feature, RobotSpec
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import ASKED, EPISODE, KEYFRAME, MERGE, RECEIVED, SAID, SENT, TICK, numbers
from tactus.runtime.flight.queue_replay import Playback, action_of, unlike
from tactus.runtime.flight.reader import Flight, Record, understanding
from tactus.runtime.robot_node.action_queue import ENSEMBLE_DECAY, TEMPORAL_ENSEMBLE, WEIGHTS
from tactus.runtime.wire.codec import CHUNK, ERROR, OBSERVE, Message, WireError


@dataclass
class Share:
    """A chunk that covered the tick. merge: as on /merge. prediction: for the tick. weight: in the action, binary
    dimensions aside, which take the newest."""

    merge: Mapping[str, Any]
    start: int
    prediction: np.ndarray
    weight: float = 0.0


@dataclass
class Request:
    """seq, tick: which, and when it went out. answered_ns: when the chunk arrived, 0 if it is not in the record.
    merged: as on /merge, None if it was not. error: what came instead of a chunk."""

    seq: int
    tick: int
    at: int
    log_ns: int
    answered_ns: int = 0
    merged: Mapping[str, Any] | None = None
    error: str = ""
    observation: Message | None = None


@dataclass
class Explanation:
    """One tick. shares: the chunks that covered it, in the order they were merged. requests: those behind the shares,
    and those under way at the tick, by seq. said: lines of the tick. blend: what the queue gives for it now; None where
    there is no queue, or the record does not hold what is needed."""

    flight: Flight
    robot: RobotSpec
    action: Feature
    episode: Mapping[str, Any]
    record: Mapping[str, Any]
    log_ns: int
    shares: list[Share] = field(default_factory=list)
    requests: dict[int, Request] = field(default_factory=dict)
    under_way: list[Request] = field(default_factory=list)
    said: list[Mapping[str, Any]] = field(default_factory=list)
    blend: np.ndarray | None = None

    @property
    def requested(self) -> np.ndarray:
        return numbers(self.record["requested"], self.action.dtype)

    @property
    def sent(self) -> np.ndarray | None:
        return None if self.record["sent"] is None else numbers(self.record["sent"], self.action.dtype)

    @property
    def blend_is_equal(self) -> bool:
        """Whether the blend made again is the recorded action, bit for bit."""
        return self.blend is not None and not unlike(self.requested, self.blend).any()


def _shares(merges: Sequence[Mapping[str, Any]], aggregate: str, at: int) -> list[Share]:
    """What each chunk has for the plan's tick `at`, and how much of it is in the action; in the order of merges."""
    covering = [merge for merge in merges if merge["start"] <= at < merge["start"] + len(merge["actions"])]
    shares = [Share(merge, merge["start"], merge["actions"][at - merge["start"]]) for merge in covering]
    if aggregate == TEMPORAL_ENSEMBLE:
        by_start = sorted(shares, key=lambda share: share.start)
        weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(by_start)))
        for share, weight in zip(by_start, weights / weights.sum() if by_start else [], strict=True):
            share.weight = float(weight)
        return shares
    old, new = WEIGHTS.get(aggregate, (0.0, 1.0))
    newest: int | None = None
    for index, share in enumerate(shares):
        if newest is None:
            share.weight, newest = 1.0, share.start
        elif share.start >= newest:
            for earlier in shares[:index]:
                earlier.weight *= old
            share.weight, newest = new, share.start
    return shares


def explain(flight: Flight, tick: int, episode: int | None = None) -> Explanation:
    """Of the last time that the flight's `episode` was played; not given: of its last one. Raises FlightError if there
    is no such tick in the record, or it cannot be read."""
    with understanding(flight):
        return _explain(flight, tick, episode)


def _explain(flight: Flight, tick: int, episode: int | None) -> Explanation:
    place, beginning = _find(flight, tick, episode)
    robot = RobotSpec.from_dict(flight.about["robot"])
    record = flight.records[place]
    found = Explanation(flight, robot, action_of(flight), beginning, record.data, record.log_ns)
    if flight.about.get("loop") is not None:
        playback = Playback(flight)
        popped = next(popped for popped in playback.ticks() if popped.record is record.data)
        if popped.known:
            found.shares = _shares(playback.merges, str(flight.about["loop"]["aggregate"]), record.data["at"])
            found.blend = popped.action
    for values in (found.requested, found.sent):
        if values is not None and values.shape != found.action.shape:
            raise FlightError(f"tick {tick} has {values.size} dimensions, the robot {found.action.shape}")
    requests = dict(_requests(flight.records, place))
    seqs = {share.merge["seq"] for share in found.shares}
    found.requests = {seq: request for seq, request in requests.items() if seq in seqs}
    found.under_way = [r for r in requests.values() if r.merged is None or r.merged["place"] > place]
    nearby = [flight.records[index] for index in _places_of_episode(flight.records, place)]
    found.said = [r.data for r in nearby if r.topic == SAID and (r.data["tick"] == tick or r.data["tick"] < 0)]
    return found


def _find(flight: Flight, tick: int, episode: int | None) -> tuple[int, Mapping[str, Any]]:
    """The place of its record, and the episode's beginning."""
    current: Mapping[str, Any] = {"episode": -1, "seed": 0, "task": ""}
    found: tuple[int, Mapping[str, Any]] | None = None
    ticks: dict[int, tuple[int, int]] = {}
    for place, record in enumerate(flight.records):
        data = record.data
        if record.topic == EPISODE and data.get("event") == "begin":
            current = data
        elif record.topic == KEYFRAME and data.get("episode"):
            current = data["episode"]
        elif record.topic == TICK:
            number = current["episode"]
            low, high = ticks.get(number, (data["tick"], data["tick"]))
            ticks[number] = min(low, data["tick"]), max(high, data["tick"])
            if data["tick"] == tick and episode in (None, number):
                found = place, current
    if found is None:
        known = "; ".join(f"episode {number}: ticks {low} to {high}" for number, (low, high) in ticks.items())
        which = "" if episode is None else f" of episode {episode}"
        raise FlightError(f"there is no tick {tick}{which} in the record; it has {known or 'no ticks'}")
    return found


def _places_of_episode(records: Sequence[Record], place: int) -> range:
    """The places of all records of the episode that this one is of."""
    begins = [i for i, record in enumerate(records) if record.topic == EPISODE and record.data.get("event") == "begin"]
    first = max((i for i in begins if i < place), default=0)
    return range(first, min((i for i in begins if i >= place), default=len(records)))


def _requests(records: Sequence[Record], place: int) -> Iterator[tuple[int, Request]]:
    """Of the episode, those made up to this place, with all that became of them."""
    asked: dict[int, Request] = {}
    observations: dict[int, Message] = {}
    for index in _places_of_episode(records, place):
        record = records[index]
        data = record.data
        if record.topic == SENT or record.topic == RECEIVED:
            message = _message(record)
            if message is None:
                continue
            if message.kind == OBSERVE:
                observations[message.seq] = message
            request = asked.get(message.seq)
            if request is not None and message.kind == CHUNK:
                request.answered_ns = request.answered_ns or record.log_ns
            elif request is not None and message.kind == ERROR:
                request.error = str(message.meta.get("message", ""))
        elif record.topic == ASKED and index < place:
            asked[data["seq"]] = Request(data["seq"], data["tick"], data["at"], record.log_ns)
        elif record.topic == MERGE and data["seq"] in asked and asked[data["seq"]].merged is None:
            asked[data["seq"]].merged = {**data, "place": index}
    for seq, request in asked.items():
        request.observation = observations.get(seq)
        yield seq, request


def _message(record: Record) -> Message | None:
    try:
        return record.message()
    except WireError:
        return None
