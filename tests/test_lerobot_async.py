"""What LeRobot's asynchronous client and server do, in our virtual time, and what our robot node does instead."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, synthetic

from tactus.hal.robot import Robot
from tactus.hal.spec import STATE
from tactus.policies.policy import Policy, Request
from tactus.policies.scripted.ticker import TickerConfig
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

Play = Callable[..., Any]
HORIZON = 10


@pytest.fixture(scope="module")
def lab() -> Any:
    """tests/bench/lerobot_async.py; imported here because LeRobot's client takes seconds to import."""
    sys.path.append(str(Path(__file__).parent / "bench"))
    return importlib.import_module("lerobot_async")


@pytest.fixture
def ticker() -> Policy:
    return TickerConfig(width=3, horizon=HORIZON).make()


@pytest.fixture
def theirs(serve: Serve, lab: Any) -> Play:
    def run(policy: Policy, latency: str, threshold: float = 0.5, **options: Any) -> Any:
        robot, link = options.pop("robot", None) or synthetic().make(), Link(serve(policy).endpoint)
        try:
            spec = link.hello(robot.spec, timeout_s=5)
            aggregate = options.pop("aggregate", "latest_only")
            episodes = options.pop("episodes", [0])
            played = list(lab.play(robot, link, spec, latency, aggregate, threshold, episodes, 1, **options))
            return played[0][2] if len(played) == 1 else played
        finally:
            link.close()

    return run


@pytest.fixture
def ours(serve: Serve) -> Callable[..., EpisodeStats]:
    def run(policy: Policy, latency: str, threshold: float = 0.5, robot: Robot | None = None) -> EpisodeStats:
        robot, link = robot or synthetic().make(), Link(serve(policy).endpoint)
        clock = VirtualClock(robot.spec.fps)
        try:
            spec = link.hello(robot.spec, timeout_s=5)
            delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=5)
            return RobotNode(robot, spec, delayed, clock, LoopConfig(chunk_size_threshold=threshold)).run_episode(0, 1)
        finally:
            link.close()

    return run


def executed(stats: EpisodeStats) -> list[int]:
    """The tick each action was meant for: its binary dimension, which a held action keeps."""
    return [int(action[2]) for action in stats.actions]


def slowly(request: Request) -> np.ndarray:
    """Centimetres, in a robot that counts in metres."""
    return count(request) * np.float32(0.001)


def test_without_latency_the_first_action_of_every_later_chunk_is_skipped(theirs: Play, ticker: Policy) -> None:
    stats = theirs(ticker, "fixed:0", threshold=0.0)
    assert executed(stats) == [*range(10), *range(11, 41)]
    assert stats.stale_actions_dropped == stats.chunks - 1 and stats.starved_ticks == 0
    assert stats.starts == stats.asked == [0, 10, 19, 28, 37]
    assert stats.sources == [0] * 10 + [10] * 9 + [19] * 9 + [28] * 9 + [37] * 3


def test_ours_skips_nothing(ours: Play, ticker: Policy) -> None:
    for threshold in (0.0, 0.5):
        stats = ours(ticker, "fixed:0", threshold)
        assert executed(stats) == list(range(40)) and stats.stale_actions_dropped == 0


@pytest.mark.parametrize("delay", [1, 2, 4])
def test_with_latency_it_stays_ahead_of_itself(theirs: Play, ours: Play, ticker: Policy, delay: int) -> None:
    late = executed(theirs(ticker, f"fixed:{delay}"))[20:]
    assert late == list(range(21, 41)), "every tick executes the next one's action"
    assert executed(ours(ticker, f"fixed:{delay}")) == list(range(40))


@pytest.mark.parametrize(("delay", "starved"), [(0, 0), (2, 3), (4, 9)])
def test_a_starved_tick_is_not_counted(theirs: Play, ours: Play, ticker: Policy, delay: int, starved: int) -> None:
    """On an arm that has not moved yet the label is right, until a tick starves: LeRobot counts actions, not ticks."""
    stats = theirs(ticker, f"fixed:{delay}", threshold=0.0, acts_at_once=False)
    assert stats.starved_ticks == starved
    arrived = 9 + max(1, delay)  # asked for at tick 9
    assert executed(stats)[arrived : arrived + 5] == [10, 11, 12, 13, 14]
    assert executed(ours(ticker, f"fixed:{delay}", 0.0))[10 + delay : 15 + delay] == [*range(10, 15)], "nor does ours"


