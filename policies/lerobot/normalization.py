"""Checks that the normalisers of a checkpoint have the statistics of the features that they are to normalise."""

from __future__ import annotations

import math
from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode
from lerobot.processor import NormalizerProcessorStep, UnnormalizerProcessorStep

from tactus.policies.lerobot.inputs import EMPTY_CAMERA
from tactus.policies.lerobot.weights import CheckpointError

NEEDED = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


def training_range(postprocessor: Any, name: str, width: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The least and the most that `name` was in training, per element; empty where the statistics do not say."""
    for step in postprocessor.steps:
        found = step._tensor_stats.get(name, {}) if isinstance(step, UnnormalizerProcessorStep) else {}
        ends = [found[key].flatten().tolist() for key in ("min", "max") if key in found]
        if len(ends) == 2 and all(len(end) == width and all(map(math.isfinite, end)) for end in ends):
            return tuple(ends[0]), tuple(ends[1])
    return (), ()


def check_statistics(config: Any, preprocessor: Any, postprocessor: Any) -> None:
    """Raise CheckpointError naming every feature whose statistics are absent, of another width, or not finite.

    LeRobot skips a feature without statistics, silently, in both directions.
    """
    faults = []
    inputs = [step for step in preprocessor.steps if isinstance(step, NormalizerProcessorStep)]
    outputs = [step for step in postprocessor.steps if isinstance(step, UnnormalizerProcessorStep)]
    for name, feature in config.input_features.items():
        faults += _faults("preprocessor", inputs, config, name, feature)
    for name, feature in config.output_features.items():
        faults += _faults("postprocessor", outputs, config, name, feature)
    if faults:
        raise CheckpointError(f"normalisation statistics: {'; '.join(faults)}. Without them its numbers mean nothing")


def _faults(where: str, steps: list[Any], config: Any, name: str, feature: Any) -> list[str]:
    if not steps:
        wanted = config.normalization_mapping.get(feature.type.value, NormalizationMode.IDENTITY)
        if wanted is NormalizationMode.IDENTITY:
            return []
        return [f"the {where} has no normaliser, {name} needs {wanted.value}"]
    return [fault for step in steps for fault in _step_faults(where, step, name, feature)]


def _step_faults(where: str, step: Any, name: str, feature: Any) -> list[str]:
    mode = step.norm_map.get(feature.type, NormalizationMode.IDENTITY)
    if mode is NormalizationMode.IDENTITY or EMPTY_CAMERA in name:
        return []
    if name not in step.features:
        return [f"the {where} does not normalise {name}; it knows {', '.join(step.features) or 'nothing'}"]
    found = step._tensor_stats.get(name)
    if found is None:
        return [f"the {where} has none for {name}; it has them for {', '.join(step._tensor_stats) or 'nothing'}"]
    faults = []
    for key in NEEDED[mode]:
        value = found.get(key)
        if value is None:
            faults.append(f"the {where}'s {name} lacks {key}, which {mode.value} needs")
        elif not _fits(value, feature):
            shapes = f"{list(value.shape)}, the feature {list(feature.shape)}"
            faults.append(f"the {where}'s {name}.{key} has shape {shapes}")
        elif not bool(torch.isfinite(value).all()):
            faults.append(f"the {where}'s {name}.{key} is not finite")
    return faults


def _fits(value: torch.Tensor, feature: Any) -> bool:
    if feature.type is FeatureType.VISUAL:
        return value.numel() in (1, feature.shape[0])
    return tuple(value.shape) == tuple(feature.shape)
