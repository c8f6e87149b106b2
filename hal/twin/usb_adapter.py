"""An emulated USB serial adapter: how long bytes take on the line, and its latency timer, which holds answers back."""

from __future__ import annotations

import heapq
import math

FULL_BYTES = 62
"""An FTDI sends early when it has so many: a 64-byte packet less two of status."""
OUT_S = 0.5e-3
"""From the host's write to the line: half a frame of full-speed USB, on average."""


class UsbAdapter:
    """Delays bytes as an adapter does. Pure: times are arguments.

    latency_s: how long the first byte of an answer may wait for more; no answer is torn by the timer.

    host writes      line                                     host can read
    |--- OUT_S ---|request|pause|first byte ... |------ latency_s ------|
    """

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self._free_s = -math.inf
        self._coming: list[tuple[float, int, float, bytes]] = []
        self._waiting = bytearray()
        self._since_s = 0.0
        self._number = 0

    def request(self, now_s: float, length: int, baudrate: int) -> float:
        """When the last of `length` bytes that the host writes now has left."""
        self._free_s = max(now_s + OUT_S, self._free_s) + 10 * length / baudrate
        return self._free_s

    def answer(self, start_s: float, data: bytes, baudrate: int) -> None:
        """`data` begins to come along the line at start_s."""
        end_s = start_s + 10 * len(data) / baudrate
        heapq.heappush(self._coming, (end_s, self._number, start_s + 10 / baudrate, data))
        self._number += 1

    def deliver(self, now_s: float) -> bytes:
        """What the host can read by now and could not before."""
        out = bytearray()
        while self._coming or self._waiting:
            timer_s = self._since_s + self.latency_s if self._waiting else math.inf
            if self._coming and self._coming[0][0] <= min(now_s, timer_s):
                _, _, first_s, data = heapq.heappop(self._coming)
                self._since_s = self._since_s if self._waiting else first_s
                self._waiting += data
                while len(self._waiting) >= FULL_BYTES:
                    out += self._waiting[:FULL_BYTES]
                    del self._waiting[:FULL_BYTES]
                    self._since_s = first_s
            elif timer_s <= now_s:
                out += self._waiting
                self._waiting.clear()
            else:
                break
        return bytes(out)

    @property
    def next_s(self) -> float:
        """When `deliver` next has something, inf if nothing is under way."""
        if not self._waiting and not self._coming:
            return math.inf
        if self._waiting:
            timer_s = self._since_s + self.latency_s
        else:
            end_s, _, first_s, _ = self._coming[0]
            timer_s = max(first_s + self.latency_s, end_s)
        count = len(self._waiting)
        for end_s, _, _, data in sorted(self._coming):
            count += len(data)
            if count >= FULL_BYTES:
                return min(timer_s, end_s)
        return timer_s

    def clear(self) -> None:
        """Forget everything under way: it was pulled out."""
        self._coming.clear()
        self._waiting.clear()
        self._free_s = -math.inf
