"""What describes a robosuite robot: the task, the arm, its cameras, how long an episode is."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from tactus.hal.config import Count, Names, Pixels
from tactus.hal.robot import RobotConfig

FPS = 20.0
"""robosuite's usual control rate in Hz."""

Task = Literal[
    "Lift",
    "Stack",
    "Door",
    "Wipe",
    "NutAssembly",
    "NutAssemblySingle",
    "NutAssemblySquare",
    "NutAssemblyRound",
    "PickPlace",
    "PickPlaceSingle",
    "PickPlaceMilk",
    "PickPlaceBread",
    "PickPlaceCereal",
    "PickPlaceCan",
    "TwoArmLift",
    "TwoArmPegInHole",
    "TwoArmHandover",
]
INSTRUCTIONS: dict[Task, str] = {
    "Lift": "lift the cube",
    "Stack": "stack the red cube on the green cube",
    "Door": "open the door",
    "Wipe": "wipe the table clean",
    "NutAssembly": "fit both nuts onto their pegs",
    "NutAssemblySingle": "fit the nut onto its peg",
    "NutAssemblySquare": "fit the square nut onto the square peg",
    "NutAssemblyRound": "fit the round nut onto the round peg",
    "PickPlace": "put every object into its bin",
    "PickPlaceSingle": "put the object into its bin",
    "PickPlaceMilk": "put the milk into its bin",
    "PickPlaceBread": "put the bread into its bin",
    "PickPlaceCereal": "put the cereal into its bin",
    "PickPlaceCan": "put the can into its bin",
    "TwoArmLift": "lift the pot by both handles, and keep it level",
    "TwoArmPegInHole": "put the peg into the hole",
    "TwoArmHandover": "hand the hammer from one arm to the other",
}

Arm = Literal["Panda", "IIWA", "Jaco", "Kinova3", "UR5e"]
"""robosuite's Sawyer is not there: MuJoCo 3 takes no mesh without a volume, as its head has."""
Camera = Literal[
    "agentview", "frontview", "birdview", "sideview", "robot0_robotview", "robot0_eye_in_hand", "robot1_eye_in_hand"
]


@RobotConfig.register_subclass("robosuite")
class RobosuiteConfig(RobotConfig):
    """robosuite's own tasks: one arm or two under OSC_POSE, at 20 Hz. Episode i resets with seed + i."""

    env_name: Task = "Lift"
    """a task of robosuite 1.4: Lift, Stack, Door, NutAssemblySquare, PickPlaceCan …"""
    arm: Arm = "Panda"
    """Panda, IIWA, Jaco, Kinova3 or UR5e; in the tasks for two arms both of them"""
    cameras: Annotated[list[Camera], Names] = field(default_factory=lambda: ["agentview", "robot0_eye_in_hand"])
    """names of robosuite's cameras; images are rendered only when a policy or a video reads them"""
    image_size: tuple[Pixels, Pixels] = (256, 256)
    """height and width of each camera image"""
    environment_state: bool = True
    """also give observation.environment_state: what robosuite says of the objects"""
    max_steps: Count = 500
    """episode limit in control steps"""
    instruction: str | None = None
    """for policies that read one; a description of the task if not given"""

    def __post_init__(self) -> None:
        if "robot1_eye_in_hand" in self.cameras and not self.env_name.startswith("TwoArm"):
            raise ValueError(f"cameras: robot1_eye_in_hand is on the second arm; {self.env_name} has one")

    entry_point = "tactus.hal.robosuite.robot:RobosuiteRobot"
