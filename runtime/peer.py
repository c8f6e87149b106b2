"""What a policy node keeps of one robot: its episode, the newest observation that waits, and the chunks it was sent."""

from __future__ import annotations

from dataclasses import dataclass, field

from hal.spec import Chunk, Observation
from policies.policy import Prefix, Request, Session
from runtime.batching import Waiting
from runtime.inference import Ask
from runtime.wire import Message, WireError

CHUNKS_KEPT = 4
"""Latest chunks that a robot may name as the one it merged: one is on its way at a time, and resends add a few."""


@dataclass
class Peer:
    """fps: its control rate if it lives in real time, else None.

    reset: an episode the policy has not been told of yet. waiting: an observation, and its arrival. sent: its latest
    chunks by request, for policies that continue them.
    """

    session: str
    fps: float | None = None
    reset: Session | None = None
    opened: bool = False
    waiting: Message | None = None
    received_ns: int = 0
    sent: dict[int, Chunk] = field(default_factory=dict)

    def begin(self, message: Message) -> None:
        """A RESET: an episode is over, and what waited was for it. Raises WireError if it does not say which begins."""
        episode, seed, task = (message.meta.get(key) for key in ("episode", "seed", "task"))
        if type(episode) is not int or type(seed) is not int or type(task) is not str:
            raise WireError("header", "RESET needs an integer episode and seed, and a task text")
        self.reset, self.waiting = Session(self.session, seed + episode, task), None

    def unusable(self, message: Message) -> str:
        """Why an OBSERVE cannot be answered, its arrays aside; empty if it can."""
        if self.reset is None and not self.opened:
            return "an observation before the first RESET"
        meta = message.meta
        if type(meta.get("task")) is not str or type(meta.get("ticks_left")) is not int:
            return "an observation needs a task text and an integer ticks_left"
        stamps_ns = meta.get("stamps_ns")
        if type(stamps_ns) is not tuple or len(stamps_ns) != len(message.arrays):
            return "an observation needs one stamp per array"
        if any(type(meta.get(key, 0)) is not int for key in ("merged", "delay_ticks")):
            return "merged and delay_ticks must be integers"
        return ""

    def patience(self) -> Waiting:
        """How long the waiting observation can wait."""
        assert self.waiting is not None
        received_s = self.received_ns / 1e9
        if self.fps is None:
            return Waiting(received_s, None)
        return Waiting(received_s, received_s + self.waiting.meta["ticks_left"] / self.fps)

    def take(self) -> tuple[Message, Ask]:
        """The waiting observation, and what to ask the policy for it; nothing waits any longer."""
        message, reset = self.waiting, self.reset
        assert message is not None
        stamps_ns = dict(zip(message.arrays, message.meta["stamps_ns"], strict=True))
        observation = Observation(message.arrays, stamps_ns, message.tick, message.meta["task"])
        request = Request(self.session, observation, message.meta["ticks_left"], self._prefix(message))
        self.opened, self.reset, self.waiting = True, None, None
        return message, Ask(request, reset)

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
