"""Checks that a model really has the weights of its file, all of them, and that they are finite."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from tactus.hal.spec import SpecError

SHOWN = 5
LONGEST = 300
"""characters of somebody else's error that are worth repeating"""


class CheckpointError(SpecError):
    """A checkpoint that cannot be used as it is; the message says what to do."""


def brief(error: BaseException) -> str:
    """What an error says, on one line; draccus wraps what the config classes themselves complain about."""
    while "Couldn't instantiate class" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{text[:LONGEST]} …" if len(text) > LONGEST else text or type(error).__name__


def digest(file: Path) -> str:
    """The beginning of a file's SHA-256, by which results name a checkpoint."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:8]


def check_memory(file: Path, device: str) -> None:
    """Raise CheckpointError if the weights alone do not fit: while they are loaded, file and model are both there."""
    needed = file.stat().st_size * (1 if device.startswith("cuda") else 2)
    available = _available_bytes(device)
    if available is not None and needed > available:
        raise CheckpointError(
            f"out of memory: {file} needs {needed / 1e9:.1f} GB on {device}, {available / 1e9:.1f} GB are free; "
            "close other programs, or use another policy.device"
        )


def _available_bytes(device: str) -> int | None:
    """Free memory, where this system tells; None where it does not."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def check_weights(policy: nn.Module, file: Path) -> None:
    """Raise CheckpointError unless every tensor of `policy` came from `file`, finite, and nothing was left over.

    LeRobot loads with strict=False, and PI0 catches whatever goes wrong: so the tensors themselves are compared.
    """
    model = policy.state_dict()
    foreign, not_finite, different, covered = [], [], [], set()
    try:
        with safe_open(file, "pt") as stored:
            stored_names = {*stored.keys()}
            for name in sorted(stored_names):
                theirs = stored.get_tensor(name)
                if theirs.is_floating_point() and not bool(torch.isfinite(theirs).all()):
                    not_finite.append(name)
                for ours in _names_in_model(policy, name, stored_names):
                    loaded = model.get(ours)
                    if loaded is None:
                        foreign.append(name)
                        continue
                    covered.add(ours)
                    same = theirs.shape == loaded.shape and torch.equal(theirs.to(loaded.dtype), loaded.cpu())
                    if not same and name not in not_finite:
                        different.append(name)
    except SafetensorError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    faults = {
        "missing": _uncovered(model, covered),
        "not part of this policy": foreign,
        "NaN or infinite": not_finite,
        "other than the loaded ones": different,
    }
    found = [f"{len(names)} {what}: {_some(names)}" for what, names in faults.items() if names]
    if found:
        raise CheckpointError(f"weights of {file}: {'; '.join(found)}. All of them are needed, as they were trained")


def _names_in_model(policy: nn.Module, name: str, stored: Collection[str]) -> list[str]:
    """Where a tensor of the file goes. openpi's checkpoints have older names, which PI0 and PI05 translate; and
    where embeddings are tied, one tensor goes to two places, unless the file has another for the second.
    """
    translate = getattr(policy, "_fix_pytorch_state_dict_keys", None)
    if translate is None:
        return [name]
    names = [
        other for other in translate({name: torch.zeros(0)}, policy.config) if other == name or other not in stored
    ]
    return [ours if ours.startswith("model.") else f"model.{ours}" for ours in names]


def _uncovered(model: dict[str, torch.Tensor], covered: set[str]) -> list[str]:
    """Tensors of the model that the file does not hold, neither by name nor as memory they share with one it does."""
    places = {(model[name].data_ptr(), model[name].shape) for name in covered}
    others = {name: tensor for name, tensor in model.items() if name not in covered}
    return [name for name, tensor in others.items() if (tensor.data_ptr(), tensor.shape) not in places]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
