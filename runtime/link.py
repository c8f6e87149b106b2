"""The robot node's end of the wire: a DEALER that never blocks the control loop.

A policy node that comes back after a restart does not know its robots: it says so, and the link introduces
itself again, opens the episode again and repeats the request that is still unanswered. The robot node need
not know.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import zmq

from hal.spec import Chunk, Observation, PolicySpec, RobotSpec
from runtime import wire
from runtime.wire import Message, WireError

HELLO_EVERY_S = 0.2
PINGS = 4


class LinkError(RuntimeError):
    """There is no policy node to talk to, or it stopped answering."""


class Unreachable(LinkError):
    """Nobody is there to greet: the address is none, or nobody answered at it in time."""


class Restarted(LinkError):
    """The policy node came back in mid-episode, without what it kept of the episode."""


class Stopped(LinkError):
    """Somebody has stopped this robot; `reason`: who or why. It stays so for the life of the link."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"stopped: {reason}")
        self.reason = reason


class Refused(LinkError):
    """The policy node looked at our specs and will not drive this robot. `reasons`: every mismatch."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("the policy node refused this robot:\n" + "\n".join(f"  - {reason}" for reason in reasons))
        self.reasons = reasons


class Reply(NamedTuple):
    """The answer to request `seq`: a chunk, or an error in words.

    round_trip_ms: from the call of `request` to here, on this machine's clock. uplink_ms, downlink_ms: one-way
    times, with the policy node's clock offset taken out.
    """

    seq: int
    chunk: Chunk | None = None
    error: str = ""
    round_trip_ms: float = 0.0
    uplink_ms: float = 0.0
    downlink_ms: float = 0.0


class _Sent(NamedTuple):
    message: Message
    at_ns: int


Tap = Callable[[bool, Sequence[wire.Frame]], None]
"""Told of every message that leaves (True) or arrives (False), in frames, before anything is made of it."""


class Link:
    """One robot's connection to a policy node. Not thread-safe: the control loop owns it.

    Arrays handed to `request` are sent without a copy and must not be written to afterwards. Raises Unreachable if
    `endpoint` is no address.
    """

    def __init__(self, endpoint: str, session: str | None = None) -> None:
        self.tap: Tap = lambda outgoing, frames: None
        self.endpoint = endpoint
        self.session = session or uuid.uuid4().hex
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.ROUTING_ID, self.session.encode())
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # while nobody is connected nothing piles up
        self._socket.setsockopt(zmq.LINGER, 100)
        self._socket.setsockopt(zmq.SNDHWM, 8)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise Unreachable(f"cannot connect to {endpoint!r}: {error}; expected e.g. tcp://127.0.0.1:5555") from error
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._hello: Message | None = None
        self._policy: PolicySpec | None = None
        self._seq = 0
        self._outdated = 0  # sequence numbers up to this belong to earlier episodes
        self._reset: Message | None = None
        self._unanswered: _Sent | None = None
        self._stopped = ""
        self._heard_ns = time.monotonic_ns()
        self.resumed = 0
        """How often a policy node came back without knowing this robot, and was told where it stood."""
        self._offset_ns = 0
        self.offset_error_ms = float("inf")
        """Half the round trip of the ping that set the clock offset; its accuracy."""

    def hello(self, robot: RobotSpec, timeout_s: float, real_time: bool = True) -> PolicySpec:
        """Introduce the robot and learn the policy's spec. real_time: False for a robot whose ticks wait for answers.

        Raises Refused with every mismatch, Unreachable if nobody answers within timeout_s.
        """
        self._hello = Message(wire.HELLO, self.session, meta={"robot": robot.to_dict(), "real_time": real_time})
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            self._send(self._hello)
            again_s = time.monotonic() + HELLO_EVERY_S
            while self._policy is None and (left_s := again_s - time.monotonic()) > 0:
                if self.wait(left_s):
                    self.poll()
            if self._policy is not None:
                self._synchronise()
                return self._policy
        raise Unreachable(
            f"no policy node answered at {self.endpoint} within {timeout_s:g} s; is `tactus serve` running?"
        )

    def _synchronise(self) -> None:
        for _ in range(PINGS):
            self.ping()
            if self.wait(0.1):
                self.poll()

    def reset(self, episode: int, seed: int, task: str) -> None:
        """Open an episode at the policy; answers to earlier requests, still on their way, are not for it."""
        self._unanswered = None
        self._outdated = self._seq
        self._reset = Message(wire.RESET, self.session, meta={"episode": episode, "seed": seed, "task": task})
        self._send(self._reset)

    def request(self, observation: Observation, ticks_left: int, merged: int, delay_ticks: int | None = None) -> int:
        """Send an observation and return its sequence number; never blocks.

        ticks_left: ticks until the queue runs dry. merged: sequence number of the last chunk merged.
        delay_ticks: ticks that will pass until the answer is merged, if it should continue that chunk.
        """
        assert self._policy is not None, "hello first"
        self._seq += 1
        arrays = {name: observation.arrays[name] for name in self._policy.inputs}
        stamps_ns = [observation.stamps_ns.get(name, 0) for name in arrays]
        meta = {"task": observation.task, "stamps_ns": stamps_ns, "ticks_left": ticks_left, "merged": merged}
        if delay_ticks is not None:
            meta["delay_ticks"] = delay_ticks
        message = Message(wire.OBSERVE, self.session, self._seq, observation.tick, arrays, meta)
        self._unanswered = _Sent(message, time.monotonic_ns())
        self._send(message)
        return self._seq

    def ping(self) -> None:
        """Ask for a sign of life; the answer also measures the clock offset."""
        self._send(Message(wire.PING, self.session, meta={"sent_ns": time.monotonic_ns()}))

    @property
    def silent_s(self) -> float:
        """Seconds since anything was heard from the policy node."""
        return (time.monotonic_ns() - self._heard_ns) / 1e9

    def wait(self, timeout_s: float) -> bool:
        """Wait until something has arrived; False after timeout_s. Waits of under 1 ms are slept."""
        timeout_ms = int(timeout_s * 1000)
        if timeout_ms < 1:
            time.sleep(max(0.0, timeout_s))
            timeout_ms = 0
        return bool(self._poller.poll(timeout_ms))

    def poll(self) -> list[Reply]:
        """Everything that has arrived, without blocking.

        Raises Refused if a returning node refuses us, Stopped after a STOP.
        """
        if self._stopped:
            raise Stopped(self._stopped)
        replies = []
        while wire.arrived(self._socket):
            frames = wire.receive(self._socket)
            self._heard_ns = time.monotonic_ns()
            self.tap(False, frames)
            try:
                message = wire.decode(frames)
                reply = self._handle(message)
            except (WireError, KeyError, TypeError, ValueError) as error:
                replies.append(Reply(0, error=f"unreadable message from the policy node: {error}"))
                continue
            if reply is not None and not 0 < reply.seq <= self._outdated:
                replies.append(reply)
        return replies

    def _handle(self, message: Message) -> Reply | None:
        if message.kind == wire.WELCOME:
            policy = PolicySpec.from_dict(message.meta["policy"])
            if self._policy is not None and policy != self._policy:
                raise Refused([f"{self.endpoint} now serves {policy.name}, another policy than {self._policy.name}"])
            known, self._policy = self._policy is not None, policy
            if known:
                self._resume()
        elif message.kind == wire.REFUSE:
            raise Refused([str(reason) for reason in message.meta["reasons"]])
        elif message.kind == wire.CHUNK:
            return self._chunk(message)
        elif message.kind == wire.PONG:
            self._clock_offset(message.meta)
        elif message.kind == wire.STOP:
            self._stopped = str(message.meta["reason"])
            self._send(Message(wire.STOPPED, self.session, meta={"by": message.meta["by"]}))
            raise Stopped(self._stopped)
        elif message.kind == wire.ERROR:
            if message.meta["code"] == "unknown_session":
                assert self._hello is not None
                self._send(self._hello)
            else:
                return Reply(message.seq, error=f"{message.meta['code']}: {message.meta['message']}")
        return None

    def _resume(self) -> None:
        """A new policy node has taken us in: put it where the old one was."""
        self.resumed += 1
        if self._reset is not None:
            self._send(self._reset)
        if self._unanswered is not None:
            self._send(self._unanswered.message)

    def _chunk(self, message: Message) -> Reply:
        meta = message.meta
        now_ns = time.monotonic_ns()
        sent = self._unanswered
        round_trip_ns = 0
        if sent is not None and sent.message.seq == message.seq:
            round_trip_ns, self._unanswered = now_ns - sent.at_ns, None
        up_ns = meta["received_ns"] - self._offset_ns - sent.at_ns if sent is not None and round_trip_ns else 0
        down_ns = now_ns - (meta["sent_ns"] - self._offset_ns)
        timings = {str(key): float(value) for key, value in meta["timings_ms"].items()}
        chunk = Chunk(message.tick, message.arrays["action"], timings)
        return Reply(message.seq, chunk, "", round_trip_ns / 1e6, up_ns / 1e6, down_ns / 1e6)

    def _clock_offset(self, meta: Mapping[str, Any]) -> None:
        """NTP's estimate from the quickest ping so far: the node's clock minus ours."""
        now_ns = time.monotonic_ns()
        error_ms = (now_ns - meta["ping_ns"]) / 2e6
        if error_ms < self.offset_error_ms:
            self.offset_error_ms = error_ms
            self._offset_ns = meta["pong_ns"] - (now_ns + meta["ping_ns"]) // 2

    def _send(self, message: Message) -> bool:
        """False if the message could not leave: nobody is connected, or they are not reading."""
        frames = wire.encode(message)
        try:
            wire.send(self._socket, frames, wire.NOBLOCK)
        except zmq.Again:
            return False
        self.tap(True, frames)
        return True

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def close(self) -> None:
        """Say goodbye and let go of the socket."""
        if not self._socket.closed:
            self._send(Message(wire.BYE, self.session))
            self._socket.close()
