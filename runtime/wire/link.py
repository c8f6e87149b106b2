"""The robot node's end of the wire: a DEALER that never blocks the control loop.

A policy node that comes back after a restart does not know its robots: it says so, and the link introduces
itself again, opens the episode again and repeats the request that is still unanswered. The robot node need
not know. Nor need it know of what was lost on the way: while a request is unanswered, a PING every PROBE_S
learns what has come and been answered there.

    OBSERVE 7 ──╳                 PING → PONG received 6:  RESET and OBSERVE 7 again
    OBSERVE 7 →   ╳── CHUNK 7     PING → PONG answered 7:  OBSERVE 7 again → CHUNK 7, kept for that
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import zmq
from zmq.utils.monitor import recv_monitor_message

from tactus.hal.spec import MAX_NAME, Chunk, Observation, PolicySpec, RobotSpec
from tactus.runtime.wire import codec
from tactus.runtime.wire.address import is_local, malformed, needs_ipv6
from tactus.runtime.wire.array_transport import ArrayTransport
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.config import WireConfig
from tactus.runtime.wire.handshake import unlike
from tactus.runtime.wire.keys import ClientKeys

HELLO_EVERY_S = 0.2
WAITED_S, WAITING_EVERY_S = 2.0, 5.0
"""How long somebody at the terminal may be left without a word, and how often they hear that the link still waits."""
PROBE_S = 0.1
RECONNECT_S = 2.0
"""A link that has asked for so long and heard nothing connects anew."""
HANDSHAKE_FAILED = {
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "it does not know this robot's key: have it put among its curve.authorized",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "only one of the two uses keys, or what listens there is no policy node",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake broke off: is curve.server really its key?",
}
"""ZeroMQ has no detail to give either if the other end was quicker to hang up: what said more stands, and a link
without keys is not asked about one."""
PINGS = 4
MAX_ANSWER_BYTES = 32_000_000
MAX_TEXT = 2000


class LinkError(RuntimeError):
    """There is no policy node to talk to, or it stopped answering."""


class Unreachable(LinkError):
    """The address is none, or no policy node answered at it in time."""


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
    """The answer to request `seq`: a chunk, or an error text.

    round_trip_ms: from the call of `request` to here, on this machine's clock. uplink_ms, downlink_ms: one-way
    times, with the policy node's clock offset taken out, and without what packing pictures took before. again: no
    answer, but the news, said in `error`, that another policy answers from now on and is to be asked at once.
    """

    seq: int
    chunk: Chunk | None = None
    error: str = ""
    round_trip_ms: float = 0.0
    uplink_ms: float = 0.0
    downlink_ms: float = 0.0
    again: bool = False

    @property
    def inference_ms(self) -> float:
        """What the policy took, without the time that the request waited for its turn."""
        timings = self.chunk.timings_ms if self.chunk else {}
        return sum(value for key, value in timings.items() if key != "queued")


class Continue(NamedTuple):
    """What a chunk should go on with (real-time chunking): the one that was merged last, or a command.

    delay_ticks: ticks that will pass until it is merged. held: the robot's command until then, [A]: not a chunk's but
    a person's, who hands back.
    """

    delay_ticks: int
    held: np.ndarray | None = None


class AnyLink(Protocol):
    """What a robot node needs of its link: a Link, several of them, or one that delays replies. policy: whose answers
    are asked for from now on."""

    def reset(self, episode: int, seed: int, task: str) -> None: ...
    def request(
        self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None
    ) -> int: ...
    def poll(self) -> list[Reply]: ...
    def wait(self, timeout_s: float) -> bool: ...
    def ping(self) -> None: ...
    @property
    def silent_s(self) -> float: ...
    @property
    def policy(self) -> PolicySpec: ...


class TimedLink(AnyLink, Protocol):
    """What a link that delays replies needs of the one it wraps. resumed: as Link.resumed."""

    @property
    def endpoint(self) -> str: ...
    @property
    def resumed(self) -> int: ...
    def close(self) -> None: ...


class _Sent(NamedTuple):
    """at_ns: when it was asked for. left_ns: when it was sent, after its pictures were packed; None before that."""

    message: Message
    at_ns: int
    left_ns: int | None


UNREADABLE = (WireError, KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What comes of a message that is not as ours are."""


