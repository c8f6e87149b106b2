"""Listens for a STOP over the link while the control loop's thread is busy with something that takes seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tactus.runtime.wire.link import AnyLink, LinkError, Stopped

EVERY_S = 0.02


@contextmanager
def listening(link: AnyLink, stop: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile the link belongs to a thread that drops what comes, and calls `stop` with the reason of a STOP.

    Raises what the link raised there, once the body is done.
    """
    done, ended = threading.Event(), threading.Event()
    errors: list[LinkError] = []

    def listen() -> None:
        try:
            while not done.is_set():
                if link.wait(EVERY_S):
                    link.poll()
        except LinkError as error:
            errors.append(error)
            if isinstance(error, Stopped):
                stop(error.reason)
        finally:
            ended.set()

    threading.Thread(target=listen, name="listener", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        ended.wait()
    if errors:
        raise errors[0]
