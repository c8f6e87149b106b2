"""What the numbers of `measures` mean: checks that a student passes or not, and the cause where one is known.

A check that needs to know what the student was trained on says nothing of a student that does not tell (facts of
`trainer.Trained`, in its distillation.json).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tactus.policies.distillation.measures import Measures

RATIO = 1.3
"""Loss in deployment over loss in training."""
STRAIGHT = 0.2
"""The student's straightness over the teacher's."""
ERROR = 0.05
"""Of the student's chunks, the median, a share of the teacher's."""
SPREAD = 0.1
"""The student's spread over noises may be off the teacher's by this share."""
NO_SPREAD = 1e-6
"""Chunks that differ no further are the same: of policies that are deployed without noise (noise_scale=0)."""
EQUAL = 1e-3
"""Velocities by two ways of computing them."""
NOISE = 0.15
"""Means and standard deviations of noise, by dimension."""
PADDING = 0.5
"""|padding| in training over that of the teacher's chunks."""

UNTOLD = "the student does not tell what it was trained on"


@dataclass
class Check:
    """passed: None where nothing can be said. cause: what is wrong, if that can be told."""

    name: str
    passed: bool | None
    found: str
    accepted: str
    cause: str = ""


def checks(measures: Measures, facts: Mapping[str, Any] | None) -> list[Check]:
    """In the order in which one looks: what it was trained on, what came out of it."""
    return [*_trained_on(measures, facts), *_came_out(measures, facts)]


def verdict(found: list[Check]) -> tuple[bool, str]:
    """Whether a student may take its teacher's place, and the reason in a sentence."""
    failed = [check for check in found if check.passed is False]
    if not failed:
        unknown = sum(check.passed is None for check in found)
        rest = f"; {unknown} could not be made" if unknown else ""
        return True, f"all {len(found) - unknown} checks passed{rest}"
    reasons = [check.cause or f"{check.name}: {check.found}" for check in failed]
    return False, "; ".join(dict.fromkeys(reasons))


def _trained_on(measures: Measures, facts: Mapping[str, Any] | None) -> Iterator[Check]:
    known = facts is not None
    facts = facts or {}
    if measures.padding is not None:
        trained = facts.get("padding")
        ratio = trained / max(measures.padding, 1e-9) if trained is not None else None
        yield Check(
            "padding",
            None if ratio is None else ratio > PADDING,
            f"|padding| {trained:.3f} in training, {measures.padding:.3f} in the teacher's chunks"
            if trained is not None
            else UNTOLD,
            f"at least {PADDING:g} of the teacher's",
            "the teacher's chunks were cropped to the robot's dimensions before training"
            if ratio is not None and ratio <= PADDING
            else "",
        )
    off = _off(facts, measures) if known else []
    yield Check(
        "noise",
        not off if known else None,
        f"{len(off)} of {len(measures.noise_std)} dimensions differ from what deployment draws"
        + (f": {off[0]}" if off else "")
        if known
        else UNTOLD,
        f"mean and standard deviation within {NOISE:g}",
        "training drew its noise narrower than deployment does, with zeros in the padding" if off else "",
    )
    by_step = facts.get("weight_by_step") or []
    left_out = [step for step, weight in enumerate(by_step) if weight < 0.999]
    yield Check(
        "whole chunks",
        not left_out if known else None,
        f"{len(left_out)} of {len(by_step)} steps of a chunk were partly left out of the loss" if known else UNTOLD,
        "none: the teacher's chunk is valid past an episode's end",
        "action_is_pad was applied: what a chunk does past an episode's end was not trained" if left_out else "",
    )


def _came_out(measures: Measures, facts: Mapping[str, Any] | None) -> Iterator[Check]:
    backwards = measures.backwards > measures.forwards + 0.1
    yield Check(
        "direction of time",
        not backwards,
        f"at t = 1 the velocity points from chunk to noise (cosine {measures.forwards:.2f}); at t = 0, turned round, "
        f"{measures.backwards:.2f}",
        "t = 1 is noise",
        "time runs backwards: the student was trained with t = 0 as noise" if backwards else "",
    )
    yield Check(
        "cache",
        measures.cached <= EQUAL,
        f"{measures.cached:.1e} between the velocity that was trained and the one with a cached prefix",
        f"at most {EQUAL:g} of its size",
        "the deployed network computes something else than the trained one" if measures.cached > EQUAL else "",
    )
    if facts is not None:
        ratio = sum(measures.losses) / max(sum(facts["loss"]), 1e-12)
        yield Check(
            "deploy/train",
            ratio < RATIO,
            f"loss in deployment {ratio:.2f} times that in training",
            f"below {RATIO:g}",
        )
    else:
        yield Check("deploy/train", None, UNTOLD, f"below {RATIO:g}")
    straight = measures.straightness / max(measures.teacher_straightness, 1e-12)
    yield Check("straightness", straight <= STRAIGHT, f"{straight:.2f} of the teacher's", f"at most {STRAIGHT:g}")
    own = next(e for e in measures.errors if e.steps == measures.num_steps)
    late = measures.late > 1.5
    yield Check(
        "error",
        own.median < ERROR,
        f"{100 * own.median:.1f} % of the teacher's {measures.teacher_steps} steps with {own.steps}, median "
        f"(without distillation {100 * measures.undistilled:.1f} %)",
        f"below {100 * ERROR:g} %",
        f"the last quarter of a chunk is {measures.late:.1f} times as far off as the rest"
        if late and own.median >= ERROR
        else "",
    )
    none = max(measures.spread, measures.teacher_spread) < NO_SPREAD
    spread = 1.0 if none else measures.spread / max(measures.teacher_spread, 1e-12)
    yield Check(
        "spread",
        abs(spread - 1) <= SPREAD,
        f"chunks of one observation spread over noises {spread:.2f} times as far as the teacher's",
        f"within {100 * SPREAD:g} %",
        "the student averages: it gives nearly the same chunk whatever the noise" if spread < 1 - SPREAD else "",
    )


def _off(facts: Mapping[str, Any], measures: Measures) -> list[str]:
    """Dimensions whose noise differs."""
    rows = zip(facts["noise_mean"], facts["noise_std"], measures.noise_mean, measures.noise_std, strict=True)
    return [
        f"dimension {index} has {mean:.2f} ± {std:.2f} in training, {there_mean:.2f} ± {there:.2f} in deployment"
        for index, (mean, std, there_mean, there) in enumerate(rows)
        if abs(mean - there_mean) > NOISE or abs(std - there) > NOISE
    ]
