"""What LeRobot is told of a policy node: --policy.type=tactus."""

from __future__ import annotations

from dataclasses import dataclass, field

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig


@PreTrainedConfig.register_subclass("tactus")
@dataclass
class TactusConfig(PreTrainedConfig):
    """Where the node is, and what it is told of the robot. key, server: CURVE keys, as `tactus run` has them in
    curve.key and curve.server. insecure: accept a node on another machine without them. robot, fps: of the robot, which
    LeRobot's policies are not told, and the node compares with its policy's. seed: of the first episode's noise, the
    next has the next, as in `tactus eval`. n_action_steps: of each chunk; None for what the node's policy says.
    wait_s: for the node to be there, and for a chunk."""

    endpoint: str = "tcp://127.0.0.1:5555"
    key: str | None = None
    server: str | None = None
    insecure: bool = False
    robot: str = "lerobot"
    fps: float = 30.0
    seed: int = 1000
    n_action_steps: int | None = None
    wait_s: float = 120.0
    normalization_mapping: dict[str, NormalizationMode] = field(default_factory=dict)

    def get_optimizer_preset(self) -> AdamWConfig:
        raise NotImplementedError("a policy node is not trained here; train what it serves")

    def get_scheduler_preset(self) -> None:
        return None

    def validate_features(self) -> None:
        if self.action_feature is None:
            raise ValueError("output_features: no action; its width is the robot's")

    @property
    def observation_delta_indices(self) -> None:
        return None

    @property
    def action_delta_indices(self) -> None:
        return None

    @property
    def reward_delta_indices(self) -> None:
        return None
