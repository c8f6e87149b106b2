"""Reads flight records: files of a ring, whole or cut off in the midst of a record, without copying the pictures.

A file is mapped into memory and walked from its beginning, so that it needs no index: what a killed process has left
is read up to its last whole message.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tactus.hal.json_file import FETCH, is_pointer
from tactus.runtime.flight import FlightError
from tactus.runtime.flight.channels import ABOUT, PROPERTIES, RECEIVED, REPEATED, SENT, read_frames
from tactus.runtime.flight.mcap_file import CHUNK, MESSAGE
from tactus.runtime.flight.ring import number_of, segments
from tactus.runtime.wire import pictures
from tactus.runtime.wire.codec import Frame, Message, decode

MAGIC = b"\x89MCAP0\r\n"
CHANNEL, DATA_END, FOOTER = 0x04, 0x0F, 0x02
WIRE = (SENT, RECEIVED, REPEATED)


class Record(NamedTuple):
    """topic: of channels.TOPICS. log_ns: wall clock. data: what JSON says, or the frames of a wire message, None for
    one that was omitted. file: index of its file in the Flight."""

    topic: str
    log_ns: int
    data: Any
    file: int = 0

    def message(self) -> Message | None:
        """The wire message of these frames, as the policy node reads it; None if some were omitted. Raises WireError if
        it is none."""
        frames: list[Frame | None] = self.data
        whole = [frame for frame in frames if frame is not None]
        return pictures.unpacked(decode(whole)) if len(whole) == len(frames) else None


@contextmanager
def understanding(flight: Flight) -> Iterator[None]:
    """Where records are made sense of: what is missing in one, or of another kind, is a FlightError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        if isinstance(error, FlightError):
            raise
        files = flight.files[0].name if len(flight.files) == 1 else f"{flight.files[0].name} and those after it"
        raise FlightError(f"{files}: a record is not what a recorder writes: {error!r:.200}") from error


@dataclass
class Flight:
    """One run's record. files: in their order. cut: that the last one ends in the midst of a record, or without its
    end: the run was killed, or goes on."""

    files: list[Path]
    records: list[Record]
    about: Mapping[str, Any]
    cut: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def offset_ns(self) -> int:
        """Wall clock minus the robot's monotonic clock."""
        return int(self.about.get("monotonic_offset_ns", 0))


def read_flights(path: Path) -> list[Flight]:
    """Of a file, or of a ring's folder: one for each run, without gaps, the oldest first. Raises FlightError."""
    if path.is_dir():
        files = segments(path)
        if not files:
            raise FlightError(f"{path} holds no flight record (flight-*.mcap)")
    elif path.is_file():
        files = [path]
    else:
        raise FlightError(f"{path} does not exist; a file that --record_flight wrote, or its folder")
    flights: list[Flight] = []
    last: tuple[int | None, Any] = (None, None)
    for file in files:
        records, cut = read_file(file)
        about = next((record.data for record in records if record.topic == ABOUT), None)
        if about is None:
            if len(files) == 1:
                raise FlightError(f"{file} is no flight record, or was cut off before its first one: no {ABOUT}")
            continue
        number = number_of(file)
        if flights and number is not None and (number - 1, about.get("run")) == last:
            flight = flights[-1]
        else:
            flight = Flight([], [], about)
            flights.append(flight)
        last = (number, about.get("run"))
        flight.records += [record._replace(file=len(flight.files)) for record in records]
        flight.files.append(file)
        flight.cut = cut
        if cut:
            flight.notes.append(f"{file.name} ends in the midst of a record, or was not closed: its run was killed")
    if not flights:
        raise FlightError(f"{path} holds no flight record that can be read")
    return flights


def read_file(path: Path) -> tuple[list[Record], bool]:
    """Its records, and whether it is cut off. Raises FlightError if it is no MCAP file as a McapFile writes them."""
    try:
        with path.open("rb") as file:
            # an empty file cannot be mapped
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b"")
    except OSError as error:
        raise FlightError(f"cannot read {path}: {error.strerror}") from error
    if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        raise FlightError(f"{path} is {FETCH}" if is_pointer(path) else f"{path} is no MCAP file")
    walk = _Walk(path, data)
    return list(walk.records()), walk.cut


class _Walk:
    """Through a file, record by record. cut: until its end has been seen."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.cut = True
        self._path = path
        self._data = data
        self._topics: dict[int, str] = {}

    def records(self) -> Iterator[Record]:
        for opcode, body, whole in self._bodies(self._data[len(MAGIC) :]):
            if opcode == CHUNK:
                yield from self._chunk(body)
            elif not whole:
                return
            elif opcode == MESSAGE:
                yield from self._message(body)
            elif opcode == CHANNEL:
                self._channel(body)
            elif opcode == DATA_END:
                self.cut = self._data[-len(MAGIC) :] != MAGIC
                return

    def _bodies(self, data: memoryview) -> Iterator[tuple[int, memoryview, bool]]:
        """Opcodes, bodies, and whether these are whole; the last one may not be."""
        at = 0
        while at + 9 <= len(data):
            opcode, length = struct.unpack_from("<BQ", data, at)
            end = at + 9 + length
            yield opcode, data[at + 9 : end], end <= len(data)
            at = end

    def _chunk(self, body: memoryview) -> Iterator[Record]:
        if len(body) < 40:
            return
        _, _, _, _, compressed = struct.unpack_from("<QQQII", body)
        if compressed:
            name = bytes(body[32 : 32 + compressed]).decode(errors="replace")
            raise FlightError(f"{self._path} is compressed ({name:.20}); unpack it: mcap decompress")
        (size,) = struct.unpack_from("<Q", body, 32)
        for opcode, inner, whole in self._bodies(body[40 : 40 + size]):
            if opcode == MESSAGE and whole:
                yield from self._message(inner)

    def _message(self, body: memoryview) -> Iterator[Record]:
        if len(body) < 22:
            return
        channel, _, log_ns, _ = struct.unpack_from("<HIQQ", body)
        topic = self._topics.get(channel, "")
        try:
            if topic in PROPERTIES:
                data = json.loads(bytes(body[22:]))
                if not isinstance(data, dict):
                    raise FlightError(f"{self._path}: a record of {topic} is no JSON object")
                yield Record(topic, log_ns, data)
            elif topic in WIRE:
                yield Record(topic, log_ns, read_frames(body[22:]))
        except (ValueError, RecursionError, FlightError) as error:
            raise FlightError(f"{self._path}: a record of {topic} cannot be read: {error}") from error

    def _channel(self, body: memoryview) -> None:
        if len(body) < 8:
            return
        number, _, length = struct.unpack_from("<HHI", body)
        self._topics[number] = bytes(body[8 : 8 + length]).decode(errors="replace")
