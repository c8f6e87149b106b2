"""A bounded queue from one thread to another that an interrupt cannot break."""

from __future__ import annotations

import queue
import time

LOOK_S = 0.001


class BoundedQueue[T]:
    """A `queue.Queue` for one thread that gives and one that takes, with its methods.

    Ctrl-C within `queue.Queue.put` may lose the wakeup it was about to give: the thread that takes then sleeps for
    ever, and whoever closes it waits for it for ever. Here both sides share nothing but a SimpleQueue, whose put and
    get are one step each, and who must wait looks again every LOOK_S.
    """

    def __init__(self, maxsize: int) -> None:
        self._items: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._maxsize = maxsize
        self._given = self._done = 0  # each written by one thread alone

    def put(self, item: T) -> None:
        """Wait for room, and give."""
        while self._items.qsize() >= self._maxsize:
            time.sleep(LOOK_S)
        self.put_nowait(item)

    def put_nowait(self, item: T) -> None:
        """Raises queue.Full if there is no room."""
        if self._items.qsize() >= self._maxsize:
            raise queue.Full
        self._items.put(item)
        self._given += 1  # last: counted and not given, it would be waited for in vain

    def get(self) -> T:
        """Wait for the next item, and take it."""
        return self._items.get()

    def task_done(self) -> None:
        """The taking thread is done with an item."""
        self._done += 1

    def join(self) -> None:
        """Wait until everything given is done."""
        while self._done < self._given:
            time.sleep(LOOK_S)
