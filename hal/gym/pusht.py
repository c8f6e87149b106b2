"""PushT as a Robot: what gym_pusht gives LeRobot, rendered only for ticks that are observed.

Drawing needs the contact points of the moment, which pymunk cannot set from a copy, so the picture is drawn by
observe() itself and not when it is first read.
"""

from __future__ import annotations

import math

from tactus.hal.gym.config import PushTConfig
from tactus.hal.gym.robot import IMAGE, Arrays, EnvRobot, decided_by, flat, make, package
from tactus.hal.robot import Scene
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Feature, RobotSpec, image

SIZE = 512.0
"""Side of the table; its unit is a pixel of the window that the table was first drawn in."""

AGENT = Feature((2,), "float64", unit="px", names=("agent.x", "agent.y"), low=(0.0,) * 2, high=(SIZE,) * 2)
CORNERS = Feature(
    (16,),
    "float64",
    unit="px",
    names=tuple(f"corner_{i}.{axis}" for i in range(8) for axis in "xy"),
    low=(0.0,) * 16,
    high=(SIZE,) * 16,
)
WHOLE = Feature(
    (5,),
    "float64",
    unit=("px",) * 4 + ("rad",),
    names=("agent.x", "agent.y", "block.x", "block.y", "block.angle"),
    low=(0.0,) * 5,
    high=(SIZE,) * 4 + (2 * math.pi,),
)
PICTURE = image(96, 96)
OBSERVATIONS = {
    "pixels_agent_pos": {IMAGE: PICTURE, STATE: AGENT},
    "pixels": {IMAGE: PICTURE},
    "environment_state_agent_pos": {ENVIRONMENT_STATE: CORNERS, STATE: AGENT},
    "state": {STATE: WHOLE},
}
ACTION = Feature((2,), "float32", unit="px", names=("x", "y"), low=(0.0,) * 2, high=(SIZE,) * 2, mode=("absolute",) * 2)


class PushTRobot(EnvRobot):
    """fps 10; action float32[2]: where the agent shall go, in px. Success: 95 % of the place is covered."""

    def __init__(self, config: PushTConfig) -> None:
        package("gym_pusht", "pusht")
        # The checker would miss the pictures that step() no longer makes.
        kwargs = {"obs_type": "state", "max_episode_steps": config.max_steps, "disable_env_checker": True}
        env = make("gym_pusht/PushT-v0", kwargs)
        self._obs_type = config.obs_type
        spec = RobotSpec("pusht", 10.0, OBSERVATIONS[config.obs_type], ACTION, decided_by("gym_pusht", draws=False))
        super().__init__(spec, env, Scene(config.instruction, spec.name))

    def _look(self) -> Arrays:
        table = self._env.unwrapped
        table.obs_type = self._obs_type
        try:
            arrays = flat(table.get_obs())
        finally:
            table.obs_type = "state"
        self._renders += IMAGE in arrays
        return arrays
