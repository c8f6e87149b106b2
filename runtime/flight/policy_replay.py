"""Replays a flight record through its policy, with the policy node's own classes, and compares the chunks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tactus.hal.spec import RobotSpec
from tactus.policies.policy import Policy
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import RECEIVED, REPEATED, SENT
from tactus.runtime.flight.queue_replay import unlike
from tactus.runtime.flight.reader import Flight, understanding
from tactus.runtime.policy_node.inference import Inference
from tactus.runtime.policy_node.robot_session import RobotSession
from tactus.runtime.wire.codec import CHUNK, OBSERVE, RESET, WELCOME, Message, WireError
from tactus.runtime.wire.handshake import mismatches


class ChunkDifference(NamedTuple):
    """seq: of the request. tick: that of the plan which the first action that differs is for. dimension: its first."""

    seq: int
    tick: int
    dimension: int
    recorded: float
    replayed: float


@dataclass
class PolicyReplay:
    """equal: chunks that are so to the bit, of `chunks` that were asked for again. failed: those of them that cannot be
    compared; why the first one cannot stands in notes. largest: difference of any action. unasked: recorded chunks
    whose request is not in the record, or not whole. notes: what else was found.
    """

    chunks: int = 0
    equal: int = 0
    unasked: int = 0
    failed: int = 0
    largest: float = 0.0
    first: ChunkDifference | None = None
    notes: list[str] = field(default_factory=list)


def replay_policy(flight: Flight, policy: Policy, allow: Collection[str] = ()) -> PolicyReplay:
    """Feed it the recorded episodes and observations, and compare every chunk with the one recorded.

    Only requests that were answered are asked again, in the order they were sent. allow: of
    tactus.runtime.wire.handshake.ALLOWANCES. Raises FlightError if the policy cannot drive the recorded robot.
    """
    try:
        reasons = mismatches(RobotSpec.from_dict(flight.about["robot"]), policy.spec, allow)
    except (KeyError, TypeError, ValueError) as error:
        raise FlightError(f"{flight.files[0]}: /about does not say what the robot is: {error!r}") from error
    if reasons:
        raise FlightError("this policy cannot drive the recorded robot:\n" + "\n".join(f"  - {r}" for r in reasons))
    found = PolicyReplay()
    asker = _Asker(policy, allow, found)
    with understanding(flight):
        for message, answer in _of_this_policy(_conversation(flight, found), policy.spec.name, found):
            asker.take(message, answer)
    return found


def _conversation(flight: Flight, found: PolicyReplay) -> list[tuple[Message, Message | None]]:
    """What a policy node acts on, and its welcomes, in order; an OBSERVE with its answer, and only if it has one."""
    sent: list[Message] = []
    asked: dict[int, int] = {}
    answers: dict[int, Message] = {}
    answered: set[int] = set()
    omitted = 0
    repeated: list[Message] = []
    for record in flight.records:
        if record.topic not in (SENT, RECEIVED, REPEATED):
            continue
        try:
            message = record.message()
        except WireError as error:
            found.notes.append(f"a message on {record.topic} cannot be read: {error}")
            continue
        if message is None:
            omitted += 1
        elif record.topic == RECEIVED and message.kind == CHUNK:
            place = asked.pop(message.seq, None)
            if place is not None:
                answers[place] = message
                answered.add(message.seq)
            elif message.seq not in answered:
                found.unasked += 1
        elif record.topic == REPEATED and record.file == 0 and message.kind in (WELCOME, RESET):
            repeated.append(message)
        elif record.topic == RECEIVED and message.kind == WELCOME:
            sent.append(message)
        elif record.topic == SENT and message.kind in (RESET, OBSERVE):
            if message.kind == OBSERVE and message.seq not in answered:
                asked[message.seq] = len(sent)  # one that was sent twice was answered after the second time
            sent.append(message)
    if omitted:
        found.notes.append(f"{omitted} messages were recorded without their pictures, and cannot be asked again")
    if repeated:
        found.notes.append(
            "the first episode began before this file: a policy that remembers, or draws noise, differs in it"
        )
    whole = [(message, answers.get(place)) for place, message in enumerate(sent)]
    return [(m, None) for m in repeated] + [(m, a) for m, a in whole if m.kind != OBSERVE or a is not None]


def _of_this_policy(
    conversation: list[tuple[Message, Message | None]], name: str, found: PolicyReplay
) -> list[tuple[Message, Message | None]]:
    """Where several policies drove in turn and this is one of them, without what was asked of the others."""
    drivers = {str(answer.meta.get("policy", "")) for _, answer in conversation if answer is not None}
    others = {driver for driver in drivers if driver.rpartition("@")[0] != name}
    if len(drivers) < 2 or others == drivers:
        return conversation
    kept = [one for one in conversation if one[1] is None or str(one[1].meta.get("policy", "")) not in others]
    found.notes.append(
        f"{len(conversation) - len(kept)} chunks are of {', '.join(sorted(others)):.200}, and were not asked for"
    )
    return kept


class _Asker:
    """A policy node's side of the conversation."""

    def __init__(self, policy: Policy, allow: Collection[str], found: PolicyReplay) -> None:
        self._inference = Inference(policy, frozenset(allow))
        self._takes_prefix = policy.spec.takes_prefix
        self._found = found
        self._peer: RobotSession | None = None
        self._node: object = None
        self._asked = False

    def take(self, message: Message, answer: Message | None) -> None:
        peer = self._peer
        if peer is None:
            self._peer = peer = RobotSession(message.session)
        if message.kind == WELCOME:
            node, self._node = self._node, message.meta.get("node")
            if self._asked and (node != self._node or message.meta.get("known") is not True):
                # a policy node that was started again knows nothing of what was before
                self._inference.end(peer.session)
                self._peer, self._asked = RobotSession(message.session), False
        if message.kind == RESET:
            peer.begin(message)
        elif message.kind == OBSERVE and answer is not None:
            self._observe(peer, message, answer)

    def _observe(self, peer: RobotSession, message: Message, answer: Message) -> None:
        found = self._found
        found.chunks += 1
        self._asked = True
        reason = peer.unusable(message) or self._inference.unusable(message.arrays)
        if reason:
            self._fail(f"request {message.seq} is refused now: {reason}")
            return
        peer.waiting = message
        message, ask = peer.take()
        ((chunk, error, opened),) = self._inference.answer([ask])
        if not opened and peer.reset is None:
            peer.reset = ask.reset
        if chunk is None:
            self._fail(f"request {message.seq}: the policy reports {error}")
            return
        if self._takes_prefix:
            peer.keep(message.seq, chunk)
        self._compare(message.seq, chunk.start, chunk.actions, answer)

    def _fail(self, reason: str) -> None:
        if not self._found.failed:
            self._found.notes.append(reason)
        self._found.failed += 1

    def _compare(self, seq: int, start: int, actions: np.ndarray, answer: Message) -> None:
        found = self._found
        recorded = answer.arrays.get("action")
        if recorded is None or recorded.shape != actions.shape or recorded.dtype != actions.dtype:
            what = "none" if recorded is None else f"{recorded.dtype}{list(recorded.shape)}"
            self._fail(f"request {seq}: the recorded chunk is {what}, now {actions.dtype}{list(actions.shape)}")
            return
        different = unlike(recorded, actions)
        if not different.any() and start == answer.tick:
            found.equal += 1
            return
        apart = np.abs(recorded.astype(np.float64) - actions.astype(np.float64))
        found.largest = max(found.largest, float(np.nan_to_num(apart, nan=np.inf).max()))
        if found.first is None:
            row, column = (int(i) for i in np.argwhere(different)[0][:2]) if different.any() else (0, 0)
            values = float(recorded[row, column]), float(actions[row, column])
            found.first = ChunkDifference(seq, answer.tick + row, column, *values)
