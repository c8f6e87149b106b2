"""Status packets out of whatever a line carries: intact ones are found, damaged ones never pass."""

from __future__ import annotations

import dynamixel_sdk
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tactus.hal.servo.packets import BROADCAST, DynamixelParser, FeetechParser, Parser, Status, crc16

# as much of FF and FD as a header is made of
byte = st.one_of(st.integers(0, 255), st.sampled_from([0xFF, 0xFD, 0x00, 0x55]))


def feetech(status: Status) -> bytes:
    body = bytes([status.id, len(status.params) + 2, status.error]) + status.params
    return b"\xff\xff" + body + bytes([~sum(body) & 0xFF])


def dynamixel(status: Status) -> bytes:
    body = bytes([0x55, status.error]) + status.params
    body = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    packet = b"\xff\xff\xfd\x00" + bytes([status.id]) + (len(body) + 2).to_bytes(2, "little") + body
    return packet + crc16(packet).to_bytes(2, "little")


def fast(parts: list[Status]) -> bytes:
    packet = b"\xff\xff\xfd\x00\xfe" + (1 + sum(4 + len(part.params) for part in parts)).to_bytes(2, "little") + b"\x55"
    for part in parts:
        packet += bytes([part.error, part.id]) + part.params
        packet += crc16(packet).to_bytes(2, "little")
    return packet


PROTOCOLS = {"feetech": (feetech, FeetechParser), "dynamixel": (dynamixel, DynamixelParser)}
protocols = st.sampled_from(list(PROTOCOLS))
size = 4
statuses = st.lists(
    st.builds(Status, st.integers(0, 252), byte, st.lists(byte, min_size=size, max_size=size).map(bytes)),
    min_size=1,
    max_size=6,
)


def parsed(parser: Parser, data: bytes, cuts: list[int] = ()) -> list[Status]:
    """Fed in pieces that end at `cuts`, as they come out of a port."""
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    found, start = [], 0
    for end in ends:
        found += parser.feed(data[start:end])
        start = end
    return found + parser.finish()


@given(protocols, statuses, st.lists(st.integers(0, 200), max_size=5))
def test_packets_come_out_however_they_are_cut(protocol: str, sent: list[Status], cuts: list[int]) -> None:
    encode, parser = PROTOCOLS[protocol]
    reader = parser(size)
    assert parsed(reader, b"".join(map(encode, sent)), cuts) == sent
    assert reader.noise == 0 and reader.damaged == []


noise = st.lists(st.integers(0, 0xFE), max_size=8).map(bytes)


@given(protocols, statuses, noise, noise, noise)
def test_noise_around_packets_costs_none(protocol: str, sent: list[Status], a: bytes, b: bytes, c: bytes) -> None:
    encode, parser = PROTOCOLS[protocol]
    reader = parser(size)
    first, rest = sent[:1], sent[1:]
    assert parsed(reader, a + encode(first[0]) + b + b"".join(map(encode, rest)) + c) == sent
    assert reader.noise == len(a) + len(b) + len(c)


