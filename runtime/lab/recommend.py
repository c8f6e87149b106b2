"""Recommends a setting for a latency, and says why in sentences. Pure; nothing is interpolated.

measured latency        |---- 2.3 ticks
swept latencies      0     2     4     6        judged at 4: the smallest that is not below the measured one

Where a sweep has several policies, each is judged at its own chunk time, unless a latency is given: then all at that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tactus.runtime.lab.measures import CellMeasures, Difference, Mode, mode_names, modes, paired, policies, references
from tactus.runtime.lab.sweep_folder import Sweep

ENOUGH = 0.5
"""A cell with less than this share of its rivals' episodes is not considered."""
NBSP = "\u00a0"
KEYS = ("a chunk time that the grid reaches", "a shorter chunk time")
KEYS += ("fewer starved ticks", "smaller jumps between chunks", "fewer requests")
OWN = "its own chunk time, measured in this sweep"
NAMED = 4
"""Settings named in one sentence, at most."""


@dataclass(frozen=True)
class Latency:
    """What is to be lived with. ms: its 95th percentile. count: of measurements, `lost` of them without an answer."""

    ms: float
    ticks: int
    count: int
    lost: int
    source: str


@dataclass(frozen=True)
class Judged:
    """Where a policy's settings are compared. latency: None if none was measured; the largest swept one is judged then.
    swept: of the cells to compare. beyond: the grid ends below `latency`. rivals: these cells, its reference among them
    where that stands for a setting too; young: those with too few episodes to be among them."""

    latency: Latency | None
    swept: str
    beyond: bool
    rivals: Sequence[CellMeasures]
    young: Sequence[CellMeasures]


@dataclass(frozen=True)
class Recommendation:
    """choice: the cell that speaks for the setting, of `cells`, the candidates from best to worst. tied: those that
    cannot be told from the best. latency, beyond: as of Judged, of the policy that is chosen.
    """

    headline: str
    sentences: Sequence[str]
    flags: str
    choice: CellMeasures
    tied: Sequence[CellMeasures]
    cells: Sequence[CellMeasures]
    latency: Latency | None
    beyond: bool


def recommend(
    sweep: Sweep, cells: Sequence[CellMeasures], measured_ms: Sequence[float] | None = None, measured_name: str = ""
) -> Recommendation | None:
    """None if the sweep has no cell of ours but the reference.

    measured_ms: round trips to expect, nan for a lost one; not given: those the sweep itself has measured.
    measured_name: where they are from; if it is a latency of the grid, that one is judged.
    """
    fps = float(sweep.about["robot"]["fps"])
    ours = [cell for cell in cells if not cell.mode.label and not cell.reference]
    if not ours:
        return None
    names = mode_names(modes(ours))
    judged = {policy: judge(cells, policy, fps, measured_ms, measured_name) for policy in policies(ours)}
    rivals = [cell for one in judged.values() for cell in one.rivals]
    most = max(cell.episodes for cell in rivals)
    young = [cell for one in judged.values() for cell in one.young]
    young += [cell for cell in rivals if cell.episodes < ENOUGH * most]
    rivals = [cell for cell in rivals if cell.episodes >= ENOUGH * most]
    best, choice, tied = pick(rivals, judged)
    chosen, reference = judged[choice.mode.policy], references(cells).get(choice.mode.policy)
    sentences = [
        *_latency_sentences(judged, choice, fps),
        _choice_sentence(choice, names[choice.mode], len(rivals)),
        *_tie_sentences(choice, best, tied, names, judged),
        *_worse_sentences(best, [cell for cell in rivals if cell not in tied], names),
        *_reference_sentences(choice, reference, sweep, chosen.latency),
        *_caveats(choice, young, names),
    ]
    ranked = sorted(
        rivals, key=lambda cell: (cell is choice, cell in tied, cell.rate, _merit(cell, judged)), reverse=True
    )
    headline = _headline(choice, names[choice.mode], reference, fps)
    return Recommendation(headline, sentences, choice.mode.flags, choice, tied, ranked, chosen.latency, chosen.beyond)


