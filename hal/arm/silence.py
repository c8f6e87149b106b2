"""Which motors do not answer, and since when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class Silence:
    """Heard of by every read of whoever reads; may be told from several threads.

    A motor is silent from the first read that it failed, not from the last one it answered: between two reads nobody
    knows, and rare reads are no fault of the motor's. say: takes one line when a motor falls silent, and when it is
    back. clock: monotonic seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._say = say
        self._clock = clock
        self._since_s: dict[str, float] = {}

    def heard(self, answered: Mapping[str, Any], failed: Mapping[str, str]) -> None:
        """A read's result: values by motor, and why others failed."""
        now_s = self._clock()
        for name, why in failed.items():
            if name not in self._since_s:
                self._since_s[name] = now_s
                self._say(f"{name} does not answer: {why}")
        for name in answered:
            if (since_s := self._since_s.pop(name, None)) is not None:
                self._say(f"{name} answers again after {now_s - since_s:.1f} s")

    def longer_than(self, allowed_s: float) -> dict[str, float]:
        """Motors that have been silent for longer than that, with for how long."""
        now_s = self._clock()
        return {name: now_s - since_s for name, since_s in [*self._since_s.items()] if now_s - since_s > allowed_s}

    def forget(self) -> None:
        """As if nobody had been asked yet: the whole line was cut, or is only now connected."""
        self._since_s.clear()
