"""The packets of an emulated Dynamixel bus, Protocol 2.0. Source: emanual.robotis.com/docs/en/dxl/protocol2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tactus.hal.twin.bus import BROADCAST, Answer, EmulatedBus
from tactus.hal.twin.dynamixel_servo import DynamixelServo

PING, READ, WRITE, REG_WRITE, ACTION, FACTORY_RESET, REBOOT, CLEAR, STATUS = 1, 2, 3, 4, 5, 6, 8, 0x10, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ, BULK_READ, BULK_WRITE, FAST_BULK_READ = 0x82, 0x83, 0x8A, 0x92, 0x93, 0x9A
INSTRUCTION_ERROR, CRC_ERROR, LENGTH_ERROR = 2, 3, 5
HEADER = b"\xff\xff\xfd\x00"
STARTUP_S = 0.3


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
        table.append(crc & 0xFFFF)
    return table


_CRC = _crc_table()


def crc16(data: bytes, crc: int = 0) -> int:
    """CRC-16 with polynomial 0x8005, most significant bit first, as Protocol 2.0 has it."""
    for byte in data:
        crc = (crc << 8) & 0xFFFF ^ _CRC[(crc >> 8) ^ byte]
    return crc


def stuff(data: bytes) -> bytes:
    """Insert FD after every FF FF FD, so that no header occurs inside a packet."""
    return data.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def unstuff(data: bytes) -> bytes:
    return data.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")


def frame(motor_id: int, instruction: int, data: bytes) -> bytes:
    """A whole packet: header, id, length, instruction, stuffed data, CRC."""
    body = stuff(bytes((instruction,)) + data)
    head = HEADER + bytes((motor_id,)) + (len(body) + 2).to_bytes(2, "little")
    return head + body + crc16(head + body).to_bytes(2, "little")


def status(motor_id: int, error: int, data: bytes = b"") -> bytes:
    return frame(motor_id, STATUS, bytes((error,)) + data)


class DynamixelBus(EmulatedBus[DynamixelServo]):
    """Servos answer a sync or bulk read in the order asked; behind one that is silent, all are silent."""

    def packets(self) -> Iterator[bytes]:
        buffer = self.buffer
        while (start := buffer.find(HEADER)) >= 0:
            del buffer[:start]
            if len(buffer) < 10:
                return
            length = buffer[5] | buffer[6] << 8
            if not 3 <= length <= 1024:
                del buffer[:4]
                continue
            if len(buffer) < length + 7:
                return
            packet = bytes(buffer[: length + 7])
            good = crc16(packet[:-2]) == packet[-2] | packet[-1] << 8
            del buffer[: len(packet) if good else 4]
            if good and packet[7] != STATUS:
                yield packet[4:5] + unstuff(packet[7:-2])
            elif not good:
                yield packet[4:5] + b"\0"  # known to be for this id, and broken
        keep = next((n for n in (3, 2, 1) if buffer.endswith(HEADER[:n])), 0)
        del buffer[: len(buffer) - keep]

    def execute(self, packet: bytes) -> list[Answer]:
        motor_id, instruction, data = packet[0], packet[1], packet[2:]
        if instruction:
            for servo in self.hearing:
                servo.feed()
        if motor_id == BROADCAST and instruction in (SYNC_READ, FAST_SYNC_READ) and len(data) >= 4:
            wanted = [(one, *_words(data[:4])) for one in data[4:]]
            return self._fast(wanted) if instruction == FAST_SYNC_READ else self._each(wanted)
        if motor_id == BROADCAST and instruction in (BULK_READ, FAST_BULK_READ):
            wanted = [(data[i], *_words(data[i + 1 : i + 5])) for i in range(0, len(data) - 4, 5)]
            return self._fast(wanted) if instruction == FAST_BULK_READ else self._each(wanted)
        if motor_id == BROADCAST and instruction == SYNC_WRITE and len(data) >= 4:
            address, length = _words(data[:4])
            for i in range(4, len(data) - length, length + 1) if length else ():
                for servo in self.at(data[i]):
                    servo.write(address, data[i + 1 : i + 1 + length])
            return []
        if motor_id == BROADCAST and instruction == BULK_WRITE:
            self._bulk_write(data)
            return []
        return self._single(motor_id, instruction, data)

    def _single(self, motor_id: int, instruction: int, data: bytes) -> list[Answer]:
        answers: dict[int, list[bytes]] = {}
        for servo in sorted(self.hearing if motor_id == BROADCAST else self.at(motor_id), key=lambda s: s.id):
            own_id, level = servo.id, servo.values["Status_Return_Level"]
            told = b""
            if instruction == 0:
                error = CRC_ERROR
            elif instruction == PING:
                error, told = 0, bytes(servo.memory[0:2]) + bytes(servo.memory[6:7])
            elif instruction == READ and len(data) == 4:
                error, told = servo.fetch(*_words(data))
            else:
                error = self._obey(servo, instruction, data)
            wanted = instruction == PING or (motor_id != BROADCAST and level >= (1 if instruction == READ else 2))
            if wanted and not (instruction == 0 and motor_id == BROADCAST):
                answers.setdefault(own_id, []).append(status(own_id, error | servo.alert, told))
        return self.chain(answers.items())

    def _obey(self, servo: DynamixelServo, instruction: int, data: bytes) -> int:
        if instruction == WRITE and len(data) >= 3:
            return servo.write(_words(data)[0], data[2:])
        if instruction == REG_WRITE and len(data) >= 3:
            self.registered[servo] = (_words(data)[0], data[2:])
            servo.put("Registered_Instruction", 1)
            return 0
        if instruction == ACTION:
            servo.put("Registered_Instruction", 0)
            return servo.write(*self.registered.pop(servo)) if servo in self.registered else 0
        if instruction == REBOOT:
            servo.reboot(STARTUP_S)
            return 0
        if instruction == CLEAR:
            return servo.clear_turns()
        if instruction == FACTORY_RESET and data[:1] in (b"\xff", b"\x01", b"\x02"):
            spared = {b"\xff": (), b"\x01": ("ID",), b"\x02": ("ID", "Baud_Rate")}[data[:1]]
            servo.reset(**{name: servo.values[name] for name in spared})
            servo.reboot(STARTUP_S)
            return 0
        return LENGTH_ERROR if instruction in (WRITE, REG_WRITE, READ) else INSTRUCTION_ERROR

    def _bulk_write(self, data: bytes) -> None:
        while len(data) >= 5:
            address, length = _words(data[1:5])
            for servo in self.at(data[0]):
                servo.write(address, data[5 : 5 + length])
            data = data[5 + length :]

    def _each(self, wanted: Iterable[tuple[int, int, int]]) -> list[Answer]:
        def answers() -> Iterator[tuple[int, list[bytes]]]:
            for one, address, length in wanted:
                sent = []
                for servo in self.at(one):
                    error, told = servo.fetch(address, length)
                    sent.append(status(one, error | servo.alert, told))
                yield one, sent

        return self.chain(answers())

    def _fast(self, wanted: list[tuple[int, int, int]]) -> list[Answer]:
        """One packet to which each servo adds its part; it ends where a servo is silent or has no such register."""
        length = 1 + sum(4 + size for _, _, size in wanted)
        sent = HEADER + bytes((BROADCAST,)) + length.to_bytes(2, "little") + bytes((STATUS,))
        parts: list[Answer] = []
        done = 0
        for one, address, size in wanted:
            found = self.at(one)
            if not found:
                break
            error, told = found[0].fetch(address, size)
            sent += bytes((error | found[0].alert, one)) + told
            sent += crc16(sent).to_bytes(2, "little")
            parts.append((self.reply_delay_s(found[0]) if not done else 0.0, one, sent[done:]))
            done = len(sent)
        return parts

    def reply_delay_s(self, servo: DynamixelServo) -> float:
        return 2e-6 * servo.values["Return_Delay_Time"] + 15e-6


def _words(data: bytes) -> tuple[int, int]:
    return data[0] | data[1] << 8, (data[2] | data[3] << 8) if len(data) >= 4 else 0
