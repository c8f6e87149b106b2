"""What describes a sweep: the values of each setting, whose combinations are compared."""

from __future__ import annotations

import math
import re
from dataclasses import field
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from tactus.hal.config import Config, Count, Names, Share
from tactus.runtime.robot_node.config import Aggregation
from tactus.runtime.wire.address import malformed
from tactus.runtime.wire.config import Endpoint, Latency, endpoints_of

OPTIONS = ("drop=", "reorder=", "sigma=")
LARGEST = 2000
"""Cells in one sweep, at most: more is a slip of the keyboard."""
POLICIES = 6
"""In one sweep, at most: a picture has a colour for each."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}")
"""Of a policy: it begins the names of folders and lines in figures."""


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


def _policies(policies: dict[str, str]) -> dict[str, str]:
    """Names fit for a folder, addresses that can be."""
    if len(policies) > POLICIES:
        raise ValueError(f"{len(policies)} policies; at most {POLICIES} make one sweep")
    for name, endpoint in policies.items():
        if not NAME.fullmatch(name):
            raise ValueError(
                f"found the name {name!r:.60}; accepted: up to 32 letters, digits and . _ + -, a letter or digit first"
            )
        if alike := [other for other in policies if other != name and other.lower() == name.lower()]:
            raise ValueError(f"{name} and {alike[0]} would share a folder where capitals do not count; name them apart")
        if not (addresses := endpoints_of(endpoint)):
            raise ValueError(f"{name} has no address; accepted: that of a running `tactus serve`, or [ONE,TWO]")
        if wrong := next(filter(None, map(malformed, addresses)), ""):
            raise ValueError(f"{name}: {wrong}")
    return policies


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
    policy: Annotated[dict[str, Endpoint], AfterValidator(_policies)] = field(default_factory=dict)
    """policies by a name of yours, each a running `tactus serve`, e.g. {teacher: tcp://127.0.0.1:5555, student: …}"""

    @property
    def axes(self) -> dict[str, list[Any]]:
        """The values that were given of each setting."""
        keys = ("latency", "aggregate", "chunk_size_threshold", "execution_horizon")
        return {key: getattr(self, key) for key in keys} | {"policy": [*self.policy]}

    @property
    def nodes(self) -> dict[str, list[str]]:
        """The addresses of each policy's nodes, by its name."""
        return {name: endpoints_of(endpoint) for name, endpoint in self.policy.items()}

    def __post_init__(self) -> None:
        for key, values in self.axes.items():
            if twice := sorted({str(value) for value in values if values.count(value) > 1}):
                raise ValueError(f"{key}: {', '.join(twice)} is there more than once")
        if (count := math.prod(len(values) or 1 for values in self.axes.values())) > LARGEST:
            raise ValueError(f"{count} cells; at most {LARGEST} make one sweep")

    def __bool__(self) -> bool:
        return self.default or any(self.axes.values())
