"""The packets of an emulated Feetech bus. Source: Feetech's communication protocol manual."""

from __future__ import annotations

from collections.abc import Iterator

from tactus.hal.twin.bus import EmulatedBus
from tactus.hal.twin.feetech_servo import FeetechServo


class EmulatedFeetechBus(EmulatedBus[FeetechServo]):
    """Feetech's protocol. What a real STS does when its predecessor in a sync read is silent is not documented: here
    it waits 1 ms and answers."""

    address_bytes = 1
    level_register, read_level = "Response_Status_Level", 0
    flags_before = True  # a write that mends something still reports it
    processing_s, startup_s, skip_s = 10e-6, 0.15, 1e-3

    def packets(self) -> Iterator[tuple[int, int, bytes]]:
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
            yield packet[2], packet[4], packet[5:-1]
        del buffer[: -1 if buffer[-1:] == b"\xff" else len(buffer)]

    @staticmethod
    def status(motor_id: int, error: int, data: bytes = b"") -> bytes:
        """FF FF id length error data checksum."""
        body = bytes((motor_id, len(data) + 2, error)) + data
        return b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))

    def reset(self, servo: FeetechServo, data: bytes) -> int:
        servo.reset(ID=servo.id)
        return 0
