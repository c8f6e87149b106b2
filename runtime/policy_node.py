"""Serves one policy to any number of robots over one ROUTER socket.

The thread that infers also owns the socket, so that a quick policy answers without a thread switch on the way
(two switches cost more than the rest of the round trip). When the policy thinks for longer, a stand-in takes
the socket over until it is done, and handshakes and pings are answered meanwhile:

    serving   receive | infer · · · · · · · · · · · · · | send, receive …
    stand-in           ... STAND_IN_AFTER_S | receive   |                   one of them holds the lock

Everything that comes in is checked before the policy sees it. Per session only the newest observation waits.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import zmq

from hal.spec import RobotSpec
from policies.policy import Policy
from runtime import wire
from runtime.batching import Batching
from runtime.gate import Gate, Refusals
from runtime.handshake import mismatches
from runtime.inference import Ask, Inference
from runtime.keys import ServerKeys, is_local
from runtime.limits import RECEIVE_HWM, SEND_HWM, TURN, LimitsConfig
from runtime.peer import Peer
from runtime.peers import Peers
from runtime.wire import Message, WireError

log = logging.getLogger("tactus.policy_node")

T = TypeVar("T")
STAND_IN_AFTER_S = 0.01
MAX_REASON = 200
RECEIVE_MS = 200
HANDSHAKE_MS = 5000
GONE_MS = 10_000
"""A connection on which nothing has been acknowledged for so long is closed; quiet ones are sent signs of life."""
BATCH_WAIT_MS = 10.0


class BindError(RuntimeError):
    """The address cannot be used; the message says why and what to do."""


class _Job(NamedTuple):
    """A peer's observation, taken for inference while the lock was held."""

    peer_id: bytes
    peer: Peer
    received_ns: int
    message: Message
    ask: Ask


