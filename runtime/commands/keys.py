"""Keys of the terminal as an emergency stop."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator

STOP_KEYS = {b" ": "space", b"q": "q", b"\x1b": "Esc"}


@contextlib.contextmanager
def stop_keys(stop: Callable[[str], None]) -> Iterator[bool]:
    """Meanwhile, space, q and Esc call `stop` with what was pressed, in a thread of its own.

    False, and nothing happens, if standard input is no terminal, or one that this process is in the background of.
    The terminal is as it was afterwards, whatever happens.
    """
    if not sys.stdin.isatty() or os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():
        yield False
        return
    fd = sys.stdin.fileno()
    saved = termios.tcgetattr(fd)
    # put into the background meanwhile, the process must neither be halted for reading nor for restoring
    handlers = {signum: signal.signal(signum, signal.SIG_IGN) for signum in (signal.SIGTTIN, signal.SIGTTOU)}
    end, rope = os.pipe()
    thread = threading.Thread(target=_read, args=(fd, end, stop), name="keys", daemon=True)
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        thread.start()
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, saved)
        os.close(rope)  # the thread ends, and closes its own
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _read(fd: int, end: int, stop: Callable[[str], None]) -> None:
    try:
        while end not in (ready := select.select([fd, end], [], [])[0]) and ready:
            try:
                pressed = os.read(fd, 64)
            except OSError:  # in the background, or the terminal is gone
                if select.select([end], [], [], 0.2)[0]:
                    return
                continue
            if not pressed:
                return
            for key, name in STOP_KEYS.items():
                if pressed == key or (key != b"\x1b" and key in pressed):  # an arrow key begins with Esc
                    stop(f"key {name}")
                    break
    finally:
        os.close(end)
