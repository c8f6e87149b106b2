"""Zero latency is synchronous evaluation, bit for bit: same actions, same simulator states, over real sockets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from conftest import MakeLibero, Serve
from test_libero import Reference

from tactus.hal.gym import GymConfig
from tactus.hal.libero.robot import lerobot_state
from tactus.hal.robot import Robot
from tactus.hal.spec import ENVIRONMENT_STATE, STATE, Chunk, Observation, PolicySpec
from tactus.policies.policy import Policy, Request, Session
from tactus.policies.scripted.expert import ExpertConfig
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.robot_node.watcher import TickView, Watcher
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

pytestmark = pytest.mark.slow

SYNCHRONOUS = LoopConfig(aggregate="latest_only", chunk_size_threshold=0.0)


class Before(Watcher):
    """A Watcher that collects `look()` before every action."""

    def __init__(self, look: Callable[[], np.ndarray]) -> None:
        self.look, self.seen = look, list[np.ndarray]()

    def before(self, view: TickView) -> None:
        self.seen.append(self.look())


def asynchronous(robot: Robot, serve: Serve, policy: Policy, seed: int, watcher: Watcher) -> list[np.ndarray]:
    """One episode through link, queue and policy node with --latency=fixed:0; the executed actions."""
    link, clock = Link(serve(policy).endpoint), VirtualClock(robot.spec.fps)
    try:
        spec = link.hello(robot.spec, 5)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse("fixed:0"), lost_after_s=30)
        stats = RobotNode(robot, spec, delayed, clock, SYNCHRONOUS).run_episode(0, seed, [watcher])
        assert stats.starved_ticks == 0 and stats.stale_actions_dropped == 0
        return stats.actions
    finally:
        link.close()


class Pusher(Policy):
    """For PushT: heads for the block with a wobble, so that every action depends on what was observed."""

    def __init__(self, robot: Robot, horizon: int) -> None:
        self._spec = PolicySpec("pusher", {STATE: robot.spec.observations[STATE]}, robot.spec.action, horizon)

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        pass

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        return [Chunk(r.observation.tick, self.plan(r.observation.arrays[STATE])) for r in requests]

    def plan(self, state: np.ndarray) -> np.ndarray:
        agent, block, angle = state[:2], state[2:4], state[4]
        along = np.linspace(0.3, 1.4, self._spec.horizon)[:, None]
        if self._spec.horizon == 1:
            along[:] = 1.4
        wobble = 20 * np.stack([np.sin(angle + 3 * along[:, 0]), np.cos(angle * 2 + along[:, 0])], axis=1)
        return np.clip(agent + along * (block - agent) + wobble, 0, 512).astype(np.float32)


@pytest.mark.parametrize("horizon", [1, 8])
def test_pusht(libero: MakeLibero, serve: Serve, horizon: int) -> None:
    import gymnasium

    robot = GymConfig(kwargs={"obs_type": "state"}).make()
    policy = Pusher(robot, horizon)

    env = gymnasium.make("gym_pusht/PushT-v0", obs_type="state")
    state, _ = env.reset(seed=123)
    expected_actions, expected_states, chunk = [], [], []
    done = False
    while not done:
        expected_states.append(state.copy())
        if not chunk:
            chunk = list(policy.plan(state))
        action = chunk.pop(0)
        expected_actions.append(action)
        state, _, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
    env.close()

    states = Before(lambda: robot.observe().arrays[STATE].copy())
    actions = asynchronous(robot, serve, policy, 123, states)
    robot.close()
    assert len(np.unique(np.stack(expected_states)[:, 4])) > 10, "the block was pushed"
    np.testing.assert_array_equal(np.stack(actions), np.stack(expected_actions))
    np.testing.assert_array_equal(np.stack(states.seen), np.stack(expected_states))


@pytest.mark.slow
def test_libero(libero: MakeLibero, serve: Serve) -> None:
    """The expert on LIBERO's own environment, stepped in a plain loop, against the whole runtime."""
    robot = libero(tasks=[6], init_states=[3])
    task = robot.scene(0).task
    reference = Reference(robot)
    policy = ExpertConfig().make()
    policy.reset(Session("plain", 8, task))
    raw = reference.reset(3, seed=8)
    expected_actions, expected_states, chunk = [], [], []
    moved, target = robot.suite.interest(6)
    while len(expected_actions) < 280 and not reference.env.check_success():
        expected_states.append(reference.env.get_sim_state())
        if not chunk:
            poses = [raw[f"{name}_{part}"] for name in (moved, target) for part in ("pos", "quat")]
            arrays = {STATE: lerobot_state(raw), ENVIRONMENT_STATE: np.concatenate(poses)}
            [answer] = policy.infer([Request("plain", Observation(arrays, {}, len(expected_actions), task))])
            chunk = list(answer.actions)
        action = chunk.pop(0)
        expected_actions.append(action)
        raw = reference.step(action)
    assert reference.env.check_success()
    reference.close()

    states = Before(lambda: robot.sim_state)
    actions = asynchronous(robot, serve, ExpertConfig().make(), 8, states)
    assert robot.outcome().success
    robot.close()
    np.testing.assert_array_equal(np.stack(actions), np.stack(expected_actions))
    np.testing.assert_array_equal(np.stack(states.seen), np.stack(expected_states))
