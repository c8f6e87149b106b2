"""Gymnasium environments as Robots. Importing this registers their configs and none of their packages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tactus.hal.gym.metaworld_tasks import GROUPS, INSTRUCTIONS, resolve
from tactus.hal.gym.robot import GymRobot as GymRobot
from tactus.hal.robot import Robot, RobotConfig
from tactus.hal.spec import SpecError

PUSHT_OBSERVES = ("pixels_agent_pos", "pixels", "environment_state_agent_pos", "state")
MUJOCO_OBSERVES = ("pixels_agent_pos", "pixels")

ALOHA_TASKS = {"AlohaInsertion-v0": "insertion", "AlohaTransferCube-v0": "transfer_cube"}
"""LeRobot's env.task -> the instruction its evaluation hands to a policy."""


@RobotConfig.register_subclass("gym")
@dataclass
class GymConfig(RobotConfig):
    """Episode i resets with seed + i."""

    env_id: str = "gym_pusht/PushT-v0"
    """gymnasium id; the part before a slash is imported first, so that it can register itself"""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """passed to gymnasium.make, e.g. {obs_type: pixels_agent_pos}"""
    fps: float | None = None
    """control rate in Hz; the environment's render_fps if not given"""
    task: str = ""
    """instruction for policies that read one"""
    action_mode: Literal["absolute", "delta"] = "absolute"
    """what holding means: repeat the last command (a target), or send zero (an increment, velocity, torque)"""
    action_unit: str = "1"
    """unit of every action dimension"""
    success_key: str = "is_success"
    """key of `info` that says the task is solved; without it a terminated episode counts as a success"""

    def make(self) -> Robot:
        return GymRobot(self)


@RobotConfig.register_subclass("pusht")
@dataclass
class PushTConfig(RobotConfig):
    """Push the T onto its place, at 10 Hz. Episode i resets with seed + i."""

    obs_type: str = "pixels_agent_pos"
    """what is observed: pixels_agent_pos, pixels, environment_state_agent_pos or state"""
    max_steps: int = 300
    """episode limit in control steps"""
    instruction: str = ""
    """for policies that read one"""

    def __post_init__(self) -> None:
        _one_of("robot.obs_type", self.obs_type, PUSHT_OBSERVES)
        _positive("robot.max_steps", self.max_steps)

    def make(self) -> Robot:
        from tactus.hal.gym.pusht import PushTRobot

        return PushTRobot(self)


@RobotConfig.register_subclass("aloha")
@dataclass
class AlohaConfig(RobotConfig):
    """Two simulated ViperX arms, at 50 Hz. Episode i resets with seed + i."""

    task: str = "AlohaInsertion-v0"
    """AlohaInsertion-v0 or AlohaTransferCube-v0"""
    obs_type: str = "pixels_agent_pos"
    """what is observed: pixels_agent_pos or pixels"""
    max_steps: int = 400
    """episode limit in control steps"""
    instruction: str | None = None
    """for policies that read one; LeRobot's word for the task if not given"""

    def __post_init__(self) -> None:
        _one_of("robot.task", self.task, tuple(ALOHA_TASKS))
        _one_of("robot.obs_type", self.obs_type, MUJOCO_OBSERVES)
        _positive("robot.max_steps", self.max_steps)

    def make(self) -> Robot:
        from tactus.hal.gym.aloha import AlohaRobot

        return AlohaRobot(self)


@RobotConfig.register_subclass("metaworld")
@dataclass
class MetaWorldConfig(RobotConfig):
    """A Sawyer arm, at 80 Hz. Of T tasks, episode i is task i % T, reset with seed + i // T."""

    task: str = "push-v3"
    """a task, one of the groups easy, medium, hard and very_hard, or several, separated by commas"""
    obs_type: str = "pixels_agent_pos"
    """what is observed: pixels_agent_pos or pixels"""
    max_steps: int = 500
    """episode limit in control steps; Meta-World allows no more than 500"""
    instruction: str | None = None
    """for policies that read one; LeRobot's description of each task if not given"""

    def __post_init__(self) -> None:
        self.tasks()
        _one_of("robot.obs_type", self.obs_type, MUJOCO_OBSERVES)
        if not 1 <= self.max_steps <= 500:
            raise SpecError(f"robot.max_steps: found {self.max_steps}; accepted: 1 to 500")

    def tasks(self) -> list[str]:
        """Names of the tasks that `task` stands for."""
        try:
            return resolve(self.task)
        except KeyError as error:
            known = f"a group ({', '.join(GROUPS)}) or a task ({', '.join(sorted(INSTRUCTIONS))})"
            raise SpecError(f"robot.task: found {error.args[0]!r}; accepted: {known}") from None

    def make(self) -> Robot:
        from tactus.hal.gym.metaworld import MetaWorldRobot

        return MetaWorldRobot(self)


def _one_of(key: str, found: str, known: tuple[str, ...]) -> None:
    if found not in known:
        raise SpecError(f"{key}: found {found!r}; accepted: {', '.join(known)}")


def _positive(key: str, found: int) -> None:
    if found < 1:
        raise SpecError(f"{key}: found {found}; must be at least 1")
