"""One robot's session at a policy node: its episode, the newest observation that waits, and what it was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tactus.hal.spec import Chunk, Feature, Observation, RobotSpec
from tactus.policies.policy import Prefix, Request, Session
from tactus.runtime.policy_node.batching import Waiting
from tactus.runtime.policy_node.inference import Ask, Held
from tactus.runtime.policy_node.served_policy import ServedPolicy
from tactus.runtime.rate import Rate
from tactus.runtime.wire import pictures
from tactus.runtime.wire.codec import Message, WireError
from tactus.runtime.wire.config import JPEG, RAW
from tactus.runtime.wire.shared_arrays import MEMORY, SharedReader

CHUNKS_KEPT = 4
"""Latest chunks that a robot may name as the one it merged: one is on its way at a time, and resends add a few."""

MAX_TICKS = 2**31


@dataclass
class RobotSession:
    """owner: the CURVE key it came under, b"" without keys. rate: of its messages. heard_s: when the last one came.
    gone_s: since when its connection is away, None while it is there. fps: its control rate if it lives in real time,
    else None.

    RESET and OBSERVE share one count, by which what comes twice or late is known. reset_seq: of the RESET in force, 0
    before the first. received: of the newest OBSERVE. answered, reply: of the latest answer, kept in case it is lost.

    reset: an episode the policy has not been told of yet. waiting: an observation, and its arrival. sent: its latest
    chunks by request, for policies that continue them. action: of its spec.

    images, memory: how its arrays travel, as agreed upon in the handshake. served: whose answers it gets. robot: its
    spec. takes_swaps: whether another policy may go on in mid-episode. episode: the one that is open.
    """

    session: str
    owner: bytes = b""
    rate: Rate = field(default_factory=lambda: Rate(1e9))
    heard_s: float = 0.0
    gone_s: float | None = None
    fps: float | None = None
    reset_seq: int = 0
    received: int = 0
    answered: int = 0
    reply: Message | None = None
    reset: Session | None = None
    waiting: Message | None = None
    received_ns: int = 0
    sent: dict[int, Chunk] = field(default_factory=dict)
    action: Feature = field(default_factory=lambda: Feature((), "float32"))
    images: str = RAW
    memory: SharedReader | None = None
    served: ServedPolicy | None = None
    robot: RobotSpec | None = None
    takes_swaps: bool = False
    episode: Session | None = None

    def begin(self, message: Message) -> bool:
        """A RESET: an episode is over, and what waited was for it. False if it is one that was heard before.

        Raises WireError if it does not say which begins.
        """
        episode, seed, task = (message.meta.get(key) for key in ("episode", "seed", "task"))
        if type(episode) is not int or type(seed) is not int or type(task) is not str or message.seq < 1:
            raise WireError("header", "RESET needs a seq of at least 1, an integer episode and seed, and a task text")
        if not 0 <= seed + episode < 2**63:
            raise WireError(
                "header", "RESET needs a seed and an episode that add up to less than 2**63, and not below 0"
            )
        if message.seq <= self.reset_seq:
            return False
        explore = message.meta.get("explore", False) is True
        self.reset = self.episode = Session(self.session, seed + episode, task, explore)
        self.waiting = None
        self.sent.clear()  # another episode's ticks
        self.reset_seq = message.seq
        return True

    def outlines(self, message: Message) -> Mapping[str, np.ndarray]:
        """The arrays that an OBSERVE will have once it is unpacked: shapes and dtypes hold, what is in them may not.
        Nothing has been decoded or copied yet. Raises WireError for what is packed as nobody agreed to, or badly.
        """
        meta = message.meta
        if not _is_packed(message):
            return message.arrays
        if JPEG in meta and self.images != JPEG:
            raise WireError(JPEG, "pictures as JPEG were not agreed upon: say so in HELLO")
        if MEMORY in meta and self.memory is None:
            raise WireError(MEMORY, "shared memory was not agreed upon: announce it in HELLO")
        arrays = dict(message.arrays)
        for name, shape in pictures.shapes(message).items():
            arrays[name] = np.broadcast_to(np.uint8(0), shape)
        if self.memory is not None and MEMORY in meta:
            arrays |= self.memory.views(message)
        return arrays

    @property
    def is_packed(self) -> bool:
        """Whether the observation that waits is."""
        return self.waiting is not None and _is_packed(self.waiting)

    def unpack(self, copied: bool) -> None:
        """Decode the arrays of the observation that waits, or find them in memory that is shared. copied: and copy
        them, since they are needed beyond the answer. Raises WireError; Overwritten if there is a newer one. It does
        not wait any longer then."""
        message, self.waiting = self.waiting, None
        assert message is not None
        if MEMORY in message.meta:
            if self.memory is None:
                raise WireError(MEMORY, "shared memory is not agreed upon any longer")
            message = self.memory.unpacked(message, copied)
        message = pictures.unpacked(message)
        self.waiting = message._replace(arrays=dict(message.arrays))

    def unusable(self, message: Message) -> str:
        """Why an OBSERVE cannot be answered, its arrays aside; empty if it can."""
        meta = message.meta
        if type(meta.get("task")) is not str or type(meta.get("ticks_left")) is not int:
            return "an observation needs a task text and an integer ticks_left"
        if not 0 <= meta["ticks_left"] <= MAX_TICKS:
            return f"ticks_left must be 0 to {MAX_TICKS}"
        stamps_ns = meta.get("stamps_ns")
        if type(stamps_ns) is not tuple or len(stamps_ns) != len(message.arrays):
            return "an observation needs one stamp per array"
        if any(type(stamp) is not int for stamp in stamps_ns):
            return "stamps must be integers, in ns"
        if any(type(meta.get(key, 0)) is not int for key in ("merged", "delay_ticks", "reset")):
            return "merged, delay_ticks and reset must be integers"
        held = meta.get("held", ())
        if type(held) is not tuple or any(type(value) not in (int, float) for value in held):
            return "held must be a list of numbers"
        return ""

    def missed_reset(self, message: Message) -> bool:
        """Whether this OBSERVE belongs to an episode whose RESET never came."""
        return message.meta.get("reset", 0) > self.reset_seq or not self.reset_seq

    def is_late(self, message: Message) -> bool:
        """Whether this OBSERVE has been received before, or belongs to an episode that is over."""
        return message.seq <= self.received or message.meta.get("reset", 0) < self.reset_seq

    def wait(self, message: Message, now_ns: int) -> None:
        """Keep an observation for the policy, in the place of one that may wait already."""
        self.waiting, self.received, self.received_ns = message, message.seq, now_ns

    def patience(self) -> Waiting:
        """How long the waiting observation can wait."""
        assert self.waiting is not None
        received_s = self.received_ns / 1e9
        if self.fps is None:
            return Waiting(received_s, None)
        return Waiting(received_s, received_s + self.waiting.meta["ticks_left"] / self.fps)

    def take(self) -> tuple[Message, Ask]:
        """The waiting observation, without its arrays, and what to ask the policy for it; nothing waits any longer."""
        message, reset = self.waiting, self.reset
        assert message is not None
        stamps_ns = dict(zip(message.arrays, message.meta["stamps_ns"], strict=True))
        observation = Observation(message.arrays, stamps_ns, message.tick, message.meta["task"])
        request = Request(self.session, observation, message.meta["ticks_left"], self._prefix(message))
        self.reset, self.waiting = None, None
        return message._replace(arrays={}), Ask(request, reset, held=_held(message))

    def answer(self, request: Message, reply: Message) -> Message:
        """Its latest answer, as it is sent. Nobody may have the request's arrays that means to let go of them.
        Raises Overwritten if they have not stayed as they were."""
        if self.memory is not None:
            self.memory.release(request)
            if self.memory.kept:
                reply = reply._replace(meta={**reply.meta, "kept": self.memory.kept})
        self.answered, self.reply = reply.seq, reply
        return reply

    def close(self) -> None:
        """The session is over."""
        if self.memory is not None:
            self.memory.close()
            self.memory = None

    def swap(self, served: ServedPolicy) -> None:
        """Another policy answers from now on; the episode that is open begins anew for it."""
        self.served, self.reset = served, self.episode
        self.sent.clear()  # another policy's chunks are no prefix for it

    def keep(self, seq: int, chunk: Chunk) -> None:
        """Remember what was answered to request `seq`."""
        self.sent[seq] = chunk
        for old in sorted(self.sent)[:-CHUNKS_KEPT]:
            del self.sent[old]

    def _prefix(self, message: Message) -> Prefix | None:
        """What is left, at this observation, of the chunk that the robot says it merged last."""
        delay = message.meta.get("delay_ticks")
        chunk = self.sent.get(message.meta.get("merged", 0))
        if delay is None or chunk is None or chunk.raw is None or message.tick < chunk.start:
            return None
        left = chunk.raw[message.tick - chunk.start :]
        return Prefix(left, min(max(0, delay), len(left)))


def _held(message: Message) -> Held | None:
    command = message.meta.get("held")
    return None if command is None else Held(command, max(0, message.meta.get("delay_ticks", 0)))


def _is_packed(message: Message) -> bool:
    return JPEG in message.meta or MEMORY in message.meta
