"""Batching of several robots' observations: which go into the next forward pass, and when it starts.

An observation may wait for others' as long as its robot can afford it, and no longer than a pass of its own would
take: by then it could have been answered alone. A robot in real time needs its chunk before its queue runs dry; one
in virtual time stands still meanwhile and has no deadline. What is in virtual time is there to be repeated: such
robots share a pass only if asked to, since the company a row keeps can change its last bits.

    robot A   observation ─── waits ───┐
    robot B              observation ──┤ forward pass ──▶ chunks     |          |
                                       └ latest start for A          A runs dry B runs dry
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

SAFETY = 1.5
"""How much longer than usual the next forward pass is allowed for."""
ALLOWANCE_S = 0.005
"""For the way back and the tick that the chunk has to be there before."""
FORGET = 0.2
"""Weight of the newest measurement in the running mean of how long a pass takes."""


@dataclass(frozen=True)
class Waiting:
    """An observation: when it came, and when its robot runs dry; None in virtual time. Seconds, monotonic."""

    received_s: float
    dry_s: float | None


@dataclass
class Batching:
    """max_batch: observations in one pass; virtual_batch: of robots in virtual time.

    patience_s: the longest that any of them is kept waiting for others.
    """

    max_batch: int
    patience_s: float
    virtual_batch: int = 1
    _pass_s: dict[int, float] = field(default_factory=dict)

    def took(self, size: int, seconds: float) -> None:
        """A pass of `size` took so long. The first one of a size is slow and says little; it is corrected soon."""
        known = self._pass_s.get(size)
        self._pass_s[size] = seconds if known is None else known + FORGET * (seconds - known)

    def expected_s(self, size: int) -> float:
        """How long a pass of `size` will take: as measured, else as the next larger one known, else as the largest."""
        if not self._pass_s:
            return 0.0
        return self._pass_s[min((n for n in self._pass_s if n >= size), default=max(self._pass_s))]

    def start_s(self, waiting: Sequence[Waiting], robots: int) -> float:
        """When the next pass must start; in the past if there is nothing to wait for. robots: who might still ask."""
        chosen = self.chosen(waiting)
        if len(waiting) >= robots or len(chosen) >= self._limit(waiting[chosen[0]]):
            return 0.0
        return min(self._latest_start_s(one, len(waiting) + 1) for one in waiting)

    def chosen(self, waiting: Sequence[Waiting]) -> list[int]:
        """Indices of those in the next pass, all in real time or all in virtual time: who runs dry first goes first,
        none is put off for ever."""
        order = sorted(range(len(waiting)), key=lambda i: (self._due_s(waiting[i]), waiting[i].received_s))
        if not order:
            return []
        virtual = waiting[order[0]].dry_s is None
        alike = [i for i in order if (waiting[i].dry_s is None) == virtual]
        return alike[: self._limit(waiting[order[0]])]

    def _limit(self, one: Waiting) -> int:
        return self.max_batch if one.dry_s is not None else min(self.max_batch, self.virtual_batch)

    def _latest_start_s(self, one: Waiting, size: int) -> float:
        patient_s = one.received_s + min(self.patience_s, self.expected_s(1))
        if one.dry_s is None:
            return patient_s
        return min(patient_s, one.dry_s - SAFETY * self.expected_s(size) - ALLOWANCE_S)

    def _due_s(self, one: Waiting) -> float:
        return one.received_s + self.patience_s if one.dry_s is None else one.dry_s
