"""Real-time chunking over the wire: which prefix a policy gets, from ticks that were really consumed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from conftest import Serve
from doubles import HORIZON, count, synthetic

from tactus.hal.spec import STATE, Chunk, PolicySpec, SpecError
from tactus.policies.policy import Policy, Request, Session
from tactus.runtime.robot_node.clock import VirtualClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.delayed_link import VirtualDelayedLink
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.latency import LatencyModel
from tactus.runtime.wire.link import Link


class Continuing(Policy):
    """Keeps the requests; the raw form of the action for tick t in chunk n (0, 1, …) is (t, n)."""

    max_batch = 4

    def __init__(self, n_action_steps: int | None = None) -> None:
        spec = synthetic().make().spec
        inputs = {STATE: spec.observations[STATE]}
        self._spec = PolicySpec(
            "continuing", inputs, spec.action, HORIZON, takes_prefix=True, n_action_steps=n_action_steps
        )
        self.requests: list[Request] = []

    @property
    def spec(self) -> PolicySpec:
        return self._spec

    def reset(self, session: Session) -> None:
        self.requests = []

    def infer(self, requests: Sequence[Request]) -> list[Chunk]:
        chunks = []
        for request in requests:
            tick, number = request.observation.tick, len(self.requests)
            raw = np.array([(tick + i, number) for i in range(HORIZON)])
            chunks.append(Chunk(tick, count(request), raw=raw))
            self.requests.append(request)
        return chunks


def episode(serve: Serve, policy: Policy, latency: str, **changes: object) -> EpisodeStats:
    robot = synthetic().make()
    link, clock = Link(serve(policy).endpoint), VirtualClock(robot.spec.fps)
    try:
        spec = link.hello(robot.spec, 5, real_time=False)
        delayed = VirtualDelayedLink(link, clock, LatencyModel.parse(latency), lost_after_s=30)
        config = LoopConfig(**({"aggregate": "rtc"} | changes))  # pyright: ignore
        return RobotNode(robot, spec, delayed, clock, config).run_episode(0, 0)
    finally:
        link.close()


@pytest.mark.parametrize("delay", [0, 1, 3, 4])
def test_the_prefix_is_what_is_left_of_the_merged_chunk(serve: Serve, delay: int) -> None:
    policy = Continuing()
    stats = episode(serve, policy, f"fixed:{delay}")
    first, second, *others = policy.requests
    assert first.prefix is None and stats.starved_ticks == 0
    assert second.prefix is not None and second.prefix.delay == 0, "nothing has been measured yet"
    assert len(others) >= 4
    for number, (before, request) in enumerate(zip(policy.requests, policy.requests[1:], strict=False)):
        tick = request.observation.tick
        left = np.array([(t, number) for t in range(tick, before.observation.tick + HORIZON)])
        assert request.prefix is not None
        np.testing.assert_array_equal(request.prefix.actions, left)
        if number:
            assert request.prefix.delay == delay


def test_the_worst_recent_delay_is_expected(serve: Serve) -> None:
    policy = Continuing()
    stats = episode(serve, policy, "lognormal:2,sigma=0.6", chunk_size_threshold=0.75)
    seen = [request.prefix.delay for request in policy.requests[2:] if request.prefix]
    delays = stats.latency_ticks[1:]
    assert len({*delays}) > 1
    assert seen == [min(max(delays[: i + 1]), len(policy.requests[i + 2].prefix.actions)) for i in range(len(seen))]


def test_an_answer_that_never_came_is_no_prefix(serve: Serve) -> None:
    """What counts is what the robot merged, not what the node sent last."""
    policy = Continuing()
    stats = episode(serve, policy, "fixed:1,drop=0.4", request_timeout_s=0.04)
    assert stats.resends > 0
    numbers = [int(request.prefix.actions[0, 1]) for request in policy.requests[1:] if request.prefix is not None]
    assert any(number < i for i, number in enumerate(numbers)), "some chunk was lost"
    for i, request in enumerate(policy.requests[1:]):
        if request.prefix is not None and len(request.prefix.actions):
            assert request.prefix.actions[0, 0] == request.observation.tick
            assert request.prefix.actions[0, 1] <= i


def test_other_aggregations_send_no_delay(serve: Serve) -> None:
    policy = Continuing()
    episode(serve, policy, "fixed:2", aggregate="latest_only")
    assert all(request.prefix is None for request in policy.requests)


def test_a_policy_that_cannot_continue_is_refused(serve: Serve) -> None:
    from doubles import FunctionPolicy

    with pytest.raises(SpecError, match="rtc needs a policy that can continue a chunk; function cannot"):
        episode(serve, FunctionPolicy(count), "fixed:0")


@pytest.mark.parametrize(("steps", "threshold", "every"), [(3, 0.0, 3), (3, 0.75, 2), (None, 0.0, 8), (1, 0.0, 1)])
def test_n_action_steps_of_each_chunk_are_executed(
    serve: Serve, steps: int | None, threshold: float, every: int
) -> None:
    policy = Continuing(steps)
    episode(serve, policy, "fixed:0", aggregate="latest_only", chunk_size_threshold=threshold)
    ticks = [request.observation.tick for request in policy.requests]
    assert ticks == list(range(0, ticks[-1] + 1, every))
