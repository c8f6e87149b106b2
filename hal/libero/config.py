"""What describes a LIBERO robot: the suite, its tasks and initial states, its cameras."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from tactus.hal.config import Count, FilePath, Names, Pixels
from tactus.hal.robot import RobotConfig

FPS = 20.0
"""LIBERO's control rate in Hz."""

Suite = Literal["libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90"]
MAX_STEPS: dict[Suite, int] = {
    "libero_spatial": 280,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
"""Episode limit per suite, in control steps, as LeRobot evaluates them."""

Camera = Literal["agentview", "robot0_eye_in_hand"]
CAMERAS: dict[Camera, str] = {"agentview": "image", "robot0_eye_in_hand": "image2"}
"""LIBERO's camera names, and the names LeRobot's data sets and checkpoints give them."""

Index = Annotated[int, Field(ge=0, le=10**6)]


@RobotConfig.register_subclass("libero")
class LiberoConfig(RobotConfig):
    """LIBERO's manipulation tasks, simulated.

    Episode i is task `tasks[i % T]` with init state `init_states[i // T % I]`.
    """

    suite: Suite = "libero_object"
    """libero_spatial, libero_object, libero_goal, libero_10 or libero_90"""
    tasks: list[Index] | None = None
    """task indices within the suite; all of them if not given"""
    init_states: list[Index] | None = None
    """init state indices (0-49); all of them if not given"""
    cameras: Annotated[list[Camera], Names] = field(default_factory=lambda: list(CAMERAS))
    """LIBERO camera names; images are rendered only when a policy or a video reads them"""
    image_size: tuple[Pixels, Pixels] = (256, 256)
    """height and width of each camera image"""
    looks: Literal["fixed", "varied"] = "fixed"
    """varied: colours, lights and cameras differ from episode to episode, by the seed; physics does not"""
    environment_state: bool = True
    """also give observation.environment_state: poses of the task's objects of interest"""
    control: Literal["relative", "absolute"] = "relative"
    """end-effector control: increments scaled to [-1, 1], or poses in m and rad"""
    assets: FilePath = "auto"
    """auto, hub, primitive or a directory: where meshes and textures come from"""
    task_files: FilePath = "packaged"
    """packaged, or a folder with bddl_files and init_files: where tasks and initial states come from"""
    max_steps: Count | None = None
    """episode limit in control steps; the suite's own if not given"""
    settle_steps: Index = 10
    """no-op steps after a reset, before tick 0"""
    kept_tasks: Count = 10
    """at most so many tasks stay compiled, 0.2-0.6 GB each, fewer if memory is short; for fast resets"""

    entry_point = "tactus.hal.libero.robot:LiberoRobot"
