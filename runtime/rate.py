"""How often something may happen: bursts pass, a lasting excess does not."""

from __future__ import annotations


class Rate:
    """A token bucket that holds one second's worth: bursts pass, a lasting excess does not."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._at_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """Whether one more may pass at now_s, which only grows."""
        if self._at_s is not None:
            self._tokens = min(self._per_s, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
