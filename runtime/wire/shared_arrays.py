"""Large arrays through memory that robot node and policy node share, where both are on one machine (Linux).

    robot node      memory without a name (memfd): a page with a key and a proof, then SLOTS places that take turns
                    HELLO    memory: {pid, fd, key}
                    OBSERVE  memory: {slot, arrays: {name: [dtype, shape, offset]}}; the arrays' frames are empty
    policy node     opens /proc/PID/fd/FD, which the system allows between processes of one user alone
                    WELCOME  memory: {proof}, which only who has opened it can know, or {reason}: why it is not used
                    CHUNK    kept: [slot], of whose arrays the policy keeps some; ERROR likewise

There is no file, so nothing is left behind, however either process ends. The memory is sealed: it can grow, but not
become smaller while the policy node reads it, which would end that process. The policy sees the arrays where they lie.
The robot node writes to a place again only when its request, or a later one, has been answered, and never to one whose
arrays the policy keeps: such a policy is given copies from then on. A place begins with the request's seq, written last
and looked at before and after the policy: what it makes of arrays that were written over all the same is not sent.
"""

from __future__ import annotations

import fcntl
import hmac
import math
import mmap
import os
import secrets
import sys
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tactus.hal.spec import DTYPES
from tactus.runtime.wire.codec import MAX_BYTES, MAX_DIMENSIONS, NAMES, Message, WireError, shown

MEMORY = "memory"
NAME = "tactus"
LARGE_BYTES = 64 * 1024
"""Smaller arrays are as quick in frames."""
SLOTS = 4
"""One request is on its way at a time; after a timeout, a few. Those beyond travel in frames."""
KEY_BYTES = 16
HEADER_BYTES, SEQ_BYTES, ALIGNED = 4096, 64, 64
EMPTY = np.empty(0, np.uint8)
MAX_ID = 2**31
MAX_SHARED_BYTES = SLOTS * (MAX_BYTES + 64 * ALIGNED) + HEADER_BYTES
MAX_KNOWN = 16
"""Places whose check is remembered."""
UNUSED = 3
"""References to a view that nobody else has: the dict's, the loop's and that of the question."""


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
        self._taken: dict[int, int] = {}
        self._free: list[int] = []
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
        self.forget()

    def packed(self, message: Message) -> Message:
        """The message with its large arrays here. Once more, as it was. As it is, if it does not fit or no place is
        free."""
        if self._latest is not None and self._latest.seq == message.seq:
            return self._latest
        large = {name: array for name, array in message.arrays.items() if array.nbytes >= LARGE_BYTES}
        fits = SEQ_BYTES + sum(_room(array.nbytes) for array in large.values()) <= self._slot_bytes
        if not (large and fits and self._free):
            return message
        assert self._memory is not None
        slot = self._taken[message.seq] = self._free.pop()
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

    def answered(self, seq: int, kept: Collection[int]) -> None:
        """This request is, and nobody reads its arrays or those of earlier ones any longer, but those in the places
        that are kept. Its place is the next one's: it is in the processor's cache."""
        for earlier in [each for each in self._taken if each <= seq]:
            if (slot := self._taken.pop(earlier)) not in kept:
                self._free.append(slot)

    def forget(self) -> None:
        """Nobody reads anything: it is another policy node."""
        self._latest = None
        self._taken.clear()
        self._free = [HEADER_BYTES + index * self._slot_bytes for index in range(SLOTS)]

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
        self._lent: dict[str, np.ndarray] = {}
        self.kept: list[int] = []
        """Places whose arrays the policy keeps."""
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

    def unpacked(self, message: Message, copied: bool = False) -> Message:
        """The message with its arrays: where they lie, to be looked at until `release`, or copies.
        Raises WireError as `views`, Overwritten if it is too late."""
        views = self.views(message)
        self._check_seq(message)
        copied |= bool(self.kept)
        arrays = {name: view.copy() if copied else view.view() for name, view in views.items()}
        self._lent = {} if copied else views
        if copied:
            self._check_seq(message)
        return message._replace(arrays={**message.arrays, **arrays})

    def release(self, message: Message) -> None:
        """The policy has answered; who has arrays of the message now keeps them. Raises Overwritten if they have not
        stayed as they were."""
        lent, self._lent = self._lent, {}
        if not lent:
            return
        self._check_seq(message)
        if any(sys.getrefcount(view) > UNUSED for view in lent.values()):
            self.kept.append(message.meta[MEMORY]["slot"])

    def _check_seq(self, message: Message) -> None:
        slot = message.meta[MEMORY]["slot"]
        if self._memory is None or self._memory[slot : slot + 8] != message.seq.to_bytes(8, "little"):
            raise Overwritten

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
        self._lent = {}
        self._memory = None  # unmapped with its last view
        os.close(self._fd)
