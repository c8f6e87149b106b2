"""Keys of the terminal: the emergency stop, and whatever else somebody makes of them."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator

STOP_KEYS = {" ": "space", "q": "q", "\x1b": "Esc"}
SEQUENCE = re.compile(r"\x1b(\[[0-9;]*[A-Za-z~]|O[A-Za-z])")
"""What arrows and the like send: they begin with Esc, and are not Esc."""

Taker = Callable[[str], bool]
"""Gets a key before the emergency stop does, and says whether it was for it."""


@contextlib.contextmanager
def stop_keys(stop: Callable[[str], None], first: Taker = lambda key: False) -> Iterator[bool]:
    """Meanwhile, space, q and Esc call `stop` with what was pressed, in a thread of its own; those that `first` takes
    do not.

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
    thread = threading.Thread(target=_read, args=(fd, end, stop, first), name="keys", daemon=True)
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        thread.start()
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, saved)
        os.close(rope)  # the thread ends, and closes its own
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _read(fd: int, end: int, stop: Callable[[str], None], first: Taker) -> None:
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
            for key in SEQUENCE.sub("", pressed.decode(errors="ignore")):
                if not first(key) and key in STOP_KEYS:
                    stop(f"key {STOP_KEYS[key]}")
                    break
    finally:
        os.close(end)
