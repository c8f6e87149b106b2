"""Two policies compared on one robot: which episode is whose, and what the episodes so far say of the two."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tactus.runtime.sequential_test import difference_interval, log_e, pairs_to_go, rate_interval

ARMS: tuple[str, str] = ("a", "b")
DRAW = 0xAB
"""Tells the draw's random numbers from others of the same seed."""


@dataclass(frozen=True)
class Turn:
    """An episode's: of which policy (0 or 1), and with which other episode it is a pair, by the number of its first."""

    arm: int
    pair: int


def draw(groups: Sequence[str], seed: int) -> list[Turn]:
    """The turn of each episode, groups[i] being episode i's task. Two episodes of one task that follow each other are a
    pair, one of each policy, in an order that is drawn by seed and number: an episode's turn is the same however many
    there are.

        episode   0 1 2 3 4 5         tasks x y x y x y
        pair      0 1 0 1 4 5         policies a b b a b a
    """
    turns: list[Turn] = []
    open_pairs: dict[str, Turn] = {}
    for episode, group in enumerate(groups):
        first = open_pairs.pop(group, None)
        if first is None:
            arm = int(np.random.default_rng([seed, DRAW, episode]).integers(2))
            first = open_pairs[group] = Turn(arm, episode)
            turns.append(first)
        else:
            turns.append(Turn(1 - first.arm, first.pair))
    return turns


def in_pairs(turns: Sequence[Turn]) -> list[int]:
    """Episodes in the order in which they are played: a pair's one after the other, the tasks in turn, so that a
    comparison that ends early has seen all of them."""
    return sorted(range(len(turns)), key=lambda episode: (turns[episode].pair, episode))


class Tally:
    """The figures of a comparison, of lines of episodes.jsonl, in the order in which they were played."""

    def __init__(self, alpha: float, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        self.alpha = alpha
        self.successes, self.episodes = [0, 0], [0, 0]
        self.wins = self.ties = self.losses = 0
        self.decided: int | None = None
        """After how many episodes it was; None while it is not."""
        self.better = ""
        """Which policy it was decided for."""
        self._halves: dict[int, tuple[int, bool]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """The next episode."""
        arm, success = ARMS.index(row["policy"]), bool(row["success"])
        self.episodes[arm] += 1
        self.successes[arm] += success
        half = self._halves.pop(row["pair"], None)
        if half is None:
            self._halves[row["pair"]] = arm, success
            return
        a, b = (success, half[1]) if arm == 0 else (half[1], success)
        self.wins += a and not b
        self.ties += a == b
        self.losses += b and not a
        if self.decided is None and log_e(self.wins, self.losses) >= -math.log(self.alpha):
            self.decided, self.better = sum(self.episodes), ARMS[self.wins < self.losses]

    def summary(self, names: Mapping[str, str]) -> dict[str, Any]:
        """For summary.json. names: the policies', by `a` and `b`. Intervals hold at all times at once."""
        alpha = self.alpha
        found: dict[str, Any] = {"alpha": alpha}
        for index, arm in enumerate(ARMS):
            successes, episodes = self.successes[index], self.episodes[index]
            found[arm] = {
                "policy": names.get(arm, ""),
                "episodes": episodes,
                "successes": successes,
                "success_interval": [round(end, 4) for end in rate_interval(successes, episodes, alpha)],
            }
        more = pairs_to_go(self.wins, self.ties, self.losses, alpha)
        return found | {
            "pairs": self.wins + self.ties + self.losses,
            "only_a": self.wins,
            "only_b": self.losses,
            "difference_interval": [
                round(end, 4) for end in difference_interval(self.wins, self.ties, self.losses, alpha)
            ],
            "e_value": float(f"{math.exp(min(log_e(self.wins, self.losses), 700)):.4g}"),
            "decided_after": self.decided,
            "better": self.better,
            "episodes_to_go": 0 if self.decided is not None else None if more is None else 2 * more,
        }


class Comparison:
    """One that is being run. names: the policies', by `a` and `b`. stops: whether to end once it is decided."""

    def __init__(self, turns: Sequence[Turn], names: Mapping[str, str], alpha: float, stops: bool) -> None:
        self._turns = turns
        self.names = dict(names)
        self.stops = stops
        self.tally = Tally(alpha)

    def arm(self, episode: int) -> int:
        """Whose turn an episode is."""
        return self._turns[episode].arm

    @property
    def order(self) -> list[int]:
        """Episodes as they are to be played."""
        return in_pairs(self._turns)

    def label(self, episode: int) -> dict[str, Any]:
        """What the line of an episode says of it."""
        arm = ARMS[self.arm(episode)]
        return {"policy": arm, "policy_name": self.names[arm], "pair": self._turns[episode].pair}

    @property
    def is_over(self) -> bool:
        """Whether no more episodes are needed."""
        return self.stops and self.tally.decided is not None


def names_in(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The policies' names, by `a` and `b`, as lines of episodes.jsonl have them."""
    return {row["policy"]: row["policy_name"] for row in rows}


def told(summary: Mapping[str, Any]) -> list[str]:
    """What `Tally.summary` says, in lines for a person."""
    share = f"{1 - summary['alpha']:.3g}"
    lines = []
    for arm in ARMS:
        one = summary[arm]
        low, high = one["success_interval"]
        rate = f"{one['successes'] / one['episodes']:.0%}" if one["episodes"] else "–"
        lines.append(f"{arm}  {rate} [{low:.0%}, {high:.0%}] of {one['episodes']}  {one['policy']}")
    low, high = summary["difference_interval"]
    lines.append(
        f"a - b between {100 * low:+.0f} and {100 * high:+.0f} points; all intervals at {share}, at all times at once"
    )
    pairs = f"{summary['pairs']} pairs, {summary['only_a']} of which only a won and {summary['only_b']} only b"
    lines.append(f"e-value {summary['e_value']:g}, decided at {1 / summary['alpha']:g}: {pairs}")
    if summary["better"]:
        lines.append(f"decided after {summary['decided_after']} episodes: {summary['better']} is better")
    else:
        more = summary["episodes_to_go"]
        onward = "more than can be foreseen" if more is None else f"about {more}, if they go on like this"
        lines.append(f"not decided; episodes to go: {onward}")
    return lines
