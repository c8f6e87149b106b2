"""`tactus replay-flight FILE`: a flight record through the queue again and, with --policy.*, through the policy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy
from tactus.runtime.commands.arguments import is_given
from tactus.runtime.commands.config import ReplayFlight
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import TICK
from tactus.runtime.flight.policy_replay import PolicyReplay, replay_policy
from tactus.runtime.flight.queue_replay import QueueReplay, action_of, dimension, replay_queue
from tactus.runtime.flight.reader import Flight, read_flights
from tactus.runtime.policy_node.inference import make

EQUAL, DIFFERENT, UNUSABLE = 0, 1, 2


def main(config: ReplayFlight, arguments: list[str]) -> int:
    """The recorded chunks go through the action queue again, and every action must come out bit for bit as recorded;
    with --policy.* the recorded observations also go through that policy, and every chunk must be as recorded.

    Exit status 0 if all is equal, 1 if something differs (the first difference is printed), 2 if the file cannot be
    used.
    """
    try:
        flights = read_flights(Path(config.file))
        status = max(_queue(flight) for flight in flights)
        if is_given(arguments, "policy"):
            policy = make(config.policy)
            status = max(status, *(_policy(flight, policy, config.allow) for flight in flights))
        return status
    except (FlightError, SpecError) as error:
        print(f"tactus replay-flight: {error}", file=sys.stderr)
        return UNUSABLE


def _queue(flight: Flight) -> int:
    for note in flight.notes:
        print(note)
    if all(record.topic != TICK for record in flight.records):
        print(f"{flight.files[0].name}: no action was sent; there is nothing to replay")
        return EQUAL
    if flight.about.get("loop") is None:
        print(f"{flight.files[0].name}: no policy drove the robot; there is no queue to replay")
        return EQUAL
    found = replay_queue(flight)
    print(queue_words(flight, found))
    return DIFFERENT if found.difference else EQUAL


def _policy(flight: Flight, policy: Policy, allow: Sequence[str]) -> int:
    if flight.about.get("loop") is None:
        return EQUAL
    found = replay_policy(flight, policy, allow)
    print(policy_words(flight, found))
    return EQUAL if found.equal == found.chunks else DIFFERENT


def policy_words(flight: Flight, found: PolicyReplay) -> str:
    """What a replay of the policy found, in lines for a person."""
    name = flight.files[0].name
    lines = [f"{name}: policy: {note}" for note in found.notes]
    if found.equal == found.chunks:
        lines.append(f"{name}: policy: equal, bit for bit: {found.chunks} chunks")
    else:
        lines.append(
            f"{name}: policy: DIFFERENT: {found.equal} of {found.chunks} chunks are equal; "
            + (f"{found.failed} cannot be compared; " if found.failed else "")
            + f"the largest difference is {found.largest:g}"
        )
    if found.first is not None:
        seq, tick, index, recorded, replayed = found.first
        where = dimension(action_of(flight), index)
        lines.append(
            f"{name}: policy: first in the answer to request {seq}, for tick {tick} of the plan, {where}: "
            f"recorded {recorded!r}, replayed {replayed!r}"
        )
    if found.unasked:
        lines.append(f"{name}: policy: {found.unasked} chunks answer requests that are not in the record")
    return "\n".join(lines)


def queue_words(flight: Flight, found: QueueReplay) -> str:
    """What a replay of the queue found, in lines for a person."""
    names = f"{flight.files[0].name}" + (f" … {flight.files[-1].name}" if len(flight.files) > 1 else "")
    lines = [f"{names}: {note}" for note in found.notes]
    if found.difference is not None:
        lines.append(f"{names}: queue: DIFFERENT: {found.difference} ({found.ticks} ticks before it are equal)")
    else:
        lines.append(
            f"{names}: queue: equal, bit for bit: {found.ticks} ticks ({found.starved} starved) of "
            f"{found.episodes} episodes, {found.chunks} chunks"
        )
    if found.unknown:
        lines.append(f"{names}: {found.unknown} ticks could not be replayed: what led to them is not in the record")
    return "\n".join(lines)
