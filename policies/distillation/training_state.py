"""What it takes to go on with a training exactly where it was: one file of tensors, whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tactus.hal.spec import SpecError

MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""What AdamW keeps of each parameter."""


def save_state(
    file: Path,
    about: Mapping[str, str],
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
) -> None:
    """about: whose training it is; on loading it has to be the same. losses: of every step so far, float32[steps]."""
    tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
    for name, tensor in weights.items():
        for moment in MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[tensor][moment]
    tensors["losses"] = losses
    scratch = file.with_suffix(".partial")
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, scratch, dict(about))
    os.replace(scratch, file)


def load_state(
    file: Path,
    about: Mapping[str, str],
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> Tensor:
    """Into the given tensors; returns the losses so far. Raises SpecError for another training's, or a broken file."""
    try:
        with safe_open(file, "pt") as stored:
            _check(file, stored.metadata() or {}, about)
            with torch.no_grad():
                for name, tensor in weights.items():
                    tensor.copy_(stored.get_tensor(f"weights/{name}"))
                    average[name].copy_(stored.get_tensor(f"average/{name}"))
                    optimizer.state[tensor] = {
                        moment: stored.get_tensor(f"{moment}/{name}").to(tensor.device if moment != "step" else "cpu")
                        for moment in MOMENTS
                    }
            return stored.get_tensor("losses")
    except (OSError, SafetensorError) as error:
        raise SpecError(f"resume: {file} cannot be read: {error}; delete it to begin anew") from error


def _check(file: Path, found: Mapping[str, str], about: Mapping[str, str]) -> None:
    differ = [f"{key} was {found.get(key)}, is {value}" for key, value in about.items() if found.get(key) != value]
    if differ:
        raise SpecError(
            f"resume: {file} is of another training: {'; '.join(differ)}; give the same again, or another output_dir"
        )
