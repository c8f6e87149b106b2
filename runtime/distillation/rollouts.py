"""Episodes of a policy on a simulated robot, each chunk executed before the next is asked for, as lerobot-eval does.

The same as `tactus eval --latency=fixed:0 --chunk_size_threshold=0`, in one process: no node, no wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from tactus.hal.robot import Robot
from tactus.hal.spec import Observation, SpecError
from tactus.policies.policy import Policy, Request, Session
from tactus.runtime.diagnosis.tracing import history
from tactus.runtime.wire.handshake import mismatches

SESSION = "rollout"


def check(robot: Robot, policy: Policy, allow: Sequence[str]) -> None:
    """Raise SpecError for a policy that cannot drive this robot, or a robot that is no simulation."""
    if reasons := mismatches(robot.spec, policy.spec, allow):
        told = "\n".join(f"  - {reason}" for reason in reasons)
        raise SpecError(f"{policy.spec.name} cannot drive {robot.spec.name}:\n{told}")
    if robot.wall_time or robot.outcome() is None:
        raise SpecError(
            f"robot: {robot.spec.name} is no simulation with an outcome; record it with --record_flight, and give the "
            "record as --observations"
        )


def play(
    robot: Robot, policy: Policy, episode: int, seed: int, saw: Callable[[Observation], object] | None = None
) -> bool:
    """One episode; returns whether it succeeded. saw: told what the policy would be given at every tick."""
    spec = policy.spec
    steps = spec.n_action_steps or spec.horizon
    past: deque[dict[str, np.ndarray]] = deque(maxlen=1 - spec.observation_offsets[0])
    robot.reset(episode, seed)
    task = robot.scene(episode).task
    policy.reset(Session(SESSION, seed + episode, task))
    chunk = np.empty((0, 0))
    tick, success = 0, False
    while (outcome := robot.outcome()) is not None and not outcome.done:
        due = tick % steps == 0
        if due or saw is not None or past.maxlen != 1:
            arrays = robot.observe().arrays
            past.append({name: np.array(arrays[name]) for name in spec.inputs})
        if due or saw is not None:
            observation = Observation(history(past, spec.observation_offsets), {}, tick, task)
            if saw is not None:
                saw(observation)
            if due:
                chunk = policy.infer([Request(SESSION, observation)])[0].actions
        robot.act(np.asarray(chunk[tick % steps]))
        tick += 1
    success = outcome is not None and outcome.success
    policy.end(SESSION)
    return success
