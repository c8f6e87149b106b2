"""What describes a LeRobot checkpoint that is served: where it lies, on which device, how it is compiled and guided."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tactus.hal.config import Count, FilePath, Hz, Names, NotNegative, Positive
from tactus.policies.policy import PolicyConfig

CHECKPOINTS = Path(__file__).parent.parent / "checkpoints"
"""Those that ship; their training cards stand beside them."""
PLUGINS = {"keypoints": "tactus.policies.keypoints"}
"""Types of our own, and the packages that register them with LeRobot."""


@PolicyConfig.register_subclass("lerobot")
class LeRobotConfig(PolicyConfig):
    """A LeRobot checkpoint: ACT, Diffusion, VQ-BeT, SmolVLA, PI0, PI05 and more, with its saved processors."""

    path: FilePath = ""
    """checkpoint: a local directory, or a repository on the Hugging Face hub (owner/name)"""
    revision: str | None = None
    """branch, tag or commit on the hub"""
    device: str = "auto"
    """auto (cuda if there is one, else cpu), cpu, cuda, cuda:1, mps …"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the model under autocast"""
    compile: Literal["none", "default", "reduce-overhead", "max-autotune"] = "none"
    """torch.compile mode, warmed up at start; reduce-overhead uses CUDA graphs. none is eager, the reference"""
    max_batch: Count = 8
    """most robots in one forward pass"""
    threads: Count | None = None
    """CPU threads of torch; tiny models are quickest with 1"""
    n_action_steps: Count | None = None
    """actions to execute of each chunk; the checkpoint's own if not given"""
    num_steps: Count | None = None
    """denoising steps of SmolVLA, PI0, PI05 or Diffusion; the checkpoint's own if not given, 1 for a distilled one"""
    noise_scale: NotNegative = 1.0
    """factor on the noise that a chunk of SmolVLA, PI0 or PI05 begins as; 0: no noise, the same chunk whenever the same
    is seen"""
    fps: Hz | None = None
    """rate the policy was trained at, if known; then a robot with another rate is refused"""
    robot: str | None = None
    """name of the robot it was trained on, if known, or of several, ONE,TWO; then another robot is refused"""
    rename: dict[str, str] = field(default_factory=dict)
    """the robot's name -> the checkpoint's, e.g. {observation.images.front: observation.images.camera1}"""
    empty_cameras: Annotated[list[str], Names] = field(default_factory=list)
    """the checkpoint's cameras that the robot does not have; SmolVLA and PI0 fill them in, as in training. Its names"""
    overrides: dict[str, Any] = field(default_factory=dict)
    """keys of the checkpoint's config.json to replace, e.g. {num_steps: 5, vlm_model_name: DIR}"""
    tokenizer: FilePath | None = None
    """directory or hub name of the tokenizer, instead of the one the checkpoint names"""
    guidance: Literal["identity", "vjp"] = "identity"
    """how aggregate=rtc pulls a flow policy to the running chunk: LeRobot's approximation, or the paper's exact VJP"""
    guidance_schedule: Literal["linear", "exp", "ones", "zeros"] = "linear"
    """how that pull fades over the part of the running chunk that is not committed"""
    max_guidance_weight: Positive | None = None
    """upper bound of that pull; not given: LeRobot's 10, or the number of denoising steps if that is less"""
    guidance_horizon: Count | None = None
    """ticks after which nothing is pulled; all that is left of the running chunk if not given"""

    entry_point = "tactus.policies.lerobot.build:build"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError("path: missing; accepted: a checkpoint's directory, or owner/name on the hub")


@PolicyConfig.register_subclass("learned")
class LearnedConfig(LeRobotConfig):
    """The checkpoint that ships with Tactus and looks: two cameras of 96x96; for libero_object and libero_spatial."""

    path: FilePath = ""
    """where it lies; not given: in the package"""
    fps: Hz | None = 20.0
    """LIBERO's control rate"""
    robot: str | None = "libero/libero_object,libero/libero_spatial"
    """the suites it was trained on"""
    threads: Count | None = 1
    """CPU threads of torch; it is small"""

    shipped: ClassVar[str] = "libero_keypoints"
    """Its folder among CHECKPOINTS."""

    def __post_init__(self) -> None:
        self.path = self.path or str(CHECKPOINTS / self.shipped)


@PolicyConfig.register_subclass("learned_state")
class LearnedStateConfig(LearnedConfig):
    """The checkpoint that ships with Tactus and reads poses instead, for libero_object."""

    robot: str | None = "libero/libero_object"
    """the suite it was trained on"""

    shipped: ClassVar[str] = "libero_object_act"


@PolicyConfig.register_subclass("learned_so101")
class LearnedSo101Config(LearnedConfig):
    """The checkpoint that ships with Tactus for an SO-101 at the twin's table: cameras top and wrist of 128x96."""

    fps: Hz | None = 30.0
    """the twin's"""
    robot: str | None = None
    """name of the robot, if no other is to be accepted"""

    shipped: ClassVar[str] = "so101_keypoints"
