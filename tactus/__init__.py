"""Learned robot policies on the beat. The names a program outside needs; each is imported when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tactus.hal.config import Config
    from tactus.hal.robot import Outcome, Robot, RobotConfig, RobotError, Scene
    from tactus.hal.spec import Chunk, Feature, Observation, PolicySpec, RobotSpec, SpecError, image
    from tactus.policies.policy import Policy, PolicyConfig, PolicyError, Request, Session
    from tactus.runtime.policy_node.node import PolicyNode
    from tactus.runtime.robot_node.clock import RealClock, VirtualClock
    from tactus.runtime.robot_node.config import LoopConfig
    from tactus.runtime.robot_node.node import RobotNode
    from tactus.runtime.wire.link import Link

_HOMES = {
    "hal.config": ("Config",),
    "hal.robot": ("Outcome", "Robot", "RobotConfig", "RobotError", "Scene"),
    "hal.spec": ("Chunk", "Feature", "Observation", "PolicySpec", "RobotSpec", "SpecError", "image"),
    "policies.policy": ("Policy", "PolicyConfig", "PolicyError", "Request", "Session"),
    "runtime.policy_node.node": ("PolicyNode",),
    "runtime.robot_node.clock": ("RealClock", "VirtualClock"),
    "runtime.robot_node.config": ("LoopConfig",),
    "runtime.robot_node.node": ("RobotNode",),
    "runtime.wire.link": ("Link",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Chunk", "Config", "Feature", "Link", "LoopConfig", "Observation", "Outcome", "Policy", "PolicyConfig",
    "PolicyError", "PolicyNode", "PolicySpec", "RealClock", "Request", "Robot", "RobotConfig", "RobotError",
    "RobotNode", "RobotSpec", "Scene", "Session", "SpecError", "VirtualClock", "image",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'tactus' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tactus.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