def judge(
    cells: Sequence[CellMeasures], policy: str, fps: float, measured_ms: Sequence[float] | None = None, name: str = ""
) -> Judged:
    """Which cells of a policy are compared; it has some besides its reference. measured_ms, name: as in recommend."""
    mine = [cell for cell in cells if cell.mode.policy == policy and not cell.mode.label]
    ours = [cell for cell in mine if not cell.reference]
    if measured_ms is None and len(policies(cells)) > 1:
        measured_ms, name = [value for cell in mine for value in cell.chunk_ms], OWN
    latency = _latency(mine, fps, measured_ms, name)
    text, beyond = _swept(ours, latency)
    # the reference also stands for its own setting, where that has other cells
    known = modes(ours)
    rivals = [cell for cell in ours if cell.latency == text]
    rivals += [cell for cell in mine if cell.reference and cell.latency == text and cell.mode in known]
    most = max(cell.episodes for cell in rivals)
    young = [cell for cell in rivals if cell.episodes < ENOUGH * most]
    return Judged(latency, text, beyond, [cell for cell in rivals if cell not in young], young)


def pick(
    rivals: Sequence[CellMeasures], judged: Mapping[str, Judged]
) -> tuple[CellMeasures, CellMeasures, list[CellMeasures]]:
    """The one with the most successes, the one to choose, and all that cannot be told from the first."""
    best = max(rivals, key=lambda cell: (cell.rate, _merit(cell, judged)))
    tied = [cell for cell in rivals if cell is best or _ties(cell, best)]
    return best, max(tied, key=lambda cell: _merit(cell, judged)), tied


def percent(share: float, digits: int = 0) -> str:
    """0.875 -> 88 %."""
    return f"{100 * share:.{digits}f}{NBSP}%"


def points(difference: Difference) -> str:
    """-12 points (95 %: -21 to -4), with true minus signs."""
    value, low, high = (signed(share) for share in difference[1:])
    return f"{value} points (95{NBSP}%: {low} to {high})"


def signed(share: float) -> str:
    """-0.12 -> −12; a decimal only where a whole number would hide the sign."""
    digits = 0 if abs(share) >= 0.005 else 1
    text = f"{100 * share:+.{digits}f}".replace("-", "−")
    return text if float(text[1:]) else "0"


def interval(cell: CellMeasures) -> str:
    """88 % (76–94 %, n = 50)."""
    return f"{percent(cell.rate)} ({100 * cell.low:.0f}–{100 * cell.high:.0f}{NBSP}%, n{NBSP}={NBSP}{cell.episodes})"


def milliseconds(ms: float) -> str:
    """42 ms, 0.31 ms."""
    return f"{ms:.0f}{NBSP}ms" if ms >= 10 else f"{ms:.2g}{NBSP}ms"


def ticks(count: float) -> str:
    """1 tick, 2 ticks, 2.5 ticks."""
    return f"{count:g} tick" + ("" if count == 1 else "s")


def _latency(
    cells: Sequence[CellMeasures], fps: float, measured_ms: Sequence[float] | None, name: str
) -> Latency | None:
    source = name or "given"
    if measured_ms is None:
        # the reference's are the cleanest; any cell whose robot waits for its answers will do
        waited = [cell for cell in cells if len(cell.round_trips_ms)]
        chosen = next((cell for cell in waited if cell.reference), waited[0] if waited else None)
        if chosen is None:
            return None
        measured_ms, source = chosen.round_trips_ms, "measured in this sweep"
    values = np.asarray(measured_ms, float)
    answered = values[~np.isnan(values)]
    if not len(answered):
        return None
    p95 = float(np.percentile(answered, 95))
    return Latency(p95, math.ceil(p95 / 1000 * fps - 1e-9), len(values), int(np.isnan(values).sum()), source)


