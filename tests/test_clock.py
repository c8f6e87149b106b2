"""Clocks: where the grid is, and what happens when it is missed. How precise it is, tests/bench/pacing.py says."""

from __future__ import annotations

import time

import pytest

from tactus.runtime.robot_node.clock import RealClock, VirtualClock

pytestmark = pytest.mark.realtime


def nap(left_s: float) -> None:
    time.sleep(left_s)


def test_real_ticks_begin_on_the_grid_and_never_before() -> None:
    clock = RealClock(fps=100.0)
    began_s = time.perf_counter()
    clock.start()
    for tick in range(1, 20):
        reached = clock.wait_until(tick, nap)
        assert time.perf_counter() - began_s >= reached / 100.0
        assert clock.lateness_s >= 0


def test_an_overrun_skips_to_the_next_grid_point_and_is_counted_once() -> None:
    clock = RealClock(fps=100.0)
    clock.start()
    time.sleep(0.035)  # ticks 1, 2 and 3 have begun without us
    assert clock.wait_until(1, nap) >= 4
    assert clock.overruns == 1


def test_idle_is_told_how_long_it_has_and_may_return_early() -> None:
    clock = RealClock(fps=20.0)
    clock.start()
    given = []

    def impatient(left_s: float) -> None:
        given.append(left_s)
        time.sleep(min(left_s, 0.01))

    clock.wait_until(1, impatient)
    assert len(given) >= 3 and given[0] <= 0.05 and given == sorted(given, reverse=True)


def test_virtual_time_takes_no_time() -> None:
    clock = VirtualClock(fps=10.0)
    clock.start()
    began_s = time.perf_counter()
    for tick in range(1, 10_000):
        assert clock.wait_until(tick, nap) == tick
    assert clock.now_s() == 999.9
    assert time.perf_counter() - began_s < 5
    assert clock.overruns == 0
