"""What happens when a message arrives at the policy node.

    HELLO      the specs are compared, a session is opened      → WELCOME, or REFUSE with the reasons
    RESET      the session's next episode begins; what waited is dropped
    OBSERVE    it is checked and waits for the policy           → CHUNK or ERROR, from the node (node.py)
    PING       a sign of life, and the time                     → PONG
    STOP       from anybody: passed on to every robot           → STOP, with how many robots that is
    STOPPED    a robot has heard it: passed on to the sender of the STOP
    WEIGHTS    from a learner, where one is let: new weights   → ACCEPTED, or REFUSE with the reasons
    SWAP       from an operator, where one is let: a policy  → ACCEPTED twice, when it is being loaded and when it
               in the place of the one that answers           answers (node.py), or REFUSE with the reasons
    BYE        the session is over

No thread and no clock of its own: the node hands messages over, and takes the `waiting` observations to the policy.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import zmq

from tactus.hal.spec import RobotSpec
from tactus.runtime.policy_node.access import AccessControl
from tactus.runtime.policy_node.limits import LimitsConfig
from tactus.runtime.policy_node.robot_session import RobotSession
from tactus.runtime.policy_node.served_policy import ServedPolicy
from tactus.runtime.policy_node.session_table import SessionTable
from tactus.runtime.policy_node.swap import SwapOrder
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message, WireError, shown
from tactus.runtime.wire.config import JPEG, RAW
from tactus.runtime.wire.handshake import mismatches, notes
from tactus.runtime.wire.shared_arrays import MEMORY, SharedReader, Unavailable
from tactus.runtime.wire.weights import Intake

log = logging.getLogger("tactus.policy_node")

IMAGES = (RAW, JPEG)
"""How pictures may come."""
MAX_REASON = 200
"""Characters of a STOP's reason."""


@dataclass
class Counters:
    """What the node has seen since it started.

    messages: given to the decoder. requests: observations among them. chunks, errors: answers. superseded: observations
    that a newer one replaced before they were answered. repeated: heard before, or too late. rejected: not ours, not
    whole, or not usable. limited: dropped unread, over the rate. unauthorized: dropped unread, from a key that is
    listed no more or another's session. refused: handshakes of specs that do not fit, or over a limit. undelivered:
    answers whose robot was gone or did not read. ended: sessions that ended without a goodbye. updates: of the weights.
    swaps: of the policy.
    """

    messages: int = 0
    requests: int = 0
    chunks: int = 0
    errors: int = 0
    superseded: int = 0
    repeated: int = 0
    rejected: int = 0
    limited: int = 0
    unauthorized: int = 0
    refused: int = 0
    undelivered: int = 0
    ended: int = 0
    updates: int = 0
    swaps: int = 0


class Send(Protocol):
    """Sends a message to a routing id; False if no robot is connected under it. count: a failure as undelivered."""

    def __call__(self, peer_id: bytes, message: Message, count: bool = True) -> bool: ...


class Update(NamedTuple):
    """New weights, whole, and whom to tell when they are in force."""

    peer_id: bytes
    seq: int
    version: int
    weights: dict[str, np.ndarray]


