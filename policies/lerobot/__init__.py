"""Any LeRobot checkpoint that predicts chunks, as a Policy. Importing this registers the configs and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tactus.hal.spec import SpecError
from tactus.policies.policy import Policy, PolicyConfig

LEARNED = Path(__file__).parent.parent / "checkpoints" / "libero_object_act"
"""The checkpoint that ships; its training card stands beside it."""


@PolicyConfig.register_subclass("lerobot")
@dataclass
class LeRobotConfig(PolicyConfig):
    """ACT, Diffusion, VQ-BeT, SmolVLA, PI0, PI05, and what else LeRobot's factory knows, with its saved processors."""

    path: str = ""
    """checkpoint: a local directory, or a repository on the Hugging Face hub (owner/name)"""
    revision: str | None = None
    """branch, tag or commit on the hub"""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, mps …"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the model under autocast"""
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"
    """torch.compile mode, warmed up at start; reduce-overhead uses CUDA graphs. none is eager, the reference"""
    max_batch: int = 8
    """most robots in one forward pass"""
    threads: int | None = None
    """CPU threads of torch; tiny models are quickest with 1"""
    n_action_steps: int | None = None
    """actions to execute of each chunk; the checkpoint's own if not given"""
    fps: float | None = None
    """rate the policy was trained at, if known; then a robot with another rate is refused"""
    robot: str | None = None
    """name of the robot it was trained on, if known; then another robot is refused"""
    rename: dict[str, str] = field(default_factory=dict)
    """the robot's name -> the checkpoint's, e.g. {observation.images.front: observation.images.camera1}"""
    overrides: dict[str, Any] = field(default_factory=dict)
    """keys of the checkpoint's config.json to replace, e.g. {num_steps: 5, vlm_model_name: DIR}"""
    tokenizer: str | None = None
    """directory or hub name of the tokenizer, instead of the one the checkpoint names"""
    guidance: Literal["identity", "vjp"] = "identity"
    """how aggregate=rtc pulls a flow policy to the running chunk: LeRobot's approximation, or the paper's exact VJP"""
    guidance_schedule: Literal["linear", "exp", "ones", "zeros"] = "linear"
    """how that pull fades over the part of the running chunk that is not committed"""
    max_guidance_weight: float = 10.0
    """upper bound of that pull"""
    guidance_horizon: int | None = None
    """ticks after which nothing is pulled; all that is left of the running chunk if not given"""

    def __post_init__(self) -> None:
        if not self.path:
            raise SpecError("policy.path: missing; accepted: a checkpoint's directory, or owner/name on the hub")
        for key in ("max_batch", "threads", "n_action_steps", "guidance_horizon"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise SpecError(f"policy.{key}: found {value}; must be at least 1")
        if self.max_guidance_weight <= 0:
            raise SpecError(f"policy.max_guidance_weight: found {self.max_guidance_weight:g}; must be positive")

    def make(self) -> Policy:
        from tactus.policies.lerobot.policy import LeRobotPolicy

        return LeRobotPolicy(self)


@PolicyConfig.register_subclass("learned")
@dataclass
class LearnedConfig(LeRobotConfig):
    """The checkpoint that ships with Tactus, for libero_object."""

    path: str = str(LEARNED)
    """where it lies"""
    fps: float | None = 20.0
    """LIBERO's control rate"""
    robot: str | None = "libero/libero_object"
    """the suite it was trained on"""
    threads: int | None = 1
    """CPU threads of torch; it is small"""
