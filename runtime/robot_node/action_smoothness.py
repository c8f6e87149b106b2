"""How smooth an episode's actions are where one chunk takes over from another (seams), and inside chunks.

Jumps from tick to tick are kept as sums of squares, which add up over episodes.

tick      0 1 2 3 4 5 6 7
source    0 0 0 0 3 3 3 3        source: the tick whose observation the action's newest chunk answered
jump       - - - S - - -         S a seam, - inside; next to a tick without an action: neither
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

STILL = 1e-6
"""Dimensions with a standard deviation below this share of the largest do not count: over σ they would be noise."""


def jump_sums(actions: Sequence[np.ndarray], sources: Sequence[int]) -> dict[str, Any]:
    """For JSON: counts, and per action dimension the sums of squared jumps, of actions and of squared actions."""
    executed = np.stack(actions).astype(np.float64) if len(actions) else np.zeros((0, 0))
    jumps = np.diff(executed, axis=0) ** 2
    pairs = list(pairwise(sources[: len(executed)]))
    seams = np.array([min(pair) >= 0 and pair[0] != pair[1] for pair in pairs], bool)
    inside = np.array([min(pair) >= 0 and pair[0] == pair[1] for pair in pairs], bool)
    return {
        "ticks": len(executed),
        "sum": executed.sum(0).tolist(),
        "squares": (executed**2).sum(0).tolist(),
        "seams": int(seams.sum()),
        "seam_squares": jumps[seams].sum(0).tolist() if len(jumps) else [],
        "inside": int(inside.sum()),
        "inside_squares": jumps[inside].sum(0).tolist() if len(jumps) else [],
    }


def action_std(sums: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """σ per action dimension over all ticks of these episodes, nan for dimensions that hardly move."""
    rows = [row for row in sums if row["ticks"]]
    if not rows:
        return np.zeros(0)
    ticks = sum(row["ticks"] for row in rows)
    mean = np.sum([row["sum"] for row in rows], axis=0) / ticks
    std = np.sqrt(np.maximum(0, np.sum([row["squares"] for row in rows], axis=0) / ticks - mean**2))
    return np.where(std > STILL * std.max(initial=0), std, np.nan)


def rms_jump(sums: Iterable[Mapping[str, Any]], std: np.ndarray, where: str = "seam") -> float | None:
    """Root mean square over jumps of ‖Δaction / σ‖; where: seam or inside. None without any."""
    rows = [row for row in sums if row["seams" if where == "seam" else "inside"]]
    count = sum(row["seams" if where == "seam" else "inside"] for row in rows)
    if not count:
        return None
    squares = np.sum([row[f"{where}_squares"] for row in rows], axis=0)
    return float(np.sqrt(np.nansum(squares / std**2) / count))