class MessageHandler:
    """served: the policy that a new session is answered by. waiting: sessions with an observation, the longest waiting
    first. ended: sessions that a policy may forget. updates: weights that it is to take. swaps: orders for another."""

    def __init__(
        self,
        served: ServedPolicy,
        access: AccessControl,
        limits: LimitsConfig,
        allow: Collection[str],
        counters: Counters,
        send: Send,
    ) -> None:
        self.served = served
        self._access = access
        self._max_bytes = limits.max_bytes
        self._allow = allow
        self._counters = counters
        self._send = send
        self._id = uuid.uuid4().hex
        self.peers = SessionTable(limits, self._is_connected)
        self.waiting: dict[bytes, RobotSession] = {}
        self.ended: list[tuple[str, ServedPolicy]] = []
        self.updates: list[Update] = []
        self.swaps: list[SwapOrder] = []
        self.swaps_from: str | None = None
        self._weights_from: str | None = None
        self._intake = Intake({})

    def take_weights(self, weights_from: str, layout: Mapping[str, Sequence[int]]) -> None:
        """From now on, new weights of this layout are taken from the owner of this key, or from anybody."""
        self._weights_from, self._intake = weights_from, Intake(layout)

    def admits(self, peer_id: bytes, identity: zmq.Frame) -> bool:
        """Whether a message may be read: its key is listed, the session is its own, and it is not over the rate."""
        peer, now_s = self.peers.get(peer_id), time.monotonic()
        owner = self._access.owner(identity)
        if owner is None or (peer is not None and owner != peer.owner):
            self._counters.unauthorized += 1
            return False
        if not self.peers.allows(peer_id, now_s):
            self._counters.limited += 1
            return False
        if peer is not None:
            peer.heard_s = now_s
        return True

    def handle(self, peer_id: bytes, identity: zmq.Frame, message: Message) -> None:
        """Do what a message asks for. Raises WireError if it asks for nothing that can be done."""
        peer = self.peers.get(peer_id)
        if message.kind == codec.HELLO:
            self._hello(peer_id, identity, message)
        elif message.kind == codec.STOP:
            self._stop(peer_id, message)
        elif message.kind == codec.WEIGHTS:
            self._weights(peer_id, identity, message)
        elif message.kind == codec.SWAP:
            self._swap(peer_id, identity, message)
        elif message.kind not in (codec.RESET, codec.OBSERVE, codec.PING, codec.STOPPED, codec.BYE):
            raise WireError("kind", f"{message.kind} is not for a policy node")
        elif peer is None:
            if message.kind != codec.BYE:
                self._send(peer_id, error_about(message, "unknown_session", "say HELLO first"))
        elif message.kind == codec.RESET:
            self._reset(peer_id, peer, message)
        elif message.kind == codec.OBSERVE:
            self._observe(peer_id, peer, message)
        elif message.kind == codec.PING:
            self._ping(peer_id, peer, message)
        elif message.kind == codec.STOPPED:
            self._stopped(message)
        else:
            self._end(peer_id, peer)

    def _hello(self, peer_id: bytes, identity: zmq.Frame, message: Message) -> None:
        try:
            robot = RobotSpec.from_dict(message.meta["robot"])
            peer = self.peers.get(peer_id)
            served = self.served if peer is None else served_by(peer)
            reasons = mismatches(robot, served.spec, self._allow)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WireError("spec", f"the robot's spec cannot be read: {error!r:.200}") from error
        if message.session.encode() != peer_id:  # two robots under one name would share the policy's memory
            raise WireError("session", "a robot's session must be its socket's routing id")
        images = message.meta.get("images", RAW)
        if images not in IMAGES:
            reasons.append(f"images: the robot would send {shown(images)}; this policy node takes {', '.join(IMAGES)}")
        owner = self._access.owner(identity) or b""
        if peer is None and not reasons:
            reasons = self._no_room(robot, owner)
        if reasons:
            self._counters.refused += 1
            log.warning("refused %s: %s", robot.name, "; ".join(reasons), extra={"session": message.session})
            self._send(peer_id, Message(codec.REFUSE, message.session, meta={"reasons": reasons}))
            return
        known = peer is not None
        if peer is None:
            whose = f", key {self._access.name(owner)}" if owner else ""
            about = {"session": message.session}
            log.info("robot %s, session %s%s", robot.name, message.session, whose, extra=about)
            for note in notes(robot, served.spec):
                log.warning("note: %s", note, extra=about)
            peer = self.peers.add(peer_id, message.session, owner, time.monotonic())
        peer.served, peer.robot, peer.action = served, robot, robot.action
        peer.fps = robot.fps if message.meta.get("real_time") is True else None
        peer.images = images
        peer.takes_swaps = message.meta.get("swap") is True
        answer = {MEMORY: self._share(peer, message.meta[MEMORY])} if MEMORY in message.meta else {}
        self._welcome(peer_id, peer, known, answer)

    def _welcome(self, peer_id: bytes, peer: RobotSession, known: bool, memory: Mapping[str, Any]) -> None:
        meta = {"policy": served_by(peer).spec.to_dict(), "node": self._id, "known": known, "images": list(IMAGES)}
        self._send(peer_id, Message(codec.WELCOME, peer.session, meta={**meta, **memory}))

    def swap(self, peer_id: bytes, peer: RobotSession, served: ServedPolicy) -> None:
        """Another policy answers a robot from now on, which is told."""
        peer.swap(served)
        self._welcome(peer_id, peer, True, {} if peer.memory is None else {MEMORY: peer.memory.answer})

    def _share(self, peer: RobotSession, announcement: object) -> dict[str, str]:
        """Open the memory that a robot announces, unless this is it; the answer for WELCOME."""
        if peer.memory is None or peer.memory.announcement != announcement:
            peer.close()
            try:
                peer.memory = SharedReader(announcement)
            except Unavailable as error:
                return {"reason": str(error)}
        return peer.memory.answer

    def _no_room(self, robot: RobotSpec, owner: bytes) -> list[str]:
        """Why one more robot cannot be served; looks first for those that are gone."""
        spec = self.served.spec
        history = len(spec.observation_offsets)
        needed = sum(robot.observations[name].nbytes for name in spec.inputs) * history
        if needed + codec.MAX_HEADER_BYTES > self._max_bytes:
            limit = f"limits.message_mb is {self._max_bytes / 1e6:g}"
            return [f"observations: one takes {needed / 1e6:.1f} MB and {limit}; raise it on the policy node"]
        if self.peers.full(owner):
            for peer_id in self.peers.unreachable():
                self._end(peer_id, self.peers[peer_id], "its connection is gone")
        full = self.peers.full(owner)
        return [full] if full else []

    def _reset(self, peer_id: bytes, peer: RobotSession, message: Message) -> None:
        if peer.begin(message):
            self.waiting.pop(peer_id, None)
        else:
            self._counters.repeated += 1

    def _observe(self, peer_id: bytes, peer: RobotSession, message: Message) -> None:
        self._counters.requests += 1
        try:
            reason = peer.unusable(message) or served_by(peer).inference.unusable(peer.outlines(message))
        except WireError as error:
            reason = str(error)
        if reason:
            self._counters.rejected += 1
            self._send(peer_id, error_about(message, "observation", reason))
        elif peer.missed_reset(message):
            self._send(peer_id, error_about(message, "unknown_episode", "an observation whose RESET has not come"))
        elif peer.is_late(message):
            self._counters.repeated += 1
            if message.seq == peer.answered and peer.reply is not None:
                self._send(peer_id, peer.reply)
        else:
            self._counters.superseded += peer.waiting is not None
            peer.wait(message, time.monotonic_ns())
            self.waiting[peer_id] = peer

    def _ping(self, peer_id: bytes, peer: RobotSession, message: Message) -> None:
        """A sign of life, the time here, and which of the robot's observations have come and been answered."""
        sent_ns = message.meta.get("sent_ns", 0)
        if type(sent_ns) is not int:
            raise WireError("header", "PING needs an integer sent_ns")
        times = {"ping_ns": sent_ns, "pong_ns": time.monotonic_ns()}
        meta = {**times, "received": peer.received, "answered": peer.answered}
        self._send(peer_id, Message(codec.PONG, message.session, meta=meta))

    def _stop(self, peer_id: bytes, message: Message) -> None:
        """A STOP, with or without a session: to every robot, and how many that is back to its sender."""
        reason = message.meta.get("reason")
        if type(reason) is not str or not 0 < len(reason) <= MAX_REASON or not reason.isprintable():
            raise WireError("header", f"STOP needs a reason, a printable text of 1 to {MAX_REASON} characters")
        log.warning("STOP for %d robots: %s", len(self.peers), reason)
        for robot_id, peer in self.peers.items():
            self._send(robot_id, Message(codec.STOP, peer.session, meta={"reason": reason, "by": peer_id.hex()}))
        self._send(peer_id, Message(codec.STOP, meta={"robots": len(self.peers)}))

    def _weights(self, peer_id: bytes, identity: zmq.Frame, message: Message) -> None:
        """A part of new weights: kept until all are there, refused from whoever is not to send any."""
        owner = self._access.owner(identity) or b""
        if self._weights_from is None or (owner and self._access.name(owner) != self._weights_from):
            self._counters.refused += 1
            who = f"key {self._access.name(owner)}" if owner else "anybody"
            log.warning("refused new weights from %s", who)
            reason = f"no new weights are taken from {who}: weights_from is {self._weights_from or 'not given'}"
            self._send(peer_id, Message(codec.REFUSE, meta={"reasons": [reason]}))
            return
        try:
            whole = self._intake.take(message)
        except ValueError as error:
            self._counters.rejected += 1
            self._send(peer_id, Message(codec.REFUSE, meta={"reasons": [str(error)]}))
            return
        if whole is not None:
            self.updates.append(Update(peer_id, message.seq, message.meta["version"], whole))
        else:
            accepted = {"version": message.meta["version"]}
            self._send(peer_id, Message(codec.ACCEPTED, seq=message.seq, meta=accepted))

    def _swap(self, peer_id: bytes, identity: zmq.Frame, message: Message) -> None:
        """An order for another policy: kept for the node, refused from whoever is not to give any."""
        owner = self._access.owner(identity) or b""
        policy, robot = message.meta.get("policy"), message.meta.get("robot", "")
        if self.swaps_from is None or (owner and self._access.name(owner) != self.swaps_from):
            self._counters.refused += 1
            who = f"key {self._access.name(owner)}" if owner else "anybody"
            log.warning("refused a swap from %s", who)
            reason = f"no other policy is taken from {who}: swaps_from is {self.swaps_from or 'not given'}"
            self._send(peer_id, Message(codec.REFUSE, meta={"reasons": [reason]}))
        elif not isinstance(policy, Mapping) or type(robot) is not str:
            raise WireError("header", "SWAP needs the policy's keys, and a robot or none")
        else:
            self.swaps.append(SwapOrder(peer_id, message.seq, policy, robot))

    def _stopped(self, message: Message) -> None:
        """A robot has heard a STOP: tell its sender."""
        try:
            by = bytes.fromhex(message.meta["by"])
        except (KeyError, TypeError, ValueError) as error:
            raise WireError("header", "STOPPED must say who it answers") from error
        self._send(by, Message(codec.STOPPED, message.session))

    def _end(self, peer_id: bytes, peer: RobotSession, reason: str = "") -> None:
        """A session is over, after a goodbye or for a reason."""
        if reason:
            self._counters.ended += 1
            log.warning("session %s has ended: %s", peer.session, reason, extra={"session": peer.session})
        self.peers.remove(peer_id)
        self.waiting.pop(peer_id, None)
        peer.close()
        self.ended.append((peer.session, served_by(peer)))

    def end_sessions(self) -> None:
        """End those of robots that went without a BYE, or whose keys are not listed any more."""
        now_s = time.monotonic()
        if not self.peers.due(now_s):
            return
        self._access.refresh()
        for peer_id, reason in self.peers.over(now_s, self._access.allows):
            self._end(peer_id, self.peers[peer_id], reason)

    def _is_connected(self, peer_id: bytes) -> bool:
        """By sending a PONG that was not asked for."""
        peer = self.peers[peer_id]
        return self._send(peer_id, Message(codec.PONG, peer.session), count=False)


def served_by(peer: RobotSession) -> ServedPolicy:
    """Whose answers an open session gets."""
    assert peer.served is not None, "a session is opened by HELLO"
    return peer.served


def error_about(about: Message, code: str, text: str) -> Message:
    """The ERROR that answers a message."""
    return Message(codec.ERROR, about.session, about.seq, about.tick, meta={"code": code, "message": text})
