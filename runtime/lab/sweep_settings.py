"""The settings that a sweep compares: a cell is one combination; the grid is all of them and the reference."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tactus.hal.spec import PolicySpec, SpecError
from tactus.runtime.lab.config import SweepConfig
from tactus.runtime.robot_node.action_queue import RTC

LATENCIES = ("fixed:0", "fixed:2", "fixed:4", "fixed:6", "fixed:8")
COMPARED = ("latest_only", "weighted_average", "temporal_ensemble", RTC)
"""What a bare --sweep goes through; RTC where the policy can."""


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


def cells(sweep: SweepConfig, base: Cell, policy: PolicySpec) -> list[Cell]:
    """The synchronous reference, then every combination. base: the run's own values.

    Raises SpecError naming every setting that this policy cannot do.
    """
    compared = [name for name in COMPARED if name != RTC or policy.takes_prefix] if sweep.default else []
    axes = (
        sweep.latency or (LATENCIES if sweep.default else [base.latency]),
        sweep.aggregate or compared or [base.aggregate],
        sweep.chunk_size_threshold or [base.chunk_size_threshold],
        sweep.execution_horizon or [base.execution_horizon],
    )
    every = [replace(SYNCHRONOUS, execution_horizon=base.execution_horizon)]
    every += [Cell(*values) for values in itertools.product(*axes)]
    _check(every, policy)
    return list(dict.fromkeys(every))


def _check(cells: list[Cell], policy: PolicySpec) -> None:
    wrong = []
    if not policy.takes_prefix and any(cell.aggregate == RTC for cell in cells):
        wrong.append(f"aggregate {RTC} needs a policy that can continue a chunk")
    horizons = {cell.execution_horizon for cell in cells if cell.execution_horizon is not None}
    if too_long := sorted(horizon for horizon in horizons if horizon > policy.horizon):
        wrong.append(f"execution_horizon {', '.join(map(str, too_long))}: its chunks have {policy.horizon} actions")
    if wrong:
        raise SpecError(f"{policy.name} cannot do all of this grid: {'; '.join(wrong)}")
