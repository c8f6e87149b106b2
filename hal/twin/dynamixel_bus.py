"""The packets of an emulated Dynamixel bus, Protocol 2.0. Source: emanual.robotis.com/docs/en/dxl/protocol2."""

from __future__ import annotations

from collections.abc import Iterator

from tactus.hal.servo.packets import crc16, unstuffed
from tactus.hal.twin.bus import ACTION, BROADCAST, READ, REG_WRITE, WRITE, Answer, EmulatedBus
from tactus.hal.twin.dynamixel_servo import DynamixelServo

CLEAR, STATUS = 0x10, 0x55
FAST_SYNC_READ, BULK_READ, BULK_WRITE, FAST_BULK_READ = 0x8A, 0x92, 0x93, 0x9A
BROKEN = 0
"""In place of the instruction of a packet that is known to be for an id, and broken."""
INSTRUCTION_ERROR, CRC_ERROR, LENGTH_ERROR = 2, 3, 5
HEADER = b"\xff\xff\xfd\x00"
SPARED = {b"\xff": (), b"\x01": ("ID",), b"\x02": ("ID", "Baud_Rate")}
"""What a factory reset leaves as it is, by its parameter."""


def stuffed(data: bytes) -> bytes:
    """Insert FD after every FF FF FD, so that no header occurs inside a packet."""
    return data.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def frame(motor_id: int, instruction: int, data: bytes) -> bytes:
    """A whole packet: header, id, length, instruction, stuffed data, CRC."""
    body = stuffed(bytes((instruction,)) + data)
    head = HEADER + bytes((motor_id,)) + (len(body) + 2).to_bytes(2, "little")
    return head + body + crc16(head + body).to_bytes(2, "little")


class EmulatedDynamixelBus(EmulatedBus[DynamixelServo]):
    """Protocol 2.0. Servos answer a sync or bulk read in the order asked; behind one that is silent, all are silent."""

    address_bytes = 2
    level_register, read_level = "Status_Return_Level", 1
    flags_before = False
    processing_s, startup_s = 15e-6, 0.3

    def packets(self) -> Iterator[tuple[int, int, bytes]]:
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
                content = unstuffed(packet[7:-2])
                yield packet[4], content[0], content[1:]
            elif not good:
                yield packet[4], BROKEN, b""
        keep = next((n for n in (3, 2, 1) if buffer.endswith(HEADER[:n])), 0)
        del buffer[: len(buffer) - keep]

    @staticmethod
    def status(motor_id: int, error: int, data: bytes = b"") -> bytes:
        return frame(motor_id, STATUS, bytes((error,)) + data)

    def execute(self, motor_id: int, instruction: int, data: bytes) -> list[Answer]:
        if instruction != BROKEN:
            for servo in self.hearing:
                servo.feed()
        if motor_id == BROADCAST and instruction == FAST_SYNC_READ and len(data) >= 4:
            address, length, ids = self.span(data)
            return self._read_fast([(one, address, length) for one in ids])
        if motor_id == BROADCAST and instruction in (BULK_READ, FAST_BULK_READ):
            wanted = [(data[i], *self.span(data[i + 1 : i + 5])[:2]) for i in range(0, len(data) - 4, 5)]
            return self._read_fast(wanted) if instruction == FAST_BULK_READ else self.read_each(wanted)
        if motor_id == BROADCAST and instruction == BULK_WRITE:
            while len(data) >= 5:
                address, length, _ = self.span(data[1:5])
                self.write_to(data[0], address, data[5 : 5 + length])
                data = data[5 + length :]
            return []
        return super().execute(motor_id, instruction, data)

    def introduce(self, servo: DynamixelServo) -> bytes:
        return bytes(servo.memory[0:2]) + bytes(servo.memory[6:7])

    def obey(self, servo: DynamixelServo, instruction: int, data: bytes) -> int:
        if instruction == BROKEN:
            return CRC_ERROR
        if instruction == CLEAR:
            return servo.clear_turns()
        error = super().obey(servo, instruction, data)
        if error is None:
            return LENGTH_ERROR if instruction in (WRITE, REG_WRITE, READ) else INSTRUCTION_ERROR
        if instruction in (REG_WRITE, ACTION):
            servo.put("Registered_Instruction", int(instruction == REG_WRITE))
        return error

    def reset(self, servo: DynamixelServo, data: bytes) -> int | None:
        if data[:1] not in SPARED:
            return None
        servo.reset(**{name: servo.values[name] for name in SPARED[data[:1]]})
        servo.reboot(self.startup_s)
        return 0

    def _read_fast(self, wanted: list[tuple[int, int, int]]) -> list[Answer]:
        """One packet to which each servo adds its part; it ends where a servo is silent or has no such register."""
        length = 1 + sum(4 + size for _, _, size in wanted)
        sent = HEADER + bytes((BROADCAST,)) + length.to_bytes(2, "little") + bytes((STATUS,))
        parts: list[Answer] = []
        done = 0
        for one, address, size in wanted:
            found = self.at(one)
            if not found:
                break
            error, told = found[0].read(address, size)
            sent += bytes((error | found[0].error, one)) + told
            sent += crc16(sent).to_bytes(2, "little")
            parts.append((self.reply_delay_s(found[0]) if not done else 0.0, one, sent[done:]))
            done = len(sent)
        return parts
