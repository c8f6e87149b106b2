"""Whether the policy is better than the baselines, by how much, and whether that could be chance: in plain words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tactus.runtime.diagnosis.offline.errors import Errors

RESAMPLES = 2000
ENOUGH = 5
"""Episodes that an interval takes."""


class Margin(NamedTuple):
    """How much less the policy's normalised error is than a baseline's, as a share of that; negative if it is more.
    low, high: 95 % interval over episodes; None with too few of them.
    """

    baseline: str
    error: float
    less: float
    low: float | None
    high: float | None

    @property
    def tells(self) -> int:
        """1: better. -1: worse. 0: the interval leaves it open."""
        ends = (self.less, self.less) if self.low is None or self.high is None else (self.low, self.high)
        return 1 if ends[0] > 0 else -1 if ends[1] < 0 else 0


def margins(policy: Errors, baselines: dict[str, Errors], seed: int) -> list[Margin]:
    """One a baseline that has an error at all. Episodes are drawn with replacement, the same ones for both."""
    generator = np.random.default_rng(seed)
    counted = np.flatnonzero(policy.episode_count)
    draws = generator.choice(counted, (RESAMPLES, len(counted)))
    ours = policy.episode_normalised
    found = []
    for name, errors in baselines.items():
        theirs = errors.episode_normalised
        if not theirs.sum() > 0:
            continue
        less = 1 - np.sqrt(ours.sum() / theirs.sum())
        low = high = None
        if len(counted) >= ENOUGH and theirs[draws].sum(1).min() > 0:
            low, high = np.percentile(1 - np.sqrt(ours[draws].sum(1) / theirs[draws].sum(1)), [2.5, 97.5]).tolist()
        found.append(Margin(name, errors.normalised, float(less), low, high))
    return found


def verdict(policy: Errors, found: list[Margin]) -> list[str]:
    """The last lines of the terminal; the first is the report's headline."""
    if not policy.moving.any():
        return [f"The true actions never change here: there is nothing to be better at. MAE {policy.mae:.4g}."]
    if not found:
        return [f"The baselines make no error here: nothing can be better. The policy's is {policy.normalised:.3g} σ."]
    told = {one.tells for one in found}
    if told == {1}:
        head = (
            "The policy is better than both baselines" if len(found) > 1 else "The policy is better than the baseline"
        )
    elif told == {-1}:
        head = "The policy is worse than both baselines" if len(found) > 1 else "The policy is worse than the baseline"
    elif -1 in told:
        head = f"The policy is worse than {_named(found, -1)}"
        head += f", better than {_named(found, 1)}" if 1 in told else ""
        head += f", and not to be told from {_named(found, 0)}" if 0 in told else ""
    elif 1 in told:
        head = f"The policy is better than {_named(found, 1)}, and not to be told from {_named(found, 0)}"
    else:
        head = "The policy cannot be told from the baselines"
    return [f"{head}: its normalised error is {policy.normalised:.3g} σ.", *map(_sentence, found)]


def _named(found: list[Margin], tells: int) -> str:
    return " and ".join(one.baseline for one in found if one.tells == tells)


def _sentence(one: Margin) -> str:
    much = f"{100 * abs(one.less):.0f} % {'less' if one.less >= 0 else 'more'}"
    if one.low is None or one.high is None:
        sure = f"fewer than {ENOUGH} episodes: no interval"
    else:
        sure = f"95 % interval over episodes: {percentage(-one.high)} to {percentage(-one.low)} %"
    return f"{one.baseline[:1].upper()}{one.baseline[1:]} has {one.error:.3g} σ: the policy's error is {much} ({sure})."


def percentage(share: float) -> str:
    """With its sign, without the %."""
    return f"{100 * share:+.0f}".replace("-", "−")
