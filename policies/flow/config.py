"""A small flow-matching policy on vectors: state and object poses in, action chunks out."""

from __future__ import annotations

from typing import Literal

from tactus.hal.config import Count, FilePath, NotNegative, Positive
from tactus.policies.policy import PolicyConfig


@PolicyConfig.register_subclass("flow")
class FlowConfig(PolicyConfig):
    """A small flow-matching policy of our own training; needs the extra `policy`."""

    path: FilePath = ""
    """folder with config.json and model.safetensors"""
    num_steps: Count | None = None
    """Euler steps from noise to action; not given: the checkpoint's own"""
    noise_scale: NotNegative = 1.0
    """factor on the noise that a chunk begins as; 0: no noise, the same chunk whenever the same is seen"""
    max_batch: Count = 16
    """robots whose requests share one pass"""
    guidance: Literal["identity", "vjp"] = "identity"
    """aggregate=rtc: how the prefix is fed back, as LeRobot does (identity) or as the paper does (vjp)"""
    guidance_schedule: Literal["zeros", "ones", "linear", "exp"] = "linear"
    """aggregate=rtc: how the pull of the prefix falls off after what is committed"""
    max_guidance_weight: Positive | None = None
    """aggregate=rtc: bound of the feedback; as many as num_steps removes the whole error in a step, and is the default,
    or 10 if that is less"""
    device: str = "cpu"
    """cpu, cuda or cuda:N"""

    entry_point = "tactus.policies.flow.policy:build"
