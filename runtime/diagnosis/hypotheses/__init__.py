"""Explanations of a difference, each tested on the arrays of all samples: the simplest that makes B of A comes first."""

from __future__ import annotations

from tactus.runtime.diagnosis.hypotheses import arithmetic, pictures, resize_search, sequences, vectors
from tactus.runtime.diagnosis.hypotheses.pair import Candidate, Finding, Hypothesis, Pair, judged

BY_KIND: dict[str, tuple[Hypothesis, ...]] = {
    "picture": (
        sequences.other_stage, sequences.still, sequences.lag, pictures.turned, pictures.padded_elsewhere,
        pictures.quantised, arithmetic.dtype, arithmetic.clipped, pictures.brightness, arithmetic.noise_on_top,
        resize_search.resized_otherwise,
    ),
    "vector": (
        sequences.other_stage, sequences.still, sequences.lag, vectors.padding, vectors.quaternion, vectors.relative,
        vectors.units, vectors.constants, vectors.order, arithmetic.dtype, arithmetic.clipped, arithmetic.gain,
        vectors.statistics, arithmetic.noise_on_top, arithmetic.inside,
    ),
    "noise": (
        sequences.other_stage, sequences.still, sequences.lag, vectors.padding, vectors.constants, vectors.order,
        arithmetic.dtype, arithmetic.clipped, arithmetic.gain, arithmetic.other_noise, arithmetic.noise_on_top,
    ),
    "layer": (
        sequences.other_stage, sequences.still, sequences.lag, arithmetic.dtype, arithmetic.clipped, arithmetic.gain,
        arithmetic.dropout, arithmetic.some_channels, arithmetic.inside,
    ),
    "tokens": (sequences.other_stage, sequences.still, sequences.lag, sequences.tokens),
    "mask": (sequences.masks, sequences.still, sequences.lag),
}  # fmt: skip
SLOW = (resize_search.resized_otherwise,)
"""Tried only if nothing simpler is confirmed."""
TOLD = 6
"""Findings at most."""


def tested(pair: Pair) -> list[Finding]:
    """What explains the pair, the best first: made equal by the least; then almost; then by a test; then in part."""
    findings: list[Finding] = []
    subject = pair.pictures() or pair
    if subject is not pair:
        findings += _judged(pair, pictures.axes(pair))
    for hypothesis in BY_KIND[pair.kind]:
        if hypothesis in SLOW and any(found.confirmed and found.cost <= 3 for found in findings):
            continue
        findings += _judged(subject, hypothesis(subject))
    return _ordered(findings)


def _judged(pair: Pair, candidates: object) -> list[Finding]:
    return [found for candidate in candidates if (found := judged(pair, candidate))]  # pyright: ignore[reportGeneralTypeIssues]


def _ordered(findings: list[Finding]) -> list[Finding]:
    def place(found: Finding) -> tuple[float, ...]:
        if found.confirmed and not found.statistical:
            return 0, found.cost, found.rms
        if found.share >= 0.98:
            return 1, found.cost, -found.share
        if found.statistical:
            return (4 if found.cost >= 9 else 2), found.cost
        return 3, -found.share

    ordered = sorted(findings, key=place)
    exact = [found for found in ordered if found.confirmed and not found.statistical]
    if exact:  # what is less simple than another that makes it equal says nothing more
        return [found for found in exact if found.cost == exact[0].cost][:TOLD]
    return ordered[:TOLD]


__all__ = ["Candidate", "Finding", "Pair", "tested"]
