"""The sequential test: a martingale under equality, over its bound as seldom as it says, dual to its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tactus.runtime.sequential_test import difference_interval, log_e, pairs_to_go, rate_interval

counts = st.integers(0, 120)


@given(counts, counts)
def test_under_equality_the_next_pair_changes_nothing_on_average(wins: int, losses: int) -> None:
    after = 0.5 * math.exp(log_e(wins + 1, losses)) + 0.5 * math.exp(log_e(wins, losses + 1))
    assert after == pytest.approx(math.exp(log_e(wins, losses)), rel=1e-9)
    assert log_e(0, 0) == 0 and log_e(wins, losses) == pytest.approx(log_e(losses, wins))


@given(counts, counts)
def test_the_e_value_is_the_integral_it_says_it_is(wins: int, losses: int) -> None:
    exact = math.log(2) * (wins + losses) - math.log(wins + losses + 1) - math.log(math.comb(wins + losses, wins))
    assert log_e(wins, losses) == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("drifts", [False, True])
def test_whoever_looks_after_every_pair_is_seldom_wrong(rate: float, drifts: bool) -> None:
    """drifts: scenes get harder, the same for both."""
    random, experiments, pairs = np.random.default_rng(7), 1000, 100
    rates = rate * (np.linspace(1, 0.2, 2 * pairs) if drifts else np.ones(2 * pairs))
    successes = random.random((experiments, pairs, 2)) < rates.reshape(pairs, 2)
    first_is_a = random.random((experiments, pairs)) < 0.5
    a = np.where(first_is_a, successes[..., 0], successes[..., 1])
    b = np.where(first_is_a, successes[..., 1], successes[..., 0])
    wins, losses = np.cumsum(a & ~b, axis=1), np.cumsum(b & ~a, axis=1)
    table = np.array([[log_e(w, n) for n in range(pairs + 1)] for w in range(pairs + 1)])
    wrong = (table[wins, losses] >= math.log(20)).any(axis=1).mean()
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / experiments)


@given(counts, counts, counts)
def test_the_difference_leaves_out_nothing_exactly_if_it_is_decided(wins: int, ties: int, losses: int) -> None:
    low, high = difference_interval(wins, ties, losses, 0.05)
    pairs = wins + ties + losses
    assert -1 <= low <= high <= 1
    if pairs:
        assert low - 1e-6 <= (wins - losses) / pairs <= high + 1e-6
    if abs(log_e(wins, losses) - math.log(20)) > 1e-6:
        assert (low > 0 or high < 0) == (log_e(wins, losses) > math.log(20))
    mirrored = difference_interval(losses, ties, wins, 0.05)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-6)


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_rate_s_interval_holds_the_rate_and_narrows(successes: int, failures: int) -> None:
    low, high = rate_interval(successes, successes + failures, 0.05)
    assert 0 <= low <= high <= 1
    if successes + failures:
        assert low - 1e-8 <= successes / (successes + failures) <= high + 1e-8
    wider = rate_interval(successes, successes + failures, 0.01)
    assert wider[0] <= low + 1e-9 and wider[1] >= high - 1e-9


def test_a_rate_s_interval_holds_at_all_times_at_once() -> None:
    random, experiments = np.random.default_rng(3), 300
    wrong = 0
    for _ in range(experiments):
        runs = np.cumsum(random.random(80) < 0.7)
        ends = (rate_interval(int(s), n, 0.05) for n, s in enumerate(runs, 1))
        wrong += any(not low <= 0.7 <= high for low, high in ends)
    assert wrong / experiments <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / experiments)


@given(counts, counts, counts)
def test_what_is_foreseen_decides(wins: int, ties: int, losses: int) -> None:
    more = pairs_to_go(wins, ties, losses, 0.05)
    if log_e(wins, losses) >= math.log(20):
        assert more == 0
    elif wins == losses:
        assert more is None
    elif more is not None:
        factor = 1 + (more + 1) / (wins + ties + losses)
        assert log_e(math.ceil(max(wins, losses) * factor), math.floor(min(wins, losses) * factor)) >= math.log(20)
