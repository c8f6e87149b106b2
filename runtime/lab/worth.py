"""Several policies of one sweep beside each other: paired differences, and what a faster one is worth. Pure.

success   teacher ──●────●────●────◉            ◉ at its own chunk time: teacher's is 6.2 ticks, judged at
          student ──●────◉────●────●              8; student's 0.6, judged at 2
                    0    2    4    8 ticks        speed alone: student at 2 against student at 8
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tactus.runtime.lab.measures import CellMeasures, Difference, mode_names, modes, paired, policies
from tactus.runtime.lab.recommend import NBSP, Latency, interval, judge, milliseconds, pick, points, ticks

SLIGHT = 0.5
"""Chunk times of fewer ticks than this cannot be told from none on a robot, whose actions pass tick by tick."""


class PolicyDifference(NamedTuple):
    """Success of `second` minus success of `first`, two cells that differ in their policy alone."""

    first: CellMeasures
    second: CellMeasures
    difference: Difference


@dataclass(frozen=True)
class Standing:
    """A policy at its own chunk time. latency: that, 95 % of its chunks took at most so long; its `ticks` are rounded
    up. cell: of its best setting there. beyond: the grid ends below it."""

    latency: Latency
    cell: CellMeasures
    beyond: bool

    def ticks(self, fps: float) -> float:
        """The chunk time, not rounded."""
        return self.latency.ms / 1000 * fps


@dataclass(frozen=True)
class Worth:
    """standings: by policy. sentences: what they say."""

    standings: Mapping[str, Standing]
    sentences: Sequence[str]


def differences(cells: Sequence[CellMeasures]) -> list[PolicyDifference]:
    """For each setting and latency, the references' too, every pair of policies that have played it, in their order."""
    alike: dict[tuple[Any, ...], dict[str, CellMeasures]] = {}
    for cell in cells:
        if not cell.mode.label:
            key = (cell.reference, cell.mode.of_any_policy, cell.latency)
            alike.setdefault(key, {})[cell.mode.policy] = cell
    pairs = [pair for by_policy in alike.values() for pair in itertools.combinations(by_policy.values(), 2)]
    found = [(first, second, paired(second.success, first.success)) for first, second in pairs]
    return [PolicyDifference(first, second, gap) for first, second, gap in found if gap is not None]


def worth(cells: Sequence[CellMeasures], fps: float) -> Worth | None:
    """None in a sweep of one policy, or if fewer than two have been played besides their references."""
    played = policies([cell for cell in cells if not cell.reference])
    if len(played) < 2:
        return None
    standings = {}
    for policy in played:
        judged = judge(cells, policy, fps)
        if judged.latency is not None:
            standings[policy] = Standing(judged.latency, pick(judged.rivals, {policy: judged})[1], judged.beyond)
    if len(standings) < 2:
        return None
    sentences = [_times(standings, fps), *_slight(standings, fps)]
    first = next(iter(standings))
    for other in [*standings][1:]:
        sentences += _compared(cells, first, other, standings)
    return Worth(standings, [*sentences, *_caveats(standings)])


def _times(standings: Mapping[str, Standing], fps: float) -> str:
    told = [
        f"{policy} {milliseconds(one.latency.ms)} ({one.ticks(fps):.2g} ticks)" for policy, one in standings.items()
    ]
    count = min(one.latency.count for one in standings.values())
    return (
        f"At {fps:g}{NBSP}Hz a chunk takes {', '.join(told)}: 95{NBSP}% of them at most, and at least {count} of each "
        "were measured. An answer counts from the next whole tick on."
    )


def _slight(standings: Mapping[str, Standing], fps: float) -> list[str]:
    slight = [policy for policy, one in standings.items() if one.ticks(fps) < SLIGHT]
    if not slight:
        return []
    if len(slight) < len(standings):
        return [f"{' and '.join(slight)}: rounds to 0 ticks; still less would change nothing that this robot notices."]
    return [
        f"All of them round to 0 ticks: at {fps:g}{NBSP}Hz, on the machine that served them here, none is faster than "
        "another in a way that the robot could notice. Speed counts where a slower machine or a network adds to it."
    ]


def _compared(cells: Sequence[CellMeasures], first: str, other: str, standings: Mapping[str, Standing]) -> list[str]:
    names = mode_names(modes(cells))
    one, two = standings[first], standings[other]
    gap = paired(two.cell.success, one.cell.success)
    sentences = [
        f"At its own chunk time {names[one.cell.mode]} succeeds in {interval(one.cell)} ({_where(one)}), "
        f"{names[two.cell.mode]} in {interval(two.cell)} ({_where(two)})"
        + ("." if gap is None else f": {other} minus {first}, paired, {points(gap)}{_verdict(gap)}.")
    ]
    if one.cell.latency == two.cell.latency:
        return [
            *sentences,
            f"{first} and {other} are judged at the same swept latency, {one.cell.latency}: that is what their actions "
            f"are worth, and nothing of what their speed is. {_apart(one.latency.ticks, two.latency.ticks)}",
        ]
    fast, slow, who = (two, one, (other, first)) if two.latency.ms < one.latency.ms else (one, two, (first, other))
    held = [cell for cell in cells if cell.mode == fast.cell.mode and cell.latency == slow.cell.latency]
    if held and (speed := paired(fast.cell.success, held[0].success)) is not None:
        sentences.append(
            f"Were {who[0]} as slow as {who[1]}, {names[fast.cell.mode]} would succeed in {interval(held[0])} "
            f"({slow.cell.latency}): its speed alone is worth {points(speed)}{_verdict(speed)}."
        )
    return sentences


def _apart(first: int, other: int) -> str:
    """What would tell two chunk times from each other, in ticks rounded up."""
    if first == other:
        return f"No latency would tell: rounded up, both are {ticks(first)}."
    return f"Sweep fixed:{min(first, other)} and fixed:{max(first, other)}, their own, to know."


def _where(one: Standing) -> str:
    return f"judged at {ticks(one.cell.delay)}, {one.cell.latency}" + (", less than it takes" if one.beyond else "")


def _verdict(gap: Difference) -> str:
    return "" if gap.tells else ", which includes no difference at all"


def _caveats(standings: Mapping[str, Standing]) -> list[str]:
    beyond = [policy for policy, one in standings.items() if one.beyond]
    most = max(one.latency.ticks for one in standings.values())
    sentences = [
        "Each has the setting that did best there. The times are those of this sweep, where several robots may have "
        "shared a machine and a policy node; a network comes on top."
    ]
    if not beyond:
        return sentences
    ends = f"The grid ends below the chunk time of {' and '.join(beyond)}, which will do worse than that"
    return [f"{ends}: sweep latencies up to fixed:{most}.", *sentences]
