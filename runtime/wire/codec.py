"""The codec of the wire: a message is one small msgpack header frame, then one raw frame per array.

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

from tactus.hal.spec import DTYPES

VERSION = 2

HELLO, WELCOME, REFUSE = "HELLO", "WELCOME", "REFUSE"
RESET, OBSERVE, CHUNK = "RESET", "OBSERVE", "CHUNK"
PING, PONG, ERROR, BYE = "PING", "PONG", "ERROR", "BYE"
STOP, STOPPED = "STOP", "STOPPED"
WEIGHTS, SWAP, ACCEPTED = "WEIGHTS", "SWAP", "ACCEPTED"
KINDS = frozenset(
    {HELLO, WELCOME, REFUSE, RESET, OBSERVE, CHUNK, PING, PONG, ERROR, BYE, STOP, STOPPED, WEIGHTS, SWAP, ACCEPTED}
)

NAMES = {dtype: name for name, dtype in DTYPES.items()}  # dtype.name itself takes 9 µs
MAX_HEADER_BYTES = 64 * 1024
MAX_ITEMS = 4096  # of one list or map in a header: a few bytes may announce a list that takes half a megabyte to make
MAX_SESSION = 255  # it is a routing id as well, and those are no longer
MAX_COUNT = 2**53  # of sequence numbers and ticks: exact in float64, and far from where numpy's integers end
MAX_ARRAYS = 64
MAX_FRAMES = MAX_ARRAYS + 2  # and the routing id, and the header
MAX_DIMENSIONS = 8
MAX_BYTES = 256 * 1024 * 1024
COPY_BELOW_BYTES = 16 * 1024
CACHE_BELOW_BYTES = 4 * 1024  # a table over this is checked each time, so that what is kept stays under 8 MB

# plain integers: arithmetic on zmq's enums costs a microsecond each
SNDMORE, NOBLOCK, POLLIN, EVENTS = int(zmq.SNDMORE), int(zmq.NOBLOCK), int(zmq.POLLIN), int(zmq.EVENTS)

Frame = bytes | memoryview | zmq.Frame


class WireError(ValueError):
    """A message that is not ours or not whole. `code` names the kind of fault."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Message(NamedTuple):
    """kind: one of KINDS; session: who it is about, printable; seq: the sender's count, echoed by the reply.

    seq, tick: 0 to MAX_COUNT. arrays: C-contiguous arrays of DTYPES; decoded ones are read-only views into their
    frames. meta: msgpack's plain types.
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
    """One multipart message, uncopied; half the time of recv_multipart, which asks the socket after each frame.

    Of one with more than MAX_FRAMES frames the rest is thrown away, but for one that tells `decode` so.
    """
    frame = socket.recv(copy=False)
    frames = [frame]
    while frame.more:
        frame = socket.recv(copy=False)
        if len(frames) <= MAX_FRAMES:
            frames.append(frame)
    return frames


def arrived(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be received without waiting; quicker than to be told so by an exception."""
    return bool(int(socket.getsockopt(EVENTS)) & POLLIN)


def _no_extension(code: int, data: bytes) -> None:
    raise ValueError("extension types are not spoken here")


UNPACK_ERRORS = (ValueError, msgpack.exceptions.UnpackException, RecursionError)
_unpack = functools.partial(
    msgpack.unpackb,
    use_list=False,
    strict_map_key=True,
    ext_hook=_no_extension,
    max_array_len=MAX_ITEMS,
    max_map_len=MAX_ITEMS,
)


def shown(found: object) -> str:
    """What a peer sent, fit for a line of a log: short, without line breaks, never the whole of a nested thing."""
    if isinstance(found, str):
        return found if len(found) <= 40 and found.isprintable() else ascii(found[:40])
    return ascii(found)[:40] if found is None or isinstance(found, int | float | bytes) else type(found).__name__


