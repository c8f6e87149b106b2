"""Interrupts that code which is not ours swallows, as an import with a bare `except:` does: the command would go on as
if nobody had pressed Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_count = 0


def interrupt(signum: int, frame: FrameType | None) -> None:
    """A signal's handler: raises KeyboardInterrupt, as Python's own for SIGINT does, and remembers that it did."""
    global _count
    _count += 1
    raise KeyboardInterrupt


def interrupted_by(*signums: signal.Signals) -> None:
    """From now on these signals interrupt; from the main thread only."""
    for signum in signums:
        signal.signal(signum, interrupt)


@contextmanager
def not_swallowed() -> Iterator[None]:
    """An interrupt that came meanwhile is raised at the end, whatever came out in its place: nothing, or an error that
    somebody made of it."""
    before = _count
    try:
        yield
    finally:
        if _count > before:
            raise KeyboardInterrupt
