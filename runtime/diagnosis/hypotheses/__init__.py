"""Explanations of a difference, each tested on the arrays of all samples; the simplest that makes B of A is first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

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
    pair = regular(pair)
    if not pair.b:
        return []
    subject = pair.pictures() or pair
    if subject is not pair:
        findings += _judged(pair, pictures.axes(pair))
    for hypothesis in BY_KIND[pair.kind]:
        if hypothesis in SLOW and any(found.confirmed and found.cost <= 3 for found in findings):
            continue
        findings += _judged(subject, hypothesis(subject))
    return _ordered(findings)


def regular(pair: Pair) -> Pair:
    """Of samples of several shapes (a program may write any), those that are as the first that differs; none empty."""

    def shape(array: np.ndarray) -> tuple[int, ...]:
        return (
            array.shape[array.ndim - 1 :]
            if pair.kind == "layer"
            else (array.ndim,)
            if pair.kind == "tokens"
            else array.shape
        )

    both = list(zip(pair.a, pair.b, strict=True))
    first = next((i for i, (a, b) in enumerate(both) if a.shape != b.shape or not np.array_equal(a, b)), 0)
    alike = [
        (shape(a), shape(b)) == tuple(map(shape, both[first]))
        and a.size > 0
        and b.size > 0
        and a.ndim > 0
        and b.ndim > 0
        for a, b in both
    ]

    def kept(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [array for array, keep in zip(arrays, alike, strict=True) if keep]

    def stages(named: dict[str, list[np.ndarray]]) -> dict[str, list[np.ndarray]]:
        chosen = {name: kept(arrays) for name, arrays in named.items()}
        return {
            name: arrays
            for name, arrays in chosen.items()
            if len({array.ndim for array in arrays}) == 1 and all(array.size and array.ndim for array in arrays)
        }

    tasks = [texts for texts, keep in zip(pair.tasks, alike, strict=False) if keep]
    return replace(
        pair, a=kept(pair.a), b=kept(pair.b), earlier=stages(pair.earlier), beside=stages(pair.beside), tasks=tasks
    )


def _judged(pair: Pair, candidates: Iterable[Candidate]) -> list[Finding]:
    return [found for candidate in candidates if (found := judged(pair, candidate))]


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
