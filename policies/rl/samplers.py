"""How a flow policy draws a chunk when it explores, and how probable what it drew is: sums of Gaussian steps.

    flow_noise   every Euler step is followed by noise: x' = x + dt·v + sigma·e  (ReinFlow, arXiv 2505.22094)
    flow_sde     one step, drawn at random, is one of the SDE with the same marginals, all others are Euler's
                 (Flow-GRPO, arXiv 2505.05470); for a diffusion of sigma·√t
                 x' = x + (v + sigma²/2·(x + (1-t)·v))·dt + sigma·√(t·|dt|)·e
    noise        the initial noise is N(m(o), s) with what has been learned of it; all else is as deployed
    filtered     as flow_noise, though nothing is weighted by its probability; with a sigma of 0 as deployed

Noise is added to the robot's dimensions alone, so that padding has no part in a probability.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tactus.hal.spec import Observation
from tactus.policies.flow_model import FlowModel, draw_noise, velocity_parameters
from tactus.policies.rl.config import Method
from tactus.policies.rl.noise_network import NoiseNetwork


class Drawn(NamedTuple):
    """chunks: [B, H, W]. points: [B, S + 1, H, W], where the random steps began and ended; of the initial noise alone,
    [B, 1, H, W]. times: [B, S]. log_prob: [B, S or 1, H], sums over the robot's dimensions."""

    chunks: Tensor
    points: Tensor
    times: Tensor
    log_prob: Tensor


class Sampler(ABC):
    """Draws chunks of a flow model. sigma: how far it explores; with 0 the policy itself answers, as deployed. tells:
    whether a learner weighs what was drawn by its probability, and has to be told how it was."""

    tells = True

    def __init__(self, flow: FlowModel, sigma: float) -> None:
        self.flow, self.sigma = flow, sigma

    def learned(self, observations: Sequence[Observation]) -> dict[str, nn.Parameter]:
        """The weights that practice changes, by name. observations: one that the policy can read."""
        return velocity_parameters(self.flow, observations)

    @abstractmethod
    def draw(self, observations: Sequence[Observation], generators: Sequence[torch.Generator]) -> Drawn:
        """One chunk per observation, with noise from its own generator."""

    @abstractmethod
    def log_prob(self, observations: Sequence[Observation], points: Tensor, times: Tensor) -> Tensor:
        """[B, S or 1, H], as Drawn.log_prob, of what was drawn earlier, under the present weights; differentiable."""

    def _normal(self, generators: Sequence[torch.Generator], like: Tensor) -> Tensor:
        """[B, H, W], 0 in the padding."""
        shape = (1, self.flow.horizon, self.flow.actions)
        noise = torch.cat([torch.randn(shape, generator=generator) for generator in generators])
        return nn.functional.pad(noise, (0, self.flow.width - self.flow.actions)).to(like.device)

    def _rows(self, x: Tensor, mean: Tensor, std: Tensor | float) -> Tensor:
        """float64[B, H]: log-density of the robot's dimensions of x [B, H, W]."""
        std = torch.as_tensor(std, device=x.device, dtype=torch.float64)
        real = slice(None, self.flow.actions)
        error = ((x.double() - mean.double()) / std)[..., real]
        constant = torch.log(std) + 0.5 * math.log(2 * math.pi)
        return -(0.5 * error**2 + constant.expand_as(x)[..., real]).sum(-1)


class FlowNoise(Sampler):
    """Noise after every Euler step."""

    def draw(self, observations: Sequence[Observation], generators: Sequence[torch.Generator]) -> Drawn:
        condition = self.flow.condition(observations)
        x = self.flow.noise(generators).to(_device(self.flow))
        points, times, rows = [x], [], []
        for step in range(self.flow.num_steps):
            t = self._time(step, len(x), x.device)
            mean = x - self.flow.velocity(condition, x, t) / self.flow.num_steps
            x = mean + self.sigma * self._normal(generators, x)
            points.append(x)
            times.append(t)
            rows.append(self._rows(x, mean, self.sigma))
        return Drawn(x, torch.stack(points, 1), torch.stack(times, 1), torch.stack(rows, 1))

    def log_prob(self, observations: Sequence[Observation], points: Tensor, times: Tensor) -> Tensor:
        condition = self.flow.condition(observations)
        rows = []
        for step in range(times.shape[1]):
            x = points[:, step]
            mean = x - self.flow.velocity(condition, x, times[:, step]) / self.flow.num_steps
            rows.append(self._rows(points[:, step + 1], mean, self.sigma))
        return torch.stack(rows, 1)

    def _time(self, step: int, count: int, device: torch.device) -> Tensor:
        return torch.full((count,), 1 - step / self.flow.num_steps, device=device)


