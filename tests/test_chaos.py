"""A bad network: whatever is lost, doubled, swapped or late, each robot does what was meant for its tick, once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from chaos.lane import Faults, Lane
from chaos.proxy import RunningProxy, Totals
from chaos.tcp_proxy import TcpProxy
from conftest import Serve
from doubles import FunctionPolicy, count, state_at, synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from tactus.runtime.policy_node.node import PolicyNode
from tactus.runtime.robot_node.clock import RealClock
from tactus.runtime.robot_node.config import LoopConfig
from tactus.runtime.robot_node.episode import EpisodeStats
from tactus.runtime.robot_node.node import RobotNode
from tactus.runtime.wire.link import Link

pytestmark = [pytest.mark.slow, pytest.mark.realtime]

NONE = Faults()
REQUEST_TIMEOUT_S = 0.3


def play(
    endpoint: str, episodes: int = 1, steps: int = 60, request_timeout_s: float = REQUEST_TIMEOUT_S
) -> list[EpisodeStats]:
    """Episodes of a synthetic robot at 50 Hz, in real time."""
    robot, link, clock = synthetic(steps=steps).make(), Link(endpoint), RealClock(50.0)
    try:
        policy = link.hello(robot.spec, timeout_s=10)
        loop = LoopConfig(request_timeout_s=request_timeout_s, start_timeout_s=10)
        node = RobotNode(robot, policy, link, clock, loop, say=lambda line: None)
        return [node.run_episode(episode, seed=1) for episode in range(episodes)]
    finally:
        link.close()


def in_order(stats: EpisodeStats) -> bool:
    """Whether the actions that were decided are the plan's, each once: the action for tick t is t."""
    decided = [action[0] for action, source in zip(stats.actions, stats.sources, strict=True) if source >= 0]
    return decided == list(range(len(decided)))


def longest_gap_s(stats: EpisodeStats) -> float:
    longest = length = 0
    for source in stats.sources:
        length = length + 1 if source < 0 else 0
        longest = max(longest, length)
    return longest / 50


def through(
    node: PolicyNode, up: Faults, down: Faults, episodes: int, **options: Any
) -> tuple[list[EpisodeStats], Totals]:
    with RunningProxy(node.endpoint, up, down, seed=7) as proxy:
        return play(proxy.endpoint, episodes, **options), proxy.ask()


# lane


@settings(max_examples=200)
@given(
    st.builds(
        Faults,
        drop=st.floats(0, 0.5),
        duplicate=st.floats(0, 0.5),
        reorder=st.floats(0, 0.5),
        delay_ms=st.floats(0, 50),
        jitter_ms=st.floats(0, 50),
        stall_every_s=st.sampled_from([0.0, 0.2, 2.0]),
    ),
    st.integers(0, 1000),
)
def test_a_lane_loses_and_doubles_what_it_says_and_nothing_else(faults: Faults, seed: int) -> None:
    lane: Lane[int] = Lane(faults, str(seed))
    out: list[int] = []
    for index in range(200):
        lane.put(index * 0.01, index)
        out += lane.due(index * 0.01)
    now_s = 2.0
    while (wait_s := lane.wait_s(now_s)) is not None:
        now_s += wait_s
        out += lane.due(now_s)
    tally = lane.tally
    assert tally.seen == 200 and len(out) == 200 - tally.dropped + tally.duplicated
    assert len(set(out)) == 200 - tally.dropped
    if not tally.reordered:
        assert out == sorted(out)
    assert now_s < 2.0 + 0.1 + 0.04 + 5 * 0.2


def test_a_lane_gives_the_same_fate_for_the_same_seed() -> None:
    def fates(seed: str) -> list[int]:
        lane: Lane[int] = Lane(Faults(drop=0.3, duplicate=0.2), seed)
        for index in range(100):
            lane.put(0.0, index)
        return lane.due(1.0)

    assert fates("a") == fates("a") != fates("b")


def test_nothing_comes_out_of_a_lane_that_stands_still() -> None:
    lane: Lane[float] = Lane(Faults(stall_every_s=1.0, stall_ms=200), "seed")
    late = []
    for index in range(10_000):
        now_s = index * 0.001
        lane.put(now_s, now_s)
        late += [now_s - put_s for put_s in lane.due(now_s)]
    assert max(late) == pytest.approx(0.2, abs=0.002)
    assert lane.tally.stalls >= 5 and lane.tally.stalled > 500


# robots behind a bad network


@pytest.fixture
def node(serve: Serve) -> Iterator[PolicyNode]:
    yield serve(FunctionPolicy(count))


