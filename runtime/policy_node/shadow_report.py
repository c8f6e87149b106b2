"""How far a shadow policy's actions are from those of the policy that drives, per dimension.

The difference is |shadow − first| over the first `steps` actions of each chunk, which are those that are executed. Mean
and maximum are over everything, p95 over the newest KEPT actions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from tactus.hal.spec import Feature, PolicySpec
from tactus.runtime.statistics import quantiles

KEPT = 20_000
"""Actions that percentiles are taken over, and latencies."""
WORST = 3
"""Dimensions that a line names."""


class Differences:
    """Of chunks [H, A] of `first` and [H', A] of `shadow`; horizons may differ, what both have is compared."""

    def __init__(self, first: PolicySpec, shadow: PolicySpec) -> None:
        self._first, self._shadow = first, shadow
        self.steps = min(first.n_action_steps or first.horizon, first.horizon, shadow.horizon)
        self._width = math.prod(first.action.shape)
        self._robot: Feature | None = None
        self._kept: deque[np.ndarray] = deque(maxlen=max(1, KEPT // self.steps))
        self._latencies_ms: deque[float] = deque(maxlen=KEPT)
        self._count = 0
        self._sum, self._max = np.zeros(self._width), np.zeros(self._width)
        self._first_sum, self._first_squares = np.zeros(self._width), np.zeros(self._width)
        self.compared = self.errors = 0

    def of(self, robot: Feature) -> None:
        """What the robot calls its actions, in which units, and within which limits."""
        self._robot = robot

    def add(self, first: np.ndarray, shadow: np.ndarray, latency_ms: float) -> None:
        """One observation's two answers."""
        ours = first[: self.steps].reshape(self.steps, -1).astype(np.float64)
        apart = np.abs(shadow[: self.steps].reshape(self.steps, -1) - ours)
        self._kept.append(apart)
        self._sum += apart.sum(axis=0)
        self._max = np.maximum(self._max, apart.max(axis=0))
        self._first_sum += ours.sum(axis=0)
        self._first_squares += (ours**2).sum(axis=0)
        self._count += self.steps
        self._latencies_ms.append(latency_ms)
        self.compared += 1

    def report(self) -> dict[str, Any]:
        """As JSON has it; in the action's units, latencies in ms. No dimensions before something was compared."""
        latencies = [*self._latencies_ms]
        return {
            "first": self._first.name,
            "shadow": self._shadow.name,
            "steps": self.steps,
            "compared": self.compared,
            "errors": self.errors,
            "latency_ms": quantiles(latencies, (50, 95)) | {"max": round(max(latencies), 3) if latencies else None},
            "dimensions": self._dimensions() if self.compared else [],
        }

    def _dimensions(self) -> list[dict[str, Any]]:
        mean, p95 = self._sum / self._count, np.percentile(np.concatenate([*self._kept]), 95, axis=0)
        names, units = self._labels()
        found = []
        for i, (scale, what) in enumerate(self._scales()):
            apart = {"mean": float(mean[i]), "p95": float(p95[i]), "max": float(self._max[i])}
            share = {key: value / scale for key, value in apart.items()} if scale > 0 else None
            found.append(
                {"name": names[i], "unit": units[i], **apart, "scale": scale, "scale_is": what, "share": share}
            )
        return found

    def _labels(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        sources = [feature for feature in (self._first.action, self._robot) if feature is not None]
        names = next((feature.names for feature in sources if feature.names), ())
        units = next((feature.units for feature in sources if feature.units), ())
        return names or tuple(f"action {i}" for i in range(self._width)), units or ("",) * self._width

    def _scales(self) -> list[tuple[float, str]]:
        """What a difference is a share of: the width of the range, where one is known, else the first one's own std."""
        for feature, what in ((self._first.action, "training range"), (self._robot, "robot's limits")):
            if feature is not None and feature.low and feature.high:
                return [(high - low, what) for low, high in zip(feature.low, feature.high, strict=True)]
        mean = self._first_sum / self._count
        std = np.sqrt(np.maximum(self._first_squares / self._count - mean**2, 0))
        return [(float(each), "std of the first policy's actions") for each in std]


def line(report: Mapping[str, Any]) -> str:
    """A report in a line: counts, latency, and the dimensions that are furthest apart."""
    counts = f"{report['compared']} compared, {report['skipped']} skipped, {report['errors']} errors"
    dimensions = sorted(report["dimensions"], key=lambda each: _largest(each), reverse=True)
    if not dimensions:
        return f"{report['shadow']}: {counts}"
    latency = report["latency_ms"]
    if not any(each["max"] for each in dimensions):
        apart = "equal in every action"
    else:
        apart = "furthest apart: " + "; ".join(told(each) for each in dimensions[:WORST])
    return f"{report['shadow']}: {counts}; {latency['p50']:.1f} ms, p95 {latency['p95']:.1f} ms; {apart}"


def told(dimension: Mapping[str, Any]) -> str:
    """`elbow mean 0.1 p95 0.3 max 0.5 deg (p95 is 2.1 % of the training range)`."""
    figures = " ".join(f"{key} {dimension[key]:.3g}" for key in ("mean", "p95", "max"))
    unit = f" {dimension['unit']}" if dimension["unit"] not in ("", "1") else ""
    share = dimension["share"]
    about = f" (p95 is {100 * share['p95']:.2g} % of the {dimension['scale_is']})" if share else ""
    return f"{dimension['name']} {figures}{unit}{about}"


def _largest(dimension: Mapping[str, Any]) -> float:
    return dimension["share"]["p95"] if dimension["share"] else dimension["p95"]
