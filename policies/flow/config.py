"""A small flow-matching policy on vectors: state and object poses in, action chunks out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy, PolicyConfig


@PolicyConfig.register_subclass("flow")
@dataclass
class FlowConfig(PolicyConfig):
    """What training.train made and network.save wrote; needs the extra `policy`."""

    path: str = ""
    """folder with config.json and model.safetensors"""
    num_steps: int = 10
    """Euler steps from noise to action"""
    max_batch: int = 16
    """robots whose requests share one pass"""
    guidance: Literal["identity", "vjp"] = "identity"
    """aggregate=rtc: how the prefix is fed back, as LeRobot does (identity) or as the paper does (vjp)"""
    guidance_schedule: Literal["zeros", "ones", "linear", "exp"] = "linear"
    """aggregate=rtc: how the pull of the prefix falls off after what is committed"""
    max_guidance_weight: float = 10.0
    """aggregate=rtc: bound of the feedback; as many as num_steps removes the whole error in a step"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        for key in ("num_steps", "max_batch", "max_guidance_weight"):
            if not getattr(self, key) > 0:
                raise SpecError(f"policy.{key}: found {getattr(self, key):g}; must be positive")

    def make(self) -> Policy:
        if not self.path:
            raise SpecError("policy.path: needs the folder of a trained flow policy")
        from tactus.policies.flow.network import WEIGHTS, load
        from tactus.policies.flow.policy import FlowPolicy
        from tactus.policies.guidance import PrefixGuidance

        folder = Path(self.path).expanduser()
        network = load(folder).to(self.device)
        guidance = PrefixGuidance(self.guidance_schedule, self.max_guidance_weight, self.guidance)
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()[:8]
        name = f"flow {folder.resolve().name} {digest}"
        return FlowPolicy(network, guidance, self.num_steps, self.max_batch, name)
