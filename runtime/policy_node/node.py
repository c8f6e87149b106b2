"""The policy node: serves one policy to any number of robots over one ROUTER socket.

What becomes of an observation, in the order of the methods below `run`:

    _receive             a message is taken in; message_handler.py does what it asks for: an OBSERVE waits
    _wait_for_others     … until a batch is full, or its robot cannot wait any longer (batching.py)
    _next_batch          … and is taken out of its robot's session (robot_session.py)
    _answer              the policy answers the batch (inference.py); each robot is sent its CHUNK or ERROR; only
                         then is a second policy, if there is one, shown what was answered (shadow.py)

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
from types import MappingProxyType
from typing import NamedTuple

import zmq

from tactus.hal.spec import PolicySpec
from tactus.policies.policy import Policy, Session
from tactus.runtime.policy_node.access import AccessControl, Refusals
from tactus.runtime.policy_node.batching import Batching
from tactus.runtime.policy_node.inference import Ask
from tactus.runtime.policy_node.limits import ANYBODY, BATCH_WAIT_MS, RECEIVE_HWM, SEND_HWM, TURN, LimitsConfig
from tactus.runtime.policy_node.message_handler import Counters, MessageHandler, Update, error_about, served_by
from tactus.runtime.policy_node.robot_session import RobotSession
from tactus.runtime.policy_node.served_policy import ServedPolicy
from tactus.runtime.policy_node.shadow import Shadow, Shown
from tactus.runtime.policy_node.swap import Load, Swap, SwapOrder, give_back_memory
from tactus.runtime.wire import codec
from tactus.runtime.wire.address import is_local, malformed, needs_ipv6
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.handshake import mismatches, unlike
from tactus.runtime.wire.keys import ServerKeys
from tactus.runtime.wire.shared_arrays import Overwritten

log = logging.getLogger("tactus.policy_node")

STAND_IN_AFTER_S = 0.01
RECEIVE_MS = 200
MOST_REASONS = 20
"""Why a swap is refused: no more are told."""
HANDSHAKE_MS = 5000
GONE_MS = 10_000
"""A connection on which nothing has been acknowledged for so long is closed; quiet ones are sent signs of life."""


class BindError(RuntimeError):
    """The address cannot be used; the message says why and what to do."""


class _Job(NamedTuple):
    """A peer's observation, taken for inference while the lock was held, without its arrays. reset: the episode to open
    before. unpacked_ms: what it took to decode it, or to find it in memory that is shared."""

    peer_id: bytes
    peer: RobotSession
    received_ns: int
    message: Message
    reset: Session | None
    unpacked_ms: float


class PolicyNode:
    """bind: e.g. tcp://127.0.0.1:5555, tcp://127.0.0.1:* or ipc:///path; `endpoint` is what was bound.

    allow: of wire.handshake.ALLOWANCES. batch_wait_ms: how long an observation may wait for other robots', if its
    robot can afford it. virtual_batch: robots in virtual time that share a pass; with 1, which other robots are served
    changes no bit of an answer. details: what belongs beside a result, added to the policy's spec. trace: told of
    every answer how long it took here, in ms. keys: encrypts, and lets only listed robots in. shadow: a second policy
    that is ready to be compared. weights_from: whose new weights are taken: the name of a key that is let in, or,
    without keys and on this machine only, `anybody`; None: nobody's. swaps_from: likewise, whose orders for another
    policy are taken, which `load` makes. Raises BindError if the address is taken, malformed, or reachable from other
    machines without keys or `insecure`.
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
        limits: LimitsConfig = LimitsConfig(),  # noqa: B008 - nobody changes it
        shadow: Shadow | None = None,
        weights_from: str | None = None,
        swaps_from: str | None = None,
        load: Load | None = None,
    ) -> None:
        if wrong := malformed(bind, bind=True):
            raise BindError(f"cannot listen: {wrong}")
        if keys is None and not insecure and not is_local(bind):
            raise BindError(
                f"{bind} can be reached from other machines and nothing protects it: give it keys (curve.key and "
                "curve.authorized; `tactus keygen` makes them), bind to tcp://127.0.0.1:PORT, or pass --insecure"
            )
        if weights_from is not None:
            _check_weights(policy, weights_from, keys is not None, is_local(bind))
        if swaps_from is not None:
            _check_sender("swaps_from", swaps_from, keys is not None, is_local(bind))
            if shadow is not None or weights_from is not None:
                raise BindError(
                    "swaps_from: what a shadow is compared with, or what learns, stays; leave out one of the two"
                )
        served = ServedPolicy.of(policy, details, allow)
        self._load, self._allow = load, frozenset(allow)
        self._swap: Swap | None = None
        self._batch = batch_wait_ms / 1000, virtual_batch
        self._batching = Batching(policy.max_batch, *self._batch)
        self._trace = trace
        self.shadow = shadow
        self._max_bytes = limits.max_bytes
        self.counters = Counters()
        context = zmq.Context() if keys else zmq.Context.instance()  # a ZAP handler serves a whole context
        self._context = context if keys else None
        self._router = _router(context, self._max_bytes)
        self._access = AccessControl(context, self._router, keys)
        try:
            self._router.setsockopt(zmq.IPV6, needs_ipv6(bind))
            self._router.bind(bind)
        except OSError as error:
            self._close()
            raise BindError(f"cannot listen at {bind}: its host cannot be found: {error.strerror}") from error
        except zmq.ZMQError as error:
            self._close()
            hint = (
                "something else is listening there; choose another port"
                if error.errno == zmq.EADDRINUSE
                else str(error)
            )
            raise BindError(f"cannot bind {bind}: {hint}") from error
        self.endpoint: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wake_receiver, self._wake_sender = _pair(context)
        self._handler = MessageHandler(served, self._access, limits, frozenset(allow), self.counters, self._send)
        self._handler.swaps_from = swaps_from
        if weights_from is not None:
            self._handler.take_weights(weights_from, policy.weights())
        self._lock = threading.Lock()  # of the socket and of the peers
        self._policy_since_s = 0.0
        self._stopping = False

    def run(self) -> None:
        """Serve until `stop` is called. Call it once; the policy runs in the calling thread."""
        stand_in = threading.Thread(target=self._stand_in, name="stand-in", daemon=True)
        stand_in.start()
        self._lock.acquire()
        try:
            while not self._stopping:
                self._receive(wait=not self._handler.waiting and not self._handler.updates)
                self._handler.end_sessions()
                self._wait_for_others()
                while self._handler.ended:
                    session, served = self._handler.ended.pop(0)
                    self._call_policy(lambda session=session, served=served: served.inference.end(session))
                    if self.shadow is not None:
                        self.shadow.end(session)
                while self._handler.updates:
                    self._update(self._handler.updates.pop(0))
                self._see_to_swaps()
                self._answer(*self._next_batch())  # observations are let go of before others come
        finally:
            self._stopping = True
            self._lock.release()
            stand_in.join()
            for _, peer in self._handler.peers.items():
                peer.close()
            for socket in (self._wake_receiver, self._wake_sender):
                socket.close(0)
            self._close()

    def stop(self) -> None:
        """Make `run` return soon; may be called from any thread or a signal handler."""
        self._stopping = True

    @property
    def spec(self) -> PolicySpec:
        """Of the policy that a new robot is answered by, with the details that robots are told."""
        return self._handler.served.spec

    @property
    def sessions(self) -> int:
        """Robots that are served now."""
        return len(self._handler.peers)

    @property
    def refusals(self) -> Refusals:
        """Connections that were not let in."""
        return self._access.refusals

    def _receive(self, wait: bool) -> None:
        """Take in what has arrived, TURN messages at the most; wait up to RECEIVE_MS for something if asked to."""
        for _ in range(TURN):
            if not (wait or codec.arrived(self._router)):
                return
            try:
                identity, *frames = codec.receive(self._router)
            except zmq.Again:
                return
            wait = False
            peer_id = identity.bytes
            if not self._handler.admits(peer_id, identity):
                continue
            try:
                self.counters.messages += 1
                self._handler.handle(peer_id, identity, codec.decode(frames, self._max_bytes))
            except WireError as error:
                self.counters.rejected += 1
                log.warning("rejected a message: %s: %s", error.code, error)
                self._send(peer_id, error_about(Message(codec.ERROR), f"wire_{error.code}", str(error)))
            except Exception as error:  # whatever a message can do to this code, the other robots are still served
                self.counters.rejected += 1
                log.exception("a message could not be handled")
                self._send(peer_id, error_about(Message(codec.ERROR), "internal", f"{type(error).__name__}: {error}"))

    def _wait_for_others(self) -> None:
        """Take in more observations until a pass is full, or one of those there cannot wait any longer."""
        waiting, peers = self._handler.waiting, self._handler.peers
        while waiting and not self._stopping:
            start_s = self._batching.start_s([peer.patience() for peer in waiting.values()], len(peers))
            left_ms = int((start_s - time.monotonic()) * 1000)
            if left_ms <= 0 or not self._router.poll(left_ms):
                return
            self._receive(wait=False)

    def _next_batch(self) -> tuple[list[_Job], list[Ask]]:
        jobs, asks, waiting = [], [], self._handler.waiting
        peer_ids = list(waiting)
        chosen = [
            peer_ids[index] for index in self._batching.chosen([waiting[peer_id].patience() for peer_id in peer_ids])
        ]
        for peer_id in [one for one in chosen if waiting[one].served is waiting[chosen[0]].served]:
            peer = waiting.pop(peer_id)
            started_ns = time.monotonic_ns()
            packed = peer.is_packed
            if not packed or self._unpack(peer_id, peer):
                unpacked_ms = (time.monotonic_ns() - started_ns) / 1e6 if packed else 0.0
                message, ask = peer.take()
                jobs.append(_Job(peer_id, peer, peer.received_ns, message, ask.reset, unpacked_ms))
                asks.append(ask)
        return jobs, asks

    def _unpack(self, peer_id: bytes, peer: RobotSession) -> bool:
        """Only of an observation whose turn it is, so that one robot's cost the others no more than their answers."""
        message = peer.waiting
        assert message is not None
        try:
            peer.unpack(copied=self.shadow is not None)
        except WireError as error:
            self.counters.rejected += 1
            peer.answered, peer.reply = message.seq, error_about(message, "observation", str(error))
            self._send(peer_id, peer.reply)
        except Overwritten:
            self.counters.superseded += 1
        return peer.waiting is not None

    def _answer(self, jobs: list[_Job], asks: list[Ask]) -> None:
        """asks: one a job; empty afterwards, since who has them has their arrays."""
        if not jobs:
            return
        served = served_by(jobs[0].peer)
        if self.shadow is not None:
            self.shadow.pause(asks, served.inference.noise)
        started_ns = time.monotonic_ns()
        answers = self._call_policy(lambda: served.inference.answer(asks))
        spent_ms = (time.monotonic_ns() - started_ns) / 1e6
        self._batching.took(len(jobs), spent_ms / 1000)
        shown = [] if self.shadow is None else asks.copy()
        asks.clear()
        for job, (chunk, error, opened) in zip(jobs, answers, strict=True):
            if not opened and job.peer.reset is None:
                job.peer.reset = job.reset  # the next request tries again
            if chunk is None:
                self._reply(job, error_about(job.message, "policy", error))
                continue
            queued_ms = (started_ns - job.received_ns) / 1e6 - job.unpacked_ms
            timings = {"infer": spent_ms, **chunk.timings_ms, "queued": queued_ms}
            if job.unpacked_ms:
                timings["unpack"] = job.unpacked_ms
            sent_ns = time.monotonic_ns()
            meta = {"timings_ms": timings, "received_ns": job.received_ns, "sent_ns": sent_ns}
            meta["policy"] = served.spec.identity
            if chunk.version:
                meta["version"] = chunk.version
            arrays = {"action": chunk.actions, **chunk.beside}
            reply = Message(codec.CHUNK, job.peer.session, job.message.seq, chunk.start, arrays, meta)
            if served.spec.takes_prefix:
                job.peer.keep(job.message.seq, chunk)
            self._reply(job, reply)
            self._trace((sent_ns - job.received_ns) / 1e6)
        if self.shadow is not None:
            self.shadow.resume(
                [Shown(ask, each.chunk, job.peer.action) for job, ask, each in zip(jobs, shown, answers, strict=True)]
            )

    def _update(self, update: Update) -> None:
        """New weights, whole: the policy takes them, between two passes."""
        inference = self._handler.served.inference
        error = self._call_policy(lambda: inference.update(update.version, update.weights))
        if error:
            self._send(update.peer_id, Message(codec.REFUSE, meta={"reasons": [error]}))
            return
        self.counters.updates += 1
        log.info("weights: version %d, for episodes that begin from now on", update.version)
        self._send(update.peer_id, Message(codec.ACCEPTED, seq=update.seq, meta={"version": update.version}))

    def _see_to_swaps(self) -> None:
        """Begin what is ordered, one at a time, and finish what is loaded: between two passes."""
        swap = self._swap
        if swap is not None and swap.is_done:
            self._swap = None
            self._finish(swap)
            del swap  # and with it, perhaps, the policy that was refused
            give_back_memory()
        while self._handler.swaps:
            order = self._handler.swaps.pop(0)
            reasons = self._cannot_begin(order)
            if reasons:
                self._send(order.peer_id, Message(codec.REFUSE, meta={"reasons": reasons}))
                continue
            assert self._load is not None
            name = codec.shown(order.policy.get("path", order.policy.get("type")))
            log.info("a swap begins: %s is loaded beside the policy that answers", name)
            self._swap = Swap(order, self._load, self._allow)
            self._send(order.peer_id, Message(codec.ACCEPTED, seq=order.seq, meta={"loading": True}))

    def _cannot_begin(self, order: SwapOrder) -> list[str]:
        if self._swap is not None:
            return ["another policy is being loaded; ask again when that is done"]
        if order.robot and not self._meant(order):
            there = ", ".join(
                f"{peer.robot.name if peer.robot else ''} ({peer.session})" for _, peer in self._handler.peers.items()
            )
            return [f"robot: no session and no robot is called {order.robot[:80]}; connected: {there or 'none'}"]
        return [
            f"robot {peer.session}: takes no swap: virtual time, a comparison of policies, or an older Tactus"
            for _, peer in self._meant(order)
            if not peer.takes_swaps
        ]

    def _meant(self, order: SwapOrder) -> list[tuple[bytes, RobotSession]]:
        """The robots that an order is about."""
        peers = self._handler.peers.items()
        wanted = order.robot
        return [each for each in peers if wanted in ("", each[1].session, each[1].robot and each[1].robot.name)]

    def _finish(self, swap: Swap) -> None:
        """What was loaded answers from now on, if it fits everybody it is meant for; else nothing changes."""
        order, served = swap.order, swap.served
        reasons = [swap.error] if swap.error else self._cannot_begin(order)
        meant = self._meant(order)
        if not reasons and served is not None:
            for _, peer in meant:
                assert peer.robot is not None
                found = unlike(served_by(peer).spec, served.spec) + mismatches(peer.robot, served.spec, self._allow)
                reasons += [f"robot {peer.session}: {reason}" for reason in found]
        if reasons or served is None:
            log.warning("the swap is refused: %s", "; ".join(reasons))
            self._send(order.peer_id, Message(codec.REFUSE, meta={"reasons": reasons[:MOST_REASONS]}))
            return
        for peer_id, peer in meant:
            old = served_by(peer)
            self._handler.swap(peer_id, peer, served)
            self._call_policy(lambda old=old, peer=peer: old.inference.end(peer.session))
        if not order.robot:
            self._handler.served = served
        everybody = {self._handler.served, *(served_by(peer) for _, peer in self._handler.peers.items())}
        self._batching = Batching(min(each.max_batch for each in everybody), *self._batch)
        self.counters.swaps += 1
        log.info("swapped: %s answers %d robots, after %.1f s", served.spec.identity, len(meant), swap.took_s)
        found = {"policy": served.spec.identity, "robots": len(meant), "took_s": swap.took_s}
        self._send(order.peer_id, Message(codec.ACCEPTED, seq=order.seq, meta=found))

    def _reply(self, job: _Job, reply: Message) -> None:
        """Nothing for an observation that was written over while the policy looked at it: a newer one is there."""
        try:
            reply = job.peer.answer(job.message, reply)
        except Overwritten:
            self.counters.superseded += 1
            return
        self.counters.chunks += reply.kind == codec.CHUNK
        self.counters.errors += reply.kind == codec.ERROR
        self._send(job.peer_id, reply)

    def _send(self, peer_id: bytes, message: Message, count: bool = True) -> bool:
        """False if no robot is connected under this id; one who does not read loses it. count: as undelivered."""
        try:
            codec.send(self._router, [peer_id, *codec.encode(message)], codec.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.counters.undelivered += count
            return error.errno == zmq.EAGAIN
        return True

    def _call_policy[T](self, call: Callable[[], T]) -> T:
        """Run policy code, with the socket given up while it takes its time."""
        swap = self._swap
        if swap is not None:
            swap.idle.clear()
        self._policy_since_s = time.monotonic()
        self._lock.release()
        try:
            return call()
        finally:
            self._policy_since_s = 0.0
            if swap is not None:
                swap.idle.set()
            if not self._lock.acquire(blocking=False):
                self._wake_sender.send(b"")
                self._lock.acquire()

    def _stand_in(self) -> None:
        """The stand-in's thread: take messages in while the policy thinks."""
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._wake_receiver, zmq.POLLIN)
        while not self._stopping:
            time.sleep(STAND_IN_AFTER_S)
            since_s = self._policy_since_s
            if not since_s or time.monotonic() - since_s < STAND_IN_AFTER_S or not self._lock.acquire(blocking=False):
                continue
            try:
                while self._policy_since_s and not self._stopping:
                    if any(socket is self._wake_receiver for socket, _ in poller.poll(200)):
                        self._wake_receiver.recv()
                    self._receive(wait=False)
            finally:
                self._lock.release()

    def _close(self) -> None:
        self._access.close()
        self._router.close(0)
        if self._context is not None:
            self._context.term()


