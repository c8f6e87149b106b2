"""The settings that a sweep compares: a cell is one combination; the grid is all of them and the reference."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tactus.hal.spec import PolicySpec, SpecError
from tactus.runtime.robot_node.action_queue import AGGREGATIONS, RTC
from tactus.runtime.wire.latency import LatencyModel

LATENCIES = ("fixed:0", "fixed:2", "fixed:4", "fixed:6", "fixed:8")
COMPARED = ("latest_only", "weighted_average", "temporal_ensemble", RTC)
"""What a bare --sweep goes through; RTC where the policy can."""
OPTIONS = ("drop=", "reorder=", "sigma=")
LARGEST = 2000
"""Cells in one sweep, at most: more is a slip of the keyboard."""


@dataclass(frozen=True)
class Cell:
    """One combination. latency: a text of tactus.runtime.wire.latency. execution_horizon: None for the policy's own."""

    latency: str = "fixed:0"
    aggregate: str = "latest_only"
    chunk_size_threshold: float = 0.5
    execution_horizon: int | None = None

    @property
    def name(self) -> str:
        """Short, readable, and fit for a folder: fixed-2_latest_only_threshold-0.5."""
        parts = [self.latency, self.aggregate, f"threshold-{self.chunk_size_threshold:g}"]
        if self.execution_horizon is not None:
            parts.append(f"horizon-{self.execution_horizon}")
        return re.sub(r"[^\w.=+-]+", "-", "_".join(parts))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        return cls(**{key: data[key] for key in ("latency", "aggregate", "chunk_size_threshold", "execution_horizon")})

    @property
    def synchronous(self) -> bool:
        """Whether this is what lerobot-eval does: the robot stands still until its next chunk is there."""
        return self == replace(SYNCHRONOUS, execution_horizon=self.execution_horizon)


SYNCHRONOUS = Cell(chunk_size_threshold=0.0)


@dataclass
class SweepConfig:
    """A grid; an empty list stands for the one value of the run's own key."""

    default: bool = False
    """latencies of 0, 2, 4, 6, 8 ticks and every aggregation worth comparing, where the grid does not say otherwise"""
    latency: list[str] = field(default_factory=list)
    """latency models, e.g. [fixed:0, fixed:4, "lognormal:3,drop=0.05"]"""
    aggregate: list[str] = field(default_factory=list)
    """aggregations, e.g. [latest_only, temporal_ensemble]"""
    chunk_size_threshold: list[float] = field(default_factory=list)
    """chunk_size_thresholds, e.g. [0, 0.5, 0.9]"""
    execution_horizon: list[int] = field(default_factory=list)
    """execution horizons, e.g. [8, 16]"""

    def __post_init__(self) -> None:
        self.latency = _whole(self.latency)
        for key in ("latency", "aggregate", "chunk_size_threshold", "execution_horizon"):
            values = getattr(self, key)
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"sweep.{key}: {', '.join(twice)} is there more than once")
        for text in self.latency:
            LatencyModel.parse(text)
        if unknown := [name for name in self.aggregate if name not in AGGREGATIONS]:
            raise ValueError(f"sweep.aggregate: found {', '.join(unknown)}; accepted: {', '.join(AGGREGATIONS)}")
        if wrong := [f"{value:g}" for value in self.chunk_size_threshold if not 0 <= value <= 1]:
            raise ValueError(f"sweep.chunk_size_threshold: found {', '.join(wrong)}; accepted: 0 to 1")
        if wrong := [str(value) for value in self.execution_horizon if value < 1]:
            raise ValueError(f"sweep.execution_horizon: found {', '.join(wrong)}; must be at least 1")

        axes = (self.latency, self.aggregate, self.chunk_size_threshold, self.execution_horizon)
        if (count := math.prod(len(axis) or 1 for axis in axes)) > LARGEST:
            raise ValueError(f"sweep: {count} cells; at most {LARGEST} make one sweep")

    def __bool__(self) -> bool:
        axes = (self.latency, self.aggregate, self.chunk_size_threshold, self.execution_horizon)
        return self.default or any(axes)

    def cells(self, base: Cell, policy: PolicySpec) -> list[Cell]:
        """The synchronous reference, then every combination. base: the run's own values.

        Raises SpecError naming every setting that this policy cannot do.
        """
        compared = [name for name in COMPARED if name != RTC or policy.takes_prefix] if self.default else []
        axes = (
            self.latency or (LATENCIES if self.default else [base.latency]),
            self.aggregate or compared or [base.aggregate],
            self.chunk_size_threshold or [base.chunk_size_threshold],
            self.execution_horizon or [base.execution_horizon],
        )
        cells = [replace(SYNCHRONOUS, execution_horizon=base.execution_horizon)]
        cells += [Cell(*values) for values in itertools.product(*axes)]
        _check(cells, policy)
        return list(dict.fromkeys(cells))


def _check(cells: list[Cell], policy: PolicySpec) -> None:
    wrong = []
    if not policy.takes_prefix and any(cell.aggregate == RTC for cell in cells):
        wrong.append(f"aggregate {RTC} needs a policy that can continue a chunk")
    horizons = {cell.execution_horizon for cell in cells if cell.execution_horizon is not None}
    if too_long := sorted(horizon for horizon in horizons if horizon > policy.horizon):
        wrong.append(f"execution_horizon {', '.join(map(str, too_long))}: its chunks have {policy.horizon} actions")
    if wrong:
        raise SpecError(f"{policy.name} cannot do all of this grid: {'; '.join(wrong)}")


def _whole(latencies: list[str]) -> list[str]:
    """[lognormal:3, drop=0.05] is one latency that YAML took for two."""
    whole: list[str] = []
    for text in map(str, latencies):
        if text.strip().startswith(OPTIONS) and whole:
            whole[-1] = f"{whole[-1]},{text.strip()}"
        else:
            whole.append(text.strip())
    return whole
