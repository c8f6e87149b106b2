"""Findings about the control rate that arms and cameras allow. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tactus.hal.diagnostics.finding import Finding

RATES = (1, 2, 5, 10, 15, 20, 25, 30, 50, 60, 100, 200)
BUSY = 0.6
"""Share of a tick that the buses may take; the rest is for cameras, messages and health."""
TOLERANCE = 1.03
"""A camera at 29.4 frames per s counts as one at 30."""


def propose_rate(busy_ms: Mapping[str, float], camera_fps: Mapping[str, float]) -> int | None:
    """The highest usual rate at which every arm's bus time fits into BUSY of a tick and no camera repeats itself.

    busy_ms: read and write of each arm, which follow one another. None if nothing was measured.
    """
    limits = [BUSY * 1000 / total] if (total := sum(busy_ms.values())) > 0 else []
    limits += [fps * TOLERANCE for fps in camera_fps.values() if fps > 0]
    if not limits:
        return None
    fitting = [rate for rate in RATES if rate <= min(limits)]
    return fitting[-1] if fitting else RATES[0]


def diagnose_rate(fps: float, busy_ms: Mapping[str, float], camera_fps: Mapping[str, float], key: str) -> list[Finding]:
    """The configured rate against what was measured. key: the config key that sets it."""
    proposed = propose_rate(busy_ms, camera_fps)
    if proposed is None:
        return []
    total_ms = sum(busy_ms.values())
    slowest = min(camera_fps.values(), default=math.inf)
    parts = [f"the arms' buses are busy for {total_ms:.1f} ms a tick"] if busy_ms else []
    parts += [f"the slowest camera gives {slowest:.1f} frames per s"] if camera_fps else []
    found = f"{', '.join(parts)}: up to {proposed} Hz; configured {fps:g}"
    if total_ms > 1000 / fps:
        return [Finding("rig", "rate", "fault", found, f"at most {1000 / total_ms:.0f} Hz", f"{key}={proposed}")]
    if total_ms > BUSY * 1000 / fps:
        return [Finding("rig", "rate", "note", found, f"{BUSY:.0%} of a tick", f"{key}={proposed}")]
    if fps > slowest * TOLERANCE:
        fix = f"{key}={proposed}, or a faster camera: a policy sees some pictures twice"
        return [Finding("rig", "rate", "note", found, "a new picture each tick", fix)]
    return [Finding("rig", "rate", "ok", found)]
