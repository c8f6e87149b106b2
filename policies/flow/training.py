"""Training the flow policy on demonstrations, in memory: conditional flow matching (arXiv 2210.02747)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tactus.hal.spec import Feature
from tactus.policies import weight_average
from tactus.policies.flow.network import FlowNetwork, Shape, see

CONSTANT = 1e-4
"""A number whose standard deviation is below this, in its own unit, is constant; an observation is not scaled then."""
AVERAGED = 0.999
"""Share that the running average of the weights, which is what is returned, keeps at each step."""
SMALLEST = 0.05
"""An action's standard deviation, in halves of its range, is taken to be no less. With less, the rare jerks of what
hardly moves, dozens of standard deviations high, are most of the loss; with 1 for what never moves, what is left of a
noise of that size is executed: a wrist that no demonstration turns drifts away."""


def train(
    shape: Shape,
    observations: Sequence[np.ndarray],
    actions: Sequence[np.ndarray],
    steps: int = 5000,
    batch: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> FlowNetwork:
    """One episode per entry: observations [T, shape.width]; actions [T, A] as they were done, or [T, H, A] as they were
    meant from each tick on. The same seed gives the same weights.

    x_t = t·noise + (1 - t)·chunk and v = noise - chunk, with t from Beta(1.5, 1) as in LeRobot: mostly noise, where
    it is decided what to do. Every tick begins a chunk; past an episode's end, deltas are 0 and the rest stays.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = FlowNetwork(shape)
    seen = see(torch.tensor(np.concatenate([_history(o, shape) for o in observations]), dtype=torch.float32))
    chunks = torch.tensor(np.concatenate([_chunks(episode, shape) for episode in actions]), dtype=torch.float32)
    done = torch.tensor(np.concatenate([a if a.ndim == 2 else a[:, 0] for a in actions]), dtype=torch.float32)
    network.observation_mean, network.observation_std = seen.mean(0), _observation_std(seen)
    network.action_mean, network.action_std = done.mean(0), _action_std(done, shape.action)
    chunks = (chunks - network.action_mean) / network.action_std

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    weights = dict(network.named_parameters())
    average = {name: tensor.detach().clone() for name, tensor in weights.items()}
    for step in range(steps):
        rows = torch.randint(len(seen), (batch,), generator=generator)
        noise = torch.randn(batch, *chunks.shape[1:], generator=generator)
        time = 0.001 + 0.999 * torch.rand(batch, generator=generator) ** (1 / 1.5)
        mix = time[:, None, None]
        x_t = mix * noise + (1 - mix) * chunks[rows]
        loss = torch.nn.functional.mse_loss(network(x_t, time, seen[rows]), noise - chunks[rows])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        weight_average.update(average, weights, step, AVERAGED)
        progress(step, loss.item())
    network.load_state_dict(average, strict=False)  # statistics are no weights
    return network.eval().requires_grad_(False)


def _history(episode: np.ndarray, shape: Shape) -> np.ndarray:
    """[T, width] to [T, offsets, width]; before the first tick the first is repeated."""
    ticks = np.arange(len(episode))[:, None] + np.array(shape.offsets)
    return episode[np.maximum(ticks, 0)]


def _chunks(episode: np.ndarray, shape: Shape) -> np.ndarray:
    """[T, A] to [T, H, A]: what was done at each tick and the horizon after it. [T, H, A] stays."""
    if episode.ndim == 3:
        return episode
    rest = episode[-1].copy()
    rest[[mode == "delta" for mode in shape.action.mode] or slice(0)] = 0
    padded = np.concatenate([episode, np.repeat(rest[None], shape.horizon - 1, axis=0)])
    return np.stack([padded[tick : tick + shape.horizon] for tick in range(len(episode))])


def _observation_std(seen: torch.Tensor) -> torch.Tensor:
    std = seen.std(0)
    return torch.where(std > CONSTANT, std, torch.ones_like(std))


def _action_std(done: torch.Tensor, action: Feature) -> torch.Tensor:
    least = torch.full(action.shape, CONSTANT)
    if action.low and action.high:
        least = torch.maximum(least, SMALLEST * (torch.tensor(action.high) - torch.tensor(action.low)) / 2)
    return torch.maximum(done.std(0), least)
