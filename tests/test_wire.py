"""The codec: what goes in comes out, and nothing else gets in."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tactus.runtime.wire import codec
from tactus.runtime.wire.codec import Message, WireError, decode, encode

dtypes = st.sampled_from(sorted(codec.DTYPES))
arrays = dtypes.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
metas = st.dictionaries(
    st.text(max_size=8), st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8)
)


def as_bytes(message: Message) -> list[bytes]:
    return [bytes(frame) for frame in encode(message)]


def header(frames: list[bytes], **changes: object) -> list[bytes]:
    fields = list(msgpack.unpackb(frames[0]))
    for name, value in changes.items():
        value = msgpack.packb(value) if name == "table" else value
        fields[("version", "kind", "session", "seq", "tick", "table", "meta").index(name)] = value
    return [msgpack.packb(fields), *frames[1:]]


MESSAGE = Message(
    codec.OBSERVE,
    "robot",
    7,
    42,
    {"observation.state": np.arange(6, dtype=np.float64), "observation.images.top": np.zeros((4, 5, 3), np.uint8)},
    {"task": "pick up the cube"},
)


@given(
    st.sampled_from(sorted(codec.KINDS)),
    st.text(max_size=20).filter(str.isprintable),
    st.integers(0, codec.MAX_COUNT),
    st.integers(0, codec.MAX_COUNT),
    st.dictionaries(st.text(max_size=10), arrays, max_size=5),
    metas,
)
def test_round_trip(kind, session, seq, tick, content, meta) -> None:
    frames = as_bytes(Message(kind, session, seq, tick, content, meta))
    out = decode(frames)
    assert (out.kind, out.session, out.seq, out.tick) == (kind, session, seq, tick)
    np.testing.assert_equal(out.meta, meta)
    assert list(out.arrays) == list(content)
    for name, array in content.items():
        assert out.arrays[name].dtype == array.dtype and out.arrays[name].shape == array.shape
        assert out.arrays[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_arrays_are_not_copied_and_come_back_read_only() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    frames = encode(Message(codec.OBSERVE, arrays={"image": image}))
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), image)
    view = np.zeros((480, 640, 3), np.uint8)[:, ::-1]
    assert decode(encode(Message(codec.OBSERVE, arrays={"image": view}))).arrays["image"].shape == view.shape
    assert not decode(as_bytes(MESSAGE)).arrays["observation.state"].flags.writeable


def test_object_arrays_cannot_be_sent() -> None:
    with pytest.raises(WireError, match="dtype object cannot be sent"):
        encode(Message(codec.OBSERVE, arrays={"a": np.array([{}])}))


GOOD = as_bytes(MESSAGE)
TABLE = msgpack.unpackb(msgpack.unpackb(GOOD[0])[5])
BAD = {
    "no frames": ([], "frames"),
    "version": (header(GOOD, version=codec.VERSION + 1), "version"),
    "kind": (header(GOOD, kind="EXEC"), "kind"),
    "kind type": (header(GOOD, kind=3), "kind"),
    "seq type": (header(GOOD, seq="1"), "header"),
    "bool as tick": (header(GOOD, tick=True), "header"),
    "bool as version": (header(GOOD, version=True), "version"),
    "negative tick": (header(GOOD, tick=-1), "header"),
    "seq too far": (header(GOOD, seq=codec.MAX_COUNT + 1), "header"),
    "session too long": (header(GOOD, session="s" * 256), "header"),
    "session that forges a line of a log": (header(GOOD, session="a\nrobot b"), "header"),
    "extension type": (header(GOOD, meta={"a": msgpack.ExtType(5, b"a")}), "header"),
    "a list longer than any": (header(GOOD, meta={"a": [0] * (codec.MAX_ITEMS + 1)}), "header"),
    "more frames than any": ([GOOD[0], *[b""] * 100], "frames"),
    "meta type": (header(GOOD, meta=[1]), "header"),
    "not msgpack": ([b"\xc1" * 9], "header"),
    "pickle": ([b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."], "header"),
    "empty header": ([b""], "header"),
    "frame missing": (GOOD[:-1], "frames"),
    "frame too many": ([*GOOD, b"x"], "frames"),
    "truncated frame": ([*GOOD[:-1], GOOD[-1][:-1]], "shape"),
    "oversized frame": ([*GOOD[:-1], GOOD[-1] + b"x"], "shape"),
    "object dtype": (header(GOOD, table=[[TABLE[0][0], "object", [6]], TABLE[1]]), "dtype"),
    "void dtype": (header(GOOD, table=[[TABLE[0][0], "V8", [6]], TABLE[1]]), "dtype"),
    "other dtype": (header(GOOD, table=[[TABLE[0][0], "float32", [6]], TABLE[1]]), "shape"),
    "negative shape": (header(GOOD, table=[[TABLE[0][0], "float64", [-6]], TABLE[1]]), "shape"),
    "two negatives": (header(GOOD, table=[[TABLE[0][0], "float64", [-2, -3]], TABLE[1]]), "shape"),
    "overflowing shape": (header(GOOD, table=[[TABLE[0][0], "float64", [2**62, 2**62, 4]], TABLE[1]]), "shape"),
    "empty and too large for numpy": (header(GOOD[:2], table=[["a", "uint8", [0, 2**63]]]), "shape"),
    "empty and too large by product": (header(GOOD[:2], table=[["a", "uint8", [0, 2**62, 2**62]]]), "shape"),
    "nine dimensions": (header(GOOD, table=[[TABLE[0][0], "float64", [6, *[1] * 8]], TABLE[1]]), "shape"),
    "shape type": (header(GOOD, table=[[TABLE[0][0], "float64", "6"], TABLE[1]]), "shape"),
    "table type": (header(GOOD, table={}), "table"),
    "table unpacked": ([msgpack.packb([codec.VERSION, "OBSERVE", "", 0, 0, [], {}])], "table"),
    "table not msgpack": ([msgpack.packb([codec.VERSION, "OBSERVE", "", 0, 0, b"\xc1", {}])], "table"),
    "table entry": (header(GOOD, table=[["a", "uint8"], TABLE[1]]), "table"),
    "name twice": (header([GOOD[0], GOOD[1], GOOD[1]], table=[TABLE[0], TABLE[0]]), "table"),
    "header too big": ([b"\x00" * (codec.MAX_HEADER_BYTES + 1)], "size"),
}


@pytest.mark.parametrize("frames, code", BAD.values(), ids=BAD.keys())
def test_bad_messages_are_refused_by_name(frames: list[bytes], code: str) -> None:
    with pytest.raises(WireError) as caught:
        decode(frames)
    assert caught.value.code == code


def test_large_tables_are_not_kept() -> None:
    """A robot sends the same small table again and again; what is kept of a stranger's must not add up."""
    kept = codec._layout.cache_info().currsize
    for index in range(20):
        names = [f"{index}.{entry}".ljust(200, "x") for entry in range(codec.MAX_ARRAYS)]
        frames = as_bytes(Message(codec.OBSERVE, arrays={name: np.zeros(0, np.uint8) for name in names}))
        assert len(decode(frames).arrays) == codec.MAX_ARRAYS
    assert codec._layout.cache_info().currsize == kept


