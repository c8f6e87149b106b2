"""Pairs of noise and the chunk a teacher makes of it: whole, at the noise's full width, never padded or cropped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tactus.hal.spec import Observation, SpecError
from tactus.policies.flow_model import FlowModel

BLOCK = 1024
"""Pairs in a file: what an interruption costs."""
LARGEST = 256
"""Observations in one pass of the teacher."""


class Pairs(NamedTuple):
    """rows: int64[N], which observation. noise, chunks: float32[N, H, W], as the teacher begins and ends."""

    rows: Tensor
    noise: Tensor
    chunks: Tensor


def digest(observations: Sequence[Observation]) -> str:
    """SHA-256 of all that a policy reads of them."""
    seen = hashlib.sha256()
    for one in observations:
        seen.update(one.task.encode())
        for name in sorted(one.arrays):
            array = one.arrays[name]
            seen.update(f"{name}{array.dtype}{array.shape}".encode())
            seen.update(array.tobytes())
    return seen.hexdigest()


def key(teacher: FlowModel, observations: Sequence[Observation], seed: int) -> str:
    """What decides pairs, in 16 digits: teacher, its steps and noise, observations, seed."""
    weights = hashlib.sha256()
    for name, tensor in sorted(teacher.network.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    text = f"{weights.hexdigest()} {teacher.num_steps} {teacher.noise_scale!r} {digest(observations)} {seed}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@torch.no_grad()
def draw(teacher: FlowModel, observations: Sequence[Observation], count: int, generator: torch.Generator) -> Pairs:
    """`count` new pairs. Noise is drawn as deployment draws it, by one generator for all."""
    rows = torch.randint(len(observations), (count,), generator=generator)
    noise = teacher.noise([generator] * count)
    device = next(teacher.network.parameters()).device
    chunks = []
    for begin in range(0, count, LARGEST):
        condition = teacher.condition([observations[row] for row in rows[begin : begin + LARGEST].tolist()])
        chunks.append(teacher.integrate(condition, noise[begin : begin + LARGEST].to(device)).float().cpu())
    return Pairs(rows, noise, torch.cat(chunks))


def cached(
    teacher: FlowModel,
    observations: Sequence[Observation],
    count: int,
    seed: int,
    folder: Path,
    progress: Callable[[int], object] = lambda pairs: None,
) -> Pairs:
    """`count` pairs, of which those that are in `folder` already are read. A block's pairs depend on its number only,
    so that what is interrupted, or wanted larger later, goes on where it was. progress: told how many more are there.
    """
    place = folder / key(teacher, observations, seed)
    place.mkdir(parents=True, exist_ok=True)
    blocks = []
    for index in range(-(-count // BLOCK)):
        file = place / f"block_{index:05d}.safetensors"
        if not file.is_file():
            made = draw(teacher, observations, BLOCK, torch.Generator().manual_seed(seed * 2**31 + index))
            scratch = file.with_suffix(".partial")
            save_file(made._asdict(), scratch)
            os.replace(scratch, file)
        try:
            blocks.append(Pairs(**load_file(file)))
        except (OSError, SafetensorError, TypeError) as error:
            raise SpecError(f"pairs: {file} cannot be read ({error}); delete it, and it is made again") from error
        progress(min(BLOCK, count - index * BLOCK))
    return Pairs(*(torch.cat(parts)[:count] for parts in zip(*blocks, strict=True)))
