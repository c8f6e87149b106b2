"""Finds a LeRobot checkpoint and loads it whole, or says what is wrong with it.

LeRobot itself starts with random weights when some are missing, and un-normalises nothing when the statistics
stand under another name; both look like a policy that has learned little. Here they are errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline

from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.lerobot.flow_model import steps_key
from tactus.policies.lerobot.folder import PREPROCESSOR, WEIGHTS, check_folder, file_instead
from tactus.policies.lerobot.inputs import EMPTY_CAMERA
from tactus.policies.lerobot.normalization import check_statistics
from tactus.policies.lerobot.overrides import ConfigReads, read_config
from tactus.policies.lerobot.own_modules import complete
from tactus.policies.lerobot.weights import CheckpointError, brief, check_memory, check_weights, digest

FILES = ["*.json", "*.safetensors"]
TRAINING = "train_config.json"
FILLS = ("smolvla", "pi0", "pi05", "pi0_fast")
"""Policies that put a black, masked picture where a camera is absent."""


class Checkpoint(NamedTuple):
    """name: the policy's type, the folder and the start of the weights' SHA-256, so that results can be told apart.

    rename: the robot's names -> the names the policy uses. reads: of the config, while it is still to be found out
    whether its overrides are read.
    """

    name: str
    folder: Path
    policy: PreTrainedPolicy
    config: Any
    preprocessor: PolicyProcessorPipeline
    postprocessor: PolicyProcessorPipeline
    rename: dict[str, str]
    reads: ConfigReads | None
    details: dict[str, str]


def load(config: LeRobotConfig) -> Checkpoint:
    """Raises CheckpointError for whatever is missing, partial or does not fit together."""
    device = _device(config.device)
    folder = find(config.path, config.revision)
    check_folder(folder)
    complete(folder)
    check_memory(folder / WEIGHTS, device)
    lerobot_config = read_config(folder, config.overrides, config.n_action_steps, device)
    if config.num_steps is not None:
        _set_steps(lerobot_config, config.num_steps, config.overrides)
    preprocessor, postprocessor, rename = _processors(config, folder, lerobot_config, device)
    check_statistics(lerobot_config, preprocessor, postprocessor)
    reads = ConfigReads(lerobot_config) if config.overrides else None
    policy = _policy(folder, lerobot_config, device)
    _leave_out(config, policy.config)
    check_weights(policy, folder / WEIGHTS)
    policy.requires_grad_(False)
    name = f"{lerobot_config.type}:{folder.name}:{digest(folder / WEIGHTS)}"
    details = {"config and processors": _beside_weights(folder)}
    if config.tokenizer is not None and Path(config.tokenizer).is_dir():
        details["tokenizer"] = _beside_weights(Path(config.tokenizer))
    return Checkpoint(name, folder, policy, lerobot_config, preprocessor, postprocessor, rename, reads, details)


def _set_steps(lerobot_config: Any, num_steps: int, overrides: dict[str, Any]) -> None:
    """Raises CheckpointError for a policy without denoising steps, or where their number is given twice."""
    key = steps_key(lerobot_config)
    if key is None:
        raise CheckpointError(f"policy.num_steps: {lerobot_config.type} does not denoise; leave it out")
    if key in overrides:
        raise CheckpointError(f"policy.num_steps: policy.overrides gives {key} too; leave out one of them")
    setattr(lerobot_config, key, num_steps)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = brief(error)
        raise CheckpointError(
            f"policy.device: {wanted!r} cannot be used: {reason}; accepted here: auto, cpu"
        ) from error
    return wanted


def find(path: str, revision: str | None) -> Path:
    """The folder of a checkpoint here, or what the hub has under this name. Raises CheckpointError."""
    local = Path(path)
    if local.is_dir():
        if revision is not None:
            raise CheckpointError(f"policy.revision: {path!r} is a directory here; a revision is of a hub repository")
        return local
    if local.is_file():
        raise CheckpointError(file_instead(local))
    if path.startswith((".", "/", "~")) or path.count("/") != 1 or local.parent.is_dir():
        raise CheckpointError(f"policy.path: no directory {path!r}; accepted: a checkpoint's directory, or owner/name")
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"policy.path: {path!r} is no directory here and cannot be had from the hub: {brief(error)}"
        ) from error


def _processors(config: LeRobotConfig, folder: Path, lerobot_config: Any, device: str) -> Any:
    """(preprocessor, postprocessor, rename): the saved pipelines, told device, names and tokenizer."""
    steps = json.loads((folder / PREPROCESSOR).read_text()).get("steps", [])
    saved = {step.get("registry_name"): step.get("config", {}) for step in steps}
    rename = {str(a): str(b) for a, b in saved.get("rename_observations_processor", {}).get("rename_map", {}).items()}
    overrides: dict[str, dict[str, Any]] = {}
    if "device_processor" in saved:
        overrides["device_processor"] = {"device": device}
    if config.rename:
        _check_rename(config.rename, lerobot_config)
        rename = dict(config.rename)
    if "rename_observations_processor" in saved:  # it passes on only what is called observation.…: inputs.py renames
        overrides["rename_observations_processor"] = {"rename_map": {}}
    if config.tokenizer is not None and "tokenizer_processor" not in saved:
        raise CheckpointError(f"policy.tokenizer: {lerobot_config.type} in {folder} has no tokenizer; leave it out")
    if "tokenizer_processor" in saved:
        tokenizer: dict[str, Any] = {}
        if config.tokenizer is not None:
            tokenizer["tokenizer_name"] = config.tokenizer
        if config.compile != "none":
            tokenizer["padding"] = "max_length"  # one shape for every task
        if tokenizer:
            overrides["tokenizer_processor"] = tokenizer
    try:
        pipelines = make_pre_post_processors(
            lerobot_config,
            pretrained_path=str(folder),
            preprocessor_overrides=overrides,
            postprocessor_overrides={},
        )
    except Exception as error:  # transformers, json and the steps raise whatever they like
        hint = "; give a local one with --policy.tokenizer=DIR" if "tokenizer" in f"{error}".lower() else ""
        reason = brief(error)
        raise CheckpointError(f"the processors saved in {folder} cannot be loaded: {reason}{hint}") from error
    return *pipelines, rename


def _check_rename(rename: dict[str, str], lerobot_config: Any) -> None:
    known = {*lerobot_config.input_features}
    unknown = sorted({*rename.values()} - known)
    if unknown:
        raise CheckpointError(
            f"policy.rename: the checkpoint has no {', '.join(unknown)}; it reads {', '.join(sorted(known))}"
        )
    read = [*rename, *sorted(known - {*rename.values()})]
    for what, names in (("the robot's", read), ("the checkpoint's", [*rename.values()])):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise CheckpointError(f"policy.rename: {what} {', '.join(twice)} would stand for two things at once")


def _leave_out(config: LeRobotConfig, lerobot_config: Any) -> None:
    """Tell the policy how many more cameras it fills in. Raises CheckpointError for those it cannot do without."""
    absent, key = {*config.empty_cameras}, "policy.empty_cameras"
    if not absent:
        return
    cameras = [name for name in lerobot_config.image_features if EMPTY_CAMERA not in name]
    kind, known = lerobot_config.type, ", ".join(cameras) or "none"
    if kind not in FILLS:
        raise CheckpointError(f"{key}: {kind} needs all its cameras ({known}); {', '.join(FILLS)} fill in absent ones")
    if absent - {*cameras}:
        raise CheckpointError(f"{key}: the checkpoint has no {', '.join(sorted(absent - {*cameras}))}; it has {known}")
    if absent & {*config.rename.values()}:
        both = ", ".join(sorted(absent & {*config.rename.values()}))
        raise CheckpointError(f"{key}: {both} is what policy.rename calls a camera of the robot; leave it out of one")
    if not {*cameras} - absent:
        raise CheckpointError(f"{key}: all of {known} are left out; at least one must be there")
    if kind == "smolvla":  # PI0 fills in however many there are
        lerobot_config.empty_cameras += len(absent)


def _policy(folder: Path, lerobot_config: Any, device: str) -> PreTrainedPolicy:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            policy = get_policy_class(lerobot_config.type).from_pretrained(folder, config=lerobot_config)
        return policy.to(device).eval()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CheckpointError(f"out of memory on {device} while loading {folder}: {brief(error)}") from error
    except Exception as error:  # a model's constructor may raise anything, most often for want of the hub
        offline = ", the hub is off (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = f"{type(error).__name__}: {brief(error)}"
        raise CheckpointError(f"{lerobot_config.type} in {folder} cannot be built{offline}: {reason}") from error


def _beside_weights(folder: Path) -> str:
    """Digest of what else decides the actions: how observations are normalised, and text is split into tokens."""
    files = sorted(file for ending in FILES for file in folder.glob(ending) if file.name not in (WEIGHTS, TRAINING))
    listed = "\n".join(f"{file.name} {digest(file)}" for file in files)
    return f"sha256 {hashlib.sha256(listed.encode()).hexdigest()[:12]}"
