"""Serves one policy to any number of robots: a ROUTER in one thread, inference in another.

    robots ==tcp/ipc== ROUTER --newest observation per session--> inference thread
                         ^------------- chunks, errors (inproc) -----------'

The I/O thread answers handshakes and pings while the policy thinks, and checks everything that comes in. The
inference thread is the only one that touches the policy. Per session only the newest observation waits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from hal.spec import Chunk, Observation, PolicySpec, RobotSpec, SpecError
from policies.policy import Policy, Request, Session
from runtime import wire
from runtime.handshake import mismatches
from runtime.wire import Message, WireError

log = logging.getLogger("tactus.policy_node")

LOOPBACK = ("127.", "localhost", "[::1]")
OUTBOX = "inproc://tactus-outbox-{}"


class BindError(RuntimeError):
    """The address cannot be used; the message says why and what to do."""


@dataclass
class _Peer:
    """One robot. Lives in the I/O thread; `waiting` and `reset` are handed over under the node's lock."""

    session: str
    reset: Session | None = None
    opened: bool = False
    waiting: tuple[Message, int] | None = None


@dataclass
class Counters:
    """What the node has seen since it started."""

    requests: int = 0
    chunks: int = 0
    errors: int = 0
    superseded: int = 0
    rejected: int = 0


