"""One MCAP file, written as it happens: pictures go from the robot's memory to the file without a copy.

The `mcap` package's Writer copies every message four times in Python, which for camera pictures costs more than all
else together. So the chunks are laid out here, uncompressed, and the rest is made of the package's own records.

    magic  header  schemas  channels   ( chunk  indexes )*   | closed: data end  summary  footer  magic

A chunk is one call of writev: after a kill the file ends with the last whole one, or in the midst of one.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tactus.runtime.flight.channels import PROPERTIES, TOPICS, WIRE_ENCODING, schema

PARTS_A_CALL = 512
"""Buffers in one call of writev; systems allow at least 1024."""
MESSAGE, CHUNK, MESSAGE_INDEX = 0x05, 0x06, 0x07
MESSAGE_HEAD = struct.Struct("<BQHIQQ")  # opcode, length, channel, sequence, log time, publish time
CHUNK_HEAD = struct.Struct("<BQQQQIIQ")  # opcode, length, first, last, bytes, crc, compression "", bytes
INDEX_HEAD = struct.Struct("<BQHI")  # opcode, length, channel, bytes
CHANNEL_OF = {topic: number for number, topic in enumerate(TOPICS, 1)}

Part = bytes | memoryview


class Entry(NamedTuple):
    """A message to be written: parts follow each other. size: of all parts, in bytes."""

    topic: str
    log_ns: int
    parts: Sequence[Part]
    size: int


class McapFile:
    """A file that does not exist yet. Raises OSError as files do. `size`: bytes in it."""

    def __init__(self, path: Path) -> None:
        from mcap.data_stream import RecordBuilder
        from mcap.records import Channel, Header, Schema
        from mcap.writer import MCAP0_MAGIC

        self.path = path
        self.size = 0
        self._builder = RecordBuilder
        self._magic = MCAP0_MAGIC
        numbered = list(enumerate(TOPICS, 1))
        schemas = [Schema(n, schema(t), "jsonschema", "tactus" + t.replace("/", ".")) for n, t in numbered
                   if t in PROPERTIES]  # fmt: skip
        channels = [
            Channel(
                id=n,
                topic=t,
                metadata={},
                schema_id=n if t in PROPERTIES else 0,
                message_encoding="json" if t in PROPERTIES else WIRE_ENCODING,
            )
            for n, t in numbered
        ]
        self._described = (schemas, channels)
        self._counts: Counter[int] = Counter()
        self._indexes: list[Any] = []
        self._first_ns, self._last_ns = 0, 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            head = self._records(Header(profile="", library="tactus"), *schemas, *channels)
            self._put([self._magic, head])
        except BaseException:
            os.close(self._file)
            raise

    def write(self, entries: Sequence[Entry]) -> None:
        """One chunk. A `write` that raises OSError leaves a file that ends in the midst of a record."""
        offset = 0
        parts: list[Part] = [b""]
        places: dict[int, list[int]] = {}
        for entry in entries:
            channel = CHANNEL_OF[entry.topic]
            places.setdefault(channel, []).extend((entry.log_ns, offset))
            self._counts[channel] += 1
            log_ns = entry.log_ns
            parts.append(MESSAGE_HEAD.pack(MESSAGE, 22 + entry.size, channel, 0, log_ns, log_ns))
            parts += entry.parts
            offset += MESSAGE_HEAD.size + entry.size
        first_ns, last_ns = min(e.log_ns for e in entries), max(e.log_ns for e in entries)
        length = CHUNK_HEAD.size - 9 + offset
        parts[0] = CHUNK_HEAD.pack(CHUNK, length, first_ns, last_ns, offset, 0, 0, offset)
        start, end = self.size, self.size + CHUNK_HEAD.size + offset
        index_offsets, after = {}, end
        for channel, pairs in places.items():
            index_offsets[channel] = after
            index = struct.pack(f"<{len(pairs)}Q", *pairs)
            parts.append(INDEX_HEAD.pack(MESSAGE_INDEX, 6 + len(index), channel, len(index)) + index)
            after += len(parts[-1])
        self._put(parts)
        self._indexes.append((first_ns, last_ns, start, end - start, index_offsets, after - end, offset))
        self._first_ns = min(self._first_ns, first_ns) if self._first_ns else first_ns
        self._last_ns = max(self._last_ns, last_ns)

    def close(self) -> None:
        """Write the summary, by which others find their way, and close the file."""
        from mcap.opcode import Opcode
        from mcap.records import ChunkIndex, DataEnd, Footer, Statistics, SummaryOffset

        try:
            schemas, channels = self._described
            counts = (0, len(channels), dict(self._counts), len(self._indexes), self._counts.total())
            statistics = Statistics(*counts, self._last_ns, self._first_ns, 0, len(schemas))
            chunks = [
                ChunkIndex(length, start, "", size, last_ns, index_length, offsets, first_ns, size)
                for first_ns, last_ns, start, length, offsets, index_length, size in self._indexes
            ]
            end = self._records(DataEnd(0))
            at = summary_start = self.size + len(end)
            groups, offsets = [], []
            for opcode, records in (
                (Opcode.SCHEMA, schemas),
                (Opcode.CHANNEL, channels),
                (Opcode.STATISTICS, [statistics]),
                (Opcode.CHUNK_INDEX, chunks),
            ):
                groups.append(self._records(*records))
                if groups[-1]:
                    offsets.append(SummaryOffset(opcode, at, len(groups[-1])))
                at += len(groups[-1])
            footer = self._records(Footer(summary_start, at, 0))
            self._put([end, *groups, self._records(*offsets), footer, self._magic])
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _records(self, *records: Any) -> bytes:
        builder = self._builder()
        for record in records:
            record.write(builder)
        return builder.end()

    def _put(self, parts: Sequence[Part]) -> None:
        for first in range(0, len(parts), PARTS_A_CALL):
            some = [part for part in parts[first : first + PARTS_A_CALL] if len(part)]
            self.size += sum(len(part) for part in some)
            written = os.writev(self._file, some) if some else 0
            for part in some:  # a call may write less than it was given
                if written < len(part):
                    rest = memoryview(part)[max(0, written) :]
                    while len(rest):
                        rest = rest[os.write(self._file, rest) :]
                written -= len(part)
