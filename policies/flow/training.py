"""Training the flow policy on demonstrations, in memory: conditional flow matching (arXiv 2210.02747)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from tactus.policies.flow.network import FlowNetwork, Shape, see

CONSTANT = 1e-4
"""A dimension whose standard deviation is below this, in its own unit, is not scaled."""
AVERAGED = 0.999
"""Share that the running average of the weights, which is what is returned, keeps at each step; fewer at first."""


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
    network.observation_mean, network.observation_std = _statistics(seen)
    network.action_mean, network.action_std = _statistics(done)
    chunks = (chunks - network.action_mean) / network.action_std

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    average = torch.optim.swa_utils.AveragedModel(
        network,
        avg_fn=lambda kept, new, n: torch.lerp(kept, new, 1 - min(AVERAGED, (1 + int(n)) / (10 + int(n)))),
    )
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
        average.update_parameters(network)
        progress(step, loss.item())
    network.load_state_dict(average.module.state_dict())
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


def _statistics(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    std = values.std(0)
    return values.mean(0), torch.where(std > CONSTANT, std, torch.ones_like(std))
