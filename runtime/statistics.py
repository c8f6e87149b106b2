"""Statistics of results: Wilson's interval of a success rate, and quantiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def wilson(successes: int, episodes: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a success rate; z = 1.96 for 95 %. (0, 1) without episodes."""
    if episodes == 0:
        return 0.0, 1.0
    rate = successes / episodes
    shrink = 1 + z * z / episodes
    centre = (rate + z * z / (2 * episodes)) / shrink
    margin = z * math.sqrt(rate * (1 - rate) / episodes + z * z / (4 * episodes * episodes)) / shrink
    return max(0.0, centre - margin), min(1.0, centre + margin)


def quantiles(values: Sequence[float], percents: Sequence[int] = (50, 95)) -> dict[str, float | None]:
    """{"p50", "p95"}, or of the percents asked for; None without values."""
    if not len(values):
        return {f"p{percent}": None for percent in percents}
    return {f"p{percent}": round(float(np.percentile(values, percent)), 3) for percent in percents}
