"""A student beside its teacher, on observations that neither was trained on and the same noise for both, in numbers.

Errors and losses count the robot's dimensions alone, in units of the model: standard deviations, mostly.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tactus.hal.spec import Observation
from tactus.policies.distillation.pairs import Pairs
from tactus.policies.distillation.trainer import losses_at
from tactus.policies.flow_model import FlowModel

STEPS = (1, 2, 4, 10)
FINE = 20
"""Steps along a way, to see how straight it is."""
NOISES = 8
"""Drawn for the same observation, to see how far chunks spread."""
PART = 128
"""Observations at once."""
REPEATS = 20
"""Chunks that are timed."""


@dataclass
class Error:
    """Of the student's chunks against the teacher's. median, p90: of ‖student - teacher‖ / ‖teacher‖ over chunks.
    absolute: median |student - teacher| of a single number. by_dimension, by_step: root mean squares.
    """

    steps: int
    median: float
    p90: float
    absolute: float
    by_dimension: list[float]
    by_step: list[float]


@dataclass
class Latency:
    """Of one chunk, medians in ms. condition: what is made once (pictures, text, prefix); step: one denoising step."""

    condition_ms: float
    step_ms: float
    chunk_ms: float


@dataclass
class Measures:
    """padding: mean |chunk| of the teacher's padding, None without. noise_mean, noise_std: by dimension, as deployed.
    losses: at each time of trainer.GRID. straightness: mean squared distance of a velocity from its way's direction.
    spread: mean standard deviation of a number over noises. late: of the error of the last quarter of a chunk over
    that of the rest. cached: largest difference of the deployed velocity from the trained one, over its size.
    backwards: cosine of -velocity at t = 0 with the direction the noise at t = 1 should have gone; forwards: of
    velocity at t = 1. undistilled: the teacher's own error at the student's number of steps.
    """

    observations: int
    num_steps: int
    teacher_steps: int
    padding: float | None
    student_padding: float | None
    noise_mean: list[float]
    noise_std: list[float]
    losses: list[float]
    straightness: float
    teacher_straightness: float
    errors: list[Error]
    undistilled: float
    cached: float
    spread: float
    teacher_spread: float
    late: float
    forwards: float
    backwards: float
    latency: Latency
    teacher_latency: Latency

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def measure(
    teacher: FlowModel,
    student: FlowModel,
    observations: Sequence[Observation],
    seed: int = 0,
    progress: Callable[[int], object] = lambda more: None,
) -> Measures:
    """observations: held out. Takes some 80 velocities an observation; progress is told how many more are done."""
    device = next(student.network.parameters()).device
    generator = torch.Generator().manual_seed(seed + 2**40)  # not one that training drew from
    noise = student.noise([generator] * len(observations))
    parts = []
    for begin in range(0, len(observations), PART):
        part = slice(begin, begin + PART)
        parts.append(_ways(teacher, student, observations[part], noise[part].to(device)))
        progress(len(observations[part]))
    ways = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    chunks, real = ways["teacher"], slice(None, student.actions)
    pairs = Pairs(torch.arange(len(observations)), noise, chunks)
    counts = sorted({*STEPS, student.num_steps})
    errors = [_error(steps, ways[f"student {steps}"][..., real], chunks[..., real]) for steps in counts]
    seen = (
        observations[: max(1, PART // NOISES)]
        if len(observations) < PART
        else observations[:: len(observations) // PART]
    )
    spreads = _spread(teacher, student, seen, generator, device)
    padding = chunks[..., student.actions :]
    drawn = student.noise([torch.Generator().manual_seed(seed + 2**41)] * 2048)
    by_step = torch.tensor(next(e for e in errors if e.steps == 1).by_step)
    quarter = max(1, len(by_step) // 4)
    return Measures(
        observations=len(observations),
        num_steps=student.num_steps,
        teacher_steps=teacher.num_steps,
        padding=padding.abs().mean().item() if padding.numel() else None,
        student_padding=ways["student 1"][..., student.actions :].abs().mean().item() if padding.numel() else None,
        noise_mean=drawn.mean((0, 1)).tolist(),
        noise_std=drawn.std((0, 1)).tolist(),
        losses=losses_at(student, observations, pairs),
        straightness=ways["bend"].mean().item(),
        teacher_straightness=ways["teacher bend"].mean().item(),
        errors=errors,
        undistilled=_error(student.num_steps, ways["undistilled"][..., real], chunks[..., real]).median,
        cached=ways["cached"].max().item(),
        spread=spreads[0],
        teacher_spread=spreads[1],
        late=(by_step[-quarter:].mean() / by_step[:-quarter].mean()).item() if len(by_step) > quarter else 1.0,
        forwards=ways["forwards"].mean().item(),
        backwards=ways["backwards"].mean().item(),
        latency=latency(student, observations[:1], device),
        teacher_latency=latency(teacher, observations[:1], device),
    )


def _ways(
    teacher: FlowModel, student: FlowModel, observations: Sequence[Observation], noise: Tensor
) -> dict[str, Tensor]:
    theirs, ours = teacher.condition(observations), student.condition(observations)
    chunks = teacher.integrate(theirs, noise)
    counts = sorted({*STEPS, student.num_steps})
    ways = {f"student {steps}": student.integrate(ours, noise, steps) for steps in counts}
    ways |= {"teacher": chunks, "undistilled": teacher.integrate(theirs, noise, student.num_steps)}
    ways |= {"bend": _bend(student, ours, noise), "teacher bend": _bend(teacher, theirs, noise)}
    time = torch.linspace(0.05, 1, len(noise), device=noise.device)
    x = time[:, None, None] * noise + (1 - time[:, None, None]) * chunks
    deployed, trained = student.velocity(ours, x, time), student.training_velocity(ours, x, time)
    ways["cached"] = (deployed - trained).abs().flatten(1).amax(1) / deployed.abs().flatten(1).amax(1)
    towards, real = (noise - chunks)[..., : student.actions].flatten(1), slice(None, student.actions)
    for name, at, sign in (("forwards", 1.0, 1), ("backwards", 0.0, -1)):
        v = sign * student.velocity(ours, noise, torch.full_like(time, at))[..., real].flatten(1)
        ways[name] = torch.nn.functional.cosine_similarity(v, towards)
    return {name: way.float().cpu() for name, way in ways.items()}


def _bend(flow: FlowModel, condition: Any, noise: Tensor) -> Tensor:
    """[B]: how far, squared and in the mean over a way, the velocity is from the straight line between its ends."""
    velocities, x = [], noise
    for step in range(FINE):
        v = flow.velocity(condition, x, torch.full((len(x),), 1 - step / FINE, device=x.device))
        velocities.append(v[..., : flow.actions])
        x = x - v / FINE
    whole = (noise - x)[..., : flow.actions]
    return torch.stack([((v - whole) ** 2).mean((1, 2)) for v in velocities]).mean(0)


def _error(steps: int, found: Tensor, expected: Tensor) -> Error:
    apart = found - expected
    relative = apart.flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1).clamp(min=1e-9)
    return Error(
        steps,
        relative.median().item(),
        relative.quantile(0.9).item(),
        apart.abs().median().item(),
        (apart**2).mean((0, 1)).sqrt().tolist(),
        (apart**2).mean((0, 2)).sqrt().tolist(),
    )


def _spread(
    teacher: FlowModel,
    student: FlowModel,
    observations: Sequence[Observation],
    generator: torch.Generator,
    device: torch.device,
) -> tuple[float, float]:
    """How far the student's chunks spread over noises, and the teacher's, of the same observations and noises."""
    chunks: tuple[list[Tensor], list[Tensor]] = ([], [])
    noises = [student.noise([generator] * len(observations)) for _ in range(NOISES)]
    for begin in range(0, len(observations), PART):
        part = observations[begin : begin + PART]
        for flow, kept in zip((student, teacher), chunks, strict=True):
            condition = flow.condition(part)
            made = [flow.integrate(condition, noise[begin : begin + PART].to(device)) for noise in noises]
            kept.append(torch.stack(made)[..., : flow.actions].float().cpu())
    ours, theirs = (torch.cat(kept, dim=1).std(0).mean().item() for kept in chunks)
    return ours, theirs


@torch.no_grad()
def latency(flow: FlowModel, observations: Sequence[Observation], device: torch.device) -> Latency:
    """As flow.num_steps has it, one observation at a time."""
    noise = flow.noise([torch.Generator().manual_seed(0)] * len(observations)).to(device)
    t = torch.ones(len(observations), device=device)

    def timed(work: Callable[[], object]) -> float:
        spent = []
        for _ in range(REPEATS):
            begun = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent.append(1000 * (time.perf_counter() - begun))
        return statistics.median(spent)

    condition = flow.condition(observations)
    return Latency(
        timed(lambda: flow.condition(observations)),
        timed(lambda: flow.velocity(condition, noise, t)),
        timed(lambda: flow.integrate(flow.condition(observations), noise)),
    )
