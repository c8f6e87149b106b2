"""A policy's forward pass under torch.compile, on batches of a few fixed sizes that are compiled at start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tactus.policies.lerobot.chunk_prediction import FLOW
from tactus.policies.lerobot.weights import CheckpointError
from tactus.policies.policy import Request


class Compiled:
    """Compiles the part of `policy` that takes the time. mode: torch.compile's, or "none" for eager.

    buckets: batch sizes to run once at start, warm_ups: how often. Raises CheckpointError for a policy for which
    nothing is known to compile.
    """

    def __init__(self, policy: Any, mode: str, max_batch: int) -> None:
        on_cpu = policy.config.device == "cpu"
        self.buckets, self.warm_ups = (1,) if on_cpu else (1, max_batch), 1  # is there memory for the largest pass?
        self._fixed = mode != "none"
        if not self._fixed:
            return
        kind = policy.config.type
        torch.set_float32_matmul_precision("highest" if on_cpu else "high")
        if kind in FLOW:
            policy.model.sample_actions = torch.compile(policy.model.sample_actions, mode=mode, dynamic=False)
        elif kind == "act":
            policy.model.forward = torch.compile(policy.model.forward, mode=mode, dynamic=False)
        elif kind == "diffusion":
            policy.diffusion.unet.forward = torch.compile(policy.diffusion.unet.forward, mode=mode, dynamic=False)
        else:
            known = ", ".join(("act", "diffusion", *FLOW))
            raise CheckpointError(f"policy.compile: {kind} runs eagerly only (none); {mode} is for {known}")
        self.buckets = tuple(sorted({*(2**k for k in range(max_batch.bit_length()) if 2**k <= max_batch), max_batch}))
        self.warm_ups = 3  # CUDA graphs are recorded in the second pass and replayed from the third on

    def fill(self, requests: Sequence[Request]) -> list[Request]:
        """The requests, the last one repeated up to the next bucket."""
        if not self._fixed:
            return list(requests)
        size = next(bucket for bucket in self.buckets if bucket >= len(requests))
        return [*requests, *[requests[-1]] * (size - len(requests))]