Tap = Callable[[bool, Sequence[codec.Frame]], None]
"""Told of every message that leaves (True) or arrives (False), in frames, before anything is made of it. Arrays that
leave through shared memory are in frames here."""


def untapped(outgoing: bool, frames: Sequence[codec.Frame]) -> None:
    """A Tap that does nothing."""


class Link:
    """One robot's connection to a policy node. Not thread-safe: the control loop owns it.

    Arrays handed to `request` are sent without a copy and must not be written to afterwards. keys: encrypts, and talks
    to that policy node alone. wire: how arrays travel. Raises Unreachable if `endpoint` is no address, or on another
    machine without keys or `insecure`: a robot does what it is told there; ConfigError if it cannot be as `wire` wants.
    numbers: of its requests, where several links of one robot share them.
    """

    def __init__(
        self,
        endpoint: str,
        session: str | None = None,
        keys: ClientKeys | None = None,
        insecure: bool = False,
        wire: WireConfig = WireConfig(),  # noqa: B008 - nobody changes it
        numbers: Iterator[int] | None = None,
    ) -> None:
        if wrong := malformed(endpoint):
            raise Unreachable(f"cannot connect: {wrong}")
        try:
            ipv6 = needs_ipv6(endpoint)
        except OSError as error:
            raise Unreachable(f"cannot connect to {endpoint}: its host cannot be found: {error.strerror}") from error
        self._transport = ArrayTransport(wire, endpoint)
        self.tap: Tap = untapped
        self.say: Callable[[str], None] = lambda line: None
        """Told how arrays travel, where that is not as they are or not as it might be: a line each, once."""
        self.endpoint = endpoint
        self.session = session or uuid.uuid4().hex
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.IPV6, ipv6)
        self._socket.setsockopt(zmq.ROUTING_ID, self.session.encode())
        self._socket.setsockopt(zmq.IMMEDIATE, 1)  # while no node is connected nothing piles up
        self._socket.setsockopt(zmq.LINGER, 100)
        self._socket.setsockopt(zmq.SNDHWM, 8)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.setsockopt(zmq.CONNECT_TIMEOUT, 2000)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_ANSWER_BYTES)
        if keys is not None:
            keys.secure(self._socket)
        self._keyed = keys is not None
        self._handshakes = self._socket.get_monitor_socket(sum(HANDSHAKE_FAILED))
        try:
            self._socket.connect(endpoint)
        except zmq.ZMQError as error:
            self._unmonitor()
            self._socket.close()
            raise Unreachable(f"cannot connect to {endpoint!r}: {error}; expected e.g. tcp://127.0.0.1:5555") from error
        if keys is None and not insecure and not is_local(endpoint):
            self._unmonitor()
            self._socket.close()
            raise Unreachable(
                f"{endpoint} is on another machine, and without keys anybody there could drive this robot: give "
                "curve.key and curve.server (`tactus keygen` makes them), or pass --insecure to accept that"
            )
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._robot: RobotSpec | None = None
        self._real_time = True
        self._policy: PolicySpec | None = None
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._seq = 0
        self._outdated = 0  # sequence numbers up to this belong to earlier episodes
        self._reset: Message | None = None
        self._node = ""  # which policy node it is; another one after a restart
        self._open: dict[int, int] = {}  # the tick of each request of this episode that is not answered yet
        self._probed_ns = self._connected_ns = 0
        self.repeated = 0
        """Messages sent once more because they, or their answers, were lost."""
        self._unanswered: _Sent | None = None
        self._stopped: str | None = None
        self._heard_ns = time.monotonic_ns()
        self._in_vain_ns: int | None = None  # when the first PING was sent since the last answer
        self.takes_swaps = True
        """Whether, in real time, the policy node may have another policy go on that is like this one."""
        self.swapped = 0
        """How often it did."""
        self.resumed = 0
        """How often a policy node came back without knowing this robot, and was told where it stood."""
        self._offset_ns = 0
        self.offset_error_ms = float("inf")
        """Half the round trip of the ping that set the clock offset; its accuracy."""

    def hello(
        self,
        robot: RobotSpec,
        timeout_s: float,
        real_time: bool = True,
        waiting: Callable[[float], None] = lambda for_s: None,
    ) -> PolicySpec:
        """Introduce the robot and learn the policy's spec. real_time: False for a robot whose ticks wait for answers.
        waiting: told for how long there has been no answer, in s, after WAITED_S and every WAITING_EVERY_S from then.

        Raises Refused with every mismatch, Unreachable if no node answers within timeout_s.
        """
        self._robot, self._real_time = robot, real_time
        began_s = time.monotonic()
        deadline_s, tell_s = began_s + timeout_s, began_s + WAITED_S
        failure = ""
        while (now_s := time.monotonic()) < deadline_s:
            if now_s >= tell_s:
                waiting(now_s - began_s)
                tell_s = now_s + WAITING_EVERY_S
            self._introduce()
            again_s = time.monotonic() + HELLO_EVERY_S
            while self._policy is None and (left_s := again_s - time.monotonic()) > 0:
                if self.wait(left_s):
                    self.poll()
            if self._policy is not None:
                self._unmonitor()
                self._check(robot, self._policy)
                self._synchronise()
                return self._policy
            failure = self._handshake_failure(failure)
        raise Unreachable(
            f"no policy node answered at {self.endpoint} within {timeout_s:g} s; "
            + (failure or "is `tactus serve` running?")
        )

    def _introduce(self) -> None:
        assert self._robot is not None
        meta = {"robot": self._robot.to_dict(), "real_time": self._real_time, **self._transport.offer(self._robot)}
        meta["swap"] = self.takes_swaps and self._real_time  # what is in virtual time is there to be repeated
        self._send(Message(codec.HELLO, self.session, meta=meta))

    def _handshake_failure(self, failure: str) -> str:
        """Why connections come to nothing, if they do; `failure` so far. Raises Refused if our key is not welcome."""
        unequal = HANDSHAKE_FAILED[zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL]
        while self._handshakes is not None and self._handshakes.poll(0):
            event = zmq.Event(recv_monitor_message(self._handshakes)["event"])
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise Refused([HANDSHAKE_FAILED[event]])
            if event in HANDSHAKE_FAILED and failure != unequal:
                failure = HANDSHAKE_FAILED[event] if self._keyed else unequal
        return failure

    def _unmonitor(self) -> None:
        if self._handshakes is not None:
            self._socket.disable_monitor()
            self._handshakes.close(0)
            self._handshakes = None

    def _check(self, robot: RobotSpec, policy: PolicySpec) -> None:
        """The policy node compares everything; this is what would break the robot node."""
        missing = [name for name in policy.inputs if name not in robot.observations]
        if missing:
            raise Refused([f"{name}: the policy needs it, this robot does not observe it" for name in missing])
        ours, theirs = robot.action, policy.action
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            raise Refused([f"action: robot {ours.dtype}{list(ours.shape)}, policy {theirs.dtype}{list(theirs.shape)}"])

    def _synchronise(self) -> None:
        for _ in range(PINGS):
            self.ping()
            if self.wait(0.1):
                self.poll()

    def reset(self, episode: int, seed: int, task: str, explore: bool = False) -> None:
        """Open an episode at the policy; answers to earlier requests, still on their way, are not for it. explore: for
        a learner to learn from."""
        self._unanswered = None
        self._open.clear()
        self._outdated = self._seq
        self._seq = next(self._numbers)
        about = {"episode": episode, "seed": seed, "task": task} | ({"explore": True} if explore else {})
        self._reset = Message(codec.RESET, self.session, self._seq, meta=about)
        self._send(self._reset)

    def request(self, observation: Observation, ticks_left: int, merged: int, continued: Continue | None = None) -> int:
        """Send an observation and return its sequence number; never blocks.

        ticks_left: ticks until the queue runs dry. merged: sequence number of the last chunk merged.
        continued: what it should go on with, for policies that can.
        """
        assert self._policy is not None and self._reset is not None, "hello and reset first"
        self._seq = next(self._numbers)
        arrays = {name: observation.arrays[name] for name in self._policy.inputs}
        stamps_ns = [observation.stamps_ns.get(name, 0) for name in arrays]
        meta = {"task": observation.task, "stamps_ns": stamps_ns, "ticks_left": ticks_left, "merged": merged}
        meta["reset"] = self._reset.seq
        if continued is not None:
            meta["delay_ticks"] = continued.delay_ticks
            if continued.held is not None:
                meta["held"] = continued.held.tolist()
        message = Message(codec.OBSERVE, self.session, self._seq, observation.tick, arrays, meta)
        self._open[self._seq] = observation.tick
        now_ns = time.monotonic_ns()
        if self._transport.packer is not None:
            self._unanswered = _Sent(message, now_ns, None)
            self._transport.packer.put(message)
        else:
            self._unanswered = _Sent(message, now_ns, now_ns)
            self._send(message)
        return self._seq

    def _send_packed(self) -> None:
        """Messages whose pictures are packed by now. Raises LinkError if they could not be."""
        assert self._transport.packer is not None
        try:
            ready = self._transport.packer.take()
        except Exception as error:
            raise LinkError(f"pictures could not be packed as JPEG: {error}") from error
        for message in ready:
            if message.seq not in self._open:  # its episode is over
                continue
            sent = self._unanswered
            if sent is not None and sent.message.seq == message.seq:
                self._unanswered = _Sent(message, sent.at_ns, time.monotonic_ns())
            self._send(message)

    def ping(self) -> None:
        """Ask for a sign of life; the answer also measures the clock offset."""
        self._send(Message(codec.PING, self.session, meta={"sent_ns": time.monotonic_ns()}))

    @property
    def policy(self) -> PolicySpec:
        """Of the policy node, after `hello`."""
        assert self._policy is not None, "hello first"
        return self._policy

    @property
    def sockets(self) -> list[Any]:
        """Those that `wait` waits for, to register with a poller; after `hello`."""
        packer = self._transport.packer
        return [self._socket] if packer is None else [self._socket, packer.socket]

    @property
    def silent_s(self) -> float:
        """Seconds since anything was heard from the policy node."""
        return (time.monotonic_ns() - self._heard_ns) / 1e9

    @property
    def unanswered_s(self) -> float:
        """Seconds since the first probe that no PONG or CHUNK has answered; 0 while there is none. Of a link that was
        polled just now: what has come and was not looked at counts for nothing."""
        return 0.0 if self._in_vain_ns is None else (time.monotonic_ns() - self._in_vain_ns) / 1e9

    def wait(self, timeout_s: float) -> bool:
        """Wait until something has arrived; False after timeout_s. Waits of under 1 ms are slept."""
        timeout_ms = int(timeout_s * 1000)
        if timeout_ms < 1:
            time.sleep(max(0.0, timeout_s))
            timeout_ms = 0
        packer = self._transport.packer
        if packer is None:
            return bool(self._poller.poll(timeout_ms))
        until_s = time.monotonic() + timeout_ms / 1000
        while True:
            left_ms = max(0, int((until_s - time.monotonic()) * 1000))
            ready = dict(self._poller.poll(left_ms))
            if packer.socket.fileno() in ready:
                self._send_packed()
            if self._socket in ready or not left_ms:
                return self._socket in ready

    def poll(self) -> list[Reply]:
        """Everything that has arrived, without blocking.

        Raises Refused if a returning node refuses us, Stopped after a STOP.
        """
        if self._stopped is not None:
            raise Stopped(self._stopped)
        if self._transport.packer is not None:
            self._send_packed()
        replies = []
        while codec.arrived(self._socket):
            frames = codec.receive(self._socket)
            self._heard_ns = time.monotonic_ns()
            self.tap(False, frames)
            try:
                message = codec.decode(frames)
                reply = self._handle(message)
            except UNREADABLE as error:
                replies.append(Reply(0, error=f"unreadable message from the policy node: {error}"))
                continue
            if reply is not None and not 0 < reply.seq <= self._outdated:
                replies.append(reply)
        if self._unanswered is not None:
            self._probe(self._unanswered.at_ns)
        return replies

    def probe(self) -> None:
        """A PING every PROBE_S, and a new connection where nothing is heard: of a link that nothing is asked of."""
        self._probe(0)

    def _probe(self, since_ns: int) -> None:
        """Ask from time to time what has become of the unanswered request."""
        now_ns = time.monotonic_ns()
        if now_ns - max(since_ns, self._probed_ns) <= PROBE_S * 1e9:
            return
        self._probed_ns = now_ns
        if now_ns - max(since_ns, self._heard_ns, self._connected_ns) > RECONNECT_S * 1e9:
            self._reconnect()
        self._in_vain_ns = now_ns if self._in_vain_ns is None else self._in_vain_ns
        self.ping()

    def _reconnect(self) -> None:
        """The connection may lead nowhere, which TCP would take minutes to find out."""
        self._connected_ns = time.monotonic_ns()
        self._socket.disconnect(self.endpoint)
        self._socket.connect(self.endpoint)

    def _handle(self, message: Message) -> Reply | None:
        if message.kind == codec.WELCOME:
            self._welcome(message.meta)
        elif message.kind == codec.REFUSE:
            raise Refused([_printable(reason) for reason in message.meta["reasons"]])
        elif message.kind == codec.CHUNK:
            return self._chunk(message)
        elif message.kind == codec.PONG:
            if "ping_ns" in message.meta:
                self._in_vain_ns = None
                self._clock_offset(message.meta)
                self._check_received(message.meta)
        elif message.kind == codec.STOP:
            self._stopped = _printable(message.meta["reason"])
            self._send(Message(codec.STOPPED, self.session, meta={"by": message.meta["by"]}))
            raise Stopped(self._stopped)
        elif message.kind == codec.ERROR:
            return self._error(message)
        return None

    def _error(self, message: Message) -> Reply | None:
        code = message.meta["code"]
        if code == "unknown_session":
            self._introduce()
        elif code == "unknown_episode":
            self._repeat()
        elif message.seq == 0 or self._open.pop(message.seq, None) is not None:
            self._settled(message)
            return Reply(message.seq, error=_printable(f"{code}: {message.meta['message']}"))
        return None

    def _welcome(self, meta: Mapping[str, Any]) -> None:
        policy, node, known = PolicySpec.from_dict(meta["policy"]), str(meta["node"]), bool(meta["known"])
        if self._policy is not None and policy != self._policy:
            if node != self._node or not known or unlike(self._policy, policy):
                raise Refused([f"{self.endpoint} now serves {policy.name}, another policy than {self._policy.name}"])
            self.swapped += 1
        assert self._robot is not None
        if reasons := self._transport.agree(meta, self._robot, policy, lambda line: self.say(_printable(line))):
            raise Refused([_printable(reason) for reason in reasons])
        if self._policy is None and self._transport.packer is not None:
            self._poller.register(self._transport.packer.socket, zmq.POLLIN)
        first, lost = self._policy is None, node != self._node or not known
        self._policy, self._node = policy, node
        if lost and not first:  # it, or a new one in its place, has taken us in anew: put it where we are
            self.resumed += 1
            self._repeat()

    def _repeat(self) -> None:
        """Send the episode's RESET and the unanswered request once more; what had come is recognised there."""
        sent = self._unanswered
        for message in (self._reset, None if sent is None or sent.left_ns is None else sent.message):
            if message is not None:
                self._send(message)
                self.repeated += 1

    def _check_received(self, meta: Mapping[str, Any]) -> None:
        """Whether our request or its answer was lost, as far as a PING that was sent after it can tell."""
        sent = self._unanswered
        if sent is None or sent.left_ns is None or meta["ping_ns"] < sent.left_ns:
            return
        if meta["received"] < sent.message.seq or meta["answered"] >= sent.message.seq:
            self._repeat()

    def _chunk(self, message: Message) -> Reply | None:
        tick = self._open.get(message.seq)
        if tick is None:  # a second time, or never asked for
            return None
        meta, actions = message.meta, message.arrays["action"]
        now_ns = time.monotonic_ns()
        timings = {str(key): float(value) for key, value in meta["timings_ms"].items()}
        received_ns, sent_ns = int(meta["received_ns"]), int(meta["sent_ns"])
        del self._open[message.seq]
        self._in_vain_ns = None
        round_trip_ns = up_ns = 0
        if (sent := self._settled(message)) is not None:
            round_trip_ns = now_ns - sent.at_ns
            up_ns = received_ns - self._offset_ns - (sent.left_ns or sent.at_ns)
        if problem := self._unfit(message.tick, tick, actions):
            return Reply(message.seq, error=problem)
        down_ns = now_ns - (sent_ns - self._offset_ns)
        beside = {name: array for name, array in message.arrays.items() if name != "action"}
        version, policy = int(meta.get("version", 0)), _printable(meta.get("policy") or self.policy.identity)[:MAX_NAME]
        chunk = Chunk(message.tick, actions, timings, version=version, beside=beside, policy=policy)
        return Reply(message.seq, chunk, "", round_trip_ns / 1e6, up_ns / 1e6, down_ns / 1e6)

    def _settled(self, answer: Message) -> _Sent | None:
        """The unanswered request, if this answers it: it is so no longer."""
        if self._transport.memory is not None:
            self._transport.memory.answered(answer.seq, answer.meta.get("kept", ()))
        sent = self._unanswered
        if sent is None or sent.message.seq != answer.seq:
            return None
        self._unanswered = None
        return sent

    def _unfit(self, start: int, tick: int, actions: np.ndarray) -> str:
        """Why these actions are none to follow; a policy node checks the same, but it may be anybody's."""
        assert self._policy is not None
        shape, dtype = (self._policy.horizon, *self._policy.action.shape), self._policy.action.dtype
        if start != tick:
            return f"a chunk for tick {start}, expected {tick}"
        if actions.shape != shape or actions.dtype != dtype:
            return f"a chunk of {actions.dtype}{list(actions.shape)}, expected {dtype}{list(shape)}"
        return "" if np.isfinite(actions).all() else "a chunk that is not finite"

    def _clock_offset(self, meta: Mapping[str, Any]) -> None:
        """NTP's estimate from the quickest ping so far: the node's clock minus ours."""
        now_ns = time.monotonic_ns()
        error_ms = (now_ns - meta["ping_ns"]) / 2e6
        if error_ms < self.offset_error_ms:
            self.offset_error_ms = error_ms
            self._offset_ns = meta["pong_ns"] - (now_ns + meta["ping_ns"]) // 2

    def _send(self, message: Message) -> bool:
        """False if the message could not leave: no node is connected, or it is not reading."""
        memory = self._transport.memory if message.kind == codec.OBSERVE else None
        frames = codec.encode(message if memory is None else memory.packed(message))
        try:
            codec.send(self._socket, frames, codec.NOBLOCK)
        except zmq.Again:
            return False
        if self.tap is not untapped:
            self.tap(True, frames if memory is None else codec.encode(message))
        return True

    @property
    def closed(self) -> bool:
        return self._socket.closed

    def close(self) -> None:
        """Say goodbye and let go of the socket."""
        if not self._socket.closed:
            self._unmonitor()
            self._send(Message(codec.BYE, self.session))
            self._socket.close()
            self._transport.close()


def _printable(text: object) -> str:
    """What the policy node says, fit for a person's terminal: a few lines at most, nothing that steers it."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in str(text)[:MAX_TEXT])
