"""The robot node's action queue, by absolute tick: chunks are merged in, one action per tick is popped out.

Pure: arrays in, arrays out; no threads, sockets or clocks.

    chunk for ticks 0-7, merged at 0       0 1 2 3 4 5 6 7
    chunk for ticks 3-10, merged at 5              5 6 7 8 9 10      3 and 4 are past: dropped, never replayed
    latest_only                            0 1 2 3 4|5 6 7 8 9 10
    weighted_average                       0 1 2 3 4|----- blend of old and new, then new alone
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

import numpy as np

from tactus.hal.spec import Feature, SpecError
from tactus.runtime.robot_node.config import Aggregation

WEIGHTS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "latest_only": (0.0, 1.0),
        "weighted_average": (0.3, 0.7),
        "average": (0.5, 0.5),
        "conservative": (0.7, 0.3),
    }
)
"""(weight of what is queued, weight of the newer chunk), LeRobot's AGGREGATE_FUNCTIONS under its names."""

TEMPORAL_ENSEMBLE = "temporal_ensemble"
RTC = "rtc"
"""Real-time chunking: the policy inpaints after what is committed, and the queue takes the latest."""
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
ENSEMBLE_DECAY = 0.01
"""m in ACT's weights exp(-m·i), where i = 0 is the oldest prediction for the tick (arXiv 2304.13705)."""


@dataclass(frozen=True)
class Merge:
    """What a merge did: actions dropped because their tick had passed, and actions taken into the queue."""

    stale: int
    taken: int


@dataclass(frozen=True)
class QueueState:
    """Everything an ActionQueue holds, in arrays of its own.

    base: the tick of row 0. end: one past the last tick that was ever covered. actions: [R, *action.shape]. starts:
    int64[R], per row the start of the newest chunk in it, -1 where none is. chunks: (start, actions) by start, of
    temporal_ensemble only.
    """

    base: int
    end: int
    actions: np.ndarray
    starts: np.ndarray
    chunks: tuple[tuple[int, np.ndarray], ...] = ()


