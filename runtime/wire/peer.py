"""A connection for one order to a policy node, of somebody who drives no robot: weights, another policy, a stop."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import zmq

from tactus.runtime.wire.address import is_local, malformed, needs_ipv6
from tactus.runtime.wire.keys import ClientKeys
from tactus.runtime.wire.link import Unreachable


@contextlib.contextmanager
def peer(endpoint: str, keys: ClientKeys | None = None) -> Iterator[zmq.Socket[bytes]]:
    """A DEALER at this address, closed afterwards. Raises OSError for a host that is not found, ZMQError for what is no
    address."""
    socket = zmq.Context.instance().socket(zmq.DEALER)
    try:
        socket.setsockopt(zmq.IPV6, needs_ipv6(endpoint))
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTING_ID, uuid.uuid4().hex.encode())
        if keys is not None:
            keys.secure(socket)
        socket.connect(endpoint)
        yield socket
    finally:
        socket.close()


def check_trusted(endpoint: str, keys: ClientKeys | None, order: str) -> None:
    """Raise Unreachable for an address that is none, or on another machine without keys. order: what goes there."""
    if wrong := malformed(endpoint):
        raise Unreachable(f"cannot connect: {wrong}")
    if keys is None and not is_local(endpoint):
        raise Unreachable(f"{endpoint} is on another machine: {order} there with keys only (`tactus keygen`)")
