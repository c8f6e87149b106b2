"""A person at a terminal: a command on a pseudo-terminal of its own, what it says, and keys for it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]
CTRL_C = "\x03"


class Person:
    """In front of `tactus ARGUMENTS`, or another command. said: everything so far, in lines that are never broken."""

    def __init__(self, *arguments: str, command: tuple[str, ...] = (sys.executable, "-m", "tactus")) -> None:
        self._master, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "300", "LINES": "50", "TERM": "xterm"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.said = ""
        self._read = 0

    def waits_for(self, words: str, timeout_s: float = 30) -> str:
        """Until it has said these words since the last time; returns what was said up to there."""
        until_s = time.monotonic() + timeout_s
        while (at := self.said.find(words, self._read)) < 0:
            left_s = until_s - time.monotonic()
            assert left_s > 0 and self._listen(left_s), f"waiting for {words!r}; so far:\n{self.said}"
        before = self.said[self._read : at]
        self._read = at + len(words)
        return before

    def _listen(self, timeout_s: float) -> bool:
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self._master, 4096)
        except OSError:  # the command has ended
            return False
        self.said += data.decode(errors="replace")
        return bool(data)

    def presses(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def status(self, timeout_s: float = 30) -> int:
        """Hear it out; its exit status."""
        until_s = time.monotonic() + timeout_s
        while (left_s := until_s - time.monotonic()) > 0 and self._listen(left_s):
            pass
        return self.process.wait(max(0.1, until_s - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
