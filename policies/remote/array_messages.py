"""msgpack messages with arrays in them, as other people's policy servers and clients write them.

An array is a map in one of three forms, and each side reads all three:

    OPENPI   {b"__ndarray__": True, b"data", b"dtype", b"shape"}          openpi_client.msgpack_numpy
    ND       {b"nd": True, b"type", b"kind": b"", b"shape", b"data"}      msgpack-numpy, which GR00T N1.7 sends
    NPY      {"__ndarray_class__": True, "as_npy": a .npy file}           GR00T N1.5 and N1.6

Whatever comes in is a stranger's: its objects are counted before one of them is made, an array is as large as its bytes
or is none, and no dtype but DTYPES is taken, so that nothing is ever unpickled.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgpack
import numpy as np
from numpy.lib import format as npy

from tactus.hal.spec import DTYPES, MAX_ELEMENTS

OPENPI, ND, NPY = "openpi", "nd", "npy"
Form = Literal["openpi", "nd", "npy"]

MAX_OBJECTS = 50_000
"""In one message; what policies exchange is some dozens, and a chunk that is sent as lists its numbers."""
_BY_TEXT: Mapping[str, np.dtype] = {dtype.str: dtype for dtype in DTYPES.values()}
_NPY_HEADER = re.compile(
    rb"\{'descr': '(?P<dtype>[<|>=][a-zA-Z]\d{0,3})', 'fortran_order': (?P<turned>True|False), "
    rb"'shape': \((?P<shape>(?:\d{1,9}, ?){0,8}(?:\d{1,9})?)\), \}\s*"
)
_LENGTH = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_FIXED = {
    0xC0: 0,
    0xC2: 0,
    0xC3: 0,
    0xCA: 4,
    0xCB: 8,
    0xCC: 1,
    0xCD: 2,
    0xCE: 4,
    0xCF: 8,
    0xD0: 1,
    0xD1: 2,
    0xD2: 4,
    0xD3: 8,
}
_MANY = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


class MessageError(ValueError):
    """Bytes that are no message of theirs; the text says what was found."""


def unpack(data: bytes, forms: set[str] | None = None) -> Any:
    """What a message holds; arrays are views of it, not writeable. forms: is told which forms arrays were in.

    Raises MessageError.
    """
    _count(data)
    try:
        return msgpack.unpackb(data, object_hook=lambda found: _array(found, forms))
    except MessageError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise MessageError(f"no msgpack: {error!s:.100}") from error


def pack(message: Any, form: Form) -> bytes:
    """The bytes of a message whose arrays are to be in that form."""
    return packer(form).pack(message)


def packer(form: Form) -> msgpack.Packer:
    """For one thread that packs again and again: it keeps its memory, which is the most of what packing costs."""
    return msgpack.Packer(default={OPENPI: _openpi, ND: _nd, NPY: _npy}[form])


def _count(data: bytes) -> None:
    """Raises MessageError unless `data` is one msgpack object, whole, made of MAX_OBJECTS at the most."""
    at, end, left, seen = 0, len(data), 1, 0
    while left:
        seen += 1
        if seen > MAX_OBJECTS:
            raise MessageError(f"more than {MAX_OBJECTS} objects in one message")
        if at >= end or left > end - at:
            raise MessageError("no msgpack: cut off")
        kind = data[at]
        at, left = at + 1, left - 1
        if kind <= 0x7F or kind >= 0xE0:
            continue
        if kind <= 0x9F:
            left += (kind & 15) * (2 if kind <= 0x8F else 1)
        elif kind <= 0xBF:
            at += kind & 31
        elif kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _LENGTH:
            size = _LENGTH[kind]
            at += size + int.from_bytes(data[at : at + size])
        elif kind in _MANY:
            size, each = _MANY[kind]
            left += each * int.from_bytes(data[at : at + size])
            at += size
        else:
            raise MessageError(f"no msgpack that is exchanged here: byte {kind:#x}")
    if at != end:
        raise MessageError("no msgpack: cut off" if at > end else "no msgpack: something follows it")


def _array(found: dict[Any, Any], forms: set[str] | None) -> Any:
    """The object that a map stands for: an array, a number, a GR00T config; the map itself if it is just one."""
    if found.get(b"__ndarray__"):
        form, array = OPENPI, _made(found.get(b"dtype"), found.get(b"shape"), found.get(b"data"))
    elif b"__npgeneric__" in found:
        return found.get(b"data")
    elif b"nd" in found or "nd" in found:
        if found.get(b"kind", b"") not in (b"", ""):
            raise MessageError("an array of objects, which would have to be unpickled: refused")
        whole = found.get(b"nd")
        form, array = ND, _made(found.get(b"type"), found.get(b"shape") if whole else (), found.get(b"data"))
    elif "__ndarray_class__" in found:
        form, array = NPY, _of_npy(found.get("as_npy"))
    elif "__ModalityConfig__" in found or "__ModalityConfig_class__" in found:
        return _config(found.get("as_json", found.get("as_dict")))
    else:
        return found
    if forms is not None:
        forms.add(form)
    return array


def _made(dtype: object, shape: object, data: object) -> np.ndarray:
    known = _BY_TEXT.get(dtype) if isinstance(dtype, str) else None
    if known is None:
        raise MessageError(f"an array of dtype {dtype!r:.40}; accepted: {', '.join(_BY_TEXT)}")
    if not isinstance(shape, list | tuple) or len(shape) > 8 or any(type(size) is not int for size in shape):
        raise MessageError(f"an array of shape {shape!r:.80}")
    if not isinstance(data, bytes | memoryview) or any(size < 0 for size in shape):
        raise MessageError(f"an array of shape {shape!r:.80} without its bytes")
    if math.prod(shape) > MAX_ELEMENTS or math.prod(shape) * known.itemsize != len(data):
        raise MessageError(f"an array {dtype}{list(shape)} in {len(data)} bytes")
    return np.frombuffer(data, known).reshape(shape)


def _of_npy(data: object) -> np.ndarray:
    """Of a .npy file, as numpy writes it."""
    if not isinstance(data, bytes) or data[:6] != b"\x93NUMPY" or data[6:8] not in (b"\1\0", b"\2\0"):
        raise MessageError("an array without its .npy file")
    size = 2 * data[6]
    begins = 8 + size + int.from_bytes(data[8 : 8 + size], "little")
    header = _NPY_HEADER.fullmatch(data[8 + size : begins])
    if header is None:
        raise MessageError(f"a .npy file whose header is {data[8 + size : begins][:80]!a}")
    dtype = header["dtype"].decode()
    if "O" in dtype:
        raise MessageError("an array of objects, which would have to be unpickled: refused")
    shape = [int(size) for size in header["shape"].replace(b",", b" ").split()]
    turned = header["turned"] == b"True"
    array = _made(dtype, shape[::-1] if turned else shape, memoryview(data)[begins:])
    return array.T if turned else array


def _config(found: object) -> dict[str, Any]:
    """A GR00T ModalityConfig: its keys."""
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise MessageError(f"a ModalityConfig that is no JSON: {error!s:.80}") from error
    if not isinstance(found, dict):
        raise MessageError(f"a ModalityConfig that is {found!r:.40}")
    return found


def _plain(value: object) -> np.ndarray:
    """An array to be written: contiguous, little-endian, of numbers. Raises MessageError for any other object."""
    if not isinstance(value, np.ndarray | np.generic):
        raise MessageError(f"found {type(value).__name__}; accepted: arrays, numbers, texts, lists and maps of them")
    array = np.ascontiguousarray(value).reshape(np.shape(value))
    if array.dtype.str not in _BY_TEXT:
        raise MessageError(f"an array of dtype {array.dtype}; accepted: {', '.join(DTYPES)}")
    return array


def _openpi(value: object) -> dict[bytes, Any]:
    array = _plain(value)
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": array.dtype.str}
    return {b"__ndarray__": True, b"data": _bytes(array), b"dtype": array.dtype.str, b"shape": array.shape}


def _nd(value: object) -> dict[bytes, Any]:
    array = _plain(value)
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": array.dtype.str, b"data": array.tobytes()}
    return {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape, b"data": _bytes(array)}


def _npy(value: object) -> dict[str, Any]:
    array = _plain(value)
    if isinstance(value, np.generic):
        return value.item()
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
    return {"__ndarray_class__": True, "as_npy": header.getvalue() + _bytes(array)}


def _bytes(array: np.ndarray) -> memoryview | bytes:
    """As they lie in memory, uncopied; an empty array has none to show."""
    return array.reshape(-1).view(np.uint8).data if array.size else b""
