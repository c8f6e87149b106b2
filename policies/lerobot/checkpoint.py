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
from lerobot.configs import PreTrainedConfig
from lerobot.policies import get_policy_class, make_pre_post_processors
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.processor import PolicyProcessorPipeline

from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.lerobot.normalization import check_statistics
from tactus.policies.lerobot.weights import CheckpointError, check_memory, check_weights

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
FILES = ["*.json", "*.safetensors"]
LONGEST = 300
"""characters of somebody else's error that are worth repeating"""


class Checkpoint(NamedTuple):
    """name: the policy's type, the folder and the start of the weights' SHA-256, so that results can be told apart.

    rename: the robot's names -> the names the policy uses.
    """

    name: str
    policy: PreTrainedPolicy
    config: Any
    preprocessor: PolicyProcessorPipeline
    postprocessor: PolicyProcessorPipeline
    rename: dict[str, str]


def load(config: LeRobotConfig) -> Checkpoint:
    """Raises CheckpointError for whatever is missing, partial or does not fit together."""
    device = _device(config.device)
    folder = _find(config.path, config.revision)
    missing = [name for name in (CONFIG, WEIGHTS, PREPROCESSOR, POSTPROCESSOR) if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(_missing(folder, missing))
    check_memory(folder / WEIGHTS, device)
    lerobot_config = _read_config(folder, {**config.overrides, "device": device}, config.n_action_steps)
    preprocessor, postprocessor, rename = _processors(config, folder, lerobot_config, device)
    check_statistics(lerobot_config, preprocessor, postprocessor)
    policy = _policy(folder, lerobot_config, device)
    check_weights(policy, folder / WEIGHTS)
    policy.requires_grad_(False)
    name = f"{lerobot_config.type}:{folder.name}:{_digest(folder / WEIGHTS)}"
    return Checkpoint(name, policy, lerobot_config, preprocessor, postprocessor, rename)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = _brief(error)
        raise CheckpointError(
            f"policy.device: {wanted!r} cannot be used: {reason}; accepted here: auto, cpu"
        ) from error
    return wanted


def _find(path: str, revision: str | None) -> Path:
    local = Path(path).expanduser()
    if local.is_dir():
        return local
    if path.startswith((".", "/", "~")) or path.count("/") != 1 or local.parent.is_dir():
        raise CheckpointError(f"policy.path: no directory {path!r}; accepted: a checkpoint's directory, or owner/name")
    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise CheckpointError(
            f"policy.path: {path!r} is no directory here and cannot be had from the hub: {_brief(error)}"
        ) from error


def _missing(folder: Path, missing: list[str]) -> str:
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())) or "nothing"
    hint = ""
    if missing[0] in (PREPROCESSOR, POSTPROCESSOR):
        hint = "; one from before LeRobot 0.4 is migrated by python -m lerobot.processor.migrate_policy_normalization"
    elif (folder / "pretrained_model").is_dir():
        hint = f"; did you mean {folder / 'pretrained_model'}?"
    return f"policy.path: {folder} lacks {', '.join(missing)}; found {found}{hint}"


def _read_config(folder: Path, overrides: dict[str, Any], n_action_steps: int | None) -> Any:
    if n_action_steps is not None:
        overrides = {**overrides, "n_action_steps": n_action_steps}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
    arguments = [f"--{key}={text}" for key, text in texts.items()]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            config: Any = PreTrainedConfig.from_pretrained(folder, cli_overrides=arguments)
    except SystemExit as error:
        raise CheckpointError(f"policy.overrides: {complaint.getvalue().strip().splitlines()[-1]}") from error
    except Exception as error:  # draccus, json and the config classes raise whatever they like
        raise CheckpointError(f"{folder / CONFIG} cannot be used: {type(error).__name__}: {_brief(error)}") from error
    config.pretrained_path = folder
    return config


def _processors(config: LeRobotConfig, folder: Path, lerobot_config: Any, device: str) -> Any:
    """(preprocessor, postprocessor, rename): the saved pipelines, told the device, the renames and the tokenizer."""
    steps = json.loads((folder / PREPROCESSOR).read_text()).get("steps", [])
    saved = {step.get("registry_name"): step.get("config", {}) for step in steps}
    rename = {str(a): str(b) for a, b in saved.get("rename_observations_processor", {}).get("rename_map", {}).items()}
    overrides: dict[str, dict[str, Any]] = {}
    if "device_processor" in saved:
        overrides["device_processor"] = {"device": device}
    if config.rename:
        _check_rename(config.rename, lerobot_config)
        if "rename_observations_processor" not in saved:
            raise CheckpointError("policy.rename: this checkpoint's preprocessor cannot rename observations")
        rename = dict(config.rename)
        overrides["rename_observations_processor"] = {"rename_map": rename}
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
        reason = _brief(error)
        raise CheckpointError(f"the processors saved in {folder} cannot be loaded: {reason}{hint}") from error
    return *pipelines, rename


def _check_rename(rename: dict[str, str], lerobot_config: Any) -> None:
    unknown = sorted({*rename.values()} - {*lerobot_config.input_features})
    if unknown:
        known = ", ".join(lerobot_config.input_features)
        raise CheckpointError(f"policy.rename: the checkpoint has no {', '.join(unknown)}; it reads {known}")


def _policy(folder: Path, lerobot_config: Any, device: str) -> PreTrainedPolicy:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            policy = get_policy_class(lerobot_config.type).from_pretrained(folder, config=lerobot_config)
        return policy.to(device).eval()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise CheckpointError(f"out of memory on {device} while loading {folder}: {_brief(error)}") from error
    except Exception as error:  # a model's constructor may raise anything, most often for want of the hub
        offline = ", the hub is off (HF_HUB_OFFLINE)" if os.environ.get("HF_HUB_OFFLINE") else ""
        reason = f"{type(error).__name__}: {_brief(error)}"
        raise CheckpointError(f"{lerobot_config.type} in {folder} cannot be built{offline}: {reason}") from error


def _brief(error: BaseException) -> str:
    """What an error says, on one line; draccus wraps what the config classes themselves complain about."""
    while "Couldn't instantiate class" in str(error) and error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{text[:LONGEST]} …" if len(text) > LONGEST else text or type(error).__name__


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:8]
