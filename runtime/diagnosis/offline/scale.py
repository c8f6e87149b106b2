"""Whether predictions and truth are on one scale at all: an error between pixels and ±1 has no meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tactus.hal.spec import PolicySpec

APART = 5.0
"""Times another spread, and another magnitude, are another scale."""
SURE, SLOPE = 0.95, 2.5
"""Predictions that follow the truth with this correlation, but with so many times its slope, are on another scale: an
error in learning lowers the slope only together with the correlation."""
SHARE = 0.4
"""Of the dimensions: the three of a position in mm among seven are enough."""
UNIT, Z_SCORES = 1.5, 4.0
"""Normalised numbers lie within these: by minimum and maximum, by mean and standard deviation."""
DEGREES = 180 / np.pi
NEAR = 1.6
"""A factor that is off a known one by less than this times may be it."""


class ScaleError(ValueError):
    """Predictions and truth cannot be compared: both ranges, and the likely cause."""


class Range(NamedTuple):
    """Of one dimension, in a first look. slope, correlation: of predicted over true; nan if either never changes."""

    name: str
    low: float
    high: float
    true_low: float
    true_high: float
    std: float
    true_std: float
    median: float
    true_median: float
    slope: float
    correlation: float

    @property
    def factor(self) -> float:
        """How many times the truth's scale the predictions' is; nan if that cannot be told."""
        if abs(self.correlation) >= SURE:
            return abs(self.slope)
        return self.std / self.true_std if self.true_std else float("nan")

    @property
    def apart(self) -> bool:
        """Whether predictions are on another scale than the truth."""
        if self.true_high == self.true_low:
            return False
        if abs(self.correlation) >= SURE and not 1 / SLOPE <= abs(self.slope) <= SLOPE:
            return True
        size, true_size = (max(abs(a), abs(b)) for a, b in ((self.low, self.high), (self.true_low, self.true_high)))
        if size >= APART * true_size:
            return self.std >= APART * self.true_std or self._beside
        if true_size >= APART * size and self.true_std >= APART * self.std:
            # one that has collapsed to the mean is bad, but on the right scale
            normalised = self.std >= 0.1 and size <= Z_SCORES
            off = self.std > 0 and abs(self.median - self.true_median) > 0.5 * self.true_std
            return normalised or off or self._beside
        return False

    @property
    def _beside(self) -> bool:
        return self.high < self.true_low or self.low > self.true_high


def ranges(names: Sequence[str], predicted: np.ndarray, true: np.ndarray, done: np.ndarray) -> list[Range]:
    """predicted, true: [n, A], pairs of a first look. done: [T, A], all true actions."""
    found = []
    for i, name in enumerate(names):
        p, t, all_t = (array[:, i].astype(np.float64) for array in (predicted, true, done))
        slope = correlation = float("nan")
        if np.ptp(p) > 0 and np.ptp(t) > 0:
            correlation = float(np.corrcoef(p, t)[0, 1])
            slope = correlation * float(p.std() / t.std())
        ends = (float(p.min()), float(p.max()), float(all_t.min()), float(all_t.max()))
        middles = (float(np.median(p)), float(np.median(all_t)))
        found.append(Range(name, *ends, float(p.std()), float(all_t.std()), *middles, slope, correlation))
    return found


def check_scale(found: Sequence[Range], policy: PolicySpec) -> list[str]:
    """Notes on single dimensions that look odd. Raises ScaleError if too many are on another scale."""
    apart = [one for one in found if one.apart]
    if not apart:
        return []
    if len(apart) < SHARE * sum(one.true_high > one.true_low for one in found):
        return [f"{', '.join(one.name for one in apart)}: the predictions look like another scale than the truth's"]
    lines = [
        f"  {one.name}: predicted {one.low:.4g} … {one.high:.4g}, true {one.true_low:.4g} … {one.true_high:.4g}"
        for one in apart[:8]
    ]
    more = [f"  … and {len(apart) - 8} more"] if len(apart) > 8 else []
    causes = "\n".join(f"  - {cause}" for cause in _causes(apart, policy))
    raise ScaleError(
        f"predictions and truth are on different scales in {len(apart)} of {len(found)} dimensions, so that errors "
        "would mean nothing:\n" + "\n".join([*lines, *more]) + f"\nlikely cause:\n{causes}\n"
        "if it is the policy that is this far off, --range_check=false compares all the same"
    )


def _causes(apart: Sequence[Range], policy: PolicySpec) -> list[str]:
    factor = float(np.nanmedian([one.factor for one in apart]))
    size = max(max(abs(one.low), abs(one.high)) for one in apart)
    true_size = max(max(abs(one.true_low), abs(one.true_high)) for one in apart)
    low, high = policy.action.low, policy.action.high
    stated = f"{min(low):.4g} … {max(high):.4g}" if low and high else ""
    causes = []
    if size <= Z_SCORES and true_size > UNIT:
        said = (
            f"its un-normaliser's statistics say that actions were within {stated} in training: they are of another "
            "dataset, or stand under another name than the actions'"
            if stated
            else "its un-normaliser has no statistics of the actions (missing, under another name than `action`, or "
            "IDENTITY in normalization_mapping): train or convert the checkpoint with this dataset's"
        )
        causes.append(f"the predictions look normalised; {said}")
    if true_size <= Z_SCORES and size > UNIT:
        causes.append(
            "the dataset's actions look normalised, the predictions do not: the dataset was written after "
            "normalisation, or is in other units than the policy's training data"
        )
    for known, unit, per in (
        (DEGREES, "degrees", "radians"),
        (1000.0, "mm", "m"),
        (100.0, "cm or percent", "m or 0–1"),
    ):
        if known / NEAR <= factor <= known * NEAR:
            causes.append(f"other units: the predictions look like {unit}, the dataset like {per}")
        elif known / NEAR <= 1 / max(factor, 1e-300) <= known * NEAR:
            causes.append(f"other units: the predictions look like {per}, the dataset like {unit}")
    if stated and size > Z_SCORES:
        causes.append(f"the policy was trained on actions within {stated}: another robot, or other units")
    return causes or [f"other units, or another robot: the predictions' scale is {factor:.3g} times the dataset's"]