class FlowSde(FlowNoise):
    """One step of the SDE, somewhere on the way."""

    def draw(self, observations: Sequence[Observation], generators: Sequence[torch.Generator]) -> Drawn:
        condition = self.flow.condition(observations)
        x = self.flow.noise(generators).to(_device(self.flow))
        steps = self.flow.num_steps
        chosen = torch.tensor([int(torch.randint(steps, (), generator=g)) for g in generators], device=x.device)
        noise = self._normal(generators, x)
        begins = ends = torch.zeros_like(x)
        rows = x.new_zeros(x.shape[:2], dtype=torch.float64)
        for step in range(steps):
            t = self._time(step, len(x), x.device)
            v = self.flow.velocity(condition, x, t)
            mean, std = self._step(x, v, t)
            here = (chosen == step)[:, None, None]
            begins = torch.where(here, x, begins)
            drawn = mean + std * noise
            rows = torch.where(here[..., 0], self._rows(drawn, mean, std), rows)
            x = torch.where(here, drawn, x - v / steps)
            ends = torch.where(here, x, ends)
        return Drawn(x, torch.stack([begins, ends], 1), 1 - chosen[:, None] / steps, rows[:, None])

    def log_prob(self, observations: Sequence[Observation], points: Tensor, times: Tensor) -> Tensor:
        condition = self.flow.condition(observations)
        x, t = points[:, 0], times[:, 0]
        mean, std = self._step(x, self.flow.velocity(condition, x, t), t)
        return self._rows(points[:, 1], mean, std)[:, None]

    def _step(self, x: Tensor, v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a step of the SDE; the padding takes Euler's."""
        dt, wide = 1 / self.flow.num_steps, t[:, None, None]
        drift = 0.5 * self.sigma**2 * (x + (1 - wide) * v)
        drift[..., self.flow.actions :] = 0
        return x - (v + drift) * dt, self.sigma * torch.sqrt(wide * dt)


class InitialNoise(Sampler):
    """The initial noise, drawn as a network says that looks at the observation. The flow model is asked for chunks
    only, never for a gradient."""

    def __init__(self, flow: FlowModel, sigma: float, network: NoiseNetwork) -> None:
        super().__init__(flow, sigma)
        self.network = network

    def learned(self, observations: Sequence[Observation]) -> dict[str, nn.Parameter]:
        return dict(self.network.named_parameters())

    def draw(self, observations: Sequence[Observation], generators: Sequence[torch.Generator]) -> Drawn:
        plain = draw_noise(generators, self.flow.horizon, self.flow.width)
        mean, std = self.network(observations)
        x = torch.cat([mean + std * plain[..., : self.flow.actions], plain[..., self.flow.actions :]], dim=-1)
        chunks = self.flow.integrate(self.flow.condition(observations), x.to(_device(self.flow)))
        rows = self._rows(x[..., : self.flow.actions], mean, std)
        return Drawn(chunks, x[:, None], x.new_zeros(len(x), 0), rows[:, None])

    def log_prob(self, observations: Sequence[Observation], points: Tensor, times: Tensor) -> Tensor:
        mean, std = self.network(observations)
        return self._rows(points[:, 0, :, : self.flow.actions], mean, std)[:, None]


def sampler(method: Method, flow: FlowModel, sigma: float, network: NoiseNetwork | None = None) -> Sampler:
    """The one of a method. network: for `noise`."""
    if method == "noise":
        assert network is not None
        return InitialNoise(flow, sigma, network)
    made = FlowSde(flow, sigma) if method == "flow_sde" else FlowNoise(flow, sigma)
    made.tells = method != "filtered"
    return made


def _device(flow: FlowModel) -> torch.device:
    return next(flow.network.parameters()).device
