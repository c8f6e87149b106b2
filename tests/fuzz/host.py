"""A policy node that answers with mutated messages, and what a robot's link makes of them."""

from __future__ import annotations

import collections
import random
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import zmq

from fuzz import seeds
from fuzz.mutator import Frames, Mutator
from tactus.hal.spec import STATE, Observation
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.link import Link, LinkError, Reply

BURST = 40
DONE = "burst_done"


class Outcome(NamedTuple):
    """kinds: what came out of `Link.poll`, counted. surprises: what must not, and the latest messages before it."""

    arrived: int
    links: int
    kinds: collections.Counter[str]
    surprises: list[tuple[str, list[str]]]


class Host:
    """Greets robots as it should, then answers each OBSERVE with what `answers` gives for it.

    answers: (session, seq, tick) -> messages; an ERROR with code DONE follows them.
    """

    def __init__(self, answers: object) -> None:
        self._answers = answers
        self._router = zmq.Context.instance().socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self._router.setsockopt(zmq.SNDHWM, 4 * BURST)
        port = self._router.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self._stopping = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._router.close()

    def _run(self) -> None:
        while not self._stopping:
            if not self._router.poll(50):
                continue
            identity, *frames = self._router.recv_multipart()
            message = codec.decode(frames)
            if message.kind == codec.HELLO:
                meta = {"policy": seeds.policy().to_dict(), "node": "host", "known": False}
                self._send(identity, [seeds.frames(Message(codec.WELCOME, message.session, meta=meta))])
            elif message.kind == codec.PING:
                times = {"ping_ns": message.meta["sent_ns"], "pong_ns": time.monotonic_ns()}
                times |= {"received": message.seq, "answered": 0}
                self._send(identity, [seeds.frames(Message(codec.PONG, message.session, meta=times))])
            elif message.kind == codec.OBSERVE:
                self._send(identity, self._answers(message.session, message.seq, message.tick))  # type: ignore[operator]
                done = Message(codec.ERROR, message.session, 0, meta={"code": DONE, "message": ""})
                self._send(identity, [seeds.frames(done)])

    def _send(self, identity: bytes, messages: Iterable[Frames]) -> None:
        for frames in messages:
            self._router.send_multipart([identity, *frames])


def unsound(reply: Reply, asked: dict[int, int]) -> str:
    """Why a robot cannot use a reply; empty if it can. asked: the tick of each request, by its number."""
    if reply.chunk is None:
        return ""
    chunk, policy = reply.chunk, seeds.policy()
    if reply.seq not in asked:
        return "a chunk for a request that was never made"
    if chunk.start != asked[reply.seq]:
        return "a chunk for another tick than was asked for"
    if chunk.actions.shape != (policy.horizon, *policy.action.shape) or chunk.actions.dtype.name != policy.action.dtype:
        return "a chunk of another shape or dtype than the policy's"
    if not np.isfinite(chunk.actions).all():
        return "a chunk with actions that are no numbers"
    return ""


def observation(tick: int) -> Observation:
    return Observation({STATE: np.zeros(seeds.WIDTH, np.float32)}, {STATE: 1}, tick)


class Robot:
    """A link at `endpoint` that has said hello and opened an episode. arrived: mutated messages that reached it."""

    def __init__(self, endpoint: str, session: str) -> None:
        self.link = Link(endpoint, session)
        self.asked: dict[int, int] = {}
        self.kinds: collections.Counter[str] = collections.Counter()
        self.latest: collections.deque[list[str]] = collections.deque(maxlen=3)
        self.arrived = 0
        self.link.hello(seeds.robot(), 10)
        self.link.reset(0, 1000, "")
        self.link.tap = self._tap

    def _tap(self, outgoing: bool, frames: object) -> None:
        if not outgoing:
            self.arrived += 1
            self.latest.append([bytes(frame.buffer).hex() for frame in frames])  # type: ignore[attr-defined]

    def play(self, requests: int) -> str:
        """Ask so often and take what comes. Empty if all of it was fit for a robot, else what was not."""
        for tick in range(requests):
            self.asked[self.link.request(observation(tick), 5, 0)] = tick
            give_up_s = time.monotonic() + 5
            done = False
            while not done:
                self.link.wait(0.05)
                try:
                    replies = self.link.poll()
                except LinkError as error:
                    self.kinds[type(error).__name__] += 1
                    return ""
                except BaseException as error:
                    return f"{type(error).__name__}: {error}"[:120]
                for reply in replies:
                    self.kinds["chunk" if reply.chunk is not None else "error"] += 1
                    done |= reply.error.startswith(DONE)
                    if reason := unsound(reply, self.asked):
                        return reason
                if time.monotonic() > give_up_s:
                    return "silence: the link stopped hearing anything"
        return ""


def attack(count: int, seed: int) -> Outcome:
    """At least `count` mutated messages to one link after another; a link that raises is followed by a new one."""
    rng = random.Random(seed)
    kinds: collections.Counter[str] = collections.Counter()
    surprises: list[tuple[str, list[str]]] = []

    def answers(session: str, seq: int, tick: int) -> list[Frames]:
        mutator = Mutator(rng.randrange(2**32), _answers(session, seq, tick))
        return [mutator.message() for _ in range(BURST)]

    arrived = links = 0
    with Host(answers) as host:
        while arrived < count:
            links += 1
            robot = Robot(host.endpoint, f"robot-{links}")
            surprise = robot.play(requests=10)
            if surprise and len(surprises) < 1000:
                surprises.append((surprise, robot.latest[-1] if robot.latest else []))
            arrived += robot.arrived
            kinds += robot.kinds
            robot.link.close()
    return Outcome(arrived, links, kinds, surprises)


def _answers(session: str, seq: int, tick: int) -> list[Frames]:
    """Mostly those after which a link goes on: a STOP, a REFUSE or another policy that is understood is its end."""
    every = seeds.to_robot(session, seq, tick)
    ends = (codec.STOP, codec.REFUSE, codec.WELCOME)
    return [*[frames for frames in every if codec.decode(frames).kind not in ends] * 40, *every]
