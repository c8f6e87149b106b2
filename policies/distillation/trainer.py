"""Trains a student, which begins as its teacher, to take fewer denoising steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tactus.hal.spec import Observation, SpecError
from tactus.policies import weight_average
from tactus.policies.distillation.config import DistillationConfig
from tactus.policies.distillation.methods import METHODS, Reflow
from tactus.policies.distillation.pairs import Pairs, draw
from tactus.policies.flow_model import FlowModel, velocity_parameters
from tactus.policies.training_state import load_state, save_state

RISE = 100
"""Steps in which the learning rate rises."""
CLIP = 1.0
"""Largest norm of a gradient."""
CHECKED = 2048
"""Pairs that are looked at once more when training is over."""
GRID = tuple(k / 10 for k in range(1, 11))
"""Times at which losses are compared: t = 1 is where a one-step student is asked."""


class Trained(NamedTuple):
    """losses: of every step, float32[steps]. facts: what the student was really trained on, for `verdict.checks`."""

    losses: Tensor
    facts: dict[str, Any]


def learning_rate(config: DistillationConfig, step: int) -> float:
    """Of step 0 … steps - 1."""
    return config.learning_rate * min(1.0, (step + 1) / RISE) * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def train(
    teacher: FlowModel,
    student: FlowModel,
    observations: Sequence[Observation],
    pairs: Pairs | None,
    config: DistillationConfig,
    state: Path,
    about: Mapping[str, str],
    progress: Callable[[int, float], object] = lambda step, loss: None,
    method: Reflow | None = None,
) -> Trained:
    """Trains the student in place; it ends with the running average of its weights.

    pairs: None for new ones at every step. state: the file that is saved every `config.save_every` steps, and gone on
    from if it is there and `about` is the same. progress: told of every step. method: another than the config's.
    Under torchrun or `accelerate launch`, every process takes its share of each batch. Raises SpecError for a loss that
    is not finite, and for a state that cannot be gone on from.
    """
    method = method or METHODS[config.method]()
    state.parent.mkdir(parents=True, exist_ok=True)
    weights = velocity_parameters(student, observations)
    average = {name: tensor.detach().clone() for name, tensor in weights.items()}
    device = next(iter(weights.values())).device
    accelerator = Accelerator(cpu=device.type == "cpu")
    optimizers = _optimizers(weights, config)
    losses = torch.zeros(config.steps)
    begin = 0
    if state.is_file():
        done = load_state(state, about, weights, average, optimizers)
        begin = len(done)
        losses[:begin] = done
    for step in range(begin, config.steps):
        generator = torch.Generator().manual_seed(config.seed * 2**31 + step)
        given = _batch(teacher, observations, pairs, config, generator)
        stage = int(step >= config.steps * (1 - config.one_step_stage))
        t = method.times(len(given.rows), stage, generator)
        share = slice(accelerator.process_index, None, accelerator.num_processes)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.dtype == "bfloat16"):
            mine = Pairs(*(part[share] for part in given))
            loss = _loss(method, teacher, student, observations, mine, t[share], device)
        for tensor in weights.values():
            tensor.grad = None
        loss.backward()
        if accelerator.num_processes > 1:
            for tensor in weights.values():
                assert tensor.grad is not None
                tensor.grad = accelerator.reduce(tensor.grad, "mean")  # type: ignore[assignment]
        torch.nn.utils.clip_grad_norm_(weights.values(), CLIP)
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = learning_rate(config, step)
            optimizer.step()
        weight_average.update(average, weights, step, config.average)
        losses[step] = loss.detach().cpu()
        if not losses[step].isfinite():
            raise SpecError(
                f"training: the loss of step {step + 1} is no finite number; a lower learning_rate than "
                f"{config.learning_rate:g} may do, or --dtype=float32"
            )
        if (step + 1) % config.save_every == 0 and accelerator.is_main_process and step + 1 < config.steps:
            save_state(state, about, weights, average, optimizers, losses[: step + 1])
        progress(step, float(losses[step]))
    with torch.no_grad():
        for name, tensor in weights.items():
            tensor.copy_(average[name])
            tensor.requires_grad_(False)
    generator = torch.Generator().manual_seed(config.seed)
    seen = Pairs(*(x[:CHECKED] for x in pairs)) if pairs else draw(teacher, observations, CHECKED, generator)
    return Trained(losses, _facts(method, student, observations, method.given(seen) if method.coupled else seen))


def _optimizers(weights: Mapping[str, nn.Parameter], config: DistillationConfig) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) takes matrices, and with this adjustment (arXiv 2502.16982) the learning rate of AdamW."""
    matrices = [w for w in weights.values() if w.ndim == 2 and config.optimizer == "muon"]
    others = [w for w in weights.values() if not any(w is matrix for matrix in matrices)]
    found: list[torch.optim.Optimizer] = []
    if matrices:
        rate = config.learning_rate
        found.append(torch.optim.Muon(matrices, rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"))
    if others:
        found.append(torch.optim.AdamW(others, config.learning_rate, weight_decay=0.0))
    return found


def _batch(
    teacher: FlowModel,
    observations: Sequence[Observation],
    pairs: Pairs | None,
    config: DistillationConfig,
    generator: torch.Generator,
) -> Pairs:
    if pairs is None:
        return draw(teacher, observations, config.batch, generator)
    chosen = torch.randint(len(pairs.rows), (config.batch,), generator=generator)
    return Pairs(*(part[chosen] for part in pairs))


def _loss(
    method: Reflow,
    teacher: FlowModel,
    student: FlowModel,
    observations: Sequence[Observation],
    pairs: Pairs,
    t: Tensor,
    device: torch.device,
) -> Tensor:
    """Mean squared error of the velocity over the batch, a scalar."""
    seen = [observations[row] for row in pairs.rows.tolist()]
    given = method.given(pairs)
    weights = method.weights(given).to(device)
    given, t = Pairs(*(part.to(device) for part in given)), t.to(device)
    x = method.point(given, t)
    condition = student.condition(seen)
    theirs = teacher.condition(seen) if method.needs_teacher else None
    target = method.target(given, x, t, teacher, student, (theirs, condition))
    error = student.velocity(condition, x, t).float() - target.float()
    return (weights * error**2).sum() / weights.sum().clamp(min=1)


@torch.no_grad()
def _facts(method: Reflow, student: FlowModel, observations: Sequence[Observation], pairs: Pairs) -> dict[str, Any]:
    """Of the pairs as they were trained on: what deployment will be held to."""
    weights, padding = method.weights(pairs), pairs.chunks[..., student.actions :]
    return {
        "noise_mean": pairs.noise.mean((0, 1)).tolist(),
        "noise_std": pairs.noise.std((0, 1)).tolist(),
        "padding": padding.abs().mean().item() if padding.numel() else None,
        "weight_by_dimension": weights.mean((0, 1)).tolist(),
        "weight_by_step": weights[..., : student.actions].mean((0, 2)).tolist(),
        "loss": losses_at(student, observations, pairs, method),
    }


@torch.no_grad()
def losses_at(
    student: FlowModel, observations: Sequence[Observation], pairs: Pairs, method: Reflow | None = None
) -> list[float]:
    """Mean squared error of the velocity over the robot's dimensions at each time of GRID, on the lines of `pairs`."""
    method = method or Reflow()
    device = next(student.network.parameters()).device
    sums = [0.0] * len(GRID)
    for begin in range(0, len(pairs.rows), 256):
        part = Pairs(*(x[begin : begin + 256].to(device) for x in pairs))
        condition = student.condition([observations[row] for row in part.rows.tolist()])
        for index, time in enumerate(GRID):
            t = torch.full((len(part.rows),), time, device=device)
            error = student.velocity(condition, method.point(part, t), t) - method.direction(part)
            weights = method.weights(part)[..., : student.actions]
            squared = (weights * error[..., : student.actions] ** 2).sum() / weights.sum().clamp(min=1)
            sums[index] += squared.item() * len(part.rows)
    return [total / len(pairs.rows) for total in sums]
