"""Large arrays through memory that robot node and policy node share, where both are on one machine (Linux).

    robot node      memory without a name (memfd): a page with a key and a proof, then SLOTS places that take turns
                    HELLO    memory: {pid, fd, key}
                    OBSERVE  memory: {slot, arrays: {name: [dtype, shape, offset]}}; the arrays' frames are empty
    policy node     opens /proc/PID/fd/FD, which the system allows between processes of one user alone
                    WELCOME  memory: {proof}, which only who has opened it can know, or {reason}: why it is not used

There is no file, so nothing is left behind, however either process ends. The memory is sealed: it can grow, but not
become smaller while the policy node reads it, which would end that process. What is read is copied before the policy
sees it. A place begins with the request's seq, written last and looked at again after the copy: arrays that have been
written over meanwhile are known, and so is that a newer request is there.
"""

from __future__ import annotations

import fcntl
import hmac
import math
import mmap
import os
import secrets
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from tactus.hal.spec import DTYPES
from tactus.runtime.wire.codec import MAX_BYTES, MAX_DIMENSIONS, NAMES, Message, WireError, shown

MEMORY = "memory"
NAME = "tactus"
LARGE_BYTES = 64 * 1024
"""Smaller arrays are as quick in frames."""
SLOTS = 4
"""One request is on its way at a time; after a timeout, a few."""
KEY_BYTES = 16
HEADER_BYTES, SEQ_BYTES, ALIGNED = 4096, 64, 64
EMPTY = np.empty(0, np.uint8)
MAX_ID = 2**31
MAX_SHARED_BYTES = SLOTS * (MAX_BYTES + 64 * ALIGNED) + HEADER_BYTES
MAX_KNOWN = 16
"""Places whose check is remembered."""
MAX_BUFFERS = 3
"""Of an array's copies: one is with the policy, one waits for it."""
UNUSED = 3
"""References to a buffer that nobody has a view of: the list's, the loop's and that of the question."""


class Unavailable(Exception):
    """Memory cannot be shared; the message says why."""


class Overwritten(Exception):
    """The place has a newer request's arrays."""


