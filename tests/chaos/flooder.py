"""A robot gone mad: it says hello as it should, and then sends observations as fast as it can."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import NamedTuple, Self

import zmq
from fuzz import seeds

from tactus.runtime.wire import codec

SESSION = "flooder"
GREET_EVERY_S = 0.5


class Flood(NamedTuple):
    """chunks: observations that were answered; the others were superseded, refused or lost."""

    sent: int
    chunks: int
    seconds: float


class Flooder:
    """A process of its own that floods the policy node at `endpoint` until the `with` block ends; then `flood`."""

    def __init__(self, endpoint: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_run, args=(endpoint, there), daemon=True)
        self._process.start()
        there.close()
        self.flood = Flood(0, 0, 0.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._here.send(None)
        if self._here.poll(5):
            self.flood = self._here.recv()
        self._process.kill()
        self._process.join()


def _run(endpoint: str, there: Connection) -> None:
    dealer = zmq.Context.instance().socket(zmq.DEALER)
    dealer.setsockopt(zmq.ROUTING_ID, SESSION.encode())
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.IMMEDIATE, 1)
    dealer.setsockopt(zmq.RECONNECT_IVL, 50)
    dealer.connect(endpoint)
    began_s = time.monotonic()
    sent = chunks = 0
    greeted_s = 0.0
    while not there.poll():
        if time.monotonic() - greeted_s > GREET_EVERY_S and dealer.poll(100, zmq.POLLOUT):
            greeted_s = time.monotonic()
            dealer.send_multipart(seeds.hello(SESSION))
            dealer.send_multipart(seeds.reset(SESSION))
        for _ in range(100):
            try:
                dealer.send_multipart(seeds.observe(SESSION, sent + 2, tick=sent), zmq.NOBLOCK)
                sent += 1
            except zmq.Again:
                dealer.poll(10)
                break
        while codec.arrived(dealer):
            header = bytes(codec.receive(dealer)[0].buffer)
            chunks += codec.CHUNK.encode() in header
    there.send(Flood(sent, chunks, time.monotonic() - began_s))
    dealer.close()
