"""Looks at a checkpoint's files before LeRobot does: what is this folder, if it is not a whole checkpoint?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tactus.hal.json_file import is_pointer
from tactus.policies.lerobot.weights import CheckpointError, brief

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
NEEDED = (CONFIG, WEIGHTS, PREPROCESSOR, POSTPROCESSOR)
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
SHOWN = 12
"""Files of a folder that are worth listing."""


def check_folder(folder: Path) -> None:
    """Raise CheckpointError, with what it is and what to do, unless every file of a checkpoint is there and whole."""
    try:
        files = sorted(entry.name for entry in folder.iterdir())
        for name in files:
            if name.endswith((".json", ".safetensors")):
                _check_pulled(folder / name)
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing or any(name in files for name in ADAPTER):
            raise CheckpointError(f"policy.path: {folder} {_instead(folder, files, missing)}")
        _check_config(folder / CONFIG)
        _check_tensors(folder / WEIGHTS)
        for name in (PREPROCESSOR, POSTPROCESSOR):
            for state in _state_files(folder / name):
                _check_tensors(folder / state)
    except OSError as error:
        raise CheckpointError(f"policy.path: {folder} cannot be read: {brief(error)}") from error


def file_instead(file: Path) -> str:
    """What to say to the path of one file."""
    if file.suffix in PICKLES:
        return f"policy.path: {file} is {_PICKLE}"
    hint = f"; did you mean {file.parent}?" if (file.parent / CONFIG).is_file() else ""
    return f"policy.path: {file} is a file; accepted: a checkpoint's directory, or owner/name{hint}"


_PICKLE = (
    "a pickle, which may run code when it is read, and is not read here; accepted: a folder that LeRobot's "
    f"save_pretrained has written, with {WEIGHTS}"
)


def _instead(folder: Path, files: list[str], missing: list[str]) -> str:
    """What a folder is that is no checkpoint."""
    if any(name in files for name in ADAPTER):
        return _adapter(folder)
    if (folder / "meta" / "info.json").is_file():
        return "is a dataset, not a checkpoint: train a policy on it, or play it with tactus replay --dataset_root"
    inner = _inner(folder)
    if inner is not None:
        return f"is not the checkpoint itself; did you mean {inner}?"
    if (folder / "params").is_dir() and ((folder / "assets").is_dir() or [*(folder / "params").glob("*ocdbt*")]):
        return (
            "is a checkpoint of openpi (JAX), which LeRobot does not read: convert it with openpi's "
            "convert_jax_model_to_pytorch.py and load and save it with LeRobot's PI0 or PI05"
        )
    found = ", ".join(files[:SHOWN]) + (f" and {len(files) - SHOWN} more" if len(files) > SHOWN else "") or "nothing"
    lacks = f"lacks {', '.join(missing)}; found {found}"
    if missing[0] == CONFIG:
        return lacks
    if WEIGHTS in missing:
        if f"{WEIGHTS}.index.json" in files:
            return f"{lacks}: its weights are in pieces; load and save it with LeRobot, which writes one {WEIGHTS}"
        pickles = [name for name in files if name.endswith(PICKLES)]
        if pickles:
            return f"{lacks}: {pickles[0]} is {_PICKLE}"
        return lacks
    _check_config(folder / CONFIG)
    return (
        f"{lacks}; one from before LeRobot 0.4 is migrated by python -m lerobot.processor.migrate_policy_normalization"
    )


def _adapter(folder: Path) -> str:
    file = folder / ADAPTER[0]
    about = _object(file) if file.is_file() else {}
    base = about.get("base_model_name_or_path") or "its base"
    return (
        f"is an adapter (LoRA) of {base}, not a whole policy: merge the two with peft, "
        f"PeftModel.from_pretrained(policy, {str(folder)!r}).merge_and_unload().save_pretrained(DIR), policy being the "
        "base as LeRobot loads it, and put the policy_*processor files beside it"
    )


def _inner(folder: Path) -> Path | None:
    """The checkpoint within a folder of lerobot-train, or of the hub's cache."""
    for place in ("pretrained_model", "last/pretrained_model", "checkpoints/last/pretrained_model"):
        if (folder / place / CONFIG).is_file():
            return folder / place
    for pattern in ("[0-9]*/pretrained_model", "checkpoints/[0-9]*/pretrained_model", "snapshots/*"):
        found = sorted(place for place in folder.glob(pattern) if (place / CONFIG).is_file())
        if found:
            return found[-1]
    beside = folder.parent / "pretrained_model"
    return beside if folder.name == "training_state" and (beside / CONFIG).is_file() else None


def _check_pulled(file: Path) -> None:
    if is_pointer(file):
        raise CheckpointError(
            f"policy.path: {file} is a Git-LFS pointer, not the file itself: run git lfs pull in {file.parent}"
        )


def _check_config(file: Path) -> None:
    config = _object(file)
    if "type" in config:
        return
    if "architectures" in config or "model_type" in config:
        kind = config.get("model_type") or config["architectures"]
        what = f"is the config of a transformers model ({kind}), not of a LeRobot policy"
    elif "_class_name" in config or "_diffusers_version" in config:
        what = "is the config of a diffusers model, not of a LeRobot policy"
    else:
        what = f"does not say which policy it is of; found {', '.join(map(str, config)) or 'nothing'}"
    raise CheckpointError(f"policy.path: {file} {what}; accepted: one with a type, as LeRobot writes it")


def _object(file: Path) -> dict[str, Any]:
    """What a JSON file holds."""
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        what = "empty" if not file.stat().st_size else f"cut short or not JSON ({brief(error)})"
        raise CheckpointError(f"policy.path: {file} cannot be used: it is {what}; copy or download it again") from error
    if not isinstance(found, dict):
        raise CheckpointError(
            f"policy.path: {file} cannot be used: it holds {type(found).__name__}, expected keys and values, {{…}}; "
            "copy or download it again"
        )
    return found


def _state_files(file: Path) -> list[str]:
    """Names of the files with tensors that a saved processor's steps have."""
    steps = _object(file).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(f"policy.path: {file} cannot be used: its steps are no list of steps; copy it again")
    names = [str(step["state_file"]) for step in steps if step.get("state_file")]
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing:
        raise CheckpointError(f"policy.path: {file} names {', '.join(missing)}, which is not there; copy it too")
    return names


def _check_tensors(file: Path) -> None:
    try:
        with safe_open(file, "pt"):
            pass
    except SafetensorError as error:
        found = f"{file.stat().st_size} bytes: {brief(error)}"
        raise CheckpointError(
            f"policy.path: {file} is cut short or no safetensors ({found}); copy or download it again"
        ) from error
