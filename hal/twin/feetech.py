"""The packets of an emulated Feetech bus. Source: Feetech's communication protocol manual."""

from __future__ import annotations

from collections.abc import Iterator

from tactus.hal.twin.bus import BROADCAST, Answer, EmulatedBus
from tactus.hal.twin.feetech_servo import FeetechServo

PING, READ, WRITE, REG_WRITE, ACTION, RESET, REBOOT, SYNC_READ, SYNC_WRITE = 1, 2, 3, 4, 5, 6, 8, 0x82, 0x83
STARTUP_S = 0.15


def status(motor_id: int, error: int, data: bytes = b"") -> bytes:
    """A status packet: FF FF id length error data checksum."""
    body = bytes((motor_id, len(data) + 2, error)) + data
    return b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))


class FeetechBus(EmulatedBus[FeetechServo]):
    """The bus's packets. What a real STS does when its predecessor in a sync read is silent is not documented:
    here it waits 1 ms and answers."""

    skip_s = 1e-3

    def packets(self) -> Iterator[bytes]:
        buffer = self.buffer
        while (start := buffer.find(b"\xff\xff")) >= 0:
            del buffer[:start]
            if len(buffer) >= 3 and buffer[2] == 0xFF:
                del buffer[:1]
                continue
            if len(buffer) < 6 or len(buffer) < buffer[3] + 4:
                if len(buffer) >= 4 and buffer[3] < 2:
                    del buffer[:2]
                    continue
                return
            packet = bytes(buffer[: buffer[3] + 4])
            if ~sum(packet[2:-1]) & 0xFF != packet[-1] or len(packet) < 6:
                del buffer[:2]  # servos keep silent about what they cannot check
                continue
            del buffer[: len(packet)]
            yield packet[2:-1]
        del buffer[: -1 if buffer[-1:] == b"\xff" else len(buffer)]

    def execute(self, packet: bytes) -> list[Answer]:
        motor_id, instruction, data = packet[0], packet[2], packet[3:]
        if instruction == SYNC_READ and motor_id == BROADCAST and len(data) >= 2:
            address, length, ids = data[0], data[1], data[2:]
            return self.chain(
                (one, [status(s.id, s.error, s.read(address, length)) for s in self.at(one)]) for one in ids
            )
        if instruction == SYNC_WRITE and motor_id == BROADCAST and len(data) >= 2 and data[1]:
            address, length = data[0], data[1]
            for one in range(2, len(data) - length, length + 1):
                for servo in self.at(data[one]):
                    servo.write(address, data[one + 1 : one + 1 + length])
            return []
        addressed = self.hearing if motor_id == BROADCAST else self.at(motor_id)
        answers: dict[int, list[bytes]] = {}
        for servo in sorted(addressed, key=lambda servo: servo.id):
            old_id, level = servo.id, servo.values["Response_Status_Level"]
            error = servo.error  # as it was: a write that mends something still reports it
            if instruction == PING:
                answers.setdefault(old_id, []).append(status(old_id, error))
            elif instruction == READ and len(data) == 2 and motor_id != BROADCAST:
                answers.setdefault(old_id, []).append(status(old_id, error, servo.read(data[0], data[1])))
            elif self._obey(servo, instruction, data) and level and motor_id != BROADCAST:
                answers.setdefault(old_id, []).append(status(old_id, error))
        return self.chain(answers.items())

    def _obey(self, servo: FeetechServo, instruction: int, data: bytes) -> bool:
        if instruction == WRITE and len(data) >= 2:
            servo.write(data[0], data[1:])
        elif instruction == REG_WRITE and len(data) >= 2:
            self.registered[servo] = (data[0], data[1:])
        elif instruction == ACTION:
            if servo in self.registered:
                servo.write(*self.registered.pop(servo))
        elif instruction == RESET:
            servo.reset(ID=servo.id)
        elif instruction == REBOOT:
            servo.reboot(STARTUP_S)
        else:
            return False
        return True

    def reply_delay_s(self, servo: FeetechServo) -> float:
        return 2e-6 * servo.values["Return_Delay_Time"] + 10e-6