def test_a_slowly_changing_state_starves(theirs: Play, ours: Play) -> None:
    """‖Δstate‖ < 1, whatever the unit: refused until the queue has run dry, and then it is too late."""
    stats = theirs(FunctionPolicy(slowly), "fixed:2")
    assert stats.filtered > 0 and stats.starved_ticks >= 2 * (stats.chunks - 1) >= 6
    assert theirs(FunctionPolicy(count), "fixed:2").starved_ticks == 0
    assert ours(FunctionPolicy(slowly), "fixed:2").starved_ticks == 0


def test_a_starving_robot_holds(theirs: Play, ticker: Policy) -> None:
    stats = theirs(ticker, "fixed:3", threshold=0.0)
    assert [action.tolist() for action in stats.actions[10:13]] == [[0, 0, 9]] * 3


def test_a_merge_loses_the_tail(lab: Any, theirs: Play) -> None:
    """Its own _aggregate_action_queues on a chunk that ends early. With chunks of one length in order it cannot."""
    from lerobot.async_inference.configs import get_aggregate_function

    client = object.__new__(lab.RobotClient)
    client.action_queue_lock, client.latest_action_lock = lab.threading.Lock(), lab.threading.Lock()
    client.latest_action, client.action_queue = 1, lab.robot_client.Queue()
    for timestep in range(2, 10):
        client.action_queue.put(lab.TimedAction(0.0, timestep, lab.torch.zeros(1)))
    newer = [lab.TimedAction(0.0, timestep, lab.torch.ones(1)) for timestep in range(0, 5)]
    client._aggregate_action_queues(newer, get_aggregate_function("weighted_average"))
    left = {action.get_timestep(): float(action.get_action()) for action in client.action_queue.queue}
    assert left == {timestep: pytest.approx(0.7) for timestep in (2, 3, 4)}, "5 to 9 are gone"
    assert theirs(TickerConfig(width=3, horizon=HORIZON).make(), "lognormal:3").tail_lost == 0


def test_an_error_of_the_policy_is_never_asked_about_again(theirs: Play, ours: Play) -> None:
    """must_go is re-armed by actions only, and the last label counts as predicted: nothing gets through any more."""

    def once_broken() -> FunctionPolicy:
        calls: list[Request] = []

        def answer(request: Request) -> np.ndarray:
            calls.append(request)
            if len(calls) == 3:
                raise RuntimeError("a hiccup")
            return count(request)

        return FunctionPolicy(answer)

    stats = theirs(once_broken(), "fixed:0", threshold=0.0, robot=synthetic(steps=200).make())
    assert stats.policy_errors == 1 and stats.starved_ticks == 185
    assert ours(once_broken(), "fixed:0", 0.0, synthetic(steps=200).make()).starved_ticks < 30


def test_lost_replies_repeat_exactly_and_the_episode_goes_on(theirs: Play, ticker: Policy) -> None:
    runs = [theirs(ticker, "lognormal:2,drop=0.2,reorder=0.2", robot=synthetic(steps=300).make()) for _ in range(2)]
    assert runs[0].resends > 0 and runs[0].ticks == 300
    assert [a.tolist() for a in runs[0].actions] == [a.tolist() for a in runs[1].actions]


def test_the_policy_sees_the_tick_that_it_is_told(theirs: Play) -> None:
    """Histories too are of the right ticks, and each episode begins anew."""
    asked = []

    def look(request: Request) -> np.ndarray:
        asked.append((request.observation.tick, request.observation.arrays[STATE][:, 0].tolist()))
        return np.ones((8, 3), np.float32)

    played = theirs(FunctionPolicy(look, offsets=(-2, 0)), "fixed:1", episodes=[0, 1])
    assert [episode for episode, _, _ in played] == [0, 1]
    start = asked[0][1][0]
    for tick, states in asked[: played[0][2].requests]:
        assert states == pytest.approx([start + max(0, tick - 2), start + tick], abs=1e-4)
    assert all(stats.ticks == 40 for _, _, stats in played)


def test_actions_per_chunk_and_max_ticks(theirs: Play, ticker: Policy) -> None:
    stats = theirs(ticker, "fixed:0", threshold=0.0, actions_per_chunk=4, max_ticks=12)
    assert executed(stats) == [0, 1, 2, 3, *range(5, 13)]
