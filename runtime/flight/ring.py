"""The folder of a flight recorder's files, a ring: the oldest go, so that it holds the last minutes and no more bytes
than allowed.

    flight-20261126T013000Z-0007.mcap     the number counts on from run to run, and orders them
"""

from __future__ import annotations

import calendar
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tactus.runtime.flight import FlightError
from tactus.runtime.flight.mcap_file import Entry, McapFile

NAME = re.compile(r"flight-(\d{8}T\d{6}Z)-(\d{4,})\.mcap")
PARTS = 10
"""Of the ring, one is the file being written."""
MIN_SEGMENT_S = 10.0
MIN_FREE_BYTES = 100_000_000


@dataclass
class _Closed:
    path: Path
    size: int
    seconds: float


class Segment(Protocol):
    """Where entries go."""

    def write(self, entries: Sequence[Entry]) -> object: ...


class Destination(Protocol):
    """What a flight recorder writes into: a Ring of files, or whoever listens live. number: of the segment."""

    number: int

    @property
    def segment(self) -> Segment | None: ...
    @property
    def due(self) -> bool: ...
    @property
    def overfull(self) -> bool: ...
    def next(self) -> object: ...
    def trim(self, ahead: int = 0) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...


class Ring:
    """`folder` is made if need be, and held until `close`: only one run at a time records into it.

    minutes: how much the files hold together, at least, and at most one file more. max_bytes: what they hold at most;
    it wins. Files of earlier runs in the folder count. segment_s: the length of a file; not given: a tenth of the ring.
    Raises FlightError if the folder cannot be written to, is in use, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float = 10.0,
        max_bytes: int = 4_000_000_000,
        segment_s: float | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.folder = folder
        self.say = say
        self._seconds = minutes * 60
        self._max_bytes = max_bytes
        self._segment_s = segment_s or max(MIN_SEGMENT_S, self._seconds / PARTS)
        self._said = False
        self.segment: McapFile | None = None
        self.number = 0
        self._began_s = 0.0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise FlightError(
                f"record_flight: cannot write to {folder}: {error.strerror}; give a folder that can be written to"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = shutil.disk_usage(folder).free
            if free < MIN_FREE_BYTES:
                raise FlightError(
                    f"record_flight: {free / 1e6:.0f} MB are free at {folder}; "
                    f"at least {MIN_FREE_BYTES / 1e6:.0f} are needed"
                )
            self._closed = [_Closed(path, path.stat().st_size, _seconds(path)) for path in segments(folder)]
            self.next()
        except OSError as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise FlightError(f"record_flight: another run is recording into {folder}; give another one") from error
            raise FlightError(f"record_flight: cannot write to {folder}: {error.strerror}") from error
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def due(self) -> bool:
        """Whether the file being written is long enough."""
        assert self.segment is not None
        return time.monotonic() - self._began_s >= self._segment_s or self.segment.size >= self._max_bytes / PARTS

    @property
    def overfull(self) -> bool:
        """Whether the file being written should have been followed by another one long ago: it has half the ring."""
        assert self.segment is not None
        return self.segment.size >= self._max_bytes / 2

    def next(self) -> McapFile:
        """Close the file being written and begin another one. Raises OSError."""
        self._finish()
        numbers = [int(match[2]) for closed in self._closed if (match := NAME.fullmatch(closed.path.name))]
        self.number = max(numbers, default=0) + 1
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.segment = McapFile(self.folder / f"flight-{stamp}-{self.number:04d}.mcap")
        self._began_s = time.monotonic()
        self.trim()
        return self.segment

    def trim(self, ahead: int = 0) -> None:
        """Delete what is too old, and what is too much once `ahead` bytes more are written. Raises OSError."""
        held_s, size = time.monotonic() - self._began_s, ahead + (self.segment.size if self.segment else 0)
        kept: list[_Closed] = []
        for closed in reversed(self._closed):
            too_much = size + closed.size > self._max_bytes
            if too_much and held_s < self._seconds and not self._said:
                self._said = True
                self.say(
                    f"record_flight: {self._max_bytes / 1e9:g} GB hold only the last {held_s / 60:.1f} of "
                    f"{self._seconds / 60:g} minutes; a higher --flight_gb holds more"
                )
            if too_much or held_s >= self._seconds:
                # older ones go too, so that what is left has no gap
                held_s = float("inf")
                closed.path.unlink(missing_ok=True)
                continue
            held_s, size = held_s + closed.seconds, size + closed.size
            kept.append(closed)
        self._closed = kept[::-1]

    def abandon(self) -> None:
        """Leave the file being written as it is."""
        if self.segment is not None:
            self.segment.abandon()
            self.segment = None

    def close(self) -> None:
        """Close the file being written and let go of the folder. Raises OSError."""
        try:
            self._finish()
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _finish(self) -> None:
        segment, self.segment = self.segment, None
        if segment is not None:
            segment.close()
            self._closed.append(_Closed(segment.path, segment.size, time.monotonic() - self._began_s))


def segments(folder: Path) -> list[Path]:
    """The files of a ring, in their order."""
    found = [(int(match[2]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def number_of(path: Path) -> int | None:
    """A file's place in its ring; None if it was renamed."""
    match = NAME.fullmatch(path.name)
    return int(match[2]) if match else None


def _seconds(path: Path) -> float:
    """How much an earlier run's file holds: from when it was begun, as its name says, to when it was last written."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    began_s = calendar.timegm(time.strptime(match[1], "%Y%m%dT%H%M%SZ"))
    return max(0.0, path.stat().st_mtime - began_s)
