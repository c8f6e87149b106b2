"""Changes messages so that they are almost right: same seed, same messages."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgpack

from fuzz.values import Raw, hostile

VERSION, KIND, SESSION, SEQ, TICK, TABLE, META = range(7)
Frames = list[bytes]


class Mutator:
    """seeds: whole messages to begin from. An endless source: each call of `message` gives the next one."""

    def __init__(self, seed: int, seeds: Sequence[Frames]) -> None:
        self._rng = random.Random(seed)
        self._seeds = seeds

    def message(self) -> Frames:
        """A seed with one to three changes."""
        frames = list(self._rng.choice(self._seeds))
        for _ in range(self._rng.choice((1, 1, 1, 2, 3))):
            change = self._rng.choice((self._field, self._meta, self._meta, self._table, self._bytes, self._frames))
            try:
                frames = change(frames) or [b""]
            except (RecursionError, ValueError):  # an earlier change nested deeper than msgpack packs
                frames = self._bytes(frames)
        return frames

    def _field(self, frames: Frames) -> Frames:
        """A header field, or the header's length."""
        fields = _fields(frames)
        if fields is None:
            return self._bytes(frames)
        which = self._rng.randrange(9)
        if which < 7:
            fields[which] = hostile(self._rng)
        elif which == 7:
            fields.insert(self._rng.randrange(8), hostile(self._rng))
        else:
            del fields[self._rng.randrange(7)]
        return [pack(fields), *frames[1:]]

    def _meta(self, frames: Frames) -> Frames:
        """A value, a key or an element somewhere in meta."""
        fields = _fields(frames)
        if fields is None or not isinstance(fields[META], dict):
            return self._bytes(frames)
        place: Any = fields[META]
        while inner := [value for value in _values(place) if isinstance(value, dict | list) and value]:
            if self._rng.random() < 0.3:
                break
            place = self._rng.choice(inner)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        action = self._rng.randrange(4)
        if action == 0 and keys:
            del place[self._rng.choice(keys)]
        elif action == 1 or not keys:
            if isinstance(place, dict):
                place[self._rng.choice(("", "task", "x" * 300, "delay_ticks", "a\nb", b"\xff"))] = hostile(self._rng)
            else:
                place.append(hostile(self._rng))
        else:
            place[self._rng.choice(keys)] = hostile(self._rng)
        return [pack(fields), *frames[1:]]

    def _table(self, frames: Frames) -> Frames:
        """An entry of the array table: its name, dtype, shape, whether it is there at all, and how often."""
        fields = _fields(frames)
        table = _unpacked(fields[TABLE]) if fields is not None and isinstance(fields[TABLE], bytes) else None
        if fields is None or not isinstance(table, list):
            return self._bytes(frames)
        rng = self._rng
        action = rng.randrange(6)
        if action == 0 or not table:
            table.insert(
                0, [rng.choice(("a", "action", "observation.state")), "float32", rng.choice(([], [0], [1, 2]))]
            )
        elif action == 1:
            table = table * rng.choice((2, 40, 70))
        elif action == 2:
            del table[rng.randrange(len(table))]
        elif action == 3:
            table[rng.randrange(len(table))] = hostile(rng)
        else:
            entry = rng.choice(table)
            if isinstance(entry, list) and len(entry) == 3:
                if action == 4 and isinstance(entry[2], list):
                    entry[2].insert(rng.randrange(len(entry[2]) + 1), hostile(rng))
                else:
                    entry[rng.randrange(3)] = hostile(rng)
        fields[TABLE] = pack(table)
        return [pack(fields), *frames[1:]]

    def _bytes(self, frames: Frames) -> Frames:
        """Bytes of one frame, the header's most often."""
        rng = self._rng
        which = 0 if rng.random() < 0.7 else rng.randrange(len(frames))
        frame = bytearray(frames[which])
        action = rng.randrange(6)
        at = rng.randrange(len(frame) + 1)
        if action == 0:
            del frame[at:]
        elif action == 1:
            frame[at:at] = rng.randbytes(rng.randrange(1, 12))
        elif action == 2:
            del frame[at : at + rng.randrange(1, 6)]
        elif action == 3:
            frame = bytearray(rng.randbytes(rng.randrange(200)))
        else:
            for _ in range(rng.randrange(1, 4)):
                if frame:
                    frame[rng.randrange(len(frame))] = rng.choice((0, 0x7F, 0x80, 0xC1, 0xDD, 0xFF, rng.randrange(256)))
        return [*frames[:which], bytes(frame), *frames[which + 1 :]]

    def _frames(self, frames: Frames) -> Frames:
        """Frames missing, twice, in another order, too many, or of another message."""
        rng = self._rng
        action = rng.randrange(8)
        at = rng.randrange(len(frames))
        if action == 0:
            return frames[:at] + frames[at + 1 :]
        if action == 1:
            return [*frames[:at], frames[at], *frames[at:]]
        if action == 2:
            return rng.sample(frames, len(frames))
        if action == 3:
            return [*frames, *[b""] * rng.choice((1, 2, 63, 64, 65, 300))]
        if action == 4:
            return [frames[0], *rng.choice(self._seeds)[1:]]
        if action == 5:
            return [b"", *frames]
        if action == 6:
            return [b"".join(frames)]
        return [*frames, rng.randbytes(rng.randrange(64))]


def pack(value: Any) -> bytes:
    """As msgpack would, with each Raw in it as the bytes that it is."""
    raws: list[bytes] = []
    packed = msgpack.packb(_marked(value, raws))
    assert packed is not None
    for index, raw in enumerate(raws):
        packed = packed.replace(_mark(index), raw, 1)
    return packed


def _mark(index: int) -> bytes:
    return b"\xc4\x06\xfe\xffRAW" + bytes([index % 256])


def _marked(value: Any, raws: list[bytes]) -> Any:
    if isinstance(value, Raw):
        raws.append(value.data)
        return _mark(len(raws) - 1)[2:]
    if isinstance(value, dict):
        return {key: _marked(inner, raws) for key, inner in value.items()}
    return [_marked(inner, raws) for inner in value] if isinstance(value, list) else value


def _fields(frames: Frames) -> list[Any] | None:
    fields = _unpacked(frames[0])
    return fields if isinstance(fields, list) and len(fields) == 7 else None


def _unpacked(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data)
    except (ValueError, msgpack.exceptions.UnpackException, TypeError):
        return None


def _values(place: Any) -> list[Any]:
    return list(place.values()) if isinstance(place, dict) else list(place)