def _swept(cells: Sequence[CellMeasures], latency: Latency | None) -> tuple[str, bool]:
    """The swept latency to judge at, and whether the grid ends below the measured one."""
    delays = {cell.latency: cell.delay for cell in cells}
    if latency is not None and latency.source in delays:
        return latency.source, False
    plain = {cell.latency: cell.delay for cell in cells if cell.plain}
    for among in (plain, delays):
        above = {text: delay for text, delay in among.items() if latency is not None and delay >= latency.ticks}
        if above:
            return min(above, key=lambda text: above[text]), False
    among = plain or delays
    return max(among, key=lambda text: among[text]), latency is not None


def _ties(cell: CellMeasures, best: CellMeasures) -> bool:
    gap = paired(cell.success, best.success)
    return gap is None or not gap.tells


def _merit(cell: CellMeasures, judged: Mapping[str, Judged]) -> tuple[float, ...]:
    """Of policies, those that the grid reaches, then the fastest; of settings, fewer starved ticks, then smaller jumps
    between chunks, then fewer requests. In this order KEYS.

    Less than a tick, a percent or a tenth σ does not count.
    """
    seam = math.inf if cell.seam is None else round(cell.seam, 1)
    at = judged[cell.mode.policy]
    speed = -(at.latency.ticks if at.latency else 0)
    return -float(at.beyond), speed, -round(cell.starved, 2), -seam, -round(cell.requests, 1)


def _latency_sentences(judged: Mapping[str, Judged], choice: CellMeasures, fps: float) -> list[str]:
    """Of each policy, or of all at once where one latency was given and all are judged at it."""
    alike = len({(one.latency, one.swept) for one in judged.values()}) == 1
    told = {
        policy: _latency_sentence(one.latency, choice if alike else one.rivals[0], fps, one.beyond)
        for policy, one in judged.items()
    }
    return [*told.values()][:1] if alike else [f"{policy}: {sentence}" for policy, sentence in told.items()]


def _latency_sentence(latency: Latency | None, choice: CellMeasures, fps: float, beyond: bool) -> str:
    where = f"{ticks(choice.delay)} ({1000 * choice.delay / fps:.0f}{NBSP}ms, cells {choice.latency})"
    if latency is None:
        return f"No round trip was measured; settings are compared at the largest swept latency, {where}."
    lost = f", {latency.lost} of them lost" if latency.lost else ""
    measured = (
        f"Latency ({latency.source}, {latency.count} requests{lost}): 95 % of the answers took at most "
        f"{milliseconds(latency.ms)}, {ticks(latency.ticks)} at {fps:g}{NBSP}Hz."
    )
    if beyond:
        return (
            f"{measured} That is beyond this grid: settings are compared at its largest latency, {where}, "
            f"and will do worse than that. Sweep latencies up to fixed:{latency.ticks} to know."
        )
    if latency.source == choice.latency:
        return f"{measured} The grid has this very latency: settings are compared in its cells."
    return f"{measured} Settings are compared at the smallest swept latency that is not below: {where}."


def _choice_sentence(choice: CellMeasures, name: str, rivals: int) -> str:
    of = f"of {rivals} settings" if rivals > 1 else "the only setting there"
    seam = "" if choice.seam is None else f", jumps of {choice.seam:.1f} σ between chunks"
    return (
        f"Choose {name} ({of}): success {interval(choice)}, "
        f"{100 * choice.starved:.1f}{NBSP}% of the ticks starved{seam}, "
        f"{choice.requests:.1f} requests an episode."
    )