def _check_weights(policy: Policy, weights_from: str, keyed: bool, local: bool) -> None:
    """Raise BindError where new weights could not be taken, or from too many."""
    if not policy.weights():
        raise BindError(
            f"weights_from: {policy.spec.name} takes no new weights; a flow policy with --explore.method does"
        )
    _check_sender("weights_from", weights_from, keyed, local)


def _check_sender(key: str, sender: str, keyed: bool, local: bool) -> None:
    if not keyed and (sender != ANYBODY or not local):
        raise BindError(
            f"{key}: found {sender} without keys; accepted: the name of a key (curve.key and "
            f"curve.authorized), or {ANYBODY}, at an address on this machine"
        )
    if keyed and sender == ANYBODY:
        raise BindError(f"{key}: found anybody with keys; accepted: the name of the sender's key")


def _router(context: zmq.Context[zmq.Socket[bytes]], max_bytes: int) -> zmq.Socket[bytes]:
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a robot that reconnects keeps its session
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)  # who is gone, or does not read, is known
    router.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    router.setsockopt(zmq.RCVTIMEO, RECEIVE_MS)
    router.setsockopt(zmq.RCVHWM, RECEIVE_HWM)
    router.setsockopt(zmq.SNDHWM, SEND_HWM)
    router.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    # Not ZMTP's heartbeats: a peer that leaves while its queue is full makes libzmq 4.3.5 abort in their timer.
    router.setsockopt(zmq.TCP_MAXRT, GONE_MS)
    return router


def _pair(context: zmq.Context[zmq.Socket[bytes]]) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Two connected sockets, to wake a thread that polls one of them from another thread."""
    receiver, sender = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    name = f"inproc://tactus-{uuid.uuid4().hex}"
    receiver.bind(name)
    sender.connect(name)
    return receiver, sender