def test_a_refusal_does_not_repeat_what_a_stranger_wrote() -> None:
    deep = b"\x91" * 900 + b"\x01"
    for frames in (
        [deep],
        header(GOOD, kind="A\nB" * 10_000),
        header(GOOD, table=[["a\nb", "x" * 9000, [6]], TABLE[1]]),
    ):
        with pytest.raises(WireError) as caught:
            decode(frames)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 250


def test_a_message_over_the_limit_is_refused() -> None:
    with pytest.raises(WireError, match="at most 100"):
        decode(GOOD, max_bytes=100)


@pytest.mark.slow
@settings(max_examples=500)
@given(st.data())
def test_mutated_messages_decode_or_are_refused(data: st.DataObject) -> None:
    frames = list(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        which = data.draw(st.integers(0, len(frames) - 1))
        frame = bytearray(frames[which])
        action = data.draw(st.sampled_from(["flip", "cut", "grow", "drop"]))
        if action == "flip" and frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
        elif action == "cut":
            del frame[data.draw(st.integers(0, len(frame))) :]
        elif action == "grow":
            frame += data.draw(st.binary(max_size=8))
        elif len(frames) > 1:
            del frames[which]
            continue
        frames[which] = bytes(frame)
    try:
        decode(frames)
    except WireError as error:
        assert error.code