@given(protocols, statuses, st.data())
def test_a_flipped_bit_costs_its_packet_and_no_other(protocol: str, sent: list[Status], data) -> None:
    encode, parser = PROTOCOLS[protocol]
    packets = [encode(status) for status in sent]
    hit = data.draw(st.integers(0, len(sent) - 1))
    at = data.draw(st.integers(0, 8 * len(packets[hit]) - 1))
    broken = bytearray(packets[hit])
    broken[at // 8] ^= 1 << at % 8
    packets[hit] = bytes(broken)
    reader = parser(size)
    found = [status for status in parsed(reader, b"".join(packets)) if len(status.params) == size]
    assert found == sent[:hit] + sent[hit + 1 :]
    assert reader.noise > 0


@given(protocols, statuses, st.data())
def test_a_truncated_packet_costs_no_other(protocol: str, sent: list[Status], data) -> None:
    encode, parser = PROTOCOLS[protocol]
    packets = [encode(status) for status in sent]
    hit = data.draw(st.integers(0, len(sent) - 1))
    packets[hit] = cut = packets[hit][: data.draw(st.integers(1, len(packets[hit]) - 1))]
    following = packets[hit + 1] if hit + 1 < len(packets) else b""
    # a checksum of one byte takes one in 256 for whole that borrows its end from the next
    assume(not any(parsed(parser(size), cut + following[:n]) for n in range(len(following))))
    found = [status for status in parsed(parser(size), b"".join(packets)) if len(status.params) == size]
    assert found == sent[:hit] + sent[hit + 1 :]


@given(protocols, st.lists(byte, max_size=200).map(bytes), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_at_all_end(protocol: str, data: bytes, cuts: list[int]) -> None:
    encode, parser = PROTOCOLS[protocol]
    reader = parser(size)
    found = parsed(reader, data, cuts)
    assert reader.noise + sum(len(encode(status)) for status in found) == len(data)


def test_a_damaged_packet_names_its_motor() -> None:
    for encode, parser in PROTOCOLS.values():
        packet = bytearray(encode(Status(5, 0, b"abcd")))
        packet[-1] ^= 1
        reader = parser(size)
        assert parsed(reader, bytes(packet)) == []
        assert reader.damaged == [5]


def test_the_checksum_is_the_sdks() -> None:
    data = bytes(range(256)) * 3
    assert crc16(data) == dynamixel_sdk.PacketHandler(2.0).updateCRC(0, data, len(data))
    assert crc16(data[100:], crc16(data[:100])) == crc16(data)


@pytest.mark.parametrize(
    "packet, expected",
    [  # from the e-Manual's page on Protocol 2.0: a Sync Read of Present_Position
        ("ff ff fd 00 01 08 00 55 00 a6 00 00 00 8c c0", Status(1, 0, bytes([0xA6, 0, 0, 0]))),
        ("ff ff fd 00 02 08 00 55 00 1f 08 00 00 ba be", Status(2, 0, bytes([0x1F, 8, 0, 0]))),
    ],
)
def test_packets_of_the_manual(packet: str, expected: Status) -> None:
    assert parsed(DynamixelParser(size), bytes.fromhex(packet)) == [expected]


unique = st.lists(st.integers(0, 252), min_size=1, max_size=6, unique=True)


@given(unique, st.data())
def test_a_fast_reply_holds_every_motor(ids: list[int], data) -> None:
    params = st.lists(byte, min_size=size, max_size=size).map(bytes)
    sent = [Status(motor, data.draw(byte), data.draw(params)) for motor in ids]
    reply = fast(sent)
    assert parsed(DynamixelParser(size, fast=(size, ids)), reply) == sent
    # cut short: those whose checksum has arrived
    length = data.draw(st.integers(1, len(reply) - 1))
    whole = max(0, (length - 8) // (size + 4))
    reader = DynamixelParser(size, fast=(size, ids))
    assert parsed(reader, reply[:length]) == sent[:whole]
    # nor is a motor's own packet, which only a late answer can be
    assert parsed(DynamixelParser(size, fast=(size, ids)), b"".join(map(dynamixel, sent)) + reply) == sent
    assert parsed(DynamixelParser(size, fast=(size, ids)), b"".join(map(dynamixel, sent))) == []
    # a late reply to another request, to more motors or with another register, is none to this one
    for other in (DynamixelParser(size, fast=(size, [*ids, 253])), DynamixelParser(size + 1, fast=(size + 1, ids))):
        assert parsed(other, reply) == []


@given(unique, st.data())
def test_a_damaged_fast_reply_gives_nothing_wrong(ids: list[int], data) -> None:
    sent = [Status(motor, 0, bytes([motor, 1, 2, 3])) for motor in ids]
    reply = bytearray(fast(sent))
    at = data.draw(st.integers(0, 8 * len(reply) - 1))
    reply[at // 8] ^= 1 << at % 8
    reader = DynamixelParser(size, fast=(size, ids))
    found = parsed(reader, bytes(reply))
    assert found == sent[: len(found)] and len(found) < len(sent)


def test_a_fast_reply_damaged_in_its_middle_is_blamed_on_all_that_are_missing() -> None:
    sent = [Status(motor, 0, b"abcd") for motor in (1, 2, 3)]
    reply = bytearray(fast(sent))
    reply[20] ^= 1
    reader = DynamixelParser(size, fast=(size, [1, 2, 3]))
    assert parsed(reader, bytes(reply)) == sent[:1]
    reader = DynamixelParser(size, fast=(size, [1, 2, 3]))
    reply[10] ^= 1
    assert parsed(reader, bytes(reply)) == []
    assert BROADCAST in reader.damaged
