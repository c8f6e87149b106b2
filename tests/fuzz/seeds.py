"""Every kind of message as it is really sent: what mutations begin from."""

from __future__ import annotations

import os

import numpy as np

from tactus.hal.spec import IMAGES, STATE, Feature, PolicySpec, RobotSpec
from tactus.hal.synthetic import SyntheticConfig
from tactus.runtime.wire import codec, pictures
from tactus.runtime.wire.codec import Message

WIDTH, HORIZON = 7, 50
TICKER = ["--policy.type=ticker", f"--policy.width={WIDTH}", f"--policy.horizon={HORIZON}"]
"""What `tactus serve` is told so that it fits these messages."""


def robot() -> RobotSpec:
    return SyntheticConfig(width=WIDTH).make().spec


def policy() -> PolicySpec:
    action = robot().action
    return PolicySpec("ticker", dict(robot().observations), action, HORIZON)


def frames(message: Message) -> list[bytes]:
    """Encoded, and copied so that it can be kept and changed."""
    return [bytes(frame) for frame in codec.encode(message)]


def hello(session: str, real_time: bool = True) -> list[bytes]:
    return frames(Message(codec.HELLO, session, meta={"robot": robot().to_dict(), "real_time": real_time}))


RESET_SEQ = 1


def reset(session: str, episode: int = 0) -> list[bytes]:
    meta = {"episode": episode, "seed": 1000, "task": "pick up the cube"}
    return frames(Message(codec.RESET, session, RESET_SEQ, meta=meta))


def observe(session: str, seq: int = RESET_SEQ + 1, tick: int = 0, ticks_left: int = 20) -> list[bytes]:
    """Of the episode that `reset` opens. seq: more than of any before, or it counts as heard already."""
    arrays = {STATE: np.linspace(-1, 1, WIDTH, dtype=np.float32)}
    meta = {"task": "pick up the cube", "stamps_ns": [tick * 1000], "ticks_left": ticks_left, "merged": max(0, seq - 1)}
    meta["reset"] = RESET_SEQ
    return frames(Message(codec.OBSERVE, session, seq, tick, arrays, meta))


def ping(session: str, sent_ns: int = 123456789) -> list[bytes]:
    return frames(Message(codec.PING, session, meta={"sent_ns": sent_ns}))


def to_node(session: str) -> list[list[bytes]]:
    """What robots and stop commands send."""
    arrays = {STATE: np.zeros(WIDTH, np.float64), f"{IMAGES}top": np.zeros((24, 32, 3), np.uint8)}
    meta = {"task": "", "stamps_ns": [1, 2], "ticks_left": 3, "merged": 0, "delay_ticks": 2, "reset": RESET_SEQ}
    about = {"robot": robot().to_dict(), "real_time": True, "images": "jpeg"}
    announced = {"pid": os.getpid(), "fd": 0, "key": "ab" * 16}
    places = {"slot": 4096, "arrays": {f"{IMAGES}top": ("uint8", (24, 32, 3), 4160)}}
    elsewhere = {STATE: arrays[STATE], f"{IMAGES}top": np.zeros(0, np.uint8)}
    return [
        hello(session),
        frames(Message(codec.HELLO, session, meta={**about, "memory": announced})),
        frames(pictures.packed(Message(codec.OBSERVE, session, 2, 9, arrays, meta), 90)),
        frames(Message(codec.OBSERVE, session, 2, 9, elsewhere, {**meta, "memory": places})),
        hello(session, real_time=False),
        reset(session),
        observe(session),
        frames(Message(codec.OBSERVE, session, 2, 9, arrays, meta)),
        ping(session),
        frames(Message(codec.STOP, session, meta={"reason": "a person in the cell"})),
        frames(Message(codec.STOPPED, session, meta={"by": "00ff10"})),
        frames(Message(codec.BYE, session)),
    ]


def to_robot(session: str, seq: int = 1, tick: int = 0) -> list[list[bytes]]:
    """What policy nodes send. seq, tick: of the request that the chunk answers."""
    actions = np.linspace(0, 1, HORIZON * WIDTH, dtype=np.float32).reshape(HORIZON, WIDTH)
    meta = {"timings_ms": {"infer": 1.5, "queued": 0.1}, "received_ns": 10**9, "sent_ns": 10**9 + 1}
    pong = {"ping_ns": 10**9, "pong_ns": 10**9, "received": seq, "answered": seq}
    other = PolicySpec(
        "other", {STATE: Feature((3,), "float64", unit=("m",) * 3)}, Feature((2,), "float32"), 4, (-1, 0)
    )
    agreed = {"policy": policy().to_dict(), "node": "a", "known": False, "images": ["raw", "jpeg"]}
    return [
        frames(Message(codec.WELCOME, session, meta={"policy": policy().to_dict(), "node": "a", "known": False})),
        frames(Message(codec.WELCOME, session, meta={**agreed, "memory": {"proof": "ab" * 16}})),
        frames(Message(codec.WELCOME, session, meta={"policy": other.to_dict(), "node": "b", "known": True})),
        frames(Message(codec.REFUSE, session, meta={"reasons": ["fps: robot 30, policy 10"]})),
        frames(Message(codec.CHUNK, session, seq, tick, {"action": actions}, meta)),
        frames(Message(codec.PONG, session, meta=pong)),
        frames(Message(codec.PONG, session)),
        frames(Message(codec.STOP, session, meta={"reason": "a person in the cell", "by": "00ff10"})),
        frames(Message(codec.ERROR, session, seq, tick, meta={"code": "policy", "message": "ValueError: no"})),
        frames(
            Message(codec.ERROR, session, seq, tick, meta={"code": "unknown_session", "message": "say HELLO first"})
        ),
    ]
