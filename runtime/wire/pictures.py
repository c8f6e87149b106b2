"""Pictures as JPEG on the wire, for slow links: packed on the robot node, unpacked on the policy node.

    an array           uint8[H, W, 3], RGB, or uint8[T, H, W, 3] where the policy wants a history
    packed             uint8[n]: T baseline JPEG files one after the other, and in the message's meta their lengths
                       jpeg: {name: [length, …]}

What comes may be anything: a file's header is read, and compared with what the policy expects, before the decoder
makes a single pixel. One scan, 8 bits, three channels: a small file cannot ask for much work.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tactus.hal.spec import Feature, LazyArrays
from tactus.runtime.wire.codec import Message, WireError, shown
from tactus.runtime.wire.config import JPEG

SEQUENTIAL = (0xC0, 0xC1)
"""Start-of-frame markers that are taken: baseline and extended, both Huffman."""
NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Of 0xC0 to 0xCF, those that begin no frame."""
START_OF_SCAN = 0xDA
MAX_HEADER_BYTES = 64 * 1024
IN_A_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
"""A marker that ends the scan: in its data 0xFF is followed by 0, or is a restart."""


def is_picture(array: np.ndarray) -> bool:
    """Whether it can travel as JPEG: colours of 8 bits, alone or several of them."""
    return array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3 and array.size > 0


def fits_jpeg(feature: Feature) -> bool:
    """Whether arrays of this feature are such pictures."""
    return feature.is_image and feature.dtype == "uint8" and feature.shape[2] == 3 and feature.nbytes > 0


def packed(message: Message, quality: int) -> Message:
    """The message with its pictures as JPEG of this quality, 1 to 100; the same bits for the same pictures."""
    arrays, lengths = dict(message.arrays), {}
    for name, array in arrays.items():
        if is_picture(array):
            files = [_encoded(picture, quality) for picture in (array if array.ndim == 4 else [array])]
            arrays[name] = np.concatenate(files)
            lengths[name] = [len(file) for file in files]
    return message._replace(arrays=arrays, meta={**message.meta, JPEG: lengths})


def _encoded(picture: np.ndarray, quality: int) -> np.ndarray:
    import cv2  # here, since most links do without

    bgr = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].reshape(-1)


def shapes(message: Message) -> dict[str, tuple[int, ...]]:
    """What the packed pictures of a message will be, from their headers alone; empty without any.

    Raises WireError for what is not packed as `packed` does.
    """
    return {name: _shape(name, files) for name, files in _files(message).items()}


def unpacked(message: Message) -> Message:
    """The message with its pictures as arrays again, each decoded when it is first read. Raises WireError, then too."""
    files = _files(message)
    if not files:
        return message
    arrays: dict[str, np.ndarray | Callable[[], np.ndarray]] = dict(message.arrays)
    for name, parts in files.items():
        shape = _shape(name, parts)
        for file in parts:
            _check_scan(shown(name), file)
        arrays[name] = lambda name=name, parts=parts, shape=shape: _decoded(name, parts, shape)
    meta = {key: value for key, value in message.meta.items() if key != JPEG}
    return message._replace(arrays=LazyArrays(arrays), meta=meta)


def _files(message: Message) -> dict[str, list[memoryview]]:
    lengths: Any = message.meta.get(JPEG, {})
    if not isinstance(lengths, Mapping):
        raise WireError(JPEG, "jpeg must be the lengths of each picture's files")
    found = {}
    for name, each in lengths.items():
        array = message.arrays.get(name)
        if array is None or array.dtype != np.uint8 or array.ndim != 1:
            raise WireError(JPEG, "jpeg names what is no array of bytes")
        if type(each) not in (tuple, list) or not each or any(type(n) is not int or n < 1 for n in each):
            raise WireError(JPEG, "jpeg must be the lengths of each picture's files")
        if sum(each) != array.size:
            raise WireError(JPEG, f"{sum(each)} bytes of JPEG in a frame of {array.size}")
        data, at, parts = array.data, 0, []
        for length in each:
            parts.append(data[at : at + length])
            at += length
        found[name] = parts
    return found


