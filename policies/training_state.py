"""What it takes to go on with a training exactly where it was: one file of tensors, whole or not there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tactus.hal.spec import SpecError


def save_state(
    file: Path,
    about: Mapping[str, str],
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    numbers: Tensor,
) -> None:
    """about: whose training it is; on loading it has to be the same. average: of the weights, or empty. numbers: what
    else there is to know of it so far, such as its losses."""
    tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
    tensors |= {f"average/{name}": tensor for name, tensor in average.items()}
    for name, tensor in weights.items():
        for optimizer in optimizers:
            tensors |= {f"{kept}/{name}": value for kept, value in optimizer.state.get(tensor, {}).items()}
    tensors["numbers"] = numbers
    scratch = file.with_suffix(".partial")
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}, scratch, dict(about))
    os.replace(scratch, file)


def load_state(
    file: Path,
    about: Mapping[str, str],
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
) -> Tensor:
    """Into the given tensors; returns the numbers. Raises SpecError for another training's, or a broken file."""
    try:
        with safe_open(file, "pt") as stored:
            _check(file, stored.metadata() or {}, about)
            kept: dict[str, dict[str, Tensor]] = {name: {} for name in weights}
            for key in stored.keys():  # noqa: SIM118 - it is no mapping
                what, _, name = key.partition("/")
                if name in kept:
                    kept[name][what] = stored.get_tensor(key)
            with torch.no_grad():
                for name, tensor in weights.items():
                    tensor.copy_(kept[name].pop("weights"))
                    if name in average:
                        average[name].copy_(kept[name].pop("average"))
                    for owner in optimizers:
                        if any(tensor is p for group in owner.param_groups for p in group["params"]):
                            owner.state[tensor] = {
                                what: value if what == "step" else value.to(tensor.device)
                                for what, value in kept[name].items()
                            }
            return stored.get_tensor("numbers")
    except (OSError, SafetensorError) as error:
        raise SpecError(f"resume: {file} cannot be read: {error}; delete it to begin anew") from error


def _check(file: Path, found: Mapping[str, str], about: Mapping[str, str]) -> None:
    differ = [f"{key} was {found.get(key)}, is {value}" for key, value in about.items() if found.get(key) != value]
    if differ:
        raise SpecError(
            f"resume: {file} is of another training: {'; '.join(differ)}; give the same again, or another output_dir"
        )
