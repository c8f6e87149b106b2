"""Values that nobody expects where a header holds a name, a count or a list."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgpack

from tactus.runtime.wire import codec


class Raw(NamedTuple):
    """Bytes to stand in a packed header as they are, whether msgpack would ever write them or not."""

    data: bytes


INTEGERS = (0, 1, -1, 2, 127, 255, 2**31 - 1, 2**31, 2**40, 2**53, 2**53 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
INTEGERS += (-2, -(2**31), -(2**53), -(2**63))
FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-300, 1e308, -1e308, 0.5)
TEXTS = (
    "",
    "0",
    "nan",
    "\x00",
    "a\nb",
    "../../etc",
    "observation.state",
    "float64",
    "object",
    "\u202e\u0301",
    "🦾" * 9,
)
LIES = (  # heads that announce more than follows, and things of msgpack that the wire does not speak
    b"\xdd\xff\xff\xff\xff",
    b"\xdc\xff\x00",
    b"\xdf\xff\xff\xff\xff",
    b"\xde\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\xc1",
    b"\xc7\x0c\xff" + b"\xff" * 12,
    b"\xd6\xff\xff\xff\xff\xff",
    b"\xd4\x05a",
    b"\xa3\xed\xa0\x80",
    b"\xa2\xff\xfe",
    b"\x81\xc0\x01",
    b"\x82\xa1a\x01\xa1a\x02",
    b"\x81\x91\x01\x01",
)


def hostile(rng: random.Random) -> Any:
    """One such value; seldom a large one, since those are slow to make."""
    kinds = COMMON if rng.random() < 0.97 else LARGE
    return rng.choice(kinds)(rng)


def _nested(rng: random.Random) -> Raw:
    depth = rng.choice((3, 30, 200, 510, 520, 900, 1020, 1100))
    return Raw(rng.choice((b"\x91", b"\x81\xa1a", b"\xdc\x00\x01")) * depth + b"\x01")


def _bomb(rng: random.Random) -> Raw:
    return Raw(b"\xdc\xf0\x00" * rng.choice((10, 300, 1000)) + b"\x01" * 55_000)


COMMON: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice(INTEGERS),
    lambda rng: rng.choice(INTEGERS),
    lambda rng: rng.choice(FLOATS),
    lambda rng: rng.choice(TEXTS),
    lambda rng: rng.choice(sorted(codec.KINDS)),
    lambda rng: rng.choice((None, True, False, [], {}, b"", b"\x90")),
    lambda rng: rng.randbytes(rng.randrange(20)),
    lambda rng: [rng.choice(INTEGERS) for _ in range(rng.randrange(9))],
    lambda rng: {rng.choice(TEXTS): rng.choice(FLOATS)},
    lambda rng: Raw(rng.choice(LIES)),
    lambda rng: msgpack.ExtType(rng.randrange(128), b"ext"),
    lambda rng: {"policy": None, "robot": {}, "reason": "x", "reasons": [1], "by": "zz", "task": 1},
)
LARGE: tuple[Callable[[random.Random], Any], ...] = (
    _nested,
    _nested,
    _bomb,
    lambda rng: "n" * rng.choice((256, 5_000, 66_000)),
    lambda rng: [0] * rng.choice((1000, codec.MAX_ITEMS, codec.MAX_ITEMS + 1)),
    lambda rng: {f"k{index}": index for index in range(rng.choice((100, 3000)))},
    lambda rng: {f"o{index}": {"shape": [1], "dtype": "bool"} for index in range(2000)},
    lambda rng: bytes(rng.choice((1000, 70_000))),
)
