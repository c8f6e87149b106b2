"""How far two runs of the same thing may differ in a stage: what is float noise, and what is a fault.

Float noise is a few units in the last place, carried through some layers: a batch of one against a batch of many moves
float32 by 2e-7 of a stage's scale, another CPU or BLAS by 1e-6. The smallest faults are far above: bfloat16 rounds by
4e-3, float16 by 5e-4, one step of 255 in a picture is 4e-3, statistics that differ in their third digit are 1e-3. So
float32 may differ by 1e-4 of the stage's own scale, a hundred times the one and a tenth of the other. TF32 and half
precision lie above it: whoever runs those says so in `dtype`, or gives a second trace of A.

Scale is the root mean square over all samples; of vectors each dimension's own, since one may be in mm and the next in
degrees, though never less than a hundredth of the stage's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RELATIVE = {
    "float64": 1e-9,
    "float32": 1e-4,
    "float16": 2e-2,
    "bfloat16": 2e-2,
    "float8_e4m3fn": 2e-1,
    "float8_e5m2": 4e-1,
}
EPSILON = {
    "float64": 2.3e-16,
    "float32": 1.2e-7,
    "float16": 1e-3,
    "bfloat16": 8e-3,
    "float8_e4m3fn": 0.13,
    "float8_e5m2": 0.25,
}
ULPS, AGAIN = 16, 3.0
"""Of A against itself: three times what was seen, and what 16 units in the last place make, if that is more."""
DIMENSIONS, FLOOR = 64, 1e-2
"""Vectors have at most so many dimensions, and each counts for at least this share of the whole."""


@dataclass(frozen=True)
class Tolerance:
    """relative: to the stage's scale; 0: equal to the bit. by_dimension: each element of the last axis has its own."""

    relative: float
    why: str
    by_dimension: bool = False

    def limit(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The largest difference that is none, in the arrays' unit; of shape [] or that of the last axis."""
        return self.relative * scale(arrays, self.by_dimension)


def scale(arrays: Sequence[np.ndarray], by_dimension: bool) -> np.ndarray:
    """Root mean square over all that is finite; of shape [], or that of the last axis."""
    if by_dimension and len({array.shape[-1:] for array in arrays}) == 1 and arrays[0].ndim and arrays[0].shape[-1]:
        rows = np.concatenate([array.reshape(-1, array.shape[-1]).astype(np.float64) for array in arrays])
        square = np.where(np.isfinite(rows), rows, 0) ** 2
        each = np.sqrt(square.mean(0)) if len(rows) else np.zeros(rows.shape[1])
        return np.maximum(each, FLOOR * np.sqrt(square.mean()) if square.size else 0)
    total, count = 0.0, 0
    for array in arrays:
        values = array[np.isfinite(array)].astype(np.float64)
        total, count = total + float(np.dot(values, values)), count + values.size
    return np.sqrt(np.float64(total / max(count, 1)))


def kind(array: np.ndarray, dtype: str = "") -> str:
    """The name of what it was computed in."""
    return dtype or array.dtype.name


def of_dtypes(kinds: Sequence[str], by_dimension: bool, factor: float = 1.0) -> Tolerance:
    """The coarsest of the kinds decides; whole numbers alone are equal or not."""
    coarsest = max(kinds, key=lambda each: RELATIVE.get(each, 0.0))
    if coarsest not in RELATIVE:
        return Tolerance(0.0, f"{coarsest}: equal, or not")
    relative = RELATIVE[coarsest] * factor
    return Tolerance(relative, f"{relative:.0e} of its scale, as {coarsest}", by_dimension)


def of_again(
    a: Sequence[np.ndarray], again: Sequence[np.ndarray], kinds: Sequence[str], by_dimension: bool, factor: float = 1.0
) -> Tolerance:
    """From A and another trace of what A is: AGAIN times the largest difference."""
    own = scale(a, by_dimension)
    share = 0.0
    for first, second in zip(a, again, strict=True):
        apart = np.abs(difference(first, second)) / np.where(own > 0, own, 1)
        share = max(share, float(apart.max(initial=0)))
    coarsest = max(kinds, key=lambda each: EPSILON.get(each, 0.0))
    relative = max(AGAIN * share, ULPS * EPSILON.get(coarsest, 0.0)) * factor
    if not relative:
        return Tolerance(0.0, f"{coarsest}: equal, or not; A is equal to A again")
    return Tolerance(relative, f"{relative:.0e} of its scale: A against A again differs by {share:.0e}", by_dimension)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """b − a; 0 where both are the same infinity or no number, and infinite where one of them is."""
    narrow = all(array.dtype.itemsize <= 2 or array.dtype == np.float32 for array in (a, b))
    kind = np.float32 if narrow and a.ndim > 2 else np.float64
    x, y = a.astype(kind), b.astype(kind)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = y - x
    odd = ~np.isfinite(apart)
    if odd.any():
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        apart = np.where(odd, np.where(same, 0, np.inf), apart)
    return apart
