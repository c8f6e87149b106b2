"""The statistics of one episode, and its lines in episodes.jsonl (what repeats) and timings.jsonl (what does not)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tactus.hal.robot import Outcome, Scene
from tactus.runtime.robot_node.action_smoothness import jump_sums
from tactus.runtime.statistics import quantiles

PARTS = ("reset", "observe", "act", "link", "queue")
"""Where an episode's wall time goes. observe: rendering too. link: sending, and waiting for answers that are due."""

COUNTS = ("ticks", "starved_ticks", "skipped_ticks", "stale_actions_dropped", "requests", "resends", "chunks")
COUNTS += ("policy_errors", "renders")
"""Of EpisodeStats, those that a line of episodes.jsonl has and a summary adds up."""


@dataclass
class EpisodeStats:
    """What happened in one episode. Everything but counters, `_ms` and `_s` fields repeats exactly in virtual time.

    One entry per tick: actions, and sources, the tick whose observation the action's newest chunk answered, -1 where
    none was queued. One per request: asked, its tick, and latency_ms, wall time from its observation to its chunk, nan
    if none came. One per chunk: latency_ticks, starts (the tick it was asked at), lengths, and stale, how many of its
    actions came too late; chunk_policies, whose it is (PolicySpec.identity). policy: who was to drive, likewise.
    handovers: (tick, why) of each time that another policy was to answer. counters: the robot's own, since it was
    connected. spent_s: wall time by PARTS; what is left of wall_s is the loop's own. by_person: per tick, whether a
    person drove it; None if nobody could. control_s: from the first tick's beginning to the last one's.
    """

    ticks: int = 0
    starved_ticks: int = 0
    skipped_ticks: int = 0
    overruns: int = 0
    requests: int = 0
    resends: int = 0
    chunks: int = 0
    stale_actions_dropped: int = 0
    policy_errors: int = 0
    renders: int = 0
    reward: float = 0.0
    outcome: Outcome | None = None
    asked: list[int] = field(default_factory=list)
    latency_ticks: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    chunk_policies: list[str] = field(default_factory=list)
    policy: str = ""
    handovers: list[tuple[int, str]] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    inference_ms: list[float] = field(default_factory=list)
    queued_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    round_trip_ms: list[float] = field(default_factory=list)
    counters: dict[str, float] = field(default_factory=dict)
    spent_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    lateness_ms: list[float] = field(default_factory=list)
    by_person: list[bool] | None = None
    control_s: float = 0.0
    wall_s: float = 0.0


def episode_row(episode: int, seed: int, scene: Scene, stats: EpisodeStats) -> dict[str, Any]:
    """A line of episodes.jsonl: what repeats."""
    outcome = stats.outcome
    return {
        "episode": episode,
        "seed": seed,
        "group": scene.group,
        "task": scene.task,
        **scene.labels,
        "success": bool(outcome and outcome.success),
        "reward": stats.reward,
        **{key: getattr(stats, key) for key in COUNTS},
        **({} if stats.by_person is None else {"interventions": spans(stats.by_person)}),
        "latency_ticks": stats.latency_ticks,
        "timeline": {
            "asked": stats.asked,
            "chunks": [*map(list, zip(stats.starts, stats.latency_ticks, stats.lengths, stats.stale, strict=True))],
            "starved": [tick for tick, source in enumerate(stats.sources) if source < 0],
        },
        "jumps": jump_sums(stats.actions, stats.sources),
        **_policies(stats),
        "actions_sha256": hashlib.sha256(b"".join(action.tobytes() for action in stats.actions)).hexdigest(),
    }


def spans(flags: Sequence[bool]) -> list[list[int]]:
    """[first, end) of each run of True: 0 1 1 0 1 is [1, 3], [4, 5]."""
    edges = np.flatnonzero(np.diff(np.array([False, *flags, False], np.int8)))
    return edges.reshape(-1, 2).tolist()


def _policies(stats: EpisodeStats) -> dict[str, Any]:
    """Whose the chunks were, where that is not said of the whole run."""
    if {*stats.chunk_policies} <= {stats.policy} and not stats.handovers:
        return {}
    return {"chunks_of": dict(Counter(stats.chunk_policies)), "handovers": [*map(list, stats.handovers)]}


def episode_timing(episode: int, stats: EpisodeStats) -> dict[str, Any]:
    """A line of timings.jsonl: wall times, which do not repeat."""
    return {
        "episode": episode,
        "wall_s": round(stats.wall_s, 3),
        "spent_s": {part: round(seconds, 4) for part, seconds in stats.spent_s.items()},
        "control_s": round(stats.control_s, 4),
        "overruns": stats.overruns,
        "inference_ms": _rounded(stats.inference_ms),
        "queued_ms": _rounded(stats.queued_ms),
        "round_trip_ms": _rounded(stats.round_trip_ms),
        "lateness_ms": quantiles(stats.lateness_ms, (50, 95, 99)),
        **({"robot": stats.counters} if stats.counters else {}),
    }


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]
