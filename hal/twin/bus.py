"""An emulated servo bus, for either protocol: which servos hear a packet, what it has them do, when they answer."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

from tactus.hal.twin.faults import Faults
from tactus.hal.twin.servo import Servo

BROADCAST = 0xFE
PING, READ, WRITE, REG_WRITE, ACTION, RESET, REBOOT, SYNC_READ, SYNC_WRITE = 1, 2, 3, 4, 5, 6, 8, 0x82, 0x83
"""Instructions, by the numbers that both protocols give them."""
INCOMPLETE_S = 0.02
"""A packet that has stopped in its middle for so long is forgotten."""
BAUD_TOLERANCE = 0.03

Answer = tuple[float, int, bytes]
"""Pause before its first byte, s, counted from the end of the answer before it; who answers; the bytes."""


class EmulatedBus[S: Servo](ABC):
    """Servos on one line: bytes in, answers out. Pure: time is an argument, the line's speed too.

    sense: called before a request is carried out, so that what is read is what is.
    """

    address_bytes: int
    """Of a register's address in a packet, and of a length."""
    level_register: str
    """Says which instructions a servo answers: reads from `read_level` on, others from one more on."""
    read_level: int
    flags_before: bool
    """Whether an answer carries the servo's error flags from before the instruction, not after it."""
    processing_s: float
    """From the request to the answer, besides Return_Delay_Time."""
    startup_s: float
    """How long a servo that was told to restart is silent."""
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
    def packets(self) -> Iterator[tuple[int, int, bytes]]:
        """Take whole, valid packets from the front of `buffer`, as id, instruction and data; drop what can never become
        one."""

    @staticmethod
    @abstractmethod
    def status(motor_id: int, error: int, data: bytes = b"") -> bytes:
        """A status packet."""

    @abstractmethod
    def reset(self, servo: S, data: bytes) -> int | None:
        """The instruction RESET, as `obey`."""

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
            for pause_s, motor_id, answer in self.execute(*packet):
                start_s = end_s + pause_s
                end_s = start_s + 10 * len(answer) / baudrate
                out += [(start_s + late_s, sent) for late_s, sent in self._through(motor_id, answer, now_s)]
        return out

    def _through(self, motor_id: int, answer: bytes, now_s: float) -> list[tuple[float, bytes]]:
        return self.faults.transform(self.arm, motor_id, answer, now_s) if self.faults.any else [(0.0, answer)]

    def at(self, motor_id: int) -> list[S]:
        """Those that hear and have this id: none, one, or several by mistake."""
        return [servo for servo in self.hearing if servo.id == motor_id]

    def execute(self, motor_id: int, instruction: int, data: bytes) -> list[Answer]:
        """Carry out one instruction."""
        broadcast = motor_id == BROADCAST
        if broadcast and instruction in (SYNC_READ, SYNC_WRITE) and len(data) >= 2 * self.address_bytes:
            address, length, rest = self.span(data)
            if instruction == SYNC_READ:
                return self.read_each((one, address, length) for one in rest)
            for at in range(0, len(rest) - length, length + 1) if length else ():
                self.write_to(rest[at], address, rest[at + 1 : at + 1 + length])
            return []
        answers: dict[int, list[bytes]] = {}
        for servo in sorted(self.hearing if broadcast else self.at(motor_id), key=lambda servo: servo.id):
            own_id, level, flags = servo.id, servo.values[self.level_register], servo.error
            told = b""
            if instruction == PING:
                error, told = 0, self.introduce(servo)
            elif instruction == READ and len(data) == 2 * self.address_bytes:
                error, told = servo.read(*self.span(data)[:2])
            else:
                error = self.obey(servo, instruction, data)
            wanted = not broadcast and level >= self.read_level + (instruction != READ)
            if error is not None and (wanted or instruction == PING):
                flags = flags if self.flags_before else servo.error
                answers.setdefault(own_id, []).append(self.status(own_id, error | flags, told))
        return self.chain(answers.items())

    def introduce(self, servo: S) -> bytes:
        """What a servo says in answer to a ping."""
        return b""

    def obey(self, servo: S, instruction: int, data: bytes) -> int | None:
        """Carry out an instruction to one servo; returns the error of its answer, None if it is to give none."""
        if instruction in (WRITE, REG_WRITE) and len(data) > self.address_bytes:
            address, values = int.from_bytes(data[: self.address_bytes], "little"), data[self.address_bytes :]
            if instruction == WRITE:
                return servo.write(address, values)
            self.registered[servo] = address, values
            return 0
        if instruction == ACTION:
            return servo.write(*self.registered.pop(servo)) if servo in self.registered else 0
        if instruction == RESET:
            return self.reset(servo, data)
        if instruction == REBOOT:
            servo.reboot(self.startup_s)
            return 0
        return None

    def span(self, data: bytes) -> tuple[int, int, bytes]:
        """The address and the length that `data` begins with, and the rest of it."""
        size = self.address_bytes
        return int.from_bytes(data[:size], "little"), int.from_bytes(data[size : 2 * size], "little"), data[2 * size :]

    def write_to(self, motor_id: int, address: int, data: bytes) -> None:
        """A write that nobody confirms."""
        for servo in self.at(motor_id):
            servo.write(address, data)

    def read_each(self, wanted: Iterable[tuple[int, int, int]]) -> list[Answer]:
        """Each motor's status packet for a read. wanted: id, address, length."""

        def answers() -> Iterator[tuple[int, list[bytes]]]:
            for one, address, length in wanted:
                sent = []
                for servo in self.at(one):
                    error, told = servo.read(address, length)
                    sent.append(self.status(one, error | servo.error, told))
                yield one, sent

        return self.chain(answers())

    def reply_delay_s(self, servo: S) -> float:
        """Return_Delay_Time, and what its processor takes."""
        return 2e-6 * servo.values["Return_Delay_Time"] + self.processing_s

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