def decode(frames: Sequence[Frame], max_bytes: int = MAX_BYTES) -> Message:
    """The message these frames carry; raises WireError for anything else, before allocating."""
    if not 0 < len(frames) <= MAX_ARRAYS + 1:
        raise WireError("frames", f"a message of {len(frames)} frames; 1 to {MAX_ARRAYS + 1} are accepted")
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
        header = _unpack(head)
    except UNPACK_ERRORS as error:
        raise WireError("header", f"header is not msgpack: {type(error).__name__}") from error
    if type(header) is not tuple or not header or type(header[0]) is not int or header[0] != VERSION:
        found = header[0] if type(header) is tuple and header else header
        raise WireError("version", f"protocol version {shown(found)}; this side speaks {VERSION}")
    if len(header) != 7:
        raise WireError("header", f"header of {len(header)} fields; expected 7")
    _, kind, session, seq, tick, table, meta = header
    if not isinstance(kind, str) or kind not in KINDS:
        raise WireError("kind", f"unknown kind {shown(kind)}; known: {', '.join(sorted(KINDS))}")
    if not (type(session) is str and type(seq) is int and type(tick) is int and type(meta) is dict):
        raise WireError("header", "session, seq, tick or meta has a wrong type")
    if not (0 <= seq <= MAX_COUNT and 0 <= tick <= MAX_COUNT):
        raise WireError("header", f"seq {seq} or tick {tick} is not within 0 to {MAX_COUNT}")
    if len(session) > MAX_SESSION or not session.isprintable():
        raise WireError("header", f"a session is at most {MAX_SESSION} printable characters; found {shown(session)}")
    return Message(kind, session, seq, tick, _arrays(table, views), meta)


def _arrays(table: Any, views: Sequence[memoryview]) -> dict[str, np.ndarray]:
    """views: the header's and then one per array."""
    if type(table) is not bytes:
        raise WireError("table", "the array table is not packed")
    layout = _layout(table) if len(table) < CACHE_BELOW_BYTES else _layout.__wrapped__(table)
    if len(layout) != len(views) - 1:
        raise WireError("frames", f"{len(views) - 1} array frames for a table of {len(layout)}")
    for index, (name, dtype, shape, size) in enumerate(layout, 1):
        if size != views[index].nbytes:
            found = views[index].nbytes
            raise WireError("shape", f"{shown(name)}: {dtype}{list(shape)} is {size} bytes, its frame {found}")
    return {
        name: np.frombuffer(views[index], dtype).reshape(shape)
        for index, (name, dtype, shape, _) in enumerate(layout, 1)
    }


@functools.lru_cache(maxsize=256)
def _layout(table: bytes) -> tuple[tuple[str, np.dtype, tuple[int, ...], int], ...]:
    """A table checked entry by entry: (name, dtype, shape, bytes). Kept, since peers send the same one again."""
    try:
        entries = _unpack(table)
    except UNPACK_ERRORS as error:
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
            found = f"{shown(name)}: dtype {shown(dtype_name)}"
            raise WireError("dtype", f"{found} is not accepted; accepted: {accepted}")
        if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
            found = f"{shown(name)}: shape {shown(shape)}"
            raise WireError("shape", f"{found} is not a list of up to {MAX_DIMENSIONS} sizes")
        size = extent = dtype.itemsize
        for length in shape:  # Python integers: a product that overflows 64 bits is still compared rightly
            if type(length) is not int or length < 0:
                raise WireError("shape", f"{shown(name)}: a size of {shown(length)} is no count")
            size *= length
            extent *= length or 1  # numpy has no array of 0 x 2**63, though it would be empty
        if extent > MAX_BYTES:
            raise WireError("shape", f"{shown(name)}: {dtype}{list(shape)} is more than {MAX_BYTES} bytes")
        checked.append((name, dtype, shape, size))
    if len({entry[0] for entry in checked}) != len(checked):
        raise WireError("table", "an array name appears twice")
    return tuple(checked)
