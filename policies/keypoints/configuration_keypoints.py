"""What LeRobot is told of a keypoint policy: --policy.type=keypoints."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig


@PreTrainedConfig.register_subclass("keypoints")
@dataclass
class KeypointsConfig(PreTrainedConfig):
    """Cameras, the robot's state and the instruction in, a chunk of actions out. channels: of the convolutions.
    keypoints: of each camera. words: buckets into which an instruction's words are hashed. width, blocks: of what
    decides. told: a vector of the recording that is learned too and not asked for later, as the objects' poses are,
    which say more of a picture than actions do; told_dims: those of its elements; told_weight: of that error."""

    n_obs_steps: int = 1
    chunk_size: int = 16
    n_action_steps: int = 8
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        }
    )
    channels: int = 64
    keypoints: int = 32
    words: int = 512
    longest: int = 32
    width: int = 512
    blocks: int = 3
    told: str = "observation.environment_state"
    told_dims: list[int] = field(default_factory=list)
    told_weight: float = 0.3
    optimizer_lr: float = 1e-3
    optimizer_weight_decay: float = 1e-4
    scheduler_warmup_steps: int = 500
    scheduler_decay_steps: int = 20_000
    scheduler_decay_lr: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_obs_steps != 1:
            raise ValueError(f"n_obs_steps: found {self.n_obs_steps}; accepted: 1")
        if not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"n_action_steps: found {self.n_action_steps}; accepted: 1 to chunk_size, {self.chunk_size}"
            )

    def get_optimizer_preset(self) -> AdamWConfig:
        return AdamWConfig(lr=self.optimizer_lr, weight_decay=self.optimizer_weight_decay, grad_clip_norm=1.0)

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        return CosineDecayWithWarmupSchedulerConfig(
            peak_lr=self.optimizer_lr,
            decay_lr=self.scheduler_decay_lr,
            num_warmup_steps=self.scheduler_warmup_steps,
            num_decay_steps=self.scheduler_decay_steps,
        )

    def validate_features(self) -> None:
        if not self.image_features:
            raise ValueError("input_features: no camera; a keypoint policy looks, and needs at least one")
        if self.action_feature is None:
            raise ValueError("output_features: no action")

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> list[int]:
        return [*range(self.chunk_size)]

    @property
    def reward_delta_indices(self) -> None:
        return None
