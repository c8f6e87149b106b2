"""Flow matching on what was done: of rollouts that succeeded, and of demonstrations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tactus.hal.spec import Observation, SpecError
from tactus.policies import weight_average
from tactus.policies.flow_model import FlowModel, draw_noise
from tactus.policies.rl.config import PracticeConfig
from tactus.policies.rl.data_parallel import share, step, total
from tactus.policies.rl.rollouts import Rollout

WEIGHT_DECAY = 1e-4


class Targets(NamedTuple):
    """What is imitated: what was observed, [N, H, W] what was done from there on, and [N, H, 1] how far that goes."""

    observations: list[Observation]
    chunks: Tensor
    valid: Tensor


def targets_of(flow: FlowModel, rollouts: Sequence[Rollout]) -> Targets:
    """All that can be imitated of these rollouts."""
    observations, actions, valid = [], [], []
    for rollout in rollouts:
        for observation, done, until in rollout.lessons():
            if until.any():
                observations.append(observation)
                actions.append(done)
                valid.append(until)
    device = next(flow.network.parameters()).device
    chunks = flow.encode(torch.from_numpy(np.stack(actions)).to(device))
    return Targets(observations, chunks, torch.from_numpy(np.stack(valid)).to(chunks)[..., None])


def matching_loss(flow: FlowModel, targets: Targets, count: int, generator: torch.Generator) -> Tensor:
    """Conditional flow matching on `count` targets drawn at random, over the robot's dimensions, with t from
    Beta(1.5, 1) as in LeRobot. Of several processes each returns its share of it."""
    chunks = targets.chunks
    rows = torch.randint(len(targets.observations), (count,), generator=generator)
    noise = draw_noise([generator] * count, flow.horizon, flow.width).to(chunks)
    t = (0.001 + 0.999 * torch.rand(count, generator=generator) ** (1 / 1.5)).to(chunks)
    mine = share(count)
    rows, noise, t = rows[mine], noise[mine], t[mine]
    wanted, weight = chunks[rows.to(chunks.device)], targets.valid[rows.to(chunks.device)]
    mix = t[:, None, None]
    condition = flow.condition([targets.observations[row] for row in rows.tolist()])
    v = flow.training_velocity(condition, mix * noise + (1 - mix) * wanted, t)
    error = ((v - (noise - wanted)) ** 2)[..., : flow.actions] * weight
    return error.sum() / (total(weight.sum()) * flow.actions)


def imitate(
    flow: FlowModel,
    weights: Mapping[str, nn.Parameter],
    targets: Targets,
    config: PracticeConfig,
    generator: Callable[[int], torch.Generator],
) -> dict[str, float]:
    """config.steps steps of a new optimiser; the weights become their running average, which warms up. generator: of a
    step. Returns figures for the log."""
    trained = {name: tensor for name, tensor in weights.items() if tensor.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), config.rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.rate, total_steps=max(2, config.steps))
    average = {name: tensor.detach().clone() for name, tensor in trained.items()}
    losses = []
    for number in range(config.steps):
        loss = matching_loss(flow, targets, config.minibatch, generator(number))
        step(optimizer, [*trained.values()], loss)
        schedule.step()
        weight_average.update(average, trained, number, config.average)
        losses.append(float(loss.detach()))
    with torch.no_grad():
        for name, tensor in trained.items():
            tensor.copy_(average[name])
    if not all(map(math.isfinite, losses)):
        raise SpecError(f"training: a loss is no finite number; a lower learning_rate than {config.rate:g} may do")
    return {"loss": float(np.mean(losses[-50:]))}
