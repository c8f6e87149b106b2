"""The one way to see a flow policy: the noise that it draws, and the velocity that leads from there to actions.

Time runs as in LeRobot: x_t = t·noise + (1 - t)·chunk, from t = 1 (noise) to t = 0 (the chunk), and the velocity is
that of t: v = noise - chunk. Chunks are the model's own: normalised, and as wide as the noise. SmolVLA and PI0 pad
actions to 32 numbers, draw noise for all of them and cut what is too much off at the very end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tactus.hal.spec import Observation

Guide = Callable[[Tensor, float, Callable[[Tensor], Tensor]], Tensor]
"""Of x, a time and the velocity there as a function of x: the velocity to go on with."""
NUM_STEPS = 10
"""Euler steps where a checkpoint does not say: what all of them have been trained for so far."""


class FlowModel(ABC):
    """horizon, width: of the noise and of a chunk. actions: how many of the width are the robot's; the rest is padding.
    num_steps: Euler steps in deployment. noise_scale: what its noise is multiplied by. network: whose parameters decide
    the velocity. name: of the checkpoint.
    """

    horizon: int
    width: int
    actions: int
    num_steps: int
    noise_scale: float = 1.0
    network: nn.Module
    name: str

    @abstractmethod
    def condition(self, observations: Sequence[Observation]) -> Any:
        """What the velocity depends on beside x and t, for a batch; made without gradients."""

    @abstractmethod
    def velocity(self, condition: Any, x: Tensor, t: Tensor) -> Tensor:
        """[B, horizon, width] at x [B, horizon, width] and t [B], by the very path that deployment takes.

        Differentiable in x, and in the parameters that are not behind `condition`.
        """

    @abstractmethod
    def training_velocity(self, condition: Any, x: Tensor, t: Tensor) -> Tensor:
        """The same, by the path that the policy's own training takes: what is cached in deployment is computed."""

    @abstractmethod
    def save(self, folder: Path, num_steps: int) -> None:
        """Write a checkpoint like the one this came from: its present weights, and num_steps in its config."""

    @abstractmethod
    def decode(self, chunks: Tensor) -> np.ndarray:
        """[B, horizon, actions], what a robot is sent of chunks [B, horizon, width]; where that depends on what was
        observed, for the observations of the latest `condition`."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """The chunks [B, horizon, width] that stand for actions [B, horizon, actions], as in the policy's own training:
        padding is 0. Raises SpecError where that depends on what was observed."""

    def noise(self, generators: Sequence[torch.Generator]) -> Tensor:
        """float32[B, horizon, width] exactly as deployment draws it."""
        return draw_noise(generators, self.horizon, self.width, self.noise_scale)

    def integrate(
        self,
        condition: Any,
        noise: Tensor,
        num_steps: int | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """The chunks [B, horizon, width] that Euler steps lead to from noise. num_steps: not given: as deployed.
        guide: changes velocities on the way, as `guidance.PrefixGuidance.guide` does."""
        return integrate(lambda x, t: self.velocity(condition, x, t), noise, num_steps or self.num_steps, guide)


def draw_noise(generators: Sequence[torch.Generator], horizon: int, width: int, scale: float = 1.0) -> Tensor:
    """float32[B, horizon, width], row by row, on the CPU, each from a generator of its own: none depends on others.

    scale: of the noise's standard deviation; as much is drawn from the generators with any, 0 too.
    """
    shape = (1, horizon, width)
    noise = torch.cat([torch.normal(0.0, 1.0, shape, dtype=torch.float32, generator=g) for g in generators])
    return noise * scale


def integrate(
    velocity: Callable[[Tensor, Tensor], Tensor],
    noise: Tensor,
    num_steps: int,
    guide: Guide | None = None,
) -> Tensor:
    """From noise [B, H, A] at t = 1 to chunks at t = 0 by Euler steps of velocity(x, t [B]).

    LeRobot's euler_integrate, to the bit; importing that one takes 20 s, since all of its policies come along.
    """
    x, dt = noise, -1.0 / num_steps
    for step in range(num_steps):
        time = 1.0 + step * dt
        times = torch.full((len(x),), time, device=x.device)
        v = velocity(x, times) if guide is None else guide(x, time, lambda x, times=times: velocity(x, times))
        x = x + dt * v
    return x


def velocity_parameters(flow: FlowModel, observations: Sequence[Observation]) -> dict[str, nn.Parameter]:
    """Those that the velocity depends on beside what conditions it, by name; all others are frozen.

    Of a VLA this is the action expert: the prefix stays what it is.
    """
    named = dict(flow.network.named_parameters())
    for tensor in named.values():
        tensor.requires_grad_(tensor.is_floating_point())
    with torch.enable_grad():
        condition = flow.condition(observations[:1])
        x = flow.noise([torch.Generator().manual_seed(0)]).to(next(iter(named.values())).device)
        flow.velocity(condition, x, torch.ones(1, device=x.device)).sum().backward()
    moved = {name: tensor for name, tensor in named.items() if tensor.grad is not None}
    for name, tensor in named.items():
        tensor.grad = None
        tensor.requires_grad_(name in moved)
    return moved
