"""Poses shared between the physics process and the cameras' process: one writer, any number of readers, no locks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tactus.hal.robot import RobotError

HEADER = 3
"""Leading int64 words: sequence number, stamp in ns, number of float64 that follow."""


class PoseWriter:
    """Keeps the newest joint positions in a file that others map.

    A sequence lock: the number is odd while a pose is being written, and a reader takes only a pose before and after
    which it found the same even number. Stores are seen in order on x86 and, by the gaps between them, in practice on
    any machine; a reader that sees a torn pose tries again.
    """

    def __init__(self, path: Path, width: int) -> None:
        np.zeros(HEADER + width, np.int64).tofile(path)
        words = np.memmap(path, np.int64, "r+")
        words[2] = width
        self._words = words
        self._values = words[HEADER:].view(np.float64)

    def write(self, values: np.ndarray, stamp_ns: int) -> None:
        self._words[0] += 1
        self._values[:] = values
        self._words[1] = stamp_ns
        self._words[0] += 1


class PoseReader:
    """The other end. Raises RobotError if the file is not one of PoseWriter's for `width` values."""

    def __init__(self, path: Path, width: int) -> None:
        try:
            words = np.memmap(path, np.int64, "r")
        except (OSError, ValueError) as error:
            raise RobotError(f"{path}: no poses to read: {error}; the twin's physics process writes them") from error
        if len(words) != HEADER + width or words[2] != width:
            raise RobotError(f"{path}: poses of another model: {len(words) - HEADER} values, expected {width}")
        self._words = words
        self._values = words[HEADER:].view(np.float64)

    def read(self) -> tuple[np.ndarray, int]:
        """The newest pose, float64[width], and its monotonic stamp in ns; stamp 0 before the first was written."""
        while True:
            before = int(self._words[0])
            values, stamp_ns = self._values.copy(), int(self._words[1])
            if before % 2 == 0 and before == int(self._words[0]):
                return values, stamp_ns
