"""Messages to a person, throttled to one a second for each subject, and how often each happened."""

from __future__ import annotations

import math
from collections import Counter, deque

EVERY_S = 1.0


class ThrottledEvents:
    """Messages by subject: the first at once, then one in EVERY_S at most, saying how many it stands for.

    May be used from several threads. No more than KEPT lines wait to be fetched.
    """

    KEPT = 1000

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lines: deque[str] = deque(maxlen=self.KEPT)
        self._told_s: dict[str, float] = {}
        self._untold: Counter[str] = Counter()

    def say(self, line: str) -> None:
        """A line that is always told."""
        self._lines.append(line)

    def count(self, about: str, line: str, now_s: float, every_s: float = EVERY_S) -> None:
        """`about` has happened once more; `line` says how. every_s: at most one line in so many seconds."""
        self.counts[about] += 1
        if now_s - self._told_s.get(about, -math.inf) < every_s:
            self._untold[about] += 1
            return
        self._told_s[about] = now_s
        more = self._untold.pop(about, 0)
        self._lines.append(f"{line} (and {more} more since the last such line)" if more else line)

    def take(self) -> list[str]:
        """The lines since the last call, oldest first."""
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines
