"""Hostile peers of a policy node: strangers and robots that send mutated messages, and bytes that are no ZeroMQ."""

from __future__ import annotations

import random
import socket
import time
from collections import deque
from typing import NamedTuple

import zmq

from fuzz import seeds, zmtp
from fuzz.mutator import Frames, Mutator
from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import WireError

PEERS = 16
PEER_LIVES = 400
"""Messages that a peer sends before another one, under a new name, takes its place."""
KNOWN = 0.7
"""The share of peers that say HELLO and RESET properly first, so that what follows reaches deep code."""
PROPER = 0.2
"""How often a message as it should be comes before a mutated one: without, most peers would soon be unknown again."""
HALF_OPEN = 50


class Sent(NamedTuple):
    """What a crowd has done so far. left: messages that their peer could not get rid of for a second."""

    messages: int
    answers: int
    peers: int
    garbage: int
    left: int


class _Peer(NamedTuple):
    socket: zmq.Socket[bytes]
    mutator: Mutator
    session: str


class Crowd:
    """Attacks the policy node at `endpoint`; same seed, same messages. Not a thread: call `send` again and again."""

    def __init__(self, endpoint: str, seed: int) -> None:
        self._endpoint = endpoint
        self._rng = random.Random(seed)
        self._peers: list[_Peer] = []
        self._half_open: deque[socket.socket] = deque()
        self._messages = self._answers = self._named = self._garbage = self._left = 0

    @property
    def sent(self) -> Sent:
        return Sent(self._messages, self._answers, self._named, self._garbage, self._left)

    def send(self, count: int) -> None:
        """That many mutated messages, and now and then something that is no message at all."""
        for _ in range(count):
            if len(self._peers) < PEERS:
                self._peers.append(self._peer())
            peer = self._rng.choice(self._peers)
            if self._rng.random() < PROPER:
                proper = self._rng.choice((seeds.hello, seeds.reset, self._observe, self._observe))
                self._deliver(peer, proper(peer.session))
            self._deliver(peer, _harmless(peer.mutator.message()))
            self._messages += 1
            if self._rng.random() < 1 / PEER_LIVES:
                self._leave(peer)
            if self._rng.random() < 1 / 200:
                self._garbage += self._noise()

    def _observe(self, session: str) -> Frames:
        """One that has not been heard before."""
        return seeds.observe(session, self._messages + seeds.RESET_SEQ + 1)

    def close(self) -> None:
        """Let go of everybody; what is still on its way out has two seconds."""
        for peer in list(self._peers):
            self._leave(peer)
        while self._half_open:
            self._half_open.popleft().close()

    def _peer(self) -> _Peer:
        self._named += 1
        session = f"stranger-{self._named}-{self._rng.randrange(2**32):08x}"
        dealer = zmq.Context.instance().socket(zmq.DEALER)
        dealer.setsockopt(zmq.ROUTING_ID, session.encode())
        dealer.setsockopt(zmq.LINGER, 2000)
        dealer.connect(self._endpoint)
        every = seeds.to_node(session)
        often = [frames for frames in every if codec.decode(frames).kind != codec.BYE]  # or few would stay to be known
        peer = _Peer(dealer, Mutator(self._rng.randrange(2**32), [*often * 3, *every]), session)
        if self._rng.random() < KNOWN:
            self._deliver(peer, seeds.hello(session, real_time=self._rng.random() < 0.5))
            self._deliver(peer, seeds.reset(session))
            if self._rng.random() < 0.5:
                self._deliver(peer, seeds.observe(session))
        return peer

    def _leave(self, peer: _Peer) -> None:
        if self._rng.random() < 0.7:
            self._deliver(peer, seeds.frames(codec.Message(codec.BYE, peer.session)))
        peer.socket.close()
        self._peers.remove(peer)

    def _deliver(self, peer: _Peer, frames: Frames) -> None:
        give_up_s = time.monotonic() + 1
        while not peer.socket.poll(10, zmq.POLLOUT):
            self._read(peer)
            if time.monotonic() > give_up_s:
                self._left += 1
                return
        peer.socket.send_multipart(frames)
        self._read(peer)

    def _read(self, peer: _Peer) -> None:
        while codec.arrived(peer.socket):
            codec.receive(peer.socket)
            self._answers += 1

    def _noise(self) -> int:
        """Bytes to the port, not all of which hang up: greetings cut short, READYs that lie, frames out of order."""
        rng = self._rng
        ready = zmtp.ready(rng.choice((b"", b"x" * 255, b"\0bad", b"n")), rng.choice((b"DEALER", b"PUB", b"\xff" * 30)))
        greeting = zmtp.GREETING[: rng.randrange(len(zmtp.GREETING) + 1)]
        said = rng.choice(
            (
                rng.randbytes(rng.randrange(1, 300)),
                b"GET / HTTP/1.1\r\nHost: robot\r\n\r\n",
                greeting,
                greeting + rng.randbytes(30),
                zmtp.GREETING.replace(b"NULL", rng.choice((b"CURV", b"PLAI", b"\0\0\0\0"))) + ready,
                zmtp.GREETING + ready[: rng.randrange(len(ready))],
                zmtp.GREETING + ready + zmtp.frame(rng.randbytes(rng.randrange(300)), rng.randrange(256)),
                zmtp.GREETING + ready + bytes([zmtp.LONG]) + b"\x7f" + rng.randbytes(7),
                zmtp.GREETING + ready + zmtp.frame(b"half a message", zmtp.MORE) * rng.randrange(1, 9),
                b"\x01\x00" + rng.randbytes(20),  # as ZMTP 1.0 began
            )
        )
        try:
            peer = zmtp.connect(self._endpoint)
            peer.sendall(said)
        except OSError:
            return 1
        self._half_open.append(peer)
        if len(self._half_open) > HALF_OPEN:
            self._half_open.popleft().close()
        return 1


def _harmless(frames: Frames) -> Frames:
    """A STOP that is as it should be stops every robot, whoever sends it: then it is no mutation but a stop."""
    try:
        message = codec.decode(frames)
    except WireError:
        return frames
    return [b"STOP"] if message.kind == codec.STOP else frames
