"""A ZeroMQ peer by hand, byte by byte: it can do what libzmq never would (ZMTP 3.1, rfc.zeromq.org/spec/37)."""

from __future__ import annotations

import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
MORE, LONG, COMMAND = 1, 2, 4


def connect(endpoint: str, timeout_s: float = 1.0) -> socket.socket:
    """A plain TCP connection to tcp://HOST:PORT; nothing is said yet."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout_s)


def ready(identity: bytes, kind: bytes = b"DEALER") -> bytes:
    """The READY command that ends a handshake without encryption."""
    properties = ((b"Socket-Type", kind), (b"Identity", identity))
    body = b"".join(bytes([len(key)]) + key + struct.pack(">I", len(value)) + value for key, value in properties)
    return frame(b"\x05READY" + body, COMMAND)


def frame(data: bytes, flags: int = 0) -> bytes:
    """One frame on the wire; flags: MORE if another follows, COMMAND for what is no message."""
    if len(data) < 256:
        return bytes([flags, len(data)]) + data
    return bytes([flags | LONG]) + struct.pack(">Q", len(data)) + data


def join(endpoint: str, identity: bytes) -> socket.socket:
    """A connection whose handshake as a DEALER is complete."""
    peer = connect(endpoint)
    peer.sendall(GREETING)
    left = len(GREETING)
    while left:
        left -= len(peer.recv(left))
    peer.sendall(ready(identity))
    peer.recv(1024)
    return peer
