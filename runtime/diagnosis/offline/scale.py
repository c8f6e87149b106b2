"""Whether predictions and truth are on one scale at all: an error between pixels and ±1 has no meaning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tactus.hal.spec import Feature

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
UNITS = ((DEGREES, "degrees", "radians"), (1000.0, "mm", "m"), (100.0, "cm or percent", "m or 0–1"))
"""Factors between units, the unit with the larger numbers, and the other."""
NEAR = 1.6
"""A factor that is off a known one by less than this times may be it."""


class ScaleError(ValueError):
    """Predictions and truth cannot be compared: both ranges, and the likely cause."""


class Range(NamedTuple):
    """Of one dimension, in a first look. slope, correlation: of predicted over true; nan if either never changes.
    stated: the policy's own word on actions in its training; None without one.
    """

    name: str
    low: float
    high: float
    true_low: float
    true_high: float
    std: float
    true_std: float
    mean: float
    true_mean: float
    slope: float
    correlation: float
    stated: tuple[float, float] | None = None

    @property
    def stated_alike(self) -> bool:
        """Whether what the policy says of actions in training is of the truth's scale."""
        if self.stated is None:
            return False
        pairs = [(max(map(abs, self.stated)), self.true_size), (np.ptp(self.stated), self.true_high - self.true_low)]
        return all(a < APART * b and b < APART * a for a, b in pairs)

    @property
    def size(self) -> float:
        """The largest prediction, whatever its sign."""
        return max(abs(self.low), abs(self.high))

    @property
    def true_size(self) -> float:
        """The largest true action, whatever its sign."""
        return max(abs(self.true_low), abs(self.true_high))

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
        if abs(self.correlation) >= SURE:  # however far beside: that is an error, not a scale
            return not 1 / SLOPE <= abs(self.slope) <= SLOPE
        if self.size >= APART * self.true_size:
            return self.std >= APART * self.true_std or self._beside
        if self.true_size >= APART * self.size and self.true_std >= APART * self.std:
            # one that has collapsed to the mean is bad, but on the right scale
            normalised = self.std >= 0.1 and self.size <= Z_SCORES < self.true_size / 2 and not self.stated_alike
            off = self.std > 0 and abs(self.mean - self.true_mean) > self.true_std
            return normalised or off or self._beside
        return False

    @property
    def _beside(self) -> bool:
        return self.high < self.true_low or self.low > self.true_high


def ranges(
    names: Sequence[str], predicted: np.ndarray, true: np.ndarray, done: np.ndarray, action: Feature
) -> list[Range]:
    """predicted, true: [n, A], pairs of a first look. done: [T, A], all true actions. action: the policy's."""
    found = []
    for i, name in enumerate(names):
        p, t, all_t = (array[:, i].astype(np.float64) for array in (predicted, true, done))
        slope = correlation = float("nan")
        if np.ptp(p) > 0 and np.ptp(t) > 0:
            correlation = float(np.corrcoef(p, t)[0, 1])
            slope = correlation * float(p.std() / t.std())
        ends = (float(p.min()), float(p.max()), float(all_t.min()), float(all_t.max()))
        middles = (float(p.mean()), float(all_t.mean()))
        stated = (action.low[i], action.high[i]) if action.low and action.high else None
        found.append(Range(name, *ends, float(p.std()), float(all_t.std()), *middles, slope, correlation, stated))
    return found


def check_scale(found: Sequence[Range]) -> list[str]:
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
    causes = "\n".join(f"  - {cause}" for cause in _causes(apart))
    raise ScaleError(
        f"predictions and truth are on different scales in {len(apart)} of {len(found)} dimensions, so that errors "
        "would mean nothing:\n" + "\n".join([*lines, *more]) + f"\nlikely cause:\n{causes}\n"
        "if it is the policy that is this far off, --range_check=false compares all the same"
    )


def _causes(apart: Sequence[Range]) -> list[str]:
    factor = float(np.nanmedian([one.factor for one in apart]))
    size, true_size = max(one.size for one in apart), max(one.true_size for one in apart)
    stated = [one.stated for one in apart if one.stated is not None]
    within = f"{min(low for low, _ in stated):.4g} … {max(high for _, high in stated):.4g}" if stated else ""
    causes = []
    if size <= Z_SCORES and true_size > UNIT:
        causes.append(f"the predictions look normalised; {_un_normaliser(apart, within)}")
    if true_size <= Z_SCORES and size > UNIT:
        causes.append(
            "the dataset's actions look normalised, the predictions do not: the dataset was written after "
            "normalisation, or is in other units than the policy's training data"
        )
    sure = all(abs(one.correlation) >= SURE for one in apart)
    for known, unit, per in UNITS:
        if causes and not sure and known != DEGREES:
            continue  # of numbers that only look normalised, the factor says little
        if known / NEAR <= factor <= known * NEAR:
            causes.append(f"other units: the predictions look like {unit}, the dataset like {per}")
        elif known / NEAR <= 1 / max(factor, 1e-300) <= known * NEAR:
            causes.append(f"other units: the predictions look like {per}, the dataset like {unit}")
    if within and size > Z_SCORES:
        causes.append(f"the policy was trained on actions within {within}: another robot, or other units")
    return causes or [f"other units, or another robot: the predictions' scale is {factor:.3g} times the dataset's"]


def _un_normaliser(apart: Sequence[Range], within: str) -> str:
    """What is likely wrong with it."""
    if not within:
        return (
            "its un-normaliser has no statistics of the actions (missing, under another name than `action`, or "
            "IDENTITY in normalization_mapping): train or convert the checkpoint with this dataset's"
        )
    said = f"its un-normaliser's statistics say that actions were within {within} in training"
    if any(one.stated_alike for one in apart):
        return f"{said}, as they are here, but nothing is un-normalised with them: IDENTITY in normalization_mapping?"
    return f"{said}: they are of another dataset, in other units, or of actions that were normalised before"
