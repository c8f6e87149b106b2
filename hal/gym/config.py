"""What describes a gymnasium environment: which one, what is observed, how long an episode is."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field

from tactus.hal.config import Count, Hz
from tactus.hal.gym.metaworld_tasks import GROUPS, INSTRUCTIONS, resolve
from tactus.hal.robot import RobotConfig

PushTObserves = Literal["pixels_agent_pos", "pixels", "environment_state_agent_pos", "state"]
MujocoObserves = Literal["pixels_agent_pos", "pixels"]

AlohaTask = Literal["AlohaInsertion-v0", "AlohaTransferCube-v0"]
ALOHA_TASKS: dict[AlohaTask, str] = {"AlohaInsertion-v0": "insertion", "AlohaTransferCube-v0": "transfer_cube"}
"""LeRobot's env.task -> the instruction its evaluation hands to a policy."""


@RobotConfig.register_subclass("gym")
class GymConfig(RobotConfig):
    """Any gymnasium environment with a Box action. Episode i resets with seed + i."""

    env_id: str = "gym_pusht/PushT-v0"
    """gymnasium id; the part before a slash is imported first, so that it can register itself"""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """passed to gymnasium.make, e.g. {obs_type: pixels_agent_pos}"""
    fps: Hz | None = None
    """control rate in Hz; the environment's render_fps or control_freq if not given"""
    task: str = ""
    """instruction for policies that read one"""
    action_mode: Literal["absolute", "delta"] = "absolute"
    """what holding means: repeat the last command (a target), or send zero (an increment, velocity, torque)"""
    action_unit: str = "1"
    """unit of every action dimension"""
    success_key: str = "is_success"
    """key of `info` that says the task is solved; without it a terminated episode counts as a success"""

    entry_point = "tactus.hal.gym.robot:GymRobot"


@RobotConfig.register_subclass("pusht")
class PushTConfig(RobotConfig):
    """PushT: push the T onto its place, at 10 Hz. Episode i resets with seed + i."""

    obs_type: PushTObserves = "pixels_agent_pos"
    """what is observed: pixels_agent_pos, pixels, environment_state_agent_pos or state"""
    max_steps: Count = 300
    """episode limit in control steps"""
    instruction: str = ""
    """for policies that read one"""

    entry_point = "tactus.hal.gym.pusht:PushTRobot"


@RobotConfig.register_subclass("aloha")
class AlohaConfig(RobotConfig):
    """ALOHA: two simulated ViperX arms, at 50 Hz. Episode i resets with seed + i."""

    task: AlohaTask = "AlohaInsertion-v0"
    """AlohaInsertion-v0 or AlohaTransferCube-v0"""
    obs_type: MujocoObserves = "pixels_agent_pos"
    """what is observed: pixels_agent_pos or pixels"""
    max_steps: Count = 400
    """episode limit in control steps"""
    instruction: str | None = None
    """for policies that read one; LeRobot's word for the task if not given"""

    entry_point = "tactus.hal.gym.aloha:AlohaRobot"


@RobotConfig.register_subclass("metaworld")
class MetaWorldConfig(RobotConfig):
    """Meta-World: a Sawyer arm, at 80 Hz. Of T tasks, episode i is task i % T, reset with seed + i // T."""

    task: str = "push-v3"
    """a task, one of the groups easy, medium, hard and very_hard, or several, separated by commas"""
    obs_type: MujocoObserves = "pixels_agent_pos"
    """what is observed: pixels_agent_pos or pixels"""
    max_steps: Annotated[int, Field(ge=1, le=500)] = 500
    """episode limit in control steps; Meta-World allows no more than 500"""
    instruction: str | None = None
    """for policies that read one; LeRobot's description of each task if not given"""

    def __post_init__(self) -> None:
        self.tasks()

    def tasks(self) -> list[str]:
        """Names of the tasks that `task` stands for."""
        try:
            return resolve(self.task)
        except KeyError as error:
            known = f"a group ({', '.join(GROUPS)}) or a task ({', '.join(sorted(INSTRUCTIONS))})"
            raise ValueError(f"task: found {error.args[0]!r}; accepted: {known}") from None

    entry_point = "tactus.hal.gym.metaworld:MetaWorldRobot"
