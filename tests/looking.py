"""A policy that looks: its actions follow from every bit of the arrays it is given, which it keeps."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence

import numpy as np

from tactus.hal.spec import IMAGES, STATE, Chunk, Feature, Observation, PolicySpec, RobotSpec, image
from tactus.policies.policy import Policy, Request, Session
from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.wire.config import WireConfig
from tactus.runtime.wire.keys import ClientKeys
from tactus.runtime.wire.link import Link, Reply

HEIGHT, WIDTH = 120, 200
TOP, WRIST = f"{IMAGES}top", f"{IMAGES}wrist"
FEATURES = {TOP: image(HEIGHT, WIDTH), STATE: Feature((3,), "float32"), WRIST: image(HEIGHT, WIDTH)}
ACTION = Feature((3,), "float32")
ROBOT = RobotSpec("looked at", 50.0, FEATURES, ACTION)


class Looking(Policy):
    """seen: the arrays of every request, as they were given, not copied. slow_s: how long it takes."""

    def __init__(self, features: dict[str, Feature] = FEATURES, offsets: tuple[int, ...] = (0,)) -> None:
        self._spec = PolicySpec("looking", features, ACTION, 8, offsets)
        self.seen: list[dict[str, np.ndarray]] = []
        self.slow_s = 0.0

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        pass

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        return [self._chunk(request) for request in requests]

    def _chunk(self, request: Request) -> Chunk:
        arrays = dict(request.observation.arrays)
        time.sleep(self.slow_s)
        self.seen.append(arrays)
        crc = zlib.crc32(b"".join(arrays[name].tobytes() for name in sorted(arrays)))
        return Chunk(request.observation.tick, np.random.default_rng(crc).normal(size=(8, 3)).astype(np.float32))


class Glancing(Looking):
    """seen: copies, taken when it is done."""

    def _chunk(self, request: Request) -> Chunk:
        chunk = super()._chunk(request)
        self.seen[-1] = {name: array.copy() for name, array in self.seen[-1].items()}
        return chunk


def scene(tick: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """uint8[height, width, 3]: colours that run into each other, another for each tick, with an edge."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 40 * tick % 256)], axis=-1).astype(
        np.uint8
    )
    picture[height // 3 : height // 2, tick % width : tick % width + 20] = (250, 10, 30)
    return picture


def observed(tick: int) -> Observation:
    """The second camera hangs upside down: its array does not lie in memory as it is read."""
    arrays = {TOP: scene(tick), STATE: np.full(3, tick, np.float32), WRIST: scene(tick + 100)[::-1]}
    return Observation(arrays, dict.fromkeys(arrays, tick), tick)


def greet(node: PolicyNode | str, keys: ClientKeys | None = None, robot: RobotSpec = ROBOT, **wire: str) -> Link:
    """A link that has said hello and opened an episode; `said` are its lines."""
    link = Link(node if isinstance(node, str) else node.endpoint, keys=keys, wire=WireConfig(**wire))
    said: list[str] = []
    link.said, link.say = said, said.append  # type: ignore[attr-defined]
    try:
        link.hello(robot, 10)
    except BaseException:
        link.close()
        raise
    link.reset(0, 1, "")
    return link


def answer(link: Link, within_s: float = 10.0) -> Reply:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        link.wait(0.05)
        if replies := link.poll():
            return replies[0]
    raise AssertionError("no reply")


def ask(link: Link, observation: Observation) -> Reply:
    link.request(observation, 0, 0)
    return answer(link)
