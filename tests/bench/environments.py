"""Simulators to learn by trial in: ms of a reset and of a step without pictures, and how often random actions succeed.

python tests/bench/environments.py [--episodes 20] [--ticks 200]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import tactus.hal.backends  # noqa: F401 - registers the types
from tactus.hal.config import decode
from tactus.hal.robot import Robot, RobotConfig
from tactus.runtime.statistics import wilson
from tactus.testing import some_action

ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "LIBERO libero_object": {"type": "libero", "cameras": [], "assets": "primitive", "tasks": [0]},
    "PushT": {"type": "pusht", "obs_type": "environment_state_agent_pos"},
    "Meta-World push-v3": {"type": "metaworld"},
    "Meta-World reach-v3": {"type": "metaworld", "task": "reach-v3"},
    **{
        f"robosuite {task}": {"type": "robosuite", "env_name": task, "cameras": []}
        for task in ("Lift", "Stack", "Door", "NutAssemblySquare", "PickPlaceCan", "TwoArmLift")
    },
}


def measure(robot: Robot, episodes: int, ticks: int) -> str:
    """A row of the table."""
    rng, resets, steps, successes = np.random.default_rng(0), [], [], 0
    for episode in range(-1, episodes):  # the first one compiles
        start_s = time.perf_counter()
        robot.reset(max(0, episode), 1000)
        resets.append(time.perf_counter() - start_s)
        start_s, tick = time.perf_counter(), 0
        while tick < ticks and not (outcome := robot.outcome()).done:  # pyright: ignore[reportOptionalMemberAccess]
            robot.act(some_action(robot.spec.action, rng))
            tick += 1
        steps.append((time.perf_counter() - start_s) / max(1, tick))
        successes += episode >= 0 and outcome.success  # pyright: ignore[reportOptionalMemberAccess]
    low, high = wilson(successes, episodes)
    reset_ms, step_ms = 1000 * statistics.median(resets[1:]), 1000 * statistics.median(steps[1:])
    random = f"{successes} of {episodes} [{100 * low:.0f}, {100 * high:.0f}] %"
    return f"reset {reset_ms:7.1f} ms   step {step_ms:5.2f} ms   random: {random}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--ticks", type=int, default=200)
    arguments = parser.parse_args()
    for name, keys in ENVIRONMENTS.items():
        with decode(RobotConfig, keys).make() as robot:
            print(f"{name:28} {measure(robot, arguments.episodes, arguments.ticks)}", flush=True)


if __name__ == "__main__":
    main()