class PolicyNode:
    """bind: e.g. tcp://127.0.0.1:5555, tcp://127.0.0.1:* or ipc:///path; `endpoint` is what was bound.

    Raises BindError if the address is taken, malformed, or reachable from other machines without `insecure`.
    """

    def __init__(self, policy: Policy, bind: str, insecure: bool = False) -> None:
        if not insecure and not _is_local(bind):
            raise BindError(
                f"{bind} can be reached from other machines and nothing protects it: "
                "bind to tcp://127.0.0.1:PORT, or pass --insecure to accept that"
            )
        self._policy = policy
        self._spec: PolicySpec = policy.spec
        self.counters = Counters()
        context = zmq.Context.instance()
        self._router: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a robot that reconnects keeps its session
        self._router.setsockopt(zmq.MAXMSGSIZE, wire.MAX_BYTES)
        self._router.setsockopt(zmq.RCVHWM, 64)
        self._router.setsockopt(zmq.SNDHWM, 64)
        try:
            self._router.bind(bind)
        except zmq.ZMQError as error:
            self._router.close()
            hint = "something else is listening there; choose another port" if error.errno == zmq.EADDRINUSE else str(error)
            raise BindError(f"cannot bind {bind}: {hint}") from error
        self.endpoint: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        name = OUTBOX.format(id(self))
        self._outbox_in: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._outbox_in.bind(name)
        self._outbox_out: zmq.Socket[bytes] = context.socket(zmq.PAIR)
        self._outbox_out.connect(name)
        self._peers: dict[bytes, _Peer] = {}
        self._gone: list[str] = []
        self._work = threading.Condition()
        self._stopping = False

    def run(self) -> None:
        """Serve until `stop` is called. Call it once."""
        thinker = threading.Thread(target=self._think, name="inference", daemon=True)
        thinker.start()
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._outbox_in, zmq.POLLIN)
        try:
            while not self._stopping:
                for socket, _ in poller.poll(200):
                    if socket is self._router:
                        self._receive()
                    else:
                        self._router.send_multipart(self._outbox_in.recv_multipart(copy=False), copy=False)
        finally:
            self.stop()
            thinker.join(timeout=2)
            self._router.close()
            self._outbox_in.close(0)

    def stop(self) -> None:
        """Make `run` return soon; may be called from any thread or a signal handler."""
        self._stopping = True

    # I/O thread

    def _receive(self) -> None:
        identity, *frames = self._router.recv_multipart(copy=False)
        peer_id = identity.bytes
        try:
            message = wire.decode(frames)
            self._handle(peer_id, message)
        except WireError as error:
            self.counters.rejected += 1
            log.warning("rejected a message: %s: %s", error.code, error)
            self._reply(peer_id, _error(Message(wire.ERROR), f"wire_{error.code}", str(error)))

    def _handle(self, peer_id: bytes, message: Message) -> None:
        peer = self._peers.get(peer_id)
        if message.kind == wire.PING:
            if peer is None:
                self._reply(peer_id, _error(message, "unknown_session", "say HELLO first"))
            else:
                times = {"ping_ns": message.meta.get("sent_ns", 0), "pong_ns": time.monotonic_ns()}
                self._reply(peer_id, Message(wire.PONG, message.session, meta=times))
        elif message.kind == wire.HELLO:
            self._hello(peer_id, message)
        elif message.kind not in (wire.RESET, wire.OBSERVE, wire.BYE):
            raise WireError("kind", f"{message.kind} is not for a policy node")
        elif peer is None:
            if message.kind != wire.BYE:
                self._reply(peer_id, _error(message, "unknown_session", "say HELLO first"))
        elif message.kind == wire.RESET:
            self._reset(peer, message)
        elif message.kind == wire.OBSERVE:
            self._observe(peer_id, peer, message)
        else:
            self._bye(peer_id, peer)

    def _hello(self, peer_id: bytes, message: Message) -> None:
        try:
            robot = RobotSpec.from_dict(message.meta["robot"])
            reasons = mismatches(robot, self._spec)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WireError("spec", f"the robot's spec cannot be read: {error!r:.200}") from error
        if reasons:
            log.warning("refused %s: %s", robot.name, "; ".join(reasons))
            self._reply(peer_id, Message(wire.REFUSE, message.session, meta={"reasons": reasons}))
            return
        if peer_id not in self._peers:
            log.info("robot %s, session %s", robot.name, message.session)
            self._peers[peer_id] = _Peer(message.session)
        self._reply(peer_id, Message(wire.WELCOME, message.session, meta={"policy": self._spec.to_dict()}))

    def _reset(self, peer: _Peer, message: Message) -> None:
        seed, task = message.meta.get("seed"), message.meta.get("task")
        if not isinstance(seed, int) or not isinstance(task, str):
            raise WireError("header", "RESET needs an integer seed and a task text")
        with self._work:
            peer.reset, peer.waiting = Session(peer.session, seed, task), None

    def _observe(self, peer_id: bytes, peer: _Peer, message: Message) -> None:
        self.counters.requests += 1
        reason = self._unusable(message, peer)
        if reason:
            self.counters.rejected += 1
            self._reply(peer_id, _error(message, "observation", reason))
            return
        with self._work:
            self.counters.superseded += peer.waiting is not None
            peer.waiting = (message, time.monotonic_ns())
            self._work.notify()

    def _unusable(self, message: Message, peer: _Peer) -> str:
        """Why this observation cannot be given to the policy; empty if it can."""
        if peer.reset is None and not peer.opened:
            return "an observation before the first RESET"
        history = len(self._spec.observation_offsets)
        lead = (history,) if history > 1 else ()
        for name, feature in self._spec.inputs.items():
            array = message.arrays.get(name)
            shape = (*lead, *feature.shape)
            if array is None:
                return f"{name} is missing; found {', '.join(message.arrays) or 'nothing'}"
            if array.shape != shape or array.dtype.name != feature.dtype:
                return f"{name}: found {array.dtype}{list(array.shape)}, expected {feature.dtype}{list(shape)}"
        return ""

    def _bye(self, peer_id: bytes, peer: _Peer) -> None:
        del self._peers[peer_id]
        with self._work:
            self._gone.append(peer.session)
            self._work.notify()

    def _reply(self, peer_id: bytes, message: Message) -> None:
        self._router.send_multipart([peer_id, *wire.encode(message)], copy=False)

    # inference thread

    def _think(self) -> None:
        while not self._stopping:
            batch, gone = self._next_batch()
            for session in gone:
                self._guarded(lambda session=session: self._policy.end(session))
            if batch:
                self._answer(batch)
        self._outbox_out.close(0)

    def _next_batch(self) -> tuple[list[tuple[bytes, _Peer, Session | None, Message, int]], list[str]]:
        """Up to max_batch sessions with an observation waiting, the longest waiting first."""
        with self._work:
            ready = self._ready()
            if not ready and not self._gone:
                self._work.wait(0.2)
                ready = self._ready()
            gone, self._gone = self._gone, []
            batch = []
            for peer_id, peer in ready[: self._policy.max_batch]:
                assert peer.waiting is not None
                message, received_ns = peer.waiting
                batch.append((peer_id, peer, peer.reset, message, received_ns))
                peer.opened = peer.opened or peer.reset is not None
                peer.waiting = peer.reset = None
            return batch, gone

    def _ready(self) -> list[tuple[bytes, _Peer]]:
        peers = [(peer_id, peer) for peer_id, peer in list(self._peers.items()) if peer.waiting is not None]
        return sorted(peers, key=lambda item: item[1].waiting[1] if item[1].waiting else 0)

    def _answer(self, batch: list[tuple[bytes, _Peer, Session | None, Message, int]]) -> None:
        requests, asked = [], []
        for peer_id, peer, session, message, received_ns in batch:
            if session is not None:
                failure = self._guarded(lambda session=session: self._policy.reset(session))
                if failure:
                    self._send(peer_id, _error(message, "policy", failure))
                    peer.reset = peer.reset or session  # the next request tries again
                    continue
            meta = message.meta
            observation = Observation(message.arrays, meta.get("stamps_ns", {}), message.tick, str(meta.get("task", "")))
            requests.append(Request(peer.session, observation, int(meta.get("ticks_left", 0))))
            asked.append((peer_id, message, received_ns))
        if not requests:
            return
        started_ns = time.monotonic_ns()
        chunks: list[Chunk] = []

        def infer() -> None:
            chunks.extend(self._policy.infer(requests))
            if len(chunks) != len(requests):
                raise SpecError(f"{len(chunks)} chunks for {len(requests)} requests")

        failure = self._guarded(infer)
        spent_ms = (time.monotonic_ns() - started_ns) / 1e6
        for index, (peer_id, message, received_ns) in enumerate(asked):
            wrong = failure or self._wrong(chunks[index], message.tick)
            if wrong:
                self.counters.errors += 1
                self._send(peer_id, _error(message, "policy", wrong))
                continue
            chunk = chunks[index]
            timings = {"infer": spent_ms, **chunk.timings_ms, "queued": (started_ns - received_ns) / 1e6}
            meta = {"timings_ms": timings, "received_ns": received_ns, "sent_ns": time.monotonic_ns()}
            arrays = {"action": chunk.actions}
            self.counters.chunks += 1
            self._send(peer_id, Message(wire.CHUNK, message.session, message.seq, chunk.start, arrays, meta))

    def _wrong(self, chunk: Chunk, tick: int) -> str:
        """Why this chunk must not reach a robot; empty if it may."""
        shape = (self._spec.horizon, *self._spec.action.shape)
        actions = chunk.actions
        if actions.shape != shape or actions.dtype != np.dtype(self._spec.action.dtype):
            return f"chunk is {actions.dtype}{list(actions.shape)}, expected {self._spec.action.dtype}{list(shape)}"
        if not np.isfinite(actions).all():
            bad = np.argwhere(~np.isfinite(actions))[0]
            return f"chunk has {actions[tuple(bad)]} at action {bad[0]}, dimension {bad[1:].tolist()}"
        if chunk.start != tick:
            return f"chunk starts at tick {chunk.start}, the observation was for tick {tick}"
        return ""

    def _guarded(self, call: Callable[[], Any]) -> str:
        """Run policy code: whatever it raises becomes words for the robot, and the node lives on."""
        try:
            call()
        except Exception as error:
            log.exception("the policy raised")
            return f"{type(error).__name__}: {error}"
        return ""

    def _send(self, peer_id: bytes, message: Message) -> None:
        self._outbox_out.send_multipart([peer_id, *wire.encode(message)], copy=False)


def _error(about: Message, code: str, text: str) -> Message:
    return Message(wire.ERROR, about.session, about.seq, about.tick, meta={"code": code, "message": text})


def _is_local(bind: str) -> bool:
    scheme, _, rest = bind.partition("://")
    return scheme in ("ipc", "inproc") or (scheme == "tcp" and rest.startswith(LOOPBACK))
