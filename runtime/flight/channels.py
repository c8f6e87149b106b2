"""The channels of a flight record, and how arrays, floats and wire messages are written in them.

/about      first in every file: robot, policy, settings, versions, the clock
/keyframe   first after it in every file but a run's first: all that the queue held, so that the file stands alone
/episode    where one begins and ends
/asked      a request went out                    /wire/sent      every message, frame by frame, bit by bit;
/merge      a chunk was taken into the queue      /wire/received  /wire/repeated: of earlier files, for context
/tick       an action: as asked for, as sent
/said       lines for the user: errors, limits, faults; and the recorder's own

JSON floats are written so that they read back to the bit; the ones JSON cannot write are the words nan, inf, -inf.
"""

from __future__ import annotations

import base64
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tactus.hal.spec import DTYPES
from tactus.runtime.flight import FlightError

ABOUT, KEYFRAME, EPISODE, ASKED, MERGE, TICK, SAID = (
    "/about", "/keyframe", "/episode", "/asked", "/merge", "/tick", "/said",
)  # fmt: skip
SENT, RECEIVED, REPEATED = "/wire/sent", "/wire/received", "/wire/repeated"
WIRE_ENCODING = "tactus-frames"
"""u32 count, then a u32 length per frame, then the frames; little-endian. OMITTED in place of a length: the frame was
not kept."""
OMITTED = 0xFFFFFFFF
GAP = "gap"
"""`by` of the /said that tells that records are missing before it."""

_INTEGER, _NUMBER, _TEXT, _BOOLEAN = ({"type": kind} for kind in ("integer", "number", "string", "boolean"))
_NUMBERS = {"type": "array", "items": _NUMBER}
_ANY: dict[str, Any] = {}
PROPERTIES: Mapping[str, Mapping[str, Any]] = {
    ABOUT: {key: {"type": "object"} for key in ("robot", "policy", "loop", "robot_config", "versions")}
    | {"run": _TEXT, "file": _INTEGER, "command": _TEXT, "monotonic_offset_ns": _INTEGER, "virtual": _BOOLEAN},
    KEYFRAME: {"tick": _INTEGER, "at": _INTEGER, "episode": _ANY, "last": _ANY, "queue": _ANY, "chunks": _ANY},
    EPISODE: {"event": _TEXT, "episode": _INTEGER, "seed": _INTEGER, "task": _TEXT, "ticks": _INTEGER},
    ASKED: {"tick": _INTEGER, "at": _INTEGER, "seq": _INTEGER},
    MERGE: dict.fromkeys(("tick", "at", "seq", "start", "length", "stale", "asked", "crc32"), _INTEGER)
    | dict.fromkeys(("latency_ticks", "round_trip_ms", "uplink_ms", "downlink_ms"), _NUMBER)
    | {"timings_ms": {"type": "object"}},
    TICK: {"tick": _INTEGER, "at": _INTEGER, "requested": _NUMBERS, "sent": _NUMBERS, "starved": _BOOLEAN}
    | {"remaining": _INTEGER, "source": _INTEGER, "age_s": _NUMBER, "lateness_s": _NUMBER, "outcome": _ANY}
    | {"driver": _TEXT},
    SAID: {"tick": _INTEGER, "line": _TEXT, "by": _TEXT},
}
"""JSON channels, and their schemas' properties."""
TOPICS = (*PROPERTIES, SENT, RECEIVED, REPEATED)
"""A channel's id in a file is its place here, counted from 1."""


def schema(topic: str) -> bytes:
    """The JSON schema of a JSON channel."""
    return json.dumps({"type": "object", "properties": PROPERTIES[topic]}).encode()


def to_json(record: Mapping[str, Any]) -> bytes:
    """A record as JSON."""
    try:
        return json.dumps(record, allow_nan=False).encode()
    except ValueError:  # rare: a float that is no number
        return json.dumps(_finite(record), allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def numbers(values: Sequence[Any], dtype: str) -> np.ndarray:
    """A JSON list of numbers as the array it was. Raises FlightError if it is none."""
    kind = np.dtype(dtype)
    try:
        if kind.kind == "f":
            return np.array([float(value) for value in values], kind)
        return np.array(values, kind)
    except (TypeError, ValueError, OverflowError) as error:
        raise FlightError(f"{values!r:.80} is no list of {dtype}") from error


def from_array(array: np.ndarray) -> dict[str, Any]:
    """An array in JSON, bit by bit."""
    data = base64.b64encode(array.tobytes()).decode()
    return {"dtype": array.dtype.name, "shape": list(array.shape), "base64": data}


def to_array(data: Mapping[str, Any]) -> np.ndarray:
    """What from_array wrote. Raises FlightError if it is not that."""
    try:
        array = np.frombuffer(base64.b64decode(data["base64"], validate=True), DTYPES[data["dtype"]])
        return array.reshape(data["shape"]).copy()
    except (KeyError, TypeError, ValueError) as error:
        raise FlightError(f"an array that cannot be read: {error!r:.120}") from error


def crc32(actions: np.ndarray) -> int:
    """What /merge has of a chunk's actions."""
    return zlib.crc32(np.ascontiguousarray(actions).data)


def frame_table(lengths: Sequence[int | None]) -> bytes:
    """The head of a wire message; None: a frame that is omitted."""
    sizes = [OMITTED if length is None else length for length in lengths]
    return struct.pack(f"<{len(sizes) + 1}I", len(sizes), *sizes)


def read_frames(data: memoryview) -> list[memoryview | None]:
    """The frames of a wire message, uncopied; None for one that was omitted. Raises FlightError if it is not whole."""
    if len(data) < 4:
        raise FlightError("a wire message without a frame table")
    (count,) = struct.unpack_from("<I", data)
    at = 4 + 4 * count
    if at > len(data):
        raise FlightError(f"a wire message of {count} frames in {len(data)} bytes")
    frames: list[memoryview | None] = []
    for length in struct.unpack_from(f"<{count}I", data, 4):
        if length == OMITTED:
            frames.append(None)
            continue
        if at + length > len(data):
            raise FlightError("a wire message whose frames are cut off")
        frames.append(data[at : at + length])
        at += length
    return frames
