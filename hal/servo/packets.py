"""Parses servos' status packets out of a stream of bytes, with noise before, between and inside packets. Pure.

Feetech (STS):        FF FF ID LEN ERR params… SUM        SUM = ~(ID + LEN + ERR + params) & FF, LEN = params + 2
Dynamixel (2.0):      FF FF FD 00 ID LEN LEN 55 ERR params… CRC CRC        LEN = params + 4, FD stuffed after FF FF FD
Dynamixel, fast read: FF FF FD 00 FE LEN LEN 55 | ERR ID params… CRC CRC | ERR ID params… CRC CRC | …   not stuffed;
                      each CRC covers everything from the first FF on
Sources: Feetech's STS communication protocol manual; emanual.robotis.com/docs/en/dxl/protocol2.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

BROADCAST = 0xFE


@dataclass(frozen=True)
class Status:
    """One intact status packet. error: the servo's flags, as sent."""

    id: int
    error: int
    params: bytes


class Parser(ABC):
    """Bytes in, intact packets out.

    longest: of params; a header that claims more is noise, so that a corrupt length cannot swallow what follows.
    damaged: ids in headers of packets that did not add up. noise: bytes that belong to no intact packet.
    """

    header: bytes

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.damaged: list[int] = []
        self.noise = 0
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Status]:
        """The packets that `data` completes."""
        self._buffer += data
        return self._parse(final=False)

    def finish(self) -> list[Status]:
        """Nothing follows: what is left is a truncated packet, or hides behind a header that was none."""
        found = self._parse(final=True)
        self.noise += len(self._buffer)
        self._buffer.clear()
        return found

    def _parse(self, final: bool) -> list[Status]:
        buffer, found = self._buffer, []
        while True:
            start = buffer.find(self.header)
            if start < 0:
                # the end of the buffer may be the beginning of a header
                keep = next((n for n in range(len(self.header) - 1, 0, -1) if buffer.endswith(self.header[:n])), 0)
                self._drop(len(buffer) - keep)
                return found
            self._drop(start)
            total = self._length()
            incomplete = total is None or total > len(buffer)
            if incomplete and not final:
                return found
            packets = [] if total == 0 else self._packets(bytes(buffer[:total]))
            if packets:
                found += packets
                del buffer[:total]
                continue
            if total != 0 and len(buffer) > self.id_at:
                self.damaged.append(buffer[self.id_at])
            self._drop(1)

    def _drop(self, count: int) -> None:
        self.noise += count
        del self._buffer[:count]

    id_at: int

    @abstractmethod
    def _length(self) -> int | None:
        """Of the packet at the start of the buffer, bytes; 0 if it cannot be one, None if too little is there."""

    @abstractmethod
    def _packets(self, data: bytes) -> list[Status]:
        """What `data` says, one packet or, when nothing more will come, the beginning of one; [] if it does not add
        up."""


class FeetechParser(Parser):
    """Of the STS protocol."""

    header = b"\xff\xff"
    id_at = 2

    def _length(self) -> int | None:
        if len(self._buffer) < 4:
            return None if len(self._buffer) < 3 or self._buffer[2] < BROADCAST else 0
        motor, length = self._buffer[2], self._buffer[3]
        return length + 4 if motor < BROADCAST and 2 <= length <= self.longest + 2 else 0

    def _packets(self, data: bytes) -> list[Status]:
        if len(data) < 6 or len(data) != data[3] + 4 or sum(data[2:-1]) & 0xFF != ~data[-1] & 0xFF:
            return []
        return [Status(data[2], data[4], data[5:-1])]


class DynamixelParser(Parser):
    """Of Protocol 2.0. fast: of a fast sync read, data bytes per motor and the motors in the order of the request."""

    header = b"\xff\xff\xfd\x00"
    id_at = 4

    def __init__(self, longest: int, fast: tuple[int, Iterable[int]] | None = None) -> None:
        super().__init__(longest)
        self.fast = None if fast is None else (fast[0], tuple(fast[1]))

    def _length(self) -> int | None:
        if len(self._buffer) < 8:
            return None
        motor, length = self._buffer[4], int.from_bytes(self._buffer[5:7], "little")
        if self._buffer[7] != 0x55:
            return 0
        if self.fast is not None:  # a motor's own packet is then a late answer to something else
            size, motors = self.fast
            return 7 + length if motor == BROADCAST and length == 1 + (size + 4) * len(motors) else 0
        # with its error byte, every third byte may bring a stuffed one
        fits = 4 <= length <= self.longest + 4 + (self.longest + 1) // 3
        return 7 + length if motor < BROADCAST and fits else 0

    def _packets(self, data: bytes) -> list[Status]:
        whole = len(data) >= 11 and len(data) == 7 + int.from_bytes(data[5:7], "little")
        whole = whole and crc16(data[:-2]) == int.from_bytes(data[-2:], "little")
        if self.fast is not None and len(data) > 8:
            return self._fast_packets(data, *self.fast, whole)
        return [Status(data[4], data[8], unstuffed(data[8:-2])[1:])] if whole else []

    def _fast_packets(self, data: bytes, size: int, motors: tuple[int, ...], whole: bool) -> list[Status]:
        """Each motor's part; of a reply that is not whole, those before the first that does not add up."""
        found: list[Status] = []
        crc, at = crc16(data[:8]), 8
        for motor in motors:
            end = at + 2 + size
            if not whole:
                crc = crc16(data[at:end], crc)
                if len(data) < end + 2 or crc != int.from_bytes(data[end : end + 2], "little"):
                    break
                crc = crc16(data[end : end + 2], crc)
            if data[at + 1] == motor:
                found.append(Status(motor, data[at], data[at + 2 : end]))
            at = end + 2
        if found and not whole and at < len(data):  # a part that ends early; not just one that never began
            self.damaged.append(BROADCAST)
        return found


def unstuffed(data: bytes) -> bytes:
    """`data` (from the error byte on) without the FD that a servo sends after each FF FF FD."""
    return data.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
        table.append(crc)
    return table


_CRC = _crc_table()


def crc16(data: bytes, crc: int = 0) -> int:
    """CRC-16 with polynomial 0x8005, as Dynamixel's Protocol 2.0 has it; `crc` continues an earlier piece."""
    for byte in data:
        crc = (crc << 8 & 0xFF00) ^ _CRC[crc >> 8 ^ byte]
    return crc
