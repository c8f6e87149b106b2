"""One direction of a bad network: which messages come out of it, and when. Pure: times are passed in.

put     a   b   c   d   e   f        b is dropped, c comes twice, d is overtaken by e,
out     a       c c     e d    f     f comes late, since the whole lane stood still for a while
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Faults:
    """drop, duplicate, reorder: probabilities per message; one that is reordered is held back for reorder_ms.

    delay_ms, jitter_ms: of every message, the latter drawn evenly; order is kept. stall_every_s: mean time between
    stalls of stall_ms, in which nothing comes out and nothing is lost; 0: none.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_ms: float = 40.0
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    stall_every_s: float = 0.0
    stall_ms: float = 200.0


@dataclass
class Tally:
    """What has happened in a lane so far; stalls: of the lane, stalled: messages that waited for the end of one."""

    seen: int = 0
    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    stalls: int = 0
    stalled: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(mine + its for mine, its in zip(vars(self).values(), vars(other).values(), strict=True)))


class Lane[T]:
    """Same faults, same seed, same times: the same fate for each message."""

    def __init__(self, faults: Faults, seed: str) -> None:
        self.tally = Tally()
        self._faults = faults
        self._rng = random.Random(seed)
        self._held: list[tuple[float, int, T]] = []
        self._count = itertools.count()
        self._newest_s = 0.0  # when the latest message that keeps its place comes out
        self._stall_s: tuple[float, float] | None = None

    def put(self, now_s: float, item: T) -> None:
        """A message goes in."""
        faults, rng, tally = self._faults, self._rng, self.tally
        tally.seen += 1
        draws = rng.random(), rng.random(), rng.random(), rng.random()  # always as many: one fate is not another's
        if draws[0] < faults.drop:
            tally.dropped += 1
            return
        out_s = now_s + (faults.delay_ms + draws[3] * faults.jitter_ms) / 1000
        if (stall := self._stalled_until(now_s)) is not None:
            tally.stalled += 1
            out_s = max(out_s, stall)
        if draws[1] < faults.reorder:
            tally.reordered += 1
            self._hold(out_s + faults.reorder_ms / 1000, item)
            return
        self._newest_s = out_s = max(out_s, self._newest_s)
        self._hold(out_s, item)
        if draws[2] < faults.duplicate:
            tally.duplicated += 1
            self._hold(out_s, item)

    def due(self, now_s: float) -> list[T]:
        """What comes out now, oldest first."""
        out = []
        stall = self._stalled_until(now_s)
        while self._held and self._held[0][0] <= now_s and stall is None:
            out.append(heapq.heappop(self._held)[2])
        return out

    def wait_s(self, now_s: float) -> float | None:
        """How long nothing will come out; None if nothing is inside."""
        if not self._held:
            return None
        return max(0.0, self._held[0][0] - now_s, (self._stalled_until(now_s) or 0.0) - now_s)

    def _hold(self, out_s: float, item: T) -> None:
        heapq.heappush(self._held, (out_s, next(self._count), item))

    def _stalled_until(self, now_s: float) -> float | None:
        """The end of the stall that `now_s` is in."""
        faults = self._faults
        if not faults.stall_every_s:
            return None
        if self._stall_s is None:
            self._stall_s = self._next_stall(now_s)
        while now_s >= self._stall_s[1]:
            self.tally.stalls += 1
            self._stall_s = self._next_stall(self._stall_s[1])
        return self._stall_s[1] if now_s >= self._stall_s[0] else None

    def _next_stall(self, after_s: float) -> tuple[float, float]:
        begin_s = after_s + self._rng.expovariate(1 / self._faults.stall_every_s)
        return begin_s, begin_s + self._faults.stall_ms / 1000
