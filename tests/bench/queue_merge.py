"""Merging a chunk of 50 x 7 into a half-full queue, per aggregation, against the copy that no queue can avoid.

python tests/bench/queue_merge.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from tactus.hal.spec import Feature
from tactus.runtime.robot_node.action_queue import AGGREGATIONS, ActionQueue

ACTION = Feature((7,), "float32", mode=("delta",) * 6 + ("binary",))
CHUNK = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
REPEATS = 3000


def median_us(work: Callable[[int], object]) -> float:
    spent = []
    for repeat in range(REPEATS):
        started = time.perf_counter()
        work(repeat)
        spent.append((time.perf_counter() - started) * 1e6)
    return statistics.median(spent)


def merging(aggregate: str) -> float:
    """Every 25 ticks a chunk arrives 3 ticks late, as with a threshold of one half and a latency of 3."""
    queue = ActionQueue(ACTION, aggregate)
    return median_us(lambda repeat: queue.merge(CHUNK, 25 * repeat, 25 * repeat + 3))


def main() -> None:
    buffer = np.zeros_like(CHUNK)
    copy_us = median_us(lambda repeat: np.copyto(buffer, CHUNK))
    print(f"bare copy           {copy_us:5.1f} us")
    for aggregate in AGGREGATIONS:
        spent_us = merging(aggregate)
        print(f"{aggregate:18s}  {spent_us:5.1f} us  {spent_us / copy_us:5.1f} x")


if __name__ == "__main__":
    main()
