"""Batches: full, or as late as the robots can afford; who runs dry first goes first; nobody's actions change."""

from __future__ import annotations

import time

import numpy as np
import pytest
from conftest import Serve
from doubles import FunctionPolicy, count, slow_count, state_at, synthetic
from hypothesis import given
from hypothesis import strategies as st

from tactus.runtime.policy_node.batching import ALLOWANCE_S, SAFETY, Batching, Waiting
from tactus.runtime.wire.link import Link, Reply

seconds = st.floats(0, 100)
observations = st.lists(st.builds(Waiting, seconds, st.one_of(st.none(), seconds)), min_size=1, max_size=12)


def measured(max_batch: int, patience_s: float, pass_s: float) -> Batching:
    batching = Batching(max_batch, patience_s)
    batching.took(1, pass_s)
    return batching


@given(observations, st.integers(1, 8), st.integers(0, 20), st.floats(0, 1), st.floats(0, 1))
def test_a_pass_never_starts_too_late(
    waiting: list[Waiting], max_batch: int, others: int, patience_s: float, pass_s: float
) -> None:
    batching = measured(max_batch, patience_s, pass_s)
    start_s = batching.start_s(waiting, len(waiting) + others)
    virtual = waiting[batching.chosen(waiting)[0]].dry_s is None
    if not others or virtual or sum(one.dry_s is not None for one in waiting) >= max_batch:
        assert start_s <= min(one.received_s for one in waiting)
    for one in waiting:
        assert start_s <= one.received_s + min(patience_s, pass_s)
        if one.dry_s is not None:
            assert start_s <= max(0.0, one.dry_s - SAFETY * pass_s - ALLOWANCE_S)


@given(observations, st.integers(1, 8), st.integers(1, 8))
def test_who_runs_dry_first_goes_first(waiting: list[Waiting], max_batch: int, virtual_batch: int) -> None:
    chosen = Batching(max_batch, 0.01, virtual_batch).chosen(waiting)
    real = waiting[chosen[0]].dry_s is not None
    alike = [i for i, one in enumerate(waiting) if (one.dry_s is not None) == real]
    assert {*chosen} <= {*alike}, "real and virtual time never share a pass"
    assert len(chosen) == len({*chosen}) == min(max_batch if real else min(max_batch, virtual_batch), len(alike))
    if real:
        left_out = [waiting[i].dry_s for i in alike if i not in chosen]
        assert all(waiting[i].dry_s <= dry_s for i in chosen for dry_s in left_out)


def test_virtual_time_is_not_put_off_for_ever() -> None:
    batching = Batching(1, 0.01)
    assert batching.chosen([Waiting(50.0, 60.0), Waiting(0.0, None)]) == [1]


def test_a_pass_of_unknown_size_costs_what_the_next_larger_one_does() -> None:
    batching = Batching(8, 0.01)
    assert batching.expected_s(3) == 0
    batching.took(1, 1.0)
    batching.took(4, 2.0)
    assert [batching.expected_s(n) for n in (1, 2, 4, 8)] == [1.0, 2.0, 2.0, 2.0]


def _links(node: object, count: int, real_time: bool) -> list[Link]:
    links = [Link(node.endpoint) for _ in range(count)]
    for episode, link in enumerate(links):
        link.hello(synthetic().make().spec, 5, real_time)
        link.reset(episode, 0, "")
    return links


def _answers(links: list[Link], timeout_s: float = 5.0) -> list[Reply]:
    replies = []
    for link in links:
        deadline_s = time.monotonic() + timeout_s
        while not (found := link.poll()) and time.monotonic() < deadline_s:
            link.wait(0.05)
        replies += found
    return replies


@pytest.mark.slow
def test_robots_share_a_pass(serve: Serve) -> None:
    policy = FunctionPolicy(slow_count(0.05), max_batch=4)
    links = _links(serve(policy, batch_wait_ms=200.0, virtual_batch=4), 4, real_time=False)
    for tick in (0, 3):
        for link in links:
            link.request(state_at(tick), 0, 0)
        for reply in _answers(links):
            assert reply.chunk is not None and reply.chunk.start == tick
    assert len(policy.batches[-1]) == 4, "the second time, the node knew that a pass is worth waiting for"
    for link in links:
        link.close()


def test_robots_in_virtual_time_keep_to_themselves(serve: Serve) -> None:
    """Unless asked to share: company can change the last bits of an answer."""
    policy = FunctionPolicy(slow_count(0.02), max_batch=4)
    links = _links(serve(policy, batch_wait_ms=200.0), 4, real_time=False)
    for tick in (0, 3):
        for link in links:
            link.request(state_at(tick), 0, 0)
        assert len(_answers(links)) == 4
    assert {len(batch) for batch in policy.batches} == {1}
    for link in links:
        link.close()


def test_a_robot_about_to_run_dry_is_not_kept_waiting(serve: Serve) -> None:
    policy = FunctionPolicy(slow_count(0.02), max_batch=4)
    links = _links(serve(policy, batch_wait_ms=2000.0), 2, real_time=True)
    for tick in (0, 1):  # the first answer tells the node how long a pass takes
        links[0].request(state_at(tick), 1, 0)
        [reply] = _answers(links[:1])
        assert reply.chunk is not None and reply.chunk.timings_ms["queued"] < 20, "1 tick of 20 ms is left"
    assert [len(batch) for batch in policy.batches] == [1, 1]
    for link in links:
        link.close()


@pytest.mark.slow
def test_the_newest_observation_wins(serve: Serve) -> None:
    policy = FunctionPolicy(slow_count(0.1), max_batch=2)
    [link] = _links(serve(policy), 1, real_time=True)
    for tick in range(5):
        link.request(state_at(tick), 10, 0)
        time.sleep(0.01)
    time.sleep(0.3)
    assert [reply.chunk.start for reply in link.poll() if reply.chunk] == [0, 4]
    link.close()


@pytest.mark.slow
def test_a_second_robot_does_not_disturb_the_first(serve: Serve) -> None:
    """One comes while the other's pass runs, is refused, comes properly, and goes: the first one's episode goes on."""
    policy = FunctionPolicy(count, max_batch=4)
    node = serve(policy)
    [first] = _links(node, 1, real_time=True)
    opened = len(policy.opened)
    for tick in range(20):
        first.request(state_at(tick), 4, 0)
        if tick % 5 == 0:
            [second] = _links(node, 1, real_time=True)
            second.request(state_at(7), 4, 0)
            [theirs] = _answers([second])
            assert theirs.chunk is not None and theirs.chunk.start == 7
            second.close()
        [reply] = _answers([first])
        assert reply.chunk is not None and reply.chunk.start == tick
        np.testing.assert_array_equal(reply.chunk.actions[:, 0], np.arange(tick, tick + 8))
    assert [s.id for s in policy.opened].count(first.session) == 1 and len(policy.opened) >= opened + 4
    assert first.session not in policy.ended and len({*policy.ended}) >= 3
    first.close()