def _shape(name: str, files: list[memoryview]) -> tuple[int, ...]:
    sizes = {_header(shown(name), file)[:2] for file in files}
    if len(sizes) > 1:
        raise WireError(JPEG, f"{shown(name)}: a history of pictures of {len(sizes)} sizes")
    [(height, width)] = sizes
    return (height, width, 3) if len(files) == 1 else (len(files), height, width, 3)


def _header(name: str, file: memoryview) -> tuple[int, int, int]:
    """Height and width that a file announces, and where its scan's data begin. Raises WireError unless it is one of
    those that are taken."""
    head = bytes(file[:MAX_HEADER_BYTES])
    if head[:2] != b"\xff\xd8":
        raise WireError(JPEG, f"{name}: not a JPEG: it begins with {head[:4].hex()}")
    at, size = 2, None
    while at + 4 <= len(head) and head[at] == 0xFF:
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        body = head[at + 4 : at + 2 + length]
        if length < 2 or len(body) != length - 2:
            break
        if marker == START_OF_SCAN:
            if size is None or len(body) < 1 or body[0] != 3:
                raise WireError(JPEG, f"{name}: a JPEG whose first scan has not all three channels of a picture")
            return *size, at + 2 + length
        if 0xC0 <= marker <= 0xCF and marker not in NO_FRAME:
            if marker not in SEQUENTIAL or size is not None or len(body) < 6:
                raise WireError(JPEG, f"{name}: a JPEG that is not baseline: progressive, or coded otherwise")
            if body[0] != 8 or body[5] != 3:
                raise WireError(JPEG, f"{name}: a JPEG of {body[5]} channels of {body[0]} bits; expected 3 of 8")
            size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
        at += 2 + length
    raise WireError(JPEG, f"{name}: a JPEG whose header is damaged or cut off")


def _check_scan(name: str, file: memoryview) -> None:
    """That a file ends where its only scan does, which takes a look at all of it."""
    height, width, scan = _header(name, file)
    if len(file) > height * width * 3 + MAX_HEADER_BYTES:
        raise WireError(JPEG, f"{name}: a JPEG of {len(file)} bytes is more than the picture itself")
    end = IN_A_SCAN.search(file, scan)
    if end is None or file[end.start() :] != b"\xff\xd9":
        raise WireError(JPEG, f"{name}: a JPEG that is cut off, or has more than one scan")


def _decoded(name: str, files: list[memoryview], shape: tuple[int, ...]) -> np.ndarray:
    import cv2  # here, since most links do without

    pictures = []
    for file in files:
        try:
            bgr = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        except cv2.error as error:
            raise WireError(JPEG, f"{shown(name)}: a JPEG that cannot be decoded: {error!s:.100}") from error
        if bgr is None or bgr.shape != shape[-3:]:
            raise WireError(JPEG, f"{shown(name)}: a JPEG that cannot be decoded")
        pictures.append(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
    return pictures[0] if len(shape) == 3 else np.stack(pictures)


class Packer:
    """Packs messages in a thread of its own, so that the control loop does not wait for it.

    `socket` becomes readable when a message is ready. One waits at the most: a newer one takes its place.
    """

    def __init__(self, quality: int) -> None:
        import cv2  # noqa: F401 - loaded before anything moves

        self._quality = quality
        self._waiting: Message | None = None
        self._ready: list[Message | Exception] = []
        self._changed = threading.Condition()
        self._closing = False
        self.socket, self._wake = socket.socketpair()
        self.socket.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="pictures", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Have a message packed; returns at once."""
        with self._changed:
            self._waiting = message
            self._changed.notify()

    def take(self) -> list[Message]:
        """Those that are ready, in their order. Raises what packing one has raised."""
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return []
        with self._changed:
            ready, self._ready = self._ready, []
        messages = []
        for one in ready:
            if isinstance(one, Exception):
                raise one
            messages.append(one)
        return messages

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None and not self._closing:
                    self._changed.wait()
                if self._closing:
                    return
                message, self._waiting = self._waiting, None
            assert message is not None
            try:
                one: Message | Exception = packed(message, self._quality)
            except Exception as error:  # noqa: BLE001 - raised where it is taken
                one = error
            with self._changed:
                self._ready.append(one)
            self._wake.send(b"\0")

    def close(self) -> None:
        """End the thread; what is not packed yet is forgotten."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self.socket.close()
        self._wake.close()