class ActionQueue:
    """aggregate: how predictions of several chunks for one tick become one action.

    A chunk with a later start is the newer one, whatever order they arrive in. For the four weighted modes
    an older chunk that arrives late only fills ticks nothing newer covers; of two chunks with equal start the
    second to arrive counts as the newer one (so `average` of those two does not depend on their order).
    `temporal_ensemble` weighs every prediction by its start, so arrival order never matters. Binary
    dimensions always take the newest prediction. Ticks outside a new chunk keep what they had.
    """

    def __init__(self, action: Feature, aggregate: str = "latest_only") -> None:
        if aggregate not in AGGREGATIONS:
            raise SpecError(f"aggregate: found {aggregate!r}; accepted: {', '.join(AGGREGATIONS)}")
        self._shape = action.shape
        self._dtype = np.dtype(action.dtype)
        self._binary = np.array([mode == "binary" for mode in action.mode] or [False] * action.shape[0], bool)
        self._aggregate = aggregate
        self._old_weight, self._new_weight = WEIGHTS.get(aggregate, (0.0, 1.0))
        self.clear()

    def clear(self) -> None:
        """Forget everything; the next tick may be any."""
        self._base = 0  # the tick of row 0
        self._end = 0  # one past the last tick that was ever covered
        self._actions = np.zeros((0, *self._shape), self._dtype)
        self._starts = np.full(0, -1, np.int64)  # per row: start of the newest chunk in it, -1 where none is
        self._chunks: list[tuple[int, np.ndarray]] = []  # temporal_ensemble only, by start

    def state(self) -> QueueState:
        """What it holds now, to `restore` another queue of the same action and aggregation from."""
        rows = slice(0, max(0, self._end - self._base))
        actions, starts = self._actions[rows].copy(), self._starts[rows].copy()
        return QueueState(self._base, self._end, actions, starts, tuple((s, a.copy()) for s, a in self._chunks))

    def restore(self, state: QueueState) -> None:
        """Go on as the queue whose `state` this was: every later merge and pop gives the same bits.

        Raises SpecError if the state's actions are of another shape or dtype.
        """
        for actions in (state.actions, *(actions for _, actions in state.chunks)):
            self._check(actions)
        self._base, self._end = state.base, state.end
        self._actions, self._starts = state.actions.copy(), state.starts.copy()
        self._chunks = [(start, actions.copy()) for start, actions in state.chunks]

    def _check(self, actions: np.ndarray) -> None:
        if actions.shape[1:] != self._shape or actions.dtype != self._dtype:
            raise SpecError(
                f"chunk is {actions.dtype}{list(actions.shape)}, expected {self._dtype}[H, {str(self._shape)[1:-1]}]"
            )

    def remaining(self, now: int) -> int:
        """Ticks from `now` to the last covered one, inclusive."""
        return max(0, self._end - now)

    def merge(self, actions: np.ndarray, start: int, now: int) -> Merge:
        """Take in `actions[i]` for tick `start + i`, at tick `now`. actions: [H, *action.shape]."""
        self._check(actions)
        if now < self._base:
            raise ValueError(f"merge at tick {now} after tick {self._base}: ticks only run forwards")
        stale = min(max(0, now - start), len(actions))
        first, fresh = start + stale, actions[stale:]
        if not len(fresh):
            return Merge(stale, 0)
        overlap = min(max(0, self._end - first), len(fresh))
        self._reserve(now, first + len(fresh))
        rows = slice(first - self._base, first - self._base + len(fresh))
        queued, starts = self._actions[rows], self._starts[rows]
        self._end = max(self._end, first + len(fresh))
        queued[overlap:], starts[overlap:] = fresh[overlap:], start
        taken = len(fresh) - overlap
        if overlap:
            taken += self._blend(queued[:overlap], starts[:overlap], fresh[:overlap], start)
        if self._aggregate == TEMPORAL_ENSEMBLE:
            self._chunks = [chunk for chunk in self._chunks if chunk[0] + len(chunk[1]) > now]
            self._chunks.append((start, actions.copy()))
            self._chunks.sort(key=lambda chunk: chunk[0])
        return Merge(stale, taken)

    def _blend(self, queued: np.ndarray, starts: np.ndarray, fresh: np.ndarray, start: int) -> int:
        """Merge into rows that may hold something; returns how many took the chunk."""
        if starts.max() <= start:  # nothing queued is newer: the usual case
            empty = starts < 0
            queued[:] = self._mix(queued, fresh)
            if empty.any():
                queued[empty] = fresh[empty]
            starts[:] = start
            return len(fresh)
        older = (starts >= 0) & (starts <= start)
        empty = starts < 0
        queued[older] = self._mix(queued[older], fresh[older])
        queued[empty] = fresh[empty]
        starts[older | empty] = start
        return int((older | empty).sum())

    def _mix(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        if not self._old_weight:
            return new
        mixed = self._old_weight * old + self._new_weight * new
        mixed[:, self._binary] = new[:, self._binary]
        return mixed

    def pop(self, tick: int) -> np.ndarray | None:
        """The action for `tick`, None if no chunk covered it. Never one of another tick; pop forwards only."""
        row = tick - self._base
        if not 0 <= row < len(self._starts) or self._starts[row] < 0:
            return None
        if self._aggregate == TEMPORAL_ENSEMBLE:
            return self._ensemble(tick)
        return self._actions[row].copy()

    def source(self, tick: int) -> int:
        """The start of the newest chunk in `tick`'s action, -1 if none covered it."""
        row = tick - self._base
        return int(self._starts[row]) if 0 <= row < len(self._starts) else -1

    def _ensemble(self, tick: int) -> np.ndarray:
        self._chunks = [chunk for chunk in self._chunks if chunk[0] + len(chunk[1]) > tick]
        votes = np.stack([actions[tick - start] for start, actions in self._chunks if start <= tick])
        if len(votes) == 1:
            return votes[0]
        weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(votes)))
        weights /= weights.sum()
        action = np.tensordot(weights, votes, 1).astype(self._dtype)
        if self._binary.any():
            action[self._binary] = votes[-1][self._binary]
        return action

    def _reserve(self, now: int, end: int) -> None:
        """Make rows for ticks up to `end`; rows before `now` are given up."""
        if end - self._base <= len(self._starts) and now >= self._base:
            return
        kept = slice(max(0, now - self._base), max(0, self._end - self._base))
        capacity = max(2 * (end - now), 64)
        actions = np.zeros((capacity, *self._shape), self._dtype)
        starts = np.full(capacity, -1, np.int64)
        count = len(self._starts[kept])
        actions[:count], starts[:count] = self._actions[kept], self._starts[kept]
        self._actions, self._starts, self._base = actions, starts, now


def hold(last: np.ndarray | None, action: Feature) -> np.ndarray:
    """What to send when no action is queued: absolute dims repeat the last command, delta dims are zero,
    binary dims keep their value. Without a last command everything is zero."""
    held = np.zeros(action.shape, action.dtype) if last is None else last.copy()
    for index, mode in enumerate(action.mode):
        if mode == "delta":
            held[index] = 0
    return held