def _tie_sentences(
    choice: CellMeasures,
    best: CellMeasures,
    tied: Sequence[CellMeasures],
    names: dict[Mode, str],
    judged: Mapping[str, Judged],
) -> list[str]:
    others = [cell for cell in tied if cell is not choice]
    if not others:
        return []
    shown = sorted(others, key=lambda cell: -cell.rate)[:NAMED]
    told = [f"{names[cell.mode]} ({percent(cell.rate)})" for cell in shown]
    if len(others) > NAMED:
        told.append(f"{len(others) - NAMED} more")
    ahead = "" if best is choice else f" {names[best.mode]} had the most successes."
    return [
        f"By success it cannot be told from {_listed(told)}: the 95 % interval of the paired difference to the best "
        f"includes 0.{ahead} {_reason(choice, others, names, judged)}"
    ]


def _reason(
    choice: CellMeasures, others: Sequence[CellMeasures], names: dict[Mode, str], judged: Mapping[str, Judged]
) -> str:
    mine = _merit(choice, judged)
    alike = [names[cell.mode] for cell in others if _merit(cell, judged) == mine]
    rest = [theirs for cell in others if (theirs := _merit(cell, judged)) != mine]
    if not rest:
        return "They are alike in starved ticks, jumps and requests too; the first of the grid was taken."
    reason = next(key for key, ours, theirs in zip(KEYS, mine, max(rest), strict=True) if ours != theirs)
    also = f"; {_listed(alike)} would do as well" if alike else ""
    return f"The tie was broken by {reason}{also}."


def _worse_sentences(best: CellMeasures, losers: Sequence[CellMeasures], names: dict[Mode, str]) -> list[str]:
    told = []
    for cell in sorted(losers, key=lambda cell: -cell.rate)[:NAMED]:
        gap = paired(cell.success, best.success)
        assert gap is not None
        told.append(f"{names[cell.mode]} by {points(gap).lstrip('−')}")
    more = f"; {len(losers) - NAMED} more" if len(losers) > NAMED else ""
    return [f"Worse than {names[best.mode]}: {'; '.join(told)}{more}."] if told else []


def _reference_sentences(
    choice: CellMeasures, reference: CellMeasures | None, sweep: Sweep, latency: Latency | None
) -> list[str]:
    if reference is None:
        return ["The synchronous reference has not been played yet: what asynchrony costs is not known."]
    if choice is reference:
        return []
    sentence = f"Synchronous evaluation, where the world waits for every answer, gives {interval(reference)}"
    if choice.difference is not None:
        verdict = "" if choice.difference.tells else ", which includes no difference at all"
        sentence += f"; this setting's paired difference to it is {points(choice.difference)}{verdict}"
    if latency is not None and reference.ticks:
        still = reference.requests * reference.episodes * latency.ms / 1000
        moving = reference.ticks / float(sweep.about["robot"]["fps"])
        sentence += f". A real robot that waits would stand still for {percent(still / (still + moving))} of its time"
    return [sentence + "."]


def _caveats(choice: CellMeasures, young: Sequence[CellMeasures], names: dict[Mode, str]) -> list[str]:
    sentences = []
    if choice.episodes < 100:
        width = 50 * (choice.high - choice.low)
        sentences.append(
            f"With {choice.episodes} episodes a rate is known to about ±{width:.0f} points; "
            "smaller differences need more episodes (--episodes, --resume)."
        )
    if young:
        too_few = _listed([names[cell.mode] for cell in young])
        sentences.append(f"Not considered, too few episodes so far: {too_few}.")
    return sentences


def _headline(choice: CellMeasures, name: str, reference: CellMeasures | None, fps: float) -> str:
    where = f"At {ticks(choice.delay)} of latency ({1000 * choice.delay / fps:.0f}{NBSP}ms)"
    rate = f"{where}, {name} succeeds in {percent(choice.rate)} of episodes"
    gap = choice.difference
    if reference is None or gap is None:
        return f"{rate}."
    rates = f"{rate}, {percent(reference.rate)} when the world waits"
    if not gap.tells:
        return f"{rates}: no cost that {gap.episodes} of them can show."
    verb = "costs" if gap.value < 0 else "even gains"
    return f"{rates}: latency {verb} this policy {abs(100 * gap.value):.0f} points."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
