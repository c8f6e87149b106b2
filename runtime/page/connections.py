"""Connections to the page: whoever has shown no right to it is let go of soon, and cannot keep others out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MAX_STRANGERS = 32
"""Connections on which nothing was allowed yet; of more, the oldest is closed."""
STRANGER_S = 10.0
SOON_S = 0.2


class Connections:
    """Makes the protocol of each connection with `make`, and closes those that `know` is not told of in time.

    Without this, somebody who only opens connections would use up the robot's file descriptors, which its cameras need.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol]) -> None:
        self._make = make
        self._strangers: dict[asyncio.Protocol, asyncio.TimerHandle] = {}

    def __call__(self) -> asyncio.Protocol:
        if len(self._strangers) >= MAX_STRANGERS:
            self._drop(next(iter(self._strangers)))
        protocol = self._make()
        self._strangers[protocol] = asyncio.get_running_loop().call_later(STRANGER_S, self._drop, protocol)
        return protocol

    def know(self, protocol: asyncio.Protocol) -> None:
        """A request of this one was allowed."""
        if timer := self._strangers.pop(protocol, None):
            timer.cancel()

    def _drop(self, protocol: asyncio.Protocol) -> None:
        self.know(protocol)
        if not _aborted(protocol):  # of many at once, it is not yet told of its own
            asyncio.get_running_loop().call_later(SOON_S, _aborted, protocol)


def _aborted(protocol: asyncio.Protocol) -> bool:
    transport = getattr(protocol, "transport", None)
    if transport is not None:
        transport.abort()
    return transport is not None
