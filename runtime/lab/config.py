"""What describes a sweep: the values of each setting, whose combinations are compared."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Any

from pydantic import BeforeValidator

from tactus.hal.config import Config, Count, Names, Share
from tactus.runtime.robot_node.config import Aggregation
from tactus.runtime.wire.config import Latency

OPTIONS = ("drop=", "reorder=", "sigma=")
LARGEST = 2000
"""Cells in one sweep, at most: more is a slip of the keyboard."""


def _whole(latencies: Any) -> Any:
    """[lognormal:3, drop=0.05] is one latency that YAML took for two."""
    if not isinstance(latencies, list):
        return latencies
    whole: list[str] = []
    for text in map(str, latencies):
        if text.strip().startswith(OPTIONS) and whole:
            whole[-1] = f"{whole[-1]},{text.strip()}"
        else:
            whole.append(text.strip())
    return whole


class SweepConfig(Config):
    """A grid; an empty list stands for the one value of the run's own key."""

    default: bool = False
    """latencies of 0, 2, 4, 6, 8 ticks and every aggregation worth comparing, where the grid does not say otherwise"""
    latency: Annotated[list[Latency], BeforeValidator(_whole), Names] = field(default_factory=list)
    """latency models, e.g. [fixed:0, fixed:4, "lognormal:3,drop=0.05"]"""
    aggregate: Annotated[list[Aggregation], Names] = field(default_factory=list)
    """aggregations, e.g. [latest_only, temporal_ensemble]"""
    chunk_size_threshold: list[Share] = field(default_factory=list)
    """chunk_size_thresholds, e.g. [0, 0.5, 0.9]"""
    execution_horizon: list[Count] = field(default_factory=list)
    """execution horizons, e.g. [8, 16]"""

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The values that were given of each setting."""
        keys = ("latency", "aggregate", "chunk_size_threshold", "execution_horizon")
        return {key: getattr(self, key) for key in keys}

    def __post_init__(self) -> None:
        for key, values in self.axes.items():
            if twice := sorted({str(value) for value in values if values.count(value) > 1}):
                raise ValueError(f"{key}: {', '.join(twice)} is there more than once")
        if (count := math.prod(len(values) or 1 for values in self.axes.values())) > LARGEST:
            raise ValueError(f"{count} cells; at most {LARGEST} make one sweep")

    def __bool__(self) -> bool:
        return self.default or any(self.axes.values())
