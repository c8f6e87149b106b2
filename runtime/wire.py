"""Messages as frames: one small msgpack header, then one raw frame per array.

- Arrays travel as they lie in memory, so a camera image is neither copied nor encoded on its way.
- Every dtype keeps its width: float64 stays float64.
- Nothing on the wire is code: no pickle, and a dtype must be on a short list.
- A decoder checks version, kind, table, sizes and frame count before it makes a single array, because the
  peer may be anything.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import numpy as np
import zmq

from hal.spec import DTYPES

VERSION = 2

HELLO, WELCOME, REFUSE = "HELLO", "WELCOME", "REFUSE"
RESET, OBSERVE, CHUNK = "RESET", "OBSERVE", "CHUNK"
PING, PONG, ERROR, BYE = "PING", "PONG", "ERROR", "BYE"
STOP, STOPPED = "STOP", "STOPPED"
KINDS = frozenset({HELLO, WELCOME, REFUSE, RESET, OBSERVE, CHUNK, PING, PONG, ERROR, BYE, STOP, STOPPED})

NAMES = {dtype: name for name, dtype in DTYPES.items()}  # dtype.name itself takes 9 µs
MAX_HEADER_BYTES = 64 * 1024
MAX_ARRAYS = 64
MAX_DIMENSIONS = 8
MAX_BYTES = 256 * 1024 * 1024
COPY_BELOW_BYTES = 16 * 1024
HEARTBEAT_MS = 1000

# plain integers: arithmetic on zmq's enums costs a microsecond each
SNDMORE, NOBLOCK, POLLIN, EVENTS = int(zmq.SNDMORE), int(zmq.NOBLOCK), int(zmq.POLLIN), int(zmq.EVENTS)

Frame = bytes | memoryview | zmq.Frame


class WireError(ValueError):
    """A message that is not ours or not whole. `code` names the kind of fault."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Message(NamedTuple):
    """kind: one of KINDS; session: who it is about; seq: the sender's count, echoed by the reply.

    arrays: C-contiguous arrays of DTYPES; decoded ones are read-only views into their frames.
    meta: msgpack's plain types.
    """

    kind: str
    session: str = ""
    seq: int = 0
    tick: int = 0
    arrays: Mapping[str, np.ndarray] = {}
    meta: Mapping[str, Any] = {}


def encode(message: Message) -> list[Any]:
    """Frames for a zmq multipart send. The arrays are not copied: leave them alone until they are sent."""
    table = _packed_table(tuple([(name, array.dtype, array.shape) for name, array in message.arrays.items()]))
    frames = []
    for array in message.arrays.values():
        # reshape gives zero-size and zero-dimensional arrays a buffer that memoryview can export as bytes
        frames.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
    header = (VERSION, message.kind, message.session, message.seq, message.tick, table, message.meta)
    return [msgpack.packb(header), *frames]


@functools.lru_cache(maxsize=256)
def _packed_table(layout: tuple[tuple[str, np.dtype, tuple[int, ...]], ...]) -> bytes:
    """The array table of a message; a robot sends the same one again and again."""
    for name, dtype, _ in layout:
        if dtype not in NAMES:
            raise WireError("dtype", f"{name}: dtype {dtype} cannot be sent; accepted: {', '.join(DTYPES)}")
    packed = msgpack.packb([(name, NAMES[dtype], shape) for name, dtype, shape in layout])
    assert packed is not None
    return packed


def send(socket: zmq.Socket[bytes], frames: Sequence[Any], flags: int = 0) -> None:
    """One multipart message; small frames are copied, which is quicker than to keep track of them."""
    last = len(frames) - 1
    for index, frame in enumerate(frames):
        socket.send(frame, flags | SNDMORE if index < last else flags, copy=len(frame) < COPY_BELOW_BYTES)


def receive(socket: zmq.Socket[bytes]) -> list[zmq.Frame]:
    """One multipart message, uncopied; half the time of recv_multipart, which asks the socket after each frame."""
    frames = [socket.recv(copy=False)]
    while frames[-1].more:
        frames.append(socket.recv(copy=False))
    return frames


def set_heartbeat(socket: zmq.Socket[bytes]) -> None:
    """Have libzmq find out within seconds that the other end is away, where TCP alone takes minutes."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * HEARTBEAT_MS)


def arrived(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received without waiting; quicker than to be told so by an exception."""
    return bool(int(socket.getsockopt(EVENTS)) & POLLIN)


