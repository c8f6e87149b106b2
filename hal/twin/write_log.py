"""The twin's log of register writes, writes.jsonl."""

from __future__ import annotations

import time
from pathlib import Path

from tactus.hal.twin.servo import Log, Servo

FLUSH_S = 0.05


class WriteLog:
    """Logs every write to a servo, on disk within FLUSH_S.

    JSON lines: t (monotonic s), arm, id, register, address, value (decoded), accepted.
    """

    def __init__(self, file: Path) -> None:
        self._file = file.open("w")
        self._lines: list[str] = []
        self._since_s = 0.0

    def of(self, arm: str) -> Log:
        """What the servos of an arm call."""

        def log(servo: Servo, name: str, address: int, value: int, accepted: bool) -> None:
            now_s = time.monotonic()
            if not self._lines:
                self._since_s = now_s
            self._lines.append(
                f'{{"t": {now_s:.6f}, "arm": "{arm}", "id": {servo.id}, "register": "{name}", "address": {address}, '
                f'"value": {value}, "accepted": {"true" if accepted else "false"}}}\n'
            )

        return log

    def flush(self, now_s: float) -> None:
        """Write what has waited long enough; inf writes all."""
        if self._lines and now_s - self._since_s >= FLUSH_S - 0.005:
            self._file.writelines(self._lines)
            self._file.flush()
            self._lines.clear()

    def close(self) -> None:
        self.flush(float("inf"))
        self._file.close()
