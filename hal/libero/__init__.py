"""LIBERO's simulated manipulation tasks as a Robot. Importing this registers the config and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tactus.hal.robot import Robot, RobotConfig
from tactus.hal.spec import SpecError

FPS = 20.0
"""LIBERO's control rate in Hz."""

MAX_STEPS = {
    "libero_spatial": 280,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Episode limit per suite, in control steps, as LeRobot evaluates them."""

CAMERAS = {"agentview": "image", "robot0_eye_in_hand": "image2"}
"""LIBERO's camera names, and the names LeRobot's data sets and checkpoints give them."""


@RobotConfig.register_subclass("libero")
@dataclass
class LiberoConfig(RobotConfig):
    """Episode i is task `tasks[i % T]` with init state `init_states[i // T % I]`."""

    suite: str = "libero_object"
    """libero_spatial, libero_object, libero_goal, libero_10 or libero_90"""
    tasks: list[int] | None = None
    """task indices within the suite; all of them if not given"""
    init_states: list[int] | None = None
    """init state indices (0-49); all of them if not given"""
    cameras: list[str] = field(default_factory=lambda: list(CAMERAS))
    """LIBERO camera names; images are rendered only when a policy or a video reads them"""
    image_size: tuple[int, int] = (256, 256)
    """height and width of each camera image"""
    environment_state: bool = True
    """also give observation.environment_state: poses of the task's objects of interest"""
    control: Literal["relative", "absolute"] = "relative"
    """end-effector control: increments scaled to [-1, 1], or poses in m and rad"""
    assets: str = "auto"
    """auto, hub, primitive or a directory: where meshes and textures come from"""
    max_steps: int | None = None
    """episode limit in control steps; the suite's own if not given"""
    settle_steps: int = 10
    """no-op steps after a reset, before tick 0"""

    def __post_init__(self) -> None:
        if self.suite not in MAX_STEPS:
            raise SpecError(f"robot.suite: unknown suite {self.suite!r}; known: {', '.join(MAX_STEPS)}")
        unknown = [camera for camera in self.cameras if camera not in CAMERAS]
        if unknown:
            raise SpecError(f"robot.cameras: unknown {unknown}; known: {', '.join(CAMERAS)}")
        if self.control not in ("relative", "absolute"):
            raise SpecError(f"robot.control: found {self.control!r}; accepted: relative, absolute")
        if min(self.image_size) < 1:
            raise SpecError(f"robot.image_size: found {self.image_size}; both must be positive")

    def make(self) -> Robot:
        from tactus.hal.libero.robot import LiberoRobot

        return LiberoRobot(self)