def decode(frames: Sequence[Frame], max_bytes: int = MAX_BYTES) -> Message:
    """The message these frames carry; raises WireError for anything else, before allocating."""
    if not frames:
        raise WireError("frames", "a message without frames")
    views = [frame.buffer if isinstance(frame, zmq.Frame) else memoryview(frame) for frame in frames]
    head = views[0]
    if head.nbytes > MAX_HEADER_BYTES:
        raise WireError("size", f"header of {head.nbytes} bytes; at most {MAX_HEADER_BYTES}")
    total = 0
    for view in views:
        total += view.nbytes
    if total > max_bytes:
        raise WireError("size", f"message of {total} bytes; at most {max_bytes}")
    try:
        header = msgpack.unpackb(head, use_list=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise WireError("header", f"header is not msgpack: {type(error).__name__}") from error
    if not isinstance(header, tuple) or not header or header[0] != VERSION:
        found = header[0] if isinstance(header, tuple) and header else type(header).__name__
        raise WireError("version", f"protocol version {found!r:.40}; this side speaks {VERSION}")
    if len(header) != 7:
        raise WireError("header", f"header of {len(header)} fields; expected 7")
    _, kind, session, seq, tick, table, meta = header
    if not isinstance(kind, str) or kind not in KINDS:
        raise WireError("kind", f"unknown kind {kind!r:.40}; known: {', '.join(sorted(KINDS))}")
    if not (type(session) is str and type(seq) is int and type(tick) is int and type(meta) is dict):
        raise WireError("header", "session, seq, tick or meta has a wrong type")
    return Message(kind, session, seq, tick, _arrays(table, views), meta)


def _arrays(table: Any, views: Sequence[memoryview]) -> dict[str, np.ndarray]:
    """views: the header's and then one per array."""
    if type(table) is not bytes:
        raise WireError("table", "the array table is not packed")
    layout = _layout(table)
    if len(layout) != len(views) - 1:
        raise WireError("frames", f"{len(views) - 1} array frames for a table of {len(layout)}")
    for index, (name, dtype, shape, size) in enumerate(layout, 1):
        if size != views[index].nbytes:
            found = views[index].nbytes
            raise WireError("shape", f"{name:.40}: {dtype}{list(shape)} is {size} bytes, its frame {found}")
    return {
        name: np.frombuffer(views[index], dtype).reshape(shape)
        for index, (name, dtype, shape, _) in enumerate(layout, 1)
    }


@functools.lru_cache(maxsize=256)
def _layout(table: bytes) -> tuple[tuple[str, np.dtype, tuple[int, ...], int], ...]:
    """A table checked entry by entry: (name, dtype, shape, bytes). Kept, since peers send the same one again."""
    try:
        entries = msgpack.unpackb(table, use_list=False, strict_map_key=True)
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise WireError("table", f"the array table is not msgpack: {type(error).__name__}") from error
    if type(entries) is not tuple or len(entries) > MAX_ARRAYS:
        raise WireError("table", f"the array table must be a list of at most {MAX_ARRAYS}")
    checked = []
    for entry in entries:
        if type(entry) is not tuple or len(entry) != 3 or type(entry[0]) is not str:
            raise WireError("table", "an array table entry is not (name, dtype, shape)")
        name, dtype_name, shape = entry
        dtype = DTYPES.get(dtype_name) if type(dtype_name) is str else None
        if dtype is None:
            accepted = ", ".join(DTYPES)
            raise WireError("dtype", f"{name:.40}: dtype {dtype_name!r:.40} is not accepted; accepted: {accepted}")
        if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
            raise WireError("shape", f"{name:.40}: shape {shape!r:.80} is not a list of up to {MAX_DIMENSIONS} sizes")
        size = dtype.itemsize
        for length in shape:  # Python integers: a product that overflows 64 bits is still compared rightly
            if type(length) is not int or length < 0:
                raise WireError("shape", f"{name:.40}: shape {shape!r:.80} has a size that is no count")
            size *= length
        checked.append((name, dtype, shape, size))
    if len({entry[0] for entry in checked}) != len(checked):
        raise WireError("table", "an array name appears twice")
    return tuple(checked)
