"""Latency models in real time: a reply is seen at the tick where virtual time would have it, or later."""

from __future__ import annotations

import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, slow_count, synthetic

from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import RealDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link

pytestmark = pytest.mark.realtime


def run(node: PolicyNode, latency: str, fps: float = 20.0, **config: object) -> EpisodeStats:
    robot, link, clock = synthetic(fps=fps).make(), Link(node.endpoint), RealClock(fps)
    try:
        policy = link.hello(robot.spec, timeout_s=5)
        late = RealDelayedLink(link, clock, LatencyModel.parse(latency))
        loop = RobotNode(robot, policy, late, clock, LoopConfig(**config), say=lambda line: None)
        return loop.run_episode(0, seed=1)
    finally:
        link.close()


@pytest.mark.slow
def test_a_fixed_delay_is_that_many_ticks(serve: Serve) -> None:
    stats = run(serve(FunctionPolicy(count)), "fixed:3", chunk_size_threshold=0.0)
    if stats.skipped_ticks == 0:  # a loaded machine may miss a beat of 50 ms
        assert stats.latency_ticks[1:-1] == [3] * (stats.chunks - 2)
        assert stats.starved_ticks == 3 * (stats.requests - 1)
    assert min(stats.latency_ticks[1:]) >= 3
    assert min(stats.latency_ms[1:-1]) > 100, "asked at the start of tick k, seen not before that of k + 3"


@pytest.mark.slow
def test_without_a_delay_replies_are_seen_as_they_come(serve: Serve) -> None:
    stats = run(serve(FunctionPolicy(count)), "fixed:0", chunk_size_threshold=0.5)
    assert stats.starved_ticks == 0
    assert sorted(stats.latency_ms[1:-1])[len(stats.latency_ms) // 2] < 25


@pytest.mark.slow
def test_a_policy_slower_than_the_model_is_not_hurried(serve: Serve) -> None:
    stats = run(serve(FunctionPolicy(slow_count(0.12))), "fixed:1", chunk_size_threshold=0.5)
    assert min(stats.latency_ticks[1:]) >= 2


@pytest.mark.slow
def test_lost_replies_are_asked_for_again_and_delays_repeat(serve: Serve) -> None:
    node = serve(FunctionPolicy(count))
    first, second = (
        run(node, "fixed:1,drop=0.3", fps=50.0, chunk_size_threshold=0.5, request_timeout_s=0.1) for _ in range(2)
    )
    assert first.resends > 0 and first.ticks == 40
    assert first.chunks < first.requests
    assert second.resends > 0


@pytest.mark.slow
@pytest.mark.parametrize("latency", ["lognormal:2,sigma=0.3,reorder=0.3", "fixed:20ms,reorder=0.5"])
def test_the_other_models_run_to_the_end(serve: Serve, latency: str) -> None:
    stats = run(serve(FunctionPolicy(count)), latency, fps=50.0, request_timeout_s=0.2)
    assert stats.ticks == 40 and stats.chunks > 2


@pytest.mark.parametrize(
    "text, none", [("fixed:0", True), ("measured", True), ("fixed:1", False), ("fixed:0,drop=0.1", False)]
)
def test_which_models_need_no_link_of_their_own(text: str, none: bool) -> None:
    assert LatencyModel.parse(text).is_none == none
