"""Faults that can be injected into the twin: what goes wrong, on which arm and motor, how often and for how long."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from tactus.hal.robot import RobotError

ANSWERS = {
    "lost": "an answer never comes",
    "late": "an answer comes delay_ms (20) late",
    "stuck": "one answer comes 80 ms late, after the host gave up: from then on it is a stale packet",
    "corrupt": "one to three bits of an answer are flipped",
    "truncated": "an answer ends in its middle",
    "noise": "stray bytes before or after an answer",
}
CONDITIONS = {
    "dead": "a motor neither hears nor answers",
    "overload": "a motor reports overload, and protects itself as it is told to",
    "over_temperature": "a motor is 5 °C above its limit",
    "under_voltage": "a motor sees 0.5 V less than its lower limit",
    "wrong_model": "a motor says it is another model (value: its number)",
    "duplicate_id": "a second motor with the same id answers at the same time",
}
EVENTS = {
    "brown_out": "every motor of the arm restarts: torque off, volatile registers lost, silent for duration_s (0.3)",
    "unplug": "the USB adapter goes; with duration_s, it comes back after that",
    "replug": "the USB adapter comes back under the same name",
}
KINDS = {**ANSWERS, **CONDITIONS, **EVENTS}


@dataclass
class Fault:
    """One fault in force. motor: its id, None for every one. until_s: the caller's clock, inf for ever."""

    kind: str
    arm: str
    motor: int | None = None
    probability: float = 1.0
    until_s: float = float("inf")
    count: int | None = None
    delay_ms: float = 20.0
    value: int = 0
    number: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(0))

    def strikes(self, motor_id: int) -> bool:
        """Whether it strikes this answer; uses up one of `count`."""
        if self.motor not in (None, motor_id) or self.count == 0 or self.random.random() >= self.probability:
            return False
        if self.count is not None:
            self.count -= 1
        return True


class Faults:
    """The faults in force. any: whether there are faults of answers at all, so that none cost nothing."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.any = False
        self._numbers = 0

    def add(self, fault: Fault) -> int:
        """Returns the number by which it can be cleared. Raises RobotError for a kind that is none."""
        if fault.kind not in KINDS:
            raise RobotError(f"fault kind: found {fault.kind!r}; accepted: {', '.join(KINDS)}")
        if fault.kind == "stuck":
            fault.delay_ms, fault.count = 80.0, 1 if fault.count is None else fault.count
        self._numbers += 1
        fault.number = self._numbers
        self.active.append(fault)
        self._count()
        return fault.number

    def remove(self, faults: Iterable[Fault]) -> None:
        gone = {id(fault) for fault in faults}
        self.active = [fault for fault in self.active if id(fault) not in gone]
        self._count()

    def expired(self, now_s: float) -> list[Fault]:
        """Those whose time is over, or that are used up."""
        return [fault for fault in self.active if fault.until_s <= now_s or fault.count == 0]

    def transform(self, arm: str, motor_id: int, answer: bytes, now_s: float) -> list[tuple[float, bytes]]:
        """What becomes of an answer: pieces, each with how late it is, s."""
        late_s = 0.0
        for fault in self.active:
            if fault.kind not in ANSWERS or fault.arm != arm or fault.until_s <= now_s or not fault.strikes(motor_id):
                continue
            if fault.kind == "lost":
                return []
            if fault.kind in ("late", "stuck"):
                late_s += fault.delay_ms / 1e3
            else:
                answer = _DAMAGE[fault.kind](answer, fault.random)
        return [(late_s, answer)]

    def _count(self) -> None:
        self.any = any(fault.kind in ANSWERS for fault in self.active)


def _corrupt(answer: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(answer)
    for bit in chance.sample(range(8 * len(answer)), chance.randint(1, 3)):
        damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def _truncate(answer: bytes, chance: random.Random) -> bytes:
    return answer[: chance.randrange(1, len(answer))]


def _add_noise(answer: bytes, chance: random.Random) -> bytes:
    stray = chance.randbytes(chance.randint(1, 6))
    return stray + answer if chance.random() < 0.5 else answer + stray


_DAMAGE = {"corrupt": _corrupt, "truncated": _truncate, "noise": _add_noise}
