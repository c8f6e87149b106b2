"""The bounded queue between threads, interrupted at any moment."""

from __future__ import annotations

import queue
import random
import signal
import threading
import time
from types import FrameType

import pytest

from tactus.runtime.bounded_queue import BoundedQueue


def test_it_is_in_order_and_bounded() -> None:
    handover: BoundedQueue[int] = BoundedQueue(3)
    for item in range(3):
        handover.put_nowait(item)
    with pytest.raises(queue.Full):
        handover.put_nowait(3)
    found = []

    def take() -> None:
        for _ in range(200):
            found.append(handover.get())
            handover.task_done()

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    for item in range(3, 200):
        handover.put(item)
    handover.join()
    assert found == list(range(200))
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.slow
def test_an_interrupt_at_any_moment_leaves_it_usable() -> None:
    """With `queue.Queue` in its place this does not end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    chance = random.Random(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(600):
            handover: BoundedQueue[bool | None] = BoundedQueue(64)
            thread = threading.Thread(target=_take, args=(handover,), daemon=True)
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0005, 0.003))
                while True:
                    handover.put(True)
                    handover.join()
            handover.put(None)
            thread.join(5)
            assert not thread.is_alive()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _take(handover: BoundedQueue[bool | None]) -> None:
    while handover.get() is not None:
        until = time.perf_counter() + 2e-5
        while time.perf_counter() < until:
            pass
        handover.task_done()
