"""What both emulated protocols share: who hears, who answers when, and what faults do to the answers."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from tactus.hal.twin.faults import Faults
from tactus.hal.twin.servo import Servo

BROADCAST = 0xFE
INCOMPLETE_S = 0.02
"""A packet that has stopped in its middle for so long is forgotten."""
BAUD_TOLERANCE = 0.03

Answer = tuple[float, int, bytes]
"""Pause before its first byte, s, counted from the end of the answer before it; who answers; the bytes."""


class EmulatedBus[S: Servo](ABC):
    """Servos on one line: bytes in, answers out. Pure: time is an argument, the line's speed too.

    sense: called before a request is carried out, so that what is read is what is.
    """

    skip_s: float | None = None
    """How long a servo waits for a silent predecessor in a sync read; None: for ever."""

    def __init__(self, arm: str, servos: list[S], faults: Faults | None = None) -> None:
        self.arm = arm
        self.servos = servos
        self.faults = faults or Faults()
        self.sense: Callable[[float], None] = lambda now_s: None
        self.buffer = bytearray()
        self.hearing: list[S] = []
        self.registered: dict[S, tuple[int, bytes]] = {}
        self._random = random.Random(0)
        self._heard_s = 0.0

    @abstractmethod
    def packets(self) -> Iterator[bytes]:
        """Take whole, valid instruction packets from the front of `buffer`; drop what can never become one."""

    @abstractmethod
    def execute(self, packet: bytes) -> list[Answer]:
        """Carry out one instruction."""

    @abstractmethod
    def reply_delay_s(self, servo: S) -> float:
        """Return_Delay_Time, and what its processor takes."""

    def receive(self, data: bytes, now_s: float, baudrate: int = 1_000_000) -> list[tuple[float, bytes]]:
        """What the line carries in answer: (s from the end of the request to the first byte, the bytes)."""
        if now_s - self._heard_s > INCOMPLETE_S:
            self.buffer.clear()
        self._heard_s = now_s
        for servo in self.servos:
            servo.now_s = max(servo.now_s, now_s)
        self.hearing = [
            servo
            for servo in self.servos
            if not servo.mute and abs(servo.baudrate - baudrate) <= BAUD_TOLERANCE * baudrate
        ]
        if not self.hearing:
            self.buffer.clear()
            return []
        self.buffer += data
        out: list[tuple[float, bytes]] = []
        for packet in self.packets():
            self.sense(now_s)
            end_s = 0.0
            for pause_s, motor_id, answer in self.execute(packet):
                start_s = end_s + pause_s
                end_s = start_s + 10 * len(answer) / baudrate
                out += [(start_s + late_s, sent) for late_s, sent in self._through(motor_id, answer, now_s)]
        return out

    def _through(self, motor_id: int, answer: bytes, now_s: float) -> list[tuple[float, bytes]]:
        return self.faults.transform(self.arm, motor_id, answer, now_s) if self.faults.any else [(0.0, answer)]

    def at(self, motor_id: int) -> list[S]:
        """Those that hear and have this id: none, one, or several by mistake."""
        return [servo for servo in self.hearing if servo.id == motor_id]

    def chain(self, answers: Iterable[tuple[int, list[bytes]]]) -> list[Answer]:
        """Answers one after the other; several at once on one id collide; after a silent one, see `skip_s`."""
        out: list[Answer] = []
        waited_s = 0.0
        for motor_id, sent in answers:
            if not sent:
                if self.skip_s is None:
                    break
                waited_s += self.skip_s
                continue
            answering = self.at(motor_id)
            delay_s = self.reply_delay_s(answering[0]) if answering else 10e-6
            out.append((waited_s + delay_s, motor_id, sent[0] if len(sent) == 1 else self.collide(sent)))
            waited_s = 0.0
        return out

    def collide(self, sent: list[bytes]) -> bytes:
        """Two drivers on one wire: a 0 wins. Equal packets in step pass unharmed, as they may on a real one."""
        if len({*sent}) == 1:
            return sent[0]
        late = self._random.randrange(2)
        first, second = sent[0], b"\xff" * late + sent[1]
        length = max(len(first), len(second))
        return bytes(a & b for a, b in zip(first.ljust(length, b"\xff"), second.ljust(length, b"\xff"), strict=True))