@dataclass
class Counters:
    """What the node has seen since it started.

    messages: given to the decoder. requests: observations among them. chunks, errors: answers. superseded: observations
    that a newer one replaced before they were answered. repeated: heard before, or too late. rejected: not ours, not
    whole, or not usable. limited: dropped unread, over the rate. unauthorized: dropped unread, from a key that is
    listed no more or another's session. refused: handshakes of specs that do not fit, or over a limit. undelivered:
    answers whose robot was gone or did not read. ended: sessions that ended without a goodbye.
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


class PolicyNode:
    """bind: e.g. tcp://127.0.0.1:5555, tcp://127.0.0.1:* or ipc:///path; `endpoint` is what was bound.

    allow: of runtime.handshake.ALLOWANCES. batch_wait_ms: how long an observation may wait for other robots', if its
    robot can afford it. virtual_batch: robots in virtual time that share a pass; with 1, whoever else is served
    changes no bit of an answer. details: what belongs beside a result, added to the policy's spec. trace: told of
    every answer how long it took here, in ms. keys: encrypts, and lets only listed robots in. Raises BindError if the
    address is taken, malformed, or reachable from other machines without keys or `insecure`.
    """

    def __init__(
        self,
        policy: Policy,
        bind: str,
        insecure: bool = False,
        allow: Collection[str] = (),
        batch_wait_ms: float = BATCH_WAIT_MS,
        virtual_batch: int = 1,
        details: Mapping[str, str] = MappingProxyType({}),
        trace: Callable[[float], None] = lambda latency_ms: None,
        keys: ServerKeys | None = None,
        limits: LimitsConfig = LimitsConfig(),  # noqa: B008 - frozen
    ) -> None:
        if keys is None and not insecure and not is_local(bind):
            raise BindError(
                f"{bind} can be reached from other machines and nothing protects it: give it keys (curve.key and "
                "curve.authorized; `tactus keygen` makes them), bind to tcp://127.0.0.1:PORT, or pass --insecure"
            )
        self._spec = replace(policy.spec, details={**policy.spec.details, **details})
        self._batching = Batching(policy.max_batch, batch_wait_ms / 1000, virtual_batch)
        self._allow = frozenset(allow)
        self._trace = trace
        self._inference = Inference(policy, self._allow)
        self._max_bytes = int(limits.message_mb * 1e6)
        self._id = uuid.uuid4().hex
        self.counters = Counters()
        context = zmq.Context() if keys else zmq.Context.instance()  # a ZAP handler serves a whole context
        self._context = context if keys else None
        self._router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a robot that reconnects keeps its session
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # who is gone, or does not read, is known
        self._router.setsockopt(zmq.MAXMSGSIZE, self._max_bytes)
        self._router.setsockopt(zmq.RCVTIMEO, RECEIVE_MS)
        self._router.setsockopt(zmq.RCVHWM, RECEIVE_HWM)
        self._router.setsockopt(zmq.SNDHWM, SEND_HWM)
        self._router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        # Not ZMTP's heartbeats: a peer that leaves while its queue is full makes libzmq 4.3.5 abort in their timer.
        self._router.setsockopt(zmq.TCP_MAXRT, GONE_MS)
        self._gate = Gate(context, self._router, keys)
        try:
            self._router.bind(bind)
        except zmq.ZMQError as error:
            self._close()
            hint = (
                "something else is listening there; choose another port"
                if error.errno == zmq.EADDRINUSE
                else str(error)
            )
            raise BindError(f"cannot bind {bind}: {hint}") from error
        self.endpoint: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._bell_end, self._bell_rope = _pair(context)
        self._peers = Peers(limits, self._reach)
        self._waiting: dict[bytes, Peer] = {}  # those with an observation, the longest waiting first
        self._gone: list[str] = []
        self._lock = threading.Lock()  # of the socket and of the peers
        self._thinking_since_s = 0.0
        self._stopping = False

    def run(self) -> None:
        """Serve until `stop` is called. Call it once; the policy runs in the calling thread."""
        stand_in = threading.Thread(target=self._stand_in, name="stand-in", daemon=True)
        stand_in.start()
        self._lock.acquire()
        try:
            while not self._stopping:
                self._receive(wait=not self._waiting)
                self._end_sessions()
                self._wait_for_company()
                gone, self._gone = self._gone, []
                for session in gone:
                    self._think(lambda session=session: self._inference.end(session))
                if jobs := self._next_batch():
                    self._answer(jobs)
        finally:
            self._stopping = True
            self._lock.release()
            stand_in.join()
            for socket in (self._bell_end, self._bell_rope):
                socket.close(0)
            self._close()

    def _close(self) -> None:
        self._gate.close()
        self._router.close(0)
        if self._context is not None:
            self._context.term()

    @property
    def sessions(self) -> int:
        """Robots that are served now."""
        return len(self._peers)

    @property
    def refusals(self) -> Refusals:
        """Connections that were not let in."""
        return self._gate.refusals

    def stop(self) -> None:
        """Make `run` return soon; may be called from any thread or a signal handler."""
        self._stopping = True

    def _think(self, call: Callable[[], T]) -> T:
        """Run policy code, with the socket given up while it takes its time."""
        self._thinking_since_s = time.monotonic()
        self._lock.release()
        try:
            return call()
        finally:
            self._thinking_since_s = 0.0
            if not self._lock.acquire(blocking=False):
                self._bell_rope.send(b"")
                self._lock.acquire()

    def _stand_in(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._bell_end, zmq.POLLIN)
        while not self._stopping:
            time.sleep(STAND_IN_AFTER_S)
            since_s = self._thinking_since_s
            if not since_s or time.monotonic() - since_s < STAND_IN_AFTER_S or not self._lock.acquire(blocking=False):
                continue
            try:
                while self._thinking_since_s and not self._stopping:
                    if any(socket is self._bell_end for socket, _ in poller.poll(200)):
                        self._bell_end.recv()
                    self._receive(wait=False)
            finally:
                self._lock.release()

    def _receive(self, wait: bool) -> None:
        """Take in what has arrived, TURN messages at the most; wait up to RECEIVE_MS for something if asked to."""
        for _ in range(TURN):
            if not (wait or wire.arrived(self._router)):
                return
            try:
                identity, *frames = wire.receive(self._router)
            except zmq.Again:
                return
            wait = False
            peer_id = identity.bytes
            if not self._admits(peer_id, identity):
                continue
            try:
                self.counters.messages += 1
                self._handle(peer_id, identity, wire.decode(frames, self._max_bytes))
            except WireError as error:
                self.counters.rejected += 1
                log.warning("rejected a message: %s: %s", error.code, error)
                self._send(peer_id, _error(Message(wire.ERROR), f"wire_{error.code}", str(error)))
            except Exception as error:  # whatever a message can do to this code, the other robots are still served
                self.counters.rejected += 1
                log.exception("a message could not be handled")
                self._send(peer_id, _error(Message(wire.ERROR), "internal", f"{type(error).__name__}: {error}"))

    def _admits(self, peer_id: bytes, identity: zmq.Frame) -> bool:
        """Whether a message may be read: its key is listed, the session is its own, and it is not over the rate."""
        peer, now_s = self._peers.get(peer_id), time.monotonic()
        owner = self._gate.owner(identity)
        if owner is None or (peer is not None and owner != peer.owner):
            self.counters.unauthorized += 1
            return False
        if not (self._peers.strangers if peer is None else peer.rate).allows(now_s):
            self.counters.limited += 1
            return False
        if peer is not None:
            peer.heard_s = now_s
        return True

    def _handle(self, peer_id: bytes, identity: zmq.Frame, message: Message) -> None:
        peer = self._peers.get(peer_id)
        if message.kind == wire.OBSERVE and peer is not None:
            self._observe(peer_id, peer, message)
        elif message.kind == wire.HELLO:
            self._hello(peer_id, identity, message)
        elif message.kind == wire.STOP:
            self._stop_robots(peer_id, message)
        elif message.kind not in (wire.PING, wire.RESET, wire.OBSERVE, wire.STOPPED, wire.BYE):
            raise WireError("kind", f"{message.kind} is not for a policy node")
        elif peer is None:
            if message.kind != wire.BYE:
                self._send(peer_id, _error(message, "unknown_session", "say HELLO first"))
        elif message.kind == wire.PING:
            self._pong(peer_id, peer, message)
        elif message.kind == wire.RESET:
            if peer.begin(message):
                self._waiting.pop(peer_id, None)
            else:
                self.counters.repeated += 1
        elif message.kind == wire.STOPPED:
            self._pass_on(message)
        else:
            self._end(peer_id, peer)

    def _hello(self, peer_id: bytes, identity: zmq.Frame, message: Message) -> None:
        try:
            robot = RobotSpec.from_dict(message.meta["robot"])
            reasons = mismatches(robot, self._spec, self._allow)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WireError("spec", f"the robot's spec cannot be read: {error!r:.200}") from error
        if message.session.encode() != peer_id:  # two robots under one name would share the policy's memory
            raise WireError("session", "a robot's session must be its socket's routing id")
        peer, owner = self._peers.get(peer_id), self._gate.owner(identity) or b""
        if peer is None and not reasons:
            reasons = self._no_room(robot, owner)
        if reasons:
            self.counters.refused += 1
            log.warning("refused %s: %s", robot.name, "; ".join(reasons), extra={"session": message.session})
            self._send(peer_id, Message(wire.REFUSE, message.session, meta={"reasons": reasons}))
            return
        known = peer is not None
        if peer is None:
            whose = f", key {self._gate.name(owner)}" if owner else ""
            about = {"session": message.session}
            log.info("robot %s, session %s%s", robot.name, message.session, whose, extra=about)
            peer = self._peers.add(peer_id, message.session, owner, time.monotonic())
        peer.fps = robot.fps if message.meta.get("real_time") is True else None
        meta = {"policy": self._spec.to_dict(), "node": self._id, "known": known}
        self._send(peer_id, Message(wire.WELCOME, message.session, meta=meta))

    def _no_room(self, robot: RobotSpec, owner: bytes) -> list[str]:
        """Why one more robot cannot be served; looks first for those that are gone."""
        history = len(self._spec.observation_offsets)
        needed = sum(robot.observations[name].nbytes for name in self._spec.inputs) * history
        if needed + wire.MAX_HEADER_BYTES > self._max_bytes:
            limit = f"limits.message_mb is {self._max_bytes / 1e6:g}"
            return [f"observations: one takes {needed / 1e6:.1f} MB and {limit}; raise it on the policy node"]
        if self._peers.full(owner):
            for peer_id in self._peers.unreachable():
                self._end(peer_id, self._peers[peer_id], "its connection is gone")
        full = self._peers.full(owner)
        return [full] if full else []

    def _end_sessions(self) -> None:
        """Of robots that went without a word, or may not be here any more."""
        self._gate.refresh()
        for peer_id, reason in self._peers.over(time.monotonic(), self._gate.allows):
            self._end(peer_id, self._peers[peer_id], reason)

    def _end(self, peer_id: bytes, peer: Peer, reason: str = "") -> None:
        """A session is over, after a goodbye or for a reason."""
        if reason:
            self.counters.ended += 1
            log.warning("session %s has ended: %s", peer.session, reason, extra={"session": peer.session})
        self._peers.remove(peer_id)
        self._waiting.pop(peer_id, None)
        self._gone.append(peer.session)

    def _reach(self, peer_id: bytes) -> bool:
        """Send a sign of life that nobody asked for; False if there is no connection."""
        peer = self._peers[peer_id]
        return self._send(peer_id, Message(wire.PONG, peer.session), count=False)

    def _pong(self, peer_id: bytes, peer: Peer, message: Message) -> None:
        """A sign of life, the time here, and which of the robot's observations have come and been answered."""
        sent_ns = message.meta.get("sent_ns", 0)
        if type(sent_ns) is not int:
            raise WireError("header", "PING needs an integer sent_ns")
        times = {"ping_ns": sent_ns, "pong_ns": time.monotonic_ns()}
        meta = {**times, "received": peer.received, "answered": peer.answered}
        self._send(peer_id, Message(wire.PONG, message.session, meta=meta))

    def _stop_robots(self, peer_id: bytes, message: Message) -> None:
        """A STOP, from anybody: to every robot, and how many that is back to whoever sent it."""
        reason = message.meta.get("reason")
        if type(reason) is not str or not 0 < len(reason) <= MAX_REASON or not reason.isprintable():
            raise WireError("header", f"STOP needs a reason, a printable text of 1 to {MAX_REASON} characters")
        log.warning("STOP for %d robots: %s", len(self._peers), reason)
        for robot_id, peer in self._peers.items():
            self._send(robot_id, Message(wire.STOP, peer.session, meta={"reason": reason, "by": peer_id.hex()}))
        self._send(peer_id, Message(wire.STOP, meta={"robots": len(self._peers)}))

    def _pass_on(self, message: Message) -> None:
        """A robot has heard a STOP: tell whoever sent it."""
        try:
            by = bytes.fromhex(message.meta["by"])
        except (KeyError, TypeError, ValueError) as error:
            raise WireError("header", "STOPPED must say who it answers") from error
        self._send(by, Message(wire.STOPPED, message.session))

    def _observe(self, peer_id: bytes, peer: Peer, message: Message) -> None:
        self.counters.requests += 1
        reason = peer.unusable(message) or self._inference.unusable(message.arrays)
        if reason:
            self.counters.rejected += 1
            self._send(peer_id, _error(message, "observation", reason))
        elif peer.missed_reset(message):
            self._send(peer_id, _error(message, "unknown_episode", "an observation whose RESET has not come"))
        elif peer.is_late(message):
            self.counters.repeated += 1
            if message.seq == peer.answered and peer.reply is not None:
                self._send(peer_id, peer.reply)
        else:
            self.counters.superseded += peer.waiting is not None
            peer.wait(message, time.monotonic_ns())
            self._waiting[peer_id] = peer

    def _wait_for_company(self) -> None:
        """Take in more observations until a pass is full, or somebody cannot wait any longer."""
        while self._waiting and not self._stopping:
            start_s = self._batching.start_s([peer.patience() for peer in self._waiting.values()], len(self._peers))
            left_ms = int((start_s - time.monotonic()) * 1000)
            if left_ms <= 0 or not self._router.poll(left_ms):
                return
            self._receive(wait=False)

    def _next_batch(self) -> list[_Job]:
        jobs = []
        peer_ids = list(self._waiting)
        for index in self._batching.chosen([self._waiting[peer_id].patience() for peer_id in peer_ids]):
            peer_id = peer_ids[index]
            peer = self._waiting.pop(peer_id)
            jobs.append(_Job(peer_id, peer, peer.received_ns, *peer.take()))
        return jobs

    def _answer(self, jobs: list[_Job]) -> None:
        started_ns = time.monotonic_ns()
        answers = self._think(lambda: self._inference.answer([job.ask for job in jobs]))
        spent_ms = (time.monotonic_ns() - started_ns) / 1e6
        self._batching.took(len(jobs), spent_ms / 1000)
        for job, (chunk, error, opened) in zip(jobs, answers, strict=True):
            if not opened and job.peer.reset is None:
                job.peer.reset = job.ask.reset  # the next request tries again
            if chunk is None:
                self.counters.errors += 1
                self._reply(job, _error(job.message, "policy", error))
                continue
            timings = {"infer": spent_ms, **chunk.timings_ms, "queued": (started_ns - job.received_ns) / 1e6}
            sent_ns = time.monotonic_ns()
            meta = {"timings_ms": timings, "received_ns": job.received_ns, "sent_ns": sent_ns}
            reply = Message(wire.CHUNK, job.peer.session, job.message.seq, chunk.start, {"action": chunk.actions}, meta)
            self.counters.chunks += 1
            if self._spec.takes_prefix:
                job.peer.keep(job.message.seq, chunk)
            self._reply(job, reply)
            self._trace((sent_ns - job.received_ns) / 1e6)

    def _reply(self, job: _Job, reply: Message) -> None:
        job.peer.answered, job.peer.reply = reply.seq, reply
        self._send(job.peer_id, reply)

    def _send(self, peer_id: bytes, message: Message, count: bool = True) -> bool:
        """False if nobody is connected under this id; one who does not read loses it. count: as undelivered."""
        try:
            wire.send(self._router, [peer_id, *wire.encode(message)], wire.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.counters.undelivered += count
            return error.errno == zmq.EAGAIN
        return True


def _error(about: Message, code: str, text: str) -> Message:
    return Message(wire.ERROR, about.session, about.seq, about.tick, meta={"code": code, "message": text})


def _pair(context: zmq.Context[zmq.Socket[bytes]]) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Two connected sockets, to wake a thread that polls one of them from another thread."""
    end, rope = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    name = f"inproc://tactus-{uuid.uuid4().hex}"
    end.bind(name)
    rope.connect(name)
    return end, rope
