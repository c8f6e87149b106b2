"""New weights for a policy node that serves: float32 arrays in parts, each acknowledged; never pickled.

WEIGHTS version 7, part 0 of 3 →      ← ACCEPTED 7, 0
WEIGHTS version 7, part 2 of 3 →      ← ACCEPTED 7, 2: complete, and in force for episodes that begin from now on
                                      ← REFUSE: why not
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import zmq

from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message
from tactus.runtime.wire.keys import ClientKeys
from tactus.runtime.wire.link import Refused, Unreachable
from tactus.runtime.wire.peer import check_trusted, peer

PART_BYTES = 16_000_000
AGAIN_S = 2.0
"""A part that is not acknowledged for so long is sent once more; to have it twice does no harm."""


class Slice(NamedTuple):
    """values: float32[n], those of the weights `name` from `offset` on, flat."""

    name: str
    offset: int
    values: np.ndarray


def parts(version: int, weights: Mapping[str, np.ndarray], part_bytes: int = PART_BYTES) -> list[Message]:
    """The messages that carry them; a part has at most so many bytes, and as many arrays as a message may have."""
    groups: list[list[Slice]] = [[]]
    room = part_bytes
    for one in _slices(weights, part_bytes // 4):
        if groups[-1] and (one.values.nbytes > room or len(groups[-1]) == codec.MAX_ARRAYS):
            groups.append([])
            room = part_bytes
        groups[-1].append(one)
        room -= one.values.nbytes
    return [
        Message(
            codec.WEIGHTS,
            seq=index + 1,
            arrays={str(place): one.values for place, one in enumerate(group)},
            meta={
                "version": version,
                "parts": len(groups),
                "names": [one.name for one in group],
                "offsets": [one.offset for one in group],
            },
        )
        for index, group in enumerate(groups)
    ]


def _slices(weights: Mapping[str, np.ndarray], most: int) -> Iterator[Slice]:
    for name, array in weights.items():
        flat = np.ascontiguousarray(array, np.float32).reshape(-1)
        for offset in range(0, max(1, len(flat)), most):
            yield Slice(name, offset, flat[offset : offset + most])


class Intake:
    """Puts parts together again. layout: shapes of all weights, by name: nothing else is taken, and never more."""

    def __init__(self, layout: Mapping[str, Sequence[int]]) -> None:
        self._layout = {name: tuple(shape) for name, shape in layout.items()}
        self._clear()

    def _clear(self) -> None:
        self._version = -1
        self._parts: set[int] = set()
        self._flat: dict[str, np.ndarray] = {}
        self._filled: dict[str, int] = {}

    def take(self, message: Message) -> dict[str, np.ndarray] | None:
        """All weights, if this was the last part that was missing. Raises ValueError for what does not fit."""
        meta = message.meta
        version, count = meta.get("version"), meta.get("parts")
        names, offsets = meta.get("names"), meta.get("offsets")
        if type(version) is not int or type(count) is not int or version < 1 or not 1 <= message.seq <= count:
            raise ValueError("weights need a version of at least 1, and a part within parts")
        if type(names) is not tuple or type(offsets) is not tuple or not len(names) == len(offsets):
            raise ValueError("weights need a name and an offset for each array")
        if len(names) != len(message.arrays):
            raise ValueError("weights need a name and an offset for each array")
        if version != self._version:
            self._clear()
            self._version = version
        slices = [Slice(*one) for one in zip(names, offsets, message.arrays.values(), strict=True)]
        for one in slices:
            self._check(one)
        if message.seq not in self._parts:
            self._parts.add(message.seq)
            for one in slices:
                self._put(one)
        if len(self._parts) < count:
            return None
        lacking = [name for name, shape in self._layout.items() if self._filled.get(name) != math.prod(shape)]
        whole = {name: flat.reshape(self._layout[name]) for name, flat in self._flat.items()}
        self._clear()
        if lacking:
            raise ValueError(f"weights lack {', '.join(lacking[:5])}")
        return whole

    def _check(self, one: Slice) -> None:
        shape = self._layout.get(one.name) if type(one.name) is str else None
        if shape is None:
            raise ValueError(f"this policy has no weights {one.name!r:.60} that may be changed")
        if one.values.dtype != np.float32 or one.values.ndim != 1:
            raise ValueError(f"{one.name}: found {one.values.dtype}{list(one.values.shape)}, expected flat float32")
        if type(one.offset) is not int or not 0 <= one.offset <= math.prod(shape) - len(one.values):
            raise ValueError(f"{one.name}: {one.offset!r:.20} + {len(one.values)} is beyond its {list(shape)}")
        if not np.isfinite(one.values).all():
            raise ValueError(f"{one.name} holds numbers that are not finite")

    def _put(self, one: Slice) -> None:
        flat = self._flat.setdefault(one.name, np.empty(math.prod(self._layout[one.name]), np.float32))
        flat[one.offset : one.offset + len(one.values)] = one.values
        self._filled[one.name] = self._filled.get(one.name, 0) + len(one.values)


def publish(
    endpoint: str,
    version: int,
    weights: Mapping[str, np.ndarray],
    timeout_s: float,
    keys: ClientKeys | None = None,
) -> None:
    """Have the policy node infer with these from the next episode on; returns when it does.

    Raises Refused with the node's reasons, Unreachable for an address that is none or on another machine without keys,
    or if timeout_s pass without an acknowledgement.
    """
    check_trusted(endpoint, keys, "weights go")
    with peer(endpoint, keys) as node:
        for message in parts(version, weights):
            _deliver(node, message, timeout_s, endpoint)


def _deliver(node: zmq.Socket[bytes], message: Message, timeout_s: float, endpoint: str) -> None:
    """Sends a part, and again, until it is acknowledged."""
    until_s = time.monotonic() + timeout_s
    frames, again_s = codec.encode(message), 0.0
    while (now_s := time.monotonic()) < until_s:
        if now_s >= again_s:
            codec.send(node, frames)
            again_s = now_s + AGAIN_S
        if not node.poll(max(1, int((min(until_s, again_s) - now_s) * 1000))):
            continue
        answer = codec.decode(codec.receive(node))
        if answer.kind == codec.REFUSE:
            raise Refused([str(reason) for reason in answer.meta["reasons"]])
        if answer.kind == codec.ERROR:
            raise Refused([f"{answer.meta['code']}: {answer.meta['message']}"])
        if answer.kind == codec.ACCEPTED and (answer.meta["version"], answer.seq) == (
            message.meta["version"],
            message.seq,
        ):
            return
    raise Unreachable(f"no policy node at {endpoint} acknowledged new weights within {timeout_s:g} s")
