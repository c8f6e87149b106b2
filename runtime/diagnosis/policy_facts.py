"""What there is to know of a policy before it drives: its spec, and what stands in a LeRobot checkpoint's own files.

The files are read here and judged in policy_findings.py, also where the policy cannot be loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tactus.hal.fence import Fence
from tactus.hal.spec import Feature, PolicySpec, SpecError, image
from tactus.policies.lerobot.config import LeRobotConfig
from tactus.policies.policy import PolicyConfig
from tactus.runtime.policy_node.inference import make

Statistics = Mapping[str, Mapping[str, np.ndarray]]
"""feature -> statistic (min, max, mean, std, q01 …) -> array."""

NORMALIZER, UNNORMALIZER = "normalizer_processor", "unnormalizer_processor"
RELATIVE = ("relative_actions_processor", "delta_actions_processor")
TOKENIZER = "tokenizer_processor"


@dataclass(frozen=True)
class Processor:
    """A saved pipeline: steps by name with their settings; of its normaliser, if it has one: modes by the type of
    feature, and statistics."""

    steps: Mapping[str, Mapping[str, Any]]
    modes: Mapping[str, str] | None
    statistics: Statistics


@dataclass(frozen=True)
class Tokenizer:
    """name: as the checkpoint or the config has it. longest: tokens that are kept. tokens: of the robot's task; None if
    it was not tried. error: why it cannot be loaded without a network; empty if it can."""

    name: str
    longest: int
    tokens: int | None = None
    error: str = ""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint's folder holds. config: config.json with the overrides. fps: of the environment that it was
    evaluated in while it was trained, if train_config.json has one."""

    folder: str
    config: Mapping[str, Any]
    before: Processor
    after: Processor
    tokenizer: Tokenizer | None = None
    fps: float | None = None

    @property
    def relative(self) -> bool:
        """Whether it predicts actions relative to the state, and makes targets of them itself."""
        found = (self.before.steps.get(name, {}) for name in RELATIVE)
        return any(step.get("enabled", True) for step in found if step)

    def range_of(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The least and the most in training, from whichever statistics there are; None without."""
        order = (self.after, self.before) if name == "action" else (self.before, self.after)
        for statistics in (processor.statistics for processor in order):
            if (found := range_in(statistics.get(name, {}))) is not None:
                return found
        return None


@dataclass(frozen=True)
class PolicyFacts:
    """kind: the policy's type. spec: what it says of itself once loaded, else as far as its files tell; None if nobody
    does. error: why it cannot be loaded. asked: n_action_steps, where the command line has one.
    missing: a package that it needs and that is not installed here."""

    kind: str
    spec: PolicySpec | None
    error: str = ""
    saved: Saved | None = None
    asked: int | None = None
    missing: str = ""


def range_in(statistics: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """(low, high) from min and max, else from quantiles, else mean ± 3 std."""
    for low, high in (("min", "max"), ("q01", "q99"), ("q10", "q90")):
        if low in statistics and high in statistics:
            return np.ravel(statistics[low]).astype(float), np.ravel(statistics[high]).astype(float)
    if "mean" in statistics and "std" in statistics:
        mean, std = (np.ravel(statistics[key]).astype(float) for key in ("mean", "std"))
        return mean - 3 * std, mean + 3 * std
    return None


def policy_facts(config: PolicyConfig, task: str | None) -> PolicyFacts:
    """Load it, and read its files. task: what the robot will ask for, None without a robot."""
    kind, spec, error = PolicyConfig.get_choice_name(type(config)), None, ""
    try:
        spec = make(config).spec
    except (SpecError, ValueError, OSError) as failed:
        error = str(failed)
        if isinstance(failed.__cause__, ModuleNotFoundError):
            return PolicyFacts(kind, None, error, missing=str(failed.__cause__.name))
    if not isinstance(config, LeRobotConfig):
        return PolicyFacts(kind, spec, error)
    saved: Saved | None = None
    try:
        saved = _saved(config, task)
    except (SpecError, ValueError, OSError) as failed:
        error = error or str(failed)
    if spec is None and saved is not None:
        spec = _stated(config, saved)
    return PolicyFacts(kind, spec, error, saved, config.n_action_steps)


def _saved(config: LeRobotConfig, task: str | None) -> Saved:
    from tactus.policies.lerobot.checkpoint import TRAINING, find
    from tactus.policies.lerobot.folder import CONFIG, POSTPROCESSOR, PREPROCESSOR, check_folder

    folder = find(config.path, config.revision)
    check_folder(folder)
    before = _processor(folder / PREPROCESSOR, NORMALIZER)
    after = _processor(folder / POSTPROCESSOR, UNNORMALIZER)
    whole = json.loads((folder / CONFIG).read_text()) | dict(config.overrides)
    training = json.loads((folder / TRAINING).read_text()) if (folder / TRAINING).is_file() else {}
    fps = (training.get("env") or {}).get("fps")
    tokenizer = None
    if TOKENIZER in before.steps:
        tokenizer = _tokenizer(before.steps[TOKENIZER], config.tokenizer, task)
    return Saved(str(folder), whole, before, after, tokenizer, float(fps) if fps else None)


def _processor(file: Path, normaliser: str) -> Processor:
    from safetensors.numpy import load_file

    steps = json.loads(file.read_text())["steps"]
    named = {str(step.get("registry_name") or step.get("class")): step for step in steps}
    statistics: dict[str, dict[str, np.ndarray]] = {}
    if (state := named.get(normaliser, {}).get("state_file")) is not None:
        for key, value in load_file(file.parent / state).items():
            feature, _, statistic = key.rpartition(".")
            statistics.setdefault(feature, {})[statistic] = value
    modes = named[normaliser].get("config", {}).get("norm_map", {}) if normaliser in named else None
    return Processor({name: step.get("config", {}) for name, step in named.items()}, modes, statistics)


def _tokenizer(step: Mapping[str, Any], given: str | None, task: str | None) -> Tokenizer:
    from transformers import AutoTokenizer

    name, longest = given or str(step.get("tokenizer_name")), int(step.get("max_length", 512))
    try:
        with Fence(name, "loading it", SpecError):
            tokenizer: Any = AutoTokenizer.from_pretrained(name, local_files_only=True)
    except SpecError as error:
        return Tokenizer(name, longest, error=str(error))
    return Tokenizer(name, longest, None if task is None else len(tokenizer(task)["input_ids"]))


def _stated(config: LeRobotConfig, saved: Saved) -> PolicySpec | None:
    """What the files say of inputs, actions and horizon, of a policy that cannot be loaded; None if they contradict."""
    from tactus.policies.lerobot.inputs import EMPTY_CAMERA

    theirs = saved.before.steps.get("rename_observations_processor", {}).get("rename_map", {})
    robots = {own: robot for robot, own in (config.rename or theirs).items()}
    absent, kind = {*config.empty_cameras}, saved.config
    try:
        features = {
            name: image(*feature["shape"][1:])
            if feature["type"] == "VISUAL"
            else Feature(tuple(feature["shape"]), "float32", unit="")
            for name, feature in kind["input_features"].items()
            if EMPTY_CAMERA not in name and name not in absent
        }
        shape = tuple(kind["output_features"]["action"]["shape"])
        found = saved.range_of("action")
        ends = (
            tuple(tuple(end.tolist()) for end in found) if found is not None and len(found[0]) == shape[0] else ((), ())
        )
        horizon = int(kind.get("chunk_size") or kind.get("horizon") or kind.get("action_chunk_size") or 1)
        return PolicySpec(
            name=str(kind["type"]),
            inputs={robots.get(name, name): feature for name, feature in features.items()},
            action=Feature(shape, "float32", unit="", low=ends[0], high=ends[1]),
            horizon=horizon,
            observation_offsets=tuple(range(1 - int(kind.get("n_obs_steps", 1)), 1)),
            fps=config.fps,
            casts=True,
            robot=config.robot,
            own_names={robots.get(name, name): name for name in features},
        )
    except (KeyError, TypeError, ValueError):
        return None
