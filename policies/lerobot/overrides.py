"""Replaces keys of a checkpoint's config.json (policy.overrides), and holds each of them to having done something.

draccus merges mappings instead of replacing them, LeRobot corrects some values silently, and many keys only ever
mattered in training or stand in the saved processors: a replacement that nothing would notice is an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import json
from pathlib import Path
from typing import Any

import draccus
from lerobot.configs import PreTrainedConfig
from lerobot.utils.constants import ACTION

from tactus.policies.lerobot.weights import CheckpointError, brief

OURS = {
    "device": "policy.device",
    "use_amp": "policy.dtype",
    "rtc_config": "policy.guidance, policy.guidance_schedule, policy.max_guidance_weight and policy.guidance_horizon",
    "pretrained_path": "policy.path",
    "pretrained_revision": "policy.revision",
}
"""Keys that a key of our own decides."""
TRAINING = (
    "crop_is_random",
    "dropout",
    "freeze_vision_encoder",
    "gradient_checkpointing",
    "train_expert_only",
    "train_state_proj",
)
"""Keys that a model reads when it is built, for training alone; most others are read in training only."""
FEATURES = ("input_features", "output_features")


def read_config(folder: Path, overrides: dict[str, Any], n_action_steps: int | None, device: str) -> Any:
    """The checkpoint's config with `overrides`; raises CheckpointError for one that cannot be, or was not, taken.

    n_action_steps: replaces the checkpoint's own where it has one.
    """
    config = _parse(folder, {"device": device}, f"{folder / 'config.json'} cannot be used")
    known = [field.name for field in dataclasses.fields(config)]
    for key in overrides:
        _check_key(str(key), known, config.type, n_action_steps)
    if overrides:
        config = _parse(folder, {**overrides, "device": device}, "policy.overrides")
        _check_values(overrides, config)
    if n_action_steps is not None and "n_action_steps" in known:
        keys = {**overrides, "device": device, "n_action_steps": n_action_steps}
        config = _parse(folder, keys, f"policy.n_action_steps: found {n_action_steps}")
    if not config.input_features or ACTION not in (config.output_features or {}):
        raise CheckpointError(f"{folder / 'config.json'} lists no inputs, or no {ACTION} among its outputs")
    config.pretrained_path = folder
    return config


def _parse(folder: Path, keys: dict[str, Any], whose: str) -> Any:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in keys.items()}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return PreTrainedConfig.from_pretrained(folder, cli_overrides=[f"--{k}={v}" for k, v in texts.items()])
    except SystemExit as error:
        raise CheckpointError(f"{whose}: {complaint.getvalue().strip().splitlines()[-1]}") from error
    except Exception as error:  # draccus, json and the config classes raise whatever they like
        raise CheckpointError(f"{whose}: {type(error).__name__}: {brief(error)}") from error


def _check_key(key: str, known: list[str], kind: str, n_action_steps: int | None) -> None:
    if key in OURS:
        raise CheckpointError(f"policy.overrides: {key} is decided by {OURS[key]} here; use that")
    if key == "n_action_steps" and n_action_steps is not None:
        raise CheckpointError("policy.overrides: n_action_steps is given by policy.n_action_steps as well; leave one")
    if key not in known:
        near = ", ".join(difflib.get_close_matches(key, known)) or ", ".join(known)
        raise CheckpointError(f"policy.overrides: the config of {kind} has no {key!r}; it has {near}")


def _check_values(asked: dict[str, Any], config: Any) -> None:
    """Key by key: what was asked for is what it is now."""
    found = json.loads(json.dumps(draccus.encode(config), default=str))
    for key, value in asked.items():
        if _same(json.loads(json.dumps(value, default=str)), found[key]) and (value or key not in FEATURES):
            continue
        hint = ""
        if key in FEATURES:
            hint = (
                ": LeRobot adds to what the checkpoint was trained on and cannot take away. Other names are given by "
                "policy.rename, cameras that are not there by policy.empty_cameras"
            )
        raise CheckpointError(f"policy.overrides: {key}: asked for {_text(value)}, it is {_text(found[key])}{hint}")


def _same(asked: Any, found: Any) -> bool:
    if isinstance(asked, str) and not isinstance(found, str):
        with contextlib.suppress(ValueError):
            return json.loads(asked) == found
    return asked == found


def _text(value: Any) -> str:
    text = json.dumps(value, default=str)
    return f"{text[:200]} …" if len(text) > 200 else text


class ConfigReads:
    """Notes which keys of `config` are read from now on, by whomever."""

    def __init__(self, config: Any) -> None:
        self.names: set[str] = set()
        self._config, self._kind = config, type(config)
        names = self.names
        inherited: Any = self._kind.__getattribute__

        def noting(config: Any, name: str) -> Any:
            names.add(name)
            return inherited(config, name)

        # `type` is found by class in LeRobot's registry, where the noting one is not
        body = {"__getattribute__": noting, "type": config.type}
        config.__class__ = type(self._kind.__name__, (self._kind,), body)

    def check(self, overrides: dict[str, Any]) -> None:
        """End it. Raises CheckpointError if one of `overrides` has been of no interest to anybody."""
        self._config.__class__ = self._kind
        unread = [key for key in overrides if key not in self.names or key in TRAINING]
        if unread:
            raise CheckpointError(
                f"policy.overrides: {', '.join(unread)}: would change nothing here. It is for training, or its value "
                "stands in policy_preprocessor.json and policy_postprocessor.json"
            )
