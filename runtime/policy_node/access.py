"""Access control of a policy node: which robots' CURVE keys may connect, and how many connections were refused.

Encryption and handshakes are libzmq's own. It asks over ZAP whether a key is on the list before a connection may carry
a message; handshakes that came to nothing are counted.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import recv_monitor_message

from tactus.runtime.wire.keys import ServerKeys

log = logging.getLogger("tactus.access")

DOMAIN = "tactus"
FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


@dataclass
class Refusals:
    """unlisted: good handshakes with a key that is not on the list. handshakes: those that failed, the unlisted among
    them: another key, another mechanism, a replay, or something that is not ZeroMQ."""

    unlisted: int = 0
    handshakes: int = 0


class AccessControl:
    """In front of `router`, which must not be bound yet. Without keys it only counts failed handshakes.

    A ZAP handler serves a whole context, so with keys `context` must be this node's own.
    """

    def __init__(self, context: zmq.Context, router: zmq.Socket[bytes], keys: ServerKeys | None) -> None:
        self.refusals = Refusals()
        self._keys = keys
        self._router = router
        self._authenticator: ThreadAuthenticator | None = None
        if keys is not None:
            router.setsockopt(zmq.CURVE_SERVER, 1)
            router.setsockopt(zmq.CURVE_SECRETKEY, keys.own.secret)
            router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN.encode())
            self._authenticator = ThreadAuthenticator(context, log=log)
            self._authenticator.start()
            self._authenticator.configure_curve_callback(DOMAIN, self)
        monitor = router.get_monitor_socket(FAILURES | zmq.EVENT_MONITOR_STOPPED)
        self._counting = threading.Thread(target=self._count, args=(monitor,), name="access", daemon=True)
        self._counting.start()

    def callback(self, domain: str, key: bytes) -> bool:
        """pyzmq's question, in its own thread: may the owner of this key connect?"""
        assert self._keys is not None
        self._keys.allowed.refresh()
        name = self._keys.name(key)
        if name is None:
            self.refusals.unlisted += 1
            if self.refusals.unlisted & (self.refusals.unlisted - 1) == 0:  # 1, 2, 4, 8 …: a flood fills no disk
                log.warning("refused a robot whose key is not authorized (%d so far)", self.refusals.unlisted)
        return name is not None

    def owner(self, frame: zmq.Frame) -> bytes | None:
        """Whose key this message came under, if it still may: b"" without keys, None if the key is listed no more."""
        if self._keys is None:
            return b""
        key = str(frame.get("User-Id")).encode()
        return key if self.allows(key) else None

    def allows(self, owner: bytes) -> bool:
        """Whether a session under this key may go on."""
        return self._keys is None or self._keys.name(owner) is not None

    def name(self, owner: bytes) -> str:
        """What the list calls this key."""
        return "" if self._keys is None else self._keys.name(owner) or "nobody"

    def refresh(self) -> None:
        """Look at the list again, so that who was taken off it is heard no more."""
        if self._keys is not None:
            self._keys.allowed.refresh()

    def _count(self, monitor: zmq.Socket[bytes]) -> None:
        """The thread's: a monitor that is not read would in the end hold up the socket."""
        while recv_monitor_message(monitor)["event"] != zmq.EVENT_MONITOR_STOPPED:
            self.refusals.handshakes += 1
        monitor.close(0)

    def close(self) -> None:
        """Before the router is closed."""
        self._router.disable_monitor()
        self._counting.join()
        if self._authenticator is not None:
            self._authenticator.stop()
