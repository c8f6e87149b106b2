"""A bad network between robots and a policy node, a process of its own: whole ZeroMQ messages go in and out.

    robot ── DEALER ─▶ ROUTER [ lane up   ] DEALER ─▶ policy node        one DEALER a robot, under the robot's own
          ◀─────────── ROUTER [ lane down ] DEALER ◀─                    routing id, since a session must be its own

The node may be killed and come back at its address: what is sent meanwhile is lost, as on a network.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import NamedTuple, Self

import zmq

from chaos.lane import Faults, Lane, Tally
from tactus.runtime.wire import codec

Frames = list[bytes]
IDLE_S = 0.1


class Totals(NamedTuple):
    """Of all robots. lost: messages for a node that was not there."""

    up: Tally
    down: Tally
    lost: int
    robots: int


class _Robot(NamedTuple):
    dealer: zmq.Socket[bytes]
    up: Lane[Frames]
    down: Lane[Frames]


class Proxy:
    """Not a thread: `step` again and again. `endpoint` is where robots connect."""

    def __init__(self, node: str, up: Faults, down: Faults, seed: int) -> None:
        self._node = node
        self._up, self._down, self._seed = up, down, seed
        self._router = zmq.Context.instance().socket(zmq.ROUTER)
        self._router.setsockopt(zmq.LINGER, 0)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        self.endpoint = f"tcp://127.0.0.1:{self._router.bind_to_random_port('tcp://127.0.0.1')}"
        self._poller = zmq.Poller()
        self._poller.register(self._router, zmq.POLLIN)
        self._robots: dict[bytes, _Robot] = {}
        self._lost = 0

    def step(self) -> None:
        """Wait until something is to be done, and do it."""
        now_s = time.monotonic()
        lanes = [lane for robot in self._robots.values() for lane in (robot.up, robot.down)]
        waits_s = [wait_s for lane in lanes if (wait_s := lane.wait_s(now_s)) is not None]
        self._poller.poll(min([IDLE_S, *waits_s]) * 1000)
        now_s = time.monotonic()
        while codec.arrived(self._router):
            identity, *frames = self._router.recv_multipart()
            self._robot(identity).up.put(now_s, frames)
        for identity, robot in self._robots.items():
            while codec.arrived(robot.dealer):
                robot.down.put(now_s, robot.dealer.recv_multipart())
            for frames in robot.up.due(now_s):
                try:
                    robot.dealer.send_multipart(frames, zmq.NOBLOCK)
                except zmq.Again:
                    self._lost += 1
            for frames in robot.down.due(now_s):
                self._router.send_multipart([identity, *frames])

    def _robot(self, identity: bytes) -> _Robot:
        if identity not in self._robots:
            dealer = zmq.Context.instance().socket(zmq.DEALER)
            dealer.setsockopt(zmq.ROUTING_ID, identity)
            dealer.setsockopt(zmq.IMMEDIATE, 1)
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.RECONNECT_IVL, 20)
            dealer.setsockopt(zmq.RECONNECT_IVL_MAX, 100)
            dealer.connect(self._node)
            dealer.poll(100, zmq.POLLOUT)  # a node that is there hears the first message
            self._poller.register(dealer, zmq.POLLIN)
            index = len(self._robots)  # not its name, which is drawn anew each time
            up, down = Lane(self._up, f"{self._seed}:{index}:up"), Lane(self._down, f"{self._seed}:{index}:down")
            self._robots[identity] = _Robot(dealer, up, down)
        return self._robots[identity]

    @property
    def totals(self) -> Totals:
        robots = self._robots.values()
        up = sum((robot.up.tally for robot in robots), Tally())
        return Totals(up, sum((robot.down.tally for robot in robots), Tally()), self._lost, len(robots))

    def close(self) -> None:
        for robot in self._robots.values():
            robot.dealer.close(0)
        self._router.close(0)


class RunningProxy:
    """A Proxy in a process of its own, for as long as the `with` block lasts; `totals` afterwards, or by `ask`."""

    def __init__(self, node: str, up: Faults, down: Faults, seed: int = 0) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_run, args=(node, up, down, seed, there), daemon=True)
        self._process.start()
        there.close()
        self.endpoint: str = self._here.recv()

    def ask(self) -> Totals:
        """What has happened so far."""
        self._here.send(True)
        return self._here.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._here.close()
        self._process.join(2)
        self._process.kill()
        self._process.join()


def _run(node: str, up: Faults, down: Faults, seed: int, there: Connection) -> None:
    proxy = Proxy(node, up, down, seed)
    there.send(proxy.endpoint)
    try:
        while True:
            proxy.step()
            if there.poll():
                there.recv()
                there.send(proxy.totals)
    except (EOFError, ConnectionError):  # whoever started it has let go
        proxy.close()