def _room(nbytes: int) -> int:
    return -(-nbytes // ALIGNED) * ALIGNED


class SharedArrays:
    """The robot node's end: its memory, and the arrays of the latest requests in it. Raises Unavailable."""

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise Unavailable(f"{sys.platform} has no memory without a name (memfd)")
        try:
            self._fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        except OSError as error:
            raise Unavailable(f"the system gives none: {error.strerror}") from error
        self._key, self._proof = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(KEY_BYTES)
        os.pwrite(self._fd, self._key + self._proof, 0)
        self._memory: mmap.mmap | None = None
        self._slot_bytes = 0
        self._used = self._next = 0
        self._latest: Message | None = None

    @property
    def announcement(self) -> dict[str, Any]:
        """For HELLO."""
        return {"pid": os.getpid(), "fd": self._fd, "key": self._key.hex()}

    def agree(self, answer: object, sizes: list[int]) -> None:
        """Take a WELCOME's word for it. sizes: in bytes, of the large arrays of a request. Raises Unavailable."""
        proof = answer.get("proof") if isinstance(answer, Mapping) else None
        if not isinstance(proof, str) or not hmac.compare_digest(proof.encode(), self._proof.hex().encode()):
            reason = answer.get("reason") if isinstance(answer, Mapping) else None
            raise Unavailable(str(reason) if reason else "this policy node does not know of it: an older Tactus?")
        if self._memory is not None:
            return
        self._slot_bytes = SEQ_BYTES + sum(_room(size) for size in sizes)
        length = HEADER_BYTES + SLOTS * self._slot_bytes
        try:
            os.posix_fallocate(self._fd, 0, length)  # here and now: what is lacking when written to ends the process
            self._memory = mmap.mmap(self._fd, length)
        except OSError as error:
            raise Unavailable(f"the system gives no {length / 1e6:.0f} MB: {error.strerror}") from error

    def packed(self, message: Message) -> Message:
        """The message with its large arrays here. Once more, as it was. What does not fit stays as it is."""
        if self._latest is not None and self._latest.seq == message.seq:
            return self._latest
        large = {name: array for name, array in message.arrays.items() if array.nbytes >= LARGE_BYTES}
        if not large or SEQ_BYTES + sum(_room(array.nbytes) for array in large.values()) > self._slot_bytes:
            return message
        assert self._memory is not None
        slot = HEADER_BYTES + self._next * self._slot_bytes
        self._used, self._next = self._next, (self._next + 1) % SLOTS
        self._memory[slot : slot + 8] = bytes(8)
        arrays, places, at = dict(message.arrays), {}, slot + SEQ_BYTES
        for name, array in large.items():
            np.ndarray(array.shape, array.dtype, self._memory, at)[...] = array
            arrays[name] = EMPTY
            places[name] = (NAMES[array.dtype], array.shape, at)
            at += _room(array.nbytes)
        self._memory[slot : slot + 8] = message.seq.to_bytes(8, "little")
        meta = {**message.meta, MEMORY: {"slot": slot, "arrays": places}}
        self._latest = message._replace(arrays=arrays, meta=meta)
        return self._latest

    def answered(self) -> None:
        """The latest request is, and nobody reads its arrays any longer: their place is the next one's, and in the
        processor's cache."""
        self._next = self._used

    def close(self) -> None:
        """Give it back. Once."""
        if self._memory is not None:
            self._memory.close()
        os.close(self._fd)


class SharedReader:
    """The policy node's end: opens what a HELLO announces, and nothing else.

    Raises WireError for an announcement that is none, Unavailable if it cannot be opened or is not that robot's.
    """

    def __init__(self, announcement: object) -> None:
        found: Any = announcement if isinstance(announcement, Mapping) else {}
        pid, fd, key = (found.get(name) for name in ("pid", "fd", "key"))
        if type(pid) is not int or type(fd) is not int or not (0 < pid < MAX_ID and 0 <= fd < MAX_ID):
            raise WireError(MEMORY, "memory needs a pid and an fd, which are numbers")
        if type(key) is not str or len(key) != 2 * KEY_BYTES:
            raise WireError(MEMORY, f"memory needs a key of {2 * KEY_BYTES} characters")
        path = f"/proc/{pid}/fd/{fd}"
        try:
            if not os.readlink(path).startswith(f"/memfd:{NAME} "):
                raise Unavailable("what is there is no memory of a robot node")
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            why = "it runs on another machine, in another container or as another user"
            raise Unavailable(f"the policy node cannot open the robot node's: {why}") from error
        self._memory: mmap.mmap | None = None
        self._buffers: dict[str, list[np.ndarray]] = {}
        self._known: dict[int, tuple[Any, dict[str, np.ndarray]]] = {}
        try:
            header = os.pread(self._fd, 2 * KEY_BYTES, 0)
            if not hmac.compare_digest(header[:KEY_BYTES].hex().encode(), key.encode(errors="replace")):
                raise Unavailable("what is there is not this robot's")
            sealed = fcntl.fcntl(self._fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            if not sealed or os.fstat(self._fd).st_blksize != mmap.PAGESIZE:
                raise Unavailable("what is there is not sealed, so that it could vanish while it is read")
        except OSError as error:
            self.close()
            raise Unavailable(f"the policy node cannot read the robot node's: {error.strerror}") from error
        except Unavailable:
            self.close()
            raise
        self.announcement = announcement
        self.answer = {"proof": header[KEY_BYTES:].hex()}
        """For WELCOME."""

    def views(self, message: Message) -> dict[str, np.ndarray]:
        """The arrays that a message has here, where the robot may still change them: for a look at shapes and dtypes.
        Raises WireError for places that are none."""
        found: Any = message.meta[MEMORY]
        slot = found.get("slot") if isinstance(found, Mapping) else None
        if type(slot) is not int:
            raise WireError(MEMORY, "memory needs a slot, and the places of arrays")
        known, views = self._known.get(slot, (None, {}))
        if known != found:  # a robot comes back to the same places again and again
            views = self._checked(slot, found.get("arrays"))
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[slot] = found, views
        for name in views:
            if name not in message.arrays or message.arrays[name].size:
                raise WireError(MEMORY, f"{shown(name)} needs an empty frame to be in memory")
        return views

    def unpacked(self, message: Message) -> Message:
        """The message with copies of its arrays. Raises WireError as `views`, Overwritten if it is too late."""
        views = self.views(message)
        slot, seq = message.meta[MEMORY]["slot"], message.seq.to_bytes(8, "little")
        assert self._memory is not None
        arrays = dict(message.arrays)
        if self._memory[slot : slot + 8] != seq:
            raise Overwritten
        for name, view in views.items():
            buffer = self._buffer(name, view)
            buffer[...] = view
            arrays[name] = buffer.view()
        if self._memory[slot : slot + 8] != seq:
            raise Overwritten
        return message._replace(arrays=arrays, meta={k: v for k, v in message.meta.items() if k != MEMORY})

    def _buffer(self, name: str, like: np.ndarray) -> np.ndarray:
        """Memory for a copy: what an earlier one was in, if nobody has a view of it any longer, since fresh memory
        takes longer to get than to fill."""
        kept = self._buffers.setdefault(name, [])
        for buffer in kept:
            if sys.getrefcount(buffer) <= UNUSED and (buffer.shape, buffer.dtype) == (like.shape, like.dtype):
                return buffer
        buffer = np.empty(like.shape, like.dtype)
        kept.append(buffer)
        del kept[:-MAX_BUFFERS]
        return buffer

    def _checked(self, slot: int, places: object) -> dict[str, np.ndarray]:
        if not isinstance(places, Mapping):
            raise WireError(MEMORY, "memory needs a slot, and the places of arrays")
        if self._memory is None:  # it has its size since the handshake
            if os.fstat(self._fd).st_size > MAX_SHARED_BYTES:
                raise WireError(MEMORY, f"the robot shares more than {MAX_SHARED_BYTES} bytes")
            self._memory = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        end = len(self._memory)
        if not HEADER_BYTES <= slot <= end - SEQ_BYTES:
            raise WireError(MEMORY, f"slot {slot} lies beyond the memory that the robot shares")
        views = {}
        for name, place in places.items():
            if type(place) is not tuple or len(place) != 3:
                raise WireError(MEMORY, f"{shown(name)}: a place is (dtype, shape, offset)")
            dtype_name, shape, offset = place
            dtype = DTYPES.get(dtype_name) if type(dtype_name) is str else None
            if dtype is None or type(shape) is not tuple or len(shape) > MAX_DIMENSIONS or type(offset) is not int:
                raise WireError(MEMORY, f"{shown(name)}: a place is (dtype, shape, offset)")
            if any(type(length) is not int or not 0 < length <= MAX_BYTES for length in shape):
                raise WireError(MEMORY, f"{shown(name)}: shape {shown(shape)} is no list of sizes")
            size = math.prod(shape) * dtype.itemsize
            if size > MAX_BYTES or not slot + SEQ_BYTES <= offset <= end - size:
                raise WireError(MEMORY, f"{shown(name)} lies beyond the memory that the robot shares")
            views[name] = np.ndarray(shape, dtype, self._memory, offset)
        return views

    def close(self) -> None:
        """Let go of it. Once."""
        self._known.clear()
        self._buffers.clear()
        self._memory = None  # unmapped with its last view
        os.close(self._fd)