def test_a_good_network_changes_nothing(node: PolicyNode) -> None:
    (stats,), totals = through(node, NONE, NONE, 1)
    assert in_order(stats) and stats.ticks == 60
    assert totals.up.seen > 8 and totals.down.seen > 8
    assert totals.lost == 0 and (totals.up + totals.down).dropped == 0


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(Faults(duplicate=0.5), id="doubled"),
        pytest.param(Faults(reorder=0.4, reorder_ms=60), id="swapped"),
        pytest.param(Faults(delay_ms=30, jitter_ms=40), id="delayed"),
        pytest.param(Faults(stall_every_s=0.7, stall_ms=200), id="stalled"),
    ],
)
def test_nothing_is_done_twice_or_for_another_tick(node: PolicyNode, faults: Faults) -> None:
    stats, totals = through(node, faults, faults, 2)
    assert [one.ticks for one in stats] == [60, 60]
    for one in stats:
        assert in_order(one), [action[0] for action in one.actions]
        assert all(action[0] in (0, *range(60)) for action in one.actions)
    tally = totals.up + totals.down
    assert tally.duplicated + tally.reordered + tally.stalled > 0 or faults.delay_ms
    assert tally.dropped == 0


def test_doubled_answers_are_counted_once(node: PolicyNode) -> None:
    (stats,), _ = through(node, NONE, Faults(duplicate=1.0), 1, request_timeout_s=5.0)
    assert in_order(stats)
    assert stats.chunks == len(set(stats.starts)), "one answer was merged twice"


@pytest.mark.long
@pytest.mark.slow
def test_what_is_lost_is_asked_for_again_long_before_the_request_timeout(node: PolicyNode) -> None:
    """A tenth of all messages is lost, each way. The queue lasts 80 ms when a chunk is asked for, and a loss should be
    noticed within 0.2 s; that fails in turn if one of the four messages it takes is lost."""
    faults = Faults(drop=0.1)
    stats, totals = through(node, faults, faults, 3, steps=100, request_timeout_s=3.0)
    assert totals.up.dropped + totals.down.dropped > 5
    for one in stats:
        assert one.ticks == 100 and in_order(one)
        assert longest_gap_s(one) <= 5 * 0.2 + 0.1


@pytest.mark.slow
def test_a_lost_reset_is_noticed(serve: Serve) -> None:
    """The policy is told of each episode before its first action, with a third of what the robot sends lost."""
    policy = FunctionPolicy(count)
    stats, totals = through(serve(policy), Faults(drop=0.33), NONE, 8, steps=20)
    assert totals.up.dropped > 5 and all(in_order(one) for one in stats)
    opened = [session.seed for session in policy.opened]
    assert list(dict.fromkeys(opened)) == [1 + episode for episode in range(8)]


# a cable that is pulled


def test_a_stall_of_the_cable_is_waited_out(node: PolicyNode) -> None:
    with TcpProxy(node.endpoint) as cable:
        link = Link(cable.endpoint)
        link.hello(synthetic().make().spec, timeout_s=5)
        link.reset(0, 1, "")
        cable.stall()
        seq = link.request(state_at(3), 0, 0)
        assert not link.wait(0.3)
        cable.flow()
        reply = answer(link)
        assert (reply.seq, reply.chunk.start) == (seq, 3) and cable.connections == 1
        link.close()


def test_a_cut_cable_is_plugged_in_again_in_the_same_episode(node: PolicyNode) -> None:
    with TcpProxy(node.endpoint) as cable:
        link = Link(cable.endpoint)
        link.hello(synthetic().make().spec, timeout_s=5)
        link.reset(0, 1, "")
        link.request(state_at(0), 0, 0)
        assert answer(link).chunk is not None
        cable.down()
        time.sleep(0.3)
        cable.up()
        give_up_s = time.monotonic() + 5
        tick, replies = 0, []
        while not replies and time.monotonic() < give_up_s:
            tick += 1
            link.request(state_at(tick), 0, 0)
            link.wait(0.2)
            replies = link.poll()
        assert replies and replies[0].chunk is not None
        np.testing.assert_array_equal(replies[0].chunk.actions[:, 0], replies[0].chunk.start + np.arange(8))
        assert cable.connections == 2
        link.close()


def answer(link: Link, timeout_s: float = 5.0):
    give_up_s = time.monotonic() + timeout_s
    while time.monotonic() < give_up_s:
        link.wait(0.05)
        if replies := link.poll():
            return replies[0]
    raise AssertionError("no reply")
