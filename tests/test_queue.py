"""The action queue against a slow, obvious model of what it promises."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tactus.hal.spec import Feature, SpecError
from tactus.runtime.robot_node.action_queue import AGGREGATIONS, ENSEMBLE_DECAY, WEIGHTS, ActionQueue, hold

ACTION = Feature((3,), "float64", mode=("absolute", "delta", "binary"))


@dataclass
class Model:
    """A dictionary of ticks. Per tick: the start of the newest chunk in it, and the action so far."""

    aggregate: str
    cells: dict[int, tuple[int, np.ndarray]] = field(default_factory=dict)
    votes: dict[int, list[tuple[int, np.ndarray]]] = field(default_factory=dict)

    def merge(self, actions: np.ndarray, start: int, now: int) -> None:
        for tick, action in enumerate(actions, start):
            if tick < now:
                continue
            self.votes.setdefault(tick, []).append((start, action))
            if tick not in self.cells:
                self.cells[tick] = (start, action)
                continue
            newest, old = self.cells[tick]
            if start < newest:
                continue
            old_weight, new_weight = WEIGHTS.get(self.aggregate, (0.0, 1.0))
            mixed = old_weight * old + new_weight * action if old_weight else action.copy()
            mixed[2] = action[2]
            self.cells[tick] = (start, mixed)

    def pop(self, tick: int) -> np.ndarray | None:
        if tick not in self.cells:
            return None
        if self.aggregate != "temporal_ensemble":
            return self.cells[tick][1]
        votes = sorted(self.votes[tick], key=lambda vote: vote[0])
        weights = np.exp(-ENSEMBLE_DECAY * np.arange(len(votes)))
        action = sum(w * a for w, (_, a) in zip(weights / weights.sum(), votes, strict=True))
        action[2] = votes[-1][1][2]
        return action


chunks = st.tuples(st.integers(0, 6), st.integers(1, 12))  # age at arrival in ticks, length
scripts = st.lists(st.tuples(st.lists(chunks, max_size=3), st.integers(1, 4)), min_size=1, max_size=15)


@given(st.sampled_from(AGGREGATIONS), scripts, st.integers(0, 2**32 - 1))
def test_the_queue_is_its_model(aggregate: str, script, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queue, model = ActionQueue(ACTION, aggregate), Model(aggregate)
    now = 0
    for arrivals, step in script:
        for age, length in arrivals:
            actions = rng.normal(size=(length, 3))
            merge = queue.merge(actions, max(0, now - age), now)
            model.merge(actions, max(0, now - age), now)
            assert merge.stale == min(length, now - max(0, now - age))
        for tick in range(now, now + step):  # every covered tick comes out, and nothing else
            expected, found = model.pop(tick), queue.pop(tick)
            assert (found is None) == (expected is None)
            if expected is not None:
                exact = aggregate != "temporal_ensemble"
                np.testing.assert_allclose(found, expected, rtol=0, atol=0 if exact else 1e-12)
            last = max((t for t in model.cells if t >= tick), default=tick - 1)
            assert queue.remaining(tick) == last - tick + 1
        now += step


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 30))
def test_an_action_is_never_of_another_tick(length: int, age: int, wait: int) -> None:
    queue = ActionQueue(Feature((1,), "float64", mode=("absolute",)))
    start = 100
    queue.merge(np.arange(start, start + length, dtype=np.float64)[:, None], start, start + age)
    for tick in range(start + age, start + age + wait):
        action = queue.pop(tick)
        assert (action is None) == (tick >= start + length)
        assert action is None or action[0] == tick


@pytest.mark.parametrize("aggregate", WEIGHTS)
def test_blends_are_as_named(aggregate: str) -> None:
    queue = ActionQueue(ACTION, aggregate)
    old_weight, new_weight = WEIGHTS[aggregate]
    queue.merge(np.full((6, 3), 2.0), 0, 0)
    queue.merge(np.full((6, 3), 12.0), 3, 3)
    blended = 2.0 * old_weight + 12.0 * new_weight
    assert queue.pop(3).tolist() == [blended, blended, 12.0]  # binary: the newest, never averaged
    assert queue.pop(7).tolist() == [12.0, 12.0, 12.0]


def test_the_old_tail_is_kept() -> None:
    queue = ActionQueue(ACTION)
    queue.merge(np.full((10, 3), 1.0), 0, 0)
    queue.merge(np.full((3, 3), 2.0), 2, 2)
    assert [queue.pop(tick)[0] for tick in range(2, 10)] == [2, 2, 2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_an_older_chunk_that_comes_late_changes_no_newer_action(aggregate: str) -> None:
    old, new = np.full((8, 3), 1.0), np.full((4, 3), 5.0)
    queue = ActionQueue(ACTION, aggregate)
    queue.merge(new, 2, 3)
    queue.merge(old, 0, 3)
    if aggregate != "temporal_ensemble":
        assert [queue.pop(tick)[0] for tick in range(3, 8)] == [5, 5, 5, 1, 1]
    assert [queue.pop(tick)[2] for tick in range(3, 8)] == [5, 5, 5, 1, 1]


@given(st.permutations([0, 0, 1, 3]))
def test_the_ensemble_does_not_depend_on_arrival_order(starts: list[int]) -> None:
    def run(order: list[int]) -> list[float]:
        queue = ActionQueue(Feature((1,), "float64", mode=("absolute",)), "temporal_ensemble")
        for start in order:
            queue.merge(np.full((6, 1), 1.0 + start), start, 3)
        return [float(queue.pop(tick)[0]) for tick in range(3, 6)]

    np.testing.assert_allclose(run(starts), run(sorted(starts)), rtol=0, atol=1e-12)


def test_average_of_equal_starts_does_not_depend_on_order() -> None:
    results = []
    for first, second in ((1.0, 4.0), (4.0, 1.0)):
        queue = ActionQueue(Feature((1,), "float32", mode=("absolute",)), "average")
        queue.merge(np.full((3, 1), first, np.float32), 0, 0)
        queue.merge(np.full((3, 1), second, np.float32), 0, 0)
        results.append(queue.pop(0).tobytes())
    assert results[0] == results[1]


@pytest.mark.parametrize("aggregate", AGGREGATIONS)
def test_bits_survive_where_nothing_is_blended(aggregate: str) -> None:
    actions = np.array([[-0.0, 1e-45, 3.4e38]], np.float32).repeat(4, axis=0)
    queue = ActionQueue(Feature((3,), "float32", mode=("delta", "delta", "binary")), aggregate)
    queue.merge(actions, 0, 0)
    assert queue.pop(1).tobytes() == actions[1].tobytes()


def test_latest_only_replaces_bit_for_bit() -> None:
    queue = ActionQueue(Feature((1,), "float32", mode=("delta",)))
    queue.merge(np.full((4, 1), 7.0, np.float32), 0, 0)
    queue.merge(np.full((4, 1), -0.0, np.float32), 0, 0)
    assert np.signbit(queue.pop(0)[0])


def test_popped_actions_are_the_callers_own() -> None:
    queue = ActionQueue(ACTION)
    queue.merge(np.zeros((4, 3)), 0, 0)
    queue.pop(0)[:] = 9
    assert queue.pop(0).tolist() == [0, 0, 0]


def test_a_wrong_chunk_or_mode_is_refused() -> None:
    with pytest.raises(SpecError, match=r"float32\[4, 3\], expected float64"):
        ActionQueue(ACTION).merge(np.zeros((4, 3), np.float32), 0, 0)
    with pytest.raises(SpecError, match="accepted: latest_only, weighted_average"):
        ActionQueue(ACTION, "newest")
    queue = ActionQueue(ACTION)
    queue.merge(np.zeros((70, 3)), 100, 100)
    with pytest.raises(ValueError, match="ticks only run forwards"):
        queue.merge(np.zeros((4, 3)), 3, 3)


def test_hold_by_mode() -> None:
    assert hold(np.array([4.0, 5.0, 1.0]), ACTION).tolist() == [4, 0, 1]
    assert hold(None, ACTION).tolist() == [0, 0, 0]
