"""What LeRobot does to a keypoint policy's observations before it, and to its actions after it."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Any

import torch
from lerobot.configs import FeatureType, PipelineFeatureType, PolicyFeature
from lerobot.processor import (
    ObservationProcessorStep,
    PolicyAction,
    PolicyProcessorPipeline,
    ProcessorStepRegistry,
    TransitionKey,
)
from lerobot.processor.factory import make_default_policy_processor_steps, make_policy_processor_pipelines
from lerobot.utils.constants import OBS_LANGUAGE_TOKENS

from tactus.policies.keypoints.configuration_keypoints import KeypointsConfig

WORD = re.compile(r"[a-z0-9]+")


@ProcessorStepRegistry.register(name="hashed_words_processor")
@dataclass
class HashedWordsStep(ObservationProcessorStep):
    """The instruction's words as numbers, without a vocabulary: observation.language.tokens, int64[B, longest], from 1
    to `words`; 0 where there are no more."""

    words: int = 512
    longest: int = 32

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        task = (self.transition.get(TransitionKey.COMPLEMENTARY_DATA) or {}).get("task")
        tasks = [task] if isinstance(task, str) else task
        if not tasks or not all(isinstance(one, str) for one in tasks):
            raise ValueError(f"task: found {task!r}; expected the instruction, one a row")
        tokens = torch.zeros(len(tasks), self.longest, dtype=torch.int64)
        for row, one in enumerate(tasks):
            found = [1 + zlib.crc32(word.encode()) % self.words for word in WORD.findall(one.lower())]
            tokens[row, : len(found)] = torch.tensor(found[: self.longest])
        device = next(value.device for value in observation.values() if isinstance(value, torch.Tensor))
        return {**observation, OBS_LANGUAGE_TOKENS: tokens.to(device)}

    def get_config(self) -> dict[str, Any]:
        return {"words": self.words, "longest": self.longest}

    def transform_features(
        self, features: dict[PipelineFeatureType, dict[str, PolicyFeature]]
    ) -> dict[PipelineFeatureType, dict[str, PolicyFeature]]:
        tokens = PolicyFeature(type=FeatureType.LANGUAGE, shape=(self.longest,))
        features[PipelineFeatureType.OBSERVATION].setdefault(OBS_LANGUAGE_TOKENS, tokens)
        return features


def make_keypoints_pre_post_processors(
    config: KeypointsConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """LeRobot's own steps, and the instruction's words."""
    steps = make_default_policy_processor_steps(config, dataset_stats, normalizer_device=config.device)
    words = HashedWordsStep(config.words, config.longest)
    return make_policy_processor_pipelines(
        input_steps=[steps.rename_observations, steps.add_batch_dim, words, steps.to_device, steps.normalize],
        output_steps=[steps.unnormalize, steps.to_cpu],
    )
