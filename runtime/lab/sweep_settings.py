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
POLICY_NAME = "policy_name"


@dataclass(frozen=True)
class Cell:
    """One combination. latency: a text of tactus.runtime.wire.latency. execution_horizon: None for the policy's own.
    policy: its name in a sweep of several, "" in any other.
    """

    latency: str = "fixed:0"
    aggregate: str = "latest_only"
    chunk_size_threshold: float = 0.5
    execution_horizon: int | None = None
    policy: str = ""

    @property
    def name(self) -> str:
        """Short, readable, and fit for a folder: fixed-2_latest_only_threshold-0.5, after the policy's name if it has
        one."""
        parts = [
            *([self.policy] if self.policy else []),
            self.latency,
            self.aggregate,
            f"threshold-{self.chunk_size_threshold:g}",
        ]
        if self.execution_horizon is not None:
            parts.append(f"horizon-{self.execution_horizon}")
        return re.sub(r"[^\w.=+-]+", "-", "_".join(parts))

    def to_dict(self) -> dict[str, Any]:
        """As results keep it: beside `policy`, what that is, and without a name as a sweep of one policy always was."""
        settings = asdict(self)
        name = settings.pop("policy")
        return settings | ({POLICY_NAME: name} if name else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cell:
        settings = {key: data[key] for key in ("latency", "aggregate", "chunk_size_threshold", "execution_horizon")}
        return cls(**settings, policy=str(data.get(POLICY_NAME, "")))

    @property
    def synchronous(self) -> bool:
        """Whether this is what lerobot-eval does: the robot stands still until its next chunk is there."""
        return self == replace(SYNCHRONOUS, execution_horizon=self.execution_horizon, policy=self.policy)


SYNCHRONOUS = Cell(chunk_size_threshold=0.0)


def cells(sweep: SweepConfig, base: Cell, policies: Mapping[str, PolicySpec]) -> list[Cell]:
    """Each policy's synchronous reference, then every combination. base: the run's own values. policies: by name, ""
    for the only one.

    Raises SpecError naming every setting that one of them cannot do.
    """
    references = [replace(SYNCHRONOUS, execution_horizon=base.execution_horizon, policy=name) for name in policies]
    every = list(
        dict.fromkeys([*references, *(cell for name in policies for cell in _grid(sweep, base, name, policies[name]))])
    )
    if wrong := [text for name, policy in policies.items() if (text := _wrong(every, name, policy))]:
        raise SpecError("; ".join(wrong))
    return every


def _grid(sweep: SweepConfig, base: Cell, name: str, policy: PolicySpec) -> list[Cell]:
    compared = [name for name in COMPARED if name != RTC or policy.takes_prefix] if sweep.default else []
    axes = (
        sweep.latency or (LATENCIES if sweep.default else [base.latency]),
        sweep.aggregate or compared or [base.aggregate],
        sweep.chunk_size_threshold or [base.chunk_size_threshold],
        sweep.execution_horizon or [base.execution_horizon],
    )
    return [Cell(*values, policy=name) for values in itertools.product(*axes)]


def _wrong(cells: list[Cell], name: str, policy: PolicySpec) -> str:
    """What of its cells a policy cannot do; empty if nothing."""
    mine, wrong = [cell for cell in cells if cell.policy == name], []
    if not policy.takes_prefix and any(cell.aggregate == RTC for cell in mine):
        wrong.append(f"aggregate {RTC} needs a policy that can continue a chunk")
    horizons = {cell.execution_horizon for cell in mine if cell.execution_horizon is not None}
    if too_long := sorted(horizon for horizon in horizons if horizon > policy.horizon):
        wrong.append(f"execution_horizon {', '.join(map(str, too_long))}: its chunks have {policy.horizon} actions")
    who = f"{name} ({policy.name})" if name else policy.name
    return f"{who} cannot do all of this grid: {'; '.join(wrong)}" if wrong else ""
